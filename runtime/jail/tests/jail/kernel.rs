//! Parts of the kernel that no program needs: namespaces, mounts, keyrings, foreign ABIs, administration.

use crate::attack::both;
use crate::supervisor::{As, Plan};

#[test]
fn row_20_no_namespace_and_no_mount_is_made() {
    both(
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
if LEVEL == "strong":
    mounts = text("/proc/self/mountinfo").decode()
    holds("its mounts are nobody else's: " + mounts, not any(tag in mounts for tag in [" shared:", " master:"]))
fd = os.open("/proc/self/ns/user", os.O_RDONLY)
refused("setns own", "EPERM", lambda: raw(308, fd, 0))
for number, name in {165: "mount", 166: "umount2", 155: "pivot_root", 161: "chroot", 428: "open_tree",
                     429: "move_mount", 430: "fsopen", 431: "fsconfig", 432: "fsmount", 433: "fspick",
                     442: "mount_setattr", 467: "open_tree_attr", 303: "name_to_handle_at",
                     304: "open_by_handle_at"}.items():
    refused(name, "EPERM", lambda: raw(number, W.encode(), b"/tmp", 0, 0, 0))
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
    both(
        r#"
for what in range(0, 33):
    refused(f"keyctl {what}", "EPERM", lambda: raw(250, what, -3, 0, 0, 0))
for ring in range(-8, 0):
    refused(f"add_key {ring}", "EPERM", lambda: raw(248, b"user", b"x", b"y", 1, ring))
    refused(f"request_key {ring}", "EPERM", lambda: raw(249, b"user", b"x", 0, ring))
refused("list of keys", "ENOENT EACCES", lambda: text("/proc/keys"))
"#,
        "pass",
        &[],
        |_| {},
    );
}

#[test]
fn row_22_large_parts_of_the_kernel_are_closed() {
    both(
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
    both(
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
fn row_26_the_machine_is_not_administered() {
    both(
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
refused("swapon", "EPERM", lambda: raw(167, (W + "/x").encode(), 0))
refused("acct", "EPERM", lambda: raw(163, 0))
refused("quotactl", "EPERM", lambda: raw(179, 0, 0, 0, 0))
refused("iopl", "EPERM", lambda: raw(172, 3))
refused("ioperm", "EPERM", lambda: raw(173, 0, 1, 1))
refused("modify_ldt", "EPERM", lambda: raw(154, 0, bytes(16), 16))
"#,
        "import socket, time; assert LEVEL != 'strong' or socket.gethostname() == 'toka'; assert time.time() > 1_700_000_000",
        &[],
        |_| {},
    );
}
