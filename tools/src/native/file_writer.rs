//! `file-writer`: the whole content of one file, replaced at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags, fchmod, fgetxattr, fsetxattr, fsync, mkdirat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use serde_json::{Value, json};
use toka_kernel::facts::FactType;
use toka_kernel::ids::CallId;
use toka_kernel::limits::ARGUMENT_BYTES_MAX;
use toka_kernel::tool::{Effect, Level, Model, ParamType, ToolSpec};

use super::spec::{Worst, at_most, facts, need, one_of, or, param, program, required};
use super::{Cancel, NativeTool, Request, ToolFailure, bad_argument, go_on};
use crate::confine::{DIRECTORY, Handed, NO_LINKS, Ops, READ, failure, open_beneath, regular};

/// Writes one file as a whole; readers see the old content or the new one.
///
/// The content goes to a temporary file beside the target, named from the call; it is flushed and renamed over the
/// target, and the directory is flushed. No link is followed. An existing file keeps its permission bits (not the
/// set-id bits), a new one has 0644. Answers `{bytes, blake3}` of what was written.
///
/// Running a call again after a crash at any point has the same end. Where what stands there decides (`create_new`,
/// `expect_blake3`), a second run must know its own file: the writer marks it with the call in the extended
/// attribute `user.toka.call` before it gets its name. Equal content would be no proof, since two calls that each
/// create a lock, or count from 5 to 6, write the same bytes and only one may succeed. On a file system without
/// such attributes equal content has to do.
///
/// With `expect_blake3`, what stands there is compared before the rename, not in it: a writer outside Toka can get
/// in between. Calls of this tool cannot, as it is not parallel-safe.
#[derive(Debug)]
pub struct FileWriter {
    spec: ToolSpec,
}

/// The symbol of a name that is taken.
const EXISTS: &str = "exists";
/// The symbol of a file that is not the expected one.
const CHANGED: &str = "changed";
/// The symbol of a missing directory.
const PARENT_MISSING: &str = "parent-missing";

const MARK: &str = "user.toka.call";
const CHUNK: usize = 64 << 10;
/// The longest existing content that is compared: what `file-reader` can read, and so hash, at once.
const COMPARED_MAX: u64 = 16 << 20;

impl NativeTool for FileWriter {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn run(&self, request: &Request<'_>, control: &dyn Cancel) -> Result<Value, ToolFailure> {
        let job = Job::of(request, control)?;
        let result = job.parent(|_| Ok(())).and_then(|parent| {
            // What cannot be removed now is removed when the call runs again.
            job.put(&parent, |_| Ok(())).inspect_err(|_| drop(job.forget(&parent)))
        });
        result.map(|()| json!({ "bytes": job.content.len(), "blake3": blake3::hash(&job.content).to_hex().as_str() }))
    }
}

/// What has been done; a crash may come after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Directory,
    Started,
    Chunk,
    Sealed,
    Renamed,
}

struct Job<'a> {
    handed: &'a Handed,
    above: &'a [String],
    name: &'a str,
    call: CallId,
    content: Vec<u8>,
    create_new: bool,
    expect: Option<&'a str>,
    parents: bool,
    control: &'a dyn Cancel,
}

impl<'a> Job<'a> {
    fn of(request: &Request<'a>, control: &'a dyn Cancel) -> Result<Job<'a>, ToolFailure> {
        let handed = request.handed("path", Ops::CREATE | Ops::WRITE)?;
        let (name, above) = handed.rest().split_last().ok_or_else(not_regular)?;
        let content = request.text("content")?.ok_or_else(|| bad_argument("content"))?;
        let content = match request.text("encoding")?.unwrap_or("utf8") {
            "utf8" => content.as_bytes().to_vec(),
            "base64" => STANDARD.decode(content).map_err(|_| bad_argument("content"))?,
            _ => return Err(bad_argument("encoding")),
        };
        let create_new = match request.text("mode")?.unwrap_or("replace") {
            "replace" => false,
            "create_new" => true,
            _ => return Err(bad_argument("mode")),
        };
        let expect = request.text("expect_blake3")?;
        let hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // A file that must not exist has no content to expect.
        if expect.is_some_and(|expect| create_new || !hash(expect)) {
            return Err(bad_argument("expect_blake3"));
        }
        let parents = request.flag("parents")?;
        Ok(Job { handed, above, name, call: request.call_id, content, create_new, expect, parents, control })
    }

    /// Opens the directory that the file stands in, making what is missing if asked to.
    fn parent(&self, mut after: impl FnMut(Step) -> Result<(), ToolFailure>) -> Result<OwnedFd, ToolFailure> {
        let mut dir = self.handed.top().map_err(failure)?;
        for name in self.above {
            dir = match open_beneath(dir.as_fd(), name.as_str(), DIRECTORY, NO_LINKS) {
                Err(Errno::NOENT) if self.parents => {
                    make_directory(&dir, name)?;
                    after(Step::Directory)?;
                    open_beneath(dir.as_fd(), name.as_str(), DIRECTORY, NO_LINKS).map_err(on_the_way)?
                }
                result => result.map_err(on_the_way)?,
            };
        }
        Ok(dir)
    }

    fn put(&self, parent: &OwnedFd, mut after: impl FnMut(Step) -> Result<(), ToolFailure>) -> Result<(), ToolFailure> {
        self.forget(parent)?;
        let Some(mode) = self.mode(parent)? else {
            // Done before; only that it lasts is not sure.
            return fsync(parent).map_err(failure);
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let temporary = openat(parent, self.temporary(), flags, Mode::RUSR | Mode::WUSR).map_err(failure)?;
        after(Step::Started)?;
        let mut file = File::from(temporary);
        for chunk in self.content.chunks(CHUNK) {
            go_on(self.control)?;
            file.write_all(chunk).map_err(|error| io_failure(&error))?;
            after(Step::Chunk)?;
        }
        fchmod(&file, mode).map_err(failure)?;
        self.mark(&file)?;
        fsync(&file).map_err(failure)?;
        after(Step::Sealed)?;
        self.rename(parent)?;
        after(Step::Renamed)?;
        fsync(parent).map_err(failure)
    }

    /// Removes what an earlier run may have left.
    fn forget(&self, parent: &OwnedFd) -> Result<(), ToolFailure> {
        match unlinkat(parent, self.temporary(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failure(errno)),
        }
    }

    /// The permission bits to write with; `None` if this call has written already.
    fn mode(&self, parent: &OwnedFd) -> Result<Option<Mode>, ToolFailure> {
        let stat = match statat(parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if self.expect.is_some() => return Err(changed()),
            Err(Errno::NOENT) => return Ok(Some(Mode::from_raw_mode(0o644))),
            result => result.map_err(failure)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(symlink()),
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(not_regular()),
        }
        if self.create_new || self.expect.is_some() {
            match self.done(parent) {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                Err(failure) if self.create_new && failure.symbol == ToolFailure::DENIED => return Err(exists()),
                Err(failure) => return Err(failure),
            }
        } else if stat.st_nlink > 1 {
            return Err(ToolFailure::new(ToolFailure::DENIED, "the file has several names"));
        }
        Ok(Some(Mode::from_raw_mode(stat.st_mode & 0o777)))
    }

    /// Whether this call has written the file that has the name now. Fails where that file is not to be replaced.
    fn done(&self, parent: &OwnedFd) -> Result<bool, ToolFailure> {
        let file = open_beneath(parent.as_fd(), self.name, READ, NO_LINKS).map_err(failure)?;
        let size = regular(&file)?;
        let mark = self.marked(&file)?;
        match (mark, self.expect) {
            (Some(true), _) => return Ok(true),
            (Some(false), None) => return Err(exists()),
            (Some(false), Some(_)) | (None, _) => {}
        }
        let found = if size > COMPARED_MAX { None } else { Some(self.hash(File::from(file))?) };
        if mark.is_none() && found.as_deref() == Some(blake3::hash(&self.content).to_hex().as_str()) {
            return Ok(true);
        }
        match self.expect {
            None => Err(exists()),
            expect if expect == found.as_deref() => Ok(false),
            Some(_) => Err(changed()),
        }
    }

    fn hash(&self, file: File) -> Result<String, ToolFailure> {
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK];
        let mut file = file.take(COMPARED_MAX);
        loop {
            go_on(self.control)?;
            match file.read(&mut chunk) {
                Ok(0) => return Ok(hasher.finalize().to_hex().as_str().to_owned()),
                Ok(count) => hasher.update(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_failure(&error)),
            };
        }
    }

    fn mark(&self, file: &File) -> Result<(), ToolFailure> {
        if !self.create_new && self.expect.is_none() {
            return Ok(());
        }
        match fsetxattr(file, MARK, &self.call.0, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(failure(errno)),
        }
    }

    /// Whether the file bears the mark of this call; `None` where files bear none.
    fn marked(&self, file: &OwnedFd) -> Result<Option<bool>, ToolFailure> {
        let mut mark = [0; 32];
        match fgetxattr(file, MARK, &mut mark) {
            Ok(length) => Ok(Some(length == mark.len() && mark == self.call.0)),
            Err(Errno::NODATA | Errno::RANGE) => Ok(Some(false)),
            Err(Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(failure(errno)),
        }
    }

    fn rename(&self, parent: &OwnedFd) -> Result<(), ToolFailure> {
        let flags = if self.create_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        renameat_with(parent, self.temporary(), parent, self.name, flags).map_err(|errno| match errno {
            Errno::EXIST => exists(),
            Errno::ISDIR => not_regular(),
            other => failure(other),
        })
    }

    fn temporary(&self) -> String {
        format!(".toka-{}.tmp", self.call)
    }
}

fn make_directory(dir: &OwnedFd, name: &str) -> Result<(), ToolFailure> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => fsync(dir).map_err(failure),
        Err(errno) => Err(failure(errno)),
    }
}

fn on_the_way(errno: Errno) -> ToolFailure {
    match errno {
        Errno::NOENT => ToolFailure::new(PARENT_MISSING, "a directory on the way is missing"),
        Errno::NOTDIR => ToolFailure::new(PARENT_MISSING, "something on the way is no directory"),
        Errno::LOOP => symlink(),
        other => failure(other),
    }
}

fn io_failure(error: &std::io::Error) -> ToolFailure {
    Errno::from_io_error(error).map_or_else(|| ToolFailure::new(ToolFailure::IO, error.kind().to_string()), failure)
}

fn symlink() -> ToolFailure {
    ToolFailure::new(ToolFailure::SYMLINK, "a link is not followed")
}

fn not_regular() -> ToolFailure {
    ToolFailure::new(ToolFailure::NOT_REGULAR, "not a regular file")
}

fn exists() -> ToolFailure {
    ToolFailure::new(EXISTS, "the name is taken")
}

fn changed() -> ToolFailure {
    ToolFailure::new(CHANGED, "not the expected content")
}

impl Default for FileWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl FileWriter {
    /// The tool.
    pub fn new() -> FileWriter {
        FileWriter { spec: spec() }
    }
}

const VERSION: &str = "1.0.0";

fn spec() -> ToolSpec {
    let content = param("content", ParamType::String, "The whole content");
    let encoding = param("encoding", ParamType::Enum, "What content is: the text itself, or bytes as base64");
    let expect = param("expect_blake3", ParamType::String, "Replace only a file whose BLAKE3 is this, 64 hex digits");
    let mode = param("mode", ParamType::Enum, "create_new: the file must not exist");
    let parents = param("parents", ParamType::Boolean, "Whether to make missing directories");
    let path = param("path", ParamType::Path, "The file, as root:relative");
    let worst = Worst { bytes_in: ARGUMENT_BYTES_MAX as u64, bytes_out: 4 << 10, per: None, cpu_us: 2_000_000 };
    ToolSpec {
        name: "file-writer".to_owned(),
        version: VERSION.to_owned(),
        description: "Writes a file as a whole, replacing what it held.".to_owned(),
        program: program("file-writer", VERSION),
        // Neither the content nor its hash is a fact: facts cannot be erased, and a hash confirms a guess.
        facts: facts(&[
            ("/path", FactType::Path),
            ("/mode", FactType::Str),
            ("/encoding", FactType::Str),
            ("/parents", FactType::Bool),
        ]),
        // Directories made by `parents` lie beneath the prefix of the grant that covers this need with `create`.
        needs: vec![need("fs:{/path}#create,write")],
        effect: Effect::Idempotent.number(),
        reserve: worst.reserve(),
        model: Model::Tool.number(),
        level: Level::Native.number(),
        parallel_safe: false,
        params: vec![
            required(at_most(1 << 20, content)),
            or("\"utf8\"", one_of(&["utf8", "base64"], encoding)),
            at_most(64, expect),
            or("\"replace\"", one_of(&["replace", "create_new"], mode)),
            or("false", parents),
            required(path),
        ],
        result: "JSON: bytes and blake3 of what was written.".to_owned(),
        labels: BTreeMap::new(),
        run: None,
        probe: None,
    }
}

#[cfg(test)]
mod crash;
