//! `toka sessions list` and `toka sessions show`.

use std::collections::BTreeSet;

use super::agents::{GUIDE, SECRET, SECRET_OR_NOT, reader};
use super::{Desk, transcript};

#[test]
fn a_node_that_has_run_nothing_has_no_sessions() {
    let desk = Desk::with_node();
    transcript!(desk.toka(&["sessions", "list"]), @r"
    $ toka sessions list
    --- stderr
    no session yet; `toka run AGENT.yaml` makes one
    --- exit 0
    ");
    assert_eq!(desk.json(&["sessions", "list"])["sessions"], serde_json::json!([]));
    transcript!(desk.toka(&["sessions", "show", "ab"]), @r"
    $ toka sessions show ab
    --- stderr
    error: no session begins with `ab`
    hint: `toka sessions list` shows them
    --- exit 2
    ");
}

#[test]
fn without_a_node_there_is_nothing_to_list() {
    transcript!(Desk::empty().toka(&["sessions", "list"]), @r"
    $ toka sessions list
    --- stderr
    error: there is no store at $DIR/home/toka.sqlite
    hint: `toka init` makes the node's folder; --home names another
    --- exit 8
    ");
}

#[test]
fn sessions_are_listed_with_how_they_ended() {
    let (desk, _) = Desk::with_session();
    desk.session(&reader(SECRET));
    desk.killed_session();
    let ran = desk.toka(&["sessions", "list"]);
    ran.expect(0);
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let column = |name: &str| {
        let at = rows[0].iter().position(|head| *head == name).expect(name);
        rows[1..].iter().map(|row| row[at]).collect::<Vec<_>>()
    };
    assert_eq!(column("AGENT"), ["-", "reader", "reader", "reads-all"]);
    assert_eq!(column("STATUS"), ["system", "completed", "failed", "interrupted"]);
    assert_eq!(column("REFUSED"), ["0", "0", "1", "0"]);
    let listed = desk.json(&["sessions", "list"]);
    assert_eq!(listed["schema"], "toka/sessions/1");
    let listed = listed["sessions"].as_array().expect("sessions");
    for (short, session) in column("SESSION").iter().zip(listed) {
        assert!(session["session"].as_str().expect("an id").starts_with(short));
        for number in ["opened_us", "entries", "calls", "refused"] {
            assert!(session[number].is_u64(), "{session}");
        }
    }
    assert_eq!(desk.json(&["session", "list"])["sessions"].as_array(), Some(listed), "the singular is an alias");
}

#[test]
fn a_session_is_shown_entry_by_entry() {
    let desk = Desk::with_node();
    let session = desk.session(&reader(&format!("{SECRET_OR_NOT}\n{GUIDE}")));
    transcript!(desk.toka(&["sessions", "show", &session[..12]]), @r"
    $ toka sessions show <id>
    session <id>  completed  opened <time>
        0  SessionOpened   node      session opened at toka.local/<id>; root grants: fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=200&exp=<us>, agent:reader?live=1&exp=<us>
        1  ToolBound       node      tools bound: file-reader
        2  AgentSpawned    opener    reader spawned with fs:project/docs/**#read?exp=<us>, tool:file-reader?calls=200&exp=<us>
        3  AgentStarted    opener    reader started
        4  Refused         reader    file-reader project:secret.txt: OUT_OF_SCOPE, it would need fs:project/secret.txt#read
        5  CallAdmitted    reader    file-reader project:docs/guide.md
        6  CallFinished    executor  file-reader succeeded
        7  AgentEnded      reader    reader completed
        8  StateCommitted  node      state <id> after 7
        9  SessionClosed   opener    session closed: done
    --- exit 0
    ");
    let shown = desk.json(&["sessions", "show", &session]);
    assert_eq!(shown["schema"], "toka/session/1");
    assert_eq!(shown["session"], session);
    assert_eq!(shown["timeline"].as_array().expect("moments").len(), 10);
    let holders: BTreeSet<&str> =
        shown["grants"].as_array().expect("grants").iter().filter_map(|grant| grant["holder"].as_str()).collect();
    assert_eq!(holders, BTreeSet::from(["opener", "reader"]));
}

#[test]
fn a_prefix_names_a_session_only_if_it_is_of_one() {
    let (desk, one) = Desk::with_session();
    let other = desk.session(&reader(GUIDE));
    // Two random ids hardly share a digit that could be typed; the empty prefix is one of both.
    let ran = desk.toka(&["sessions", "show", ""]);
    ran.expect(2);
    assert!(ran.err.contains(&one[..8]) && ran.err.contains(&other[..8]), "{ran}");
    for sharing in (1..64).take_while(|len| one[..*len] == other[..*len]) {
        desk.toka(&["sessions", "show", &one[..sharing]]).expect(2);
    }
    desk.toka(&["sessions", "show", &one[..8].to_uppercase()]).expect(0);
    transcript!(desk.toka(&["sessions", "show", "xyz"]), @r"
    $ toka sessions show xyz
    --- stderr
    error: no session begins with `xyz`
    hint: `toka sessions list` shows them
    --- exit 2
    ");
}

#[test]
fn a_prefix_that_many_share_is_answered_with_candidates() {
    let (desk, first) = Desk::with_session();
    let mut sessions = vec![first];
    // Of 17 ids two begin with the same digit.
    let digit = loop {
        let begin = |id: &String| id.chars().next().expect("a digit");
        let mut seen = BTreeSet::new();
        if let Some(twin) = sessions.iter().map(begin).find(|digit| !seen.insert(*digit)) {
            break twin;
        }
        sessions.push(desk.session(&reader(GUIDE)));
    };
    let ran = desk.toka(&["sessions", "show", &digit.to_string()]);
    ran.expect(2);
    for session in &sessions {
        assert_eq!(ran.err.contains(&session[..8]), session.starts_with(digit), "{ran}");
    }
}

#[test]
fn a_damaged_session_hides_no_other() {
    let (desk, one) = Desk::with_session();
    let other = desk.session(&reader(GUIDE));
    let store = rusqlite::Connection::open(desk.at("home/toka.sqlite")).expect("the store");
    let damage = format!(
        "DROP TRIGGER entries_never_change; UPDATE entries SET entry = x'00'
         WHERE seq = 3 AND session = (SELECT number FROM sessions WHERE id = x'{one}')"
    );
    store.execute_batch(&damage).expect("damage");
    drop(store);
    let ran = desk.toka(&["sessions", "list"]);
    ran.expect(8);
    assert!(ran.out.lines().any(|line| line.starts_with(&other[..8]) && line.contains("completed")), "{ran}");
    assert!(ran.out.lines().any(|line| line.starts_with(&one[..8]) && line.contains("damaged")), "{ran}");
    assert!(ran.err.contains(&one[..8]) && ran.err.contains("entry 3:"), "{ran}");
    desk.toka(&["sessions", "export", &one, "-o", "one.tkb"]).expect(8);
    desk.toka(&["sessions", "export", &other, "-o", "other.tkb"]).expect(0);
}

#[test]
fn a_store_of_garbage_is_unreadable() {
    let desk = Desk::with_node();
    desk.write("home/toka.sqlite", "this is no store of anything\n".repeat(400));
    transcript!(desk.toka(&["sessions", "list"]), @r"
    $ toka sessions list
    --- stderr
    error: $DIR/home/toka.sqlite is not a store of Toka: it is no SQLite file
    --- exit 8
    ");
}
