//! Privileges: none, and no way to any. And what each level says that it holds.

use std::os::fd::AsFd;

use toka_jail::status::layers;

use crate::attack::{folder, landlock, name, strong};
use crate::supervisor::{As, Ended, Plan};

#[test]
fn row_25_no_file_gives_privileges() {
    strong(
        r#"
import shutil, subprocess
def state(program):
    code = "import os; print(os.getresuid(), os.getresgid()); print(open('/proc/self/status').read())"
    out = subprocess.run([program, "-s", "-c", code], capture_output=True, text=True).stdout
    return out.splitlines()[0], dict(line.split(":\t", 1) for line in out.splitlines()[1:] if ":\t" in line)
shutil.copy("/usr/bin/python3", "/workspace/own"); os.chmod("/workspace/own", 0o6755)
holds("the copy is setuid", os.stat("/workspace/own").st_mode & 0o6000 == 0o6000)
for program in ["/usr/bin/python3", "/workspace/own"]:
    ids, status = state(program)
    holds("ids " + ids, ids == "(1000, 1000, 1000) (1000, 1000, 1000)")
    holds("no new privileges", status["NoNewPrivs"].strip() == "1")
    holds("filtered", status["Seccomp"].strip() == "2")
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        holds(name, int(status[name], 16) == 0)
for program in ["su", "mount", "umount", "passwd", "newgrp", "chsh", "sudo"]:
    path = "/usr/bin/" + program
    if os.path.exists(path):
        holds("no setuid mount", os.statvfs(path).f_flag & 2)
refused("setuid", "EINVAL EPERM", lambda: os.setuid(0))
refused("setgroups", "EPERM", lambda: os.setgroups([0]))
refused("setresuid", "EINVAL EPERM", lambda: os.setresuid(65534, 65534, 65534))
refused("securebits", "EPERM", lambda: raw(157, 28, 0))
refused("ambient", "EPERM", lambda: raw(157, 47, 2, 1, 0, 0))
"#,
        "import shutil, subprocess\nshutil.copy('/usr/bin/env', '/workspace/e')\n\
         assert subprocess.run(['/workspace/e', 'true']).returncode == 0",
        &[],
        |_| {},
    );
}

#[test]
fn every_layer_of_the_strong_level_holds() {
    let strong = layers::NAMESPACES
        | layers::ROOT
        | layers::PROC
        | layers::LANDLOCK
        | layers::LANDLOCK_NET
        | layers::LANDLOCK_SCOPE
        | layers::SECCOMP
        | layers::SECCOMP_MEMORY
        | layers::LIMITS
        | layers::NO_PRIVILEGES
        | layers::KEYRING;
    for who in As::each() {
        let ended: Ended = Plan::strong("/bin/true", &[]).run(who);
        ended.succeeded();
        let must = if ended.landlock_abi >= 6 { strong } else { strong & !layers::LANDLOCK_SCOPE };
        let must = if ended.landlock_abi >= 4 { must } else { must & !layers::LANDLOCK_NET };
        assert_eq!(ended.layers, must, "{:#b}", ended.layers ^ must);
        assert!(ended.workspace.as_ref().is_some_and(|workspace| rustix::fs::fstat(workspace.as_fd()).is_ok()));
    }
}

#[test]
fn row_25_no_file_gives_privileges_at_landlock_either() {
    landlock(
        r#"
holds("no new privileges", raw(157, 39, 0, 0, 0, 0) == 1)
holds("not root", os.getuid() != 0 and os.geteuid() != 0)
refused("setuid", "EPERM EINVAL", lambda: os.setuid(0))
for capability in range(41):
    holds(f"bounding set without {capability}", raw(157, 23, capability, 0, 0, 0) == 0 or os.getuid() != 0)
    refused(f"ambient {capability}", "EPERM", lambda: raw(157, 47, 2, capability, 0, 0))
for limit in ["CORE", "MEMLOCK"]:
    import resource
    holds(limit, resource.getrlimit(getattr(resource, "RLIMIT_" + limit)) == (0, 0))
refused("sparse", "EFBIG", lambda: os.truncate(os.open(W + "/a", os.O_CREAT | os.O_RDWR), 1 << 40))
"#,
        "pass",
        &[],
        |_| {},
    );
}

#[test]
fn the_layers_say_what_is_weaker() {
    for who in As::each() {
        let inside = folder();
        let ended = Plan::landlock("/bin/true", &[], name(inside.path())).run(who);
        ended.succeeded();
        let must = layers::LANDLOCK
            | layers::LANDLOCK_NET
            | layers::SECCOMP
            | layers::SECCOMP_METADATA
            | layers::SECCOMP_MEMORY
            | layers::LIMITS
            | layers::NO_PRIVILEGES
            | if ended.landlock_abi >= 6 { layers::LANDLOCK_SCOPE } else { layers::SECCOMP_SIGNALS };
        assert_eq!(ended.layers, must, "{:#b}", ended.layers ^ must);
    }
}
