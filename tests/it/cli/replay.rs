//! `toka replay`, which is `toka-replay` with the node's own store where no input is named.

use std::fs;

use super::{Desk, Ran, transcript};

/// An exported session beside its node.
fn exported() -> (Desk, String) {
    let (desk, session) = Desk::with_session();
    desk.toka(&["sessions", "export", &session, "-o", "session.tkb"]).expect(0);
    (desk, session)
}

#[test]
fn the_store_and_a_bundle_are_verified() {
    let (desk, session) = exported();
    transcript!(desk.toka(&["replay", "verify", "--session", &session[..12]]), @r"
    $ toka replay verify --session <id>
    OK: $DIR/home/toka.sqlite: 1 session, 9 entries as written
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session <id>  9 entries  closed  all of it stands
      frame OK · chain OK · signatures OK · keys OK · commands OK · legality OK · state OK · blobs OK · tail OK · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 4 present, 0 omitted
    --- exit 0
    ");
    transcript!(desk.toka(&["replay", "verify", "session.tkb", "--root", "home/keys/root.pub"]), @r"
    $ toka replay verify session.tkb --root home/keys/root.pub
    OK: session.tkb: 1 session, 9 entries as written
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session <id>  9 entries  closed  all of it stands
      frame OK · chain OK · signatures OK · keys OK · commands OK · legality OK · state OK · blobs OK · tail OK · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 4 present, 0 omitted
      2 entries of other sessions cited that are not here
    --- exit 0
    ");
}

#[test]
fn the_open_session_of_a_node_is_told_and_keeps_no_store_from_being_whole() {
    let (desk, _) = Desk::with_session();
    let store = desk.toka(&["replay", "verify"]);
    store.expect(0);
    assert!(store.out.starts_with("OK: ") && store.out.contains("truncation after seq 11 not excluded"), "{store}");
    assert!(store.out.contains("TRUNCATION_NOT_EXCLUDED"), "{store}");
    let told = desk.json(&["replay", "verify"]);
    let open: Vec<_> =
        told["sessions"].as_array().expect("sessions").iter().filter(|one| one["status"] == "open").collect();
    assert_eq!((open.len(), &open[0]["axes"]["tail"], &told["axes"]["tail"]), (1, &"NOT_CHECKED".into(), &"OK".into()));
    // Whoever asks for its end is told that there is none.
    desk.toka(&["replay", "verify", "--session", open[0]["session"].as_str().expect("an id")]).expect(4);
    desk.toka(&["replay", "verify", "--require", "closed"]).expect(4);
}

#[test]
fn a_tail_that_others_cite_is_missed_where_it_was_cut_from_the_session_of_the_node() {
    let (desk, _) = Desk::with_session();
    let told = desk.json(&["replay", "verify"]);
    let open = told["sessions"].as_array().expect("sessions").iter().find(|one| one["status"] == "open").expect("one");
    let node = open["session"].as_str().expect("an id");
    let store = rusqlite::Connection::open(desk.at("home/toka.sqlite")).expect("the store");
    let number = format!("(SELECT number FROM sessions WHERE id = x'{node}')");
    let last = "SELECT entry FROM entries WHERE seq = 0 AND session = ";
    let bytes: Vec<u8> = store.query_row(&format!("{last}{number}"), [], |row| row.get(0)).expect("an entry");
    let last = toka_kernel::Entry::read(&bytes).expect("an entry");
    let (hash, header) = (last.hash(), last.header());
    // Heads, too, as somebody does who knows the store.
    let cut = format!(
        "DROP TRIGGER entries_stay; DROP TRIGGER heads_go_forward;
         DELETE FROM entries WHERE seq > 0 AND session = {number};
         UPDATE heads SET seq = 0, hash = x'{hash}', time_us = {}, kind = {} WHERE session = {number}",
        header.time_us, header.kind
    );
    store.execute_batch(&cut).expect("cuts");
    drop(store);
    let ran = desk.toka(&["replay", "verify"]);
    ran.expect(3);
    assert!(ran.out.contains("REF_MISMATCH") && !ran.out.contains("STORE_KEY_MISMATCH"), "{ran}");
}

#[test]
fn a_bundle_without_a_root_key_vouches_for_nothing() {
    let (desk, _) = exported();
    transcript!(desk.toka(&["replay", "verify", "session.tkb"]), @r"
    $ toka replay verify session.tkb
    INCOMPLETE: session.tkb: 1 session, 9 entries as written; not checked: keys (exit 4)
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session <id>  9 entries  closed  nothing of it is vouched for
      frame OK · chain OK · signatures OK · keys NOT_CHECKED · commands OK · legality OK · state OK · blobs OK · tail OK · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 4 present, 0 omitted
      2 entries of other sessions cited that are not here

    #1 ROOT_NOT_GIVEN
        → without the root key nobody knows who wrote this: give the node's root key: --root FILE, or --root VKEY
    --- exit 4
    ");
}

#[test]
fn the_store_and_a_bundle_are_shown_alike() {
    let (desk, session) = exported();
    let store = desk.toka(&["replay", "show", "--session", &session]);
    let bundle = desk.toka(&["replay", "show", "session.tkb"]);
    let (heading, entries) = store.expect(0).out.split_once('\n').expect("a heading, since a store has many");
    assert_eq!((heading, entries), (&*format!("session {}", &session[..12]), &*bundle.expect(0).out));
    transcript!(desk.toka(&["replay", "show", "--session", &session[..12], "--kind", "CallAdmitted"]), @r"
    $ toka replay show --session <id> --kind CallAdmitted
    session <id>
         4  <time>  CallAdmitted    file-reader project:docs/guide.md by reader
    --- stderr
    note: shown as stored, not verified; `verify` checks it
    --- exit 0
    ");
    let lines = desk.toka(&["replay", "show", "--session", &session[..12], "--json"]);
    assert_eq!(lines.expect(0).json_lines().len(), 9);
}

#[test]
fn the_nodes_own_store_is_meant_whatever_else_is_said() {
    let (desk, session) = exported();
    for args in [
        &["verify", "--session", &session[..12]] as &[&str],
        &["verify", "--root", "home/keys/root.pub", "--jobs", "1", "--session", &session],
        &["verify", "--require", "chain,signatures", "--quiet"],
        &["show", "--kind", "CallAdmitted"],
        &["show", "--seq", "0..3"],
        &["show", "--agent", "reader", "--tool", "file-reader"],
        &["state", "--at", "4", "--only", "grants"],
        &["why", "4"],
        &["why", "reader", "--session", &session[..12]],
        &["diff", "--from", "4", "--to", "4"],
        &["stats"],
    ] {
        desk.toka(&[&["replay"], args].concat()).expect(0);
    }
}

/// The options of `help` that are followed by a word.
fn options_with_a_word(help: &Ran) -> Vec<String> {
    let options = help.out.lines().filter_map(|line| line.trim_start().split_once(" <")?.0.split(' ').next_back());
    options.filter(|option| option.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn no_word_of_an_option_is_taken_for_an_input() {
    let desk = Desk::with_node();
    for (verb, what) in [("verify", ""), ("show", ""), ("state", ""), ("diff", ""), ("stats", ""), ("why", "4")] {
        let help = desk.toka(&["replay", verb, "--help"]);
        let options = options_with_a_word(help.expect(0));
        assert!(options.len() > 1, "{options:?}\n{help}");
        for option in options {
            let what = Some(what).filter(|what| !what.is_empty());
            let args: Vec<&str> = ["replay", verb, &option, "word"].into_iter().chain(what).collect();
            let ran = desk.toka(&args);
            assert!(!ran.err.contains("<INPUT>"), "{option} takes a word: say so in TAKES_A_WORD\n{ran}");
        }
    }
}

#[test]
fn toka_replay_and_toka_dash_replay_say_the_same() {
    let (desk, _) = exported();
    for args in [
        &["verify", "session.tkb", "--root", "home/keys/root.pub", "--json"] as &[&str],
        &["verify", "home/toka.sqlite"],
        &["show", "session.tkb"],
        &["verify", "nowhere.tkb"],
        &["show", "home"],
        &["state", "session.tkb", "--root", "home/keys/root.pub", "--json"],
        &["why", "session.tkb", "4", "--root", "home/keys/root.pub"],
        &["diff", "session.tkb", "home/toka.sqlite", "--root", "home/keys/root.pub"],
        &["stats", "home/toka.sqlite", "--json"],
        &["explain", "REVOKED"],
        &["explain", "REVOKD"],
    ] {
        let (one, other) = (desk.ran("toka-replay", args), desk.toka(&[&["replay"], args].concat()));
        assert_eq!((one.exit, one.out, one.err), (other.exit, other.out, other.err), "{args:?}");
    }
}

#[test]
fn explain_is_a_verb_of_its_own() {
    let desk = Desk::empty();
    let (own, passed) =
        (desk.toka(&["explain", "LINK_MISMATCH"]), desk.ran("toka-replay", &["explain", "LINK_MISMATCH"]));
    assert_eq!((own.exit, &own.out, &own.err), (passed.exit, &passed.out, &passed.err));
    transcript!(desk.toka(&["explain", "TOOL_DISABELD"]), @r"
    $ toka explain TOOL_DISABELD
    --- stderr
    error: there is no code `TOOL_DISABELD`; like it: TOOL_DISABLED
    --- exit 2
    ");
    assert!(desk.toka(&["explain", "--help"]).expect(0).out.contains("Usage: toka explain"));
}

#[test]
fn a_call_of_a_real_session_is_explained_from_the_store_up_to_the_operators_signature() {
    let (desk, session) = exported();
    let why = desk.toka(&["replay", "why", "4", "--session", &session[..12]]);
    transcript!(why, @r"
    $ toka replay why 4 --session <id>
    session <id> of $DIR/home/toka.sqlite: 9 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    sys: system session <id> of $DIR/home/toka.sqlite: 12 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared

           4  call <id>: CallAdmitted at <time>: file-reader project:docs/guide.md, asked by reader
           4    need 0: tool:file-reader?digest=<id>&arg./path=path:project/docs/guide.md&closed, covered by
           2      grant <id> tool:file-reader?calls=200&exp=<us>: issued by opener to reader
           0        grant <id> tool:file-reader?depth=1&calls=200&exp=<us>: a root grant of opener
           0          genesis at toka.local/<id>, opened by opener
           0            signed by event key <id> of epoch 1, granted by
                          root key <id>: the one that was given
           0            opening signed by operator key <id> of epoch 1, granted by
                          root key <id>: the one that was given
      sys:10            SessionRegistered at <time>: session <id> registered for opener; root grants: fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=200&exp=<us>, agent:reader?live=1&exp=<us>, asked by opener
       sys:0              command signed by operator key <id> of epoch 1, granted by
                            root key <id>: the one that was given
                          by right of
       sys:0                grant <id> admin:#cancel,grant-root,members,open-session,pause,register-tool,resolve,revoke-any?exp=<us>: a root grant of opener
       sys:0                  genesis at toka.local/<id>, opened by opener
       sys:0                    signed by event key <id> of epoch 1, granted by
                                  root key <id>: the one that was given
       sys:0              opener: human, listed in the genesis with key <id> in the node's process
       sys:0                genesis at toka.local/<id>, opened by opener (above)
           4    need 1: fs:project/docs/guide.md#read, covered by
           2      grant <id> fs:project/docs/**#read?exp=<us>: issued by opener to reader
           0        grant <id> fs:project/docs/**#read?depth=1&exp=<us>: a root grant of opener
           0          genesis at toka.local/<id>, opened by opener (above)
           2    agent reader <id>: spawned by opener; ended at seq 6
           0      grant <id> agent:reader?live=1&exp=<us>: a root grant of opener
           0        genesis at toka.local/<id>, opened by opener (above)
           0      opener: human, listed in the genesis with key <id> in the node's process
           0        genesis at toka.local/<id>, opened by opener (above)
           5    CallFinished at <time>: file-reader succeeded, asked by executor
           4      because of CallAdmitted at <time>: file-reader project:docs/guide.md, asked by reader (above)
           0      executor: executor, listed in the genesis
           0        genesis at toka.local/<id>, opened by opener (above)
    --- exit 0
    ");
    // The bundle has no system session, and says so.
    let alone = desk.toka(&["replay", "why", "session.tkb", "4", "--root", "home/keys/root.pub"]);
    assert!(alone.expect(0).out.contains("is not in this input"), "{alone}");
    let tree = desk.json(&["replay", "why", "4", "--session", &session]);
    let call = tree["tree"]["id"].as_str().expect("an id").to_owned();
    // No session is named: the id is found in the one that has it.
    assert_eq!(desk.json(&["replay", "why", &call[..14]])["tree"], tree["tree"]);
}

#[test]
fn another_nodes_root_key_vouches_for_nothing() {
    let (desk, _) = exported();
    desk.toka(&["init", "--profile", "testing", "--dir", "other"]).expect(0);
    let ran = desk.toka(&["replay", "verify", "session.tkb", "--root", "other/keys/root.pub", "--json"]);
    ran.expect(3);
    assert_eq!(ran.json_lines()[0]["verdict"], "FAIL");
}

#[test]
fn a_changed_byte_is_found_at_its_place() {
    let (desk, _) = exported();
    let mut bytes = fs::read(desk.at("session.tkb")).expect("a bundle");
    let at = find(&bytes, b"docs/guide.md");
    bytes[at] ^= 1;
    desk.write("session.tkb", bytes);
    let ran = desk.toka(&["replay", "verify", "session.tkb", "--root", "home/keys/root.pub", "--json"]);
    ran.expect(3);
    let report = &ran.json_lines()[0];
    assert_eq!(report["verdict"], "FAIL");
    let places = report["findings"].as_array().expect("findings").iter().filter(|finding| finding["seq"].is_u64());
    assert!(places.count() > 0, "{report:#}");
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it stands there")
}

#[test]
fn an_open_session_is_told_from_a_whole_one() {
    let (desk, _) = Desk::with_open_session();
    let ran = desk.toka(&["replay", "verify"]);
    ran.expect(4);
    assert!(ran.out.starts_with("INCOMPLETE: "), "{ran}");
    let given_up = desk.toka(&["replay", "verify", "--require", "chain,signatures,legality"]);
    given_up.expect(0);
}

#[test]
fn what_is_no_log_is_unreadable() {
    let desk = Desk::with_node();
    desk.write("garbage", "garbage");
    desk.write("empty", "");
    transcript!(desk.toka(&["replay", "verify", "garbage"]), @r"
    $ toka replay verify garbage
    --- stderr
    error: garbage: it is neither a store of Toka nor a bundle; name a store file or a .tkb file
    --- exit 8
    ");
    transcript!(desk.toka(&["replay", "show", "empty"]), @r"
    $ toka replay show empty
    --- stderr
    error: empty: it is empty; name a store file or a .tkb file
    --- exit 8
    ");
    transcript!(desk.toka(&["replay", "verify", "home"]), @r"
    $ toka replay verify home
    --- stderr
    error: home: it is a folder; name the store file or the bundle in it
    --- exit 8
    ");
    transcript!(desk.toka(&["replay", "verify"]), @r"
    $ toka replay verify
    --- stderr
    error: $DIR/home/toka.sqlite: No such file or directory (os error 2); check the path
    --- exit 8
    ");
}

#[test]
fn wrong_words_after_replay_are_usage() {
    let (desk, session) = exported();
    transcript!(desk.toka(&["replay", "rewind"]), @r"
    $ toka replay rewind
    --- stderr
    error: unrecognized subcommand 'rewind'

    Usage: toka replay <COMMAND>

    For more information, try '--help'.
    --- exit 2
    ");
    transcript!(desk.toka(&["replay", "verify", "--session", "zz"]), @r"
    $ toka replay verify --session zz
    --- stderr
    error: --session zz: no session begins so
    --- exit 2
    ");
    transcript!(desk.toka(&["replay", "show", "--kind", "Tea"]), @r"
    $ toka replay show --kind Tea
    --- stderr
    error: --kind Tea: neither a number nor one of SessionOpened, StateCommitted, SessionClosed, SessionRegistered, SessionEnded, Refused, AgentSpawned, AgentStarted, AgentPaused, AgentResumed, AgentStopping, AgentEnded, TaskScheduled, TaskStarted, TaskCompleted, TaskFailed, TaskSkipped, MessageSent, MessageTaken, GrantIssued, GrantRevoked, ToolRegistered, ToolApproved, ToolQuarantined, ToolBound, ToolUnbound, CallAdmitted, CallFinished, CallAttempted, CancelRequested, OutcomeResolved, PrincipalAdded, Observed, SandboxProbed
    --- exit 2
    ");
    transcript!(desk.toka(&["replay", "show", "--seq", "9..3"]), @r"
    $ toka replay show --seq 9..3
    --- stderr
    error: --seq 9..3: not of the form 3, 3..9, 3.. or ..9
    --- exit 2
    ");
    transcript!(desk.toka(&["replay", "verify", "--require", "faith"]), @r"
    $ toka replay verify --require faith
    --- stderr
    error: --require faith: the axes, `closed`, L1 and L2 are known
    --- exit 2
    ");
    desk.toka(&["replay", "verify", "--session", &session, "--head", "x"]).expect(2);
}
