//! `toka doctor` tells what this machine holds.

use serde_json::Value;

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
