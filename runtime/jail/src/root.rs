//! The new root: built in the launcher's mount namespace, entered by pid 1.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::spec::{Mount, Spec, Tmpfs};
use crate::status::{At, Fault, Stage};
use crate::sys;

/// The devices of the jail with their numbers, since a host folder may hold anything under these names.
pub(crate) const DEVICES: [(&str, u32, u32); 5] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];
/// Links that programs expect beside them.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// What the root holds beside the files of the spec: folders, links, mount points.
const ROOT_BYTES_SPARE: u64 = 1 << 20;
const ROOT_INODES_SPARE: u64 = 1_024;
const COPY_BYTES: usize = 64 * 1024;

/// A root that stands but has not been entered.
#[derive(Debug)]
pub(crate) struct Root {
    /// Its topmost folder.
    top: OwnedFd,
    /// `/workspace`, open for reading.
    pub(crate) workspace: OwnedFd,
}

/// Clones what `input` refers to, for later use in another mount namespace, if the launcher may: as root of the host.
/// A clone needs no path, so the folders above need not be open to the user that the launcher becomes.
pub(crate) fn clone_early(input: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    match clone_tree(input, "") {
        Ok(tree) => Ok(Some(tree)),
        Err(Errno::PERM) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Root {
    /// Builds the root. `trees` are what [`clone_early`] gave for each mount of the spec.
    pub(crate) fn build(spec: &Spec, inputs: &[OwnedFd], trees: Vec<Option<OwnedFd>>) -> Result<Root, Fault> {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .at(Stage::Root)?;
        let top = new_root(spec, inputs).at(Stage::Root)?;
        let within = Within { top: top.as_fd() };
        for name in ["dev", "proc"] {
            within.folder(name).at(Stage::Root)?;
        }
        for (mount, tree) in spec.mounts.iter().zip(trees) {
            within.mount(mount, tree, inputs[mount.input as usize].as_fd()).at(Stage::Mount)?;
        }
        let dev = within.folder("dev").at(Stage::Dev)?;
        for (name, major, minor) in DEVICES {
            device(dev.as_fd(), name, major, minor).at(Stage::Dev)?;
        }
        for (name, target) in DEVICE_LINKS {
            rustix::fs::symlinkat(target, &dev, name).at(Stage::Dev)?;
        }
        for (path, tmpfs) in [("tmp", spec.tmp), ("workspace", spec.workspace), ("dev/shm", spec.shm)] {
            if let Some(tmpfs) = tmpfs {
                within.tmpfs(path, tmpfs).at(Stage::Tmpfs)?;
            }
        }
        for link in &spec.symlinks {
            within.link(below(&link.path), &link.target).at(Stage::File)?;
        }
        for file in &spec.files {
            within.copy(inputs[file.input as usize].as_fd(), below(&file.path), file.mode).at(Stage::File)?;
        }
        within.masks(spec).at(Stage::Mask)?;
        // From here on nothing can be added to the root itself; what is mounted below keeps its own attributes.
        sys::mount_setattr(top.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), false).at(Stage::Root)?;
        let workspace = within.open("workspace", OFlags::RDONLY | OFlags::DIRECTORY).at(Stage::Tmpfs)?;
        Ok(Root { top, workspace })
    }

    /// Mounts `/proc` of the pid namespace of the caller. False if the host allows none.
    ///
    /// A new proc may show no more than one that is there already; where the host's is covered in part, as in many
    /// containers, the kernel refuses (mount_too_revealing in fs/namespace.c). The folder then stays empty, which
    /// shows less still.
    pub(crate) fn mount_proc(&self) -> Result<bool, Errno> {
        let proc = match new_file_system("proc", &[("subset", "pid"), ("hidepid", "2")], read_only_no_exec()) {
            Ok(proc) => proc,
            Err(Errno::PERM) => return Ok(false),
            Err(error) => return Err(error),
        };
        let within = Within { top: self.top.as_fd() };
        let place = within.open("proc", OFlags::PATH | OFlags::DIRECTORY)?;
        attach(proc.as_fd(), place.as_fd())?;
        Ok(true)
    }

    /// Makes it the root and lets go of the old one. False if that took chroot(2).
    pub(crate) fn enter(&self) -> Result<bool, Errno> {
        rustix::process::fchdir(&self.top)?;
        // pivot_root(2): with both arguments "." the old root ends up over the new one, where it is detached at once.
        let pivoted = match rustix::process::pivot_root(".", ".") {
            Ok(()) => {
                rustix::mount::unmount(".", UnmountFlags::DETACH)?;
                true
            }
            // The root of the host is an initramfs, which cannot be pivoted from. Ours already lies on top of it.
            Err(Errno::INVAL) => {
                rustix::process::chroot(".")?;
                false
            }
            Err(error) => return Err(error),
        };
        rustix::process::chdir("/")?;
        Ok(pivoted)
    }
}

/// The path below the root, of an absolute path.
fn below(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn read_only_no_exec() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn attributes(write: bool, exec: bool) -> MountAttrFlags {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, !write);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
    flags
}

/// A tmpfs with room for the files of the spec, mounted over the root of the host as this namespace sees it.
fn new_root(spec: &Spec, inputs: &[OwnedFd]) -> Result<OwnedFd, Errno> {
    let mut bytes = ROOT_BYTES_SPARE;
    for file in &spec.files {
        let size = rustix::fs::fstat(&inputs[file.input as usize])?.st_size;
        bytes = bytes.saturating_add(u64::try_from(size).map_err(|_| Errno::INVAL)?.next_multiple_of(4_096));
    }
    let entries = spec.files.len() + spec.mounts.len() + spec.symlinks.len() + spec.masks.len();
    let inodes = ROOT_INODES_SPARE + 16 * entries as u64;
    let options = [("size", bytes.to_string()), ("nr_inodes", inodes.to_string()), ("mode", "0755".to_owned())];
    let top = new_file_system("tmpfs", &options, attributes(true, true))?;
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(top.as_fd(), root.as_fd())?;
    Ok(top)
}

fn new_file_system<V: AsRef<str>>(
    name: &str,
    options: &[(&str, V)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, value.as_ref())?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Errno> {
    let both_empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", both_empty)
}

fn clone_tree(from: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(from, path, flags)
}

/// Opens in this mount namespace what `input` refers to in the one it was opened in.
///
/// open_tree(2) clones mounts of the caller's own namespace only, and unshare(2) moved none but the root and the
/// working directory along. So the path is walked again, and must lead to the same file.
fn reopen(input: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{}", input.as_raw_fd()), Vec::new())?;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(CWD, &*path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let (asked, got) = (rustix::fs::fstat(input)?, rustix::fs::fstat(&found)?);
    if (asked.st_dev, asked.st_ino) == (got.st_dev, got.st_ino) { Ok(found) } else { Err(Errno::STALE) }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Work below the new root that cannot be led out of it: links are not followed.
struct Within<'a> {
    top: BorrowedFd<'a>,
}

impl Within<'_> {
    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_below(self.top, path, flags)
    }

    /// Opens the folder `path`, which is made with those above it where they are missing.
    fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        // Most are there, or were made for the one before.
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let mut folder = self.open(".", OFlags::PATH | OFlags::DIRECTORY)?;
        for name in path.split('/') {
            make(rustix::fs::mkdirat(&folder, name, Mode::empty()), || {
                rustix::fs::chmodat(&folder, name, Mode::from_raw_mode(0o755), AtFlags::empty())
            })?;
            folder = open_below(folder.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        Ok(folder)
    }

    /// Opens the folder that `path` is in, and says how `path` is called there.
    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        match path.rsplit_once('/') {
            Some((folder, name)) => Ok((self.folder(folder)?, name)),
            None => Ok((self.open(".", OFlags::PATH | OFlags::DIRECTORY)?, path)),
        }
    }

    /// Makes a file, or leaves one that is there, to mount something on.
    fn place(&self, path: &str) -> Result<OwnedFd, Errno> {
        let (folder, name) = self.parent(path)?;
        place_in(folder.as_fd(), name)
    }

    fn mount(&self, mount: &Mount, tree: Option<OwnedFd>, input: BorrowedFd<'_>) -> Result<(), Errno> {
        let tree = match tree {
            Some(tree) => tree,
            None => clone_tree(reopen(input)?.as_fd(), "")?,
        };
        let path = below(&mount.path);
        let is_folder = is_folder(&rustix::fs::fstat(&tree)?);
        let place = if is_folder { self.folder(path)? } else { self.place(path)? };
        // Before it can be seen, and with everything mounted below.
        set_attributes(tree.as_fd(), attributes(mount.write, mount.exec))?;
        attach(tree.as_fd(), place.as_fd())
    }

    fn tmpfs(&self, path: &str, tmpfs: Tmpfs) -> Result<(), Errno> {
        let options =
            [("size", tmpfs.bytes.to_string()), ("nr_inodes", tmpfs.inodes.to_string()), ("mode", "0700".to_owned())];
        let tree = new_file_system("tmpfs", &options, attributes(true, tmpfs.exec))?;
        attach(tree.as_fd(), self.folder(path)?.as_fd())
    }

    fn link(&self, path: &str, target: &str) -> Result<(), Errno> {
        let (folder, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &folder, name)
    }

    fn copy(&self, from: BorrowedFd<'_>, path: &str, mode: u32) -> Result<(), Errno> {
        let (folder, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut buffer = Vec::with_capacity(COPY_BYTES);
        let mut offset = 0;
        loop {
            buffer.clear();
            let room = || rustix::io::pread(from, rustix::buffer::spare_capacity(&mut buffer), offset);
            let len = rustix::io::retry_on_intr(room)?;
            if len == 0 {
                break;
            }
            let mut rest = &buffer[..len];
            while !rest.is_empty() {
                rest = &rest[rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?..];
            }
            offset += len as u64;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as RawMode))
    }

    fn masks(&self, spec: &Spec) -> Result<(), Errno> {
        if spec.masks.is_empty() {
            return Ok(());
        }
        let (folder, file) = (self.folder(".masked-folder")?, self.place(".masked-file")?);
        for mask in &spec.masks {
            let mount = &spec.mounts[mask.mount as usize];
            let hidden = match self.open(&format!("{}/{}", below(&mount.path), mask.path), OFlags::PATH) {
                Ok(hidden) => hidden,
                Err(Errno::NOENT) if !mount.write => continue,
                Err(error) => return Err(error),
            };
            let cover = if is_folder(&rustix::fs::fstat(&hidden)?) { &folder } else { &file };
            let cover = clone_tree(cover.as_fd(), "")?;
            set_attributes(cover.as_fd(), read_only_no_exec())?;
            attach(cover.as_fd(), hidden.as_fd())?;
        }
        // The covers live on where they are mounted; in the root nobody needs them.
        rustix::fs::unlinkat(self.top, Path::new(".masked-folder"), AtFlags::REMOVEDIR)?;
        rustix::fs::unlinkat(self.top, Path::new(".masked-file"), AtFlags::empty())
    }
}

/// Makes a file in `folder`, or leaves one that is there, to mount something on.
fn place_in(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::RUSR) {
        // It is as good as one opened for its path alone: a place to mount on.
        Ok(made) => Ok(made),
        Err(Errno::EXIST) => open_below(folder, name, OFlags::PATH),
        Err(error) => Err(error),
    }
}

fn device(dev: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> Result<(), Errno> {
    let tree = clone_tree(CWD, &format!("/dev/{name}"))?;
    let stat = rustix::fs::fstat(&tree)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != rustix::fs::makedev(major, minor) {
        return Err(Errno::NODEV);
    }
    // Read-only keeps its owner and permissions as they are; writing to a device is not writing to a file system.
    set_attributes(tree.as_fd(), read_only_no_exec().difference(MountAttrFlags::MOUNT_ATTR_NODEV))?;
    attach(tree.as_fd(), place_in(dev, name)?.as_fd())
}

fn open_below(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// What is there already is as good as what was made; what was made is finished by `then`.
fn make(made: Result<(), Errno>, then: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Ok(()) => then(),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<(), Errno> {
    sys::mount_setattr(tree, attributes.bits().into(), true)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}
