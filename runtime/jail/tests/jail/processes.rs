//! Processes: nobody outside is seen, looked into, signalled or slowed, and nobody survives the jail.

use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use crate::attack::{both, folder, landlock, landlock_script, strong, strong_script};
use crate::supervisor::As;

#[test]
fn row_7_other_processes_are_not_to_be_seen() {
    let supervisor = std::process::id().to_string();
    strong(
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
    both(
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
            let mut plan = strong_script(&format!("{daemons}\n{last}"), &[]);
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
        let mut plan = strong_script(
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
    strong(
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
fn row_28_nobody_elses_scheduling_is_changed() {
    let supervisor = std::process::id().to_string();
    both(
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
fn rows_17_and_28_signals_and_scheduling_reach_the_own_processes_only() {
    let supervisor = std::process::id().to_string();
    landlock(
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
        |_| {},
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
            let mut plan = landlock_script(&format!("{daemons}\n{last}"), &[], inside.path());
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
