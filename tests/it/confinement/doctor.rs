//! `toka doctor` tells what this machine holds.

use std::process::Command;

use serde_json::Value;
use toka_tests::programs::program;

use super::Lab;

#[test]
fn the_doctor_tells_what_this_machine_holds() {
    let me = rustix::process::geteuid().as_raw();
    let ran = Lab::of(me).toka(&["doctor"]);
    // Numbers differ between machines, and so does what a kernel or a path is called.
    ran.expect(0);
    let told: String = ran.to_string().lines().map(plain).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(told, @r"
    $ toka doctor
    kernel <kernel>
    [ok]   strong: self-test <n>/<n>, landlock ABI <n>
    [ok]   landlock: self-test <n>/<n>, landlock ABI <n>
    [warn] cgroup: not used in this version -> memory: bounded (per process, and a poll of the sum)
    [ok]   toolchain python<n>: <path>
    [ok]   toolchain sh: <path>
    effective: strong landlock
    --- exit <n>
    ");
}

/// A line with every run of digits as `<n>`.
fn plain(line: &str) -> String {
    let line = match line.split_once(": /") {
        Some((before, _)) => format!("{before}: <path>"),
        None if line.starts_with("kernel ") => "kernel <kernel>".to_owned(),
        None => line.to_owned(),
    };
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if out.ends_with("<n>") => {}
            '0'..='9' => out.push_str("<n>"),
            _ => out.push(c),
        }
    }
    out
}

#[test]
fn the_doctor_tells_programs_the_same() {
    Lab::each(|lab| {
        let ran = lab.toka(&["doctor", "--json"]);
        ran.expect(0);
        let said: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!((&said["schema"], &said["exit"]), (&"toka/doctor/1".into(), &0.into()));
        assert_eq!(said["user"], lab.user);
        for (level, name) in said["levels"].as_array().expect("levels").iter().zip(["strong", "landlock"]) {
            assert_eq!((&level["level"], &level["holds"], &level["why"]), (&name.into(), &true.into(), &Value::Null));
            let steps = level["self_test"]["steps"].as_array().expect("steps");
            assert!(steps.len() > 50 && steps.iter().all(|step| step["ok"] == true), "{level}");
        }
        for toolchain in said["toolchains"].as_array().expect("toolchains") {
            assert!(std::path::Path::new(toolchain["path"].as_str().expect("a path")).is_file(), "{toolchain}");
        }
        for number in [&said["kernel"], &said["machine"], &said["memory"]] {
            assert!(number.is_string(), "{said}");
        }
    });
}

/// What the doctor tells in a place that a shell has made, from the second line on; the first is about the machine.
/// `None` where this process may make none: only root can hide files and set limits in a namespace of its own and yet be
/// somebody for whom jails are made.
fn told_in(place: &str) -> Option<String> {
    rustix::process::geteuid().is_root().then_some(())?;
    let lab = Lab::of(0);
    let like = lab.command(&["doctor"]);
    let mut command = Command::new("unshare");
    let script = place.replace("TOKA", &program("toka").display().to_string());
    command.args(["--mount", "/bin/sh", "-c", &script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = lab.ran(&["doctor"], &mut command);
    let (said, exit) = (ran.out.lines().skip(1).map(plain), format!("exit {:?}", ran.exit));
    Some(said.chain([exit]).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_level_that_cannot_be_had_is_told_with_its_step_and_its_fix() {
    // A user namespace that has all users and may have no other below it.
    let told = told_in(
        r#"
mount -t tmpfs none /mnt && mkfifo /mnt/pid /mnt/go || exit 70
echo 'echo 0 > /proc/sys/user/max_user_namespaces && exec TOKA doctor' > /mnt/inside
unshare --user /bin/sh -c 'echo $$ > /mnt/pid; read go < /mnt/go; exec /bin/sh /mnt/inside' &
read pid < /mnt/pid
for map in gid_map uid_map; do echo 0 0 100000 > /proc/$pid/$map; done
echo > /mnt/go
wait $!
"#,
    );
    let Some(told) = told else { return };
    insta::assert_snapshot!(told, @r"
    [fail] strong: step unshare: No space left on device (os error <n>)
           fix: allow user namespaces: sysctl kernel.unprivileged_userns_clone=<n> user.max_user_namespaces=<n> kernel.apparmor_restrict_unprivileged_userns=<n>; in a container, run it with user namespaces allowed
    [ok]   landlock: self-test <n>/<n>, landlock ABI <n>
    [warn] cgroup: not used in this version -> memory: bounded (per process, and a poll of the sum)
    [ok]   toolchain python<n>: <path>
    [ok]   toolchain sh: <path>
    effective: landlock
    exit Some(9)
    ");
}

#[test]
fn a_missing_toolchain_is_told_with_its_fix() {
    let told = told_in("mount -t tmpfs none /usr/local/bin && mount -t tmpfs none /usr/bin && exec TOKA doctor");
    let Some(told) = told else { return };
    insta::assert_snapshot!(told, @r"
    [ok]   strong: self-test <n>/<n>, landlock ABI <n>
    [ok]   landlock: self-test <n>/<n>, landlock ABI <n>
    [warn] cgroup: not used in this version -> memory: bounded (per process, and a poll of the sum)
    [fail] toolchain python<n>: not in /usr/bin, /bin, /usr/local/bin
           fix: install python<n>
    [fail] toolchain sh: not in /usr/bin, /bin, /usr/local/bin
           fix: install sh
    effective: strong landlock
    exit Some(1)
    ");
}

#[test]
fn a_level_that_cannot_be_tried_is_told_with_what_it_takes() {
    // The programs may lie below the folder that is hidden.
    let beside = "cp TOKA $(dirname TOKA)/toka-jail /mnt/";
    let place = format!(
        "mount -t tmpfs none /mnt && {beside} && mount -t tmpfs -o ro none /tmp && cd / && exec /mnt/toka doctor"
    );
    let Some(told) = told_in(&place) else { return };
    insta::assert_snapshot!(told, @r"
    [ok]   strong: self-test <n>/<n>, landlock ABI <n>
    [fail] landlock: not tried: the launcher could not begin: Read-only file system (os error <n>)
           fix: the test needs executable memory files and a writable folder for temporary files
    [warn] cgroup: not used in this version -> memory: bounded (per process, and a poll of the sum)
    [ok]   toolchain python<n>: <path>
    [ok]   toolchain sh: <path>
    effective: strong
    exit Some(4)
    ");
}
