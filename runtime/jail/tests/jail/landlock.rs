//! The rows of the attack table at level `landlock`, where the root of the host is visible and its paths are closed.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::process::Signal;
use toka_jail::status::layers;

use crate::attacks::{PRELUDE, folder};
use crate::supervisor::{As, Plan};

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A plan that runs `script` with python3 in a folder of its own.
fn script(script: &str, args: &[&str], folder: &Path) -> Plan {
    let mut plan = Plan::landlock("/usr/bin/python3", &[], name(folder));
    let text = format!("{PRELUDE}\nW = {:?}\n{script}", name(folder));
    plan.spec.argv.extend(["-s", "-B", "-c", &text].iter().chain(args).map(|&arg| arg.to_owned()));
    plan
}

/// Runs an attack as everybody, and its benign twin.
#[track_caller]
fn row(attack: &str, benign: &str, args: &[&str]) {
    for who in As::each() {
        let (inside, again) = (folder(), folder());
        let held = script(&format!("{attack}\ndone()"), args, inside.path()).run(who);
        assert!(held.stdout.contains("tries "), "{who:?}: {held:#?}");
        held.succeeded();
        let worked = script(&format!("{benign}\nprint('worked')"), args, again.path()).run(who);
        assert!(worked.stdout.ends_with("worked\n"), "{who:?}: {worked:#?}");
        worked.succeeded();
    }
}

#[test]
fn rows_1_to_4_files_outside_are_closed() {
    let outside = folder();
    row(
        r#"
top = sys.argv[1]
for path in ["/etc/shadow", "/etc/passwd", top + "/file", "/proc/self/root" + top + "/file", "/proc/version"]:
    refused("read " + path, "EACCES", lambda: text(path))
for path in [top + "/file", top + "/new", "/tmp/new", "/etc/passwd", "/usr/new", "/dev/shm/new"]:
    refused("write " + path, "EACCES EROFS", lambda: write(path))
refused("list", "EACCES", lambda: os.listdir(top))
refused("truncate", "EACCES", lambda: os.truncate(top + "/file", 0))
refused("unlink", "EACCES", lambda: os.unlink(top + "/file"))
refused("rename", "EACCES EXDEV", lambda: os.rename(top + "/file", W + "/x"))
refused("rmdir", "EACCES ENOTEMPTY", lambda: os.rmdir(top + "/sub"))
for path in [top, top + "/file", W, W + "/file"]:
    refused("chmod", "EPERM", lambda: os.chmod(path, 0o777))
    refused("fchmodat2", "EPERM", lambda: raw(452, -100, path.encode(), 0o777, 0))
    refused("chown", "EPERM", lambda: os.chown(path, os.getuid(), os.getgid()))
    refused("utime", "EPERM", lambda: os.utime(path, (0, 0)))
    refused("xattr", "EPERM", lambda: os.setxattr(path, "user.x", b"x"))
    refused("setxattrat", "EPERM", lambda: raw(463, -100, path.encode(), 0, b"user.x", bytes(16), 16))
    refused("file_setattr", "EPERM", lambda: raw(469, -100, path.encode(), bytes(24), 24, 0))
os.symlink(top + "/file", W + "/link")
refused("through a link", "EACCES", lambda: text(W + "/link"))
refused("hard link", "EACCES EXDEV", lambda: os.link(top + "/file", W + "/hard"))
refused("hard link of a system file", "EACCES EXDEV EPERM", lambda: os.link("/usr/bin/env", W + "/hard"))
for path in ["/proc/self/mem", "/proc/self/exe", f"/proc/{os.getppid()}/environ", "/proc/1/root", "/proc/1/environ"]:
    refused("open " + path, "EACCES EPERM", lambda: os.open(path, os.O_RDWR))
os.close(os.open(W + "/run", os.O_CREAT | os.O_WRONLY, 0o777))
refused("execute in the workspace", "EACCES", lambda: os.execv(W + "/run", ["x"]))
"#,
        "write(W + '/new'); os.rename(W + '/new', W + '/sub/new'); os.unlink(W + '/sub/new'); text('/usr/bin/env'); \
         os.link(W + '/file', W + '/hard'); os.truncate(W + '/file', 0); write('/dev/null')",
        &[name(outside.path())],
    );
    assert_eq!(fs::read_to_string(outside.path().join("file")).expect("it is there"), "as it was");
    assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 2);
}

#[test]
fn rows_8_to_11_nobody_else_is_reached() {
    let name = format!("toka-landlock-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("it is free");
    row(
        r#"
import socket
for number, what in {101: "ptrace", 310: "process_vm_readv", 438: "pidfd_getfd", 312: "kcmp", 272: "unshare",
                     165: "mount", 161: "chroot", 308: "setns", 250: "keyctl", 321: "bpf", 298: "perf_event_open",
                     323: "userfaultfd", 319: "memfd_create", 164: "settimeofday", 169: "reboot"}.items():
    refused(what, "EPERM", lambda: raw(number, 0, 0, 0, 0, 0))
refused("io_uring_setup", "ENOSYS", lambda: raw(425, 1, bytes(120)))
for family in range(1, 48):
    for kind in [1, 2, 3, 5]:
        refused(f"socket {family} {kind}", "EPERM", lambda: raw(41, family, kind, 0))
refused("datagram pair", "EPERM", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
"#,
        "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
        &[&name],
    );
}

#[test]
fn rows_17_and_28_signals_and_scheduling_reach_the_own_processes_only() {
    let supervisor = std::process::id().to_string();
    row(
        r#"
import fcntl, signal
for pid in [int(sys.argv[1]), os.getppid(), 1]:
    for s in [0, signal.SIGSTOP, signal.SIGKILL]:
        refused(f"signal {s}", "EPERM", lambda: os.kill(pid, s))
        refused(f"tgkill {s}", "EPERM", lambda: raw(234, pid, pid, s))
        refused(f"pidfd {s}", "EPERM", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), s))
    refused("affinity", "EPERM", lambda: os.sched_setaffinity(pid, {0}))
    refused("priority", "EPERM", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
"#,
        r#"
import signal
child = os.fork()
if child == 0:
    signal.pause()
os.kill(child, signal.SIGKILL); assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
"#,
        &[&supervisor],
    );
}

#[test]
fn row_25_no_file_gives_privileges() {
    row(
        r#"
holds("no new privileges", raw(157, 39, 0, 0, 0, 0) == 1)
holds("not root", os.getuid() != 0 and os.geteuid() != 0)
refused("setuid", "EPERM EINVAL", lambda: os.setuid(0))
for capability in range(41):
    holds(f"bounding set without {capability}", raw(157, 23, capability, 0, 0, 0) == 0 or os.getuid() != 0)
    refused(f"ambient {capability}", "EPERM", lambda: raw(157, 47, 2, capability, 0, 0))
for limit in ["CORE", "MEMLOCK"]:
    import resource
    holds(limit, resource.getrlimit(getattr(resource, "RLIMIT_" + limit)) == (0, 0))
refused("sparse", "EFBIG", lambda: os.truncate(os.open(W + "/a", os.O_CREAT | os.O_RDWR), 1 << 40))
"#,
        "pass",
        &[],
    );
}

#[test]
fn row_16_nobody_survives_the_launcher() {
    let daemons = r#"
import signal
ready, say = os.pipe()
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
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
        for (last, killed) in [("os._exit(0)", false), ("signal.pause()", true)] {
            let inside = folder();
            let (mut read, write) = std::io::pipe().expect("a pipe");
            let mut plan = script(&format!("{daemons}\n{last}"), &[], inside.path());
            let input = plan.input(OwnedFd::from(write));
            plan.spec.pass = vec![input];
            let mut jail = plan.start(who);
            jail.release();
            let mut five = [0; 5];
            read.read_exact(&mut five).expect("five daemons");
            if killed {
                jail.signal(Signal::QUIT);
            }
            assert_eq!(read.read(&mut five).expect("a pipe"), 0);
            let ended = jail.end();
            let expected = if killed { Signal::KILL.as_raw() } else { 0 };
            assert_eq!((ended.failed, ended.wait), (None, Some(expected)), "{ended:#?}");
        }
    }
}

#[test]
fn the_layers_say_what_is_weaker() {
    for who in As::each() {
        let inside = folder();
        let ended = Plan::landlock("/bin/true", &[], name(inside.path())).run(who);
        ended.succeeded();
        let must = layers::LANDLOCK
            | layers::LANDLOCK_NET
            | layers::SECCOMP
            | layers::SECCOMP_METADATA
            | layers::SECCOMP_MEMORY
            | layers::LIMITS
            | layers::NO_PRIVILEGES
            | if ended.landlock_abi >= 6 { layers::LANDLOCK_SCOPE } else { layers::SECCOMP_SIGNALS };
        assert_eq!(ended.layers, must, "{:#b}", ended.layers ^ must);
    }
}
