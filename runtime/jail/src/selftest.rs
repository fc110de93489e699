//! `--self-test`: runs this very program as a canary in a jail, and reports what held.
//!
//! No layer is believed for being there. The canary tries one thing of each family that must be refused, and a few that
//! must work; it says one line for each: `name TAB ok` or `name TAB` and what came instead.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::exit;
use std::time::Duration;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Resource, Signal, WaitOptions, WaitStatus};
use serde_json::{Value, json};

use crate::handing::Handed;
use crate::launch;
use crate::spec::{self, Identity, Level, Limits, Mount, Net, Spec, Symlink, Tmpfs};
use crate::status::{Fault, GO, RECORD_BYTES_MAX, Record};
use crate::sys::{self, Plain};

/// The word that makes a program the canary.
pub(crate) const CANARY: &str = "--canary";

/// Exit code if the level cannot be had here.
const UNAVAILABLE: i32 = 9;
/// Exit code if something got through, or something harmless did not work.
const LEAKED: i32 = 1;
/// After this a canary counts as hung. It spends a second of processor time on purpose.
const HUNG: Duration = Duration::from_secs(60);

const PIDS: u64 = 16;
/// At `landlock` all processes of the user count.
const PIDS_OF_USER: u64 = 512;
const AS_BYTES: u64 = 1 << 30;
const OPEN_FILES: u64 = 32;
const FILE_BYTES: u64 = 4 << 20;
const WORKSPACE_BYTES: u64 = 1 << 20;
const SIGSYS: i32 = libc::SIGSYS;
const FAMILIES: u16 = 48;

/// Calls that must be refused in the jail, with numbers for arguments: null where a pointer belongs.
pub(crate) const PROBES: [(&str, i64, [i64; 3]); 24] = [
    ("unshare(user)", libc::SYS_unshare, [libc::CLONE_NEWUSER as i64, 0, 0]),
    ("unshare(mnt)", libc::SYS_unshare, [libc::CLONE_NEWNS as i64, 0, 0]),
    ("unshare(time)", libc::SYS_unshare, [libc::CLONE_NEWTIME as i64, 0, 0]),
    ("clone(user)", libc::SYS_clone, [libc::CLONE_NEWUSER as i64, 0, 0]),
    ("clone(pid)", libc::SYS_clone, [libc::CLONE_NEWPID as i64, 0, 0]),
    ("clone(net)", libc::SYS_clone, [libc::CLONE_NEWNET as i64, 0, 0]),
    ("clone3", libc::SYS_clone3, [0, 0, 0]),
    ("setns", libc::SYS_setns, [0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ("x32 getpid", 0x4000_0000 + 39, [0, 0, 0]),
    ("a call of a newer kernel", 4_000, [0, 0, 0]),
    ("mount", libc::SYS_mount, [0, 0, 0]),
    ("umount2", libc::SYS_umount2, [0, 0, 0]),
    ("fsopen", libc::SYS_fsopen, [0, 0, 0]),
    ("open_tree", libc::SYS_open_tree, [-100, 0, 0]),
    ("chroot", libc::SYS_chroot, [0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [0, -3, 0]),
    ("add_key", libc::SYS_add_key, [0, 0, 0]),
    ("bpf", libc::SYS_bpf, [0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0]),
    ("memfd_secret", libc::SYS_memfd_secret, [0, 0, 0]),
];

/// Runs the self-test and writes its report to standard output: one JSON object, see [`report`].
pub(crate) fn run(level: Level) -> ! {
    let (code, report) = match try_level(level) {
        Ok(ran) => {
            let held = !ran.steps.is_empty() && ran.is_whole && ran.steps.iter().all(|(_, found)| found == "ok");
            (
                if ran.failed.is_some() {
                    UNAVAILABLE
                } else if held {
                    0
                } else {
                    LEAKED
                },
                report(level, &ran),
            )
        }
        Err(error) => (UNAVAILABLE, json!({ "level": level, "ok": false, "error": error.to_string() })),
    };
    match writeln!(io::stdout(), "{report:#}") {
        Ok(()) => exit(code),
        Err(_) => exit(LEAKED),
    }
}

/// How a canary fared.
#[derive(Debug, Default)]
struct Ran {
    failed: Option<Fault>,
    layers: u32,
    landlock_abi: u32,
    steps: Vec<(String, String)>,
    /// Whether it got to its end.
    is_whole: bool,
}

/// ```json
/// { "level": "strong", "ok": true, "layers": 31211, "landlock_abi": 7, "failed": null,
///   "steps": [ { "name": "mount", "ok": true } ] }
/// ```
/// A step that is not ok has `found` as well; `failed` has `stage` and `errno` if the jail could not be made.
fn report(level: Level, ran: &Ran) -> Value {
    let step = |(name, found): &(String, String)| match found.as_str() {
        "ok" => json!({ "name": name, "ok": true }),
        found => json!({ "name": name, "ok": false, "found": found }),
    };
    let steps: Vec<Value> = ran.steps.iter().map(step).collect();
    let held = ran.failed.is_none() && ran.is_whole && ran.steps.iter().all(|(_, found)| found == "ok");
    json!({
        "level": level,
        "ok": held,
        "layers": ran.layers,
        "landlock_abi": ran.landlock_abi,
        "failed": ran.failed,
        "steps": steps,
    })
}

fn try_level(level: Level) -> io::Result<Ran> {
    let folder = match level {
        Level::Strong => None,
        Level::Landlock => Some(Folder::new()?),
    };
    let (spec, inputs) = plan(level, folder.as_ref())?;
    let bytes = spec.encode().map_err(|fault| io::Error::other(format!("{fault:?}")))?;
    let flags = SocketFlags::CLOEXEC;
    let (status, status_end) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let (result, result_end) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mut stdout = File::from(rustix::fs::memfd_create("stdout", MemfdFlags::CLOEXEC)?);
    let Some(launcher) = sys::fork()? else {
        let child = || -> io::Result<Handed> {
            rustix::stdio::dup2_stdout(&stdout)?;
            sys::signals(&[], true)?;
            let stdin = File::open("/dev/null")?.into();
            Ok(Handed { status: status_end, spec: holding(&bytes)?, result: result_end, stdin, inputs })
        };
        match child() {
            Ok(handed) => {
                // What the parent holds would keep the launcher's own ends open.
                drop((status, result, stdout));
                exit(launch::run(handed))
            }
            Err(_) => exit(crate::status::FAILED),
        }
    };
    drop((status_end, result_end, inputs));
    for socket in [&status, &result] {
        set_socket_timeout(socket, Timeout::Recv, Some(HUNG))?;
    }
    let mut ran = follow(&status)?;
    let mut wait = [0; 8];
    let ended = rustix::net::recv(&result, &mut wait[..], RecvFlags::empty());
    if ended.is_err() {
        rustix::process::kill_process(launcher, Signal::KILL)?;
    }
    wait_for(launcher)?;
    let mut text = String::new();
    stdout.rewind()?;
    stdout.read_to_string(&mut text)?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    ran.steps = lines.map(|(name, found)| (name.to_owned(), found.to_owned())).collect();
    ran.is_whole =
        wait[..4] == [0; 4] && ended == Ok((4, 4)) && ran.steps.last().is_some_and(|(name, _)| name == "end");
    Ok(ran)
}

/// Plays the supervisor until the status socket ends.
fn follow(status: &OwnedFd) -> io::Result<Ran> {
    let mut ran = Ran::default();
    loop {
        let mut bytes = [0; RECORD_BYTES_MAX];
        // The descriptors that come along are not wanted; what is not received is closed.
        let len = match rustix::net::recv(status, &mut bytes[..], RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(ran),
            Ok((len, _)) => len,
            Err(error) => return Err(error.into()),
        };
        match Record::decode(&bytes[..len])? {
            Record::Failed(fault) => ran.failed = Some(fault),
            Record::Ready => drop(rustix::net::send(status, GO, SendFlags::NOSIGNAL)?),
            Record::Confined { layers, landlock_abi } => (ran.layers, ran.landlock_abi) = (layers, landlock_abi),
            Record::Released => {}
            Record::MapsWanted => return Err(Errno::PROTO.into()),
        }
    }
}

/// A folder of the host for the canary at `landlock`.
struct Folder(String);

impl Folder {
    fn new() -> io::Result<Folder> {
        let name = format!("{}/toka-self-test-{}", std::env::temp_dir().display(), std::process::id());
        fs::create_dir(&name)?;
        let folder = Folder(name);
        // A launcher that is root becomes somebody else, who must be able to write here.
        fs::set_permissions(&folder.0, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _nothing_to_do_about_it = fs::remove_dir_all(&self.0);
    }
}

fn plan(level: Level, folder: Option<&Folder>) -> io::Result<(Spec, Vec<OwnedFd>)> {
    let own = fs::read("/proc/self/exe")?;
    // Both stand under a number, too: at `landlock` there is no place to put them.
    let mut inputs = vec![holding(&own)?, holding(&foreign())?];
    let mut mounts = vec![];
    let mut symlinks = vec![];
    for path in ["/usr", "/lib", "/lib64", "/nix/store"] {
        match rustix::fs::readlink(path, vec![]) {
            Ok(target) if level == Level::Strong => symlinks
                .push(Symlink { path: path.to_owned(), target: target.into_string().map_err(|_| Errno::INVAL)? }),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::INVAL) => {
                inputs.push(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
                let input = inputs.len() as u32 - 1;
                mounts.push(Mount { input, path: path.to_owned(), write: false, exec: true });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let is_strong = level == Level::Strong;
    let workspace = folder.map_or("/workspace", |folder| &folder.0);
    if folder.is_some() {
        inputs.push(rustix::fs::openat(CWD, workspace, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
        let input = inputs.len() as u32 - 1;
        mounts.push(Mount { input, path: workspace.to_owned(), write: true, exec: false });
    }
    let file = |input, path: &str| spec::File { input, path: path.to_owned(), mode: 0o555 };
    let (program, foreign) =
        if is_strong { ("/tool/canary", "/tool/foreign") } else { ("/proc/self/fd/3", "/proc/self/fd/4") };
    let supervisor = std::process::id();
    let spec = Spec {
        version: spec::VERSION,
        supervisor,
        level,
        identity: Identity::Own,
        inputs: inputs.len() as u32,
        cgroups: vec![],
        memory_cgroup: false,
        mounts,
        symlinks,
        files: if is_strong { vec![file(0, program), file(1, foreign)] } else { vec![] },
        masks: vec![],
        workspace: is_strong.then_some(Tmpfs { bytes: WORKSPACE_BYTES, inodes: 64, exec: false }),
        tmp: None,
        shm: None,
        net: Net::None,
        program: program.to_owned(),
        image: None,
        argv: ["toka-jail", CANARY, if is_strong { "strong" } else { "landlock" }, foreign]
            .map(str::to_owned)
            .into_iter()
            .chain([supervisor.to_string()])
            .collect(),
        env: vec![],
        cwd: workspace.to_owned(),
        pass: vec![0, 1],
        limits: Limits {
            pids: if is_strong { PIDS } else { PIDS_OF_USER },
            as_bytes: AS_BYTES,
            cpu_s: 1,
            file_bytes: FILE_BYTES,
            open_files: OPEN_FILES,
        },
    };
    Ok((spec, inputs))
}

fn holding(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// A program that makes a system call by way of `int 0x80`, the ABI of i386, and exits with 0 if it lives: an ELF file
/// of one segment (elf(5)).
fn foreign() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov eax, 20; int 0x80; xor edi, edi; mov eax, 60; syscall
    const CODE: &[u8] = b"\xb8\x14\0\0\0\xcd\x80\x31\xff\xb8\x3c\0\0\0\x0f\x05";
    let size = HEADERS + CODE.len() as u64;
    let head =
        [(2, 2), (62, 2), (1, 4), (BASE + HEADERS, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2), (0, 6)];
    let segment = [(1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8), (0x1000, 8)];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for (value, len) in head.into_iter().chain(segment) {
        file.extend_from_slice(&u64::to_le_bytes(value)[..len]);
    }
    file.extend_from_slice(CODE);
    file
}

/// Is the canary: `args` are the level, the path of [`foreign`] and the pid of the supervisor.
pub(crate) fn canary(args: &[OsString]) -> ! {
    let [level, foreign, supervisor] = args else { exit(LEAKED) };
    let (Some(foreign), Some(supervisor)) = (foreign.to_str(), supervisor.to_str()) else { exit(LEAKED) };
    let mut canary = Canary { is_strong: level == "strong", said: String::new() };
    let done = canary.tries(foreign, supervisor).and_then(|()| io::stdout().write_all(canary.said.as_bytes()));
    exit(if done.is_ok() { 0 } else { LEAKED })
}

struct Canary {
    is_strong: bool,
    said: String,
}

impl Canary {
    fn says(&mut self, name: &str, found: &str) {
        self.said.push_str(name);
        self.said.push('\t');
        self.said.push_str(found);
        self.said.push('\n');
    }

    /// An attempt that must fail with one of `errors`.
    fn refused<T>(&mut self, name: &str, errors: &[Errno], attempt: io::Result<T>) {
        match attempt {
            Ok(_) => self.says(name, "it worked"),
            Err(error) if Errno::from_io_error(&error).is_some_and(|errno| errors.contains(&errno)) => {
                self.says(name, "ok");
            }
            Err(error) => self.says(name, &error.to_string()),
        }
    }

    /// Something that must work.
    fn works<T>(&mut self, name: &str, attempt: io::Result<T>) {
        match attempt {
            Ok(_) => self.says(name, "ok"),
            Err(error) => self.says(name, &error.to_string()),
        }
    }

    fn tries(&mut self, foreign: &str, supervisor: &str) -> io::Result<()> {
        let hidden: &[Errno] = if self.is_strong { &[Errno::NOENT] } else { &[Errno::ACCESS] };
        let foreigner: &[Errno] = if self.is_strong { &[Errno::SRCH] } else { &[Errno::PERM] };
        self.works("a file of its own", fs::write("own", "text").and_then(|()| fs::read("own")));
        self.works("/dev/urandom", File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut [0; 16])));
        self.works("a thread", std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok()));
        let child = in_child(|| 7).map(|status| status.exit_status());
        self.says("a child", if matches!(child, Ok(Some(7))) { "ok" } else { "it did not run" });

        self.refused("files outside: read", hidden, fs::read("/etc/passwd"));
        self.refused("files outside: list", hidden, fs::read_dir("/root").or_else(|_| fs::read_dir("/var/lib")));
        let no_write = [Errno::ROFS, Errno::ACCESS];
        self.refused("files outside: write", &no_write, File::create("/usr/toka-canary"));
        self.refused("files outside: remove", &no_write, fs::remove_dir("/usr/bin"));
        self.refused("/proc: supervisor", hidden, fs::read(format!("/proc/{supervisor}/environ")));
        self.refused("/proc: pid 1", hidden, fs::read("/proc/1/environ"));
        self.refused("/proc: settings", hidden, fs::read("/proc/sys/kernel/ostype"));
        for family in 0..FAMILIES {
            let socket = rustix::net::socket(AddressFamily::from_raw(family), SocketType::STREAM, None);
            self.refused(&format!("sockets: family {family}"), &[Errno::PERM], socket.map_err(io::Error::from));
        }
        let flags = SocketFlags::empty();
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        self.refused("sockets: pair of datagrams", &[Errno::PERM], pair.map_err(io::Error::from));
        for (index, (name, _, _)) in PROBES.iter().enumerate() {
            self.refused(name, &[Errno::PERM, Errno::NOSYS], sys::plain(Plain::Probe(index)));
        }
        let killed = |status: io::Result<WaitStatus>, signal| match status {
            Ok(status) if status.terminating_signal() == Some(signal) => "ok".to_owned(),
            Ok(status) => format!("it ended with {:#x}", status.as_raw()),
            Err(error) => error.to_string(),
        };
        let foreign = CString::new(foreign)?;
        let called =
            in_child(|| sys::execve(None, &foreign, std::slice::from_ref(&foreign), &[]).raw_os_error().unwrap_or(1));
        self.says("foreign system call ABI", &killed(called, SIGSYS));
        if let Some(supervisor) = supervisor.parse().ok().and_then(Pid::from_raw) {
            let signal = rustix::process::test_kill_process(supervisor).map_err(io::Error::from);
            self.refused("signals: supervisor", foreigner, signal);
            let group = rustix::process::kill_process_group(supervisor, Signal::CONT).map_err(io::Error::from);
            self.refused("signals: its group", &[Errno::SRCH, Errno::PERM], group);
        }
        self.descriptors();
        self.limits(killed)?;
        self.says("end", "ok");
        Ok(())
    }

    fn descriptors(&mut self) {
        let mut leaked = vec![];
        // 3 and 4 were passed.
        for number in 5..1_024 {
            if let Ok(descriptor) = sys::inherited(number) {
                leaked.push(descriptor);
            }
        }
        let found = if leaked.is_empty() { "ok".to_owned() } else { format!("{leaked:?}") };
        self.says("descriptors", &found);
    }

    fn limits(&mut self, killed: impl Fn(io::Result<WaitStatus>, i32) -> String) -> io::Result<()> {
        let spun = in_child(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        self.says("limits: processor time", &killed(spun, Signal::KILL.as_raw()));
        let grown = in_child(|| i32::from(File::create("large").and_then(|file| file.set_len(1 << 40)).is_ok()));
        self.says("limits: file size", &killed(grown, libc::SIGXFSZ));
        let mut memory: Vec<u8> = Vec::new();
        let reserved = memory.try_reserve_exact(2 * AS_BYTES as usize).map_err(|_| Errno::NOMEM.into());
        self.refused("limits: address space", &[Errno::NOMEM], reserved);
        let mut files = vec![];
        let open = loop {
            match File::open("/dev/null") {
                Ok(file) if files.len() <= OPEN_FILES as usize => files.push(file),
                other => break other,
            }
        };
        self.refused("limits: open files", &[Errno::MFILE], open);
        drop(files);
        if self.is_strong {
            let mut file = File::create("fill")?;
            let filled = (0..=WORKSPACE_BYTES / 4_096).try_for_each(|_| file.write_all(&[1; 4_096]));
            self.refused("limits: workspace", &[Errno::NOSPC], filled);
        }
        for (name, resource) in [("core", Resource::Core), ("locked memory", Resource::Memlock)] {
            let limit = rustix::process::getrlimit(resource);
            let is_none = (limit.current, limit.maximum) == (Some(0), Some(0));
            self.says(&format!("limits: {name}"), if is_none { "ok" } else { "there is room" });
        }
        let bound = if self.is_strong { PIDS } else { PIDS_OF_USER };
        self.refused("limits: processes", &[Errno::AGAIN], bomb(bound));
        Ok(())
    }
}

/// Starts children until one cannot be, but no more than `bound`, and lets them end.
fn bomb(bound: u64) -> io::Result<()> {
    let (wait, end) = rustix::pipe::pipe()?;
    let mut children = vec![];
    let stopped = loop {
        if children.len() as u64 > bound {
            break Ok(());
        }
        match sys::fork() {
            Ok(Some(child)) => children.push(child),
            Ok(None) => {
                // Ends when the canary has let go of the other end, or is gone.
                drop(end);
                let _end = rustix::io::read(&wait, &mut [0; 1][..]);
                exit(0);
            }
            Err(error) => break Err(error),
        }
    };
    drop(end);
    for child in children {
        wait_for(child)?;
    }
    stopped
}

/// Runs `work` in a child and says how that ended.
fn in_child(work: impl FnOnce() -> i32) -> io::Result<WaitStatus> {
    match sys::fork()? {
        Some(child) => wait_for(child),
        None => exit(work()),
    }
}

fn wait_for(child: Pid) -> io::Result<WaitStatus> {
    let ended = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))?;
    ended.map(|(_, status)| status).ok_or_else(|| Errno::CHILD.into())
}
