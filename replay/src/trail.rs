//! A session read entry by entry. Nothing is handed out before its place, link, key and signature were checked, and
//! nothing is told of a state before each event up to it was decided again.

use std::io::{self, Write};

use serde_json::{Value, json};
use toka_kernel::entry::{FrameFault, Head};
use toka_kernel::ids::{Seq, SessionId};
use toka_kernel::keys::{Keyring, PublicKey};
use toka_kernel::{Entry, State, chain};
use toka_store::{Bundle, ReadError};

use crate::code::{Class, Code};
use crate::input::{Input, Stored};
use crate::json::write_line;
use crate::report::Report;
use crate::text::{count, escaped};
use crate::verify::judge::Judge;
use crate::verify::{Options, verify};

/// The way through one session, from its genesis on. It ends at the first entry that does not stand.
pub(crate) struct Trail<'a> {
    input: &'a Input,
    session: SessionId,
    root: Option<&'a PublicKey>,
    rows: toka_store::log::Rows<'a, Stored>,
    keys: Keyring,
    head: Head,
    judge: Judge,
    read: u64,
}

/// Stands for the kind of an entry that nothing follows from: a commitment to the state is before anything.
const ANY_KIND: u16 = toka_kernel::event::kind::STATE_COMMITTED;

/// Why a trail goes no further, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) session: SessionId,
    /// The seq that an entry at that place should have.
    pub(crate) seq: Seq,
    pub(crate) code: Code,
    pub(crate) class: Class,
    /// The input, as it was named.
    pub(crate) path: String,
}

/// What of a session was checked before anything was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) session: SessionId,
    path: String,
    /// Entries, from the genesis on.
    pub(crate) entries: u64,
    rooted: bool,
}

impl<'a> Trail<'a> {
    /// Begins before the genesis of `session`. With `root`, its keys must be granted by that key.
    ///
    /// # Errors
    /// [`Stop`] where the input is not whole as a file, or does not begin with the genesis.
    pub(crate) fn open(input: &'a Input, session: SessionId, root: Option<&'a PublicKey>) -> Result<Trail<'a>, Stop> {
        let trail = Trail {
            input,
            session,
            root,
            rows: input.entries(session),
            keys: Keyring::default(),
            head: Head::none(),
            judge: Judge::default(),
            read: 0,
        };
        if !input.as_bundle().map(Bundle::faults).unwrap_or_default().is_empty() {
            return Err(trail.stop(Code::BundleMalformed, Class::Unreadable));
        }
        if input.first_seq(session) > 0 {
            return Err(trail.stop(Code::RangeIncomplete, Code::RangeIncomplete.class()));
        }
        Ok(trail)
    }

    /// The next entry; it follows the one before and is signed by a key that may sign it. None at the end.
    ///
    /// # Errors
    /// [`Stop`] where what lies there is no such entry.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Stop> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        let stored = row.map_err(|ReadError { .. }| self.stop(Code::InputUnreadable, Class::Unreadable))?;
        let entry = Entry::read(&stored.bytes).map_err(|fault| {
            let code = match fault {
                FrameFault::Short { .. } => Code::FrameTruncated,
                FrameFault::Surplus { .. } => Code::FrameSurplus,
                FrameFault::Limit { .. } => Code::LimitExceeded,
            };
            self.stop(code, code.class())
        })?;
        if stored.key.is_some_and(|key| key != entry.header().seq) {
            return Err(self.stop(Code::StoreKeyMismatch, Code::StoreKeyMismatch.class()));
        }
        if self.head.kind == 0 {
            self.begin(&entry)?;
        }
        self.head = self.head.accept(&entry, &self.keys).map_err(|broken| {
            let code = Code::from(broken.code);
            self.stop(code, code.class())
        })?;
        Ok(Some(entry))
    }

    /// Decides the event of `entry` again and moves the state on.
    ///
    /// # Errors
    /// [`Stop`] where the rules give something else, or are not those of this version.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), Stop> {
        if let Err(fault) = self.judge.apply(entry) {
            return Err(Stop { seq: entry.header().seq, ..self.stop(fault.code, fault.class) });
        }
        self.read += 1;
        Ok(())
    }

    /// The next entry, applied.
    ///
    /// # Errors
    /// As of [`Trail::next`] and [`Trail::apply`].
    pub(crate) fn step(&mut self) -> Result<Option<Entry>, Stop> {
        let Some(entry) = self.next()? else { return Ok(None) };
        self.apply(&entry)?;
        Ok(Some(entry))
    }

    /// One of the entries that were handed out, read and checked anew.
    ///
    /// # Errors
    /// [`Stop`] where it is no longer there as it was.
    pub(crate) fn entry(&self, seq: Seq) -> Result<Entry, Stop> {
        let stop = |code: Code| Stop { seq, ..self.stop(code, code.class()) };
        let row = self.input.log().read(self.session, seq).next();
        let row = row.and_then(Result::ok).ok_or_else(|| stop(Code::InputUnreadable))?;
        let entry = Entry::read(&row.bytes).map_err(|_| stop(Code::InputUnreadable))?;
        let header = entry.header();
        if header.seq != seq {
            return Err(stop(Code::StoreKeyMismatch));
        }
        // It follows the one before it, or it would not have been handed out.
        let before = match seq.checked_sub(1) {
            None => Head::none(),
            Some(seq) => {
                Head { session: self.session, seq, hash: header.prev, time_us: header.time_us, kind: ANY_KIND }
            }
        };
        before.accept(&entry, &self.keys).map_err(|broken| stop(Code::from(broken.code)))?;
        Ok(entry)
    }

    /// The state after the last entry that was applied.
    pub(crate) fn state(&self) -> &State {
        self.judge.state()
    }

    /// The last entry that was handed out.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// What was checked so far.
    pub(crate) fn vouched(&self) -> Vouched {
        let path = self.input.info().path.clone();
        Vouched { session: self.session, path, entries: self.read, rooted: self.root.is_some() }
    }

    /// A genesis brings the keys of its session along, and its own hash is the name of the session.
    fn begin(&mut self, entry: &Entry) -> Result<(), Stop> {
        let mut fault = None;
        self.keys = chain::keyring(entry, self.root, &mut |broken| fault = fault.or(Some(Code::from(broken.code))));
        if entry.hash().0 != self.session.0 {
            fault = fault.or(Some(Code::GenesisInvalid));
        }
        fault.map_or(Ok(()), |code| Err(self.stop(code, code.class())))
    }

    fn stop(&self, code: Code, class: Class) -> Stop {
        let path = self.input.info().path.clone();
        Stop { session: self.session, seq: self.head.next_seq(), code, class, path }
    }
}

impl Stop {
    /// The same with the code and place that `verify` gives it: that has more to compare with, and one thing is not to
    /// have two names.
    pub(crate) fn settled(self, input: &Input, root: Option<&PublicKey>) -> Stop {
        let options =
            Options { root: root.cloned(), sessions: Some(vec![self.session]), jobs: 1, ..Options::default() };
        match verify(input, &options, &mut |_| ()) {
            Ok(report) => self.found_by(&report),
            Err(_) => self,
        }
    }

    fn found_by(self, report: &Report) -> Stop {
        let wanted = match report.exit() {
            3 => Class::Fail,
            8 => Class::Unreadable,
            _ => Class::NotChecked,
        };
        let here = |finding: &&crate::report::Finding| finding.class == wanted && finding.code != Code::StoppedAt;
        let at_place = report.findings.iter().filter(here).find(|finding| finding.seq == Some(self.seq));
        let first = if wanted == Class::NotChecked { at_place } else { report.findings.iter().find(here) };
        match first {
            Some(found) => Stop { code: found.code, class: found.class, seq: found.seq.unwrap_or(self.seq), ..self },
            None => self,
        }
    }

    /// The exit code: as of `verify`.
    pub(crate) fn exit(&self) -> u8 {
        match self.class {
            Class::Fail => 3,
            Class::Unreadable => 8,
            Class::NotChecked | Class::Warning => 4,
        }
    }

    /// What is wrong, in one line.
    pub(crate) fn words(&self) -> String {
        let (code, seq) = (self.code, self.seq);
        let what = match self.class {
            Class::Fail => "was tampered with or breaks the rules",
            Class::Unreadable => "cannot be read",
            Class::NotChecked | Class::Warning => "cannot be checked by this version or from this input",
        };
        let session = self.session.short();
        format!(
            "{}: session {session} {what}: {code} at seq {seq}: {}; {}",
            self.path,
            code.meaning(),
            code.next_step()
        )
    }

    /// As JSON, in the place of what was asked for.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub(crate) fn write(&self, format: &str, out: &mut dyn Write) -> io::Result<()> {
        let line = json!({
            "format": format,
            "session": self.session.to_string(),
            "exit": self.exit(),
            "fault": { "code": self.code.name(), "class": self.class.name(), "seq": self.seq,
                "meaning": self.code.meaning() },
        });
        write_line(&line, out)
    }
}

impl Vouched {
    /// The first line of what is said: of what it is, and how far it was checked.
    pub(crate) fn line(&self) -> String {
        let root = if self.rooted {
            "keys granted by the root key"
        } else {
            "ROOT KEY NOT GIVEN, so nobody vouches for who wrote it (--root)"
        };
        format!(
            "session {} of {}: {} read; links, signatures and rules hold; {root}; blobs not compared",
            &self.session.to_string()[..12],
            escaped(&self.path),
            count(self.entries, "entry", "entries"),
        )
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "entries": self.entries, "chain": "OK", "signatures": "OK", "legality": "OK", "state": "OK",
            "keys": if self.rooted { "OK" } else { "NOT_CHECKED" }, "blobs": "NOT_CHECKED",
        })
    }
}
