//! The system calls that have no safe form in a crate. All `unsafe` of the tree is in this file.

#![expect(unsafe_code, reason = "fork, clone, execve and the calls that rustix lacks")]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::selftest::PROBES;

/// Closes on `execve` instead of at once (close_range(2)).
pub(crate) const CLOSE_ON_EXEC: u32 = libc::CLOSE_RANGE_CLOEXEC;

/// Takes what was inherited under `number`. The number must be open and nobody else's.
///
/// # Errors
/// `EBADF` if nothing is open there.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer and changes nothing. The launcher calls this once per number, before it opens
    // anything of its own, so the descriptor has one owner.
    unsafe {
        if libc::fcntl(number, libc::F_GETFD) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Makes `number` another name of `from`, whatever it was before. Nothing may own the number any more.
///
/// # Errors
/// What dup2(2) says.
pub(crate) fn put(from: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer. Only the target calls this, shortly before `execve`, after letting go of all that it
    // owned under these numbers.
    check(unsafe { libc::dup2(from.as_raw_fd(), number) }.into()).map(drop)
}

/// Forks: the child gets `None`.
///
/// # Errors
/// What fork(2) says.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    plain(Plain::Clone { of_parent: false }).map(|pid| Pid::from_raw(pid as i32))
}

/// Makes another child of the parent, which goes on as this process does, and says whether this is it.
///
/// # Errors
/// What clone(2) says.
pub(crate) fn double() -> io::Result<bool> {
    plain(Plain::Clone { of_parent: true }).map(|pid| pid == 0)
}

/// Closes the descriptors from `first` to `last`, or marks them with [`CLOSE_ON_EXEC`]. No owned descriptor may lie in
/// the range, except with that, which closes none.
///
/// # Errors
/// What close_range(2) says.
pub(crate) fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    plain(Plain::Close { first, last, flags }).map(drop)
}

/// Ends the process at once. What the C library does otherwise at the end, library by library, is done for nobody here.
pub(crate) fn exit(code: i32) -> ! {
    let _never = plain(Plain::Exit(code));
    std::process::abort()
}

/// Sets mount attributes on the mount that `tree` refers to and, if `below`, on all below it, and cuts them off from
/// mounts elsewhere: a clone of a shared mount stays its peer, so that what is mounted on one appears on the other
/// (mount_namespaces(7)).
///
/// # Errors
/// What mount_setattr(2) says.
pub(crate) fn mount_setattr(tree: BorrowedFd<'_>, attributes: u64, below: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, the kernel reads `attr`, whose size it is told, and keeps neither.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Becomes the program that `image` is an open file of, or without one that at `program`. Returns only if that fails.
pub(crate) fn execve(image: Option<BorrowedFd<'_>>, program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    let (folder, path, flags) = match image {
        // execveat(2): an empty path is the descriptor itself, which no name in the jail leads to.
        Some(image) => (image.as_raw_fd(), c"", libc::AT_EMPTY_PATH),
        None => (libc::AT_FDCWD, program, 0),
    };
    // SAFETY: both arrays end in a null pointer and point to C strings that live until the call returns, if it does; so
    // does the path.
    unsafe { libc::syscall(libc::SYS_execveat, folder, path.as_ptr(), argv.as_ptr(), env.as_ptr(), flags) };
    io::Error::last_os_error()
}

/// Leaves the namespaces named in `flags`.
///
/// # Errors
/// What unshare(2) says.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the descriptor table stays shared with nobody: the process has one thread, and FILES is never asked.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// Holds back exactly the signals in `held`; if `reset`, gives every signal its default disposition, which children and
/// `execve` keep.
///
/// # Errors
/// What sigprocmask(2) says.
pub(crate) fn signals(held: &[i32], reset: bool) -> io::Result<()> {
    // SAFETY: SIG_DFL runs no code of ours; `set` is initialised by sigemptyset before it is read. Signals that have
    // no other disposition (SIGKILL, SIGSTOP, those of the C library) refuse, which changes nothing.
    unsafe {
        if reset {
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in held {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()).into()).map(drop)
    }
}

/// Waits for one of the signals in `held`, which [`signals`] holds back, and says which.
///
/// # Errors
/// What sigwaitinfo(2) says.
pub(crate) fn wait_signal(held: &[i32]) -> io::Result<i32> {
    // SAFETY: `set` is initialised before it is read; the null pointer says that no details are wanted.
    let raw = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in held {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigwaitinfo(&raw const set, ptr::null_mut())
    };
    check(raw.into()).map(|_| raw)
}

/// A call whose arguments are numbers, so that none of it can touch memory of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain {
    /// A new session keyring without a name (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
    SessionKeyring,
    /// The newest Landlock ABI of the kernel (landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION).
    LandlockAbi,
    /// A child (clone(2)), or with `of_parent` one of the parent's, which signals its end as this process does. The call
    /// that is older than clone3(2), which does no more here and is refused by the filters of some containers.
    Clone { of_parent: bool },
    /// close_range(2).
    Close { first: u32, last: u32, flags: u32 },
    /// exit_group(2).
    Exit(i32),
    /// A call of the table [`PROBES`], which the self-test expects to be refused.
    Probe(usize),
}

/// Makes a call that takes only numbers.
///
/// # Errors
/// What the call says.
pub(crate) fn plain(call: Plain) -> io::Result<i64> {
    let (number, args) = match call {
        Plain::SessionKeyring => (libc::SYS_keyctl, [1, 0, 0]),
        Plain::LandlockAbi => (libc::SYS_landlock_create_ruleset, [0, 0, 1]),
        Plain::Clone { of_parent } => {
            let flags = libc::SIGCHLD | if of_parent { libc::CLONE_PARENT } else { 0 };
            (libc::SYS_clone, [flags.into(), 0, 0])
        }
        Plain::Close { first, last, flags } => (libc::SYS_close_range, [first.into(), last.into(), flags.into()]),
        Plain::Exit(code) => (libc::SYS_exit_group, [code.into(), 0, 0]),
        Plain::Probe(index) => {
            let (_, number, args) = PROBES[index];
            (number, args)
        }
    };
    // SAFETY: the calls are those above and in the table; none writes through a null pointer or changes the memory of the
    // process. `clone` doubles the process, and the child goes on on its own copy of the stack, as after fork. It finds no
    // lock held by another: there is one thread, which `launch` looks at where the kernel does not. The C library is not
    // told; what it remembers of the thread, its number, is asked for by nothing here.
    check(unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0, 0) })
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
