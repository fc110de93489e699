//! What a verification says: a verdict, an answer on every axis, and each thing that was found, at its place.

use serde_json::{Map, Value};
use toka_kernel::ids::{EntryHash, Seq, SessionId};

use crate::code::{Axis, Class, Code};

/// The outcome of a verification. The same input and options give the same report, whatever the number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was verified.
    pub input: InputInfo,
    /// Whether most signatures were left out.
    pub fast: bool,
    /// What must be OK for exit 0.
    pub required: Vec<Requirement>,
    /// The answer on every axis, over all sessions.
    pub axes: Axes,
    /// Each session, in the order of their ids.
    pub sessions: Vec<SessionReport>,
    /// How much was looked at.
    pub checked: Checked,
    /// What was found, by session and place; at most [`toka_kernel::limits::FINDINGS_MAX`] and one that says so.
    pub findings: Vec<Finding>,
    pub(crate) tampered: bool,
    pub(crate) unreadable: bool,
}

impl Report {
    /// The exit code: 3 tampered or illegal, else 8 unreadable, else 4 a required axis was not checked, else 0.
    pub fn exit(&self) -> u8 {
        match (self.tampered, self.unreadable) {
            (true, _) => 3,
            (false, true) => 8,
            (false, false) if !self.required.iter().all(|required| self.meets(*required)) => 4,
            (false, false) => 0,
        }
    }

    /// The exit code as a word.
    pub fn verdict(&self) -> &'static str {
        match self.exit() {
            3 => "FAIL",
            8 => "UNREADABLE",
            4 => "INCOMPLETE",
            _ => "OK",
        }
    }

    /// The findings that no other finding explains.
    pub fn roots(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.caused_by.is_none())
    }

    pub(crate) fn meets(&self, required: Requirement) -> bool {
        match required {
            Requirement::Axis(axis) => self.axes.get(axis) == Answer::Ok,
            Requirement::Closed => !self.sessions.is_empty() && self.sessions.iter().all(|session| session.closed),
            // Anchors come with a later slice: no level above L0 can be reached.
            Requirement::L1 | Requirement::L2 => false,
        }
    }
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// `store`, `bundle`, or `unknown`.
    pub kind: &'static str,
    /// Its path or name.
    pub path: String,
    /// Its bytes, where it is one file.
    pub bytes: Option<u64>,
}

/// What must be OK for exit 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// This axis.
    Axis(Axis),
    /// Every session is closed.
    Closed,
    /// An anchor on this machine.
    L1,
    /// An anchor kept elsewhere.
    L2,
}

impl Requirement {
    /// What is required when nothing is said.
    pub const DEFAULT: [Requirement; 9] = [
        Requirement::Axis(Axis::Frame),
        Requirement::Axis(Axis::Chain),
        Requirement::Axis(Axis::Signatures),
        Requirement::Axis(Axis::Keys),
        Requirement::Axis(Axis::Commands),
        Requirement::Axis(Axis::Legality),
        Requirement::Axis(Axis::State),
        Requirement::Axis(Axis::Blobs),
        Requirement::Axis(Axis::Tail),
    ];

    /// The word for it in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Requirement::Axis(axis) => axis.name(),
            Requirement::Closed => "closed",
            Requirement::L1 => "L1",
            Requirement::L2 => "L2",
        }
    }

    /// The requirement of that name.
    pub fn parse(name: &str) -> Option<Requirement> {
        let others = [Requirement::Closed, Requirement::L1, Requirement::L2];
        Axis::ALL.map(Requirement::Axis).into_iter().chain(others).find(|known| known.name() == name)
    }
}

/// The answer on one axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It holds, for everything there is.
    Ok,
    /// It does not hold.
    Fail,
    /// It was not, or not wholly, checked.
    #[default]
    NotChecked,
}

impl Answer {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Answer::Ok => "OK",
            Answer::Fail => "FAIL",
            Answer::NotChecked => "NOT_CHECKED",
        }
    }
}

/// An answer for every axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axes([Answer; Axis::ALL.len()]);

impl Axes {
    /// The answer on `axis`.
    pub fn get(&self, axis: Axis) -> Answer {
        self.0[axis as usize]
    }

    pub(crate) fn set(&mut self, axis: Axis, answer: Answer) {
        self.0[axis as usize] = answer;
    }

    /// What holds for all of `parts`: one failure fails, one gap is a gap, and of nothing nothing is known.
    pub(crate) fn of_all<'a>(parts: impl Iterator<Item = &'a Axes> + Clone) -> Axes {
        let mut all = Axes::default();
        for axis in Axis::ALL {
            let answers = || parts.clone().map(|part| part.get(axis));
            let answer = if answers().any(|answer| answer == Answer::Fail) {
                Answer::Fail
            } else if answers().next().is_none() || answers().any(|answer| answer == Answer::NotChecked) {
                Answer::NotChecked
            } else {
                Answer::Ok
            };
            all.set(axis, answer);
        }
        all
    }
}

/// What was found out about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// The session, by the name the input has for it.
    pub session: SessionId,
    /// Whether it is the node's own session, which is open as long as there is a node.
    pub system: bool,
    /// Whether its last entry is its end.
    pub closed: bool,
    /// Its last entry.
    pub head: Option<(Seq, EntryHash)>,
    /// Its entries.
    pub entries: u64,
    /// Everything up to this entry passed every check of entries.
    pub trusted_prefix_seq: Option<Seq>,
    /// The answer on every axis.
    pub axes: Axes,
    /// Its blobs.
    pub blobs: BlobCounts,
    /// Calls and bound tools whose blob is not here to compare with.
    pub facts_unchecked: u64,
    /// Entries of other sessions that it cites and that are not in the input.
    pub refs_unresolved: u64,
    /// Commands with a signature of their own that were accepted.
    pub signed: SignedCounts,
}

/// Signed commands, by where the keys lie: one that the node holds proves nothing against the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignedCounts {
    /// Apart from the node.
    pub separate: u64,
    /// In the node's process.
    pub in_process: u64,
}

/// Blobs of a session, each commitment once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobCounts {
    /// Present, and what was committed to.
    pub present: u64,
    /// Left out of the bundle on purpose.
    pub omitted: u64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries.
    pub entries: u64,
    /// Signatures of entries that hold.
    pub signatures: u64,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its number in this report, from 1.
    pub id: u32,
    /// What it is.
    pub code: Code,
    /// What it does to the verdict.
    pub class: Class,
    /// The session.
    pub session: Option<SessionId>,
    /// The seq that an entry at this place should have.
    pub seq: Option<Seq>,
    /// Where it lies: in the file of a bundle, in the entry of a store.
    pub byte_offset: Option<u64>,
    /// The field.
    pub field: Option<String>,
    /// What should stand there.
    pub expected: Value,
    /// What stands there.
    pub actual: Value,
    /// The finding it follows from.
    pub caused_by: Option<u32>,
    /// Everything up to this entry of the session passed every check of entries.
    pub trusted_prefix_seq: Option<Seq>,
    /// More about it.
    pub detail: Map<String, Value>,
}
