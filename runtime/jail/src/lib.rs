//! The launcher that confines one program, at level `strong` or `landlock`. It has one thread, keeps no log, and does
//! what a [`spec::Spec`] says or nothing: it never tries a weaker level.
//!
//! # Protocol
//!
//! The supervisor starts this program once, from a sealed copy, without arguments, with an empty environment, and for
//! standard input its end of a socket (see [`standing`]). That process stands by and doubles itself for each call: the
//! double is a child of the supervisor and the launcher of that call, with the standard output and error of the program
//! and a socket that holds the other descriptors (see [`handing`]): a status socket and a result socket, ends of
//! `SOCK_SEQPACKET` pairs, the spec, the standard input of the program, and inputs as the spec counts them. Anything
//! else that is open is closed first.
//!
//! Then, over the status socket (see [`status`]):
//!
//! ```text
//! launcher                                      supervisor
//!   MapsWanted (Identity::Mapped only)     ->
//!                                          <-   "go", once uid_map and gid_map of the launcher are written
//!   Ready + /workspace [+ proxy listener]  ->     places inputs
//!                                          <-   "go"
//!   Released + pidfd of pid 1              ->     (at landlock: of the launcher)
//!   Confined { layers, landlock_abi }      ->
//!   end of stream: execve happened, or the program was killed just before it
//! ```
//!
//! Instead of any of these, [`status::Record::Failed`] says that a step failed; the launcher then exits with
//! [`status::FAILED`] and the program has not run. Nobody holds that socket once the program runs.
//!
//! Over the result socket comes one message when the program has ended: its raw wait status. The end of the stream without it says
//! that pid 1 was killed. Only pid 1 (at `landlock` the launcher) holds it, and the program can neither see nor trace
//! nor signal that one, so it cannot be forged. The launcher itself exits with 0 if the message was sent.
//!
//! To end the program: SIGTERM to the pidfd reaches the group of the program as SIGTERM and SIGCONT. To end all:
//! SIGKILL at `strong`, SIGQUIT at `landlock`. Everything ends, too, when the thread does that started the standing
//! launcher; what happens to that one is nothing to a launcher that has answered.
//!
//! `/workspace` in memory belongs to the user namespace of the jail. A supervisor that is not the jail's user outside,
//! like root, can read it, but the kernel lets it create nothing there (`EOVERFLOW`): inputs then go through
//! [`spec::Spec::files`], which the launcher copies before anything runs. The descriptor keeps the files alive after
//! the jail, and closing it removes them.
//!
//! # Steps
//!
//! ```text
//! standing   session, signals · die with the supervisor · double itself for each call
//! launcher   spec · descriptors · cgroup · session, signals, umask · unprivileged user · die with the supervisor
//!            namespaces · maps · loopback · new root · Ready, wait · fork
//! pid 1      die with the launcher · /proc · leave the old root · host name · keyring · no new privileges · Landlock
//!            limits · capabilities · fork · reap, report
//! target     die with pid 1 · session · descriptors · directory · seccomp · Confined · execve
//! ```
#![deny(unsafe_code)]

mod filter;
pub mod handing;
mod launch;
mod paths;
mod root;
mod selftest;
pub mod spec;
pub mod standing;
pub mod status;
mod sys;

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::exit;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use spec::Level;

/// The name of the program.
const NAME: &CStr = c"toka-jail";

/// Exit code for arguments that the launcher does not know.
const USAGE: i32 = 2;

/// Becomes the program `image`, the launcher by itself, with the same arguments; never returns. For a program of many
/// names that carries it: what is smaller is doubled in less time. Where the system runs no memory files the caller's
/// program is the launcher, as by [`enter`].
pub fn enter_as(image: &[u8], args: impl Iterator<Item = OsString>) -> ! {
    let args: Vec<OsString> = args.collect();
    let _not_here = execute(image, &args);
    enter(args.into_iter())
}

fn execute(image: &[u8], args: &[OsString]) -> io::Result<Infallible> {
    let memory = match memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memory file is executable and the flag unknown.
        Err(Errno::INVAL) => memfd_create(NAME, MemfdFlags::CLOEXEC),
        made => made,
    };
    let mut file = File::from(memory?);
    file.write_all(image)?;
    let args = args.iter().map(|arg| CString::new(arg.as_encoded_bytes()));
    let argv = std::iter::once(Ok(NAME.to_owned())).chain(args).collect::<Result<Vec<_>, _>>()?;
    Err(sys::execve(Some(file.as_fd()), NAME, &argv, &[]))
}

/// Stands by, and confines and becomes programs; never returns. `args` are those after the name, or after the word by which a
/// program of many names was told to be this one; that program must call this before anything else opens a file or
/// starts a thread.
///
/// Without arguments it follows the protocol above. `--self-test [strong|landlock]` (`strong` if none is named) runs a
/// canary at that level and writes a report to standard output, one JSON object:
///
/// ```json
/// { "level": "strong", "ok": true, "layers": 31211, "landlock_abi": 7, "failed": null,
///   "steps": [ { "name": "mount", "ok": true } ] }
/// ```
///
/// A step that is not ok has `found`; `failed` has `stage` and `errno` if the jail could not be made. The exit code is
/// 0 if all held, 1 if something got through or something harmless did not work, 9 if the level cannot be had, 2 for
/// other arguments.
pub fn enter(args: impl Iterator<Item = OsString>) -> ! {
    let args: Vec<OsString> = args.collect();
    let words: Vec<Option<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    match words[..] {
        [] => {}
        [Some("--self-test"), Some("strong")] | [Some("--self-test")] => selftest::run(Level::Strong),
        [Some("--self-test"), Some("landlock")] => selftest::run(Level::Landlock),
        [Some(selftest::CANARY), ..] => selftest::canary(&args[1..]),
        _ => exit(USAGE),
    }
    match standing::stand_by() {
        Ok(Some(handed)) => sys::exit(launch::run(handed)),
        Ok(None) => sys::exit(0),
        Err(_) => sys::exit(status::FAILED),
    }
}
