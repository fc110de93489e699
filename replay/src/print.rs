//! A report as text: the verdict first, then each session, then each finding with what to do about it.

use std::io::{self, Write};

use serde_json::Value;
use toka_kernel::ids::SessionId;

use crate::code::Axis;
use crate::report::{Finding, Report, SessionReport};
use crate::text::{count, escaped};

/// Writes a report for people.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", verdict_line(report))?;
    writeln!(
        out,
        "tamper-evident, anchor level L0: nobody outside vouches for the head{}",
        if report.fast { "; --fast: only the last signature was checked" } else { "" }
    )?;
    let short = Short::of(report);
    for session in &report.sessions {
        writeln!(out, "\n{}", session_line(session, &short))?;
        writeln!(out, "  {}", axes_line(session))?;
        for line in asides(session) {
            writeln!(out, "  {line}")?;
        }
    }
    if !report.findings.is_empty() {
        writeln!(out)?;
    }
    report.findings.iter().try_for_each(|finding| print_finding(finding, &short, out))
}

/// The first line: what came out, in words, with the exit code.
fn verdict_line(report: &Report) -> String {
    let path = escaped(&report.input.path);
    let exit = report.exit();
    let first = report.findings.iter().find(|finding| finding.class.name() == report.verdict());
    let first = first.or(report.findings.first());
    let at = |finding: &Finding| match finding.seq {
        Some(seq) => format!("{} at seq {seq}", finding.code),
        None => finding.code.to_string(),
    };
    match (exit, first) {
        (0, _) => {
            let open = report.sessions.iter().find(|session| !session.closed);
            let rest = open.map(|open| format!("; {}", truncation(report, open))).unwrap_or_default();
            format!("OK: {path}: {}{rest}", sums(report))
        }
        (3, Some(first)) => format!("FAIL: {path} was tampered with or breaks the rules: {} (exit 3)", at(first)),
        (8, Some(first)) => format!("UNREADABLE: {path}: {} (exit 8)", at(first)),
        (4, _) => match report.sessions.iter().find(|session| !session.closed) {
            Some(open) => format!("INCOMPLETE: {path}: {}{} (exit 4)", truncation(report, open), gaps(report)),
            None if report.sessions.is_empty() => format!("INCOMPLETE: {path}: it holds no session (exit 4)"),
            None => format!("INCOMPLETE: {path}: {}{} (exit 4)", sums(report), gaps(report)),
        },
        (_, _) => format!("{}: {path} (exit {exit})", report.verdict()),
    }
}

fn sums(report: &Report) -> String {
    let sessions = count(report.sessions.len() as u64, "session", "sessions");
    format!("{sessions}, {} as written", count(report.checked.entries, "entry", "entries"))
}

fn truncation(report: &Report, open: &SessionReport) -> String {
    let seq = open.head.map_or(0, |(seq, _)| seq);
    let others = report.sessions.iter().filter(|session| !session.closed).count() as u64 - 1;
    let more =
        if others == 0 { String::new() } else { format!(", and in {}", count(others, "other session", "others")) };
    format!("truncation after seq {seq} not excluded{more}")
}

/// The required axes that were not checked, the end aside.
fn gaps(report: &Report) -> String {
    let missing: Vec<_> = report
        .required
        .iter()
        .filter(|required| !report.meets(**required) && required.name() != Axis::Tail.name())
        .map(|required| required.name())
        .collect();
    if missing.is_empty() { String::new() } else { format!("; not checked: {}", missing.join(", ")) }
}

fn session_line(session: &SessionReport, short: &Short) -> String {
    let status = if session.closed { "closed" } else { "open" };
    let stands = match session.trusted_prefix_seq {
        Some(seq) if session.head.is_some_and(|(head, _)| head == seq) => "all of it stands".to_owned(),
        Some(0) => "seq 0 stands".to_owned(),
        Some(seq) => format!("seqs 0 to {seq} stand"),
        None => "nothing of it is vouched for".to_owned(),
    };
    let entries = count(session.entries, "entry", "entries");
    format!("session {}  {entries}  {status}  {stands}", short.id(session.session))
}

fn axes_line(session: &SessionReport) -> String {
    Axis::ALL.map(|axis| format!("{axis} {}", session.axes.get(axis).name())).join(" · ")
}

fn asides(session: &SessionReport) -> Vec<String> {
    let mut lines = Vec::new();
    if session.blobs.present + session.blobs.omitted > 0 {
        lines.push(format!("blobs: {} present, {} omitted", session.blobs.present, session.blobs.omitted));
    }
    if session.facts_unchecked > 0 {
        let facts = count(session.facts_unchecked, "entry", "entries");
        lines.push(format!("facts of {facts} not compared with their blobs, which are not here"));
    }
    if session.signed.separate + session.signed.in_process > 0 {
        let (apart, held) = (session.signed.separate, session.signed.in_process);
        lines.push(format!("signed commands: {apart} by keys kept apart, {held} by keys of the node's own process"));
    }
    if session.refs_unresolved > 0 {
        let refs = count(session.refs_unresolved, "entry", "entries");
        lines.push(format!("{refs} of other sessions cited that are not here"));
    }
    lines
}

fn print_finding(finding: &Finding, short: &Short, out: &mut dyn Write) -> io::Result<()> {
    let mut line = finding.code.name().to_owned();
    if let Some(session) = finding.session {
        line += &format!("  session {}", short.id(session));
    }
    if let Some(seq) = finding.seq {
        line += &format!(" seq {seq}");
    }
    if let Some(offset) = finding.byte_offset {
        line += &format!(" byte {offset}");
    }
    if let Some(field) = &finding.field {
        line += &format!(" {}", escaped(field));
    }
    let (expected, actual) = (worded(&finding.expected), worded(&finding.actual));
    match (expected.is_empty(), actual.is_empty()) {
        (false, false) => line += &format!(": expected {expected}, actual {actual}"),
        (false, true) => line += &format!(": expected {expected}"),
        (true, false) => line += &format!(": {actual}"),
        (true, true) => {}
    }
    if let Some(cause) = finding.caused_by {
        return writeln!(out, "  #{} {line}  (follows from #{cause})", finding.id);
    }
    writeln!(out, "#{} {line}", finding.id)?;
    for (name, value) in &finding.detail {
        writeln!(out, "    {name}: {}", worded(value))?;
    }
    writeln!(out, "    → {}: {}", finding.code.meaning(), finding.code.next_step())
}

/// A value in a line. Of an event its kind is said; its body is in the JSON report.
fn worded(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => short_hex(&escaped(text)),
        Value::Object(fields) => match (fields.get("kind"), fields.len()) {
            (Some(Value::String(kind)), 2) => escaped(kind),
            _ => escaped(&value.to_string()),
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => escaped(&value.to_string()),
    }
}

/// Hashes cut to 16 digits, enough to see that they differ. The JSON report has them whole.
fn short_hex(text: &str) -> String {
    let is_hash = |word: &str| word.len() >= 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = |word: &str| if is_hash(word) { format!("{}…", &word[..16]) } else { word.to_owned() };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// Session ids, cut to the shortest length at which they differ.
pub(crate) struct Short(usize);

impl Short {
    fn of(report: &Report) -> Short {
        Short::of_ids(report.sessions.iter().map(|session| session.session))
    }

    /// `ids` ascend.
    pub(crate) fn of_ids(ids: impl Iterator<Item = SessionId>) -> Short {
        let (mut longest, mut before) = (12, None::<String>);
        for id in ids {
            let id = id.to_string();
            if let Some(before) = &before {
                let same = before.bytes().zip(id.bytes()).take_while(|(one, other)| one == other).count();
                longest = longest.max(same + 1);
            }
            before = Some(id);
        }
        Short(longest.min(64))
    }

    pub(crate) fn id(&self, session: SessionId) -> String {
        session.to_string()[..self.0].to_owned()
    }
}
