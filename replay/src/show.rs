//! `show`: entries as they are stored, in words, as JSON or as bytes. Nothing is checked.

mod filter;
mod line;

use std::io::{self, Write};

use toka_kernel::body::kind_of;
use toka_kernel::ids::{Commitment, SessionId};
use toka_kernel::{BlobRef, Entry};
use toka_projections::words;
use toka_store::ReadError;

use self::line::Line;
use crate::input::{Input, Stored};
use crate::json::write_line;
use crate::names::Names;
use crate::print::Short;
use crate::shown::hex;
use crate::text::{escaped, time};

pub use self::filter::Filter;

/// How entries are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// One JSON object per line.
    pub json: bool,
    /// With the bytes as hex.
    pub raw: bool,
    /// With the content of small text blobs.
    pub blobs: bool,
}

/// Why nothing more was shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The input cannot be read at that place.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Text of a blob that is shown; more is only counted.
const TEXT_BYTES_MAX: usize = 4_096;

/// Shows the entries of `input` that `filter` takes, in the order in which they lie.
///
/// # Errors
/// When the input cannot be read or the output cannot be written; what could be shown before was.
pub fn show(input: &Input, filter: &Filter, form: Form, out: &mut dyn Write) -> Result<(), ShowError> {
    let sessions: Vec<SessionId> = input.sessions().collect::<Result<_, _>>()?;
    let short = Short::of_ids(sessions.iter().copied());
    for session in sessions.iter().copied().filter(|session| filter.takes_session(*session)) {
        if sessions.len() > 1 && !form.json {
            writeln!(out, "session {}", short.id(session))?;
        }
        let mut shower = Shower { input, session, filter, form, names: Names::default() };
        for stored in input.entries(session) {
            if shower.entry(&stored?, out)? {
                break;
            }
        }
    }
    Ok(())
}

struct Shower<'a> {
    input: &'a Input,
    session: SessionId,
    filter: &'a Filter,
    form: Form,
    names: Names,
}

impl Shower<'_> {
    /// Shows one entry if it is wanted. Gives whether no later one is.
    fn entry(&mut self, stored: &Stored, out: &mut dyn Write) -> Result<bool, ShowError> {
        let entry = match Entry::read(&stored.bytes) {
            Ok(entry) => entry,
            Err(fault) => {
                if stored.key.is_none_or(|key| self.filter.takes_bytes(key)) {
                    self.no_entry(stored, &fault.to_string(), out)?;
                }
                return Ok(false);
            }
        };
        if let Ok(event) = entry.event() {
            self.names.learn(&entry, event);
        }
        if self.filter.takes(&entry, &self.names) {
            self.print(stored, &entry, out)?;
        }
        if let Ok(event) = entry.event() {
            self.names.forget(event);
        }
        Ok(self.filter.ends_before(entry.header().seq))
    }

    fn print(&self, stored: &Stored, entry: &Entry, out: &mut dyn Write) -> Result<(), ShowError> {
        let header = entry.header();
        let unknown = format!("{:#06x}", header.kind);
        let kind = kind_of(header.kind).map_or(unknown.as_str(), |kind| kind.name);
        let what = match entry.event() {
            Ok(event) => words(event, &self.names),
            Err(fault) => fault.to_string(),
        };
        let who = self.names.of(header.principal);
        if self.form.json {
            let mut line = Line::of(self.session, entry, kind, who, &what);
            line.byte_offset = stored.offset;
            if self.form.blobs {
                for (blob, reference) in line.blobs.iter_mut().zip(&header.blobs) {
                    blob.content = self.text(reference.commitment)?.ok();
                }
            }
            let line = if self.form.raw { line.raw(&stored.bytes) } else { line };
            return Ok(write_line(&line, out)?);
        }
        writeln!(
            out,
            "{:>6}  {}  {kind:<14}  {} by {}",
            header.seq,
            time(header.time_us),
            escaped(&what),
            escaped(&who)
        )?;
        if self.form.raw {
            let (signature, body) = (entry.signature_offset(), entry.body());
            writeln!(out, "        header {}", hex(&stored.bytes[..signature]))?;
            writeln!(out, "        signature {}", hex(entry.signature()))?;
            writeln!(out, "        body {}", hex(body))?;
        }
        if self.form.blobs {
            for (index, reference) in header.blobs.iter().enumerate() {
                self.print_blob(index, reference, out)?;
            }
        }
        Ok(())
    }

    fn print_blob(&self, index: usize, reference: &BlobRef, out: &mut dyn Write) -> Result<(), ShowError> {
        let content = match self.text(reference.commitment)? {
            Ok(text) => escaped(&text),
            Err(what) => format!("({what})"),
        };
        writeln!(out, "        blob {index} {}: {content}", reference.commitment.short())?;
        Ok(())
    }

    /// The text of a blob, or in words why it is not shown.
    fn text(&self, commitment: Commitment) -> Result<Result<String, String>, ShowError> {
        let Some(len) = self.input.log().blob_len(self.session, commitment)? else {
            return Ok(Err("not here".to_owned()));
        };
        if len > TEXT_BYTES_MAX as u64 {
            return Ok(Err(format!("{len} bytes")));
        }
        let Some(blob) = self.input.blob(self.session, commitment)? else { return Ok(Err("not here".to_owned())) };
        Ok(String::from_utf8(blob.bytes).map_err(|_| format!("{len} bytes, no text")))
    }

    /// Bytes that are no entry: said, and shown as they are.
    fn no_entry(&self, stored: &Stored, fault: &str, out: &mut dyn Write) -> Result<(), ShowError> {
        if self.form.json {
            let line = serde_json::json!({
                "format": "toka-show/1",
                "session": self.session.to_string(),
                "key": stored.key,
                "byte_offset": stored.offset,
                "fault": fault,
                "raw": self.form.raw.then(|| hex(&stored.bytes)),
            });
            return Ok(write_line(&line, out)?);
        }
        let key = stored.key.map_or_else(|| "?".to_owned(), |key| key.to_string());
        writeln!(out, "{key:>6}  no entry: {fault}")?;
        if self.form.raw {
            writeln!(out, "        bytes {}", hex(&stored.bytes))?;
        }
        Ok(())
    }
}
