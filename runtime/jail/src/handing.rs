//! What the launcher of a call is handed: descriptors, in messages over the socket of the call.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Descriptors in one message, no more than the kernel takes (SCM_MAX_FD in unix(7)).
const AT_ONCE: usize = 200;
/// Descriptors before the inputs.
const FIRST: usize = 4;

/// What a launcher is handed.
#[derive(Debug)]
pub struct Handed {
    /// Where records go and answers come from, see [`crate::status`].
    pub status: OwnedFd,
    /// The spec, read from offset 0.
    pub spec: OwnedFd,
    /// Where the wait status goes.
    pub result: OwnedFd,
    /// The standard input of the program.
    pub stdin: OwnedFd,
    /// Inputs 0 … as the spec counts them.
    pub inputs: Vec<OwnedFd>,
}

impl Handed {
    /// Puts all of it into a socket: our end, and the launcher's.
    ///
    /// ```text
    /// each message   u32, little endian: how many descriptors come in all; up to 200 of them
    /// descriptors    status · spec · result · stdin · inputs …
    /// ```
    ///
    /// # Errors
    /// When the system has no socket, or more descriptors are under way than this user may have open.
    pub fn offer(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let first = [&self.status, &self.spec, &self.result, &self.stdin];
        let all: Vec<BorrowedFd<'_>> = first.into_iter().chain(&self.inputs).map(AsFd::as_fd).collect();
        let count = u32::try_from(all.len()).map_err(|_| Errno::TOOBIG)?.to_le_bytes();
        for some in all.chunks(AT_ONCE) {
            send(ours.as_fd(), &count, some)?;
        }
        Ok((ours, theirs))
    }

    /// Takes what [`Handed::offer`] put into `socket`; no more than `most` inputs.
    ///
    /// # Errors
    /// `EBADF` for anything else, and what recvmsg(2) says.
    pub fn take(socket: BorrowedFd<'_>, most: u32) -> Result<Handed, Errno> {
        let mut all = vec![];
        loop {
            let (mut count, before) = ([0; 4], all.len());
            let len = receive(socket, &mut count, |descriptor| all.push(descriptor))?;
            let due = u32::from_le_bytes(count) as usize;
            if len != count.len() || all.len() == before || all.len() > due || due > FIRST + most as usize {
                return Err(Errno::BADF);
            }
            if all.len() == due {
                break;
            }
        }
        // A standard stream that is closed would be one of them.
        if all.iter().any(|descriptor| descriptor.as_raw_fd() < 3) {
            return Err(Errno::BADF);
        }
        let inputs = all.split_off(FIRST.min(all.len()));
        let [status, spec, result, stdin] = all.try_into().map_err(|_| Errno::BADF)?;
        Ok(Handed { status, spec, result, stdin, inputs })
    }
}

/// Sends one message with up to [`AT_ONCE`] descriptors.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Receives one message and says how long it was; 0 is the end.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], mut take: impl FnMut(OwnedFd)) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(bytes)];
    let message = rustix::io::retry_on_intr(|| recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            rights.for_each(&mut take);
        }
    }
    Ok(message.bytes)
}
