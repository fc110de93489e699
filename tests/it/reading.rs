//! The verbs that tell what a log says: `state`, `why`, `diff`, `stats`, `explain`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use toka_kernel::ids::Seq;
use toka_kernel::{Ask, Body, Entry, State};
use toka_projections::END_CODES;
use toka_runtime::agents::EndCode;
use toka_store::bundle::SessionContent;
use toka_store::{BundleBuilder, Vkey};
use toka_tests::session::{Keys, ORIGIN, Session, call};

use crate::golden::{spine, system, work};
use crate::verify::{Log, agent_of, child, honest, open, reforge, root};

/// A file with bundles in it, and the root key that vouches for them.
struct Shelf {
    dir: TempDir,
    root: String,
}

impl Shelf {
    fn new() -> Shelf {
        let root = Vkey::new(&format!("{ORIGIN}/root"), root()).expect("a key").to_string();
        Shelf { dir: tempfile::tempdir().expect("a folder"), root }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn bundle(&self, name: &str, sessions: &[&Session]) -> PathBuf {
        let content = |session: &&Session| {
            let log = Log::of(session);
            SessionContent { session: log.session, first_seq: 0, entries: log.entries, blobs: log.blobs }
        };
        let mut bytes = Vec::new();
        BundleBuilder { sessions: sessions.iter().map(content).collect() }.write(&mut bytes).expect("a bundle");
        self.put(name, &bytes)
    }

    fn run(&self, args: &[&str]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["toka-replay"].iter().chain(args).map(std::ffi::OsString::from);
        let exit = toka_replay::cli::run(args, &mut out, &mut err, false);
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).expect("text").replace(&format!("{}/", self.dir.path().display()), "")
        };
        (exit, text(out), text(err))
    }

    /// What a verb prints of a log whose root key is given.
    fn told(&self, verb: &str, path: &Path, args: &[&str]) -> (u8, String, String) {
        let path = path.display().to_string();
        let all = [&[verb, &path], args, &["--root", &self.root]].concat();
        self.run(&all)
    }

    fn json(&self, verb: &str, path: &Path, args: &[&str]) -> Value {
        let (exit, out, err) = self.told(verb, path, &[args, &["--json"]].concat());
        assert!(matches!(exit, 0 | 1), "{verb} {args:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Every session that stands for what this version writes.
fn golden() -> Vec<Session> {
    let [system, cites] = system();
    vec![spine(), system, cites, work(), honest()]
}

#[test]
fn the_state_after_each_entry_is_the_one_that_the_kernel_reaches_and_the_log_commits_to() {
    let shelf = Shelf::new();
    let mut committed = 0;
    for session in golden() {
        let path = shelf.bundle("s.tkb", &[&session]);
        let mut state = State::new();
        for (at, entry) in session.entries.iter().enumerate() {
            let _ = state.apply(entry).expect("an honest entry is legal");
            let told = shelf.json("state", &path, &["--at", &at.to_string()]);
            let (digest, leaves) = state.digest();
            assert_eq!((told["digest"].as_str(), told["leaves"].as_u64()), (Some(&*digest.to_string()), Some(leaves)));
            assert_eq!(told["rows"].as_array().map(|rows| rows.len() as u64), Some(leaves), "a row for every leaf");
            let next = session.entries.get(at + 1).and_then(|next| next.event().ok());
            if let Some(Body::StateCommitted(body)) = next.map(|event| &event.body) {
                assert_eq!(
                    (told["digest"].as_str(), told["committed_at"].as_u64()),
                    (Some(&*body.digest.to_string()), Some(at as u64 + 1))
                );
                committed += 1;
            }
        }
        assert_eq!(shelf.json("state", &path, &[])["digest"], session.state.digest().0.to_string());
    }
    assert!(committed > 4, "{committed} commitments were compared");
}

#[test]
fn every_field_of_a_state_has_a_name_that_can_be_read() {
    // The short names of docs/FORMAT.md that are nowhere a long one as well.
    const SHORT: [&str; 40] = [
        "cls", "rul", "opnr", "phas", "clsd", "aliv", "cust", "mods", "abov", "ownr", "epo", "nbf", "naf", "grnt",
        "rvk", "spnt", "rsvd", "chld", "flgt", "dig", "eff", "rsv", "unbd", "sdig", "stat", "paus", "par", "dpth",
        "dubt", "agt", "att", "tmo", "rtry", "req", "unrd", "prin", "exec", "grs", "ptr", "typ",
    ];
    let shelf = Shelf::new();
    for session in golden() {
        let path = shelf.bundle("s.tkb", &[&session]);
        for at in [session.head.seq / 2, session.head.seq] {
            let told = shelf.json("state", &path, &["--at", &at.to_string()]);
            names(&told["rows"], &mut |name| assert!(!SHORT.contains(&name), "{name} has no long name"));
        }
    }
}

fn names(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                each(name);
                names(value, each);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, each)),
        _ => {}
    }
}

#[test]
fn a_part_of_a_state_is_shown_alone() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]);
    let (exit, out, _) = shelf.told("state", &path, &["--at", "10", "--only", "agents,calls,budgets"]);
    assert_eq!(exit, 0);
    insta::assert_snapshot!(out, @r"
    session e7886e3a3076 of s.tkb: 11 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    state after seq 10: digest e3aa45e05ae2160afc721d1d9a69c830985d1c053e16feea0e233e3ec70572e4, 22 rows

    budgets (5)
      12d94764098c600c  spent=[calls=3 bytes_in=512 bytes_out=512 wall_us=2000] reserved=[bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] rate_us=0 children=0 live=0 in_flight=1
      a37e92fbd963cb95  spent=[calls=3 bytes_in=512 bytes_out=512 wall_us=2000] reserved=[bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] rate_us=0 children=1 live=0 in_flight=1
      b0bc0d98cead1765  spent=[calls=3 bytes_in=512 bytes_out=512 wall_us=2000] reserved=[bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] rate_us=0 children=0 live=0 in_flight=1
      f6200dabec723ded  spent=[] reserved=[] rate_us=0 children=0 live=1 in_flight=0
      f6326a6f9fa31b9a  spent=[calls=3 bytes_in=512 bytes_out=512 wall_us=2000] reserved=[bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] rate_us=0 children=1 live=0 in_flight=1

    agents (1)
      f4098bb783bed1e9  spec=auditor spec_digest=0808080808080808 state=running paused_by=- parent=6ec96e681448016a depth=1 grant=f6200dabec723ded plan={workstream=main phase=1 requires=[] then=1 retry=- essential=yes objectives=[] deliverables=[] milestones=[] replaces=-} live_children=0 open_calls=1 open_tasks=0 doubts=0

    calls (3)
      88687bbf77e09e90  seq=7 principal=f4098bb783bed1e9 executor=eeeeeeeeeeeeeeee grants=[12d94764098c600c, b0bc0d98cead1765] reserve=[calls=1 bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] deadline_us=1767225630007000 attempt=1 depth=0 effect=read cancel=no doubt=no ended_at_commit=0
      eb8f7ca91e5b4e2f  seq=10 principal=f4098bb783bed1e9 executor=eeeeeeeeeeeeeeee grants=[12d94764098c600c, b0bc0d98cead1765] reserve=[calls=1 bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] deadline_us=1767225630010000 attempt=1 depth=0 effect=read cancel=no doubt=no ended_at_commit=-
      fc93897fae5124dc  seq=4 principal=f4098bb783bed1e9 executor=eeeeeeeeeeeeeeee grants=[12d94764098c600c, b0bc0d98cead1765] reserve=[calls=1 bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] deadline_us=1767225630004000 attempt=1 depth=0 effect=read cancel=no doubt=no ended_at_commit=0
    ");
    let (exit, _, err) = shelf.told("state", &path, &["--only", "teapots"]);
    assert_eq!((exit, err.contains("the parts are session, principals")), (2, true), "{err}");
    let (exit, _, err) = shelf.told("state", &path, &["--at", "99"]);
    assert_eq!((exit, &*err), (2, "error: --at 99: the session ends at seq 16\n"));
}

#[test]
fn a_log_does_not_differ_from_itself() {
    let shelf = Shelf::new();
    for session in golden() {
        let (path, copy) = (shelf.bundle("s.tkb", &[&session]), shelf.bundle("copy.tkb", &[&session]));
        let same = |args: &[&str]| {
            let told = shelf.json("diff", &path, args);
            assert_eq!(
                (&told["exit"], &told["first"], &told["changes"]),
                (&0.into(), &Value::Null, &Vec::<Value>::new().into())
            );
        };
        same(&[&copy.display().to_string()]);
        same(&[]);
        for at in 0..=session.head.seq {
            let at = at.to_string();
            same(&["--from", &at, "--to", &at]);
        }
    }
}

#[test]
fn a_difference_of_states_made_to_one_gives_the_other() {
    let shelf = Shelf::new();
    let session = honest();
    let path = shelf.bundle("s.tkb", &[&session]);
    let rows = |at: Seq| {
        let told = shelf.json("state", &path, &["--at", &at.to_string()]);
        told["rows"].as_array().expect("rows").clone()
    };
    for (from, to) in [(1, 2), (3, 9), (0, 19), (12, 4)] {
        let told = shelf.json("diff", &path, &["--from", &from.to_string(), "--to", &to.to_string()]);
        assert_eq!(told["exit"], 1);
        let same = |row: &Value, other: &Value| row["part"] == other["part"] && row["key"] == other["key"];
        let mut made = rows(from);
        for change in told["changes"].as_array().expect("changes") {
            match change["change"].as_str() {
                Some("removed") => made.retain(|row| !same(row, change)),
                Some("added") => made.push(serde_json::json!({
                    "part": change["part"], "key": change["key"], "fields": change["right"],
                })),
                _ => {
                    let row = made.iter_mut().find(|row| same(row, change)).expect("a row");
                    for (path, value) in change["right"].as_object().expect("fields") {
                        let mut field = &mut row["fields"];
                        for name in path.split('.') {
                            field = &mut field[name];
                        }
                        *field = value.clone();
                    }
                }
            }
        }
        let mut wanted = rows(to);
        let key = |row: &Value| row.to_string();
        made.sort_by_key(key);
        wanted.sort_by_key(key);
        assert_eq!(made, wanted, "from {from} to {to}");
    }
}

#[test]
fn a_difference_is_shown_field_by_field() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]);
    let (exit, out, _) = shelf.told("diff", &path, &["--from", "3", "--to", "5"]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!(out, @r"
    left:  session e7886e3a3076 of s.tkb: 4 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    right: session e7886e3a3076 of s.tkb: 6 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    the same entries up to the end of the left side; seq 4 is only right
      right  d73de036da611c6b  2026-01-01T00:00:00.004000Z  CallAdmitted  reader project:docs/a.md by auditor
    state after seq 3 on the left and seq 5 on the right: 1 added, 0 removed, 4 changed

    budgets (4)
      ~ 12d94764098c600c  spent [] → [calls=1 bytes_in=256 bytes_out=256 wall_us=1000]
      ~ a37e92fbd963cb95  spent [] → [calls=1 bytes_in=256 bytes_out=256 wall_us=1000]
      ~ b0bc0d98cead1765  spent [] → [calls=1 bytes_in=256 bytes_out=256 wall_us=1000]
      ~ f6326a6f9fa31b9a  spent [] → [calls=1 bytes_in=256 bytes_out=256 wall_us=1000]

    calls (1)
      + fc93897fae5124dc  seq=4 principal=f4098bb783bed1e9 executor=eeeeeeeeeeeeeeee grants=[12d94764098c600c, b0bc0d98cead1765] reserve=[calls=1 bytes_in=1048576 bytes_out=1048576 wall_us=30000000 cpu_us=20000000] deadline_us=1767225630004000 attempt=1 depth=0 effect=read cancel=no doubt=no ended_at_commit=0
    ");
}

/// Two histories of one session that part after entry 16, both signed.
fn forked() -> [Session; 2] {
    let (mut one, mut other) = (open(), open());
    let agent = agent_of(&one);
    one.end(agent);
    other.call(agent, "project:docs/z.md", child(&other, 2), &[child(&other, 1)]);
    [one, other]
}

#[test]
fn two_signed_entries_for_one_place_are_equivocation_with_both_as_evidence() {
    let shelf = Shelf::new();
    let [one, other] = forked();
    let (left, right) = (shelf.bundle("one.tkb", &[&one]), shelf.bundle("other.tkb", &[&other]));
    let right = right.display().to_string();
    let (exit, out, _) = shelf.told("diff", &left, &[&right]);
    assert_eq!(exit, 3);
    insta::assert_snapshot!(out, @r"
    left:  session e7886e3a3076 of one.tkb: 18 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    right: session e7886e3a3076 of other.tkb: 18 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    EQUIVOCATION at seq 17: the event key signed two different entries for one place; the holder of the event key told two stories; this is proof of it
      left   4298466a72ee7d4f  2026-01-01T00:00:00.017000Z  AgentEnded  auditor completed by auditor
      right  9104282e10ac2c07  2026-01-01T00:00:00.017000Z  Refused  reader project:docs/z.md: REVOKED, it would need tool:reader?digest=898c6df21cc3fa035c2f0cdcaae528bc06f1d24b596eaf02f800b6377f2cd36a&arg./path=path:project/docs/z.md&closed by auditor
    state after seq 17 on the left and seq 17 on the right: 0 added, 0 removed, 4 changed

    principals (1)
      ~ f4098bb783bed1e9  alive no → yes

    budgets (1)
      ~ f6200dabec723ded  live 0 → 1

    agents (1)
      ~ f4098bb783bed1e9  state ended → running

    refusals (1)
      ~ f4098bb783bed1e9  counts [[103, 1], [304, 1], [403, 1]] → [[103, 1], [304, 2], [403, 1]], seen [0a892423d9faa9b7, aae4d0a076daf241, c07b9b94b4101703] → [0a892423d9faa9b7, 4e3f9a1ae67e4b35, aae4d0a076daf241, c07b9b94b4101703]
    ");
    let (exit, out, _) = shelf.told("diff", &left, &[&right, "--json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((exit, &told["first"]["code"], &told["first"]["seq"]), (3, &"EQUIVOCATION".into(), &17.into()));
    for (side, session) in [("left", &one), ("right", &other)] {
        let raw: String = session.entries[17].bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told["first"][side]["raw"], raw, "the whole entry is the evidence");
    }
}

#[test]
fn a_forgery_signed_with_the_event_key_is_equivocation_against_an_honest_copy() {
    let shelf = Shelf::new();
    let session = honest();
    let forged = reforge(&Keys::seeded(1).writer(), &session.entries, 6, |header, _| header.time_us += 1);
    // The time of a later entry is no longer after it, so that it breaks a rule as well.
    let forged = reforge(&Keys::seeded(1).writer(), &forged, 9, |_, body| {
        let at = body.len() - 40;
        body[at] ^= 1;
    });
    let left = shelf.bundle("s.tkb", &[&session]);
    let right = shelf.put("forged.tkb", &Log::with(&session, &forged).bundle());
    let (exit, out, _) = shelf.told("diff", &left, &[&right.display().to_string()]);
    assert_eq!(exit, 3);
    assert!(out.contains("EQUIVOCATION at seq 6") && out.contains("right does not stand to its end"), "{out}");
}

#[test]
fn one_log_that_goes_on_where_the_other_ends_is_no_equivocation() {
    let shelf = Shelf::new();
    let (short, long) = (shelf.bundle("short.tkb", &[&open()]), shelf.bundle("long.tkb", &[&honest()]));
    let told = shelf.json("diff", &short, &[&long.display().to_string()]);
    assert_eq!((&told["exit"], &told["first"]["seq"], &told["first"]["code"]), (&1.into(), &17.into(), &Value::Null));
    assert!(told["first"]["left"].is_null() && told["first"]["right"].is_object());
}

/// Every line of an answer.
fn lines(tree: &Value) -> Vec<&Value> {
    let children = tree["children"].as_array().expect("children").iter().flat_map(lines);
    std::iter::once(tree).chain(children).collect()
}

#[test]
fn every_call_grant_agent_and_entry_leads_back_to_the_root_key() {
    let shelf = Shelf::new();
    let mut calls = 0;
    for session in golden() {
        let path = shelf.bundle("s.tkb", &[&session]);
        let root = root().id().to_string();
        for entry in &session.entries {
            let seq = entry.header().seq;
            let told = shelf.json("why", &path, &[&seq.to_string()]);
            let lines = lines(&told["tree"]);
            assert!(lines.iter().any(|line| line["kind"] == "root-key" && line["id"] == root), "{told:#}");
            assert_eq!(told["tree"]["seq"].as_u64(), Some(seq));
            for line in &lines {
                // Whatever is told has its entry, but for keys of other places and asides.
                let placeless = ["note", "row", "root-key", "command", "failed", "need"];
                assert!(line["seq"].is_u64() || placeless.contains(&line["kind"].as_str().expect("a kind")), "{line}");
            }
            if let Ok(Body::CallAdmitted(admitted)) = entry.event().map(|event| &event.body) {
                calls += 1;
                let id = told["tree"]["id"].as_str().expect("an id");
                let by_id = shelf.json("why", &path, &[&id[..12]]);
                assert_eq!(by_id["tree"], told["tree"], "by its id as by its seq");
                let needs = lines.iter().filter(|line| line["kind"] == "need").count();
                assert_eq!(needs, 1 + admitted.need_grants.len(), "{told:#}");
                let grants: Vec<_> =
                    lines.iter().filter(|line| line["kind"] == "grant").map(|line| &line["id"]).collect();
                for grant in std::iter::once(admitted.grant).chain(admitted.need_grants.iter().copied()) {
                    assert!(grants.contains(&&Value::from(grant.to_string())), "{told:#}");
                }
            }
        }
    }
    assert!(calls > 5, "{calls} calls were explained");
}

#[test]
fn a_call_is_explained_up_to_the_root_key() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]);
    let (exit, out, err) = shelf.told("why", &path, &["4"]);
    assert_eq!((exit, &*err), (0, ""));
    insta::assert_snapshot!(out, @r"
    session e7886e3a3076 of s.tkb: 17 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared

           4  call fc93897fae5124dc: CallAdmitted at 2026-01-01T00:00:00.004000Z: reader project:docs/a.md, asked by auditor
           4    need 0: tool:reader?digest=898c6df21cc3fa035c2f0cdcaae528bc06f1d24b596eaf02f800b6377f2cd36a&arg./path=path:project/docs/a.md&closed, covered by
           2      grant 12d94764098c600c tool:reader?calls=50&exp=1800000000000000: issued by opener to auditor; revoked at seq 15
           0        grant f6326a6f9fa31b9a tool:reader?depth=2&calls=50&exp=1800000000000000: a root grant of opener
           0          genesis at node.test, opened by opener
           0            signed by event key 9881b669d131efae of epoch 1, granted by
                          root key 80cdcf431db1f423: the one that was given
           4    need 1: fs:project/docs/a.md#read, covered by
           2      grant b0bc0d98cead1765 fs:project/docs/**#read?exp=1800000000000000: issued by opener to auditor
           0        grant a37e92fbd963cb95 fs:project/**#list,read?depth=2&exp=1800000000000000: a root grant of opener
           0          genesis at node.test, opened by opener (above)
           2    agent auditor f4098bb783bed1e9: spawned by opener
           0      grant f6200dabec723ded agent:auditor?depth=2&live=4&exp=1800000000000000: a root grant of opener
           0        genesis at node.test, opened by opener (above)
           0      opener: human, listed in the genesis with key 6ec96e681448016a in the node's process
           0        genesis at node.test, opened by opener (above)
           5    CallFinished at 2026-01-01T00:00:00.005000Z: reader succeeded, asked by executor
           4      because of CallAdmitted at 2026-01-01T00:00:00.004000Z: reader project:docs/a.md, asked by auditor (above)
           0      executor: executor, listed in the genesis
           0        genesis at node.test, opened by opener (above)
    ");
}

#[test]
fn a_refusal_is_explained_by_the_grant_that_failed_and_the_row_in_which_it_does() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]);
    let (exit, out, _) = shelf.told("why", &path, &["6"]);
    assert_eq!(exit, 0);
    insta::assert_snapshot!(out, @r"
    session e7886e3a3076 of s.tkb: 17 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared

           6  Refused at 2026-01-01T00:00:00.006000Z: reader project:secret.txt: OUT_OF_SCOPE, it would need fs:project/secret.txt#read, asked by auditor
                OUT_OF_SCOPE (403): the grant does not cover what is needed
                need 1: fs:project/secret.txt#read, not covered
                row path: the grant reaches fs:project/docs/**#read, needed was fs:project/secret.txt#read
                the grant that failed
           2      grant b0bc0d98cead1765 fs:project/docs/**#read?exp=1800000000000000: issued by opener to auditor
           0        grant a37e92fbd963cb95 fs:project/**#list,read?depth=2&exp=1800000000000000: a root grant of opener
           0          genesis at node.test, opened by opener
           0            signed by event key 9881b669d131efae of epoch 1, granted by
                          root key 80cdcf431db1f423: the one that was given
                need 0: tool:reader?digest=898c6df21cc3fa035c2f0cdcaae528bc06f1d24b596eaf02f800b6377f2cd36a&arg./path=path:project/secret.txt&closed, for which it named
           2      grant 12d94764098c600c tool:reader?calls=50&exp=1800000000000000: issued by opener to auditor; revoked at seq 15
           0        grant f6326a6f9fa31b9a tool:reader?depth=2&calls=50&exp=1800000000000000: a root grant of opener
           0          genesis at node.test, opened by opener (above)
           2    it holds grant b0bc0d98cead1765 fs:project/docs/**#read?exp=1800000000000000: issued by opener to auditor
           2    agent auditor f4098bb783bed1e9: spawned by opener
           0      grant f6200dabec723ded agent:auditor?depth=2&live=4&exp=1800000000000000: a root grant of opener
           0        genesis at node.test, opened by opener (above)
           0      opener: human, listed in the genesis with key 6ec96e681448016a in the node's process
           0        genesis at node.test, opened by opener (above)
    ");
    // Revoked in the meantime.
    let (_, out, _) = shelf.told("why", &path, &["16"]);
    assert!(out.contains("REVOKED (304)") && out.contains("row revoked: revoked at seq 15"), "{out}");
}

#[test]
fn the_tree_goes_on_in_the_system_session_where_that_is_here() {
    let shelf = Shelf::new();
    let [system, work] = system();
    let both = shelf.bundle("both.tkb", &[&system, &work]);
    let (exit, out, err) = shelf.told("why", &both, &["2"]);
    assert_eq!((exit, &*err), (0, ""));
    insta::assert_snapshot!(out, @r"
    session ff7066519090 of both.tkb: 9 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    sys: system session db935c753f0c of both.tkb: 10 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared

           2  call c82138e81f0bf4e5: CallAdmitted at 2026-01-01T00:00:00.002000Z: reader project:a, asked by opener
           2    need 0: tool:reader?digest=f09ceaba3c8bc5d76a7e59092bb11267caed73565247a5d4d5a6fef0b49c0b9a&arg./path=path:project/a&closed, covered by
           0      grant 230568e71bcbc73e tool:reader?calls=5&exp=1790000000000000: a root grant of opener
       sys:0        grant 4c3b6a8f7d85d40c tool:reader?depth=2&calls=50&exp=1800000000000000: a root grant of opener
       sys:0          genesis at node.test, opened by opener
       sys:0            signed by event key 9881b669d131efae of epoch 1, granted by
                          root key 80cdcf431db1f423: the one that was given
           0        genesis at node.test, opened by opener
           0          signed by event key 9881b669d131efae of epoch 1, granted by
                        root key 80cdcf431db1f423: the one that was given
           0          opening signed by operator key 6ec96e681448016a of epoch 1, granted by
                        root key 80cdcf431db1f423: the one that was given
       sys:5          SessionRegistered at 2026-01-01T00:00:00.005000Z: session ff70665190908e02 registered for opener; root grants: tool:reader?calls=5&exp=1790000000000000, fs:project/**#read?exp=1790000000000000, admin:#resolve?exp=1790000000000000, fs:new/**#read?exp=1790000000000000, asked by opener
       sys:0            command signed by operator key 6ec96e681448016a of epoch 1, granted by
                          root key 80cdcf431db1f423: the one that was given
                        by right of
       sys:0              grant 8db2afa27d4abfe8 admin:#cancel,grant-root,members,open-session,register-tool?exp=1800000000000000: a root grant of opener
       sys:0                genesis at node.test, opened by opener (above)
       sys:0            opener: human, listed in the genesis with key 6ec96e681448016a, f4fc40eae190e8e0 in the node's process
       sys:0              genesis at node.test, opened by opener (above)
           2    need 1: fs:project/a#read, covered by
           0      grant 7ce85b330a3ab4b9 fs:project/**#read?exp=1790000000000000: a root grant of opener
       sys:0        grant a98aaa37579c3eac fs:project/**#list,read?depth=2&exp=1800000000000000: a root grant of opener
       sys:0          genesis at node.test, opened by opener (above)
           0        genesis at node.test, opened by opener (above)
           0    opener: human, listed in the genesis with key 6ec96e681448016a in the node's process
           0      genesis at node.test, opened by opener (above)
           3    CallFinished at 2026-01-01T00:00:00.003000Z: reader unknown, asked by node
           2      because of CallAdmitted at 2026-01-01T00:00:00.002000Z: reader project:a, asked by opener (above)
           0      the node itself
           0        genesis at node.test, opened by opener (above)
           5    OutcomeResolved at 2026-01-01T00:00:00.005000Z: reader resolved: done, asked by opener
           2      because of CallAdmitted at 2026-01-01T00:00:00.002000Z: reader project:a, asked by opener (above)
                  by right of
           0        grant c5581d8c21832c0f admin:#resolve?exp=1790000000000000: a root grant of opener
       sys:0          grant 6b5af6d1b0701848 admin:#resolve?depth=2&exp=1800000000000000: a root grant of opener
       sys:0            genesis at node.test, opened by opener (above)
           0          genesis at node.test, opened by opener (above)
           0      opener: human, listed in the genesis with key 6ec96e681448016a in the node's process (above)
    ");
    let alone = shelf.bundle("alone.tkb", &[&work]);
    let (_, out, _) = shelf.told("why", &alone, &["2"]);
    assert!(out.contains("is not in this input"), "{out}");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]);
    let (exit, out, err) = shelf.told("why", &path, &["zebra"]);
    assert_eq!((exit, &*out), (2, ""));
    assert!(err.contains("it has seqs 0 to 16; calls ") && err.contains("agents auditor ("), "{err}");
    // An agent is found by its name.
    assert_eq!(shelf.json("why", &path, &["auditor"])["tree"]["kind"], "agent");
}

#[test]
fn what_was_counted_is_what_there_is() {
    let shelf = Shelf::new();
    let session = honest();
    let path = shelf.bundle("s.tkb", &[&session]);
    let (exit, out, _) = shelf.told("stats", &path, &[]);
    assert_eq!(exit, 0);
    insta::assert_snapshot!(out, @r"
    session e7886e3a3076 of s.tkb: 20 entries read; links, signatures and rules hold; keys granted by the root key; blobs not compared
    session closed; 2026-01-01T00:00:00.000000Z to 2026-01-01T00:00:00.019000Z

    entries        20       11747 bytes
      SessionOpened           1        1545
      StateCommitted          2         640
      SessionClosed           1         323
      Refused                 3        2173
      AgentSpawned            1         961
      AgentStarted            1         351
      AgentEnded              1         362
      GrantRevoked            1         367
      ToolBound               1         564
      CallAdmitted            4        2441
      CallFinished            4        2020
    blobs          13         783 bytes; 13 references
    calls
      reader                  4  succeeded 4
    refusals
      BAD_PATH                1
      REVOKED                 1
      OUT_OF_SCOPE            1
    agents          1  1 completed, 0 failed, 0 stopped
    ");
    let told = shelf.json("stats", &path, &[]);
    let bytes: usize = session.entries.iter().map(|entry| entry.bytes().len()).sum();
    let kinds = told["sessions"][0]["kinds"].as_array().expect("kinds");
    let sum = |field: &str| kinds.iter().map(|kind| kind[field].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("entries"), sum("bytes")), (20, bytes as u64));
}

/// The verbs with what they need beside an input.
const VERBS: [(&str, &[&str]); 4] = [("state", &[]), ("why", &["4"]), ("stats", &[]), ("diff", &[])];

#[test]
fn nothing_is_told_of_a_log_that_was_tampered_with() {
    let shelf = Shelf::new();
    let session = honest();
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for at in 0..session.entries.len() {
        for place in [1, 60, 110, 140, 190, 215] {
            let mut log = Log::of(&session);
            log.entries[at][place] ^= 1;
            cases.push((format!("bit at {place} of {at}"), log.bundle()));
        }
        let mut log = Log::of(&session);
        *log.entries[at].last_mut().expect("a byte") ^= 1;
        cases.push((format!("last byte of {at}"), log.bundle()));
    }
    for at in 1..session.entries.len() - 1 {
        let mut log = Log::of(&session);
        log.entries.remove(at);
        cases.push((format!("{at} removed"), log.bundle()));
        let mut log = Log::of(&session);
        log.entries.swap(at, at + 1);
        cases.push((format!("{at} swapped"), log.bundle()));
    }
    for (name, bytes) in cases {
        let path = shelf.put("s.tkb", &bytes);
        let (exit, report, _) = shelf.told("verify", &path, &["--json"]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let worst = |one: &&Value| one["class"] == report["verdict"];
        let first = report["findings"].as_array().expect("findings").iter().find(worst);
        let code = first.expect("a finding")["code"].as_str().expect("a code");
        assert!(matches!(exit, 3 | 8), "{name}: {report}");
        for (verb, args) in VERBS {
            let (told, out, err) = shelf.told(verb, &path, args);
            assert_eq!((told, &*out), (exit, ""), "{verb} of {name}: {err}");
            assert!(err.contains(code), "{verb} of {name} says {err}, verify {code}");
        }
    }
}

#[test]
fn a_state_that_the_log_itself_contradicts_is_not_told() {
    let shelf = Shelf::new();
    let session = honest();
    let forged = reforge(&Keys::seeded(1).writer(), &session.entries, 9, |_, body| {
        let at = body.windows(4).position(|bytes| bytes == b"\xa3dig").expect("a digest") + 8;
        body[at] ^= 1;
    });
    let path = shelf.put("s.tkb", &Log::with(&session, &forged).bundle());
    let (exit, out, err) = shelf.told("state", &path, &["--at", "8"]);
    assert_eq!((exit, &*out), (3, ""));
    assert!(err.contains("STATE_DIVERGED at seq 9"), "{err}");
    // What stands before it is told.
    assert_eq!(shelf.told("state", &path, &["--at", "7"]).0, 0);
}

#[test]
fn what_was_not_checked_is_said_on_the_first_line() {
    let shelf = Shelf::new();
    let path = shelf.bundle("s.tkb", &[&open()]).display().to_string();
    for (verb, args) in VERBS {
        let (exit, out, _) = shelf.run(&[&[verb, &path], args].concat());
        assert_eq!(exit, 0);
        assert!(out.lines().next().is_some_and(|line| line.contains("ROOT KEY NOT GIVEN")), "{verb}: {out}");
    }
    let other = Vkey::new(&format!("{ORIGIN}/root"), Keys::seeded(9).pinned()).expect("a key").to_string();
    for (verb, args) in VERBS {
        let (exit, out, err) = shelf.run(&[&[verb, &path], args, &["--root", &other]].concat());
        assert_eq!((exit, &*out), (3, ""), "{verb}");
        assert!(err.contains("ROOT_MISMATCH"), "{verb}: {err}");
    }
}

#[test]
fn the_end_codes_that_are_explained_are_those_of_the_engine() {
    let names: Vec<&str> = EndCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names, END_CODES);
}

#[test]
fn a_code_is_explained_and_an_unknown_one_is_answered_with_those_like_it() {
    let shelf = Shelf::new();
    let (exit, out, _) = shelf.run(&["explain", "OUT_OF_SCOPE"]);
    assert_eq!(exit, 0);
    insta::assert_snapshot!(out, @r"
    OUT_OF_SCOPE  refusal 403
      means: the grant does not cover what is needed
      cause: `need` says what is missing, `dim` where it fails
      do:    grant it, if it is meant; else the refusal was right
    ");
    let (exit, out, err) = shelf.run(&["explain", "OUT_OF_SKOPE"]);
    assert_eq!((exit, &*out, &*err), (2, "", "error: there is no code `OUT_OF_SKOPE`; like it: OUT_OF_SCOPE\n"));
    let (exit, out, _) = shelf.run(&["explain"]);
    assert_eq!(exit, 0);
    for (at, name) in [(0, "INPUT_UNREADABLE"), (1, "MALFORMED"), (2, "timed-out"), (3, "TURN_LIMIT"), (4, "exit-9")] {
        assert!(out.split("\n\n").nth(at).is_some_and(|family| family.contains(name)), "{name}\n{out}");
    }
}

#[test]
fn nothing_in_a_log_moves_the_cursor() {
    let shelf = Shelf::new();
    let mut session = open();
    let args = session.blob(b"{}");
    let Ask::Call(mut asked) = call("project:docs/a.md", session.root(1), &[session.root(0)]) else { panic!("a call") };
    asked.tool = "x\u{1b}[2J\u{202e}\nroot key".to_owned();
    let opener = session.opener();
    assert_eq!(session.ask(opener, Ask::Call(asked), vec![args]).name(), "Refused");
    let path = shelf.bundle("s.tkb", &[&session]);
    let seq = session.head.seq.to_string();
    let verbs: [(&str, &[&str]); 4] = [("state", &[]), ("why", &[&seq]), ("stats", &[]), ("diff", &["--from", "3"])];
    for (verb, args) in verbs {
        for form in [&[] as &[&str], &["--json"]] {
            let (exit, out, _) = shelf.told(verb, &path, &[args, form].concat());
            assert!(exit < 2 && !out.is_empty(), "{verb}");
            let plain = |char: char| char == '\n' || !char.is_control() && char != '\u{202e}';
            assert!(out.chars().all(plain) && !out.contains("\nroot key"), "{verb}: {out:?}");
        }
    }
}

/// Whether an entry is what its kind says; used to see that the sessions above hold what the tests need.
#[test]
fn the_sessions_that_are_explained_hold_every_kind_of_question() {
    let kinds = |entry: &Entry| entry.event().map_or("", |event| event.name());
    let all: Vec<&str> =
        golden().iter().flat_map(|session| session.entries.iter().map(kinds).collect::<Vec<_>>()).collect();
    for kind in ["CallAdmitted", "Refused", "GrantIssued", "AgentSpawned", "OutcomeResolved", "TaskScheduled"] {
        assert!(all.contains(&kind), "{kind}");
    }
}
