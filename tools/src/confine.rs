//! Directories opened for a call, and openings that cannot leave them.
//!
//! The path of an argument is only a name: what keeps a tool inside its grant is that the operating system resolves
//! the name beneath a directory that is already open (`openat2` with `RESOLVE_BENEATH`). That directory is the
//! granted prefix and not the root, so a link cannot leave the grant either. Mounts below it are not crossed: what
//! somebody bound there was granted by nobody, and a mount that is meant becomes a root of its own.

use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use toka_kernel::facts::is_path;

use crate::native::ToolFailure;

/// Opens a root, once, when the node starts. `path` is absolute and leads to a directory; its last component is no
/// link, and none on the way is a magic one.
pub fn open_root(path: &Path) -> Result<OwnedFd, ToolFailure> {
    if !path.is_absolute() {
        return Err(ToolFailure::new(ToolFailure::BAD_PATH, "a root must be absolute"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retried(|| openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)).map_err(|errno| match errno {
        Errno::NOTDIR => ToolFailure::new(ToolFailure::NOT_DIR, "a link, or no directory"),
        other => failure(other),
    })
}

/// File operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ops(u8);

impl Ops {
    /// Reading content.
    pub const READ: Ops = Ops(1);
    /// Listing names.
    pub const LIST: Ops = Ops(2);
    /// Changing content.
    pub const WRITE: Ops = Ops(4);
    /// Making names.
    pub const CREATE: Ops = Ops(8);

    /// Whether all of `other` are among these.
    pub fn contains(self, other: Ops) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Ops {
    type Output = Ops;

    fn bitor(self, other: Ops) -> Ops {
        Ops(self.0 | other.0)
    }
}

/// The path pattern of the grant that covers a need, below its root.
#[derive(Clone, Copy, Debug)]
pub struct Granted<'a> {
    /// Its segments.
    pub segments: &'a [&'a str],
    /// Whether it covers that one path, and nothing below.
    pub exact: bool,
}

/// A directory opened for one path argument of one call, and the way from there to what the argument names.
///
/// Invariant: `prefix` and `rest` together are the segments of a path in the path grammar.
#[derive(Debug)]
pub struct Handed {
    path: String,
    dir: OwnedFd,
    rest: Vec<String>,
    ops: Ops,
    /// Whether links that stay beneath `dir` may be followed.
    links: bool,
}

impl Handed {
    /// Opens what is `granted` beneath `root` for the argument `path`, following no link on the way.
    ///
    /// A grant of one path, or of a path that is no directory yet, is opened at its parent, and then no link below
    /// is followed at all, since it could lead beside the grant. Fails with `bad-path`, with `denied` where `path` is
    /// not covered, and with `not-found` where not even that parent is there.
    pub fn open(root: BorrowedFd<'_>, granted: Granted<'_>, path: &str, ops: Ops) -> Result<Handed, ToolFailure> {
        let relative = path.split_once(':').map(|(_, relative)| relative).filter(|_| is_path(path));
        let relative =
            relative.ok_or_else(|| ToolFailure::new(ToolFailure::BAD_PATH, "not of the form root:relative"))?;
        let segments: Vec<&str> = relative.split('/').filter(|segment| !segment.is_empty()).collect();
        let depth = granted.segments.len();
        let covered = segments.starts_with(granted.segments) && (!granted.exact || segments.len() == depth);
        if !covered {
            return Err(ToolFailure::new(ToolFailure::DENIED, "outside the grant"));
        }
        let handed = |dir: OwnedFd, above: usize, links: bool| {
            let rest = segments[above..].iter().map(|segment| (*segment).to_owned()).collect();
            Handed { path: path.to_owned(), dir, rest, ops, links }
        };
        if depth == 0 {
            return open_prefix(root, &[]).map(|dir| handed(dir, 0, !granted.exact)).map_err(failure);
        }
        if !granted.exact {
            match open_prefix(root, granted.segments) {
                Ok(dir) => return Ok(handed(dir, depth, true)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failure(errno)),
            }
        }
        let dir = open_prefix(root, &granted.segments[..depth - 1]).map_err(failure)?;
        Ok(handed(dir, depth - 1, false))
    }

    /// The argument, `root:relative`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The granted operations.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// The names from the directory to what the argument names; none if it is the directory itself.
    pub(crate) fn rest(&self) -> &[String] {
        &self.rest
    }

    /// The directory, for walking down from it.
    pub(crate) fn top(&self) -> Result<OwnedFd, Errno> {
        open_beneath(self.dir.as_fd(), ".", DIRECTORY, NO_LINKS)
    }

    /// Opens the file that the argument names for reading. Whatever is no regular file of one name is refused, and
    /// the opening neither waits for a pipe nor takes a terminal.
    pub(crate) fn open_file(&self) -> Result<OwnedFd, ToolFailure> {
        let resolve = if self.links { ResolveFlags::empty() } else { NO_LINKS };
        let file = open_beneath(self.dir.as_fd(), &self.below(), READ, resolve).map_err(failure)?;
        regular(&file)?;
        Ok(file)
    }

    /// Opens the directory that the argument names, following no link.
    pub(crate) fn open_dir(&self) -> Result<OwnedFd, Errno> {
        open_beneath(self.dir.as_fd(), &self.below(), DIRECTORY, NO_LINKS)
    }

    fn below(&self) -> String {
        if self.rest.is_empty() { ".".to_owned() } else { self.rest.join("/") }
    }
}

pub(crate) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
pub(crate) const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS;

/// Opens `path` beneath `dir`, with `resolve` on top of what always holds.
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let always = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    retried(|| openat2(dir, path, flags, Mode::empty(), always | resolve))
}

/// Refuses what is no regular file, or a file of several names: its other names may lie outside every grant.
pub(crate) fn regular(file: &OwnedFd) -> Result<u64, ToolFailure> {
    let stat = fstat(file).map_err(failure)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ToolFailure::new(ToolFailure::NOT_REGULAR, "not a regular file"));
    }
    if stat.st_nlink > 1 {
        return Err(ToolFailure::new(ToolFailure::DENIED, "the file has several names"));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// What an error of the operating system is called in an outcome.
pub(crate) fn failure(errno: Errno) -> ToolFailure {
    let symbol = match errno {
        Errno::NOENT | Errno::NOTDIR => ToolFailure::NOT_FOUND,
        // XDEV is an attempt to leave the directory, LOOP a link that may not be followed.
        Errno::XDEV | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::ROFS => ToolFailure::DENIED,
        Errno::NXIO | Errno::NODEV | Errno::ISDIR => ToolFailure::NOT_REGULAR,
        Errno::NAMETOOLONG | Errno::ILSEQ => ToolFailure::BAD_PATH,
        Errno::NOSPC | Errno::DQUOT => ToolFailure::NO_SPACE,
        _ => ToolFailure::IO,
    };
    ToolFailure::new(symbol, errno.to_string())
}

fn open_prefix(root: BorrowedFd<'_>, segments: &[&str]) -> Result<OwnedFd, Errno> {
    let below = if segments.is_empty() { ".".to_owned() } else { segments.join("/") };
    open_beneath(root, below.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, NO_LINKS)
}

/// A resolution beneath a directory gives up when something is renamed meanwhile; so often it is tried again.
const TRIES: usize = 32;

pub(crate) fn retried<T>(attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut result = attempt();
    for _ in 1..TRIES {
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
        result = attempt();
    }
    result
}
