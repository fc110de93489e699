//! A small supervisor: the other side of the protocol, without timers of its own but one that no test should reach.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Signal;
use toka_jail::handing::Handed;
use toka_jail::spec::{File as SpecFile, Identity, Level, Limits, Mount, Net, Spec, Symlink, Tmpfs, VERSION};
use toka_jail::standing::{Launched, Standing};
use toka_jail::status::{Fault, GO, RECORD_BYTES_MAX, Record};

/// After this a run counts as hung, and everything is killed.
const HUNG: Duration = Duration::from_secs(120);

/// Whom the launcher is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum As {
    /// As whom the tests run.
    Same,
    /// As 65534, by a test that runs as root.
    Nobody,
}

impl As {
    /// Both, if the tests run as root; else only the one that can be.
    pub(crate) fn each() -> Vec<As> {
        if rustix::process::geteuid().is_root() { vec![As::Same, As::Nobody] } else { vec![As::Same] }
    }
}

/// What is to run, and what it is handed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) inputs: Vec<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
}

impl Plan {
    /// A program in a strong jail with `/usr` and no more.
    pub(crate) fn strong(program: &str, args: &[&str]) -> Plan {
        let spec = Spec {
            version: VERSION,
            supervisor: std::process::id(),
            level: Level::Strong,
            identity: Identity::Own,
            inputs: 0,
            cgroups: vec![],
            memory_cgroup: false,
            mounts: vec![],
            symlinks: vec![],
            files: vec![],
            masks: vec![],
            workspace: Some(Tmpfs { bytes: 32 << 20, inodes: 512, exec: true }),
            tmp: Some(Tmpfs { bytes: 4 << 20, inodes: 128, exec: false }),
            shm: None,
            net: Net::None,
            program: program.to_owned(),
            image: None,
            argv: [program].iter().chain(args).map(|&arg| arg.to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("LANG".to_owned(), "C.UTF-8".to_owned())],
            cwd: "/workspace".to_owned(),
            pass: vec![],
            limits: Limits { pids: 16, as_bytes: 1 << 30, cpu_s: 20, file_bytes: 64 << 20, open_files: 64 },
        };
        let mut plan = Plan { spec, inputs: vec![], stdin: None };
        plan.base();
        plan
    }

    /// A program at level landlock, with `/usr` and `folder` as its workspace.
    pub(crate) fn landlock(program: &str, args: &[&str], folder: &str) -> Plan {
        let mut plan = Plan::strong(program, args);
        plan.spec = Spec {
            level: Level::Landlock,
            symlinks: vec![],
            workspace: None,
            tmp: None,
            cwd: folder.to_owned(),
            // All processes of the user count.
            limits: Limits { pids: 512, ..plan.spec.limits },
            ..plan.spec
        };
        plan.mount(folder, folder, true, false);
        plan
    }

    /// The loader and the libraries: a folder is mounted, a link stays one.
    fn base(&mut self) {
        for path in ["/usr", "/bin", "/sbin", "/lib", "/lib64"] {
            match rustix::fs::readlink(path, Vec::new()) {
                Ok(target) => {
                    let target = target.into_string().expect("UTF-8");
                    self.spec.symlinks.push(Symlink { path: path.to_owned(), target });
                }
                Err(Errno::INVAL) => self.mount(path, path, false, true),
                Err(Errno::NOENT) => {}
                Err(error) => panic!("{path}: {error}"),
            }
        }
    }

    pub(crate) fn input(&mut self, descriptor: OwnedFd) -> u32 {
        self.inputs.push(descriptor);
        self.spec.inputs += 1;
        self.spec.inputs - 1
    }

    pub(crate) fn mount(&mut self, from: &str, to: &str, write: bool, exec: bool) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let input = self.input(rustix::fs::openat(CWD, from, flags, Mode::empty()).expect("it is there"));
        self.spec.mounts.push(Mount { input, path: to.to_owned(), write, exec });
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let input = self.input(holding(content));
        self.spec.files.push(SpecFile { input, path: path.to_owned(), mode });
    }

    /// Starts it, up to the point where it waits for its release.
    pub(crate) fn start(self, who: As) -> Jail {
        StandsBy::launch(who, |stands| self.start_by(stands).expect("it stands by"))
    }

    /// The same, by one launcher; `None` if that is gone.
    pub(crate) fn start_by(self, stands: &StandsBy) -> Option<Jail> {
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
            let (ours, theirs) = pair.expect("a socket pair");
            set_socket_timeout(&ours, Timeout::Recv, Some(HUNG)).expect("a timeout");
            (ours, theirs)
        };
        let ((status, status_end), (result, result_end)) = (pair(), pair());
        let (stdout, stderr) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
        let handed = Handed {
            status: status_end,
            spec: holding(&self.spec.encode().expect("a right spec")),
            result: result_end,
            stdin: self.stdin.unwrap_or_else(|| File::open("/dev/null").expect("it is there").into()),
            inputs: self.inputs,
        };
        let child = stands.standing.launch(&handed, stdout.as_fd(), stderr.as_fd()).expect("it answers")?;
        let (workspace, listener, pid1, records) = (None, None, None, vec![]);
        Some(Jail { child, status, result, stdout, stderr, workspace, listener, pid1, records })
    }

    /// Runs it from beginning to end.
    pub(crate) fn run(self, who: As) -> Ended {
        let mut jail = self.start(who);
        jail.release();
        jail.end()
    }
}

/// A sealed file in memory.
pub(crate) fn holding(content: &[u8]) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("input", flags).expect("a memfd"));
    file.write_all(content).expect("room");
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK).expect("seals");
    file.into()
}

/// The launcher in a sealed memfd, made once.
pub(crate) fn launcher() -> &'static OwnedFd {
    static LAUNCHER: OnceLock<OwnedFd> = OnceLock::new();
    LAUNCHER.get_or_init(|| holding(&std::fs::read(env!("CARGO_BIN_EXE_toka-jail")).expect("the launcher is built")))
}

/// A launcher that stands by.
#[derive(Debug)]
pub(crate) struct StandsBy {
    pub(crate) process: Child,
    pub(crate) standing: Standing,
}

thread_local! {
    /// One for each user. It dies with the thread that started it, so each test has its own.
    static STAND_BY: RefCell<BTreeMap<As, StandsBy>> = const { RefCell::new(BTreeMap::new()) };
}

impl StandsBy {
    pub(crate) fn start(who: As) -> StandsBy {
        let (standing, stdin) = Standing::pair().expect("a socket pair");
        let mut command = Command::new(format!("/proc/self/fd/{}", launcher().as_raw_fd()));
        command.arg0("toka-jail").env_clear().stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        if who == As::Nobody {
            command.uid(65_534).gid(65_534);
        }
        StandsBy { process: command.spawn().expect("the launcher starts"), standing }
    }

    /// Asks the one of this thread, which is the same for all calls of a test.
    fn launch<T>(who: As, ask: impl FnOnce(&StandsBy) -> T) -> T {
        STAND_BY.with_borrow_mut(|stand_by| ask(stand_by.entry(who).or_insert_with(|| StandsBy::start(who))))
    }

    /// The process that stands by for this thread.
    pub(crate) fn id(who: As) -> u32 {
        StandsBy::launch(who, |stands| stands.process.id())
    }
}

impl Drop for StandsBy {
    fn drop(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
    }
}

/// A launcher at work.
#[derive(Debug)]
pub(crate) struct Jail {
    pub(crate) child: Launched,
    pub(crate) status: OwnedFd,
    result: OwnedFd,
    stdout: File,
    stderr: File,
    pub(crate) workspace: Option<OwnedFd>,
    pub(crate) listener: Option<OwnedFd>,
    /// Whom to kill.
    pub(crate) pid1: Option<OwnedFd>,
    records: Vec<Record>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The raw wait status of the program.
    pub(crate) wait: Option<i32>,
    pub(crate) failed: Option<Fault>,
    pub(crate) layers: u32,
    pub(crate) landlock_abi: u32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) workspace: Option<OwnedFd>,
}

impl Jail {
    /// The next record with its descriptors; none after the last.
    pub(crate) fn record(&mut self) -> Option<(Record, Vec<OwnedFd>)> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let message = rustix::net::recvmsg(&self.status, into, &mut control, RecvFlags::CMSG_CLOEXEC);
        let message = match message {
            Ok(message) if message.bytes > 0 => message,
            Ok(_) | Err(Errno::CONNRESET) => return None,
            Err(error) => panic!("no record in {HUNG:?}: {error}"),
        };
        let mut descriptors = vec![];
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        let record = Record::decode(&bytes[..message.bytes]).expect("a record");
        self.records.push(record);
        Some((record, descriptors))
    }

    pub(crate) fn go(&self) {
        rustix::net::send(&self.status, GO, SendFlags::NOSIGNAL).expect("the launcher listens");
    }

    /// Waits until the jail stands: `/workspace` and the listener are here, nothing runs. False if it does not.
    pub(crate) fn ready(&mut self) -> bool {
        while let Some((record, descriptors)) = self.record() {
            match record {
                Record::MapsWanted => {
                    let pid = self.child.id();
                    for map in ["gid_map", "uid_map"] {
                        std::fs::write(format!("/proc/{pid}/{map}"), "1000 70002 1").expect("root writes maps");
                    }
                    self.go();
                }
                Record::Ready => {
                    let mut descriptors = descriptors.into_iter();
                    (self.workspace, self.listener) = (descriptors.next(), descriptors.next());
                    return true;
                }
                Record::Failed(_) => return false,
                Record::Released | Record::Confined { .. } => panic!("too early: {record:?}"),
            }
        }
        false
    }

    /// Waits for the jail, lets the program run, and comes back when it does (or never will).
    pub(crate) fn release(&mut self) {
        if !self.ready() {
            return;
        }
        self.go();
        while let Some((record, descriptors)) = self.record() {
            if record == Record::Released {
                self.pid1 = descriptors.into_iter().next();
            }
        }
    }

    /// Sends a signal to whom [`Record::Released`] named.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid1 = self.pid1.as_ref().expect("it was released");
        rustix::process::pidfd_send_signal(pid1, signal).expect("it is there");
    }

    /// Waits for the end of the program and of the launcher.
    pub(crate) fn end(mut self) -> Ended {
        let mut raw = [0; 8];
        let wait = match rustix::net::recv(&self.result, &mut raw[..], RecvFlags::empty()) {
            Ok((4, _)) => raw[..4].try_into().ok().map(i32::from_le_bytes),
            Ok(_) | Err(Errno::CONNRESET) => None,
            Err(error) => {
                self.child.kill();
                panic!("no result in {HUNG:?}: {error}; {}", read(&mut self.stderr));
            }
        };
        self.child.wait().expect("it is ours");
        let failed =
            self.records.iter().find_map(|record| if let Record::Failed(it) = record { Some(*it) } else { None });
        let (layers, landlock_abi) = match self.records.last() {
            Some(Record::Confined { layers, landlock_abi }) => (*layers, *landlock_abi),
            _ => (0, 0),
        };
        let (stdout, stderr) = (read(&mut self.stdout), read(&mut self.stderr));
        Ended { wait, failed, layers, landlock_abi, stdout, stderr, workspace: self.workspace }
    }
}

fn read(file: &mut File) -> String {
    let mut bytes = vec![];
    file.rewind().expect("a file");
    file.read_to_end(&mut bytes).expect("a file");
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Ended {
    /// That it ran and exited with 0.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Ended {
        assert_eq!((self.failed, self.wait), (None, Some(0)), "{self:#?}\n{}", self.stderr);
        self
    }
}
