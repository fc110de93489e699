//! Names that a call must not make in a directory it may write to: a mask needs something to lie over, so where nothing
//! has the name yet, an empty directory takes its place while calls need it.
//!
//! Who uses one holds a shared lock on it, and only who gets the lock alone removes it, so calls of several threads and
//! nodes share one. It is known by its mode; one that a killed node left is taken over and removed by the next call. An
//! empty directory is all that is ever removed: what somebody put there meanwhile stays.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// The mode of a placeholder, which nobody gives a directory otherwise: the sticky bit, and readable by its owner.
const MODE: u32 = 0o1400;
/// So often somebody else may remove it while it is looked at.
const TRIES: usize = 64;

/// A name that something has as long as this value lives.
#[derive(Debug)]
pub(super) struct Placeholder {
    within: OwnedFd,
    name: String,
    held: OwnedFd,
}

impl Placeholder {
    /// Sees to it that something is called `name` in the directory `within`. `None` if something of somebody else's
    /// is.
    pub(super) fn hold(within: &OwnedFd, name: &str) -> Result<Option<Placeholder>, Errno> {
        for _ in 0..TRIES {
            match rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => return Ok(None),
                Ok(stat) if stat.st_mode & 0o7777 != MODE => return Ok(None),
                Ok(_) => {}
                // With its mode from the beginning, so that nobody takes it for something else.
                Err(Errno::NOENT) => match rustix::fs::mkdirat(within, name, Mode::from_raw_mode(MODE)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = match rustix::fs::openat(within, name, flags, Mode::empty()) {
                Ok(held) => held,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            rustix::io::retry_on_intr(|| rustix::fs::flock(&held, FlockOperation::LockShared))?;
            if is_named(within, name, &held) {
                let within = within.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
                return Ok(Some(Placeholder { within, name: name.to_owned(), held }));
            }
        }
        Err(Errno::AGAIN)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let alone = rustix::fs::flock(&self.held, FlockOperation::NonBlockingLockExclusive);
        if alone.is_ok() && is_named(&self.within, &self.name, &self.held) {
            // What is not empty any more is somebody's.
            let _stays = rustix::fs::unlinkat(&self.within, self.name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}

fn is_named(within: &OwnedFd, name: &str, held: &OwnedFd) -> bool {
    let named = rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW);
    match (named, rustix::fs::fstat(held)) {
        (Ok(named), Ok(held)) => (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("toka-placeholder-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder");
        let opened = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opens");
        (path, opened)
    }

    #[test]
    fn the_last_who_needs_it_removes_it() {
        let (path, within) = folder("last");
        let hold = || Placeholder::hold(&within, ".git").expect("holds").expect("a placeholder");
        let (one, two) = (hold(), hold());
        drop(one);
        assert!(path.join(".git").is_dir(), "another needs it");
        let three = hold();
        drop(two);
        assert!(path.join(".git").is_dir());
        drop(three);
        assert!(!path.join(".git").exists());
        // One that a killed node left.
        std::mem::forget(hold());
        assert!(path.join(".git").is_dir());
        std::fs::remove_dir_all(&path).expect("removes");
    }

    #[test]
    fn what_is_somebodys_stays() {
        let (path, within) = folder("stays");
        std::fs::write(path.join(".env"), "mine").expect("writes");
        std::fs::create_dir(path.join(".git")).expect("makes");
        std::os::unix::fs::symlink("nowhere", path.join(".ssh")).expect("links");
        for name in [".env", ".git", ".ssh"] {
            assert!(Placeholder::hold(&within, name).expect("looks").is_none());
        }
        let held = Placeholder::hold(&within, ".toka").expect("holds");
        std::fs::set_permissions(path.join(".toka"), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        std::fs::write(path.join(".toka/mine"), "mine").expect("writes");
        drop(held);
        for name in [".env", ".git", ".ssh", ".toka/mine"] {
            assert!(std::fs::symlink_metadata(path.join(name)).is_ok(), "{name}");
        }
        std::fs::remove_dir_all(&path).expect("removes");
    }
}
