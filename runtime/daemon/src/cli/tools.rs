//! `toka tools`: what this node can run.

use std::sync::Arc;

use toka_runtime::executor::{Tool, native_tools};
use toka_runtime::sandbox::{Launcher, Program, ProgramFiles};
use toka_tools::SHIPPED;

/// The tools of this node: those of this program, and those shipped with it as data.
pub(crate) fn known() -> Vec<Tool> {
    let mut tools = native_tools();
    for shipped in SHIPPED {
        // What is shipped has no error: a test reads it.
        let Ok(manifest) = shipped.load() else { continue };
        let program = Program::new(manifest.spec, ProgramFiles::Shipped(shipped));
        tools.extend(program.map(|program| Tool::Program(Arc::new(program))));
    }
    tools
}

/// The launcher of foreign programs: the small program beside this one, or this one itself.
pub(crate) fn launcher() -> Option<Arc<Launcher>> {
    let this = std::env::current_exe().ok()?;
    let beside = this.with_file_name("toka-jail");
    let found = Launcher::open(&beside).or_else(|_| Launcher::open(&this));
    found.ok().map(Arc::new)
}
