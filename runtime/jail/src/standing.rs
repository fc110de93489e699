//! The launcher that stands by: one process for many calls, which doubles itself for each and does nothing else.
//!
//! To load a program, link it and set it up costs more than all that a launcher does besides what the kernel does for
//! it. So that happens once. The doubles are children of the supervisor (CLONE_PARENT in clone(2)), as if it had started
//! each of them itself: it waits for them, and its end is theirs.
//!
//! ```text
//! supervisor                                standing launcher     launcher of a call
//!   puts into a socket what the call is
//!   handed, see [`crate::handing`]
//!   that socket · stdout · stderr        ->
//!                                             doubles itself  ->
//!                                        <-                         i32: its pid; its pidfd
//! ```
//!
//! The answer comes over the socket of the call, an error number below 0 if there is no double. Whoever dies, the socket
//! ends when nobody is left who could use what is in it.
//!
//! The standing launcher has one thread and one descriptor, its end of the socket to the supervisor. It never looks into
//! the sockets of calls, so nothing of a call is ever in its memory, and lets go of them before it takes the next.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions};

use crate::handing::{self, Handed, send};
use crate::spec::INPUTS_MAX;
use crate::sys;

/// A standing launcher that takes longer to answer is stopped, or stuck.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The supervisor's end of the socket to a standing launcher, which ends when this is dropped.
#[derive(Debug)]
pub struct Standing(OwnedFd);

/// The launcher of one call, a child of the process that asked for it. Dropping it neither ends it nor waits for it.
#[derive(Debug)]
pub struct Launched {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Standing {
    /// The supervisor's end, and what the launcher is to get as its standard input.
    ///
    /// # Errors
    /// When the system has no socket.
    pub fn pair() -> io::Result<(Standing, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Standing(ours), theirs))
    }

    /// Has a launcher made that is handed this, with the standard output and error of the program. `None` if the
    /// standing launcher is gone: then nobody has it, and another one may be asked.
    ///
    /// # Errors
    /// When there can be no double, or no answer came: `ETIMEDOUT`. Whoever then lets go of the other ends of what was
    /// handed has nothing to fear from a double that comes late.
    pub fn launch(
        &self,
        handed: &Handed,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> io::Result<Option<Launched>> {
        let (ours, theirs) = handed.offer()?;
        match send(self.0.as_fd(), &[0], &[theirs.as_fd(), stdout, stderr]) {
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
            sent => sent?,
        }
        drop(theirs);
        set_socket_timeout(&ours, Timeout::Recv, Some(ANSWER_MAX))?;
        let mut number = [0; 4];
        let answer = match receive(ours.as_fd(), &mut number) {
            // Who answered may have gone without taking anything, and that is told before what was said.
            Err(Errno::CONNRESET) => receive(ours.as_fd(), &mut number),
            answer => answer,
        };
        let pidfd = match answer {
            Ok((4, [pidfd, _, _])) => pidfd,
            Ok(_) => return Ok(None),
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT.into()),
            Err(error) => return Err(error.into()),
        };
        let number = i32::from_le_bytes(number);
        let Some(pid) = Some(number).filter(|number| *number > 0).and_then(Pid::from_raw) else {
            return Err(io::Error::from_raw_os_error(number.saturating_neg()));
        };
        let Some(pidfd) = pidfd else {
            // There was no room for it here. Nobody else waits for a child that nobody knows, so the number is still its.
            rustix::process::kill_process(pid, Signal::KILL)?;
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()))?;
            return Err(Errno::MFILE.into());
        };
        Ok(Some(Launched { pid, pidfd }))
    }
}

impl Launched {
    /// Its number, which is its own until it is waited for.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills it; nothing if it has ended.
    pub fn kill(&self) {
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has been waited for.
    pub fn wait(&self) -> io::Result<WaitIdStatus> {
        let id = || WaitId::PidFd(self.pidfd.as_fd());
        let ended = rustix::io::retry_on_intr(|| rustix::process::waitid(id(), WaitIdOptions::EXITED))?;
        ended.ok_or_else(|| Errno::CHILD.into())
    }
}

impl AsFd for Launched {
    /// Its pidfd, readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What a standing launcher is asked for one call.
#[derive(Debug)]
pub struct Asked {
    call: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Asked {
    /// The next over `socket`; `None` when the supervisor has closed it.
    ///
    /// # Errors
    /// `EBADF` for anything else, and what recvmsg(2) says.
    pub fn take(socket: BorrowedFd<'_>) -> Result<Option<Asked>, Errno> {
        match receive(socket, &mut [0])? {
            (0, _) => Ok(None),
            (_, [Some(call), Some(stdout), Some(stderr)]) => Ok(Some(Asked { call, stdout, stderr })),
            // The supervisor sees the end of the call's socket.
            (_, _) => Err(Errno::BADF),
        }
    }

    /// Says that this process is the launcher of the call, and takes its descriptors as its standard ones.
    ///
    /// # Errors
    /// When the system has no pidfd, or the supervisor is gone.
    pub fn accept(self) -> Result<Handed, Errno> {
        let me = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(me, PidfdFlags::empty())?;
        send(self.call.as_fd(), &me.as_raw_nonzero().get().to_le_bytes(), &[pidfd.as_fd()])?;
        rustix::stdio::dup2_stdin(&self.call)?;
        rustix::stdio::dup2_stdout(&self.stdout)?;
        rustix::stdio::dup2_stderr(&self.stderr)?;
        Handed::take(self.call.as_fd(), INPUTS_MAX)
    }

    fn refuse(self, error: &io::Error) {
        let number = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()).saturating_neg();
        // A supervisor that is gone reads nothing.
        let _nobody_to_tell = send(self.call.as_fd(), &number.to_le_bytes(), &[]);
    }
}

/// Stands by until the supervisor closes its end, and then says `None`. Returns as well in each double.
pub(crate) fn stand_by() -> io::Result<Option<Handed>> {
    let socket = rustix::stdio::stdin();
    rustix::thread::set_name(c"toka-standing")?;
    // No signal of a terminal, and no disposition of the supervisor's, reaches any double.
    rustix::process::setsid()?;
    sys::signals(&[], true)?;
    // Beside the end of the socket, for one that is busy. No double inherits it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::stdio::dup2_stdout(socket)?;
    rustix::stdio::dup2_stderr(socket)?;
    sys::close_range(3, u32::MAX, 0)?;
    while let Some(asked) = Asked::take(socket)? {
        match sys::double() {
            Ok(true) => {
                rustix::thread::set_name(c"toka-jail")?;
                return Ok(Some(asked.accept()?));
            }
            Ok(false) => {}
            Err(error) => asked.refuse(&error),
        }
    }
    Ok(None)
}

/// One message over `socket` with up to three descriptors; no bytes at the end.
fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, [Option<OwnedFd>; 3]), Errno> {
    let (mut places, mut free) = ([None, None, None], 0..3);
    let len = handing::receive(socket, bytes, |descriptor| {
        if let Some(place) = free.next() {
            places[place] = Some(descriptor);
        }
    })?;
    Ok((len, places))
}
