//! Landlock: which paths the program may reach, and that it reaches nobody by port, signal or abstract socket.

use std::error::Error;
use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::spec::Net;
use crate::status::layers;
use crate::sys::{self, Plain};

/// The newest ABI whose rights were considered here: what a newer kernel adds stays as it is without Landlock, held by
/// the namespaces and the filter.
const ABI_MAX: u32 = 7;

/// What is allowed on a file, or on a folder and all below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Files may be read, folders listed.
    pub(crate) read: bool,
    /// Files may be executed.
    pub(crate) exec: bool,
    /// Everything may be changed, but no device or socket be made.
    pub(crate) write: bool,
}

/// Rules in the making.
#[derive(Debug)]
pub(crate) struct Paths {
    ruleset: RulesetCreated,
    abi: u32,
    layers: u32,
}

impl Paths {
    /// No path allowed yet. Fails with `EOPNOTSUPP` if the kernel's ABI is below `abi_min`.
    pub(crate) fn new(net: Net, abi_min: u32) -> Result<Paths, Errno> {
        let newest =
            sys::plain(Plain::LandlockAbi).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOSYS))?;
        let abi = u32::try_from(newest).map_err(|_| Errno::NOSYS)?.min(ABI_MAX);
        if abi < abi_min {
            return Err(Errno::OPNOTSUPP);
        }
        let known = known(abi);
        let mut layers = layers::LANDLOCK;
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(known))
            .map_err(errno_of)?;
        // With an interface of its own the namespace bounds what can be reached.
        if net == Net::None && abi >= 4 {
            ruleset = ruleset.handle_access(AccessNet::from_all(known)).map_err(errno_of)?;
            layers |= layers::LANDLOCK_NET;
        }
        if abi >= 6 {
            ruleset = ruleset.scope(Scope::from_all(known)).map_err(errno_of)?;
            layers |= layers::LANDLOCK_SCOPE;
        }
        Ok(Paths { ruleset: ruleset.create().map_err(errno_of)?, abi, layers })
    }

    /// Allows what `path` is and all below it. A path that is not there is an error, never skipped.
    pub(crate) fn allow_path(self, path: &str, allowed: Allowed) -> Result<Paths, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let node = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        self.allow(node, allowed)
    }

    /// As [`Paths::allow_path`], for what is open already.
    pub(crate) fn allow(mut self, node: impl AsFd, allowed: Allowed) -> Result<Paths, Errno> {
        let known = known(self.abi);
        let is_folder = FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode) == FileType::Directory;
        let mut access = BitFlags::EMPTY;
        if allowed.read {
            access |= AccessFs::ReadFile | AccessFs::ReadDir;
        }
        if allowed.exec {
            access |= AccessFs::Execute;
        }
        if allowed.write {
            let never = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev;
            access |= AccessFs::from_write(known) & !never;
        }
        if !is_folder {
            access &= AccessFs::from_file(known);
        }
        let rule = PathBeneath::new(node, access).set_compatibility(CompatLevel::HardRequirement);
        self.ruleset = self.ruleset.add_rule(rule).map_err(errno_of)?;
        Ok(self)
    }

    /// Allows listing the root of the file system and, since rules hold for all below, every folder that is there.
    pub(crate) fn allow_listing(mut self) -> Result<Paths, Errno> {
        let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let rule = PathBeneath::new(root, AccessFs::ReadDir).set_compatibility(CompatLevel::HardRequirement);
        self.ruleset = self.ruleset.add_rule(rule).map_err(errno_of)?;
        Ok(self)
    }

    /// Puts the rules into force: the layers that hold, and the ABI.
    pub(crate) fn restrict(self) -> Result<(u32, u32), Errno> {
        let status = self.ruleset.restrict_self().map_err(errno_of)?;
        if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
            return Err(Errno::OPNOTSUPP);
        }
        Ok((self.layers, self.abi))
    }
}

fn known(abi: u32) -> ABI {
    match abi {
        0 | 1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// What the kernel said, which the errors of the crate carry as their source; `EOPNOTSUPP` where they carry none.
fn errno_of(error: impl Error + 'static) -> Errno {
    let mut next: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error) {
            return errno;
        }
        next = error.source();
    }
    Errno::OPNOTSUPP
}
