//! The launcher that stands by: what it holds, what it leaves, and whose death is whose.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use toka_jail::handing::Handed;
use toka_jail::standing::Standing;

use crate::supervisor::{As, Plan, StandsBy, holding};

/// What stands in the arguments, the environment, the files and the output of a call.
const NEEDLE: &str = "needle-4d1b-of-one-call";

/// What a process is, and what it holds, as far as any call could change it.
fn shown(id: u32) -> (Vec<(String, PathBuf)>, Vec<String>) {
    let fds = fs::read_dir(format!("/proc/{id}/fd")).expect("it lives").map(|entry| entry.expect("an entry"));
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut fds: Vec<_> = fds.map(|entry| (name(&entry), fs::read_link(entry.path()).expect("a link"))).collect();
    fds.sort();
    let text = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).expect("it lives");
    let kept = ["Umask", "Uid", "Gid", "Groups", "Threads", "Sig", "Shd", "Cap", "NoNewPrivs", "Seccomp", "NSpid"];
    let is_kept = |line: &&str| kept.iter().any(|name| line.starts_with(name));
    let mut rest: Vec<String> = text("status").lines().filter(is_kept).map(str::to_owned).collect();
    rest.extend(["limits", "environ", "cgroup", "mountinfo", "comm"].map(text));
    let link = |name: &str| fs::read_link(format!("/proc/{id}/{name}")).expect("a link").display().to_string();
    rest.extend(["cwd", "root", "ns/user", "ns/mnt", "ns/pid_for_children", "ns/net"].map(link));
    (fds, rest)
}

/// How often `needle` lies in memory that a process may write to.
fn found_in_memory(id: u32, needle: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("it lives");
    let memory = File::open(format!("/proc/{id}/mem")).expect("it may be looked into");
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let mut bytes = vec![0; (number(to) - number(from)) as usize];
        memory.read_exact_at(&mut bytes, number(from)).expect("it is mapped");
        found += bytes.windows(needle.len()).filter(|window| *window == needle).count();
    }
    found
}

#[test]
fn nothing_of_a_call_stays_in_the_launcher_that_stands_by() {
    for who in As::each() {
        Plan::strong("/bin/true", &[]).run(who).succeeded();
        let id = StandsBy::id(who);
        let before = shown(id);
        let links: Vec<&PathBuf> = before.0.iter().map(|(_, link)| link).collect();
        assert!(links.len() == 3 && links[0] == links[1] && links[1] == links[2], "{links:?}");
        assert!(links[0].to_string_lossy().starts_with("socket:"), "{links:?}");
        let mut plan = Plan::strong("/bin/sh", &["-c", "cat /run/needle; echo $NEEDLE $0", NEEDLE]);
        plan.spec.env.push(("NEEDLE".to_owned(), NEEDLE.to_owned()));
        plan.file("/run/needle", 0o444, NEEDLE.as_bytes());
        let mut jail = plan.start(who);
        assert!(jail.ready());
        assert_eq!(shown(id), before, "while a call stands ready");
        jail.go();
        while jail.record().is_some() {}
        let ended = jail.end();
        assert_eq!(ended.succeeded().stdout, format!("{NEEDLE}{NEEDLE} {NEEDLE}\n"));
        // And one that fails, and one at the other level.
        let mut plan = Plan::strong("/bin/absent", &[NEEDLE]);
        plan.spec.env.push(("NEEDLE".to_owned(), NEEDLE.to_owned()));
        assert!(plan.run(who).failed.is_some());
        let folder = crate::attack::folder();
        Plan::landlock("/bin/echo", &[NEEDLE], folder.path().to_str().expect("UTF-8")).run(who).succeeded();
        assert_eq!(StandsBy::id(who), id, "all of them were calls of one launcher");
        assert_eq!(shown(id), before, "after calls");
        // It would be found where it is.
        assert!(found_in_memory(std::process::id(), NEEDLE.as_bytes()) > 0);
        assert_eq!(found_in_memory(id, NEEDLE.as_bytes()), 0);
    }
}

#[test]
fn calls_outlive_the_launcher_that_made_theirs() {
    for who in As::each() {
        let mut stands = StandsBy::start(who);
        let mut early = Plan::strong("/bin/echo", &["early"]).start_by(&stands).expect("it stands by");
        let folder = crate::attack::folder();
        let path = folder.path().to_str().expect("UTF-8");
        let mut weak = Plan::landlock("/bin/echo", &["weak"], path).start_by(&stands).expect("it stands by");
        assert!(early.ready());
        stands.process.kill().expect("it is ours");
        stands.process.wait().expect("it is ours");
        assert!(Plan::strong("/bin/echo", &["late"]).start_by(&stands).is_none(), "nobody stands by");
        early.go();
        while early.record().is_some() {}
        weak.release();
        assert_eq!(early.end().succeeded().stdout, "early\n");
        assert_eq!(weak.end().succeeded().stdout, "weak\n");
    }
}

#[test]
fn a_launcher_that_stands_by_ends_with_its_socket() {
    for who in As::each() {
        let mut stands = StandsBy::start(who);
        let mut jail = Plan::strong("/bin/echo", &["still"]).start_by(&stands).expect("it stands by");
        let (other, _) = Standing::pair().expect("a socket pair");
        drop(std::mem::replace(&mut stands.standing, other));
        assert_eq!(stands.process.wait().expect("it is ours").code(), Some(0));
        jail.release();
        assert_eq!(jail.end().succeeded().stdout, "still\n");
    }
}

#[test]
fn a_launcher_that_stands_by_dies_with_the_thread_that_started_it_and_so_do_its_calls() {
    for who in As::each() {
        let (read, write) = std::io::pipe().expect("a pipe");
        let thread = std::thread::spawn(move || {
            let stands = StandsBy::start(who);
            let mut plan = Plan::strong("/bin/cat", &[]);
            plan.stdin = Some(read.into());
            let mut jail = plan.start_by(&stands).expect("it stands by");
            jail.release();
            (stands, jail)
        });
        let (mut stands, jail) = thread.join().expect("it ends well");
        let status = stands.process.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
        let ended = jail.end();
        assert_eq!((ended.failed, ended.wait), (None, None), "{ended:#?}");
        drop(write);
    }
}

#[test]
fn a_launcher_that_cannot_be_made_says_why() {
    // Nobody bounds how many processes root has.
    let who = As::each().pop().expect("somebody");
    let mut stands = StandsBy::start(who);
    let mut jail = Plan::strong("/bin/true", &[]).start_by(&stands).expect("it stands by");
    jail.release();
    jail.end().succeeded();
    let ask = |stands: &StandsBy| {
        let null = || File::open("/dev/null").expect("it is there").into();
        let handed = Handed { status: null(), spec: holding(b""), result: null(), stdin: null(), inputs: vec![] };
        let made = stands.standing.launch(&handed, handed.stdin.as_fd(), handed.stdin.as_fd());
        made.map(|made| made.is_some()).map_err(|error| Errno::from_io_error(&error))
    };
    // Set by a process of the same user, since this one may have another.
    let pid = Pid::from_child(&stands.process);
    let script = format!("import resource as r; r.prlimit({}, r.RLIMIT_NPROC, (0, 0))", pid.as_raw_nonzero());
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", &script]);
    if who == As::Nobody {
        command.uid(65_534).gid(65_534);
    }
    assert!(command.status().expect("it starts").success());
    assert_eq!(ask(&stands), Err(Some(Errno::AGAIN)));
    // It stands by all the same, unless it is stopped: that is not waited out.
    assert_eq!(ask(&stands), Err(Some(Errno::AGAIN)));
    rustix::process::kill_process(pid, Signal::STOP).expect("it is ours");
    assert_eq!(ask(&stands), Err(Some(Errno::TIMEDOUT)));
    stands.process.kill().expect("it is ours");
    stands.process.wait().expect("it is ours");
    assert_eq!(ask(&stands), Ok(false));
}
