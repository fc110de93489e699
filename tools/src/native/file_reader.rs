//! `file-reader`: the content of one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::fstat;
use serde_json::{Value, json};
use toka_kernel::facts::FactType;
use toka_kernel::tool::{Effect, Level, Model, ParamType, ToolSpec};

use super::spec::{Worst, between, facts, need, one_of, or, param, program, required};
use super::{Cancel, NativeTool, Request, ToolFailure, bad_argument, go_on};
use crate::confine::{Ops, failure};

/// Reads a part of one regular file.
///
/// Answers `{content, encoding, bytes, total, blake3, truncated}`: the content as text or base64, the number of
/// bytes it stands for, the length of the file, the BLAKE3 of those bytes (which is that of the file when `offset`
/// is 0 and `truncated` is false), and whether the file goes on behind them. In `auto`, bytes that are UTF-8 without
/// NUL are text. A character cut by the end of the range is left to the next one.
#[derive(Debug)]
pub struct FileReader {
    spec: ToolSpec,
}

/// The symbol of bytes that are no text although text was asked for.
const NOT_UTF8: &str = "not-utf8";

const LENGTH: u64 = 1 << 20;
const LENGTH_MAX: u64 = 16 << 20;
const CHUNK: usize = 64 << 10;

impl NativeTool for FileReader {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn run(&self, request: &Request<'_>, control: &dyn Cancel) -> Result<Value, ToolFailure> {
        let handed = request.handed("path", Ops::READ)?;
        let offset = request.number("offset", 0)?;
        let length = request.number("length", LENGTH)?;
        let encoding = Encoding::named(request.text("encoding")?.unwrap_or("auto"))?;
        if length > LENGTH_MAX {
            return Err(bad_argument("length"));
        }
        let file = File::from(handed.open_file()?);
        let mut bytes = read(&file, offset, length, control)?;
        let end = |bytes: &[u8]| if bytes.is_empty() { 0 } else { offset.saturating_add(bytes.len() as u64) };
        let size = u64::try_from(fstat(&file).map_err(failure)?.st_size).unwrap_or(0);
        // A file may have grown since, and some file systems do not say how long a file is.
        let total = size.max(end(&bytes));
        if encoding != Encoding::Base64 && end(&bytes) < total {
            drop_cut_character(&mut bytes);
        }
        let blake3 = blake3::hash(&bytes).to_hex();
        let (count, truncated) = (bytes.len() as u64, offset.saturating_add(bytes.len() as u64) < total);
        let (encoding, content) = encoding.encode(bytes)?;
        Ok(json!({
            "content": content,
            "encoding": encoding,
            "bytes": count,
            "total": total,
            "blake3": blake3.as_str(),
            "truncated": truncated,
        }))
    }
}

fn read(file: &File, offset: u64, length: u64, control: &dyn Cancel) -> Result<Vec<u8>, ToolFailure> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    // An offset that no file can reach is one behind the end.
    while i64::try_from(offset.saturating_add(length)).is_ok() && (bytes.len() as u64) < length {
        go_on(control)?;
        let want = usize::try_from(length - bytes.len() as u64).unwrap_or(CHUNK).min(CHUNK);
        match file.read_at(&mut chunk[..want], offset + bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(ToolFailure::new(ToolFailure::IO, error.kind().to_string())),
        }
    }
    Ok(bytes)
}

fn drop_cut_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Auto,
    Utf8,
    Base64,
}

impl Encoding {
    fn named(name: &str) -> Result<Encoding, ToolFailure> {
        match name {
            "auto" => Ok(Encoding::Auto),
            "utf8" => Ok(Encoding::Utf8),
            "base64" => Ok(Encoding::Base64),
            _ => Err(bad_argument("encoding")),
        }
    }

    fn encode(self, bytes: Vec<u8>) -> Result<(&'static str, String), ToolFailure> {
        match (self, String::from_utf8(bytes)) {
            (Encoding::Utf8, Ok(text)) => Ok(("utf8", text)),
            (Encoding::Auto, Ok(text)) if !text.contains('\0') => Ok(("utf8", text)),
            (Encoding::Utf8, Err(_)) => Err(ToolFailure::new(NOT_UTF8, "not UTF-8")),
            (Encoding::Auto | Encoding::Base64, Ok(text)) => Ok(("base64", STANDARD.encode(text))),
            (Encoding::Auto | Encoding::Base64, Err(error)) => Ok(("base64", STANDARD.encode(error.as_bytes()))),
        }
    }
}

impl Default for FileReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FileReader {
    /// The tool.
    pub fn new() -> FileReader {
        FileReader { spec: spec() }
    }
}

const VERSION: &str = "1.0.0";

fn spec() -> ToolSpec {
    let encoding = param("encoding", ParamType::Enum, "How content is given back; auto: text if it is text");
    let length = param("length", ParamType::Integer, "The most bytes to read");
    let offset = param("offset", ParamType::Integer, "The byte to begin at");
    let path = param("path", ParamType::Path, "The file, as root:relative");
    // A control character takes six bytes in JSON.
    let worst =
        Worst { bytes_in: 4 << 10, bytes_out: 6 * LENGTH + (4 << 10), per: Some((6, "/length")), cpu_us: 2_000_000 };
    ToolSpec {
        name: "file-reader".to_owned(),
        version: VERSION.to_owned(),
        description: "Reads a file, or a part of it.".to_owned(),
        program: program("file-reader", VERSION),
        facts: facts(&[
            ("/path", FactType::Path),
            ("/offset", FactType::Int),
            ("/length", FactType::Int),
            ("/encoding", FactType::Str),
        ]),
        needs: vec![need("fs:{/path}#read")],
        effect: Effect::Read.number(),
        reserve: worst.reserve(),
        model: Model::Tool.number(),
        level: Level::Native.number(),
        parallel_safe: true,
        params: vec![
            or("\"auto\"", one_of(&["auto", "utf8", "base64"], encoding)),
            or("1048576", between(0, 16 << 20, length)),
            or("0", between(0, i64::MAX, offset)),
            required(path),
        ],
        result: "JSON: content, encoding (utf8 or base64), bytes returned, total length of the file, blake3 of the \
                 bytes returned, truncated (whether more follows)."
            .to_owned(),
        labels: BTreeMap::new(),
        run: None,
        probe: None,
    }
}
