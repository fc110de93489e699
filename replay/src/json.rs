//! A report as JSON: every key always there, in a fixed order.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};

use crate::code::Axis;
use crate::report::{Axes, Finding, Report, SessionReport};
use crate::text::is_hidden;

/// Writes a report as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    write_line(&Document::of(report), out)
}

/// Writes `value` as JSON on one line, with nothing in it that a terminal would obey.
pub(crate) fn write_line(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Plain))?;
    writeln!(out)
}

/// JSON as compact as usual, in which every hidden character is written as `\u....` too.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, char) in fragment.char_indices().filter(|(_, char)| is_hidden(*char)) {
            out.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain = at + char.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}

#[derive(serde::Serialize)]
struct Document<'a> {
    format: &'static str,
    input: Input<'a>,
    mode: &'static str,
    verdict: &'static str,
    exit: u8,
    required: Vec<&'static str>,
    axes: AxesMap<'a>,
    anchor_level: &'static str,
    as_of_us: Option<u64>,
    sessions: Vec<Session<'a>>,
    checked: Checked,
    findings: Vec<Row<'a>>,
}

#[derive(serde::Serialize)]
struct Input<'a> {
    kind: &'static str,
    path: &'a str,
    bytes: Option<u64>,
}

#[derive(serde::Serialize)]
struct Session<'a> {
    session: String,
    status: &'static str,
    head: Option<Head>,
    trusted_prefix_seq: Option<u64>,
    axes: AxesMap<'a>,
    blobs: Blobs,
    facts_unchecked: u64,
    refs_unresolved: u64,
    signed_commands: SignedCommands,
}

#[derive(serde::Serialize)]
struct Head {
    seq: u64,
    entry: String,
}

#[derive(serde::Serialize)]
struct Blobs {
    present: u64,
    erased: u64,
    omitted: u64,
}

#[derive(serde::Serialize)]
struct SignedCommands {
    separate: u64,
    in_process: u64,
}

#[derive(serde::Serialize)]
struct Checked {
    entries: u64,
    signatures: u64,
    checkpoints: u64,
}

#[derive(serde::Serialize)]
struct Row<'a> {
    id: u32,
    code: &'static str,
    class: &'static str,
    axis: &'static str,
    session: Option<String>,
    seq: Option<u64>,
    byte_offset: Option<u64>,
    field: Option<&'a str>,
    expected: &'a Value,
    actual: &'a Value,
    caused_by: Option<u32>,
    trusted_prefix_seq: Option<u64>,
    detail: &'a Map<String, Value>,
}

struct AxesMap<'a>(&'a Axes);

impl Serialize for AxesMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Axis::ALL.len()))?;
        for axis in Axis::ALL {
            map.serialize_entry(axis.name(), self.0.get(axis).name())?;
        }
        map.end()
    }
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Document<'a> {
        let checked =
            Checked { entries: report.checked.entries, signatures: report.checked.signatures, checkpoints: 0 };
        Document {
            format: "toka-verify/1",
            input: Input { kind: report.input.kind, path: &report.input.path, bytes: report.input.bytes },
            mode: if report.fast { "fast" } else { "full" },
            verdict: report.verdict(),
            exit: report.exit(),
            required: report.required.iter().map(|required| required.name()).collect(),
            axes: AxesMap(&report.axes),
            anchor_level: "L0",
            as_of_us: None,
            sessions: report.sessions.iter().map(Session::of).collect(),
            checked,
            findings: report.findings.iter().map(Row::of).collect(),
        }
    }
}

impl<'a> Session<'a> {
    fn of(session: &'a SessionReport) -> Session<'a> {
        Session {
            session: session.session.to_string(),
            status: if session.closed { "closed" } else { "open" },
            head: session.head.map(|(seq, hash)| Head { seq, entry: hash.to_string() }),
            trusted_prefix_seq: session.trusted_prefix_seq,
            axes: AxesMap(&session.axes),
            blobs: Blobs { present: session.blobs.present, erased: 0, omitted: session.blobs.omitted },
            facts_unchecked: session.facts_unchecked,
            refs_unresolved: session.refs_unresolved,
            signed_commands: SignedCommands {
                separate: session.signed.separate,
                in_process: session.signed.in_process,
            },
        }
    }
}

impl<'a> Row<'a> {
    fn of(finding: &'a Finding) -> Row<'a> {
        Row {
            id: finding.id,
            code: finding.code.name(),
            class: finding.class.name(),
            axis: finding.code.axis().name(),
            session: finding.session.map(|session| session.to_string()),
            seq: finding.seq,
            byte_offset: finding.byte_offset,
            field: finding.field.as_deref(),
            expected: &finding.expected,
            actual: &finding.actual,
            caused_by: finding.caused_by,
            trusted_prefix_seq: finding.trusted_prefix_seq,
            detail: &finding.detail,
        }
    }
}
