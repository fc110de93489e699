//! The directory of a call on a disk of the machine: its workspace, where the manifest wants it there, and at level
//! `landlock`, where there is no new root, everything that the program finds in the jail otherwise.
//!
//! ```text
//! /var/tmp/toka-call-<random>     0711, locked as long as the call lives
//!   workspace                     0700, the program's, as all that follows
//!   tmp  tool  run  roots         at `landlock` only; roots holds links to what the call may reach
//! ```
//!
//! It is removed by descriptor when nothing of the jail lives any more, however deep it is and whatever it holds; one
//! that a killed node left is removed by whoever makes the next.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::random::{OsRandom, Random};

/// Where they lie: on a disk, and not emptied while the machine runs.
const BELOW: &str = "/var/tmp";
const PREFIX: &str = "toka-call-";
/// Names below [`BELOW`] that are looked at for what a killed node left.
const STALE_ENTRIES_MAX: usize = 10_000;
/// How deep a workspace may be before it counts as full: each level is a descriptor of ours.
const DEPTH_MAX: usize = 128;

/// A directory that is removed with this value.
#[derive(Debug)]
pub(super) struct CallDir {
    below: OwnedFd,
    name: String,
    top: OwnedFd,
    /// Whose the program is, where that is somebody else.
    owner: Option<(u32, u32)>,
    keep: bool,
}

/// What lies in a folder and below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl CallDir {
    /// Makes one for programs of `owner`, or of our own user.
    pub(super) fn make(owner: Option<(u32, u32)>) -> Result<CallDir, Errno> {
        let below = rustix::fs::open(BELOW, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        remove_stale(&below);
        loop {
            let mut random = [0; 16];
            OsRandom.fill(&mut random).map_err(|_| Errno::IO)?;
            let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = format!("{PREFIX}{name}");
            rustix::fs::mkdirat(&below, name.as_str(), Mode::from_raw_mode(0o711))?;
            let top = folder(below.as_fd(), name.as_bytes())?;
            rustix::fs::flock(&top, FlockOperation::LockExclusive)?;
            // Somebody may have taken it for a stale one before it was locked.
            if same(below.as_fd(), name.as_bytes(), &top) {
                return Ok(CallDir { below, name, top, owner, keep: false });
            }
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> String {
        format!("{BELOW}/{}", self.name)
    }

    /// Makes the folder `name` in it.
    pub(super) fn folder(&self, name: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::mkdirat(&self.top, name, Mode::RWXU)?;
        let made = folder(self.top.as_fd(), name.as_bytes())?;
        self.give(&made)?;
        Ok(made)
    }

    /// Writes a file below `within`, and makes the folders that lead to it.
    pub(super) fn file(&self, within: &OwnedFd, path: &str, content: &[u8]) -> Result<(), Errno> {
        let (folder, name) = self.parent(within, path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::XUSR)?);
        file.write_all(content).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.give(&OwnedFd::from(file))
    }

    /// Makes a link below `within`, and the folders that lead to it.
    pub(super) fn link(&self, within: &OwnedFd, path: &str, target: &str) -> Result<(), Errno> {
        let (folder, name) = self.parent(within, path)?;
        rustix::fs::symlinkat(target, &folder, name)
    }

    /// Leaves it where it is, for who makes the next to remove: something of the program may live.
    pub(super) fn abandon(mut self) {
        self.keep = true;
    }

    fn parent<'p>(&self, within: &OwnedFd, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let mut at = folder(within.as_fd(), b".")?;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in above.split('/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&at, part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            at = folder(at.as_fd(), part.as_bytes())?;
            self.give(&at)?;
        }
        Ok((at, name))
    }

    fn give(&self, made: &OwnedFd) -> Result<(), Errno> {
        match self.owner {
            Some((uid, gid)) => rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        }
    }
}

impl Drop for CallDir {
    fn drop(&mut self) {
        if !self.keep {
            remove(self.below.as_fd(), self.name.as_bytes(), &self.top);
        }
    }
}

/// What lies below a folder while a program may still change it; `None` if it cannot be looked through: it is deeper
/// than [`DEPTH_MAX`], holds more than `entries_max` names, or a folder that is closed to us. A file of several names
/// counts once.
pub(super) fn used(top: BorrowedFd<'_>, entries_max: u64) -> Option<Used> {
    let (mut used, mut seen) = (Used::default(), BTreeSet::new());
    let first = folder(top, b".").ok()?;
    let mut levels = vec![(names(&first).ok()?, first)];
    while let Some((left, at)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        used.entries += 1;
        if used.entries > entries_max {
            return None;
        }
        // What is gone by now takes nothing.
        let Ok(stat) = rustix::fs::statat(&*at, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_nlink < 2 || is_folder(&stat) || seen.insert(stat.st_ino) {
            used.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        if is_folder(&stat) {
            match folder(at.as_fd(), &name) {
                Ok(below) if levels.len() < DEPTH_MAX => levels.push((names(&below).ok()?, below)),
                Ok(_) => return None,
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(_) => return None,
            }
        }
    }
    Some(used)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn folder(within: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(within, name, flags, Mode::empty(), resolve))
}

fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn same(within: BorrowedFd<'_>, name: &[u8], opened: &OwnedFd) -> bool {
    let named = rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW);
    match (named, rustix::fs::fstat(opened)) {
        (Ok(named), Ok(opened)) => (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Removes what nodes that were killed have left: whoever lives holds a lock.
fn remove_stale(below: &OwnedFd) {
    let me = rustix::process::geteuid().as_raw();
    for name in names(below).unwrap_or_default().into_iter().take(STALE_ENTRIES_MAX) {
        if !name.starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(top) = folder(below.as_fd(), &name) else { continue };
        let is_ours = rustix::fs::fstat(&top).is_ok_and(|stat| stat.st_uid == me);
        if is_ours && rustix::fs::flock(&top, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(below.as_fd(), &name, &top);
        }
    }
}

/// Removes a directory in which nobody changes anything any more. What is in a folder below is brought up first, so
/// that no depth takes more than two descriptors. What cannot be removed stays for the next who tries.
fn remove(within: BorrowedFd<'_>, name: &[u8], top: &OwnedFd) {
    let mut number = 0_u64;
    let mut before = Vec::new();
    loop {
        let found = names(top).unwrap_or_default();
        if found.is_empty() || found == before {
            break;
        }
        found.iter().for_each(|name| remove_one(top, name, &mut number));
        before = found;
    }
    let _stays = rustix::fs::unlinkat(within, name, AtFlags::REMOVEDIR);
}

fn remove_one(top: &OwnedFd, name: &[u8], number: &mut u64) {
    if rustix::fs::unlinkat(top, name, AtFlags::empty()).is_ok() {
        return;
    }
    // It is no link, and nobody makes one of it: the program may have closed it, though.
    let open = |within: &OwnedFd, name: &[u8]| {
        rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW).ok().filter(is_folder)?;
        rustix::fs::chmodat(within, name, Mode::RWXU, AtFlags::empty()).ok()?;
        folder(within.as_fd(), name).ok()
    };
    let Some(at) = open(top, name) else { return };
    for name in names(&at).unwrap_or_default() {
        if rustix::fs::unlinkat(&at, name.as_slice(), AtFlags::empty()).is_ok() || open(&at, &name).is_none() {
            continue;
        }
        loop {
            *number += 1;
            let up = format!(".{number}");
            match rustix::fs::renameat_with(&at, name.as_slice(), top, up.as_str(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                Ok(()) | Err(_) => break,
            }
        }
    }
    let _stays = rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    #[test]
    fn everything_in_it_goes_with_it_and_nothing_else() {
        let outside = std::env::temp_dir().join(format!("toka-disk-{}", std::process::id()));
        std::fs::create_dir(&outside).expect("a folder");
        std::fs::write(outside.join("file"), "mine").expect("writes");
        let dir = CallDir::make(None).expect("makes");
        let path = dir.path();
        let workspace = dir.folder("workspace").expect("makes");
        let top = Path::new(&path).join("workspace");
        symlink(&outside, top.join("link")).expect("links");
        std::fs::create_dir(top.join("closed")).expect("makes");
        std::fs::write(top.join("closed/x"), "x").expect("writes");
        std::fs::write(top.join(".1"), "x").expect("writes");
        std::fs::set_permissions(top.join("closed"), std::fs::Permissions::from_mode(0o0)).expect("chmod");
        // Deeper than any path may be long.
        let mut at = workspace.try_clone().expect("clones");
        let name = "d".repeat(200);
        for _ in 0..300 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).expect("makes");
            at = folder(at.as_fd(), name.as_bytes()).expect("opens");
        }
        dir.file(&dir.folder("tool").expect("makes"), "a/b/c.py", b"x").expect("writes");
        drop((workspace, at, dir));
        assert!(!Path::new(&path).exists());
        assert_eq!(std::fs::read(outside.join("file")).expect("reads"), b"mine");
        std::fs::remove_dir_all(&outside).expect("removes");
    }

    #[test]
    fn what_nobody_locks_is_removed_by_the_next_and_what_somebody_does_is_not() {
        let (stale, held) = (CallDir::make(None).expect("makes"), CallDir::make(None).expect("makes"));
        let path = stale.path();
        stale.abandon();
        assert!(Path::new(&path).exists());
        let next = CallDir::make(None).expect("makes");
        assert!(!Path::new(&path).exists() && Path::new(&held.path()).exists() && Path::new(&next.path()).exists());
    }

    #[test]
    fn what_is_used_is_counted_once_and_no_further_than_asked() {
        let dir = CallDir::make(None).expect("makes");
        let workspace = dir.folder("workspace").expect("makes");
        let top = Path::new(&dir.path()).join("workspace");
        assert_eq!(used(workspace.as_fd(), 10), Some(Used::default()));
        std::fs::create_dir(top.join("a")).expect("makes");
        std::fs::write(top.join("a/one"), vec![1; 100 << 10]).expect("writes");
        let once = used(workspace.as_fd(), 10).expect("it can be seen");
        assert_eq!(once.entries, 2);
        assert!((100 << 10..=200 << 10).contains(&once.bytes), "{once:?}");
        std::fs::hard_link(top.join("a/one"), top.join("two")).expect("links");
        assert_eq!(used(workspace.as_fd(), 10), Some(Used { entries: 3, ..once }));
        assert_eq!(used(workspace.as_fd(), 2), None);
    }
}
