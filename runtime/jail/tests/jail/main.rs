//! The launcher as a supervisor drives it, and what programs try from inside.

mod supervisor;

use supervisor::{As, Plan};

#[test]
fn a_trivial_program_runs() {
    for who in As::each() {
        Plan::strong("/bin/true", &[]).run(who).succeeded();
    }
}

#[test]
fn python_runs() {
    for who in As::each() {
        let ended = Plan::strong("/usr/bin/python3", &["-c", "import os; print(os.getuid(), os.getpid())"]).run(who);
        assert_eq!(ended.succeeded().stdout, "1000 2\n");
    }
}
