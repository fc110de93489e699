//! The supervisor of foreign programs: each runs in a jail of its own, made by the launcher `toka-jail`, and whatever it
//! does, the supervisor decides when it ends and what of it is kept.
//!
//! - [`Launcher`] is the launcher as it was when this process started, and the one place where processes begin.
//! - [`SelfTest`] is what this machine can hold, found out by trying.
//! - [`Program`] is a tool that is a foreign program, or a guest of the worker `toka-wasm`, which runs in such a jail. A call of it becomes a plan of exactly what it was admitted for.
//!
//! It never lowers a level: where a layer cannot be had, nothing runs and the outcome says which step failed.

mod artifacts;
mod capture;
mod disk;
mod guest;
mod placeholder;
mod plan;
mod program;
mod redact;
mod self_test;
mod spawn;
mod supervise;
mod toolchain;

pub use artifacts::{KeptFile, kept_files, make_folder, without_content, write_files};
pub use capture::Captured;
pub use program::{Program, ProgramFiles};
pub use self_test::{SelfTest, SelfTestFailed, Step};
pub use spawn::Launcher;
pub use toolchain::{TOOLCHAIN_FOLDERS, TOOLCHAINS, find_toolchain};

pub(crate) use program::run;
pub(crate) use self_test::probe;
