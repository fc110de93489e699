//! `state`: every row that the state digest covers, after one entry.

mod names;
mod value;

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use toka_kernel::State;
use toka_kernel::ids::{Digest, Seq};

use crate::json::write_line;
use crate::shown::{Shown, hex};
use crate::text::{count, escaped};
use crate::trail::{Stop, Trail, Vouched};

pub(crate) use self::names::{Part, long};
pub(crate) use self::value::text;

/// The state of a session after one entry.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) vouched: Vouched,
    pub(crate) seq: Seq,
    pub(crate) digest: Digest,
    pub(crate) leaves: u64,
    /// The entry after it, where that commits to this state. That it names the same digest was checked.
    pub(crate) committed: Option<Seq>,
    /// By table, then by key.
    pub(crate) rows: Vec<Row>,
}

/// One row, with names that can be read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) part: Part,
    /// The bytes of its key.
    pub(crate) key: Vec<u8>,
    pub(crate) fields: Vec<(String, Shown)>,
}

/// Why there is no state to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoState {
    /// The log does not stand that far.
    Stop(Stop),
    /// The session ends before that entry; its last seq, if it has one.
    Beyond(Option<Seq>),
}

impl From<Stop> for NoState {
    fn from(stop: Stop) -> NoState {
        NoState::Stop(stop)
    }
}

impl Snapshot {
    /// The state after `at`, or after the last entry.
    ///
    /// # Errors
    /// [`NoState`] where the log does not stand that far, or does not go that far.
    pub(crate) fn read(trail: &mut Trail<'_>, at: Option<Seq>) -> Result<Snapshot, NoState> {
        let mut seq = None;
        while seq.is_none() || seq != at {
            match trail.step()? {
                Some(entry) => seq = Some(entry.header().seq),
                None => break,
            }
        }
        let reached = match (seq, at) {
            (None, _) => return Err(NoState::Beyond(None)),
            (Some(seq), Some(at)) if seq != at => return Err(NoState::Beyond(Some(seq))),
            (Some(seq), _) => seq,
        };
        let (digest, leaves) = trail.state().digest();
        let (vouched, rows) = (trail.vouched(), rows_of(trail.state()));
        let mut snapshot = Snapshot { vouched, seq: reached, digest, leaves, committed: None, rows };
        // Whether the log itself says so stands in the next entry. Where that one does not stand, this state still does.
        if let Ok(Some(next)) = trail.next()
            && next.header().kind == toka_kernel::event::kind::STATE_COMMITTED
        {
            trail.apply(&next)?;
            snapshot.committed = Some(next.header().seq);
        }
        Ok(snapshot)
    }
}

/// The rows of a state, by table, then by key.
pub(crate) fn rows_of(state: &State) -> Vec<Row> {
    let row = |(table, key, value): (u16, Vec<u8>, Vec<u8>)| {
        let part = Part::of_table(table)?;
        let Some(Shown::Fields(fields)) = Shown::of_body(&value) else { return None };
        Some(Row { part, key, fields: long(part, fields) })
    };
    state.rows().into_iter().filter_map(row).collect()
}

impl Row {
    /// Its key for people: how the id begins, or the name.
    pub(crate) fn name(&self) -> String {
        match self.part {
            Part::Session => String::new(),
            Part::Tools => escaped(&String::from_utf8_lossy(&self.key)),
            Part::Principals
            | Part::Keys
            | Part::Grants
            | Part::Budgets
            | Part::Agents
            | Part::Tasks
            | Part::Messages
            | Part::Calls
            | Part::Refusals
            | Part::Sessions => hex(&self.key[..self.key.len().min(8)]),
            // A key id and a nonce: the nonce tells them apart.
            Part::Commands => hex(&self.key[self.key.len().saturating_sub(16)..]),
        }
    }

    /// Its key for programs.
    pub(crate) fn key_json(&self) -> Value {
        match self.part {
            Part::Session => Value::Null,
            Part::Tools => String::from_utf8_lossy(&self.key).into(),
            Part::Principals
            | Part::Keys
            | Part::Grants
            | Part::Budgets
            | Part::Agents
            | Part::Tasks
            | Part::Messages
            | Part::Calls
            | Part::Refusals
            | Part::Sessions
            | Part::Commands => hex(&self.key).into(),
        }
    }

    fn json(&self) -> Value {
        let fields = self.fields.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        json!({ "part": self.part.name(), "key": self.key_json(), "fields": Map::from_iter(fields) })
    }
}

/// Prints a state for people, as far as `only` asks for it; an empty `only` is everything.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print(snapshot: &Snapshot, only: &[Part], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", snapshot.vouched.line())?;
    let committed = match snapshot.committed {
        Some(seq) => format!("; seq {seq} commits to it"),
        None => String::new(),
    };
    let leaves = count(snapshot.leaves, "row", "rows");
    writeln!(out, "state after seq {}: digest {}, {leaves}{committed}", snapshot.seq, snapshot.digest)?;
    for part in wanted(only) {
        let rows: Vec<&Row> = snapshot.rows.iter().filter(|row| row.part == part).collect();
        if rows.is_empty() && only.is_empty() {
            continue;
        }
        writeln!(out, "\n{} ({})", part.name(), rows.len())?;
        for row in rows {
            let fields: Vec<String> =
                row.fields.iter().map(|(name, value)| format!("{name}={}", text(row.part, name, value))).collect();
            let (name, gap) = (row.name(), if row.part == Part::Session { "" } else { "  " });
            writeln!(out, "  {name}{gap}{}", fields.join(" "))?;
        }
    }
    Ok(())
}

/// Writes a state as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(snapshot: &Snapshot, only: &[Part], out: &mut dyn Write) -> io::Result<()> {
    let parts = wanted(only);
    let rows = snapshot.rows.iter().filter(|row| parts.contains(&row.part)).map(Row::json);
    let document = json!({
        "format": FORMAT,
        "session": snapshot.vouched.session.to_string(),
        "checked": snapshot.vouched.json(),
        "seq": snapshot.seq,
        "digest": snapshot.digest.to_string(),
        "leaves": snapshot.leaves,
        "committed_at": snapshot.committed,
        "parts": parts.iter().map(|part| part.name()).collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    });
    write_line(&document, out)
}

/// The format of `state --json`.
pub(crate) const FORMAT: &str = "toka-state/1";

fn wanted(only: &[Part]) -> Vec<Part> {
    Part::ALL.into_iter().filter(|part| only.is_empty() || only.contains(part)).collect()
}
