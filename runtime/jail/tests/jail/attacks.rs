//! The attack table, as far as it is about the jail: each row is an attack that must be held, with the errors that
//! hold it, and a benign twin that must work. All of it as root and as an ordinary user.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::process::Signal;
use toka_jail::spec::{Mask, Net, Tmpfs};
use toka_jail::status::layers;

use crate::supervisor::{As, Ended, Plan, holding};

pub(crate) const PRELUDE: &str = include_str!("prelude.py");
/// Who files of a root belong to, so that their permissions stop nobody.
const NOBODY: u32 = 65_534;

/// A plan that runs `script` with python3, after the prelude.
fn script(script: &str, args: &[&str]) -> Plan {
    let mut plan = Plan::strong("/usr/bin/python3", &[]);
    plan.spec.argv.extend(["-s", "-B", "/tool/main.py"].iter().chain(args).map(|&arg| arg.to_owned()));
    plan.file("/tool/main.py", 0o444, format!("{PRELUDE}\n{script}").as_bytes());
    plan
}

/// Runs an attack as everybody, and its benign twin. `adapt` gets both.
#[track_caller]
fn row(attack: &str, benign: &str, args: &[&str], adapt: impl Fn(&mut Plan)) {
    for who in As::each() {
        let run = |text: &str| {
            let mut plan = script(text, args);
            adapt(&mut plan);
            plan.run(who)
        };
        let held = run(&format!("{attack}\ndone()"));
        assert!(held.stdout.contains("tries "), "{who:?}: {held:#?}");
        held.succeeded();
        let worked = run(&format!("{benign}\nprint('worked')"));
        assert!(worked.stdout.ends_with("worked\n"), "{who:?}: {worked:#?}");
        worked.succeeded();
    }
}

/// A folder that the jail's user owns, with a file.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "as it was").expect("a file");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    fs::write(folder.path().join("sub/other"), "as it was").expect("a file");
    if rustix::process::geteuid().is_root() {
        for path in ["", "file", "sub", "sub/other"] {
            std::os::unix::fs::chown(folder.path().join(path), Some(NOBODY), Some(NOBODY)).expect("root gives");
        }
    }
    // A launcher that is not root finds what it mounts by its path.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn row_1_files_outside_are_not_there() {
    let outside = folder();
    let secret = outside.path().join("file");
    let inside = folder();
    row(
        r#"
for path in ["/etc/shadow", "/etc/passwd", "/root", "/home", "/var/lib", sys.argv[1],
             "/proc/self/root" + sys.argv[1], "/proc/self/cwd/../../.." + sys.argv[1], "/../../.." + sys.argv[1]]:
    refused("open " + path, "ENOENT", lambda: text(path))
    refused("stat " + path, "ENOENT", lambda: os.stat(path))
    refused("openat2 " + path, "ENOENT EINVAL", lambda: raw(437, -100, path.encode(), bytes(24), 24))
    refused("execve " + path, "ENOENT", lambda: os.execv(path, ["x"]))
"#,
        "assert text('/roots/project/file') == b'as it was'; assert os.listdir('/roots/project/sub') == ['other']",
        &[name(&secret)],
        |plan| plan.mount(name(inside.path()), "/roots/project", false, false),
    );
}

#[test]
fn row_2_nothing_outside_of_write_roots_changes() {
    let (read_only, writable) = (folder(), folder());
    row(
        r#"
NO = "EROFS EACCES EPERM"
for top in ["/roots/ro", "/roots/ro/sub", "/usr/bin", "/", "/tool", "/dev"]:
    refused("create in " + top, NO, lambda: write(top + "/new"))
    refused("mkdir in " + top, NO, lambda: os.mkdir(top + "/new"))
    refused("symlink in " + top, NO, lambda: os.symlink("x", top + "/new"))
    refused("mkfifo in " + top, NO, lambda: os.mkfifo(top + "/new"))
    refused("chmod of " + top, NO, lambda: os.chmod(top, 0o777))
    refused("fchmod of " + top, NO, lambda: os.fchmod(os.open(top, os.O_RDONLY), 0o777))
    refused("utime of " + top, NO, lambda: os.utime(top, (0, 0)))
    refused("xattr of " + top, NO + " ENOTSUP", lambda: os.setxattr(top, "user.x", b"x"))
for file in ["/roots/ro/file", "/roots/ro/sub/other", "/usr/bin/env", "/tool/main.py"]:
    refused("write " + file, NO, lambda: write(file))
    refused("append " + file, NO, lambda: os.open(file, os.O_WRONLY | os.O_APPEND))
    refused("truncate " + file, NO, lambda: os.truncate(file, 0))
    refused("unlink " + file, NO, lambda: os.unlink(file))
    refused("rename " + file, NO, lambda: os.rename(file, file + "2"))
    refused("rename away " + file, NO + " EXDEV", lambda: os.rename(file, "/workspace/x"))
    refused("rename over " + file, NO + " EXDEV", lambda: (write("/workspace/y"), os.rename("/workspace/y", file)))
    refused("chmod " + file, NO, lambda: os.chmod(file, 0o777))
    refused("chown " + file, NO, lambda: os.chown(file, 1000, 1000))
    refused("utime " + file, NO, lambda: os.utime(file, (0, 0)))
    refused("xattr " + file, NO + " ENOTSUP", lambda: os.setxattr(file, "user.x", b"x"))
    refused("file_setattr " + file, NO + " EINVAL ENOTSUP ENOSYS", lambda: raw(469, -100, file.encode(), bytes(24), 24, 0))
refused("rmdir", NO, lambda: os.rmdir("/roots/ro/sub"))
"#,
        r#"
write("/roots/rw/file", b"changed"); os.chmod("/roots/rw/file", 0o600); os.utime("/roots/rw/file", (0, 0))
os.rename("/roots/rw/file", "/roots/rw/sub/file"); os.unlink("/roots/rw/sub/other"); os.mkdir("/roots/rw/new")
os.rmdir("/roots/rw/new"); os.rename("/roots/rw/sub/file", "/roots/rw/file"); write("/roots/rw/sub/other")
write("/workspace/a"); write("/tmp/a")
"#,
        &[],
        |plan| {
            plan.mount(name(read_only.path()), "/roots/ro", false, false);
            plan.mount(name(writable.path()), "/roots/rw", true, false);
        },
    );
    assert_eq!(fs::read_to_string(read_only.path().join("file")).expect("it is there"), "as it was");
    assert_eq!(fs::read_to_string(read_only.path().join("sub/other")).expect("it is there"), "as it was");
    assert_eq!(fs::read_dir(read_only.path()).expect("a folder").count(), 2);
    assert_eq!(fs::read_to_string(writable.path().join("file")).expect("it is there"), "changed");
}

#[test]
fn row_3_a_link_to_the_outside_leads_nowhere() {
    let outside = folder();
    row(
        r#"
target = sys.argv[1]
os.symlink(target, "/workspace/direct")
os.symlink("../../../../.." + target, "/workspace/up")
os.symlink("/proc/1/root" + target, "/workspace/proc")
os.symlink("/workspace/direct", "/workspace/twice")
for link in ["direct", "up", "proc", "twice"]:
    refused("through " + link, "ENOENT", lambda: text("/workspace/" + link))
    refused("write through " + link, "ENOENT EROFS", lambda: write("/workspace/" + link))
"#,
        "write('/workspace/a'); os.symlink('a', '/workspace/b'); assert text('/workspace/b') == b'x'",
        &[name(&outside.path().join("file"))],
        |_| {},
    );
}

#[test]
fn row_4_a_hard_link_does_not_carry_a_file_into_the_workspace() {
    let inside = folder();
    row(
        r#"
NO = "EXDEV EROFS EACCES"
refused("link", NO, lambda: os.link("/roots/ro/file", "/workspace/link"))
refused("link within", NO, lambda: os.link("/roots/ro/file", "/roots/ro/link"))
fd = os.open("/roots/ro/file", os.O_RDONLY)
refused("linkat of a descriptor", NO + " ENOENT", lambda: raw(265, fd, b"", -100, b"/workspace/link", 0x1000))
refused("link by /proc", NO, lambda: os.link(f"/proc/self/fd/{fd}", "/workspace/link", follow_symlinks=True))
"#,
        "write('/workspace/a'); os.link('/workspace/a', '/workspace/b'); write('/workspace/b', b'y'); \
         assert text('/workspace/a') == b'y'",
        &[],
        |plan| plan.mount(name(inside.path()), "/roots/ro", false, false),
    );
}

#[test]
fn row_6_no_process_writes_to_its_own_image() {
    let before = rustix::fs::fstat(crate::supervisor::launcher()).expect("it is open");
    row(
        r#"
NO = "EROFS EACCES ENOENT"
for path in ["/proc/self/mem", "/proc/self/exe", "/proc/thread-self/mem", "/proc/1/exe", "/proc/1/mem",
             "/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/self/comm"]:
    refused("write " + path, NO, lambda: os.open(path, os.O_WRONLY))
    refused("open both " + path, NO, lambda: os.open(path, os.O_RDWR))
refused("core_pattern", "ENOENT", lambda: write("/proc/sys/kernel/core_pattern"))
refused("sysrq", "ENOENT", lambda: write("/proc/sysrq-trigger"))
"#,
        "assert b'Name:' in text('/proc/self/status'); assert os.readlink('/proc/self/exe').startswith('/usr/bin/py')",
        &[],
        |_| {},
    );
    let after = rustix::fs::fstat(crate::supervisor::launcher()).expect("it is open");
    assert_eq!((before.st_size, before.st_mtime), (after.st_size, after.st_mtime));
}

#[test]
fn row_7_other_processes_are_not_to_be_seen() {
    let supervisor = std::process::id().to_string();
    row(
        r#"
for pid in ["1", sys.argv[1], str(os.getppid())]:
    for name in ["environ", "root", "cwd", "fd", "fd/5", "maps", "mem", "exe", "status", "ns/mnt", "task"]:
        path = f"/proc/{pid}/{name}"
        refused("open " + path, "ENOENT EACCES", lambda: os.open(path, os.O_RDONLY))
        refused("readlink " + path, "ENOENT EACCES", lambda: os.readlink(path))
        refused("list " + path, "ENOENT EACCES", lambda: os.listdir(path))
seen = [name for name in os.listdir("/proc") if name.isdigit()]
holds(f"only itself in /proc: {seen}", seen == [str(os.getpid())])
holds("the parent is pid 1", os.getppid() == 1)
holds("nothing of the machine in /proc", not os.path.exists("/proc/meminfo") and not os.path.exists("/proc/sys"))
"#,
        "assert b'PATH=' in text('/proc/self/environ')",
        &[&supervisor],
        |_| {},
    );
}

#[test]
fn row_8_no_process_looks_into_another() {
    row(
        r#"
child = os.fork()
if child == 0:
    import signal
    signal.pause()
for pid in [child, 1]:
    refused("attach", "EPERM", lambda: raw(101, 16, pid, 0, 0))
    refused("seize", "EPERM", lambda: raw(101, 0x4206, pid, 0, 0))
    refused("process_vm_readv", "EPERM", lambda: raw(310, pid, 0, 0, 0, 0, 0))
    refused("process_vm_writev", "EPERM", lambda: raw(311, pid, 0, 0, 0, 0, 0))
    refused("kcmp", "EPERM", lambda: raw(312, os.getpid(), pid, 0, 0, 0))
    refused("process_madvise", "EPERM", lambda: raw(440, 0, 0, 0, 0, 0))
fd = os.pidfd_open(child)
refused("pidfd_getfd", "EPERM", lambda: raw(438, fd, 0, 0))
refused("traceme", "EPERM", lambda: raw(101, 0, 0, 0, 0))
"#,
        r#"
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"#,
        &[],
        |_| {},
    );
}

#[test]
fn row_9_no_unix_socket_of_the_host_is_reached() {
    let name = format!("toka-jail-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("it is free");
    for net in [Net::None, Net::Loopback] {
        row(
            r#"
import socket
def reach():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect("\0" + sys.argv[1])
refused("abstract socket", "EPERM", reach)
for kind in [1, 2, 5, 1 | 0o2000000, 2 | 0o4000]:
    refused(f"unix socket {kind}", "EPERM", lambda: raw(41, 1, kind, 0))
for kind in [2, 2 | 0o2000000, 3]:
    refused(f"pair {kind}", "EPERM", lambda: raw(53, 1, kind, 0, bytes(8)))
refused("pair of another family", "EPERM", lambda: raw(53, 30, 1, 0, bytes(8)))
"#,
            r#"
import socket
a, b = socket.socketpair(); a.send(b"hi"); assert b.recv(2) == b"hi"
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b"hi"); assert b.recv(9) == b"hi"
"#,
            &[&name],
            |plan| plan.spec.net = net,
        );
    }
}

#[test]
fn row_10_no_socket_speaks_to_the_kernel_or_the_wire() {
    for net in [Net::None, Net::Loopback] {
        row(
            r#"
for family in [*range(1, 2), *range(3, 10), *range(11, 48)]:
    for kind in [1, 2, 3, 5]:
        refused(f"family {family} kind {kind}", "EPERM", lambda: raw(41, family, kind, 0))
for family in [2, 10]:
    for kind, protocol in [(3, 1), (3, 255), (5, 132), (1, 132), (1, 262), (2, 136), (2, 1), (1, 256), (3 | 0o2000000, 1)]:
        refused(f"{family} {kind} {protocol}", "EPERM", lambda: raw(41, family, kind, protocol))
refused("family with high bits", "EPERM EAFNOSUPPORT", lambda: raw(41, 16 | 1 << 32, 3, 0))
"#,
            if net == Net::None {
                "pass"
            } else {
                "import socket; socket.socket(); socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)"
            },
            &[],
            |plan| plan.spec.net = net,
        );
    }
}

#[test]
fn row_11_no_address_outside_is_reached() {
    let host = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = host.local_addr().expect("bound").port().to_string();
    let reach = r#"
import socket
port = int(sys.argv[1])
def tcp(address, to):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
        s.settimeout(5); s.connect((address, to))
def udp(address, to):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (address, to)); s.connect((address, to))
for address in ["127.0.0.1", "127.0.0.2", "1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "2606:4700::1111"]:
    refused("tcp " + address, NO, lambda: tcp(address, port))
for address in ["1.1.1.1", "10.0.0.1", "169.254.169.254", "255.255.255.255"]:
    refused("udp " + address, NO, lambda: udp(address, 53))
refused("names", "EPERM" if NO == "EPERM" else NO, lambda: udp("8.8.8.8", 53))
"#;
    let none = format!("NO = 'EPERM'\n{reach}");
    row(&none, "pass", &[&port], |_| {});
    let loopback = format!("NO = 'ECONNREFUSED ENETUNREACH EACCES EADDRNOTAVAIL'\n{reach}");
    let benign = r#"
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def answer():
    peer, _ = server.accept(); peer.sendall(b"hello"); peer.close()
thread = threading.Thread(target=answer); thread.start()
with socket.create_connection(server.getsockname()) as s:
    assert s.recv(5) == b"hello"
thread.join()
"#;
    row(&loopback, benign, &[&port], |plan| plan.spec.net = Net::Loopback);
    host.set_nonblocking(true).expect("a socket");
    assert!(host.accept().is_err(), "somebody came through");
}

#[test]
fn row_12_a_fork_bomb_stops_at_its_limit() {
    row(
        r#"
import signal
children = []
def bomb():
    while True:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
refused("fork", "EAGAIN", bomb)
holds(f"{len(children)} of 15", len(children) == 15)
import threading
def thread():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "")
refused("thread", "EAGAIN", thread)
"#,
        r#"
for round in range(50):
    children = [os.fork() or os._exit(0) for _ in range(8)]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"#,
        &[],
        |plan| plan.spec.limits.pids = 16,
    );
}

#[test]
fn row_14_a_full_file_system_stays_its_own_affair() {
    row(
        r#"
def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
def litter(path):
    for n in range(1_000_000):
        os.close(os.open(f"{path}/{n}", os.O_CREAT | os.O_WRONLY))
for top in ["/workspace", "/tmp", "/dev/shm"]:
    refused("fill " + top, "ENOSPC", lambda: fill(top + "/fill"))
    holds("bounded " + top, os.stat(top + "/fill").st_size <= 32 << 20)
    refused("litter " + top, "ENOSPC", lambda: litter(top))
    holds("bounded inodes " + top, len(os.listdir(top)) <= 512)
"#,
        "write('/workspace/a', bytes(1 << 20)); write('/tmp/a', bytes(1 << 20)); write('/dev/shm/a', bytes(1 << 20))",
        &[],
        |plan| plan.spec.shm = Some(Tmpfs { bytes: 2 << 20, inodes: 64, exec: false }),
    );
}

#[test]
fn row_16_nobody_survives_pid_1() {
    let daemons = r#"
ready, say = os.pipe()
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            import signal
            for s in range(1, 64):
                try:
                    signal.signal(s, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            os.write(3, b"x")
            os.write(say, b"x")
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    os.read(ready, 1)
"#;
    for who in As::each() {
        // Either the program ends by itself, or pid 1 is killed while it waits.
        for (last, killed) in [("os._exit(0)", false), ("import signal\nsignal.pause()", true)] {
            let (mut read, write) = std::io::pipe().expect("a pipe");
            let mut plan = script(&format!("{daemons}\n{last}"), &[]);
            let input = plan.input(OwnedFd::from(write));
            plan.spec.pass = vec![input];
            let mut jail = plan.start(who);
            jail.release();
            let mut five = [0; 5];
            read.read_exact(&mut five).expect("five daemons");
            if killed {
                jail.signal(Signal::KILL);
            }
            // Ends only when the last of them has let go of the other end.
            assert_eq!(read.read(&mut five).expect("a pipe"), 0);
            let ended = jail.end();
            assert_eq!((ended.failed, ended.wait), (None, (!killed).then_some(0)), "{ended:#?}");
        }
    }
}

#[test]
fn row_16_a_program_that_is_asked_to_end_can() {
    for who in As::each() {
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let mut plan = script(
            r#"
import signal
def end(*_):
    print("asked"); sys.stdout.flush(); os._exit(3)
signal.signal(signal.SIGTERM, end)
os.write(3, b"x")
while True:
    signal.pause()
"#,
            &[],
        );
        let input = plan.input(OwnedFd::from(write));
        plan.spec.pass = vec![input];
        let mut jail = plan.start(who);
        jail.release();
        read.read_exact(&mut [0]).expect("it is ready");
        jail.signal(Signal::TERM);
        let ended = jail.end();
        assert_eq!((ended.wait, ended.stdout.as_str()), (Some(3 << 8), "asked\n"), "{ended:#?}");
    }
}

#[test]
fn row_17_signals_reach_the_own_jail_only() {
    let supervisor = std::process::id().to_string();
    row(
        r#"
import signal
supervisor = int(sys.argv[1])
for s in [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM]:
    refused("signal to the supervisor", "ESRCH EPERM", lambda: os.kill(supervisor, s))
    refused("group of the supervisor", "ESRCH EPERM", lambda: os.killpg(supervisor, s))
    refused("tgkill", "ESRCH EPERM", lambda: raw(234, supervisor, supervisor, s))
refused("pidfd_open", "ESRCH EINVAL", lambda: os.pidfd_open(supervisor))
refused("foreign owner", "ESRCH EPERM", lambda: __import__("fcntl").fcntl(0, 8, supervisor))
# Pid 1 takes neither of these from below; -1 is everybody else in here, which is nobody.
for s in [signal.SIGSTOP, signal.SIGKILL]:
    os.kill(1, s); os.kill(os.getppid(), s)
    refused("everybody", "ESRCH", lambda: os.kill(-1, s))
holds("still here", os.getppid() == 1)
"#,
        r#"
import signal
child = os.fork()
if child == 0:
    signal.pause()
os.kill(child, signal.SIGKILL); assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
"#,
        &[&supervisor],
        |_| {},
    );
}

#[test]
fn row_18_the_program_has_exactly_the_mapped_descriptors() {
    let key = holding(b"a key");
    // As a careless library leaves it: open, and inherited by every process that starts.
    rustix::io::fcntl_setfd(&key, rustix::io::FdFlags::empty()).expect("it is open");
    let _others: Vec<OwnedFd> = (0..500).map(|_| rustix::io::fcntl_dupfd_cloexec(&key, 0).expect("room")).collect();
    row(
        r#"
import resource
open_fds = []
for fd in range(4096):
    try:
        os.fstat(fd); open_fds.append(fd)
    except OSError:
        pass
holds(f"mapped: {open_fds}", open_fds == [0, 1, 2, 3, 4])
holds("no key", all(b"a key" not in os.pread(fd, 64, 0) for fd in [3, 4]))
refused("write to an input", "EPERM EBADF", lambda: os.write(3, b"x"))
"#,
        "assert os.pread(3, 9, 0) == b'first'; assert os.pread(4, 9, 0) == b'second'",
        &[],
        |plan| {
            let (second, first) = (plan.input(holding(b"second")), plan.input(holding(b"first")));
            plan.spec.pass = vec![first, second];
        },
    );
}

#[test]
fn row_20_no_namespace_and_no_mount_is_made() {
    row(
        r#"
NEW = {"time": 0x80, "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
       "pid": 0x20000000, "net": 0x40000000}
for name, flag in NEW.items():
    refused("unshare " + name, "EPERM", lambda: raw(272, flag))
    if name != "time":
        refused("clone " + name, "EPERM", lambda: raw(56, flag | 17, 0, 0, 0, 0))
        refused("clone vfork " + name, "EPERM", lambda: raw(56, flag | 0x4100 | 17, 0, 0, 0, 0))
    refused("clone3 " + name, "ENOSYS", lambda: raw(435, flag.to_bytes(8, "little") + bytes(80), 88))
    refused("setns " + name, "EPERM", lambda: raw(308, 0, flag))
refused("unshare nothing", "EPERM", lambda: raw(272, 0))
mounts = text("/proc/self/mountinfo").decode()
holds("its mounts are nobody else's: " + mounts, not any(tag in mounts for tag in [" shared:", " master:"]))
fd = os.open("/proc/self/ns/user", os.O_RDONLY)
refused("setns own", "EPERM", lambda: raw(308, fd, 0))
for number, name in {165: "mount", 166: "umount2", 155: "pivot_root", 161: "chroot", 428: "open_tree",
                     429: "move_mount", 430: "fsopen", 431: "fsconfig", 432: "fsmount", 433: "fspick",
                     442: "mount_setattr", 467: "open_tree_attr", 303: "name_to_handle_at",
                     304: "open_by_handle_at"}.items():
    refused(name, "EPERM", lambda: raw(number, b"/workspace", b"/tmp", 0, 0, 0))
"#,
        r#"
import subprocess, threading
assert subprocess.run(["/bin/sh", "-c", "echo $((6 * 7)) | cat"], capture_output=True).stdout == b"42\n"
thread = threading.Thread(target=int); thread.start(); thread.join()
"#,
        &[],
        |_| {},
    );
}

#[test]
fn row_21_no_keyring_is_read() {
    row(
        r#"
for what in range(0, 33):
    refused(f"keyctl {what}", "EPERM", lambda: raw(250, what, -3, 0, 0, 0))
for ring in range(-8, 0):
    refused(f"add_key {ring}", "EPERM", lambda: raw(248, b"user", b"x", b"y", 1, ring))
    refused(f"request_key {ring}", "EPERM", lambda: raw(249, b"user", b"x", 0, ring))
holds("no list of keys", not os.path.exists("/proc/keys"))
"#,
        "pass",
        &[],
        |_| {},
    );
}

#[test]
fn row_22_large_parts_of_the_kernel_are_closed() {
    row(
        r#"
refused("bpf", "EPERM", lambda: raw(321, 5, bytes(128), 128))
refused("perf_event_open", "EPERM", lambda: raw(298, bytes(128), 0, -1, -1, 0))
for flags in [0, 1, 0o4000]:
    refused("userfaultfd", "EPERM", lambda: raw(323, flags))
refused("io_uring_setup", "ENOSYS", lambda: raw(425, 8, bytes(120)))
refused("io_uring_enter", "ENOSYS", lambda: raw(426, 0, 0, 0, 0, 0, 0))
refused("io_uring_register", "ENOSYS", lambda: raw(427, 0, 0, 0, 0))
refused("fanotify_init", "EPERM", lambda: raw(300, 0, 0))
refused("seccomp", "EPERM", lambda: raw(317, 1, 0, 0))
refused("vmsplice", "EPERM", lambda: raw(278, 0, 0, 0, 0))
refused("memfd_secret", "EPERM", lambda: raw(447, 0))
refused("personality", "EPERM", lambda: raw(135, 0x0040000))
for number in [470, 471, 500, 1000, 0x40000000 + 39, 0x40000000 + 41, 0x7fffffff]:
    refused(f"number {number:#x}", "ENOSYS", lambda: raw(number, 0, 0, 0))
for what in ["memfd_create 319", "shmget 29", "msgget 68", "semget 64"]:
    name, number = what.split()
    refused(name, "EPERM", lambda: raw(int(number), 0, 1, 0o600))
"#,
        "import mmap; m = mmap.mmap(-1, 1 << 20); m[0] = 1; raw(135, 0)",
        &[],
        |_| {},
    );
}

#[test]
fn row_22_with_a_memory_cgroup_memory_files_are_allowed() {
    row(
        "refused('memfd_secret', 'EPERM', lambda: raw(447, 0))",
        "os.memfd_create('x'); raw(29, 0, 4096, 0o600)",
        &[],
        |plan| plan.spec.memory_cgroup = true,
    );
}

#[test]
fn row_22_a_foreign_system_call_abi_ends_the_process() {
    // An ELF file of one segment: int 0x80 with getpid of that ABI, then exit(0) of ours.
    let code: &[u8] = b"\xb8\x14\0\0\0\xcd\x80\x31\xff\xb8\x3c\0\0\0\x0f\x05";
    let benign: &[u8] = b"\xb8\x27\0\0\0\x0f\x05\x31\xff\xb8\x3c\0\0\0\x0f\x05";
    for who in As::each() {
        for (code, expected) in [(code, [Some(31 | 0x80), Some(31)]), (benign, [Some(0), Some(0)])] {
            let mut plan = Plan::strong("/tool/main", &[]);
            plan.file("/tool/main", 0o555, &elf(code));
            let ended = plan.run(who);
            assert!(ended.failed.is_none() && expected.contains(&ended.wait), "{ended:#?}");
        }
    }
}

fn elf(code: &[u8]) -> Vec<u8> {
    let base: u64 = 0x40_0000;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for (value, len) in [(2, 2), (62, 2), (1, 4), (base + 120, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2)] {
        file.extend_from_slice(&u64::to_le_bytes(value)[..len]);
    }
    file.resize(64, 0);
    let size = 120 + code.len() as u64;
    for (value, len) in [(1, 4), (5, 4), (0, 8), (base, 8), (base, 8), (size, 8), (size, 8), (0x1000, 8)] {
        file.extend_from_slice(&u64::to_le_bytes(value)[..len]);
    }
    file.extend_from_slice(code);
    file
}

#[test]
fn row_23_nothing_is_typed_into_a_terminal() {
    let terminal = || {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).expect("it is there");
        (master, slave)
    };
    let (_master, slave) = terminal();
    row(
        r#"
holds("a terminal to try it on", os.isatty(0))
byte = ctypes.create_string_buffer(b"x")
for request in [0x5412, 0x541C, 0x5423, 0x100005412, 0xffffffff00005412, 0x20000541C]:
    def attempt():
        if libc.ioctl(0, ctypes.c_ulong(request), byte) < 0:
            raise OSError(ctypes.get_errno(), "")
    refused(f"ioctl {request:#x}", "EPERM", attempt)
    refused(f"raw ioctl {request:#x}", "EPERM", lambda: raw(16, 0, ctypes.c_ulong(request), byte))
for path in ["/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts/0", "/dev/tty1", "/dev/vcs"]:
    refused(path, "ENOENT", lambda: os.open(path, os.O_RDWR))
refused("no terminal of its own", "ENOTTY EPERM", lambda: os.tcgetpgrp(0))
"#,
        "import termios; termios.tcgetattr(0)",
        &[],
        |plan| plan.stdin = Some(slave.try_clone().expect("a copy")),
    );
}

#[test]
fn row_24_only_harmless_devices_are_there() {
    row(
        r#"
import stat
for name in ["mem", "kmem", "port", "kvm", "loop0", "loop-control", "fuse", "vda", "sda", "kmsg", "net/tun", "vsock",
             "userfaultfd", "uinput", "snapshot", "mapper/control"]:
    refused("open " + name, "ENOENT", lambda: os.open("/dev/" + name, os.O_RDONLY))
for top in ["/workspace", "/tmp", "/dev", "/"]:
    for kind in [stat.S_IFCHR, stat.S_IFBLK]:
        refused("mknod in " + top, "EPERM", lambda: os.mknod(top + "/node", kind | 0o666, os.makedev(1, 1)))
        refused("mknodat in " + top, "EPERM", lambda: raw(259, -100, (top + "/node").encode(), kind | 0o666, 0x101))
refused("chmod of a device", "EROFS EPERM EACCES", lambda: os.chmod("/dev/null", 0o600))
refused("unlink of a device", "EROFS EBUSY EACCES EPERM", lambda: os.unlink("/dev/null"))
holds("no others", sorted(os.listdir("/dev")) ==
      sorted(["null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr"]))
"#,
        r#"
assert text("/dev/null") == b""; write("/dev/null"); open("/dev/null", "a+b").close()
assert len(os.read(os.open("/dev/urandom", os.O_RDONLY), 16)) == 16
assert os.read(os.open("/dev/zero", os.O_RDONLY), 4) == bytes(4)
try:
    os.write(os.open("/dev/full", os.O_WRONLY), b"x"); assert False
except OSError as error:
    assert error.errno == errno.ENOSPC
assert os.path.exists("/dev/fd/0")
"#,
        &[],
        |_| {},
    );
}

#[test]
fn row_25_no_file_gives_privileges() {
    row(
        r#"
import shutil, subprocess
def state(program):
    code = "import os; print(os.getresuid(), os.getresgid()); print(open('/proc/self/status').read())"
    out = subprocess.run([program, "-s", "-c", code], capture_output=True, text=True).stdout
    return out.splitlines()[0], dict(line.split(":\t", 1) for line in out.splitlines()[1:] if ":\t" in line)
shutil.copy("/usr/bin/python3", "/workspace/own"); os.chmod("/workspace/own", 0o6755)
holds("the copy is setuid", os.stat("/workspace/own").st_mode & 0o6000 == 0o6000)
for program in ["/usr/bin/python3", "/workspace/own"]:
    ids, status = state(program)
    holds("ids " + ids, ids == "(1000, 1000, 1000) (1000, 1000, 1000)")
    holds("no new privileges", status["NoNewPrivs"].strip() == "1")
    holds("filtered", status["Seccomp"].strip() == "2")
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        holds(name, int(status[name], 16) == 0)
for program in ["su", "mount", "umount", "passwd", "newgrp", "chsh", "sudo"]:
    path = "/usr/bin/" + program
    if os.path.exists(path):
        holds("no setuid mount", os.statvfs(path).f_flag & 2)
refused("setuid", "EINVAL EPERM", lambda: os.setuid(0))
refused("setgroups", "EPERM", lambda: os.setgroups([0]))
refused("setresuid", "EINVAL EPERM", lambda: os.setresuid(65534, 65534, 65534))
refused("securebits", "EPERM", lambda: raw(157, 28, 0))
refused("ambient", "EPERM", lambda: raw(157, 47, 2, 1, 0, 0))
"#,
        "import shutil, subprocess\nshutil.copy('/usr/bin/env', '/workspace/e')\n\
         assert subprocess.run(['/workspace/e', 'true']).returncode == 0",
        &[],
        |_| {},
    );
}

#[test]
fn row_26_the_machine_is_not_administered() {
    row(
        r#"
import time, socket
refused("clock_settime", "EPERM", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
refused("settimeofday", "EPERM", lambda: raw(164, bytes(16), 0))
refused("adjtimex", "EPERM", lambda: raw(159, bytes(208)))
refused("clock_adjtime", "EPERM", lambda: raw(305, 0, bytes(208)))
refused("sethostname", "EPERM", lambda: socket.sethostname("x"))
refused("setdomainname", "EPERM", lambda: raw(171, b"x", 1))
refused("init_module", "EPERM", lambda: raw(175, b"x", 1, b""))
refused("finit_module", "EPERM", lambda: raw(313, 0, b"", 0))
refused("delete_module", "EPERM", lambda: raw(176, b"x", 0))
refused("kexec_load", "EPERM", lambda: raw(246, 0, 0, 0, 0))
refused("reboot", "EPERM", lambda: raw(169, 0xfee1dead, 672274793, 0, 0))
for what in [2, 3, 4, 10]:
    refused(f"syslog {what}", "EPERM", lambda: raw(103, what, bytes(64), 64))
refused("swapon", "EPERM", lambda: raw(167, b"/workspace/x", 0))
refused("acct", "EPERM", lambda: raw(163, 0))
refused("quotactl", "EPERM", lambda: raw(179, 0, 0, 0, 0))
refused("iopl", "EPERM", lambda: raw(172, 3))
refused("ioperm", "EPERM", lambda: raw(173, 0, 1, 1))
refused("modify_ldt", "EPERM", lambda: raw(154, 0, bytes(16), 16))
"#,
        "import socket, time; assert socket.gethostname() == 'toka'; assert time.time() > 1_700_000_000",
        &[],
        |_| {},
    );
}

#[test]
fn row_27_limits_stay() {
    row(
        r#"
import resource, signal
refused("sparse", "EFBIG", lambda: os.truncate(os.open("/workspace/a", os.O_CREAT | os.O_RDWR), 1 << 40))
def far():
    os.pwrite(os.open("/workspace/b", os.O_CREAT | os.O_RDWR), b"x", 1 << 40)
refused("write far away", "EFBIG", far)
refused("allocate", "EFBIG ENOSPC", lambda: os.posix_fallocate(os.open("/workspace/c", os.O_CREAT | os.O_RDWR), 0, 1 << 40))
def raise_(kind):
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
    except ValueError:
        raise OSError(errno.EPERM, "")
for name in ["NPROC", "AS", "CPU", "FSIZE", "NOFILE", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"]:
    refused("raise " + name, "EPERM", lambda: raise_(getattr(resource, "RLIMIT_" + name)))
for name in ["CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"]:
    holds(name, resource.getrlimit(getattr(resource, "RLIMIT_" + name)) == (0, 0))
refused("mlock", "EPERM ENOMEM", lambda: raw(149, id(errno) & ~4095, 4096))
def files():
    while True:
        os.open("/dev/null", os.O_RDONLY)
child = os.fork()
if child == 0:
    os.chdir("/workspace"); os.abort()
status = os.waitpid(child, 0)[1]
holds("no core", os.WTERMSIG(status) == signal.SIGABRT and not os.WCOREDUMP(status))
holds("no core file", not [name for name in os.listdir("/workspace") if "core" in name])
def memory():
    import mmap
    mmap.mmap(-1, 2 << 30)
refused("address space", "ENOMEM", memory)
refused("descriptors", "EMFILE", files)
"#,
        "import resource; write('/workspace/a', bytes(1 << 20)); resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))",
        &[],
        |_| {},
    );
}

#[test]
fn row_27_processor_time_ends() {
    for who in As::each() {
        let mut plan = script("while True: pass", &[]);
        plan.spec.limits.cpu_s = 1;
        let ended = plan.run(who);
        assert_eq!((ended.failed, ended.wait), (None, Some(Signal::KILL.as_raw())), "{ended:#?}");
    }
}

#[test]
fn row_28_nobody_elses_scheduling_is_changed() {
    let supervisor = std::process::id().to_string();
    row(
        r#"
import resource
NO = "EPERM ESRCH"
for pid in [int(sys.argv[1]), 1, os.getpid()]:
    refused("setaffinity", NO, lambda: os.sched_setaffinity(pid, {0}))
    refused("prlimit", NO, lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, 8)))
    refused("priority", NO, lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    refused("group priority", NO, lambda: os.setpriority(os.PRIO_PGRP, pid, 19))
    refused("user priority", NO, lambda: os.setpriority(os.PRIO_USER, pid, 19))
    refused("scheduler", NO, lambda: os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0)))
    refused("param", NO, lambda: os.sched_setparam(pid, os.sched_param(0)))
    refused("attr", NO, lambda: raw(314, pid, bytes(48), 0))
    refused("ioprio", NO, lambda: raw(251, 1, pid, 0))
for policy in [os.SCHED_FIFO, os.SCHED_RR, 6]:
    refused(f"realtime {policy}", "EPERM EINVAL", lambda: os.sched_setscheduler(0, policy, os.sched_param(1)))
refused("nicer", "EPERM EACCES", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
refused("migrate_pages", "EPERM", lambda: raw(256, 0, 0, 0, 0))
refused("move_pages", "EPERM", lambda: raw(279, 0, 0, 0, 0, 0, 0))
"#,
        "os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)",
        &[&supervisor],
        |_| {},
    );
}

#[test]
fn masked_paths_are_empty_and_stay_so() {
    let (read_only, writable) = (folder(), folder());
    for folder in [&read_only, &writable] {
        for (path, content) in [(".git", None), (".env", Some("SECRET"))] {
            let path = folder.path().join(path);
            match content {
                Some(content) => fs::File::create(&path).and_then(|mut file| file.write_all(content.as_bytes())),
                None => fs::create_dir(&path).and_then(|()| fs::write(path.join("config"), "SECRET")),
            }
            .expect("it is ours");
        }
    }
    row(
        r#"
for top in ["/roots/ro", "/roots/rw"]:
    holds("empty folder", os.listdir(top + "/.git") == [])
    holds("empty file", text(top + "/.env") == b"")
    refused("inside", "ENOENT", lambda: text(top + "/.git/config"))
    refused("write file", "EROFS EACCES", lambda: write(top + "/.env"))
    refused("write folder", "EROFS EACCES ENOENT", lambda: write(top + "/.git/config"))
    refused("rename", "EBUSY EROFS EACCES", lambda: os.rename(top + "/.git", top + "/git"))
    refused("unlink", "EBUSY EROFS EACCES", lambda: os.unlink(top + "/.env"))
    refused("rename of the parent", "EBUSY EROFS EACCES", lambda: os.rename(top, "/roots/else"))
holds("nothing left behind", not [name for name in os.listdir("/") if "mask" in name])
"#,
        "assert text('/roots/ro/file') == b'as it was'; write('/roots/rw/file', b'as it was')",
        &[],
        |plan| {
            plan.mount(name(read_only.path()), "/roots/ro", false, false);
            plan.mount(name(writable.path()), "/roots/rw", true, false);
            let (ro, rw) = (plan.spec.mounts.len() as u32 - 2, plan.spec.mounts.len() as u32 - 1);
            for (mount, path) in [(ro, ".git"), (ro, ".env"), (ro, ".absent"), (rw, ".git"), (rw, ".env")] {
                plan.spec.masks.push(Mask { mount, path: path.to_owned() });
            }
        },
    );
    assert_eq!(fs::read_to_string(writable.path().join(".env")).expect("it is there"), "SECRET");
}

#[test]
fn every_layer_of_the_strong_level_holds() {
    let strong = layers::NAMESPACES
        | layers::ROOT
        | layers::PROC
        | layers::LANDLOCK
        | layers::LANDLOCK_NET
        | layers::LANDLOCK_SCOPE
        | layers::SECCOMP
        | layers::SECCOMP_MEMORY
        | layers::LIMITS
        | layers::NO_PRIVILEGES
        | layers::KEYRING;
    for who in As::each() {
        let ended: Ended = Plan::strong("/bin/true", &[]).run(who);
        ended.succeeded();
        let must = if ended.landlock_abi >= 6 { strong } else { strong & !layers::LANDLOCK_SCOPE };
        let must = if ended.landlock_abi >= 4 { must } else { must & !layers::LANDLOCK_NET };
        assert_eq!(ended.layers, must, "{:#b}", ended.layers ^ must);
        assert!(ended.workspace.as_ref().is_some_and(|workspace| rustix::fs::fstat(workspace.as_fd()).is_ok()));
    }
}
