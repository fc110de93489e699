//! Limits: processes, space, memory and processor time end where they were said to.

use rustix::process::Signal;
use toka_jail::spec::Tmpfs;

use crate::attack::{both, landlock, strong, strong_script};
use crate::supervisor::As;

#[test]
fn row_12_a_fork_bomb_stops_at_its_limit() {
    strong(
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
fn row_12_a_fork_bomb_stops_at_the_limit_of_its_user_at_landlock() {
    landlock(
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
holds(f"{len(children)} of less than 128", len(children) < 128)
"#,
        r#"
for round in range(20):
    children = [os.fork() or os._exit(0) for _ in range(4)]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"#,
        &[],
        // All processes of the user count, those of other tests too, so the bound is one that they do not reach.
        |plan| plan.spec.limits.pids = 128,
    );
}

#[test]
fn row_14_a_file_at_landlock_ends_at_its_limit_and_there_is_no_other_place() {
    // How much lies in the workspace in all is the supervisor's to watch.
    landlock(
        r#"
def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
refused("fill the workspace", "EFBIG", lambda: fill(W + "/fill"))
holds("bounded", os.stat(W + "/fill").st_size == 4 << 20)
for top in ["/tmp", "/var/tmp", "/dev/shm", "/run", "/"]:
    refused("fill " + top, "EACCES EROFS ENOENT", lambda: fill(top + "/fill"))
    refused("folder in " + top, "EACCES EROFS ENOENT EPERM", lambda: os.mkdir(top + "/litter"))
"#,
        "write(W + '/a', bytes(1 << 20)); os.mkdir(W + '/b'); write(W + '/b/c', bytes(4 << 20))",
        &[],
        |plan| plan.spec.limits.file_bytes = 4 << 20,
    );
}

#[test]
fn row_14_a_full_file_system_stays_its_own_affair() {
    strong(
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
fn row_27_limits_stay() {
    both(
        r#"
import resource, signal
refused("sparse", "EFBIG", lambda: os.truncate(os.open(W + "/a", os.O_CREAT | os.O_RDWR), 1 << 40))
def far():
    os.pwrite(os.open(W + "/b", os.O_CREAT | os.O_RDWR), b"x", 1 << 40)
refused("write far away", "EFBIG", far)
refused("allocate", "EFBIG ENOSPC", lambda: os.posix_fallocate(os.open(W + "/c", os.O_CREAT | os.O_RDWR), 0, 1 << 40))
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
    os.chdir(W); os.abort()
status = os.waitpid(child, 0)[1]
holds("no core", os.WTERMSIG(status) == signal.SIGABRT and not os.WCOREDUMP(status))
holds("no core file", not [name for name in os.listdir(W) if "core" in name])
def memory():
    import mmap
    mmap.mmap(-1, 2 << 30)
refused("address space", "ENOMEM", memory)
refused("descriptors", "EMFILE", files)
"#,
        "import resource; write(W + '/a', bytes(1 << 20)); resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))",
        &[],
        |_| {},
    );
}

#[test]
fn row_27_processor_time_ends() {
    for who in As::each() {
        let mut plan = strong_script("while True: pass", &[]);
        plan.spec.limits.cpu_s = 1;
        let ended = plan.run(who);
        assert_eq!((ended.failed, ended.wait), (None, Some(Signal::KILL.as_raw())), "{ended:#?}");
    }
}
