//! `file-lister`: the names in a directory, or in the tree below it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use toka_kernel::facts::{FactType, is_path};
use toka_kernel::limits::PATH_BYTES_MAX;
use toka_kernel::tool::{Effect, Level, Model, ParamType, ToolSpec};

use super::spec::{Worst, between, facts, need, need_when, or, param, program, required};
use super::{Cancel, NativeTool, Request, ToolFailure, bad_argument, go_on};
use crate::confine::{DIRECTORY, NO_LINKS, Ops, failure, open_beneath};

/// Lists a directory, or the tree below it, sorted by the bytes of the paths.
///
/// Answers `{entries: [{path, kind, bytes}], truncated}`. `kind` is `file`, `dir`, `link`, `fifo`, `socket` or
/// `device`; `bytes` is the length of a file and 0 otherwise. `path` can be handed back as a path argument; a name
/// that is no UTF-8, or not in the path grammar, stands as `path_base64` instead. A link is listed and never
/// followed. A directory that was not read says why in `unread`: `depth`, or the symbol of the failure, which is
/// `denied` where something is mounted. `truncated` says that `max_entries` or `max_depth` left something out.
#[derive(Debug)]
pub struct FileLister {
    spec: ToolSpec,
}

const ENTRIES: u64 = 1_000;
const ENTRIES_MAX: u64 = 10_000;
const DEPTH: u64 = 16;
const DEPTH_MAX: u64 = 64;
/// Directory entries between two looks at the cancel flag.
const STRIDE: usize = 256;

impl NativeTool for FileLister {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn run(&self, request: &Request<'_>, control: &dyn Cancel) -> Result<Value, ToolFailure> {
        let handed = request.handed("path", Ops::LIST)?;
        let entries_max = request.number("max_entries", ENTRIES)?;
        let depth_max = request.number("max_depth", DEPTH)?;
        if !(1..=ENTRIES_MAX).contains(&entries_max) {
            return Err(bad_argument("max_entries"));
        }
        if !(1..=DEPTH_MAX).contains(&depth_max) {
            return Err(bad_argument("max_depth"));
        }
        let top = handed.open_dir().map_err(|errno| match errno {
            Errno::NOTDIR => ToolFailure::new(ToolFailure::NOT_DIR, "not a directory"),
            Errno::LOOP => ToolFailure::new(ToolFailure::SYMLINK, "a link on the way is not followed"),
            other => failure(other),
        })?;
        let mut walk = Walk {
            room: usize::try_from(entries_max).unwrap_or(usize::MAX),
            depth_max: if request.flag("recursive")? { depth_max } else { 1 },
            recursive: request.flag("recursive")?,
            hidden: request.flag("show_hidden")?,
            control,
            pending: BTreeMap::new(),
            entries: 0,
            listed: Vec::new(),
            truncated: false,
        };
        walk.run(top)?;
        let entries: Vec<Value> = walk.listed.into_iter().map(|entry| entry.value(handed.path())).collect();
        Ok(json!({ "entries": entries, "truncated": walk.truncated }))
    }
}

/// Everything still to do, in the order of the paths. What is inside a directory waits under its path and a `/`,
/// which is where its first entry would stand, so a directory is read only when all before it is listed. Entries
/// beyond what there is room for are forgotten, so memory does not grow with the tree.
struct Walk<'a> {
    room: usize,
    depth_max: u64,
    recursive: bool,
    hidden: bool,
    control: &'a dyn Cancel,
    pending: BTreeMap<Vec<u8>, Pending>,
    /// How many of the pending are entries.
    entries: usize,
    listed: Vec<Entry>,
    truncated: bool,
}

struct Pending {
    /// The directory that the name stands in. Those that are open at a time lie inside each other.
    dir: Rc<OwnedFd>,
    name: Vec<u8>,
    depth: u64,
    /// The listed entry whose inside this is; `None` for an entry itself.
    inside: Option<usize>,
}

struct Entry {
    path: Vec<u8>,
    kind: FileType,
    bytes: u64,
    unread: Option<&'static str>,
}

impl Walk<'_> {
    fn run(&mut self, top: OwnedFd) -> Result<(), ToolFailure> {
        self.read(Rc::new(top), b"", 1)?;
        let mut steps = 0_usize;
        while let Some((path, pending)) = self.pending.pop_first() {
            steps += 1;
            if steps.is_multiple_of(STRIDE) {
                go_on(self.control)?;
            }
            match pending.inside {
                Some(entry) => self.enter(&path, &pending, entry)?,
                None => {
                    self.entries -= 1;
                    if self.listed.len() == self.room {
                        self.truncated = true;
                        break;
                    }
                    self.list(path, pending)?;
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, path: Vec<u8>, pending: Pending) -> Result<(), ToolFailure> {
        let stat = match statat(&pending.dir, pending.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()), // gone since its directory was read
            result => result.map_err(failure)?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let bytes = if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let below = self.recursive && kind == FileType::Directory;
        let unread = (below && pending.depth >= self.depth_max).then_some("depth");
        self.truncated |= unread.is_some();
        if below && unread.is_none() {
            let inside = [path.as_slice(), b"/"].concat();
            self.pending.insert(inside, Pending { inside: Some(self.listed.len()), ..pending });
        }
        self.listed.push(Entry { path, kind, bytes, unread });
        Ok(())
    }

    fn enter(&mut self, path: &[u8], pending: &Pending, entry: usize) -> Result<(), ToolFailure> {
        match open_beneath(pending.dir.as_fd(), pending.name.as_slice(), DIRECTORY, NO_LINKS) {
            Ok(dir) => self.read(Rc::new(dir), path, pending.depth + 1),
            Err(errno) => {
                self.listed[entry].unread = Some(failure(errno).symbol);
                Ok(())
            }
        }
    }

    fn read(&mut self, dir: Rc<OwnedFd>, prefix: &[u8], depth: u64) -> Result<(), ToolFailure> {
        for (count, entry) in Dir::read_from(&dir).map_err(failure)?.enumerate() {
            if count.is_multiple_of(STRIDE) {
                go_on(self.control)?;
            }
            let entry = entry.map_err(failure)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || (!self.hidden && name.starts_with(b".")) {
                continue;
            }
            let pending = Pending { dir: Rc::clone(&dir), name: name.to_vec(), depth, inside: None };
            self.pending.insert([prefix, name].concat(), pending);
            self.entries += 1;
            self.forget_beyond_room();
        }
        Ok(())
    }

    fn forget_beyond_room(&mut self) {
        // One more than there is room for is kept, so that `truncated` is known at the end.
        while self.entries > self.room - self.listed.len() + 1 {
            match self.pending.pop_last() {
                Some((_, Pending { inside: None, .. })) => self.entries -= 1,
                Some((_, Pending { inside: Some(_), .. })) => {}
                None => return,
            }
            self.truncated = true;
        }
    }
}

impl Entry {
    fn value(self, top: &str) -> Value {
        let slash = if top.ends_with(':') { "" } else { "/" };
        let bytes = [top.as_bytes(), slash.as_bytes(), &self.path].concat();
        let path = match String::from_utf8(bytes) {
            Ok(text) if is_path(&text) => ("path", text),
            Ok(text) => ("path_base64", STANDARD.encode(text)),
            Err(error) => ("path_base64", STANDARD.encode(error.as_bytes())),
        };
        let mut entry = Map::new();
        entry.insert(path.0.to_owned(), Value::from(path.1));
        entry.insert("kind".to_owned(), Value::from(kind_name(self.kind)));
        entry.insert("bytes".to_owned(), Value::from(self.bytes));
        if let Some(why) = self.unread {
            entry.insert("unread".to_owned(), Value::from(why));
        }
        Value::Object(entry)
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "unknown",
    }
}

impl Default for FileLister {
    fn default() -> Self {
        Self::new()
    }
}

impl FileLister {
    /// The tool.
    pub fn new() -> FileLister {
        FileLister { spec: spec() }
    }
}

const VERSION: &str = "1.0.0";

fn spec() -> ToolSpec {
    let max_depth = param("max_depth", ParamType::Integer, "How many levels down, when recursive");
    let max_entries = param("max_entries", ParamType::Integer, "The most entries to list");
    let path = param("path", ParamType::Path, "The directory, as root:relative");
    let recursive = param("recursive", ParamType::Boolean, "Whether to list the tree below as well");
    let show_hidden = param("show_hidden", ParamType::Boolean, "Whether to list names that begin with a dot");
    // A quote takes two bytes in JSON, and kind, length and braces less than 128.
    let entry_bytes = 2 * PATH_BYTES_MAX as u64 + 128;
    let worst = Worst {
        bytes_in: 4 << 10,
        bytes_out: ENTRIES * entry_bytes + (4 << 10),
        per: Some((entry_bytes, "/max_entries")),
        cpu_us: 10_000_000,
    };
    ToolSpec {
        name: "file-lister".to_owned(),
        version: VERSION.to_owned(),
        description: "Lists a directory, or the tree below it.".to_owned(),
        program: program("file-lister", VERSION),
        facts: facts(&[
            ("/path", FactType::Path),
            ("/recursive", FactType::Bool),
            ("/show_hidden", FactType::Bool),
            ("/max_depth", FactType::Int),
            ("/max_entries", FactType::Int),
        ]),
        needs: vec![need("fs:{/path}#list"), need_when("fs:{/path}/**#list", "/recursive")],
        effect: Effect::Read.number(),
        reserve: worst.reserve(),
        model: Model::Tool.number(),
        level: Level::Native.number(),
        parallel_safe: true,
        params: vec![
            or("16", between(1, 64, max_depth)),
            or("1000", between(1, 10_000, max_entries)),
            required(path),
            or("false", recursive),
            or("false", show_hidden),
        ],
        result: "JSON: entries, each with path (or path_base64), kind and bytes, sorted by path; truncated.".to_owned(),
        labels: BTreeMap::new(),
        run: None,
        probe: None,
    }
}
