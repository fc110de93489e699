//! The order of the steps. Each does what it must or ends the launcher.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};

use crate::filter::{self, Policy};
use crate::handing::Handed;
use crate::paths::{Allowed, Paths};
use crate::root::{self, Root};
use crate::spec::{Identity, Level, Net, SPEC_BYTES_MAX, Spec};
use crate::status::{At, FAILED, Fault, Record, Stage, layers, send, wait_go};
use crate::sys;

/// Who the program is inside of the jail.
const INSIDE: u32 = 1_000;
/// Whom root becomes when nobody says otherwise.
const NOBODY: u32 = 65_534;
/// Where the proxy of the supervisor listens, as the program sees it.
const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3_128);
/// Bytes that most specs fit into. Memory that is not touched need not be made for each call.
const SPEC_BYTES_MIN: usize = 8 * 1024;
/// Connections that wait to be accepted.
const PROXY_BACKLOG: i32 = 32;

/// Signals that whoever watches the program acts on. The others wait for ever.
const WATCHED: [i32; 3] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGQUIT];

/// Does all of it. Returns the exit code of whichever process comes back: the launcher, or a child of its.
pub(crate) fn run(handed: Handed) -> i32 {
    let Handed { status, spec, result, stdin, inputs } = handed;
    match launch(status.as_fd(), spec, result, stdin, inputs) {
        Ok(left) => {
            // The end of the status socket says that the program runs, so nobody else may hold it.
            drop(status);
            left.finish()
        }
        Err(fault) => {
            // A supervisor that is gone reads nothing; there is nobody else to tell.
            let _nobody_to_tell = send(status.as_fd(), &Record::Failed(fault), &[]);
            FAILED
        }
    }
}

/// What a process that is not the program has left to do.
#[derive(Debug)]
enum Left {
    /// The launcher at `strong`: be there while pid 1 is, which dies with it.
    Wait(Pid),
    /// Whoever started the program: reap, pass on signals, report.
    Watch { target: Pid, result: OwnedFd, level: Level },
}

impl Left {
    fn finish(self) -> i32 {
        // The pipes of the program end when it closes them, whoever else is left.
        let done = sys::close_range(0, 2, 0).and_then(|()| match self {
            Left::Wait(pid1) => wait_for(pid1),
            Left::Watch { target, result, level } => watch(target, result.as_fd(), level),
        });
        if done.is_ok() { 0 } else { FAILED }
    }
}

fn launch(
    status: BorrowedFd<'_>,
    spec: OwnedFd,
    result: OwnedFd,
    stdin: OwnedFd,
    inputs: Vec<OwnedFd>,
) -> Result<Left, Fault> {
    rustix::stdio::dup2_stdin(&stdin).at(Stage::Inherit)?;
    drop(stdin);
    let spec = read_spec(spec)?;
    if inputs.len() != spec.inputs as usize {
        return Err(Fault { stage: Stage::Inherit, errno: Errno::BADF.raw_os_error() });
    }
    // At `strong` the kernel looks: a process of several threads makes no user namespace (EINVAL in unshare(2)).
    if spec.level == Level::Landlock && fs::read_dir("/proc/self/task").at(Stage::Threads)?.count() != 1 {
        return Err(Fault { stage: Stage::Threads, errno: Errno::BUSY.raw_os_error() });
    }
    close_all_else(status, result.as_fd(), &inputs).at(Stage::Descriptors)?;
    for cgroup in &spec.cgroups {
        // cgroups(7): 0 is whoever writes.
        rustix::io::write(&inputs[*cgroup as usize], b"0").at(Stage::Cgroup)?;
    }
    rustix::process::setsid().at(Stage::Session)?;
    sys::signals(&[], false).at(Stage::Session)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let early = become_unprivileged(&spec, &inputs)?;
    let job = Job { spec: &spec, inputs, status };
    match spec.level {
        Level::Strong => {
            die_with_supervisor(&spec).at(Stage::Parent)?;
            job.strong(result, early)
        }
        Level::Landlock => job.landlock(result),
    }
}

fn read_spec(spec: OwnedFd) -> Result<Spec, Fault> {
    // A memfd shares its offset with whoever wrote it.
    let mut bytes = Vec::with_capacity(SPEC_BYTES_MIN);
    while bytes.len() <= SPEC_BYTES_MAX {
        let (at, room) = (bytes.len() as u64, bytes.capacity());
        if rustix::io::pread(&spec, rustix::buffer::spare_capacity(&mut bytes), at).at(Stage::Spec)? == 0 {
            break;
        }
        bytes.reserve(room);
    }
    Spec::decode(&bytes).map_err(|_| Fault { stage: Stage::Spec, errno: Errno::INVAL.raw_os_error() })
}

/// Closes everything but stdio and what is ours, which is closed on `execve`.
fn close_all_else(status: BorrowedFd<'_>, result: BorrowedFd<'_>, inputs: &[OwnedFd]) -> std::io::Result<()> {
    let mut ours: Vec<RawFd> = [status.as_raw_fd(), result.as_raw_fd()].to_vec();
    ours.extend(inputs.iter().map(AsRawFd::as_raw_fd));
    ours.sort_unstable();
    let mut next = 3;
    for number in ours {
        let number = number.unsigned_abs();
        if next < number {
            sys::close_range(next, number - 1, 0)?;
        }
        next = number + 1;
    }
    sys::close_range(next, u32::MAX, 0)?;
    sys::close_range(3, u32::MAX, sys::CLOSE_ON_EXEC)
}

/// Gives up being root of the host. What only root can do comes first: clones of the mounts.
fn become_unprivileged(spec: &Spec, inputs: &[OwnedFd]) -> Result<Vec<Option<OwnedFd>>, Fault> {
    let is_root = rustix::process::geteuid().is_root();
    let (uid, gid) = match spec.identity {
        Identity::Own if is_root => (NOBODY, NOBODY),
        Identity::Become { uid, gid } => (uid, gid),
        Identity::Own => return Ok(spec.mounts.iter().map(|_| None).collect()),
        Identity::Mapped => (0, 0),
    };
    if !is_root {
        return Err(Fault { stage: Stage::Identity, errno: Errno::PERM.raw_os_error() });
    }
    let mut early = Vec::new();
    for mount in &spec.mounts {
        early.push(match spec.level {
            Level::Strong => root::clone_early(inputs[mount.input as usize].as_fd()).at(Stage::Mount)?,
            Level::Landlock => None,
        });
    }
    rustix::thread::set_thread_groups(&[]).at(Stage::Identity)?;
    if spec.identity != Identity::Mapped {
        become_user(uid, gid).at(Stage::Identity)?;
    }
    Ok(early)
}

fn become_user(uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // The change made /proc/self root's (PR_SET_DUMPABLE in prctl(2)); the maps are written there.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// Asks for the signal that ends everything when the supervisor ends, and looks whether it already has. A change of
/// user clears the request (PR_SET_PDEATHSIG in prctl(2)), so this comes after each.
fn die_with_supervisor(spec: &Spec) -> Result<(), Errno> {
    let signal = match spec.level {
        Level::Strong => Signal::KILL,
        // The launcher has to live on until it has killed the others.
        Level::Landlock => Signal::QUIT,
    };
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(spec.supervisor) { Ok(()) } else { Err(Errno::SRCH) }
}

/// Asks for SIGKILL when the parent ends, which `parent` stands for, and looks whether it already has: getppid(2) says
/// 0 for a parent in another pid namespace.
fn die_with_parent(parent: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut ended = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ended, Some(&now))? == 0 { Ok(()) } else { Err(Errno::SRCH) }
}

/// A pidfd of the caller, for its children to know it by.
fn own_pidfd() -> Result<OwnedFd, Errno> {
    rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
}

struct Job<'a> {
    spec: &'a Spec,
    inputs: Vec<OwnedFd>,
    status: BorrowedFd<'a>,
}

impl Job<'_> {
    fn strong(self, result: OwnedFd, early: Vec<Option<OwnedFd>>) -> Result<Left, Fault> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let all = UnshareFlags::NEWUSER
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        sys::unshare(all).at(Stage::Unshare)?;
        self.maps(uid, gid)?;
        let listener = network(self.spec.net).at(Stage::Net)?;
        let root = Root::build(self.spec, &self.inputs, early)?;
        let mut handed_out = vec![root.workspace.as_fd()];
        handed_out.extend(listener.as_ref().map(AsFd::as_fd));
        send(self.status, &Record::Ready, &handed_out).at(Stage::Release)?;
        drop(listener);
        wait_go(self.status).at(Stage::Release)?;
        let launcher = own_pidfd().at(Stage::Fork)?;
        let Some(pid1) = sys::fork().at(Stage::Fork)? else { return self.go_on_as_pid1(result, root, launcher) };
        let pid1_fd = rustix::process::pidfd_open(pid1, PidfdFlags::empty()).at(Stage::Fork)?;
        send(self.status, &Record::Released, &[pid1_fd.as_fd()]).at(Stage::Fork)?;
        rustix::thread::set_capabilities(None, no_capabilities()).at(Stage::Capabilities)?;
        sys::signals(&WATCHED, false).at(Stage::Session)?;
        Ok(Left::Wait(pid1))
    }

    /// Sees to the maps of the user namespace: who we are outside is 1000 inside.
    fn maps(&self, uid: u32, gid: u32) -> Result<(), Fault> {
        match self.spec.identity {
            Identity::Own | Identity::Become { .. } => {
                // user_namespaces(7): without this an unprivileged process may map no group.
                fs::write("/proc/self/setgroups", "deny").at(Stage::Maps)?;
                fs::write("/proc/self/gid_map", format!("{INSIDE} {gid} 1")).at(Stage::Maps)?;
                fs::write("/proc/self/uid_map", format!("{INSIDE} {uid} 1")).at(Stage::Maps)?;
            }
            Identity::Mapped => {
                send(self.status, &Record::MapsWanted, &[]).at(Stage::Maps)?;
                wait_go(self.status).at(Stage::Maps)?;
                for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
                    let text = fs::read_to_string(map).at(Stage::Maps)?;
                    let fields: Vec<&str> = text.split_whitespace().collect();
                    let is_right = matches!(fields[..], ["1000", outside, "1"] if outside != "0");
                    if !is_right {
                        return Err(Fault { stage: Stage::Maps, errno: Errno::PERM.raw_os_error() });
                    }
                }
            }
        }
        become_user(INSIDE, INSIDE).at(Stage::Maps)?;
        die_with_supervisor(self.spec).at(Stage::Parent)
    }

    fn go_on_as_pid1(self, result: OwnedFd, root: Root, launcher: OwnedFd) -> Result<Left, Fault> {
        die_with_parent(launcher.as_fd()).at(Stage::Parent)?;
        // /proc/1 belongs to nobody inside and hides from all who may not trace it (hidepid in proc(5)).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Stage::Parent)?;
        let mut held = layers::NAMESPACES | layers::ROOT | layers::KEYRING;
        held |= if root.mount_proc().at(Stage::Proc)? { layers::PROC } else { layers::PROC_EMPTY };
        if !root.enter().at(Stage::Pivot)? {
            held |= layers::ROOT_BY_CHROOT;
        }
        drop(root);
        rustix::system::sethostname(b"toka").at(Stage::Hostname)?;
        sys::plain(sys::Plain::SessionKeyring).at(Stage::Keyring)?;
        rustix::thread::set_no_new_privs(true).at(Stage::NoNewPrivileges)?;
        let (by_landlock, abi) = self.paths(held).and_then(Paths::restrict).at(Stage::Landlock)?;
        // The launcher and pid 1 count, too.
        limits(self.spec, 2).at(Stage::Limits)?;
        drop_capabilities().at(Stage::Capabilities)?;
        self.start(result, held | by_landlock, abi)
    }

    fn landlock(self, result: OwnedFd) -> Result<Left, Fault> {
        send(self.status, &Record::Ready, &[]).at(Stage::Release)?;
        wait_go(self.status).at(Stage::Release)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Stage::Parent)?;
        let launcher = own_pidfd().at(Stage::Fork)?;
        send(self.status, &Record::Released, &[launcher.as_fd()]).at(Stage::Fork)?;
        drop_capabilities().at(Stage::Capabilities)?;
        // From here on the signal of a supervisor that ends is held until `watch` takes it.
        sys::signals(&WATCHED, false).at(Stage::Session)?;
        die_with_supervisor(self.spec).at(Stage::Parent)?;
        self.start(result, 0, 0)
    }

    /// The rules of Landlock in the new root.
    fn paths(&self, held: u32) -> Result<Paths, Errno> {
        let spec = self.spec;
        let read = Allowed { read: true, exec: false, write: false };
        let mut paths = Paths::new(spec.net, 2)?.allow_listing()?;
        for mount in &spec.mounts {
            let allowed = Allowed { read: true, exec: mount.exec, write: mount.write };
            paths = paths.allow_path(&mount.path, allowed)?;
        }
        for (path, tmpfs) in [("/tmp", spec.tmp), ("/workspace", spec.workspace), ("/dev/shm", spec.shm)] {
            if let Some(tmpfs) = tmpfs {
                paths = paths.allow_path(path, Allowed { read: true, exec: tmpfs.exec, write: true })?;
            }
        }
        for file in &spec.files {
            paths = paths.allow_path(&file.path, Allowed { exec: file.mode & 0o111 != 0, ..read })?;
        }
        for (name, _, _) in root::DEVICES {
            paths = paths.allow_path(&format!("/dev/{name}"), Allowed { write: true, ..read })?;
        }
        if held & layers::PROC != 0 { paths.allow_path("/proc", read) } else { Ok(paths) }
    }

    /// The rules of Landlock on the host: on what the supervisor opened, whatever its path says by now.
    fn host_paths(&self) -> Result<Paths, Errno> {
        let mut paths = Paths::new(self.spec.net, 4)?;
        for mount in &self.spec.mounts {
            let allowed = Allowed { read: true, exec: mount.exec, write: mount.write };
            paths = paths.allow(&self.inputs[mount.input as usize], allowed)?;
        }
        for (name, _, _) in root::DEVICES {
            let allowed = Allowed { read: true, exec: false, write: true };
            paths = paths.allow_path(&format!("/dev/{name}"), allowed)?;
        }
        Ok(paths)
    }

    /// Starts the program below the caller.
    fn start(self, result: OwnedFd, held: u32, abi: u32) -> Result<Left, Fault> {
        // Held before there is a child, so that no SIGCHLD comes too early to be seen.
        sys::signals(&WATCHED, false).at(Stage::Fork)?;
        let level = self.spec.level;
        let parent = own_pidfd().at(Stage::Fork)?;
        match sys::fork().at(Stage::Fork)? {
            Some(target) => Ok(Left::Watch { target, result, level }),
            None => {
                drop(result);
                match self.become_program(parent, held, abi)? {}
            }
        }
    }

    fn become_program(self, parent: OwnedFd, held: u32, abi: u32) -> Result<Infallible, Fault> {
        die_with_parent(parent.as_fd()).at(Stage::Parent)?;
        rustix::process::setsid().at(Stage::Session)?;
        sys::signals(&[], false).at(Stage::Session)?;
        let spec = self.spec;
        let (mut held, mut abi) = (held, abi);
        if spec.level == Level::Landlock {
            rustix::thread::set_no_new_privs(true).at(Stage::NoNewPrivileges)?;
            (held, abi) = self.host_paths().and_then(Paths::restrict).at(Stage::Landlock)?;
            limits(spec, 0).at(Stage::Limits)?;
        }
        let policy = Policy {
            net: spec.net,
            without_uncounted_memory: !spec.memory_cgroup,
            without_metadata: spec.level == Level::Landlock,
            signals_only_to: (spec.level == Level::Landlock && held & layers::LANDLOCK_SCOPE == 0)
                .then(|| rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()),
        };
        held |= layers::SECCOMP | layers::LIMITS | layers::NO_PRIVILEGES;
        for (is_held, layer) in [
            (policy.without_uncounted_memory, layers::SECCOMP_MEMORY),
            (policy.without_metadata, layers::SECCOMP_METADATA),
            (policy.signals_only_to.is_some(), layers::SECCOMP_SIGNALS),
        ] {
            held |= if is_held { layer } else { 0 };
        }
        let strings = |strings: Vec<String>| -> Result<Vec<CString>, Fault> {
            strings
                .into_iter()
                .map(|string| CString::new(string).map_err(std::io::Error::from).at(Stage::Target))
                .collect()
        };
        let program = strings(vec![spec.program.clone()])?;
        let argv = strings(spec.argv.clone())?;
        let env = strings(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect())?;
        rustix::process::chdir(&spec.cwd).at(Stage::Target)?;
        // Above all numbers that the program is given.
        let above = 3 + spec.pass.len() as RawFd + 1;
        let status = rustix::io::fcntl_dupfd_cloexec(self.status, above).at(Stage::Target)?;
        let image = spec.image.map(|input| rustix::io::fcntl_dupfd_cloexec(&self.inputs[input as usize], above));
        let image = image.transpose().at(Stage::Target)?;
        let answer = self.pass(above).at(Stage::Target);
        let confined = Record::Confined { layers: held, landlock_abi: abi };
        let run = || -> Result<Infallible, Fault> {
            answer?;
            // Only now, when the launcher's own descriptors count no more.
            limit(Resource::Nofile, spec.limits.open_files).at(Stage::Limits)?;
            filter::install(&policy).at(Stage::Seccomp)?;
            send(status.as_fd(), &confined, &[]).at(Stage::Seccomp)?;
            Err(sys::execve(image.as_ref().map(AsFd::as_fd), &program[0], &argv, &env)).at(Stage::Exec)
        };
        let Err(fault) = run();
        // The socket may lie elsewhere by now, so the caller could not say it.
        let _nobody_to_tell = send(status.as_fd(), &Record::Failed(fault), &[]);
        sys::exit(FAILED)
    }

    /// Puts what the program is given under the numbers from 3 on, and marks the rest to be closed.
    fn pass(self, above: RawFd) -> std::io::Result<()> {
        let given: Result<Vec<OwnedFd>, Errno> = self
            .spec
            .pass
            .iter()
            .map(|input| rustix::io::fcntl_dupfd_cloexec(&self.inputs[*input as usize], above))
            .collect();
        let given = given?;
        // Numbers below are about to be written over.
        std::mem::forget(self.inputs);
        for (number, from) in (3..).zip(&given) {
            sys::put(from.as_fd(), number)?;
        }
        let rest = 3 + self.spec.pass.len() as u32;
        sys::close_range(rest, u32::MAX, sys::CLOSE_ON_EXEC)
    }
}

fn network(net: Net) -> Result<Option<OwnedFd>, Errno> {
    match net {
        Net::None => return Ok(None),
        Net::Loopback | Net::Proxy => loopback_up()?,
    }
    if net == Net::Loopback {
        return Ok(None);
    }
    let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&listener, &PROXY)?;
    rustix::net::listen(&listener, PROXY_BACKLOG)?;
    Ok(Some(listener))
}

/// Sets IFF_UP on interface 1, which is `lo` in every network namespace: one RTM_NEWLINK message of rtnetlink(7).
///
/// ```text
/// len u32 = 32 · type u16 = 16 · flags u16 = REQUEST|ACK · seq u32 = 1 · port u32 = 0
/// family u8 = 0 · pad u8 · device type u16 · index i32 = 1 · flags u32 = IFF_UP · change u32 = IFF_UP
/// ```
fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut message = Vec::with_capacity(32);
    for word in [32_u32, 16 | 5 << 16, 1, 0, 0, 1, 1, 1] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    // NLMSG_ERROR: the header, then the error as a negative number, 0 if it was done.
    let mut answer = [0; 128];
    let (len, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let error = answer[..len].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(-errno)),
        None => Err(Errno::PROTO),
    }
}

/// Sets the limits. `beside` processes of the same user are not the program's.
fn limits(spec: &Spec, beside: u64) -> Result<(), Errno> {
    let limits = &spec.limits;
    for (resource, value) in [
        (Resource::Nproc, limits.pids.saturating_add(beside)),
        (Resource::As, limits.as_bytes),
        (Resource::Cpu, limits.cpu_s),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ] {
        limit(resource, value)?;
    }
    Ok(())
}

fn limit(resource: Resource, value: u64) -> Result<(), Errno> {
    rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
}

fn no_capabilities() -> CapabilitySets {
    let none = CapabilitySet::empty();
    CapabilitySets { effective: none, permitted: none, inheritable: none }
}

/// Empties all sets of capabilities, for good.
fn drop_capabilities() -> Result<(), Errno> {
    let sets = rustix::thread::capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The first number that this kernel has no capability for.
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
        use CapabilitiesSecureBits as Bits;
        rustix::thread::set_capabilities_secure_bits(
            Bits::NO_ROOT
                | Bits::NO_ROOT_LOCKED
                | Bits::NO_SETUID_FIXUP
                | Bits::NO_SETUID_FIXUP_LOCKED
                | Bits::KEEP_CAPS_LOCKED
                | Bits::NO_CAP_AMBIENT_RAISE
                | Bits::NO_CAP_AMBIENT_RAISE_LOCKED,
        )?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, no_capabilities())
}

fn wait_for(pid1: Pid) -> std::io::Result<()> {
    let status = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid1), WaitOptions::empty()))?;
    match status {
        Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
        _ => Err(Errno::CHILD.into()),
    }
}

/// Reaps until the program ends, passes on what it is asked, and reports.
fn watch(target: Pid, result: BorrowedFd<'_>, level: Level) -> std::io::Result<()> {
    let status = loop {
        match rustix::process::wait(WaitOptions::NOHANG)? {
            Some((pid, status)) if pid == target => break status,
            Some(_) => continue,
            None => {}
        }
        match sys::wait_signal(&WATCHED)? {
            libc::SIGTERM => {
                ask_to_end(target)?;
            }
            libc::SIGQUIT => rustix::process::kill_process(target, Signal::KILL)?,
            _child => {}
        }
    };
    if level == Level::Landlock {
        kill_descendants()?;
    }
    rustix::net::send(result, &status.as_raw().to_le_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// SIGTERM to the group of the program, with the SIGCONT that lets it be seen.
fn ask_to_end(target: Pid) -> Result<(), Errno> {
    for signal in [Signal::TERM, Signal::CONT] {
        match rustix::process::kill_process_group(target, signal) {
            // It has no group of its own yet.
            Err(Errno::SRCH) => rustix::process::kill_process(target, signal)?,
            done => done?,
        }
    }
    Ok(())
}

/// Kills what the program left behind, until nothing is: all of it comes to us, the subreaper (PR_SET_CHILD_SUBREAPER
/// in prctl(2)), level by level.
fn kill_descendants() -> std::io::Result<()> {
    loop {
        let children = fs::read_to_string("/proc/thread-self/children")?;
        for pid in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            rustix::process::kill_process(pid, Signal::KILL)?;
        }
        // A list that seems empty may have missed one that came while it was read (proc_pid_children(5)).
        let options = if children.is_empty() { WaitOptions::NOHANG } else { WaitOptions::empty() };
        match rustix::io::retry_on_intr(|| rustix::process::wait(options)) {
            Ok(_) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
