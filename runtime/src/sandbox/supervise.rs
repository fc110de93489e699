//! One program from its start to its end: its streams, its time, its memory, and its death.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use toka_jail::spec::{Level, Spec};
use toka_jail::standing::Launched;
use toka_jail::status::{Fault, GO, RECORD_BYTES_MAX, Record};

use super::capture::{Capture, Captured};
use super::placeholder::Placeholder;
use super::plan::Disk;
use super::redact::Forms;
use super::spawn::{Handed, Launcher, sealed};

/// A jail that does not stand after this long never will.
const SETUP_MAX: Duration = Duration::from_secs(30);
/// What a killed program gets to be gone.
const REAP_MAX: Duration = Duration::from_secs(2);
/// How long streams are read after the end of the program, whoever still holds them.
const DRAIN_MAX: Duration = Duration::from_millis(250);
/// How often cancellation, memory and processor time are looked at.
const TICK: Duration = Duration::from_millis(25);
/// How long after a look at a directory on a disk comes the next.
const DISK_TICK: Duration = Duration::from_millis(100);

/// What is to run, and how far it may go.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Spec,
    pub(super) inputs: Vec<OwnedFd>,
    pub(super) stdin: Stdin,
    /// Bytes of standard output and of standard error that are kept.
    pub(super) kept: [u64; 2],
    /// Bytes of both streams after which the program is ended.
    pub(super) output_max: u64,
    /// Bytes of resident memory of all its processes.
    pub(super) memory_max: u64,
    /// Processor time of all its processes, in µs.
    pub(super) cpu_max: u64,
    /// When its time is over.
    pub(super) until: Instant,
    /// Between being asked to end and being killed.
    pub(super) grace: Duration,
    /// What its output must not hold.
    pub(super) secrets: Option<Arc<Forms>>,
    /// Whether its workspace is looked at after its end.
    pub(super) keeps_files: bool,
    /// What is in place until its end, for masks to lie over.
    pub(super) placeholders: Vec<Placeholder>,
    /// Its directory on a disk, if it has one.
    pub(super) disk: Option<Disk>,
}

/// What a program finds as its standard input.
#[derive(Debug)]
pub(super) enum Stdin {
    /// These bytes, and then the end.
    Bytes(Vec<u8>),
    /// What somebody made for it.
    Made(OwnedFd),
}

/// How a program ended, and what was seen of it.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    /// Layers and Landlock ABI, as the launcher told when all of them held.
    pub(super) confined: Option<(u32, u32)>,
    /// Processor time of all its processes, in µs, as precise as the clock tick.
    pub(super) cpu_us: u64,
    /// The largest sum of resident memory that was seen.
    pub(super) rss_bytes: u64,
    /// Its workspace, if files of it are kept and nothing of its jail lives any more.
    pub(super) workspace: Option<OwnedFd>,
    /// Its directory on a disk, which goes with this value.
    _disk: Option<Disk>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The jail could not be made; nothing ran.
    NotConfined(Fault),
    /// The launcher could not be started, or fell silent before the program ran.
    NotStarted(i32),
    /// The raw status of wait(2).
    Status(i32),
    /// Ended by the supervisor.
    Stopped(Reason),
    /// Killed, and not gone in time.
    Unreaped,
    /// The end of its jail came without a word about the program.
    Lost,
}

/// Why the supervisor ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its call was cancelled.
    Cancelled,
    /// Its time was over.
    Time,
    /// It wrote too much.
    Output,
    /// It took too much memory.
    Memory,
    /// It took too much processor time.
    Cpu,
    /// It put too much into its workspace on a disk.
    Workspace,
}

/// Runs `job` to its end.
pub(super) fn supervise(launcher: &Launcher, mut job: Job, stop: &AtomicBool) -> Ran {
    let (until, kept) = (job.until, job.kept);
    // Until nothing of the jail lives any more.
    let _placeholders = std::mem::take(&mut job.placeholders);
    match Watched::start(launcher, job) {
        Ok(mut watched) => {
            watched.watch(until, stop);
            watched.finish()
        }
        Err(error) => Ran {
            end: End::NotStarted(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())),
            stdout: Capture::new(kept[0], None).end(),
            stderr: Capture::new(kept[1], None).end(),
            confined: None,
            cpu_us: 0,
            rss_bytes: 0,
            workspace: None,
            _disk: None,
        },
    }
}

/// How far a jail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The launcher is at work, until then.
    Setup(Instant),
    /// The program runs.
    Running,
    /// It was asked to end, and is killed then.
    Asked(Instant),
    /// It was killed, and is given up then.
    Killed(Instant),
    /// It has ended.
    Over,
}

struct Watched {
    child: Launched,
    level: Level,
    status: Option<OwnedFd>,
    result: Option<OwnedFd>,
    stdin: Option<(OwnedFd, Vec<u8>, usize)>,
    outputs: [(Option<OwnedFd>, Capture); 2],
    pid1: Option<OwnedFd>,
    confined: Option<(u32, u32)>,
    stage: Stage,
    reason: Option<Reason>,
    told: Option<End>,
    output_max: u64,
    memory_max: u64,
    cpu_max: u64,
    rss_bytes: u64,
    grace: Duration,
    keeps_files: bool,
    workspace: Option<OwnedFd>,
    disk: Option<Disk>,
    /// When its directory on a disk is looked at next.
    disk_due: Instant,
}

impl Watched {
    fn start(launcher: &Launcher, job: Job) -> io::Result<Watched> {
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        };
        let ((status, status_end), (result, result_end)) = (pair()?, pair()?);
        let (stdin_end, stdin) = match job.stdin {
            Stdin::Made(made) => (made, None),
            Stdin::Bytes(bytes) => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&write, true)?;
                (read, Some((write, bytes, 0)))
            }
        };
        let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&status, &result, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let spec = job.spec.encode().map_err(|fault| io::Error::other(format!("{fault:?}")))?;
        let child = launcher.start(Handed {
            status: status_end,
            spec: sealed(&spec, false)?,
            result: result_end,
            inputs: job.inputs,
            stdin: stdin_end,
            stdout: stdout_end,
            stderr: stderr_end,
        })?;
        let capture = |which: usize| Capture::new(job.kept[which], job.secrets.clone());
        Ok(Watched {
            child,
            level: job.spec.level,
            status: Some(status),
            result: Some(result),
            stdin,
            outputs: [(Some(stdout), capture(0)), (Some(stderr), capture(1))],
            pid1: None,
            confined: None,
            stage: Stage::Setup(Instant::now() + SETUP_MAX),
            reason: None,
            told: None,
            output_max: job.output_max,
            memory_max: job.memory_max,
            cpu_max: job.cpu_max,
            rss_bytes: 0,
            grace: job.grace,
            keeps_files: job.keeps_files,
            workspace: None,
            disk: job.disk,
            disk_due: Instant::now(),
        })
    }

    /// Follows the program until it has ended and its streams are read.
    fn watch(&mut self, until: Instant, stop: &AtomicBool) {
        let mut tick = Instant::now();
        let mut drained = None;
        loop {
            let now = Instant::now();
            if self.stage == Stage::Over {
                let drain_until = *drained.get_or_insert(now + DRAIN_MAX);
                if now >= drain_until || self.outputs.iter().all(|(stream, _)| stream.is_none()) {
                    return;
                }
            } else if now >= tick {
                tick = now + TICK;
                self.look(now, until, stop);
            }
            self.wait(TICK);
        }
    }

    /// Looks at what no descriptor tells: cancellation, time, memory, processor time.
    fn look(&mut self, now: Instant, until: Instant, stop: &AtomicBool) {
        if matches!(self.stage, Stage::Setup(_) | Stage::Running) {
            if stop.load(Ordering::Relaxed) {
                self.end(Reason::Cancelled, self.grace);
            } else if now >= until {
                self.end(Reason::Time, self.grace);
            }
        }
        match self.stage {
            Stage::Running | Stage::Asked(_) => {
                let used = used(self.child.id(), self.memory_max);
                self.rss_bytes = self.rss_bytes.max(used.rss_bytes);
                if used.rss_bytes > self.memory_max {
                    self.end(Reason::Memory, Duration::ZERO);
                } else if used.cpu_us >= self.cpu_max {
                    self.end(Reason::Cpu, Duration::ZERO);
                } else if now >= self.disk_due && self.disk.as_ref().is_some_and(Disk::is_over) {
                    self.end(Reason::Workspace, Duration::ZERO);
                }
                if now >= self.disk_due {
                    self.disk_due = Instant::now() + DISK_TICK;
                }
            }
            Stage::Setup(_) | Stage::Killed(_) | Stage::Over => {}
        }
        match self.stage {
            Stage::Setup(latest) if now >= latest => {
                self.told.get_or_insert(End::NotStarted(Errno::TIMEDOUT.raw_os_error()));
                self.kill();
            }
            Stage::Asked(latest) if now >= latest => self.kill(),
            Stage::Killed(latest) if now >= latest => {
                self.told = Some(End::Unreaped);
                self.stage = Stage::Over;
            }
            Stage::Setup(_) | Stage::Running | Stage::Asked(_) | Stage::Killed(_) | Stage::Over => {}
        }
    }

    /// Ends the program for a reason of ours: asks, and kills after `grace`.
    fn end(&mut self, reason: Reason, grace: Duration) {
        // Also of one that has just ended: what is read then may be more than it was allowed to write.
        self.reason.get_or_insert(reason);
        if matches!(self.stage, Stage::Killed(_) | Stage::Over) {
            return;
        }
        let asked = self.pid1.as_ref().filter(|_| !grace.is_zero());
        match asked.map(|pid1| rustix::process::pidfd_send_signal(pid1, Signal::TERM)) {
            Some(Ok(())) => self.stage = Stage::Asked(Instant::now() + grace),
            Some(Err(_)) | None => self.kill(),
        }
    }

    fn kill(&mut self) {
        if let Some(pid1) = &self.pid1 {
            // Everything in a strong jail dies with its pid 1; at the other level the launcher hunts its descendants.
            let signal = if self.level == Level::Strong { Signal::KILL } else { Signal::QUIT };
            let _gone = rustix::process::pidfd_send_signal(pid1, signal);
        } else {
            self.child.kill();
        }
        self.stage = Stage::Killed(Instant::now() + REAP_MAX);
    }

    /// Waits for a descriptor to have something, and takes it.
    fn wait(&mut self, most: Duration) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(most.subsec_nanos()) };
        let mut ready = [false; 5];
        {
            let stdin = self.stdin.as_ref().map(|(fd, ..)| (fd.as_fd(), PollFlags::OUT));
            let asked: [Option<(BorrowedFd<'_>, PollFlags)>; 5] = [
                readable(self.status.as_ref()),
                readable(self.result.as_ref()),
                readable(self.outputs[0].0.as_ref()),
                readable(self.outputs[1].0.as_ref()),
                stdin,
            ];
            let (places, mut fds): (Vec<usize>, Vec<PollFd<'_>>) = asked
                .iter()
                .enumerate()
                .filter_map(|(place, asked)| asked.map(|(fd, flags)| (place, PollFd::from_borrowed_fd(fd, flags))))
                .unzip();
            // A signal ends the wait early, and that is all it does.
            if poll(&mut fds, Some(&timeout)).is_ok() {
                for (place, fd) in places.into_iter().zip(&fds) {
                    ready[place] = !fd.revents().is_empty();
                }
            }
        }
        if ready[0] {
            self.take_record();
        }
        if ready[2] {
            self.take_output(0);
        }
        if ready[3] {
            self.take_output(1);
        }
        if ready[4] {
            self.give_input();
        }
        if ready[1] {
            self.take_result();
        }
    }

    fn take_record(&mut self) {
        let Some(status) = &self.status else { return };
        let mut bytes = [0; RECORD_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = rustix::net::recvmsg(status, into, &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = match received {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(message) => message.bytes,
            Err(_) => 0,
        };
        let mut descriptors = control
            .drain()
            .filter_map(|part| if let RecvAncillaryMessage::ScmRights(rights) = part { Some(rights) } else { None });
        let first = descriptors.next().and_then(|mut rights| rights.next());
        match Record::decode(&bytes[..count]) {
            // Nothing is placed there; what is not wanted afterwards is closed at once.
            Ok(Record::Ready) => {
                self.workspace = first.filter(|_| self.keeps_files);
                let _listens = rustix::net::send(status, GO, SendFlags::NOSIGNAL);
            }
            Ok(Record::Released) => self.pid1 = first,
            Ok(Record::Confined { layers, landlock_abi }) => self.confined = Some((layers, landlock_abi)),
            Ok(Record::Failed(fault)) => self.told = Some(End::NotConfined(fault)),
            // No spec of ours asks for maps.
            Ok(Record::MapsWanted) => self.kill(),
            Err(_) => {
                self.status = None;
                if matches!(self.stage, Stage::Setup(_)) && self.confined.is_some() {
                    self.stage = Stage::Running;
                }
            }
        }
    }

    fn take_output(&mut self, which: usize) {
        let mut bytes = [0; 64 << 10];
        let (stream, capture) = &mut self.outputs[which];
        let Some(fd) = stream else { return };
        match rustix::io::read(&*fd, &mut bytes[..]) {
            Ok(0) => *stream = None,
            Ok(count) => capture.take(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => *stream = None,
        }
        if self.outputs.iter().map(|(_, capture)| capture.came()).sum::<u64>() > self.output_max {
            // A dying program writes on for as long as somebody reads.
            for (stream, _) in &mut self.outputs {
                *stream = None;
            }
            self.end(Reason::Output, Duration::ZERO);
        }
    }

    fn give_input(&mut self) {
        let Some((fd, bytes, at)) = &mut self.stdin else { return };
        match rustix::io::write(&*fd, &bytes[*at..]) {
            Ok(count) => *at += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A program need not read what it is given.
            Err(_) => *at = bytes.len(),
        }
        if *at == bytes.len() {
            self.stdin = None;
        }
    }

    fn take_result(&mut self) {
        let Some(result) = &self.result else { return };
        let mut raw = [0; 8];
        let end = match rustix::net::recv(result, &mut raw[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((4, _)) => End::Status(i32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])),
            Ok(_) | Err(_) => End::Lost,
        };
        // What the launcher said last may still lie in the other socket.
        while self.status.is_some() {
            let before = (self.told, self.confined, self.pid1.is_some(), self.status.is_some());
            self.take_record();
            if before == (self.told, self.confined, self.pid1.is_some(), self.status.is_some()) {
                break;
            }
        }
        self.result = None;
        self.told.get_or_insert(end);
        self.stage = Stage::Over;
    }

    /// Reaps the launcher and says how it was.
    fn finish(mut self) -> Ran {
        let mut cpu_us = 0;
        if self.told != Some(End::Unreaped) {
            cpu_us = self.reap();
        }
        // What came after the last look counts as well.
        if matches!(self.told, Some(End::Status(_))) && self.disk.as_ref().is_some_and(Disk::is_over) {
            self.reason.get_or_insert(Reason::Workspace);
        }
        let end = match (self.told, self.reason) {
            (Some(End::Unreaped), _) => End::Unreaped,
            (Some(End::NotConfined(fault)), None) => End::NotConfined(fault),
            (_, Some(reason)) => End::Stopped(reason),
            (Some(End::Lost), None) if self.confined.is_none() => End::NotStarted(Errno::CONNRESET.raw_os_error()),
            (Some(end), None) => end,
            (None, None) => End::Lost,
        };
        let [(_, stdout), (_, stderr)] = self.outputs;
        if let Some(disk) = self.disk.take_if(|_| end == End::Unreaped) {
            disk.dir.abandon();
        }
        let of_disk = self.disk.as_ref().and_then(|disk| disk.workspace.try_clone().ok());
        Ran {
            end,
            stdout: stdout.end(),
            stderr: stderr.end(),
            confined: self.confined,
            cpu_us,
            rss_bytes: self.rss_bytes,
            // The launcher is reaped, and it ends after everything in its jail. What was stopped has left half a thing.
            workspace: of_disk.or(self.workspace).filter(|_| self.keeps_files && matches!(end, End::Status(_))),
            _disk: self.disk,
        }
    }

    /// Waits for the end of the launcher and takes the processor time of all it has waited for.
    fn reap(&mut self) -> u64 {
        let timeout = Timespec { tv_sec: REAP_MAX.as_secs() as i64, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.child, PollFlags::IN)], Some(&timeout)) == Ok(0) {
            self.child.kill();
            self.told = Some(End::Unreaped);
            return 0;
        }
        // It is a zombie until it is waited for, and its times can be read.
        let cpu_us = processor_time(self.child.id());
        let _reaped = self.child.wait();
        cpu_us
    }
}

fn readable(fd: Option<&OwnedFd>) -> Option<(BorrowedFd<'_>, PollFlags)> {
    fd.map(|fd| (fd.as_fd(), PollFlags::IN))
}

/// What a process and all its descendants use.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// Resident memory that is of no file.
    rss_bytes: u64,
    /// Processor time of those that live and of those that were waited for.
    cpu_us: u64,
}

/// What a process and all its descendants use now. Where the sum that counts a shared page in each process is beyond
/// `memory_max`, each page is counted once, which takes longer to find out.
fn used(pid: u32, memory_max: u64) -> Used {
    let pids = with_descendants(pid);
    let sum = |of: fn(u32) -> u64| pids.iter().map(|pid| of(*pid)).sum();
    let resident: u64 = sum(resident);
    let rss_bytes = if resident > memory_max { resident.min(sum(share)) } else { resident };
    Used { rss_bytes, cpu_us: sum(processor_time) }
}

/// A process and all its descendants.
fn with_descendants(pid: u32) -> Vec<u32> {
    let (mut found, mut due) = (Vec::new(), vec![pid]);
    while let Some(pid) = due.pop() {
        // More than the most processes a call may have, so a tree that grows as it is walked ends.
        if found.len() == 4_096 {
            break;
        }
        found.push(pid);
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            due.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Resident bytes of a process that are of no file (proc_pid_status(5)); a page that processes share counts in each.
fn resident(pid: u32) -> u64 {
    kibibytes(&format!("/proc/{pid}/status"), &["RssAnon:", "RssShmem:"]).unwrap_or(0)
}

/// As [`resident`], and of a page that so many processes share its so-many-th part (proc_pid_smaps(5)). All of it where
/// the system does not tell.
fn share(pid: u32) -> u64 {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), &["Pss_Anon:", "Pss_Shmem:"]).unwrap_or_else(|| resident(pid))
}

/// The sum of the lines of a file that begin with `names`, in bytes; `None` if none of them is there.
fn kibibytes(file: &str, names: &[&str]) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let number = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    text.lines().filter_map(number).map(|kib| kib << 10).reduce(|sum, bytes| sum + bytes)
}

/// The processor time of a process and of all it has waited for, in µs (proc(5), fields 14 to 17).
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}
