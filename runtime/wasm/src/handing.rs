//! What a worker is handed: descriptors, in one message over the socket that is its standard input.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// What a worker is handed.
#[derive(Debug)]
pub struct Handed {
    /// The bytes of the [`crate::Job`], read from offset 0.
    pub job: OwnedFd,
    /// The module, read from offset 0.
    pub module: OwnedFd,
    /// Where the [`crate::Report`] goes, from offset 0.
    pub report: OwnedFd,
}

/// What stands in the message beside the descriptors.
const MARK: [u8; 4] = *b"wasm";

impl Handed {
    /// Puts all of it into a socket, which the worker then gets as its standard input.
    ///
    /// # Errors
    /// When the system has no socket, or more descriptors are under way than this user may have open.
    pub fn into_stdin(self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let all = [self.job.as_fd(), self.module.as_fd(), self.report.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(Errno::TOOBIG.into());
        }
        sendmsg(&ours, &[IoSlice::new(&MARK)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(theirs)
    }

    /// Takes what [`Handed::into_stdin`] put into `socket`.
    ///
    /// # Errors
    /// `EBADF` for anything else, and what recvmsg(2) says.
    pub fn take(socket: BorrowedFd<'_>) -> Result<Handed, Errno> {
        let mut mark = [0; MARK.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut mark)];
        let message = rustix::io::retry_on_intr(|| recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        let rights = |part| if let RecvAncillaryMessage::ScmRights(rights) = part { Some(rights) } else { None };
        let all: Vec<OwnedFd> = control.drain().filter_map(rights).flatten().collect();
        if message.bytes != MARK.len() || mark != MARK {
            return Err(Errno::BADF);
        }
        let [job, module, report] = all.try_into().map_err(|_| Errno::BADF)?;
        Ok(Handed { job, module, report })
    }
}
