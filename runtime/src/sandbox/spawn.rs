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
        Ok(Launcher { program: File::open(path)?, toolchains: Toolchains::default(), loaded: OnceLock::new() })
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
