//! A folder held open: files are reached through its descriptor, so that nobody can exchange a part of the path.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::HomeError;

/// Who but the owner may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nobody anything.
    Private,
    /// Others may look, but change nothing.
    Readable,
}

/// A folder of the home that has passed its checks.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens the folder at `path`, whatever links lead to it.
    pub(super) fn open(path: &Path, access: Access) -> Result<Folder, HomeError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| HomeError::io(path, error))?;
        Folder { path: path.to_owned(), fd }.checked(access)
    }

    /// Opens the folder `name` in this one, which must be no link.
    pub(super) fn folder(&self, name: &str, access: Access) -> Result<Folder, HomeError> {
        let fd = self.open_at(name, OFlags::DIRECTORY)?;
        Folder { path: self.path.join(name), fd }.checked(access)
    }

    /// Makes the folder `name` in this one, for the owner alone.
    pub(super) fn make(&self, name: &str) -> Result<Folder, HomeError> {
        let path = self.path.join(name);
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(|error| HomeError::io(&path, error))?;
        self.folder(name, Access::Private)
    }

    /// The path by which it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something called `name` here.
    pub(super) fn has(&self, name: &str) -> Result<bool, HomeError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(HomeError::io(&self.path.join(name), error)),
        }
    }

    /// The names in this folder, sorted; those that are no UTF-8 are none of ours.
    pub(super) fn names(&self) -> Result<Vec<String>, HomeError> {
        let failed = |error| HomeError::io(&self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// Reads the file `name`, which must be a regular file of ours, no link, of at most `bytes_max` bytes.
    pub(super) fn read(&self, name: &str, access: Access, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, HomeError> {
        let path = self.path.join(name);
        let mut file = File::from(self.open_at(name, OFlags::NONBLOCK)?);
        check(&path, &stat(&path, &file)?, FileType::RegularFile, access)?;
        // One allocation of full size: one that grows would leave copies of a seed behind.
        let mut bytes = Zeroizing::new(vec![0; bytes_max + 1]);
        let mut len = 0;
        while len < bytes.len() {
            match file.read(&mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(HomeError::io(&path, error)),
            }
        }
        if len > bytes_max {
            return Err(HomeError::Mismatch { path, what: format!("it has more than {bytes_max} bytes") });
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Writes the file `name`: under another name first, durable before it takes its own. An existing one is replaced
    /// if `replace` says so, and is an error if not. The name is durable after [`Folder::sync`].
    pub(super) fn write(&self, name: &str, access: Access, bytes: &[u8], replace: bool) -> Result<(), HomeError> {
        let path = self.path.join(name);
        let failed = |error: std::io::Error| HomeError::io(&path, error);
        let new = format!(".{name}.new");
        if replace {
            // What a crash left of an earlier replacement; the old file is whole.
            self.remove(&new)?;
        }
        let mode = match access {
            Access::Private => Mode::RUSR | Mode::WUSR,
            Access::Readable => Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &new, flags, mode).map_err(|error| failed(error.into()))?;
        let mut file = File::from(fd);
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(&self.fd, &new, &self.fd, name, flags).map_err(|error| failed(error.into()))
    }

    /// Removes the file `name`, if there is one.
    pub(super) fn remove(&self, name: &str) -> Result<(), HomeError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(HomeError::io(&self.path.join(name), error)),
        }
    }

    /// Makes the names in this folder durable.
    pub(super) fn sync(&self) -> Result<(), HomeError> {
        rustix::fs::fsync(&self.fd).map_err(|error| HomeError::io(&self.path, error))
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd, HomeError> {
        let path = self.path.join(name);
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|error| {
            // The system has two answers to a link, one of them also for other things.
            let link = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            match error {
                Errno::LOOP | Errno::NOTDIR if link => HomeError::Symlink { path },
                Errno::NOTDIR => HomeError::Kind { path, expected: "folder" },
                error => HomeError::io(&path, error),
            }
        })
    }

    fn checked(self, access: Access) -> Result<Folder, HomeError> {
        check(&self.path, &stat(&self.path, &self.fd)?, FileType::Directory, access)?;
        Ok(self)
    }
}

fn stat(path: &Path, fd: impl std::os::fd::AsFd) -> Result<Stat, HomeError> {
    rustix::fs::fstat(fd).map_err(|error| HomeError::io(path, error))
}

fn check(path: &Path, stat: &Stat, kind: FileType, access: Access) -> Result<(), HomeError> {
    let path = path.to_owned();
    if FileType::from_raw_mode(stat.st_mode) != kind {
        let expected = if kind == FileType::Directory { "folder" } else { "regular file" };
        return Err(HomeError::Kind { path, expected });
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(HomeError::Owner { path, owner: stat.st_uid, user });
    }
    let (forbidden, fix) = match (access, kind) {
        (Access::Private, FileType::Directory) => (0o077, "chmod 700"),
        (Access::Private, _) => (0o077, "chmod 600"),
        (Access::Readable, _) => (0o022, "chmod go-w"),
    };
    let mode = stat.st_mode & 0o7777;
    if mode & forbidden != 0 {
        return Err(HomeError::Exposed { path, mode, fix });
    }
    Ok(())
}
