//! Plays the launcher of a program that cannot be killed, as one stuck in the kernel: it says that all went well, names
//! a process that no signal reaches, and stays.
//!
//! It does so for one call in each folder, and then stands by for no other; from then on, and to be tested, it becomes
//! the launcher that lies in the folder as `launcher`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, sendmsg, shutdown};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use toka_jail::standing::Asked;
use toka_jail::status::{RECORD_BYTES_MAX, Record};

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if !args.is_empty() || File::create_new("unkillable").is_err() {
        return Err(Command::new("./launcher").arg0("toka-jail").args(args).exec());
    }
    // Nobody is left behind, whatever it pretends.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Some(asked) = Asked::take(rustix::stdio::stdin())? else { return Ok(()) };
    // It lets go of the socket of the standing launcher, so that the next call finds none.
    let status = asked.accept()?.status;
    let mut child = Command::new("/bin/true").spawn()?;
    let beyond_reach = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    child.wait()?;
    let say = |record: Record, handed: &[_]| {
        let bytes = record.encode()?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(handed.is_empty() || control.push(SendAncillaryMessage::ScmRights(handed)), "there is room for one");
        sendmsg(&status, &[io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    };
    say(Record::Ready, &[])?;
    recv(&status, &mut [0; RECORD_BYTES_MAX][..], RecvFlags::empty())?;
    say(Record::Released, &[beyond_reach.as_fd()])?;
    say(Record::Confined { layers: 1, landlock_abi: 1 }, &[])?;
    shutdown(&status, Shutdown::Write)?;
    loop {
        std::thread::park();
    }
}
