//! How a row of the attack table is tried: an attack that must be held, with the errors that hold it, and a benign twin
//! that must work. All of it as root and as an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::supervisor::{As, Plan};

const PRELUDE: &str = include_str!("prelude.py");
/// Who files of a root belong to, so that their permissions stop nobody.
const NOBODY: u32 = 65_534;

/// Runs an attack and its benign twin at `strong`, where the workspace `W` is `/workspace`. `adapt` gets both plans.
#[track_caller]
pub(crate) fn strong(attack: &str, benign: &str, args: &[&str], adapt: impl Fn(&mut Plan)) {
    check(attack, benign, |text| {
        let mut plan = strong_script(text, args);
        adapt(&mut plan);
        (plan, None)
    });
}

/// Runs an attack and its benign twin at `landlock`, where the workspace `W` is a folder of the host. `adapt` gets both
/// plans.
#[track_caller]
pub(crate) fn landlock(attack: &str, benign: &str, args: &[&str], adapt: impl Fn(&mut Plan)) {
    check(attack, benign, |text| {
        let inside = folder();
        let mut plan = landlock_script(text, args, inside.path());
        adapt(&mut plan);
        (plan, Some(inside))
    });
}

/// Runs one attack and one twin at both levels.
#[track_caller]
pub(crate) fn both(attack: &str, benign: &str, args: &[&str], adapt: impl Fn(&mut Plan)) {
    strong(attack, benign, args, &adapt);
    landlock(attack, benign, args, &adapt);
}

/// Runs an attack as everybody, which must say how often it tried and succeed, and its benign twin, which must work.
#[track_caller]
fn check(attack: &str, benign: &str, plan: impl Fn(&str) -> (Plan, Option<TempDir>)) {
    for who in As::each() {
        let run = |text: &str| {
            let (plan, _folder) = plan(text);
            plan.run(who)
        };
        let held = run(&format!("{attack}\ndone()"));
        assert!(held.stdout.contains("tries "), "{who:?}: {held:#?}");
        held.succeeded();
        let worked = run(&format!("{benign}\nprint('worked')"));
        assert!(worked.stdout.ends_with("worked\n"), "{who:?}: {worked:#?}");
        worked.succeeded();
    }
}

/// A plan at `strong` that runs `script` with python3, after the prelude.
pub(crate) fn strong_script(script: &str, args: &[&str]) -> Plan {
    let mut plan = Plan::strong("/usr/bin/python3", &[]);
    plan.spec.argv.extend(["-s", "-B", "/tool/main.py"].iter().chain(args).map(|&arg| arg.to_owned()));
    let text = format!("{PRELUDE}\nLEVEL, W = 'strong', '/workspace'\n{script}");
    plan.file("/tool/main.py", 0o444, text.as_bytes());
    plan
}

/// A plan at `landlock` that runs `script` with python3 in `folder`.
pub(crate) fn landlock_script(script: &str, args: &[&str], folder: &Path) -> Plan {
    let mut plan = Plan::landlock("/usr/bin/python3", &[], name(folder));
    let text = format!("{PRELUDE}\nLEVEL, W = 'landlock', {:?}\n{script}", name(folder));
    plan.spec.argv.extend(["-s", "-B", "-c", &text].iter().chain(args).map(|&arg| arg.to_owned()));
    plan
}

/// A folder that the jail's user owns, with a file.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "as it was").expect("a file");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    fs::write(folder.path().join("sub/other"), "as it was").expect("a file");
    if rustix::process::geteuid().is_root() {
        for path in ["", "file", "sub", "sub/other"] {
            std::os::unix::fs::chown(folder.path().join(path), Some(NOBODY), Some(NOBODY)).expect("root gives");
        }
    }
    // A launcher that is not root finds what it mounts by its path.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

pub(crate) fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
