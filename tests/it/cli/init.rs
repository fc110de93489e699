//! `toka init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Desk, transcript};

#[test]
fn init_without_a_passphrase_is_refused_and_makes_nothing() {
    let desk = Desk::empty();
    transcript!(desk.toka(&["init"]), @r"
    $ toka init
    --- stderr
    error: $DIR/home/keys/operator-operator-0001.key: the operator key is kept under a passphrase, and none was given
    hint: give it: --passphrase-file FILE
    --- exit 2
    ");
    assert_eq!(fs::read_dir(desk.at("")).expect("a folder").count(), 0);
}

#[test]
fn init_for_testing_makes_a_node_whose_secrets_are_its_owners_alone() {
    let desk = Desk::empty();
    transcript!(desk.toka(&["init", "--profile", "testing"]), @r"
    $ toka init --profile testing
    made $DIR/home
    origin  toka.local/<id>
    root    toka.local/<id>/root+<key>
    keys    5 event epochs, <time> to <time>
    --- stderr
    note: Move $DIR/home/keys/root.key to a safe place off this machine: whoever has it can speak for this node, and the node does not need it.
    note: This is a home for testing: whoever can read its files can approve in its operator's name.
    --- exit 0
    ");
    let mut secrets = 0;
    for file in fs::read_dir(desk.at("home/keys")).expect("keys") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("metadata").permissions().mode() & 0o777;
        if file.file_name().to_string_lossy().ends_with(".key") {
            assert_eq!(mode, 0o600, "{file:?}");
            secrets += 1;
        }
        assert_eq!(mode & 0o022, 0, "{file:?}");
    }
    assert_eq!(secrets, 7, "a root key, five event keys and the operator's");
}

#[test]
fn a_second_init_is_refused_unless_asked_to_accept_what_is_there() {
    let desk = Desk::with_node();
    let key = fs::read(desk.at("home/keys/root.key")).expect("a key");
    transcript!(desk.toka(&["init", "--profile", "testing"]), @r"
    $ toka init --profile testing
    --- stderr
    error: $DIR/home: there is a home of a node here already
    hint: use it, name another folder with --dir, or add --if-missing
    --- exit 1
    ");
    transcript!(desk.toka(&["init", "--if-missing"]), @r"
    $ toka init --if-missing
    is there already: $DIR/home
    origin  toka.local/<id>
    root    toka.local/<id>/root+<key>
    keys    5 event epochs, <time> to <time>
    --- stderr
    note: Move $DIR/home/keys/root.key to a safe place off this machine: whoever has it can speak for this node, and the node does not need it.
    note: This is a home for testing: whoever can read its files can approve in its operator's name.
    --- exit 0
    ");
    assert_eq!(fs::read(desk.at("home/keys/root.key")).expect("a key"), key);
}

#[test]
fn a_passphrase_file_seals_the_key_of_the_operator() {
    let desk = Desk::empty();
    desk.write("my.passphrase", "correct horse battery staple\n");
    transcript!(desk.toka(&["init", "--passphrase-file", "my.passphrase", "--operator", "ada"]), @r"
    $ toka init --passphrase-file my.passphrase --operator ada
    made $DIR/home
    origin  toka.local/<id>
    root    toka.local/<id>/root+<key>
    keys    5 event epochs, <time> to <time>
    --- stderr
    note: Move $DIR/home/keys/root.key to a safe place off this machine: whoever has it can speak for this node, and the node does not need it.
    --- exit 0
    ");
    let key = fs::read_to_string(desk.at("home/keys/operator-ada-0001.key")).expect("a key");
    assert!(key.contains("argon2"), "sealed: {key}");
    let guide = super::agents::reader(super::agents::GUIDE);
    desk.write("project/docs/guide.md", "hello\n");
    desk.run(&guide).expect(5);
}

#[test]
fn a_passphrase_that_is_none_is_refused() {
    let desk = Desk::empty();
    desk.write("empty", "\n");
    transcript!(desk.toka(&["init", "--passphrase-file", "empty"]), @r"
    $ toka init --passphrase-file empty
    --- stderr
    error: empty: it holds no passphrase of 1 to 1024 bytes
    hint: put the passphrase there, as a line of 1 to 1024 bytes
    --- exit 8
    ");
    transcript!(desk.toka(&["init", "--passphrase-file", "nowhere"]), @r"
    $ toka init --passphrase-file nowhere
    --- stderr
    error: nowhere: No such file or directory (os error 2)
    hint: put the passphrase there, as a line of 1 to 1024 bytes
    --- exit 8
    ");
}

#[test]
fn a_folder_with_other_things_in_it_is_left_alone() {
    let desk = Desk::empty();
    desk.write("home/thesis.txt", "years of work");
    transcript!(desk.toka(&["init", "--profile", "testing"]), @r"
    $ toka init --profile testing
    --- stderr
    error: $DIR/home: this folder has no node.json, so it is no home of a node
    hint: name a new folder with --dir; if it was a home, put node.json back from a copy
    --- exit 8
    ");
    assert_eq!(fs::read_dir(desk.at("home")).expect("a folder").count(), 1);
}

#[test]
fn a_node_is_made_where_it_is_asked_for_and_in_an_empty_folder() {
    let desk = Desk::empty();
    fs::create_dir(desk.at("other")).expect("a folder");
    desk.toka(&["init", "--profile", "testing", "--dir", "other"]).expect(0);
    desk.toka(&["--home", "elsewhere/deep", "init", "--profile", "testing"]).expect(0);
    assert!(desk.at("other/node.json").exists() && desk.at("elsewhere/deep/node.json").exists());
    assert!(!desk.at("home").exists());
}

#[test]
fn what_init_cannot_do_is_said() {
    let desk = Desk::empty();
    desk.write("file", "");
    transcript!(desk.toka(&["init", "--profile", "testing", "--operator", "Ada Lovelace"]), @r"
    $ toka init --profile testing --operator Ada Lovelace
    --- stderr
    error: `Ada Lovelace` cannot name an operator: 1 to 32 lower-case letters, digits and `-`, a letter first
    hint: name it for example `operator`
    --- exit 2
    ");
    transcript!(desk.toka(&["init", "--profile", "production"]), @r"
    $ toka init --profile production
    --- stderr
    error: invalid value 'production' for '--profile <PROFILE>'
      [possible values: default, testing]

    For more information, try '--help'.
    --- exit 2
    ");
    transcript!(desk.toka(&["init", "--profile", "testing", "--root-key", "file"]), @r"
    $ toka init --profile testing --root-key file
    --- stderr
    error: file: with the root key kept elsewhere nobody here can sign the key grants of this node (five event epochs and the operator), and this version cannot read them from elsewhere
    hint: leave --root-key out, and move keys/root.key to a safe place after `toka init`
    --- exit 2
    ");
    transcript!(desk.toka(&["init", "--profile", "testing", "--dir", "file"]), @r"
    $ toka init --profile testing --dir file
    --- stderr
    error: $DIR/file: a home cannot be made here: Not a directory (os error 20)
    hint: a home is made beside its place and moved there in one step, so a mount point cannot be one; name a folder below: --dir $DIR/file/home
    --- exit 1
    ");
}

#[test]
fn init_tells_a_program_what_it_tells_people() {
    let desk = Desk::empty();
    let made = desk.json(&["init", "--profile", "testing"]);
    assert_eq!(made["schema"], "toka/init/1");
    assert_eq!(made["dir"], desk.text("home"));
    assert_eq!(made["new"], true);
    assert_eq!(made["epochs"].as_array().expect("epochs").len(), 5);
    assert!(made["root"].as_str().expect("a key").starts_with(made["origin"].as_str().expect("an origin")));
    for file in made["files"].as_array().expect("files") {
        assert!(desk.at("home").join(file.as_str().expect("a path")).exists(), "{file}");
    }
    let again = desk.json(&["init", "--if-missing"]);
    assert_eq!(again["new"], false);
    assert_eq!(again["root"], made["root"]);
}
