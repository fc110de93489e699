//! What confinement costs: a program in a full strong jail against the same program started plainly, from one run in
//! which both take turns. `cargo bench -p toka-benches -- jail guest flood kill` builds the programs it needs.
//!
//! Processor time is that of the whole tree: this process, which plays the supervisor, and everything it waited
//! for. The launcher that stands by is started by the first call of each slice and ended and waited for with the
//! slice, so what it takes from its start to its end is in there, spread over the calls of a slice.
//!
//! What the kernel does in threads of its own after a jail is gone, such as taking a network namespace apart, is in
//! nobody's time.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Signal;
use toka_benches::{Goal, SLICES, median, say};
use toka_jail::handing::Handed;
use toka_jail::spec::{File as SpecFile, Identity, Level, Limits, Mount, Net, Spec, Symlink, Tmpfs, VERSION};
use toka_jail::standing::{Launched, Standing};
use toka_jail::status::{GO, RECORD_BYTES_MAX, Record};
use toka_kernel::ids::Bytes;
use toka_tests::programs::program;
use toka_tools::SHIPPED;
use toka_wasm::Job;

fn main() {
    toka_benches::run(&[("jail", jail), ("guest", guest), ("flood", flood), ("kill", kill)]);
}

/// A program and what it is told.
type Line = &'static [&'static str];

const TRUE: Line = &["/bin/true"];
const PYTHON: Line = &["/usr/bin/python3", "-c", "pass"];
/// The same namespaces as the jail's and nothing else: what no jail can be cheaper than.
const NAMESPACES: Line = &[
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--net",
    "--ipc",
    "--uts",
    "--cgroup",
    "/bin/true",
];

fn jail() {
    let small = Image::of(&program("toka-jail"));
    let multi = Image::of(&program("toka"));
    let plain = || start_plainly(TRUE);
    let end = || [&small, &multi].into_iter().for_each(Image::end);
    let (cpu, wall) = compared(40, || small.run(TRUE), plain, end);
    say("CPU: `/bin/true` in a strong jail by toka-jail / plain spawn", Goal::AtMost(6.0), cpu);
    say("the same, wall, least of each", Goal::AtMost(12.0), wall);
    let (cpu, wall) = compared(40, || multi.run(TRUE), plain, end);
    say("CPU: `/bin/true` in a strong jail by toka / plain spawn", Goal::AtMost(6.0), cpu);
    say("the same, wall, least of each", Goal::AtMost(12.0), wall);
    let plain_python = || start_plainly(PYTHON);
    let (cpu, _) = compared(10, || small.run(PYTHON), plain_python, end);
    say("CPU: `python3 -c pass` in a strong jail by toka-jail / plain spawn", Goal::AtMost(1.5), cpu);
    let (cpu, _) = compared(10, || multi.run(PYTHON), plain_python, end);
    say("CPU: `python3 -c pass` in a strong jail by toka / plain spawn", Goal::AtMost(1.5), cpu);
    for (name, image) in [("toka-jail", &small), ("toka", &multi)] {
        let alone = || {
            image.run(TRUE);
            image.end();
        };
        let (cpu, _) = compared(20, alone, plain, end);
        say(&format!("CPU: one call of `/bin/true` and no other by {name} / plain spawn"), Goal::None, cpu);
    }
    if Command::new("unshare").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        let (cpu, wall) = compared(40, || start_plainly(NAMESPACES), plain, end);
        say("CPU: `/bin/true` by unshare(1) in the same namespaces, no more / plain spawn", Goal::None, cpu);
        say("the same, wall, least of each", Goal::None, wall);
        let (cpu, wall) = compared(40, || small.run(TRUE), || start_plainly(NAMESPACES), end);
        say("CPU: `/bin/true` in a strong jail by toka-jail / by unshare(1)", Goal::None, cpu);
        say("the same, wall, least of each", Goal::None, wall);
    } else {
        println!("unshare(1) is not on this machine: what namespaces alone cost was not measured");
    }
}

/// One worker for each call: its jail, its start, compilation and the call together.
fn guest() {
    let small = Image::of(&program("toka-jail"));
    let worker = loaded_part(&fs::read(program("toka-wasm")).expect("it is built"));
    let worker = sealed(&worker, MemfdFlags::EXEC);
    let shipped = SHIPPED.iter().find(|shipped| shipped.name == "release-hasher").expect("it is shipped");
    let hasher = shipped.files[0].1;
    // Nothing but a function that returns.
    let least: &[u8] =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    for (what, module) in [("the least guest", least), ("`release-hasher`", hasher)] {
        for (other, line) in [("`/bin/true`", TRUE), ("`python3 -c pass`", PYTHON)] {
            let guest = || small.run_guest(&worker, module);
            let (cpu, wall) = compared(20, guest, || small.run(line), || small.end());
            say(&format!("wall: {what} in a worker of its own / {other} in a strong jail"), Goal::AtMost(0.5), wall);
            say("the same, CPU", Goal::None, cpu);
        }
    }
}

/// What of a program is loaded, as the supervisor keeps it: without what is for debuggers.
fn loaded_part(program: &[u8]) -> Vec<u8> {
    let number = |at: usize, len: usize| {
        program[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|header| table + header * size).filter(|at| number(*at, 4) == 1);
    let end = headers.map(|at| number(at + 8, 8) + number(at + 32, 8)).max().expect("a program");
    program[..end].to_vec()
}

/// Runs both in turn, `times` of each in a slice, and `end` at its end: the ratio of all processor time, and that of the
/// shortest times.
///
/// The system tells the time of children in hundredths of a second, so that of one slice alone would be too coarse.
fn compared(times: usize, mut ours: impl FnMut(), mut theirs: impl FnMut(), end: impl Fn()) -> (f64, f64) {
    ours();
    theirs();
    end();
    let (mut cpu, mut wall) = ([0.0; 2], [f64::INFINITY; 2]);
    for _ in 0..SLICES {
        for (side, work) in [&mut ours as &mut dyn FnMut(), &mut theirs].into_iter().enumerate() {
            let before = tree_cpu();
            for _ in 0..times {
                let start = Instant::now();
                work();
                wall[side] = start.elapsed().as_secs_f64().min(wall[side]);
            }
            end();
            cpu[side] += tree_cpu() - before;
        }
    }
    (cpu[0] / cpu[1], wall[0] / wall[1])
}

/// Processor time of this thread and of all children that were waited for, in seconds.
fn tree_cpu() -> f64 {
    // proc(5): the time that this thread ran, in ns; fields 16 and 17 of the other, in clock ticks.
    let own = fs::read_to_string("/proc/thread-self/schedstat").expect("this kernel counts");
    let own: f64 = own.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number");
    let stat = fs::read_to_string("/proc/self/stat").expect("it is ours");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).map(|field| field.parse::<f64>().expect("a number")).sum();
    own / 1e9 + ticks / rustix::param::clock_ticks_per_second() as f64
}

fn start_plainly(line: Line) {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).env_clear().env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("it is there").success(), "{line:?}");
}

fn kill() {
    // Fifty processes in sessions of their own that take no request to end, and a line once they are.
    const CROWD: Line = &[
        "/usr/bin/python3",
        "-c",
        "import os, signal
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
print('here', flush=True)
signal.pause()",
    ];
    let image = Image::of(&program("toka-jail"));
    let mut times: Vec<f64> = (0..SLICES)
        .map(|_| {
            let (mut read, write) = std::io::pipe().expect("a pipe");
            let jail = image.start(CROWD, write.into());
            std::io::Read::read_exact(&mut read, &mut [0; 5]).expect("a crowd");
            let start = Instant::now();
            rustix::process::pidfd_send_signal(jail.pid1.as_ref().expect("released"), Signal::KILL).expect("there");
            // The launcher ends when pid 1 has, which waits for everybody in its namespace.
            jail.child.wait().expect("ours");
            start.elapsed().as_secs_f64() / 0.1
        })
        .collect();
    say("from the kill to the end of 50 processes in own sessions / 100 ms", Goal::AtMost(1.0), median(&mut times));
}

fn flood() {
    const MIB: f64 = 1024.0;
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let script = "import os\npiece = bytes(range(256)) * 16\nfor _ in range(12800):\n    for output in (1, 2):\n        \
                  rest = piece\n        while rest:\n            rest = rest[os.write(output, rest):]\n";
    fs::write(at("flood.py"), script).expect("a file");
    let manifest = "apiVersion: toka/v1\nkind: Tool\nmetadata: { name: flood, version: 1.0.0, description: Writes. }\n\
                    spec:\n  run: { kind: python, path: flood.py }\n  outputs: { result: none }\n  \
                    sandbox: { limits: { output_total_bytes: 128MiB } }\n";
    fs::write(at("flood.tool.yaml"), manifest).expect("a file");
    let toka = |args: &[&str]| {
        let mut command = Command::new(program("toka"));
        command.args(args).current_dir(dir.path()).env("TOKA_HOME", at("home"));
        // Nobody would read what it says to people, and it would wait for somebody who does.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("toka starts")
    };
    for args in [&["init", "--profile", "testing"][..], &["tools", "register", "flood.tool.yaml", "--approve"]] {
        let output = toka(args).wait_with_output().expect("toka runs");
        assert!(output.status.success(), "{args:?} does not work here");
    }
    let child = toka(&["tools", "call", "flood", "--json"]);
    let mut peak: f64 = 0.0;
    // It has no size once it has ended.
    while let Some(seen) = peak_kib(&child) {
        peak = peak.max(seen);
        std::thread::yield_now();
    }
    let output = child.wait_with_output().expect("toka runs");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["outcome"], "succeeded", "{told}");
    say("peak of the supervisor's memory as 100 MiB of output flow / 32 MiB", Goal::AtMost(1.0), peak / MIB / 32.0);
}

/// The largest resident size that a process has had, in KiB.
fn peak_kib(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// A launcher in a sealed memory file, as the supervisor keeps it, and the process that stands by.
struct Image {
    file: OwnedFd,
    standing: RefCell<Option<(Child, Standing)>>,
}

/// A launcher at work.
struct Jail {
    child: Launched,
    result: OwnedFd,
    pid1: Option<OwnedFd>,
}

impl Image {
    fn of(path: &Path) -> Image {
        let file = sealed(&fs::read(path).expect("it is built"), MemfdFlags::EXEC);
        Image { file, standing: RefCell::new(None) }
    }

    /// Starts the process that stands by.
    fn stand_by(&self) -> (Child, Standing) {
        let (standing, stdin) = Standing::pair().expect("a socket pair");
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0("toka-jail").env_clear().stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        (command.spawn().expect("the launcher starts"), standing)
    }

    /// Ends and waits for the process that stands by, if there is one.
    fn end(&self) {
        if let Some((mut child, standing)) = self.standing.take() {
            drop(standing);
            assert!(child.wait().expect("ours").success());
        }
    }

    /// Runs a program to its good end.
    fn run(&self, line: Line) {
        let null = File::options().write(true).open("/dev/null").expect("it is there");
        self.start(line, null.into()).ends_well(line[0]);
    }

    /// Runs a guest to its good end.
    fn run_guest(&self, worker: &OwnedFd, module: &[u8]) {
        let job = Job {
            argv: vec!["guest".to_owned(), "--".to_owned(), String::new()],
            stdin: Bytes(Vec::new()),
            params: Bytes(b"{}".to_vec()),
            envelope: vec!["tool:guest".to_owned()],
            seed: [7; 32],
            clock_us: 1,
            step_us: 1_000,
            fuel: 1_000_000_000,
            memory_bytes: 16 << 20,
            stack_bytes: 1 << 20,
            table_elements: 20_000,
            wall_us: 10_000_000,
            result_max: 1 << 20,
            output_max: 1 << 20,
        };
        let report: OwnedFd = rustix::fs::memfd_create("report", MemfdFlags::CLOEXEC).expect("room");
        let handed = toka_wasm::Handed {
            job: sealed(&job.encode().expect("small"), MemfdFlags::empty()),
            module: sealed(module, MemfdFlags::empty()),
            report: report.try_clone().expect("room"),
        };
        let (mut spec, _) = spec(TRUE);
        // A worker that is linked statically needs nothing in its root; another one would not start here.
        let inputs = vec![worker.try_clone().expect("room")];
        spec.mounts.clear();
        spec.symlinks.clear();
        spec.files.clear();
        (spec.inputs, spec.image, spec.tmp) = (1, Some(0), None);
        (spec.program, spec.argv, spec.env) = ("/toka-wasm".to_owned(), vec!["toka-wasm".to_owned()], vec![]);
        spec.workspace = Some(Tmpfs { bytes: 4_096, inodes: 2, exec: false });
        spec.limits.as_bytes = 3 << 30;
        let null = File::options().write(true).open("/dev/null").expect("it is there");
        let mut jail = self.start_spec(&spec, inputs, handed.into_stdin().expect("room"), null.into());
        jail.ends_well("a guest");
        let mut bytes = vec![];
        let mut report = File::from(report);
        std::io::Seek::rewind(&mut report).expect("a file");
        std::io::Read::read_to_end(&mut report, &mut bytes).expect("a file");
        assert_eq!(toka_wasm::Report::decode(&bytes).expect("a report").end, toka_wasm::End::Returned);
    }

    /// Starts a program, up to its `execve`.
    fn start(&self, line: Line, stdout: OwnedFd) -> Jail {
        let (spec, inputs) = spec(line);
        self.start_spec(&spec, inputs, File::open("/dev/null").expect("it is there").into(), stdout)
    }

    fn start_spec(&self, spec: &Spec, inputs: Vec<OwnedFd>, stdin: OwnedFd, stdout: OwnedFd) -> Jail {
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair")
        };
        let ((status, status_end), (result, result_end)) = (pair(), pair());
        let what = spec.program.clone();
        let spec = sealed(&spec.encode().expect("a right spec"), MemfdFlags::empty());
        let handed = Handed { status: status_end, spec, result: result_end, stdin, inputs };
        let mut standing = self.standing.borrow_mut();
        let (_, standing) = standing.get_or_insert_with(|| self.stand_by());
        let launched = standing.launch(&handed, stdout.as_fd(), std::io::stderr().as_fd());
        let child = launched.expect("it answers").expect("it stands by");
        drop((handed, stdout));
        let mut jail = Jail { child, result, pid1: None };
        while let Some((record, descriptor)) = next(&status) {
            match record {
                Record::Ready => drop(rustix::net::send(&status, GO, SendFlags::NOSIGNAL).expect("it listens")),
                Record::Released => jail.pid1 = descriptor,
                Record::Confined { .. } => {}
                Record::Failed(_) | Record::MapsWanted => panic!("{what}: {record:?}"),
            }
        }
        jail
    }
}

impl Jail {
    fn ends_well(&mut self, what: &str) {
        let mut raw = [0; 8];
        let (len, _) = rustix::net::recv(&self.result, &mut raw[..], RecvFlags::empty()).expect("a socket");
        assert_eq!((len, &raw[..4]), (4, &[0; 4][..]), "{what} did not end well");
        assert_eq!(self.child.wait().expect("ours").exit_status(), Some(0));
    }
}

/// The next record of a launcher, with its first descriptor; none after the last.
fn next(status: &OwnedFd) -> Option<(Record, Option<OwnedFd>)> {
    let mut bytes = [0; RECORD_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let message = match rustix::net::recvmsg(status, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) if message.bytes > 0 => message,
        Ok(_) | Err(Errno::CONNRESET) => return None,
        Err(error) => panic!("no record: {error}"),
    };
    let rights = control
        .drain()
        .filter_map(|part| if let RecvAncillaryMessage::ScmRights(rights) = part { Some(rights) } else { None });
    let first = rights.flatten().next();
    Some((Record::decode(&bytes[..message.bytes]).expect("a record"), first))
}

/// The spec that the supervisor makes for a program with no needs, and its inputs.
fn spec(line: Line) -> (Spec, Vec<OwnedFd>) {
    let (mut inputs, mut mounts, mut symlinks, mut files) = (vec![], vec![], vec![], vec![]);
    for path in ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"] {
        match rustix::fs::readlink(path, Vec::new()) {
            Ok(target) => {
                let target = target.into_string().expect("UTF-8");
                symlinks.push(Symlink { path: path.to_owned(), target });
            }
            Err(Errno::INVAL) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                inputs.push(rustix::fs::openat(CWD, path, flags, Mode::empty()).expect("it is there"));
                let input = inputs.len() as u32 - 1;
                mounts.push(Mount { input, path: path.to_owned(), write: false, exec: true });
            }
            Err(Errno::NOENT) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
    for path in ["/tool/main.py", "/run/params.json", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"] {
        inputs.push(sealed(b"as long as such files are, more or less\n", MemfdFlags::empty()));
        files.push(SpecFile { input: inputs.len() as u32 - 1, path: path.to_owned(), mode: 0o444 });
    }
    let variables = [
        ("HOME", "/workspace"),
        ("LANG", "C.UTF-8"),
        ("PATH", "/usr/bin:/bin"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("TMPDIR", "/tmp"),
        ("TZ", "UTC"),
    ];
    let spec = Spec {
        version: VERSION,
        supervisor: std::process::id(),
        level: Level::Strong,
        identity: Identity::Own,
        inputs: inputs.len() as u32,
        cgroups: vec![],
        memory_cgroup: false,
        mounts,
        symlinks,
        files,
        masks: vec![],
        workspace: Some(Tmpfs { bytes: 64 << 20, inodes: 4_096, exec: true }),
        tmp: Some(Tmpfs { bytes: 64 << 20, inodes: 4_096, exec: false }),
        shm: None,
        net: Net::None,
        program: line[0].to_owned(),
        image: None,
        argv: line.iter().map(|&arg| arg.to_owned()).collect(),
        env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        cwd: "/workspace".to_owned(),
        pass: vec![],
        limits: Limits { pids: 64, as_bytes: 512 << 20, cpu_s: 21, file_bytes: 64 << 20, open_files: 256 },
    };
    (spec, inputs)
}

/// A sealed file in memory.
fn sealed(content: &[u8], executable: MemfdFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("toka", flags | executable) {
        // Before Linux 6.3 every memory file is executable and the flag unknown.
        Err(Errno::INVAL) => rustix::fs::memfd_create("toka", flags),
        made => made,
    };
    let mut file = File::from(memfd.expect("a memory file"));
    file.write_all(content).expect("room");
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).expect("seals");
    file.into()
}
