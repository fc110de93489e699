//! What the launcher and its supervisor say to each other, and how the launcher fails.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use toka_jail::spec::{Identity, Mask, Net};
use toka_jail::status::{FAILED, Fault, GO, Record, Stage};

use crate::supervisor::{As, Plan, holding};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_trivial_program_runs() {
    for who in As::each() {
        Plan::strong("/bin/true", &[]).run(who).succeeded();
    }
}

#[test]
fn shell_and_python_run_as_somebody_without_a_name() {
    for who in As::each() {
        let ended = Plan::strong("/bin/sh", &["-c", "echo $$; id -u; pwd; exit 9"]).run(who);
        assert_eq!((ended.wait, ended.stdout.as_str()), (Some(9 << 8), "2\n1000\n/workspace\n"), "{ended:#?}");
        let ended = Plan::strong("/usr/bin/python3", &["-c", "import os; print(os.getuid(), os.getpid())"]).run(who);
        assert_eq!(ended.succeeded().stdout, "1000 2\n");
    }
}

#[test]
fn a_program_runs_from_its_descriptor_and_no_name_leads_to_it() {
    for who in As::each() {
        let mut plan = Plan::strong(
            "/nowhere",
            &["-c", "for n in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$n ] && echo $n; done; echo /nowhere*; exit 9"],
        );
        let shell = fs::read("/bin/sh").expect("it is there");
        plan.spec.image = Some(plan.input(holding(&shell)));
        let ended = plan.run(who);
        assert_eq!((ended.wait, ended.stdout.as_str()), (Some(9 << 8), "/nowhere*\n"), "{ended:#?}");
        let mut plan = Plan::strong("/bin/true", &[]);
        plan.spec.image = Some(plan.input(holding(b"no program")));
        let ended = plan.run(who);
        let fault = Fault { stage: Stage::Exec, errno: Errno::NOEXEC.raw_os_error() };
        assert_eq!((ended.failed, ended.wait), (Some(fault), Some(FAILED << 8)), "{ended:#?}");
    }
}

#[test]
fn the_environment_is_what_the_spec_says() {
    for who in As::each() {
        let mut plan = Plan::strong("/usr/bin/env", &[]);
        plan.spec.env = vec![("ONLY".to_owned(), "this".to_owned())];
        assert_eq!(plan.run(who).succeeded().stdout, "ONLY=this\n");
    }
}

#[test]
fn nothing_runs_before_the_release() {
    for who in As::each() {
        let mut plan = Plan::strong("/bin/sh", &["-c", "cat input; echo out > output"]);
        plan.file("/workspace/input", 0o644, b"from the supervisor\n");
        let mut jail = plan.start(who);
        assert!(jail.ready());
        let workspace = jail.workspace.as_ref().expect("it was handed out").try_clone().expect("a copy");
        let names = |workspace: &OwnedFd| -> Vec<String> {
            let entries = rustix::fs::Dir::read_from(workspace).expect("a folder");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&workspace), [".", "..", "input"]);
        jail.go();
        while jail.record().is_some() {}
        let ended = jail.end();
        assert_eq!(ended.succeeded().stdout, "from the supervisor\n");
        // The jail is gone; what it wrote is not.
        assert_eq!(names(&workspace), [".", "..", "input", "output"]);
        let output = rustix::fs::openat(
            &workspace,
            "output",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let mut text = String::new();
        fs::File::from(output.expect("it is there")).read_to_string(&mut text).expect("a file");
        assert_eq!(text, "out\n");
    }
}

#[test]
fn a_supervisor_places_inputs_of_a_jail_that_is_its_own_user() {
    if is_root() {
        return root_cannot_create_in_a_workspace();
    }
    let mut jail = Plan::strong("/bin/cat", &["/workspace/input"]).start(As::Same);
    assert!(jail.ready());
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::openat(jail.workspace.as_ref().expect("here"), "input", flags, 0o644.into());
    fs::File::from(file.expect("the folder is ours")).write_all(b"placed").expect("room");
    jail.go();
    while jail.record().is_some() {}
    assert_eq!(jail.end().succeeded().stdout, "placed");
}

/// Root has no id inside, so it owns nothing there; the spec carries its inputs.
fn root_cannot_create_in_a_workspace() {
    let mut jail = Plan::strong("/bin/true", &[]).start(As::Same);
    assert!(jail.ready());
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::openat(jail.workspace.as_ref().expect("here"), "input", flags, 0o644.into());
    assert_eq!(file.map(drop), Err(Errno::OVERFLOW));
    jail.go();
    while jail.record().is_some() {}
    jail.end().succeeded();
}

#[test]
fn the_supervisor_gets_the_listener_of_the_proxy() {
    for who in As::each() {
        let script =
            "import socket\nwith socket.create_connection(('127.0.0.1', 3128)) as s: print(s.recv(9).decode())";
        let mut plan = Plan::strong("/usr/bin/python3", &["-c", script]);
        plan.spec.net = Net::Proxy;
        let mut jail = plan.start(who);
        assert!(jail.ready());
        let listener = TcpListener::from(jail.listener.take().expect("a listener"));
        jail.go();
        let (mut peer, _) = listener.accept().expect("the program connects");
        peer.write_all(b"proxied").expect("it reads");
        drop(peer);
        while jail.record().is_some() {}
        assert_eq!(jail.end().succeeded().stdout, "proxied\n");
    }
}

#[test]
fn root_may_choose_whose_rights_the_program_has() {
    if !is_root() {
        return only_root_becomes_somebody_else();
    }
    for identity in [Identity::Become { uid: 70_002, gid: 70_002 }, Identity::Mapped] {
        let mut plan = Plan::strong("/bin/sh", &["-c", "id -u; id -g; echo x > /workspace/mine"]);
        plan.spec.identity = identity;
        let ended = plan.run(As::Same);
        assert_eq!(ended.succeeded().stdout, "1000\n1000\n");
        let file = rustix::fs::statat(
            ended.workspace.as_ref().expect("it was handed out"),
            "mine",
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
        assert_eq!(file.map(|stat| (stat.st_uid, stat.st_gid)), Ok((70_002, 70_002)));
    }
}

fn only_root_becomes_somebody_else() {
    let mut plan = Plan::strong("/bin/true", &[]);
    plan.spec.identity = Identity::Become { uid: 70_002, gid: 70_002 };
    assert_eq!(plan.run(As::Same).failed, Some(Fault { stage: Stage::Identity, errno: Errno::PERM.raw_os_error() }));
}

/// Runs `plan`, which must fail at `stage` with `errno` and start nothing.
#[track_caller]
fn fails(stage: Stage, errno: Errno, adapt: impl Fn(&mut Plan)) {
    for who in As::each() {
        let mut plan = Plan::strong("/bin/sh", &["-c", "echo started"]);
        adapt(&mut plan);
        let ended = plan.run(who);
        assert_eq!(ended.failed, Some(Fault { stage, errno: errno.raw_os_error() }), "{ended:#?}");
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn each_failure_says_where() {
    fails(Stage::Parent, Errno::SRCH, |plan| plan.spec.supervisor = 1);
    fails(Stage::Exec, Errno::NOENT, |plan| plan.spec.program = "/bin/absent".to_owned());
    fails(Stage::Exec, Errno::ACCESS, |plan| {
        plan.file("/tool/main", 0o444, b"#!/bin/sh\n");
        plan.spec.program = "/tool/main".to_owned();
    });
    fails(Stage::Target, Errno::NOENT, |plan| plan.spec.cwd = "/absent".to_owned());
    fails(Stage::Cgroup, Errno::BADF, |plan| {
        let input = plan.input(crate::supervisor::holding(b""));
        let read_only = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        plan.inputs[input as usize] = read_only.expect("it is there");
        plan.spec.cgroups = vec![input];
    });
    fails(Stage::Mount, Errno::ROFS, |plan| plan.mount("/dev", "/usr/absent/place", false, false));
    fails(Stage::File, Errno::EXIST, |plan| {
        plan.file("/tool/twice", 0o444, b"");
        plan.file("/tool/twice", 0o444, b"");
    });
    let folder = crate::attack::folder();
    fails(Stage::Mask, Errno::NOENT, |plan| {
        plan.mount(folder.path().to_str().expect("UTF-8"), "/roots/rw", true, false);
        let mount = plan.spec.mounts.len() as u32 - 1;
        plan.spec.masks.push(Mask { mount, path: ".git".to_owned() });
    });
    fails(Stage::File, Errno::NOSPC, |plan| {
        plan.file("/workspace/large", 0o444, &vec![0; 1 << 20]);
        plan.spec.workspace = plan.spec.workspace.map(|tmpfs| toka_jail::spec::Tmpfs { bytes: 4_096, ..tmpfs });
    });
}

#[test]
fn a_file_that_has_moved_is_not_mounted() {
    // Only where it is found by its path: a launcher that is root clones what is open.
    let who = if is_root() { As::Nobody } else { As::Same };
    let top = tempfile::tempdir().expect("a folder");
    fs::set_permissions(top.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let (folder, other) = (top.path().join("folder"), top.path().join("other"));
    fs::create_dir(&folder).expect("a folder");
    let mut plan = Plan::strong("/bin/true", &[]);
    plan.mount(folder.to_str().expect("UTF-8"), "/roots/a", false, false);
    fs::rename(&folder, &other).expect("ours");
    // The descriptor follows the rename, so this one is still found.
    plan.run(who).succeeded();
    let mut plan = Plan::strong("/bin/true", &[]);
    plan.mount(other.to_str().expect("UTF-8"), "/roots/a", false, false);
    fs::remove_dir(&other).expect("ours");
    fs::create_dir(&other).expect("another with the same name");
    let failed = plan.run(who).failed.expect("it is not the same");
    assert_eq!(failed.stage, Stage::Mount);
}

#[test]
fn a_supervisor_that_goes_away_leaves_nothing_running() {
    for who in As::each() {
        let mut jail = Plan::strong("/bin/sh", &["-c", "echo started"]).start(who);
        assert!(jail.ready());
        // Its end of the status socket closes without an answer.
        let (gone, _) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket pair");
        drop(std::mem::replace(&mut jail.status, gone));
        let ended = jail.end();
        assert_eq!((ended.wait, ended.stdout.as_str()), (None, ""), "{ended:#?}");
    }
}

#[test]
fn another_answer_is_none() {
    for who in As::each() {
        let mut jail = Plan::strong("/bin/sh", &["-c", "echo started"]).start(who);
        assert!(jail.ready());
        rustix::net::send(&jail.status, b"goo", rustix::net::SendFlags::NOSIGNAL).expect("it listens");
        let (record, _) = jail.record().expect("a record");
        assert!(matches!(record, Record::Failed(Fault { stage: Stage::Release, .. })), "{record:?}");
        assert_ne!(GO, b"goo");
        assert_eq!(jail.end().stdout, "");
    }
}
