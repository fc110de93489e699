//! What the launcher says: records on the status socket and one wait status on the result socket.
//!
//! Both are ends of `SOCK_SEQPACKET` pairs, so a message arrives whole or not at all. A record is named msgpack of
//! [`Record`]; the supervisor's answer is [`GO`]; the result is four bytes, little endian: the raw status of wait(2).

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::handing;

/// The supervisor's only answer: to [`Record::MapsWanted`] and to [`Record::Ready`].
pub const GO: &[u8] = b"go";
/// Bytes of a record.
pub const RECORD_BYTES_MAX: usize = 256;
/// The launcher's exit code when it could not do what it was told. A program may exit with it, too; the record tells.
pub const FAILED: i32 = 125;

/// What the launcher says on the status socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A step failed; the program was not started and never will be.
    Failed(Fault),
    /// The user namespace exists: write `uid_map` and `gid_map` of the launcher (one line each, `1000 <id> 1`), then
    /// answer [`GO`]. Only with [`crate::spec::Identity::Mapped`].
    MapsWanted,
    /// The new root stands. Comes with descriptors: `/workspace`, then the proxy listener if there is one; at
    /// `landlock` with none. Place inputs, then answer [`GO`].
    Ready,
    /// Comes with the pidfd of whom to kill: pid 1 at `strong` (SIGTERM asks the program to end, SIGKILL ends all), the
    /// launcher at `landlock` (SIGTERM asks, SIGQUIT ends all).
    Released,
    /// All layers hold; `execve` is next.
    Confined {
        /// Which layers, as bits of [`layers`].
        layers: u32,
        /// The Landlock ABI in force.
        landlock_abi: u32,
    },
}

/// Bits of [`Record::Confined`].
pub mod layers {
    /// Namespaces: user, mount, pid, network, ipc, uts, cgroup.
    pub const NAMESPACES: u32 = 1;
    /// A root of our own.
    pub const ROOT: u32 = 1 << 1;
    /// The old root was left with chroot(2) after moving the new one over it, since pivot_root(2) was refused.
    pub const ROOT_BY_CHROOT: u32 = 1 << 2;
    /// `/proc` shows processes of the jail only.
    pub const PROC: u32 = 1 << 3;
    /// There is no `/proc`, since the host allows no new one (its own is covered in part).
    pub const PROC_EMPTY: u32 = 1 << 4;
    /// Landlock, fully enforced, on files.
    pub const LANDLOCK: u32 = 1 << 5;
    /// Landlock on TCP ports.
    pub const LANDLOCK_NET: u32 = 1 << 6;
    /// Landlock on signals and abstract sockets.
    pub const LANDLOCK_SCOPE: u32 = 1 << 7;
    /// The filter of system calls.
    pub const SECCOMP: u32 = 1 << 8;
    /// The filter holds signals to other processes, since Landlock here cannot.
    pub const SECCOMP_SIGNALS: u32 = 1 << 9;
    /// The filter refuses changes of metadata, which Landlock does not mediate.
    pub const SECCOMP_METADATA: u32 = 1 << 10;
    /// The filter refuses memory that no process limit counts, since no cgroup does.
    pub const SECCOMP_MEMORY: u32 = 1 << 11;
    /// Limits of setrlimit(2).
    pub const LIMITS: u32 = 1 << 12;
    /// No new privileges, and none left.
    pub const NO_PRIVILEGES: u32 = 1 << 13;
    /// A session keyring of its own.
    pub const KEYRING: u32 = 1 << 14;
}

/// Where the launcher failed, and what the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The step.
    pub stage: Stage,
    /// The error number; `EINVAL` where no call failed.
    pub errno: i32,
}

/// The steps of the launcher, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Taking the inherited descriptors.
    Inherit,
    /// Reading and checking the spec.
    Spec,
    /// The process has more than one thread, or cannot tell.
    Threads,
    /// Closing what was not mapped.
    Descriptors,
    /// Joining the cgroups.
    Cgroup,
    /// Session, signals, umask.
    Session,
    /// Dying with the supervisor.
    Parent,
    /// Becoming an unprivileged user.
    Identity,
    /// Making namespaces.
    Unshare,
    /// Writing or checking the maps of users and groups.
    Maps,
    /// Loopback interface and listener.
    Net,
    /// The new root itself.
    Root,
    /// A mount of the spec.
    Mount,
    /// `/dev`.
    Dev,
    /// `/tmp`, `/workspace`, `/dev/shm`.
    Tmpfs,
    /// A file or link of the spec.
    File,
    /// A mask.
    Mask,
    /// Waiting for the supervisor.
    Release,
    /// Starting pid 1 or the target.
    Fork,
    /// `/proc`.
    Proc,
    /// Leaving the old root.
    Pivot,
    /// Host name.
    Hostname,
    /// Session keyring.
    Keyring,
    /// No new privileges.
    NoNewPrivileges,
    /// Landlock.
    Landlock,
    /// Limits.
    Limits,
    /// Dropping capabilities.
    Capabilities,
    /// Descriptors and directory of the program.
    Target,
    /// The filter of system calls.
    Seccomp,
    /// Starting the program.
    Exec,
}

impl Record {
    /// The bytes of this record.
    ///
    /// # Errors
    /// `EINVAL` if it cannot be encoded, which no value of the type is known to do.
    pub fn encode(&self) -> Result<Vec<u8>, Errno> {
        rmp_serde::to_vec_named(self).map_err(|_| Errno::INVAL)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `EINVAL` if `bytes` are not what [`Record::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Record, Errno> {
        let record: Record = rmp_serde::from_slice(bytes).map_err(|_| Errno::INVAL)?;
        if record.encode()? == bytes { Ok(record) } else { Err(Errno::INVAL) }
    }
}

/// Turns an error into a [`Fault`].
pub(crate) trait At<T> {
    /// Says at which step it happened.
    fn at(self, stage: Stage) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage) -> Result<T, Fault> {
        self.map_err(|error| Fault { stage, errno: error.raw_os_error() })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Fault> {
        self.map_err(|error| Fault { stage, errno: error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()) })
    }
}

/// Sends a record with `descriptors`.
pub(crate) fn send(status: BorrowedFd<'_>, record: &Record, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    handing::send(status, &record.encode()?, descriptors)
}

/// Waits until the supervisor answers [`GO`].
pub(crate) fn wait_go(status: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut bytes = [0; 8];
    let (len, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(status, &mut bytes[..], rustix::net::RecvFlags::empty()))?;
    // The end of the stream is a supervisor that is gone.
    if &bytes[..len] == GO { Ok(()) } else { Err(Errno::CONNRESET) }
}
