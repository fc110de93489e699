//! The one place where this program starts another.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use toka_jail::standing::{Launched, Standing};
use toka_kernel::ids::Digest;

use super::toolchain::Toolchains;

/// The launcher `toka-jail`: a sealed copy of its program, and the thread that has launchers made.
///
/// The program is opened when this value is made and copied when it is first needed, so that an upgrade on disk never
/// mixes versions, and a node that runs no foreign program copies nothing. The first call starts it, and for each call
/// it doubles itself (see [`toka_jail::standing`]). All of them die with the thread that started it, so that is one that
/// lives as long as this value.
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
    digest: Digest,
    /// Both are there until this value goes.
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
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

/// How often it is tried to seal a file of which the kernel holds a page.
const SEALINGS_MAX: u32 = 32;

#[derive(Debug)]
enum Request {
    Launch { handed: Box<Handed>, answer: Sender<io::Result<Launched>> },
    SelfTest { level: String, answer: Sender<io::Result<Child>> },
}

/// What the thread that has launchers made works with.
#[derive(Debug)]
struct Spawner {
    image: OwnedFd,
    standing: Option<(Child, Standing)>,
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

    /// Has a launcher made with what it is given.
    pub(super) fn start(&self, handed: Handed) -> io::Result<Launched> {
        self.loaded()?.ask(|answer| Request::Launch { handed: Box::new(handed), answer })
    }

    /// Starts the launcher's test of itself at a level.
    pub(super) fn start_self_test(&self, level: &str) -> io::Result<Child> {
        self.loaded()?.ask(|answer| Request::SelfTest { level: level.to_owned(), answer })
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
        let mut spawner = Spawner { image: sealed(&program, true)?, standing: None };
        let (requests, queue) = channel::<Request>();
        let thread = std::thread::Builder::new().name("toka-spawn".to_owned()).spawn(move || {
            for request in queue {
                // Who asked may have gone; then the launcher finds nobody at its sockets and ends.
                match request {
                    Request::Launch { handed, answer } => drop(answer.send(spawner.launch(*handed))),
                    Request::SelfTest { level, answer } => drop(answer.send(spawner.self_test(&level))),
                }
            }
        })?;
        let digest = Digest(*blake3::hash(&program).as_bytes());
        Ok(Loaded { digest, requests: Some(requests), thread: Some(thread) })
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<io::Result<T>>) -> Request) -> io::Result<T> {
        let (answer, answers) = channel();
        let gone = || io::Error::other("the thread that starts programs has ended");
        self.requests.as_ref().ok_or_else(gone)?.send(request(answer)).map_err(|_| gone())?;
        answers.recv().map_err(|_| gone())?
    }
}

impl Drop for Loaded {
    /// Nothing of it is left afterwards.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has ended, too, and its launcher with it.
            let _ended = thread.join();
        }
    }
}

impl Spawner {
    /// Asks the standing launcher; where that has died since the last call, or does while it is asked, another one.
    fn launch(&mut self, handed: Handed) -> io::Result<Launched> {
        let Handed { status, spec, result, inputs, stdin, stdout, stderr } = handed;
        let handed = toka_jail::handing::Handed { status, spec, result, stdin, inputs };
        for _ in 0..2 {
            match self.standing()?.launch(&handed, stdout.as_fd(), stderr.as_fd()) {
                Ok(Some(launched)) => return Ok(launched),
                Ok(None) => self.end(),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::TIMEDOUT) => {
                    self.end();
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Errno::CONNRESET.into())
    }

    /// The standing launcher, which is started if there is none.
    fn standing(&mut self) -> io::Result<&Standing> {
        let (_, standing) = match self.standing.take() {
            Some(there) => self.standing.insert(there),
            None => {
                let (standing, stdin) = Standing::pair()?;
                let mut command = self.command();
                // It makes these two the same as the first, so that it holds nothing else.
                command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
                let child = command.spawn()?;
                self.standing.insert((child, standing))
            }
        };
        Ok(standing)
    }

    fn self_test(&self, level: &str) -> io::Result<Child> {
        let mut command = self.command();
        command.args(["--self-test", level]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.image.as_raw_fd()));
        command.arg0("toka-jail").env_clear();
        command
    }

    /// Ends the standing launcher, whatever it does. Those that it made are not its children.
    fn end(&mut self) {
        if let Some((mut child, _)) = self.standing.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.end();
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
    seal(file.as_fd(), |sealing| sealing < SEALINGS_MAX)?;
    Ok(file.into())
}

/// Seals a file. The kernel refuses that for as long as somebody holds a page of it, and that may be the kernel itself,
/// short of memory or of time: it waits 150 ms, and then says `EBUSY` (F_SEAL_WRITE in fcntl(2)). `again` says of each
/// such answer whether there is to be another try.
fn seal(file: BorrowedFd<'_>, mut again: impl FnMut(u32) -> bool) -> Result<(), Errno> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    let mut sealing = 1;
    loop {
        match rustix::fs::fcntl_add_seals(file, seals) {
            Err(Errno::BUSY) if again(sealing) => sealing += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use rustix::pipe::{SpliceFlags, splice};

    use super::*;

    #[test]
    fn a_file_is_sealed_once_nobody_holds_a_page_of_it() {
        let file = File::from(
            rustix::fs::memfd_create("toka", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memory file"),
        );
        (&file).write_all(&[7; 4_096]).expect("room");
        let (mut read, write) = pipe().expect("a pipe");
        splice(&file, Some(&mut 0), &write, None, 4_096, SpliceFlags::empty()).expect("a page");
        assert_eq!(seal(file.as_fd(), |_| false), Err(Errno::BUSY));
        let let_go = |sealing| {
            assert_eq!(sealing, 1, "nobody holds it any more");
            read.read_exact(&mut [0; 4_096]).is_ok()
        };
        assert_eq!(seal(file.as_fd(), let_go), Ok(()));
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
    }

    /// What no launcher makes anything of.
    fn handed() -> Handed {
        let null = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
        Handed {
            status: null(),
            spec: null(),
            result: null(),
            inputs: vec![],
            stdin: null(),
            stdout: null(),
            stderr: null(),
        }
    }

    #[test]
    fn a_launcher_that_ends_without_an_answer_is_started_once_more_and_then_given_up() {
        // The one ends at once; the other reads what it is asked, and then ends.
        for program in ["/bin/true", "/bin/cat"] {
            let launcher = Launcher::open(Path::new(program)).expect("it is there");
            for _ in 0..2 {
                let error = launcher.start(handed()).expect_err("nobody answers");
                assert_eq!(Errno::from_io_error(&error), Some(Errno::CONNRESET), "{program}: {error}");
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_launcher_that_is_dropped() {
        let cat = std::fs::read("/bin/cat").expect("it is there");
        let mut spawner = Spawner { image: sealed(&cat, true).expect("room"), standing: None };
        spawner.standing().expect("it starts");
        let (child, _) = spawner.standing.as_ref().expect("it stands by");
        let process = format!("/proc/{}", child.id());
        assert!(Path::new(&process).exists());
        drop(spawner);
        assert!(!Path::new(&process).exists(), "it is not even waited for");
    }
}
