//! Descriptors, terminals and devices: exactly those that were given.

use std::os::fd::OwnedFd;

use crate::attack::{both, landlock, strong};
use crate::supervisor::holding;

#[test]
fn row_18_the_program_has_exactly_the_mapped_descriptors() {
    let key = holding(b"a key");
    // As a careless library leaves it: open, and inherited by every process that starts.
    rustix::io::fcntl_setfd(&key, rustix::io::FdFlags::empty()).expect("it is open");
    let _others: Vec<OwnedFd> = (0..500).map(|_| rustix::io::fcntl_dupfd_cloexec(&key, 0).expect("room")).collect();
    both(
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
    both(
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
    refused(path, "ENOENT" if LEVEL == "strong" else "ENOENT EACCES", lambda: os.open(path, os.O_RDWR))
refused("no terminal of its own", "ENOTTY EPERM", lambda: os.tcgetpgrp(0))
"#,
        "import termios; termios.tcgetattr(0)",
        &[],
        |plan| plan.stdin = Some(slave.try_clone().expect("a copy")),
    );
}

#[test]
fn row_24_only_harmless_devices_are_there() {
    strong(
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
fn row_24_only_harmless_devices_are_open_at_landlock() {
    landlock(
        r#"
import stat
for name in ["mem", "kmem", "port", "kvm", "loop0", "loop-control", "fuse", "vda", "sda", "kmsg", "net/tun", "vsock",
             "userfaultfd", "uinput", "snapshot", "mapper/control", "tty", "ptmx", "shm"]:
    for flags in [os.O_RDONLY, os.O_WRONLY, os.O_RDWR]:
        refused(f"open {name} {flags}", "EACCES ENOENT EISDIR", lambda: os.open("/dev/" + name, flags))
for top in [W, W + "/sub", "/tmp", "/dev"]:
    for kind in [stat.S_IFCHR, stat.S_IFBLK]:
        refused("mknod in " + top, "EPERM", lambda: os.mknod(top + "/node", kind | 0o666, os.makedev(1, 1)))
        refused("mknodat in " + top, "EPERM", lambda: raw(259, -100, (top + "/node").encode(), kind | 0o666, 0x101))
refused("chmod of a device", "EPERM", lambda: os.chmod("/dev/null", 0o600))
refused("unlink of a device", "EACCES EPERM", lambda: os.unlink("/dev/null"))
refused("list", "EACCES", lambda: os.listdir("/dev"))
"#,
        r#"
assert text("/dev/null") == b""; write("/dev/null"); open("/dev/null", "a+b").close()
assert len(os.read(os.open("/dev/urandom", os.O_RDONLY), 16)) == 16
assert os.read(os.open("/dev/zero", os.O_RDONLY), 4) == bytes(4)
try:
    os.write(os.open("/dev/full", os.O_WRONLY), b"x"); assert False
except OSError as error:
    assert error.errno == errno.ENOSPC
"#,
        &[],
        |_| {},
    );
}
