//! `diff`: where two histories part, and what that does to the state.

use std::cmp::Ordering;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use toka_kernel::Entry;
use toka_kernel::ids::{Seq, SessionId};
use toka_projections::words;

use crate::code::Code;
use crate::json::write_line;
use crate::names::Names;
use crate::shown::{Shown, hex};
use crate::state::{NoState, Part, Row, rows_of, text};
use crate::text::{escaped, time};
use crate::trail::{Stop, Trail, Vouched};

/// The format of `diff --json`.
pub(crate) const FORMAT: &str = "toka-diff/1";

/// One of two histories, and where to stop in it.
pub(crate) struct Side<'a> {
    pub(crate) trail: Trail<'a>,
    /// The last entry that counts; the last there is where absent.
    at: Option<Seq>,
    /// Where it does not stand, although it was signed.
    stop: Option<Stop>,
}

/// How two histories differ.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) left: End,
    pub(crate) right: End,
    /// The first place where they differ; none where both have the same entries.
    pub(crate) first: Option<First>,
    /// How the states differ, by part, then by key. Not known where one side does not stand to its end.
    pub(crate) changes: Option<Vec<Change>>,
}

/// Where a side ends.
#[derive(Debug)]
pub(crate) struct End {
    vouched: Vouched,
    seq: Seq,
    /// Where it stopped before, and why.
    stop: Option<Stop>,
}

/// The first place where two histories differ.
#[derive(Debug)]
pub(crate) struct First {
    seq: Seq,
    /// Both claim the same place of one session, with valid signatures.
    equivocation: bool,
    left: Option<Evidence>,
    right: Option<Evidence>,
}

/// An entry as it lies in its log.
#[derive(Debug)]
struct Evidence {
    session: SessionId,
    seq: Seq,
    hash: String,
    signer: String,
    time_us: u64,
    kind: String,
    what: String,
    who: String,
    raw: String,
}

/// A field that differs: its path, what it is on the left, and on the right.
type Field = (String, Option<Shown>, Option<Shown>);

/// How one row differs.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    /// Only the right state has it.
    Added(Row),
    /// Only the left state has it.
    Removed(Row),
    /// Both have it: the fields that differ, by their path, with the values left and right.
    Changed {
        /// The row as it is on the left.
        row: Row,
        /// Path, left, right; a field that is not there is none.
        fields: Vec<Field>,
    },
}

impl Difference {
    /// Walks through both histories together until they part, and then through each to its end.
    ///
    /// # Errors
    /// [`NoState`] where a side does not stand or does not go as far as was asked. Two signed entries for one place are
    /// told in any case.
    pub(crate) fn of(left: Side<'_>, right: Side<'_>) -> Result<Difference, NoState> {
        let mut walk = Walk { left, right, names: Names::default() };
        let first = walk.together()?;
        let stays = first.as_ref().is_some_and(|first| first.equivocation);
        let (left, right) = (walk.left.finish(stays)?, walk.right.finish(stays)?);
        let stands = left.stop.is_none() && right.stop.is_none();
        let rows = |side: &Side<'_>| rows_of(side.trail.state());
        let changes = stands.then(|| changes(rows(&walk.left), rows(&walk.right)));
        Ok(Difference { left, right, first, changes })
    }

    /// The exit code: 3 for two signed entries at one place, 1 for any other difference, 0 for none.
    pub(crate) fn exit(&self) -> u8 {
        match &self.first {
            Some(first) if first.equivocation => 3,
            Some(_) => 1,
            None if self.changes.as_ref().is_some_and(Vec::is_empty) => 0,
            None => 1,
        }
    }
}

struct Walk<'a> {
    left: Side<'a>,
    right: Side<'a>,
    names: Names,
}

impl Walk<'_> {
    fn together(&mut self) -> Result<Option<First>, Stop> {
        loop {
            // Both are read before either is decided: what was signed twice is found however unlawful one of them is.
            match (self.left.take()?, self.right.take()?) {
                (None, None) => return Ok(None),
                (Some(left), Some(right)) if left.hash() == right.hash() => {
                    if let Ok(event) = left.event() {
                        self.names.learn(&left, event);
                        self.names.forget(event);
                    }
                    self.left.trail.apply(&left)?;
                    self.right.trail.apply(&right)?;
                }
                (left, right) => return self.part(left, right).map(Some),
            }
        }
    }

    fn part(&mut self, left: Option<Entry>, right: Option<Entry>) -> Result<First, Stop> {
        let evidence = |entry: &Option<Entry>| entry.as_ref().map(|entry| Evidence::of(entry, self.names.clone()));
        let seq = left.as_ref().or(right.as_ref()).map_or(0, |entry| entry.header().seq);
        let sessions = [&left, &right].map(|entry| entry.as_ref().map(Entry::session));
        let equivocation = sessions[0].is_some() && sessions[0] == sessions[1];
        let first = First { seq, equivocation, left: evidence(&left), right: evidence(&right) };
        for (side, entry) in [(&mut self.left, left), (&mut self.right, right)] {
            let Some(entry) = entry else { continue };
            if let Err(stop) = side.trail.apply(&entry) {
                if !equivocation {
                    return Err(stop);
                }
                side.stop = Some(stop);
            }
        }
        Ok(first)
    }
}

impl<'a> Side<'a> {
    /// The history of this trail up to `at`, or to its end.
    pub(crate) fn new(trail: Trail<'a>, at: Option<Seq>) -> Side<'a> {
        Side { trail, at, stop: None }
    }

    fn is_done(&self) -> bool {
        self.trail.head().kind != 0 && self.at == Some(self.trail.head().seq)
    }

    fn take(&mut self) -> Result<Option<Entry>, Stop> {
        if self.is_done() { Ok(None) } else { self.trail.next() }
    }

    /// Goes on alone. Where `stays`, a fault is no more than a place to stop at.
    fn finish(&mut self, stays: bool) -> Result<End, NoState> {
        while self.stop.is_none() && !self.is_done() {
            match self.trail.step() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(found) if stays => self.stop = Some(found),
                Err(found) => return Err(found.into()),
            }
        }
        let head = *self.trail.state().head();
        if head.kind == 0 {
            return Err(NoState::Beyond(None));
        }
        if self.stop.is_none() && self.at.is_some_and(|at| at != head.seq) {
            return Err(NoState::Beyond(Some(head.seq)));
        }
        Ok(End { vouched: self.trail.vouched(), seq: head.seq, stop: self.stop.take() })
    }
}

impl Evidence {
    fn of(entry: &Entry, mut names: Names) -> Evidence {
        let header = entry.header();
        if let Ok(event) = entry.event() {
            names.learn(entry, event);
        }
        let kind = toka_kernel::body::kind_of(header.kind);
        Evidence {
            session: entry.session(),
            seq: header.seq,
            hash: entry.hash().to_string(),
            signer: header.signer.to_string(),
            time_us: header.time_us,
            kind: kind.map_or_else(|| format!("{:#06x}", header.kind), |kind| kind.name.to_owned()),
            what: entry.event().map_or_else(|fault| fault.to_string(), |event| words(event, &names)),
            who: names.of(header.principal),
            raw: hex(entry.bytes()),
        }
    }

    fn line(&self) -> String {
        let (hash, kind, at) = (&self.hash[..16], &self.kind, time(self.time_us));
        format!("{hash}  {at}  {kind}  {} by {}", escaped(&self.what), escaped(&self.who))
    }

    fn json(&self) -> Value {
        json!({
            "session": self.session.to_string(), "seq": self.seq, "entry": self.hash, "signer": self.signer,
            "time_us": self.time_us, "kind": self.kind, "what": self.what, "who": self.who, "raw": self.raw,
        })
    }
}

/// How `right` differs from `left`; both are in order.
pub(crate) fn changes(left: Vec<Row>, right: Vec<Row>) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => (left.part, &left.key).cmp(&(right.part, &right.key)),
        };
        match order {
            Ordering::Less => changes.extend(left.next().map(Change::Removed)),
            Ordering::Greater => changes.extend(right.next().map(Change::Added)),
            Ordering::Equal => {
                let (Some(left), Some(right)) = (left.next(), right.next()) else { continue };
                let fields = differing(&left.fields, &right.fields);
                if !fields.is_empty() {
                    changes.push(Change::Changed { row: left, fields });
                }
            }
        }
    }
}

/// The fields in which two rows differ, inside nested ones by their path.
fn differing(left: &[(String, Shown)], right: &[(String, Shown)]) -> Vec<Field> {
    let find = |fields: &[(String, Shown)], name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let only_right = right.iter().filter(|(name, _)| find(left, name).is_none());
    let mut out = Vec::new();
    for (name, _) in left.iter().chain(only_right) {
        match (find(left, name), find(right, name)) {
            (one, other) if one == other => {}
            (Some(Shown::Fields(one)), Some(Shown::Fields(other))) => {
                let inside = differing(&one, &other).into_iter();
                out.extend(inside.map(|(path, one, other)| (format!("{name}.{path}"), one, other)));
            }
            (one, other) => out.push((name.clone(), one, other)),
        }
    }
    out
}

/// Prints a difference for people.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    let Difference { left, right, first, changes } = difference;
    writeln!(out, "left:  {}", left.vouched.line())?;
    writeln!(out, "right: {}", right.vouched.line())?;
    match first {
        None => writeln!(out, "the same entries up to seq {}", left.seq)?,
        Some(first) => print_first(first, out)?,
    }
    for (name, side) in [("left", left), ("right", right)] {
        if let Some(stop) = &side.stop {
            writeln!(out, "{name} does not stand to its end: {}", escaped(&stop.words()))?;
        }
    }
    let Some(changes) = changes else { return Ok(()) };
    let tally = |is: fn(&Change) -> bool| changes.iter().filter(|change| is(change)).count();
    let added = tally(|change| matches!(change, Change::Added(_)));
    let removed = tally(|change| matches!(change, Change::Removed(_)));
    let changed = changes.len() - added - removed;
    let states = format!("state after seq {} on the left and seq {} on the right", left.seq, right.seq);
    if changes.is_empty() {
        return writeln!(out, "{states}: the same");
    }
    writeln!(out, "{states}: {added} added, {removed} removed, {changed} changed")?;
    for part in Part::ALL {
        let here: Vec<&Change> = changes.iter().filter(|change| change.row().part == part).collect();
        if here.is_empty() {
            continue;
        }
        writeln!(out, "\n{} ({})", part.name(), here.len())?;
        here.into_iter().try_for_each(|change| print_change(change, out))?;
    }
    Ok(())
}

fn print_first(first: &First, out: &mut dyn Write) -> io::Result<()> {
    let seq = first.seq;
    match (&first.left, &first.right) {
        _ if first.equivocation => {
            let code = Code::Equivocation;
            writeln!(out, "{code} at seq {seq}: {}; {}", code.meaning(), code.next_step())?;
        }
        (Some(_), Some(_)) => writeln!(out, "two sessions: the entries differ from seq {seq} on")?,
        (Some(_), None) => writeln!(out, "the same entries up to the end of the right side; seq {seq} is only left")?,
        (None, _) => writeln!(out, "the same entries up to the end of the left side; seq {seq} is only right")?,
    }
    for (name, evidence) in [("left ", &first.left), ("right", &first.right)] {
        if let Some(evidence) = evidence {
            writeln!(out, "  {name}  {}", evidence.line())?;
        }
    }
    Ok(())
}

fn print_change(change: &Change, out: &mut dyn Write) -> io::Result<()> {
    let part = change.row().part;
    let name = change.row().name();
    let all = |row: &Row| {
        let fields = row.fields.iter().map(|(name, value)| format!("{name}={}", text(part, name, value)));
        fields.collect::<Vec<_>>().join(" ")
    };
    match change {
        Change::Added(row) => writeln!(out, "  + {name}  {}", all(row)),
        Change::Removed(row) => writeln!(out, "  - {name}  {}", all(row)),
        Change::Changed { fields, .. } => {
            let side = |path: &str, value: &Option<Shown>| {
                value.as_ref().map_or_else(|| "absent".to_owned(), |value| text(part, path, value))
            };
            let words =
                fields.iter().map(|(path, one, other)| format!("{path} {} → {}", side(path, one), side(path, other)));
            writeln!(out, "  ~ {name}  {}", words.collect::<Vec<_>>().join(", "))
        }
    }
}

impl Change {
    fn row(&self) -> &Row {
        match self {
            Change::Added(row) | Change::Removed(row) | Change::Changed { row, .. } => row,
        }
    }

    fn json(&self) -> Value {
        let all = |row: &Row| {
            Map::from_iter(row.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))))
        };
        let (what, left, right) = match self {
            Change::Added(row) => ("added", Value::Null, Value::Object(all(row))),
            Change::Removed(row) => ("removed", Value::Object(all(row)), Value::Null),
            Change::Changed { fields, .. } => {
                let side = |of: fn(&Field) -> &Option<Shown>| {
                    let value = |field| of(field).clone().map_or(Value::Null, Value::from);
                    Value::Object(Map::from_iter(fields.iter().map(|field| (field.0.clone(), value(field)))))
                };
                ("changed", side(|field| &field.1), side(|field| &field.2))
            }
        };
        let row = self.row();
        json!({ "change": what, "part": row.part.name(), "key": row.key_json(), "left": left, "right": right })
    }
}

/// Writes a difference as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    let side = |end: &End| {
        let stop = end.stop.as_ref().map(|stop| json!({ "code": stop.code.name(), "seq": stop.seq }));
        json!({ "session": end.vouched.session.to_string(), "checked": end.vouched.json(), "seq": end.seq, "stop": stop })
    };
    let first = difference.first.as_ref().map(|first| {
        let evidence = |evidence: &Option<Evidence>| evidence.as_ref().map(Evidence::json);
        json!({
            "seq": first.seq, "code": first.equivocation.then(|| Code::Equivocation.name()),
            "left": evidence(&first.left), "right": evidence(&first.right),
        })
    });
    let changes = difference.changes.as_ref().map(|changes| changes.iter().map(Change::json).collect::<Vec<_>>());
    let document = json!({
        "format": FORMAT, "exit": difference.exit(), "left": side(&difference.left), "right": side(&difference.right),
        "first": first, "changes": changes,
    });
    write_line(&document, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8, fields: &[(&str, Shown)]) -> Row {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Row { part: Part::Agents, key: vec![key; 32], fields }
    }

    #[test]
    fn rows_are_added_removed_and_changed_field_by_field() {
        let plan = |phase| Shown::Fields(vec![("phase".to_owned(), Shown::Unsigned(phase))]);
        let old = row(2, &[("state", Shown::Unsigned(1)), ("plan", plan(1)), ("depth", Shown::Unsigned(1))]);
        let new = row(2, &[("state", Shown::Unsigned(2)), ("plan", plan(3)), ("depth", Shown::Unsigned(1))]);
        let (gone, come) = (row(1, &[]), row(3, &[]));
        let found = changes(vec![gone.clone(), old.clone()], vec![new, come.clone()]);
        let number = |number| Some(Shown::Unsigned(number));
        let fields = vec![("state".to_owned(), number(1), number(2)), ("plan.phase".to_owned(), number(1), number(3))];
        assert_eq!(found, [Change::Removed(gone), Change::Changed { row: old.clone(), fields }, Change::Added(come)]);
        assert_eq!(changes(vec![old.clone()], vec![old]), []);
    }
}
