//! The verifier: honest logs pass, and whatever was done to a log is found at its place.

mod attacks;
mod containers;
mod flips;
mod honest;
mod illegal;
mod keys;
mod program;
mod shapes;
mod storms;
mod system;

use std::io::Cursor;

use toka_kernel::body::v1::RevokeAsked;
use toka_kernel::entry::Header;
use toka_kernel::ids::{EntryHash, GrantId, PrincipalId, Seq, SessionId, derived};
use toka_kernel::keys::PublicKey;
use toka_kernel::{Ask, Effect, Entry, EventKey, Head};
use toka_replay::code::Class;
use toka_replay::report::Finding;
use toka_replay::{Input, Options, Report, verify};
use toka_store::bundle::SessionContent;
use toka_store::{Append, Bundle, BundleBuilder, NewBlob, RawEntry};
use toka_tests::session::{Keys, Session, reader};

pub(crate) const FS: &str = "fs:project/**#list,read?depth=2&exp=1800000000000000";
pub(crate) const TOOL: &str = "tool:reader?depth=2&calls=50&exp=1800000000000000";
pub(crate) const AGENT: &str = "agent:auditor?depth=2&live=4&exp=1800000000000000";

/// The seqs of the honest session that tests name.
pub(crate) const CALL: Seq = 4;
pub(crate) const FINISHED: Seq = 5;
pub(crate) const COMMITTED: Seq = 9;
pub(crate) const CLOSED: Seq = 19;

/// A session of 20 entries with every kind that there is.
pub(crate) fn honest() -> Session {
    let mut session = open();
    let agent = agent_of(&session);
    session.end(agent);
    session.close();
    assert_eq!(session.entries.len(), 20);
    session
}

/// The first 17 entries of it: the agent still runs.
pub(crate) fn open() -> Session {
    let mut session = Session::open(&[FS, TOOL, AGENT]);
    session.bind(reader());
    let opener = session.opener();
    let (fs, tool, agents) = (session.root(0), session.root(1), session.root(2));
    let agent = session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read"), (tool, "tool:reader")]);
    let (docs, reader) = (child(&session, 1), child(&session, 2));
    call(&mut session, agent, "project:docs/a.md", reader, docs, b"text");
    session.call(agent, "project:secret.txt", reader, &[docs]);
    call(&mut session, agent, "project:docs/b.md", reader, docs, &[b'x'; 300]);
    session.commit_state();
    call(&mut session, agent, "project:docs/c.md", reader, docs, b"more");
    session.call(agent, "project:../etc", reader, &[docs]);
    call(&mut session, opener, "project:readme", tool, fs, b"readme");
    let revoke = Ask::Revoke(RevokeAsked { grant: reader, reason: None });
    assert_eq!(session.ask(opener, revoke, Vec::new()).name(), "GrantRevoked");
    session.call(agent, "project:docs/a.md", reader, &[docs]);
    assert_eq!(session.entries.len(), 17);
    session
}

fn call(session: &mut Session, by: PrincipalId, path: &str, tool: GrantId, fs: GrantId, result: &[u8]) {
    assert_eq!(session.call(by, path, tool, &[fs]).name(), "CallAdmitted");
    let Some(Effect::Start(call)) = session.effects.first().cloned() else { panic!("no start") };
    assert_eq!(session.finish(call.id(), result).name(), "CallFinished");
}

pub(crate) fn agent_of(session: &Session) -> PrincipalId {
    PrincipalId(derived(session.id(), 2, 0))
}

pub(crate) fn child(session: &Session, ordinal: u32) -> GrantId {
    GrantId(derived(session.id(), 2, ordinal))
}

/// What a test does things to: raw entries and blobs of one session.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) session: SessionId,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) blobs: Vec<NewBlob>,
}

impl Log {
    pub(crate) fn of(session: &Session) -> Log {
        Log::with(session, &session.entries)
    }

    /// Other entries with the name and the blobs of a session.
    pub(crate) fn with(session: &Session, entries: &[Entry]) -> Log {
        let blob = |blob: &toka_tests::session::Blob| NewBlob {
            commitment: blob.reference.commitment,
            salt: blob.salt,
            bytes: blob.bytes.clone(),
        };
        let mut blobs: Vec<NewBlob> = session.blobs.iter().map(blob).collect();
        let mut seen = std::collections::BTreeSet::new();
        blobs.retain(|blob| seen.insert(blob.commitment));
        let entries = entries.iter().map(|entry| entry.bytes().to_vec()).collect();
        Log { session: session.id(), entries, blobs }
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        let content = SessionContent {
            session: self.session,
            first_seq: 0,
            entries: self.entries.clone(),
            blobs: self.blobs.clone(),
        };
        let mut bytes = Vec::new();
        BundleBuilder { sessions: vec![content] }.write(&mut bytes).expect("a bundle");
        bytes
    }

    /// As an append to an empty store; the entries must still lead to `head`.
    pub(crate) fn append(&self, head: Head) -> Append {
        let entry = |(seq, bytes): (usize, &Vec<u8>)| RawEntry { seq: seq as Seq, bytes: bytes.clone() };
        let entries = self.entries.iter().enumerate().map(entry).collect();
        Append { expected: Head::none(), entries, head, blobs: self.blobs.clone() }
    }

    /// Verifies it as a bundle, with the root key of the test node.
    pub(crate) fn verify(&self) -> Report {
        verify_bytes(self.bundle(), Some(root()))
    }
}

pub(crate) fn root() -> PublicKey {
    Keys::seeded(1).pinned()
}

pub(crate) fn options(root: Option<PublicKey>) -> Options {
    Options { root, jobs: 1, ..Options::default() }
}

pub(crate) fn verify_bytes(bundle: Vec<u8>, root: Option<PublicKey>) -> Report {
    let bundle = Bundle::from_input(Cursor::new(bundle)).expect("a bundle");
    verify(&Input::bundle(bundle, "test.tkb"), &options(root), &mut |_| ()).expect("a sound build")
}

/// Changes entry `k` and signs it and everything after it again, so that the chain holds.
pub(crate) fn reforge(
    key: &EventKey,
    entries: &[Entry],
    k: usize,
    edit: impl FnOnce(&mut Header, &mut Vec<u8>),
) -> Vec<Entry> {
    let mut forged = entries[..k].to_vec();
    let (mut edit, mut prev): (_, Option<EntryHash>) = (Some(edit), None);
    for entry in &entries[k..] {
        let (mut header, mut body) = (entry.header().clone(), entry.body().to_vec());
        if let Some(prev) = prev {
            header.prev = prev;
        }
        if let Some(edit) = edit.take() {
            edit(&mut header, &mut body);
        }
        let entry = Entry::forge(header, &body, key);
        prev = Some(entry.hash());
        forged.push(entry);
    }
    forged
}

/// The failures and gaps that follow from nothing else.
pub(crate) fn roots(report: &Report) -> Vec<&Finding> {
    report.roots().filter(|finding| finding.class != Class::Warning).collect()
}

/// A report in a few words: the exit code, and each finding that follows from no other.
pub(crate) fn told(report: &Report) -> String {
    let seq = |finding: &Finding| finding.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
    let words: Vec<String> =
        roots(report).into_iter().map(|finding| format!("{} @{}", finding.code, seq(finding))).collect();
    format!("{}: {}", report.exit(), words.join(", "))
}
