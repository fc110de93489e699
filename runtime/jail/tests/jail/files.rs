//! Files: what lies outside is not there, or closed; what may be read is not changed.

use std::fs;
use std::io::Write;

use toka_jail::spec::Mask;

use crate::attack::{folder, landlock, name, strong};

#[test]
fn row_1_files_outside_are_not_there() {
    let outside = folder();
    let secret = outside.path().join("file");
    let inside = folder();
    strong(
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
    strong(
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
    strong(
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
    strong(
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
    strong(
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
    strong(
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
fn rows_1_to_4_files_outside_are_closed() {
    let outside = folder();
    landlock(
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
        |_| {},
    );
    assert_eq!(fs::read_to_string(outside.path().join("file")).expect("it is there"), "as it was");
    assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 2);
}
