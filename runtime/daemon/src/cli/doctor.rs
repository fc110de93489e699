//! `toka doctor`: what this machine can hold, found out by trying it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use toka_runtime::sandbox::{SelfTest, TOOLCHAIN_FOLDERS, TOOLCHAINS, find_toolchain};

use super::failure::{Failure, exit};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Tries every level and every toolchain. Exit 0 if level `strong` holds and all else is well, 9 if it does not, 1 if
/// something else is missing, 4 if something could not be tried.
pub(crate) fn run(doctor: &Doctor) -> Result<u8, Failure> {
    let levels: Vec<Tried> = ["strong", "landlock"].map(Tried::of).into();
    let toolchains: Vec<(&str, Option<PathBuf>)> = TOOLCHAINS.map(|name| (name, find_toolchain(name))).into();
    let missing = toolchains.iter().any(|(_, path)| path.is_none());
    let code = match (levels[0].holds(), levels.iter().any(|tried| tried.test.is_none()), missing) {
        (false, ..) => exit::SANDBOX,
        (true, true, _) => exit::INCOMPLETE,
        (true, false, true) => exit::FAILURE,
        (true, false, false) => exit::OK,
    };
    let mut out = std::io::stdout().lock();
    if doctor.json {
        let programs: Vec<Value> =
            toolchains.iter().map(|(name, path)| json!({ "name": name, "path": path })).collect();
        let tests: Vec<Value> = levels.iter().map(Tried::json).collect();
        writeln!(
            out,
            "{}",
            json!({
                "schema": "toka/doctor/1", "kernel": kernel(), "machine": std::env::consts::ARCH,
                "user": user_id(), "levels": tests, "toolchains": programs, "memory": "bounded", "exit": code,
            })
        )?;
        return Ok(code);
    }
    writeln!(out, "kernel {} {}   {}", kernel(), std::env::consts::ARCH, whose())?;
    for tried in &levels {
        for line in tried.lines() {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out, "[warn] cgroup: not used in this version -> memory: bounded (per process, and a poll of the sum)")?;
    for (name, path) in &toolchains {
        match path {
            Some(path) => writeln!(out, "[ok]   toolchain {name}: {}", path.display())?,
            None => writeln!(
                out,
                "[fail] toolchain {name}: not in {}\n       fix: install {name}",
                TOOLCHAIN_FOLDERS.join(", ")
            )?,
        }
    }
    let effective: Vec<&str> = levels.iter().filter(|tried| tried.holds()).map(|tried| tried.level).collect();
    let word = if effective.is_empty() { "none".to_owned() } else { effective.join(" ") };
    writeln!(out, "effective: {word}")?;
    Ok(code)
}

/// A level and what came of trying it.
struct Tried {
    level: &'static str,
    test: Option<SelfTest>,
    why: Option<String>,
}

impl Tried {
    fn of(level: &'static str) -> Tried {
        let Some(launcher) = super::tools::launcher() else {
            return Tried { level, test: None, why: Some("there is no launcher".to_owned()) };
        };
        match launcher.self_test(level) {
            Ok(test) => Tried { level, test: Some(test), why: None },
            Err(error) => Tried { level, test: None, why: Some(error.to_string()) },
        }
    }

    fn holds(&self) -> bool {
        self.test.as_ref().is_some_and(|test| test.ok)
    }

    fn json(&self) -> Value {
        json!({ "level": self.level, "holds": self.holds(), "why": self.why, "self_test": self.test })
    }

    fn lines(&self) -> Vec<String> {
        let level = self.level;
        let Some(test) = &self.test else {
            let why = self.why.as_deref().unwrap_or("unknown");
            return vec![
                format!("[fail] {level}: not tried: {why}"),
                "       fix: the test needs executable memory files and a writable folder for temporary files"
                    .to_owned(),
            ];
        };
        if let Some(failed) = &test.failed {
            let error = std::io::Error::from_raw_os_error(failed.errno);
            return vec![
                format!("[fail] {level}: step {}: {error}", failed.stage),
                format!("       fix: {}", fix(&failed.stage)),
            ];
        }
        let passed = test.steps.iter().filter(|step| step.ok).count();
        let mark = if test.ok { "[ok]  " } else { "[fail]" };
        let landlock = test.landlock_abi;
        let first = format!("{mark} {level}: self-test {passed}/{}, landlock ABI {landlock}", test.steps.len());
        let through = test
            .steps
            .iter()
            .filter(|step| !step.ok)
            .map(|step| format!("       {}: {}", step.name, step.found.as_deref().unwrap_or("it got through")));
        std::iter::once(first).chain(through).collect()
    }
}

/// What to do where a step of the launcher fails.
fn fix(stage: &str) -> &'static str {
    match stage {
        "unshare" | "maps" => {
            "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000 \
             kernel.apparmor_restrict_unprivileged_userns=0; in a container, run it with user namespaces allowed"
        }
        "landlock" => "start the kernel with landlock among its security modules: lsm=landlock,…",
        "mount" | "root" | "pivot" | "proc" => "in a container, allow mounts in user namespaces",
        _ => "see docs/OPERATING.md",
    }
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn user_id() -> u32 {
    // The owner of a process's own folder in /proc is its effective user (proc(5)).
    std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| std::os::unix::fs::MetadataExt::uid(&metadata))
}

fn whose() -> String {
    match user_id() {
        0 => "tools run as uid 524288+slot".to_owned(),
        user => format!("tools run as uid {user}, 1000 inside"),
    }
}
