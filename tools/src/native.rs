//! What a native tool is, what it is given, and how it fails.

pub(crate) mod file_lister;
pub(crate) mod file_reader;
pub(crate) mod file_writer;
mod spec;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use toka_kernel::facts::is_path;
use toka_kernel::ids::{CallId, TimeUs};
use toka_kernel::tool::ToolSpec;

use crate::confine::{Handed, Ops};

/// A tool that runs inside the node: no foreign code, no reach but the directories it is handed.
pub trait NativeTool: Debug + Send + Sync {
    /// What it is. The same on every call.
    fn spec(&self) -> &ToolSpec;

    /// Runs it to its end. It never panics on input; arguments that its spec does not allow are a failure.
    fn run(&self, request: &Request<'_>, control: &dyn Cancel) -> Result<Value, ToolFailure>;
}

/// Every native tool, ascending by name.
pub fn registry() -> Vec<Box<dyn NativeTool>> {
    vec![
        Box::new(file_lister::FileLister::new()),
        Box::new(file_reader::FileReader::new()),
        Box::new(file_writer::FileWriter::new()),
    ]
}

/// The native tool of this name.
pub fn by_name(name: &str) -> Option<Box<dyn NativeTool>> {
    registry().into_iter().find(|tool| tool.spec().name == name)
}

/// One admitted call.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The call; the same over all attempts.
    pub call_id: CallId,
    /// The time of the entry that admitted it: the only time a tool knows.
    pub time_us: TimeUs,
    /// The arguments as [`crate::check`] gave them back.
    pub arguments: &'a Value,
    /// What was opened for it.
    pub dirs: &'a dyn Dirs,
}

/// The directories that were opened for a call.
pub trait Dirs {
    /// The one for the path fact at `pointer`.
    fn handed(&self, pointer: &str) -> Option<&Handed>;
}

impl Dirs for BTreeMap<String, Handed> {
    fn handed(&self, pointer: &str) -> Option<&Handed> {
        self.get(pointer)
    }
}

/// Whether a call should end early. Asked at least every 64 KiB or 256 directory entries.
pub trait Cancel {
    /// Whether to stop.
    fn requested(&self) -> bool;
}

impl Cancel for AtomicBool {
    fn requested(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

/// Why a tool could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{symbol}: {detail}")]
pub struct ToolFailure {
    /// The code that is recorded: one of the constants here, or one that the tool adds.
    pub symbol: &'static str,
    /// For people; holds no content and no path outside the roots.
    pub detail: String,
}

impl ToolFailure {
    /// Nothing has this name.
    pub const NOT_FOUND: &'static str = "not-found";
    /// Outside what was granted, or forbidden by the file system.
    pub const DENIED: &'static str = "denied";
    /// A directory, pipe, socket or device where a file must be.
    pub const NOT_REGULAR: &'static str = "not-regular";
    /// Something else where a directory must be.
    pub const NOT_DIR: &'static str = "not-dir";
    /// Not a path in the path grammar.
    pub const BAD_PATH: &'static str = "bad-path";
    /// A symbolic link where none is followed.
    pub const SYMLINK: &'static str = "symlink";
    /// The file system is full, or a quota is used up.
    pub const NO_SPACE: &'static str = "no-space";
    /// The arguments are not what the spec allows.
    pub const BAD_ARGUMENTS: &'static str = "bad-arguments";
    /// The call was cancelled. The outcome is `Cancelled`, not `Failed`.
    pub const CANCELLED: &'static str = "cancelled";
    /// The file system failed otherwise.
    pub const IO: &'static str = "io";

    pub(crate) fn new(symbol: &'static str, detail: impl Into<String>) -> ToolFailure {
        ToolFailure { symbol, detail: detail.into() }
    }
}

impl<'a> Request<'a> {
    /// The directory for the path argument `name`, if it is exactly what the argument names and allows `ops`.
    pub(crate) fn handed(&self, name: &str, ops: Ops) -> Result<&'a Handed, ToolFailure> {
        let path = self.text(name)?.ok_or_else(|| bad_argument(name))?;
        if !is_path(path) {
            return Err(ToolFailure::new(ToolFailure::BAD_PATH, "not of the form root:relative"));
        }
        let handed = self.dirs.handed(&format!("/{name}")).filter(|handed| handed.path() == path);
        let handed = handed.ok_or_else(|| ToolFailure::new(ToolFailure::DENIED, "no directory was opened for it"))?;
        if handed.ops().contains(ops) {
            Ok(handed)
        } else {
            Err(ToolFailure::new(ToolFailure::DENIED, "the operation is not granted"))
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ToolFailure> {
        self.argument(name, Value::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ToolFailure> {
        Ok(self.argument(name, Value::as_bool)?.unwrap_or(false))
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64, ToolFailure> {
        Ok(self.argument(name, Value::as_u64)?.unwrap_or(default))
    }

    fn argument<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, ToolFailure> {
        let given = self.arguments.get(name);
        given.map(|value| read(value).ok_or_else(|| bad_argument(name))).transpose()
    }
}

pub(crate) fn bad_argument(name: &str) -> ToolFailure {
    ToolFailure::new(ToolFailure::BAD_ARGUMENTS, format!("argument {name}"))
}

pub(crate) fn go_on(control: &dyn Cancel) -> Result<(), ToolFailure> {
    if control.requested() { Err(ToolFailure::new(ToolFailure::CANCELLED, "cancelled")) } else { Ok(()) }
}

impl Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("call_id", &self.call_id)
            .field("time_us", &self.time_us)
            .finish_non_exhaustive()
    }
}
