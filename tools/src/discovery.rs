//! Finding manifests below a directory.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, statat};

use crate::confine::{DIRECTORY, NO_LINKS, READ, open_beneath};
use crate::files::yaml::Place;
use crate::files::{FileCode, FileError, clean, file_error, quote};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::program::{Folders, ProgramFault, fault, open_folder, read_regular};

/// Levels of directories that are walked, the top one included.
pub const DISCOVERY_DEPTH_MAX: usize = 16;
/// Names that are looked at, all directories together.
pub const DISCOVERY_ENTRIES_MAX: usize = 10_000;
/// How the name of a manifest ends.
pub const MANIFEST_SUFFIX: &str = ".tool.yaml";

/// What was found.
#[derive(Debug)]
pub struct Discovery {
    /// The manifests without an error, each with its path below the directory, in the order of the bytes of the paths.
    pub manifests: Vec<(String, Manifest)>,
    /// Everything that is wrong, in the order of the paths.
    pub errors: Vec<FileError>,
}

impl Discovery {
    /// All manifests.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, or with the directory.
    pub fn whole(self) -> Result<Vec<(String, Manifest)>, Vec<FileError>> {
        if self.errors.is_empty() { Ok(self.manifests) } else { Err(self.errors) }
    }
}

/// Reads every `*.tool.yaml` below `dir`, which errors call `shown`; absolute paths in them lie below `system`.
///
/// Follows no link and crosses no mount; leaves out names that begin with a dot, `target` and `node_modules`. More
/// levels or names than allowed, what cannot be read, and two manifests with one name are errors.
pub fn discover(dir: BorrowedFd<'_>, shown: &str, system: Option<BorrowedFd<'_>>) -> Discovery {
    let mut walk = Walk { shown, entries: 0, found: BTreeMap::new(), errors: Vec::new() };
    match open_beneath(dir, ".", DIRECTORY, NO_LINKS) {
        Ok(top) => walk.read(&top, b"", 1),
        Err(errno) => walk.unread(b"", fault(errno)),
    }
    let Walk { found, mut errors, .. } = walk;
    let mut manifests = Vec::new();
    for (path, kind) in found {
        let name = name_of(shown, &path);
        match load_found(dir, &path, kind, &name, system) {
            Ok(manifest) => manifests.push((path, name, manifest)),
            Err(mut wrong) => errors.append(&mut wrong),
        }
    }
    let manifests = distinct(manifests, &mut errors);
    errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Discovery { manifests, errors }
}

/// Reads the manifest at `path` below `dir`, and the files of its program beside it. Errors call it `shown`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(
    dir: BorrowedFd<'_>,
    path: &str,
    shown: &str,
    system: Option<BorrowedFd<'_>>,
) -> Result<Manifest, Vec<FileError>> {
    let one = |fault: ProgramFault| vec![unreadable(shown, fault)];
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = open_folder(dir, folder).map_err(one)?;
    let file = open_beneath(folder.as_fd(), name, READ, NO_LINKS).map_err(fault).map_err(one)?;
    // One byte more than allowed, so that reading says what is wrong in its own words.
    let bytes = read_regular(file, MANIFEST_BYTES_MAX as u64 + 1).map_err(|fault| match fault {
        ProgramFault::TooLarge => {
            let message = format!("the file is larger than {} KiB", MANIFEST_BYTES_MAX >> 10);
            let hint = "a tool manifest names data, it does not hold it";
            vec![file_error(shown, Place::START, FileCode::TooLarge, message, hint)]
        }
        ProgramFault::NotFound
        | ProgramFault::Link
        | ProgramFault::NotRegular
        | ProgramFault::NoSystem
        | ProgramFault::Unreadable => one(fault),
    })?;
    Manifest::read(shown, &bytes, &Folders { beside: folder.as_fd(), system })
}

fn load_found(
    dir: BorrowedFd<'_>,
    path: &[u8],
    kind: FileType,
    shown: &str,
    system: Option<BorrowedFd<'_>>,
) -> Result<Manifest, Vec<FileError>> {
    if kind != FileType::RegularFile {
        return Err(vec![unreadable(shown, ProgramFault::NotRegular)]);
    }
    match std::str::from_utf8(path) {
        Ok(path) => load(dir, path, shown, system),
        Err(_) => {
            let hint = "rename it: paths are UTF-8";
            Err(vec![file_error(shown, Place::START, FileCode::BadPath, "the path is not UTF-8", hint)])
        }
    }
}

/// Keeps the first manifest of every name.
fn distinct(manifests: Vec<(Vec<u8>, String, Manifest)>, errors: &mut Vec<FileError>) -> Vec<(String, Manifest)> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut kept = Vec::new();
    for (path, shown, manifest) in manifests {
        if let Some(other) = first.get(&manifest.spec.name) {
            let message = format!("{other} has the name {} too", quote(&manifest.spec.name));
            let hint = "rename one of the two";
            errors.push(file_error(&shown, manifest.name_place, FileCode::DuplicateName, message, hint));
            continue;
        }
        first.insert(manifest.spec.name.clone(), shown);
        // Invariant: a manifest was read, so its path is UTF-8.
        kept.push((String::from_utf8_lossy(&path).into_owned(), manifest));
    }
    kept
}

struct Walk<'a> {
    shown: &'a str,
    entries: usize,
    found: BTreeMap<Vec<u8>, FileType>,
    errors: Vec<FileError>,
}

impl Walk<'_> {
    /// Reads a directory and all below it. `prefix` is its path with a `/` at the end, or empty.
    fn read(&mut self, dir: &OwnedFd, prefix: &[u8], depth: usize) {
        let names = match self.names(dir) {
            Ok(names) => names,
            Err(fault) => return self.unread(prefix, fault),
        };
        for name in names {
            let bytes = name.as_bytes();
            if self.entries > DISCOVERY_ENTRIES_MAX {
                return;
            }
            let path = [prefix, bytes].concat();
            let kind = match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(rustix::io::Errno::NOENT) => continue, // gone since its directory was read
                Err(errno) => {
                    self.unread(&path, fault(errno));
                    continue;
                }
            };
            match kind {
                FileType::Directory => self.enter(dir, &name, &path, depth),
                FileType::Symlink => {}
                FileType::RegularFile
                | FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {
                    if bytes.ends_with(MANIFEST_SUFFIX.as_bytes()) {
                        self.found.insert(path, kind);
                    }
                }
            }
        }
    }

    fn enter(&mut self, dir: &OwnedFd, name: &CString, path: &[u8], depth: usize) {
        if depth == DISCOVERY_DEPTH_MAX {
            let message = format!("nested deeper than {DISCOVERY_DEPTH_MAX} levels");
            let shown = name_of(self.shown, path);
            let hint = "begin further down, or leave the folder out by a dot before its name";
            self.errors.push(file_error(&shown, Place::START, FileCode::TooDeep, message, hint));
            return;
        }
        let inside = [path, b"/"].concat();
        match open_beneath(dir.as_fd(), name.as_c_str(), DIRECTORY, NO_LINKS) {
            Ok(below) => self.read(&below, &inside, depth + 1),
            Err(errno) => self.unread(path, fault(errno)),
        }
    }

    /// The names in a directory that are looked at, sorted; counted, so that a huge directory ends the walk.
    fn names(&mut self, dir: &OwnedFd) -> Result<Vec<CString>, ProgramFault> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") || matches!(name.to_bytes(), b"target" | b"node_modules") {
                continue;
            }
            self.entries += 1;
            if self.entries > DISCOVERY_ENTRIES_MAX {
                self.too_many();
                break;
            }
            names.push(name.to_owned());
        }
        names.sort();
        Ok(names)
    }

    fn too_many(&mut self) {
        let message = format!("more than {DISCOVERY_ENTRIES_MAX} names below the folder");
        let hint = "begin further down, where the manifests are";
        self.errors.push(file_error(self.shown, Place::START, FileCode::TooMany, message, hint));
    }

    fn unread(&mut self, path: &[u8], fault: ProgramFault) {
        self.errors.push(unreadable(&name_of(self.shown, path), fault));
    }
}

/// What errors call a path below the directory: escaped, since names can hold anything.
fn name_of(shown: &str, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let path = clean(path.trim_end_matches('/'), usize::MAX);
    match (shown, path.as_str()) {
        (_, "") => shown.to_owned(),
        ("", _) => path,
        _ => format!("{}/{path}", shown.trim_end_matches('/')),
    }
}

fn unreadable(shown: &str, fault: ProgramFault) -> FileError {
    let (code, hint) = match fault {
        ProgramFault::NotRegular => (FileCode::NotRegular, "a manifest is a file"),
        ProgramFault::TooLarge => (FileCode::TooLarge, "a manifest names data, it does not hold it"),
        ProgramFault::Link | ProgramFault::NoSystem => (FileCode::BadPath, "name the file itself: no link is followed"),
        ProgramFault::NotFound | ProgramFault::Unreadable => {
            (FileCode::Unreadable, "name a file that exists and can be read")
        }
    };
    file_error(shown, Place::START, code, fault.to_string(), hint)
}
