//! What the launcher is told: one value, as named msgpack.
//!
//! The launcher judges nothing: it does what the spec says or fails. Whoever writes a spec decides what the program may
//! reach; [`Spec::check`] only holds what must be true for the steps of the launcher to mean what they say.
//!
//! A root for `python3` and `sh` needs the dynamic loader and its libraries. On a merged-usr host that is one mount of
//! `/usr` with `exec`, and a [`Symlink`] for each of `/bin`, `/lib`, `/lib64`; on others, one mount for each of them.

use serde::{Deserialize, Serialize};

/// The version of this format.
pub const VERSION: u32 = 2;
/// Bytes of an encoded spec.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;
/// Descriptors that the launcher takes besides its own.
pub const INPUTS_MAX: u32 = 512;
/// Bytes of a path.
pub const PATH_BYTES_MAX: usize = 4_095;
/// Descriptors that the program may get besides 0, 1 and 2.
pub const PASSED_MAX: usize = 32;

/// Everything the launcher needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// [`VERSION`].
    pub version: u32,
    /// The process that spawned the launcher, as the launcher sees it: if it is gone, nothing starts.
    pub supervisor: u32,
    /// Which layers must hold.
    pub level: Level,
    /// Whose rights the program has outside.
    pub identity: Identity,
    /// How many inputs were handed over. "Input n" below is the n-th of them, from 0.
    pub inputs: u32,
    /// Inputs that are `cgroup.procs` files open for writing, which the launcher joins.
    pub cgroups: Vec<u32>,
    /// Whether a cgroup bounds the memory of the whole jail. If not, calls that make memory which no process limit
    /// counts are refused.
    pub memory_cgroup: bool,
    /// Host files and folders that the program may reach, in this order.
    pub mounts: Vec<Mount>,
    /// Symbolic links of the new root. Only at `strong`.
    pub symlinks: Vec<Symlink>,
    /// Files whose content is copied from inputs: the tool, `/run`, generated `/etc`, inputs of the workspace. Only at
    /// `strong`.
    pub files: Vec<File>,
    /// What is hidden inside mounts. Only at `strong`.
    pub masks: Vec<Mask>,
    /// `/workspace` in memory; without it a writable mount must have that path. Only at `strong`.
    pub workspace: Option<Tmpfs>,
    /// `/tmp`. Only at `strong`.
    pub tmp: Option<Tmpfs>,
    /// `/dev/shm`. Only at `strong`.
    pub shm: Option<Tmpfs>,
    /// Which network the program sees.
    pub net: Net,
    /// The program, absolute.
    pub program: String,
    /// The input that is the program, an open file that nothing in the jail need name; `program` is then its name alone.
    pub image: Option<u32>,
    /// Its arguments, the zeroth included.
    pub argv: Vec<String>,
    /// Its environment, whole.
    pub env: Vec<(String, String)>,
    /// Its working directory, absolute.
    pub cwd: String,
    /// Inputs that it gets as descriptors 3, 4, …
    pub pass: Vec<u32>,
    /// Its limits.
    pub limits: Limits,
}

/// How much must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Namespaces, a new root, Landlock, seccomp, limits, no privileges.
    Strong,
    /// Landlock (ABI 4 at least), a stricter seccomp, limits, no privileges. Paths of mounts must be those of the host.
    Landlock,
}

/// Whose rights the program has outside of the jail. Inside it is 1000 at `strong`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Identity {
    /// Those of the launcher; if that is root, those of 65534.
    Own,
    /// Those of these ids, neither of them 0. Only root can become somebody else.
    Become {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Those that the supervisor writes into the maps when it is asked, for hosts where only root may make user
    /// namespaces. Only at `strong`.
    Mapped,
}

/// A file or folder of the host in the new root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The input that is it.
    pub input: u32,
    /// Where it appears, absolute.
    pub path: String,
    /// Whether the program may change what is below.
    pub write: bool,
    /// Whether the program may execute what is below.
    pub exec: bool,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symlink {
    /// Where it is, absolute.
    pub path: String,
    /// What it says.
    pub target: String,
}

/// A file that is copied into the new root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The input that holds its content, which is read from offset 0.
    pub input: u32,
    /// Where it appears, absolute.
    pub path: String,
    /// Its permissions, at most `0o777`. A file of the root that nobody may execute cannot be executed by its owner.
    pub mode: u32,
}

/// A path inside a mount that shows as empty and cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Index into [`Spec::mounts`].
    pub mount: u32,
    /// The path below it, relative. If it is missing, that is an error in a writable mount (the program could make it)
    /// and nothing in another.
    pub path: String,
}

/// A file system in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Bytes it holds, at least one.
    pub bytes: u64,
    /// Files and folders it holds, at least two.
    pub inodes: u64,
    /// Whether the program may execute what is in it.
    pub exec: bool,
}

/// Which network the program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// None, and no sockets.
    None,
    /// A loopback interface of its own. Only at `strong`.
    Loopback,
    /// As `Loopback`, with a listener on 127.0.0.1:3128 that the supervisor gets. Only at `strong`.
    Proxy,
}

/// Limits of setrlimit(2), soft and hard alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Processes and threads of the program at a time. At `landlock` all of its user's.
    pub pids: u64,
    /// Bytes of address space of each process.
    pub as_bytes: u64,
    /// Seconds of processor time of each process.
    pub cpu_s: u64,
    /// Bytes of a file that is written.
    pub file_bytes: u64,
    /// One more than the highest descriptor.
    pub open_files: u64,
}

/// What is wrong with a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecFault {
    /// It has more than [`SPEC_BYTES_MAX`] bytes.
    TooLarge,
    /// It is not what [`Spec::encode`] writes.
    Malformed,
    /// It has another version.
    Version,
    /// The named field is outside of its bounds or contradicts another.
    Field(&'static str),
}

impl Spec {
    /// The bytes of this spec.
    ///
    /// # Errors
    /// [`SpecFault`] if the launcher would refuse them.
    pub fn encode(&self) -> Result<Vec<u8>, SpecFault> {
        self.check()?;
        let bytes = rmp_serde::to_vec_named(self).map_err(|_| SpecFault::Malformed)?;
        if bytes.len() > SPEC_BYTES_MAX { Err(SpecFault::TooLarge) } else { Ok(bytes) }
    }

    /// Reads what [`Spec::encode`] wrote: the same bytes, nothing before, between or after.
    ///
    /// # Errors
    /// [`SpecFault`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Spec, SpecFault> {
        if bytes.len() > SPEC_BYTES_MAX {
            return Err(SpecFault::TooLarge);
        }
        let spec: Spec = rmp_serde::from_slice(bytes).map_err(|_| SpecFault::Malformed)?;
        if spec.encode()? == bytes { Ok(spec) } else { Err(SpecFault::Malformed) }
    }

    /// Checks that the spec means something.
    ///
    /// # Errors
    /// The first [`SpecFault`].
    pub fn check(&self) -> Result<(), SpecFault> {
        let field = |is_right: bool, name| if is_right { Ok(()) } else { Err(SpecFault::Field(name)) };
        let input = |index: &u32| *index < self.inputs;
        if self.version != VERSION {
            return Err(SpecFault::Version);
        }
        field(self.supervisor > 0, "supervisor")?;
        field(self.inputs <= INPUTS_MAX, "inputs")?;
        field(self.cgroups.iter().all(input), "cgroups")?;
        field(self.pass.iter().all(input) && self.pass.len() <= PASSED_MAX, "pass")?;
        field(self.mounts.iter().all(|mount| input(&mount.input) && absolute(&mount.path)), "mounts")?;
        field(self.symlinks.iter().all(|link| absolute(&link.path) && text(&link.target)), "symlinks")?;
        let is_file = |file: &File| input(&file.input) && absolute(&file.path) && file.mode <= 0o777;
        field(self.files.iter().all(is_file), "files")?;
        let is_mask = |mask: &Mask| (mask.mount as usize) < self.mounts.len() && relative(&mask.path);
        field(self.masks.iter().all(is_mask), "masks")?;
        let is_tmpfs = |tmpfs: &Option<Tmpfs>| tmpfs.is_none_or(|tmpfs| tmpfs.bytes > 0 && tmpfs.inodes > 1);
        field(is_tmpfs(&self.workspace), "workspace")?;
        field(is_tmpfs(&self.tmp), "tmp")?;
        field(is_tmpfs(&self.shm), "shm")?;
        field(absolute(&self.program), "program")?;
        field(self.image.as_ref().is_none_or(input), "image")?;
        field(absolute(&self.cwd), "cwd")?;
        field(!self.argv.is_empty() && self.argv.iter().all(|arg| !arg.contains('\0')), "argv")?;
        let is_variable =
            |(name, value): &(String, String)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        field(self.env.iter().all(is_variable), "env")?;
        field(!matches!(self.identity, Identity::Become { uid: 0, .. } | Identity::Become { gid: 0, .. }), "identity")?;
        let limits = &self.limits;
        // Two descriptors of the launcher are open beside those of the program until it runs.
        let open_files_min = 3 + self.pass.len() as u64 + 2;
        field(limits.pids > 0 && limits.as_bytes > 0 && limits.cpu_s > 0 && limits.file_bytes > 0, "limits")?;
        field(limits.open_files >= open_files_min, "limits")?;
        match self.level {
            Level::Strong => {
                let is_workspace = |mount: &Mount| mount.path == "/workspace" && mount.write;
                field(self.workspace.is_some() != self.mounts.iter().any(is_workspace), "workspace")
            }
            Level::Landlock => {
                field(self.net == Net::None, "net")?;
                field(self.identity != Identity::Mapped, "identity")?;
                field(self.symlinks.is_empty(), "symlinks")?;
                field(self.files.is_empty(), "files")?;
                field(self.masks.is_empty(), "masks")?;
                field(self.workspace.is_none(), "workspace")?;
                field(self.tmp.is_none(), "tmp")?;
                field(self.shm.is_none(), "shm")
            }
        }
    }
}

fn text(text: &str) -> bool {
    !text.is_empty() && text.len() <= PATH_BYTES_MAX && !text.contains('\0')
}

fn relative(path: &str) -> bool {
    text(path) && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
}

fn absolute(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            version: VERSION,
            supervisor: 1,
            level: Level::Strong,
            identity: Identity::Own,
            inputs: 1,
            cgroups: vec![],
            memory_cgroup: false,
            mounts: vec![Mount { input: 0, path: "/usr".to_owned(), write: false, exec: true }],
            symlinks: vec![Symlink { path: "/bin".to_owned(), target: "usr/bin".to_owned() }],
            files: vec![],
            masks: vec![],
            workspace: Some(Tmpfs { bytes: 1 << 20, inodes: 64, exec: false }),
            tmp: None,
            shm: None,
            net: Net::None,
            program: "/bin/true".to_owned(),
            image: None,
            argv: vec!["true".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            cwd: "/workspace".to_owned(),
            pass: vec![],
            limits: Limits { pids: 4, as_bytes: 1 << 30, cpu_s: 1, file_bytes: 1 << 20, open_files: 64 },
        }
    }

    #[test]
    fn a_spec_comes_back_as_it_was() {
        let bytes = spec().encode().expect("it is right");
        assert_eq!(Spec::decode(&bytes), Ok(spec()));
    }

    #[test]
    fn bytes_after_a_spec_are_refused() {
        let mut bytes = spec().encode().expect("it is right");
        bytes.push(0xc0);
        assert_eq!(Spec::decode(&bytes), Err(SpecFault::Malformed));
        assert_eq!(Spec::decode(&bytes[..bytes.len() - 2]), Err(SpecFault::Malformed));
        assert_eq!(Spec::decode(&vec![0; SPEC_BYTES_MAX + 1]), Err(SpecFault::TooLarge));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let wrong = |name: &'static str, change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(spec.check(), Err(SpecFault::Field(name)));
        };
        wrong("mounts", &|spec| spec.mounts[0].path = "/usr/../etc".to_owned());
        wrong("mounts", &|spec| spec.mounts[0].path = "/".to_owned());
        wrong("mounts", &|spec| spec.mounts[0].input = 1);
        wrong("inputs", &|spec| spec.inputs = INPUTS_MAX + 1);
        wrong("program", &|spec| spec.program = "true".to_owned());
        wrong("image", &|spec| spec.image = Some(1));
        wrong("argv", &|spec| spec.argv.clear());
        wrong("env", &|spec| spec.env[0].0 = "A=B".to_owned());
        wrong("identity", &|spec| spec.identity = Identity::Become { uid: 0, gid: 1 });
        wrong("workspace", &|spec| spec.workspace = None);
        wrong("workspace", &|spec| spec.workspace = Some(Tmpfs { bytes: 0, inodes: 2, exec: false }));
        wrong("masks", &|spec| spec.masks = vec![Mask { mount: 1, path: ".git".to_owned() }]);
        wrong("limits", &|spec| spec.limits.open_files = 4);
        wrong("symlinks", &|spec| spec.level = Level::Landlock);
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(Spec { version: VERSION + 1, ..spec() }.check(), Err(SpecFault::Version));
    }
}
