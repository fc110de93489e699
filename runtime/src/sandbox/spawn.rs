//! The one place where this program starts another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use toka_kernel::ids::Digest;

use super::toolchain::Toolchains;

/// The launcher `toka-jail`: a sealed copy of its program, and the thread that starts it.
///
/// The program is opened when this value is made and copied when it is first needed, so that an upgrade on disk never
/// mixes versions, and a node that runs no foreign program copies nothing. The launcher dies with the thread that
/// started it, so all are started by one that lives as long as this value.
#[derive(Debug)]
pub struct Launcher {
    program: File,
    toolchains: Toolchains,
    loaded: OnceLock<Result<Loaded, i32>>,
    worker: Option<File>,
    loaded_worker: OnceLock<Result<Worker, i32>>,
}

/// The worker for guests: a sealed copy of its program, which is run in a jail.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) image: OwnedFd,
    pub(super) digest: Digest,
    /// Whether it runs without a loader and libraries of the machine.
    pub(super) is_static: bool,
}

#[derive(Debug)]
struct Loaded {
    image: OwnedFd,
    digest: Digest,
    requests: Sender<Request>,
}

/// What a launcher is given.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) status: OwnedFd,
    pub(super) spec: OwnedFd,
    pub(super) result: OwnedFd,
    pub(super) inputs: Vec<OwnedFd>,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// EIO, where an error has no number.
const EIO: i32 = 5;

#[derive(Debug)]
struct Request {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

impl Launcher {
    /// Opens the program at `path`, which is `toka-jail` or a program that answers to that name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Launcher> {
        Ok(Launcher {
            program: File::open(path)?,
            toolchains: Toolchains::default(),
            loaded: OnceLock::new(),
            worker: None,
            loaded_worker: OnceLock::new(),
        })
    }

    /// The same, with the program at `path` for guests: `toka-wasm`, or a program that answers to that name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn with_worker(self, path: &Path) -> io::Result<Launcher> {
        Ok(Launcher { worker: Some(File::open(path)?), ..self })
    }

    /// Whether it can run guests.
    pub fn has_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// The worker for guests; `ENOENT` where there is none.
    pub(super) fn worker(&self) -> io::Result<&Worker> {
        let file = self.worker.as_ref().ok_or(Errno::NOENT)?;
        let load = || Worker::of(file).map_err(|error| error.raw_os_error().unwrap_or(EIO));
        self.loaded_worker.get_or_init(load).as_ref().map_err(|errno| io::Error::from_raw_os_error(*errno))
    }

    /// The digest of the launcher's program.
    ///
    /// # Errors
    /// When it cannot be read, or the system keeps no executable memory files.
    pub fn digest(&self) -> io::Result<Digest> {
        Ok(self.loaded()?.digest)
    }

    /// Where a toolchain is on this machine, and the digest of its program as it is now.
    pub(super) fn toolchain(&self, name: &str) -> Option<(String, Digest)> {
        self.toolchains.get(name)
    }

    fn loaded(&self) -> io::Result<&Loaded> {
        let load = || Loaded::of(&self.program).map_err(|error| error.raw_os_error().unwrap_or(EIO));
        self.loaded.get_or_init(load).as_ref().map_err(|errno| io::Error::from_raw_os_error(*errno))
    }

    /// Starts a launcher with what it is given.
    pub(super) fn start(&self, handed: Handed) -> io::Result<Child> {
        let loaded = self.loaded()?;
        let mut command = loaded.command();
        let Handed { status, spec, result, inputs, stdin, stdout, stderr } = handed;
        let handed = toka_jail::handing::Handed { status, spec, result, stdin, inputs };
        command.stdin(handed.into_stdin()?).stdout(stdout).stderr(stderr);
        loaded.spawn(command)
    }

    /// Starts the launcher's test of itself at a level.
    pub(super) fn start_self_test(&self, level: &str) -> io::Result<Child> {
        let loaded = self.loaded()?;
        let mut command = loaded.command();
        command.args(["--self-test", level]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        loaded.spawn(command)
    }
}

impl Worker {
    fn of(mut file: &File) -> io::Result<Worker> {
        let mut program = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut program)?;
        let (end, is_static) = loadable(&program).ok_or(Errno::NOEXEC)?;
        // What follows is for debuggers, and would be most of the copy.
        program.truncate(end);
        let digest = Digest(*blake3::hash(&program).as_bytes());
        Ok(Worker { image: sealed(&program, true)?, digest, is_static })
    }
}

/// How much of an ELF file of 64 bits, low bytes first, is loaded when it is run, and whether it names no loader; `None`
/// for any other file (elf(5): the program headers).
fn loadable(program: &[u8]) -> Option<(usize, bool)> {
    const LOAD: u32 = 1;
    const INTERP: u32 = 3;
    let number = |at: usize, len: usize| {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut end = table.checked_add(size * count)?;
    let mut is_static = true;
    for header in 0..count {
        let at = usize::try_from(table + header * size).ok()?;
        match u32::try_from(number(at, 4)?).ok()? {
            LOAD => end = end.max(number(at + 8, 8)?.checked_add(number(at + 32, 8)?)?),
            INTERP => is_static = false,
            _ => {}
        }
    }
    let end = usize::try_from(end).ok()?;
    (end <= program.len()).then_some((end, is_static))
}

impl Loaded {
    fn of(mut file: &File) -> io::Result<Loaded> {
        let mut program = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut program)?;
        let image = sealed(&program, true)?;
        let (requests, queue) = channel::<Request>();
        std::thread::Builder::new().name("toka-spawn".to_owned()).spawn(move || {
            for mut request in queue {
                // Who asked may have gone; then the launcher finds nobody at its sockets and ends.
                let _ = request.answer.send(request.command.spawn());
            }
        })?;
        Ok(Loaded { image, digest: Digest(*blake3::hash(&program).as_bytes()), requests })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.image.as_raw_fd()));
        command.arg0("toka-jail").env_clear();
        command
    }

    fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answers) = channel();
        let gone = |_| io::Error::other("the thread that starts programs has ended");
        self.requests.send(Request { command, answer }).map_err(|_| io::Error::other("nothing starts programs"))?;
        answers.recv().map_err(gone)?
    }
}

/// A sealed file in memory.
pub(super) fn sealed(content: &[u8], executable: bool) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let asked = if executable { flags | MemfdFlags::EXEC } else { flags };
    let memfd = match rustix::fs::memfd_create("toka", asked) {
        // Before Linux 6.3 every memory file is executable and the flag unknown.
        Err(Errno::INVAL) => rustix::fs::memfd_create("toka", flags),
        made => made,
    };
    let mut file = File::from(memfd?);
    file.write_all(content)?;
    rustix::fs::fcntl_add_seals(
        file.as_fd(),
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}
