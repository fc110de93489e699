//! The files of a foreign program: how they are read, and the digest that pins them.
//!
//! The digest is `DK(program, "files" ‖ 00 ‖ file…)`, each file, the main one first and the others in the order of the
//! manifest, as `u32 length of name ‖ name ‖ BLAKE3 of its bytes`, integers big-endian. The name is the path as the
//! manifest writes it, so a file that moves is another program. A native tool hashes `"native" ‖ 00 ‖ …` under the
//! same context, so neither can pass for the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Digest;
use toka_kernel::tool::Run;

use crate::confine::{NO_LINKS, READ, open_beneath, retried};

/// Bytes of one file of a program.
pub const PROGRAM_FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all files of a program together.
pub const PROGRAM_BYTES_MAX: u64 = 256 << 20;

/// A file of a program, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// Its path as the manifest writes it.
    pub name: String,
    /// Its bytes, at most 64 MiB.
    pub bytes: Vec<u8>,
}

/// Why a file cannot be part of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramFault {
    /// Nothing has this name.
    #[error("there is no such file")]
    NotFound,
    /// A symbolic link on the way, or a way out of the folder.
    #[error("a link is on the way, or the way leaves the folder")]
    Link,
    /// A directory, pipe, socket or device.
    #[error("it is no regular file")]
    NotRegular,
    /// More than 64 MiB, or more than 256 MiB with the others.
    #[error("it is larger than 64 MiB, or all files together than 256 MiB")]
    TooLarge,
    /// An absolute path, and no directory for such paths was handed over.
    #[error("files outside the folder of the manifest cannot be read here")]
    NoSystem,
    /// It may not be read, or reading failed.
    #[error("it cannot be read")]
    Unreadable,
}

/// Where the files of a program come from.
pub trait ProgramSource {
    /// The bytes of a file, at most `most` of them: [`ProgramFault::TooLarge`] beyond.
    ///
    /// # Errors
    /// Why the file cannot be part of a program.
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, ProgramFault>;
}

/// Open directories to read from. No link is followed, and nothing outside them is reached.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// The folder of the manifest.
    pub beside: BorrowedFd<'a>,
    /// The directory below which absolute paths lie, so `/`; `None` where they are refused.
    pub system: Option<BorrowedFd<'a>>,
}

impl ProgramSource for Folders<'_> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, ProgramFault> {
        let file = match (path.strip_prefix('/'), self.system) {
            (None, _) => open_beneath(self.beside, path, READ, NO_LINKS),
            // A machine may have its programs on another mount than its root, so mounts are crossed here.
            (Some(below), Some(system)) => retried(|| {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | NO_LINKS;
                openat2(system, below, READ, Mode::empty(), resolve)
            }),
            (Some(_), None) => return Err(ProgramFault::NoSystem),
        };
        read_regular(file.map_err(fault)?, most)
    }
}

/// Files in memory, by their path.
impl ProgramSource for BTreeMap<&str, &[u8]> {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, ProgramFault> {
        let bytes = self.get(path).ok_or(ProgramFault::NotFound)?;
        if bytes.len() as u64 > most { Err(ProgramFault::TooLarge) } else { Ok(bytes.to_vec()) }
    }
}

/// Reads one regular file of at most `most` bytes. The opening must not have waited: see [`READ`].
pub(crate) fn read_regular(file: OwnedFd, most: u64) -> Result<Vec<u8>, ProgramFault> {
    let stat = fstat(&file).map_err(|_| ProgramFault::Unreadable)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ProgramFault::NotRegular);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > most {
        return Err(ProgramFault::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may have grown since, so one byte more than allowed is asked for.
    File::from(file).take(most + 1).read_to_end(&mut bytes).map_err(|_| ProgramFault::Unreadable)?;
    if bytes.len() as u64 > most { Err(ProgramFault::TooLarge) } else { Ok(bytes) }
}

pub(crate) fn fault(errno: Errno) -> ProgramFault {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ProgramFault::NotFound,
        Errno::LOOP | Errno::XDEV => ProgramFault::Link,
        Errno::ISDIR | Errno::NXIO | Errno::NODEV => ProgramFault::NotRegular,
        _ => ProgramFault::Unreadable,
    }
}

/// Every file of a program, the main one first.
///
/// # Errors
/// The path of the first file that cannot be part of it, and why.
pub fn read_program(run: &Run, source: &dyn ProgramSource) -> Result<Vec<ProgramFile>, (String, ProgramFault)> {
    let names: Vec<&String> = [&run.path].into_iter().chain(&run.files).collect();
    let read = read_files(&names, source);
    read.into_iter().zip(names).map(|(file, name)| file.map_err(|fault| (name.clone(), fault))).collect()
}

/// Each of these files, or why it cannot be part of a program.
pub(crate) fn read_files(names: &[&String], source: &dyn ProgramSource) -> Vec<Result<ProgramFile, ProgramFault>> {
    let mut room = PROGRAM_BYTES_MAX;
    let read = |name: &&String| {
        let bytes = source.read(name, room.min(PROGRAM_FILE_BYTES_MAX))?;
        room -= bytes.len() as u64;
        Ok(ProgramFile { name: (*name).clone(), bytes })
    };
    names.iter().map(read).collect()
}

/// The digest that pins a program: of the names and bytes of its files in their order.
pub fn program_digest(files: &[ProgramFile]) -> Digest {
    let mut image = b"files\0".to_vec();
    for file in files {
        // Invariant: a name is at most 256 bytes, checked where a run is.
        image.extend(u32::try_from(file.name.len()).unwrap_or(u32::MAX).to_be_bytes());
        image.extend(file.name.as_bytes());
        image.extend(blake3::hash(&file.bytes).as_bytes());
    }
    derive(Context::Program, &[&image])
}

/// A digest as a manifest writes it: `blake3:` and 64 hexadecimal digits.
pub fn pin_text(digest: &Digest) -> String {
    format!("blake3:{digest}")
}

/// A directory to read from, opened beneath another one without following a link.
///
/// # Errors
/// Why there is none.
pub fn open_folder(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, ProgramFault> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_beneath(dir.as_fd(), path, flags, NO_LINKS).map_err(fault)
}
