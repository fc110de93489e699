//! Frozen bytes: a fixed session whose entries must come out the same for ever.
//!
//! `golden/NNNN-name.txt` holds one line per entry, `seq kind/schema name hash`, and the digest of the state at the end.
//! Numbers are never reused and files are never edited; a changed byte is a new schema and a new file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toka_kernel::body::KINDS;
use toka_kernel::body::v1::{GrantTo, IssueAsked, RevokeAsked};
use toka_kernel::ids::{CallId, GrantId, derived};
use toka_kernel::{Ask, Entry};
use toka_tests::session::{EXECUTOR, Session, reader};

/// Every kind of schema 1: fixed keys, nonce, salts and times.
fn spine() -> Session {
    let mut session = Session::open(&[
        "fs:project/**#list,read?depth=2&exp=1800000000000000",
        "tool:reader?depth=2&calls=50&rate=5/1000000&exp=1800000000000000",
        "agent:auditor?depth=2&live=4&exp=1800000000000000",
    ]);
    let opener = session.opener();
    let [fs, tool, agents] = [0, 1, 2].map(|index| session.root(index));
    session.bind(reader());
    let agent = session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read"), (tool, "tool:reader")]);
    let spawned = session.head.seq - 1;
    let [docs, read] = [1, 2].map(|ordinal| GrantId(derived(session.id(), spawned, ordinal)));
    session.call(agent, "project:docs/a.md", read, &[docs]);
    let call = CallId(session.made(0));
    session.finish(call, b"text");
    session.call(agent, "project:secret.txt", read, &[docs]);
    let grant = GrantTo { parent: Some(fs), cap: "fs:project/b/**#read".to_owned(), to: agent };
    session.ask(opener, Ask::Grant(IssueAsked { grant }), Vec::new());
    let issued = GrantId(session.made(0));
    let reason = session.blob(b"no longer needed");
    session.ask(opener, Ask::Revoke(RevokeAsked { grant: issued, reason: Some(0) }), vec![reason]);
    session.end(agent);
    session.close();
    assert_eq!(session.keyring.epoch(), 1);
    assert_ne!(EXECUTOR, opener);
    session
}

fn lines(session: &Session) -> String {
    let line = |entry: &Entry| {
        let header = entry.header();
        let name = entry.event().map_or("unknown", |event| event.name());
        format!("{} {:04x}/{} {name} {}\n", header.seq, header.kind, header.schema, entry.hash())
    };
    let (digest, leaves) = session.state.digest();
    let entries: String = session.entries.iter().map(line).collect();
    format!("{entries}state {digest} {leaves}\n")
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/it/golden"))
}

fn file(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_spine_has_the_bytes_it_always_had() {
    assert_eq!(lines(&spine()), file("0001-spine.txt"));
}

#[test]
fn every_kind_and_schema_has_a_golden_entry() {
    let mut seen = BTreeSet::new();
    for found in fs::read_dir(folder()).expect("the folder is there") {
        let name = found.expect("readable").file_name().into_string().expect("UTF-8");
        for line in file(&name).lines() {
            seen.extend(line.split(' ').nth(1).map(str::to_owned));
        }
    }
    assert!(!seen.is_empty(), "there is nothing golden");
    for kind in KINDS {
        for schema in 1..=kind.schema {
            let wanted = format!("{:04x}/{schema}", kind.number);
            assert!(seen.contains(&wanted), "{} {wanted} has no golden entry", kind.name);
        }
    }
}
