//! `toka sessions export`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Desk, transcript};

#[test]
fn an_exported_session_is_verified_with_one_file_and_one_public_key() {
    let (desk, session) = Desk::with_session();
    transcript!(desk.toka(&["sessions", "export", &session, "-o", "session.tkb"]), @r"
    $ toka sessions export <id> -o session.tkb
    session.tkb
    --- stderr
    <n> bytes; verify it anywhere: toka-replay verify session.tkb --root root.pub
    --- exit 0
    ");
    let elsewhere = Desk::empty();
    fs::copy(desk.at("session.tkb"), elsewhere.at("session.tkb")).expect("a copy");
    fs::copy(desk.at("home/keys/root.pub"), elsewhere.at("root.pub")).expect("a copy");
    let ran = elsewhere.ran("toka-replay", &["verify", "session.tkb", "--root", "root.pub"]);
    ran.expect(0);
    assert_eq!(fs::read_dir(elsewhere.at("")).expect("a folder").count(), 2, "verifying writes nothing");
}

#[test]
fn an_export_is_named_after_its_session_and_may_be_read_by_others() {
    let (desk, session) = Desk::with_session();
    let exported = desk.json(&["sessions", "export", &session[..8]]);
    assert_eq!(exported["schema"], "toka/export/1");
    assert_eq!(exported["session"], session);
    let file = desk.at(exported["file"].as_str().expect("a file"));
    assert_eq!(file, desk.at(&format!("{}.tkb", &session[..16])));
    let metadata = fs::metadata(&file).expect("a file");
    assert_eq!(exported["bytes"], metadata.len());
    fs::write(desk.at("plain"), "").expect("a file");
    let plain = fs::metadata(desk.at("plain")).expect("a file").permissions().mode();
    assert_eq!(metadata.permissions().mode(), plain);
}

#[test]
fn two_exports_of_a_session_are_the_same_bytes() {
    let (desk, session) = Desk::with_session();
    desk.toka(&["sessions", "export", &session, "-o", "one"]).expect(0);
    desk.toka(&["sessions", "export", &session, "-o", "two"]).expect(0);
    assert_eq!(fs::read(desk.at("one")).expect("one"), fs::read(desk.at("two")).expect("two"));
}

#[test]
fn a_file_that_is_there_is_written_over_only_when_told_so() {
    let (desk, session) = Desk::with_session();
    desk.write("there", "mine");
    transcript!(desk.toka(&["sessions", "export", &session, "-o", "there"]), @r"
    $ toka sessions export <id> -o there
    --- stderr
    error: there: there is a file of this name already
    hint: name another file with -o, or write over it with --force
    --- exit 1
    ");
    assert_eq!(fs::read(desk.at("there")).expect("a file"), b"mine");
    desk.toka(&["sessions", "export", &session, "-o", "there", "--force"]).expect(0);
    desk.toka(&["replay", "verify", "there", "--root", "home/keys/root.pub", "--quiet"]).expect(0);
}

#[test]
fn the_node_itself_is_never_written_over() {
    let (desk, session) = Desk::with_session();
    let before = fs::read(desk.at("home/toka.sqlite")).expect("a store");
    transcript!(desk.toka(&["sessions", "export", &session, "-o", "home/toka.sqlite", "--force"]), @r"
    $ toka sessions export <id> -o home/toka.sqlite --force
    --- stderr
    error: home/toka.sqlite: this file lies in the node's own folder and is not written over
    hint: name another file with -o
    --- exit 1
    ");
    assert_eq!(fs::read(desk.at("home/toka.sqlite")).expect("a store"), before);
}

#[test]
fn an_export_that_cannot_be_leaves_nothing_behind() {
    let (desk, session) = Desk::with_session();
    transcript!(desk.toka(&["sessions", "export", &session, "-o", "no/where.tkb"]), @r"
    $ toka sessions export <id> -o no/where.tkb
    --- stderr
    error: no/where.tkb: there is no folder no
    --- exit 1
    ");
    transcript!(desk.toka(&["sessions", "export", "zz", "-o", "zz.tkb"]), @r"
    $ toka sessions export zz -o zz.tkb
    --- stderr
    error: no session begins with `zz`
    hint: `toka sessions list` shows them
    --- exit 2
    ");
    fs::create_dir(desk.at("folder")).expect("a folder");
    desk.toka(&["sessions", "export", &session, "-o", "folder", "--force"]).expect(1);
    let left: Vec<_> =
        fs::read_dir(desk.at("")).expect("a folder").map(|entry| entry.expect("entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("tkb")), "{left:?}");
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("export")), "{left:?}");
}

#[test]
fn an_open_session_is_exported_as_far_as_it_goes() {
    let (desk, session) = Desk::with_open_session();
    desk.toka(&["sessions", "export", &session, "-o", "open.tkb"]).expect(0);
    let verified = desk.toka(&["replay", "verify", "open.tkb", "--root", "home/keys/root.pub", "--json"]);
    verified.expect(4);
    let report = &verified.json_lines()[0];
    assert_eq!(report["checked"]["entries"], desk.json(&["sessions", "show", &session])["entries"]);
}
