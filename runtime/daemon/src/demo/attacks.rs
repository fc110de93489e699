//! Five attacks on copies of the demo's bundle. Each leaves a container without a fault, so that only the chain can tell.

use std::fs::File;
use std::path::{Path, PathBuf};

use toka_kernel::body::v1::CallAdmitted;
use toka_kernel::ids::{EntryHash, SessionId};
use toka_kernel::keys::SecretKey;
use toka_kernel::{Ask, Body, Entry, Event, EventKey, Head, Stamp};
use toka_store::bundle::{Bundle, BundleBuilder};

/// An attack, where it struck and what a verifier must say.
pub(super) struct Attack {
    /// For people.
    pub(super) what: &'static str,
    /// The tampered copy.
    pub(super) file: PathBuf,
    /// The finding it must lead to.
    pub(super) code: &'static str,
    /// The entry it must name.
    pub(super) seq: u64,
}

/// Makes all attacks on `bundle` below `dir`. `key` is the node's own event key: the fifth attacker has stolen it.
pub(super) fn make(bundle: &Path, dir: &Path, key: &EventKey) -> Result<Vec<Attack>, String> {
    let honest = Bundle::open(bundle).map_err(|error| error.to_string())?;
    let honest = BundleBuilder::load(&honest).map_err(|error| error.to_string())?;
    let entries = &honest.sessions.first().ok_or("the bundle holds no session")?.entries;
    let middle = entries.len() / 2;
    let at = middle as u64;
    let (forged, forged_at) = admit_the_refused(entries, key)?;
    let attacks: [(&str, &str, u64, Vec<Vec<u8>>); 5] = [
        ("a byte flipped", "BODY_HASH_MISMATCH", at, flipped(entries, middle)),
        ("an entry deleted", "SEQ_GAP", at, without(entries, middle)),
        ("two entries swapped", "SEQ_ORDER", at, swapped(entries, middle)),
        ("the chain signed again with another key", "KEY_NOT_GRANTED", 0, signed_again(entries)?),
        ("a call that no grant allows, signed with the node's own key", "TRANSITION_ILLEGAL", forged_at, forged),
    ];
    let mut made = Vec::new();
    for (number, (what, code, seq, entries)) in (1..).zip(attacks) {
        let file = dir.join(format!("attack-{number}.tkb"));
        write(&honest, entries, &file)?;
        made.push(Attack { what, file, code, seq });
    }
    Ok(made)
}

/// Writes a copy with these entries; manifest and trailer are made to fit.
fn write(honest: &BundleBuilder, entries: Vec<Vec<u8>>, file: &Path) -> Result<(), String> {
    let mut copy = honest.clone();
    let session = copy.sessions.first_mut().ok_or("the bundle holds no session")?;
    if let Some(genesis) = entries.first() {
        session.session = Entry::read(genesis).map_err(|fault| fault.to_string())?.session();
    }
    session.entries = entries;
    let mut out = File::create(file).map_err(|error| error.to_string())?;
    copy.write(&mut out).map(drop).map_err(|error| error.to_string())
}

fn flipped(entries: &[Vec<u8>], at: usize) -> Vec<Vec<u8>> {
    let mut entries = entries.to_vec();
    if let Some(byte) = entries[at].last_mut() {
        *byte ^= 1;
    }
    entries
}

fn without(entries: &[Vec<u8>], at: usize) -> Vec<Vec<u8>> {
    let mut entries = entries.to_vec();
    entries.remove(at);
    entries
}

fn swapped(entries: &[Vec<u8>], at: usize) -> Vec<Vec<u8>> {
    let mut entries = entries.to_vec();
    entries.swap(at, at + 1);
    entries
}

/// Every entry as it was, linked and signed again by a key that nobody granted.
fn signed_again(entries: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let mut stranger: Option<EventKey> = None;
    let mut session = SessionId::ZERO;
    let mut prev = EntryHash::ZERO;
    let mut forged = Vec::new();
    for bytes in entries {
        let honest = Entry::read(bytes).map_err(|fault| fault.to_string())?;
        let mut header = honest.header().clone();
        let key = stranger.get_or_insert_with(|| EventKey::new(SecretKey::from_seed(&[0x5a; 32]), header.key_epoch));
        header.signer = key.id();
        header.session = session;
        header.prev = prev;
        let entry = Entry::forge(header, honest.body(), key);
        session = entry.session();
        prev = entry.hash();
        forged.push(entry.bytes().to_vec());
    }
    Ok(forged)
}

/// The log up to the first refused call, with that call admitted instead; sealed in order with the node's own key.
fn admit_the_refused(entries: &[Vec<u8>], key: &EventKey) -> Result<(Vec<Vec<u8>>, u64), String> {
    let mut kept = Vec::new();
    let mut head = Head::none();
    for bytes in entries {
        let entry = Entry::read(bytes).map_err(|fault| fault.to_string())?;
        if let Ok(event) = entry.event()
            && let Body::Refused(refused, ask) = &event.body
            && let Ask::Call(asked) = &**ask
        {
            let admitted = CallAdmitted {
                cmd: refused.cmd.clone(),
                model: 1,
                tool: asked.tool.clone(),
                digest: asked.digest,
                grant: asked.grant,
                need_grants: asked.need_grants.clone(),
                facts: asked.facts.clone(),
                extra: asked.extra,
                args: asked.args,
                asked: asked.asked.clone(),
                narrow: Vec::new(),
                reserve: Vec::new(),
                deadline: entry.header().time_us + 1_000_000,
                rule: None,
                task: None,
                parent: None,
            };
            let event = Event { body: Body::CallAdmitted(Box::new(admitted)), ..event.clone() };
            let stamp = Stamp { time_us: entry.header().time_us, clock_behind: false };
            let forged = Entry::seal(&head, entry.header().principal, stamp, event, key);
            kept.push(forged.bytes().to_vec());
            return Ok((kept, entry.header().seq));
        }
        head = entry.head();
        kept.push(bytes.clone());
    }
    Err("no call was refused".to_owned())
}
