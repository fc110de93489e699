//! From an admitted call of a foreign program to what the launcher is told: exactly what the call was admitted for.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use toka_jail::spec::{File as SpecFile, Identity, Level, Limits, Mask, Mount, Net, Spec, Symlink, Tmpfs, VERSION};
use toka_kernel::AdmittedCall;
use toka_kernel::capability::{FsOp, FsOps, Scope};
use toka_kernel::tool::{self, Run, Sandbox, Secret, ToolSpec, WorkspaceKind, place};
use toka_tools::{CallNames, Invocation, PARAMS_FILE, ProgramFile, invocation_below};
use toka_wasm::REPORT_BYTES_MAX;

use super::disk::{CallDir, used};
use super::placeholder::Placeholder;
use super::redact::Forms;
use super::spawn::{Worker, sealed};
use super::supervise::{Job, Stdin};
use crate::executor::Roots;
use crate::home::{SecretFault, Secrets};

/// The limits of a worker beside those of its guest.
mod worker {
    /// Processes and threads.
    pub(super) const PIDS: u64 = 8;
    /// Memory for compilation.
    pub(super) const MEMORY_BYTES: u64 = 2 << 30;
    /// Address space for its program, its stacks and the like.
    pub(super) const SPACE_BYTES: u64 = 256 << 20;
    pub(super) const OPEN_FILES: u64 = 64;
    /// Its working directory, which nobody uses.
    pub(super) const WORKSPACE_BYTES: u64 = 4_096;
    pub(super) const WORKSPACE_INODES: u64 = 2;
    /// What it is called in its jail.
    pub(super) const NAME: &str = "toka-wasm";
}

/// Users outside, above those that systems give to people and services; each executor thread has its own, so that
/// limits per user are limits per call.
const SLOT_USER_MIN: u32 = 524_288;

/// Why a call cannot be planned; nothing runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlanFault {
    /// The step.
    pub(super) stage: &'static str,
    pub(super) errno: i32,
    /// For people.
    pub(super) why: String,
}

impl PlanFault {
    fn new(stage: &'static str, errno: Errno, why: impl Into<String>) -> PlanFault {
        PlanFault { stage, errno: errno.raw_os_error(), why: why.into() }
    }
}

/// What of a call goes into its plan.
pub(super) struct Called<'a> {
    pub(super) call: &'a AdmittedCall,
    pub(super) spec: &'a ToolSpec,
    pub(super) run: &'a Run,
    /// The bytes of its arguments, and what it is told of the call.
    pub(super) arguments: &'a [u8],
    pub(super) names: CallNames,
    /// What they make of it in a root of its own.
    pub(super) invocation: Invocation,
    pub(super) files: &'a [ProgramFile],
    pub(super) roots: &'a Roots,
    /// Where the values are that it is handed; without it there are none.
    pub(super) secrets: Option<&'a Secrets>,
    /// The program of the toolchain, where there is one.
    pub(super) toolchain: Option<&'a str>,
    /// The number of the executor thread.
    pub(super) slot: u32,
    pub(super) until: Instant,
}

/// Plans a call.
pub(super) fn plan(called: Called<'_>) -> Result<Job, PlanFault> {
    let sandbox = &called.run.sandbox;
    let level = match tool::Level::from_number(called.spec.level) {
        Some(tool::Level::Strong) => Level::Strong,
        Some(tool::Level::Landlock) => Level::Landlock,
        // Nobody registers such a program.
        Some(tool::Level::None | tool::Level::Native) | None => {
            return Err(PlanFault::new("level", Errno::INVAL, "a foreign program runs at `strong` or `landlock`"));
        }
    };
    let mut plan = Plan::default();
    plan.base()?;
    let writes = plan.roots(called.call, called.roots, &sandbox.deny_within, level)?;
    let identity = identity(writes, called.slot)?;
    let disk = level == Level::Landlock || sandbox.workspace_kind == WorkspaceKind::Disk.number();
    let disk = disk.then(|| Disk::make(identity, sandbox, level)).transpose().map_err(of_disk)?;
    match (level, &disk) {
        (Level::Landlock, Some(disk)) => landlock(called, plan, identity, disk),
        (Level::Landlock | Level::Strong, _) => strong(called, plan, identity, disk.as_ref()),
    }
    .map(|job| Job { disk, ..job })
}

/// Plans the worker for a guest, which finds what it is told in `stdin`. In its root there is nothing but what its program
/// needs to be loaded.
pub(super) fn plan_guest(called: Called<'_>, program: &Worker, stdin: OwnedFd) -> Result<Job, PlanFault> {
    let mut plan = Plan::default();
    if !program.is_static {
        plan.base()?;
    }
    let image = program.image.try_clone();
    let image = plan.input(image.map_err(|error| PlanFault::new("worker", errno(&error), error.to_string()))?);
    let identity = identity(None, called.slot)?;
    let limits = &called.run.sandbox.limits;
    let mut job = plan.job(&called, called.invocation.clone(), identity, "/workspace".to_owned());
    job.spec.program = format!("/{}", worker::NAME);
    job.spec.image = Some(image);
    job.spec.argv = vec![worker::NAME.to_owned()];
    job.spec.env = Vec::new();
    job.spec.workspace = Some(Tmpfs { bytes: worker::WORKSPACE_BYTES, inodes: worker::WORKSPACE_INODES, exec: false });
    job.spec.limits.pids = worker::PIDS;
    job.spec.limits.as_bytes = limits.memory_bytes.saturating_add(worker::MEMORY_BYTES + worker::SPACE_BYTES);
    job.spec.limits.file_bytes = REPORT_BYTES_MAX;
    job.spec.limits.open_files = worker::OPEN_FILES;
    job.memory_max = limits.memory_bytes.saturating_add(worker::MEMORY_BYTES);
    job.stdin = Stdin::Made(stdin);
    Ok(job)
}

fn of_disk(error: Errno) -> PlanFault {
    PlanFault::new("disk", error, format!("no directory for the call can be made below /var/tmp: {error}"))
}

/// In a root of its own.
fn strong(called: Called<'_>, mut plan: Plan, identity: Identity, disk: Option<&Disk>) -> Result<Job, PlanFault> {
    let sandbox = &called.run.sandbox;
    for file in called.files {
        plan.file(&place(&file.name), 0o555, &file.bytes)?;
    }
    plan.file(PARAMS_FILE, 0o444, &called.invocation.params_json)?;
    for (path, content) in ETC {
        plan.file(path, 0o444, content.as_bytes())?;
    }
    let secrets = plan.secrets(&sandbox.secrets, called.secrets)?;
    if let Some(disk) = disk {
        plan.folder(&disk.workspace, "/workspace", true, true)?;
    }
    let tmpfs = |bytes: u64, inodes: u64, exec| Tmpfs { bytes, inodes: inodes.max(2), exec };
    let memory = disk.is_none().then(|| tmpfs(sandbox.workspace_bytes, sandbox.workspace_inodes, true));
    let mut job = plan.job(&called, called.invocation.clone(), identity, sandbox.cwd.clone());
    job.spec.workspace = memory;
    job.spec.tmp = Some(tmpfs(sandbox.tmp_bytes, sandbox.tmp_inodes, false));
    job.spec.shm = (sandbox.shm_bytes > 0).then(|| tmpfs(sandbox.shm_bytes, sandbox.tmp_inodes, false));
    job.spec.net = if sandbox.net == tool::Net::Loopback.number() { Net::Loopback } else { Net::None };
    job.secrets = secrets;
    Ok(job)
}

/// In the root of the machine, where it reaches what rules allow: what it would find in a root of its own lies on a disk.
fn landlock(called: Called<'_>, mut plan: Plan, identity: Identity, disk: &Disk) -> Result<Job, PlanFault> {
    let top = disk.dir.path();
    let invocation = invocation_below(&top, called.spec, called.arguments, &called.names);
    let invocation = invocation.map_err(|error| PlanFault::new("invocation", Errno::INVAL, error.to_string()))?;
    let made = |name: &str| disk.dir.folder(name).map_err(of_disk);
    let (tool, run, roots) = (made("tool")?, made("run")?, made("roots")?);
    for file in called.files {
        let path = place(&file.name);
        let below = path.strip_prefix("/tool/").unwrap_or(&path);
        disk.dir.file(&tool, below, &file.bytes).map_err(of_disk)?;
    }
    let params = PARAMS_FILE.rsplit('/').next().unwrap_or(PARAMS_FILE);
    disk.dir.file(&run, params, &invocation.params_json).map_err(of_disk)?;
    plan.link_roots(disk, &roots)?;
    for (folder, name, write, exec) in
        [(&tool, "tool", false, true), (&run, "run", false, false), (&roots, "roots", false, false)]
    {
        plan.folder(folder, &format!("{top}/{name}"), write, exec)?;
    }
    plan.folder(&disk.workspace, &format!("{top}/workspace"), true, true)?;
    if let Some(tmp) = &disk.tmp {
        plan.folder(tmp, &format!("{top}/tmp"), true, false)?;
    }
    plan.symlinks.clear();
    let mut job = plan.job(&called, invocation, identity, format!("{top}{}", called.run.sandbox.cwd));
    job.spec.level = Level::Landlock;
    if identity == Identity::Own && !rustix::process::geteuid().is_root() {
        // All threads of the user count, and what else the user runs is not the program's.
        job.spec.limits.pids += threads_of_user();
    }
    Ok(job)
}

/// The directory of a call on a disk, and what of it has limits.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) dir: CallDir,
    pub(super) workspace: OwnedFd,
    tmp: Option<OwnedFd>,
    /// Bytes and names of each.
    limits: [(u64, u64); 2],
}

impl Disk {
    fn make(identity: Identity, sandbox: &Sandbox, level: Level) -> Result<Disk, Errno> {
        let owner = match identity {
            Identity::Become { uid, gid } => Some((uid, gid)),
            Identity::Own | Identity::Mapped => rustix::process::geteuid().is_root().then_some((NOBODY, NOBODY)),
        };
        let dir = CallDir::make(owner)?;
        let workspace = dir.folder("workspace")?;
        // In a root of its own it has one in memory.
        let tmp = (level == Level::Landlock).then(|| dir.folder("tmp")).transpose()?;
        let limits = [(sandbox.workspace_bytes, sandbox.workspace_inodes), (sandbox.tmp_bytes, sandbox.tmp_inodes)];
        Ok(Disk { dir, workspace, tmp, limits })
    }

    /// Whether more lies there than may, or nobody can see how much.
    pub(super) fn is_over(&self) -> bool {
        let folders = [Some(&self.workspace), self.tmp.as_ref()];
        folders.into_iter().zip(self.limits).any(|(folder, (bytes_max, entries_max))| {
            let over = |folder: &OwnedFd| used(folder.as_fd(), entries_max).is_none_or(|used| used.bytes > bytes_max);
            folder.is_some_and(over)
        })
    }
}

/// Whom the launcher becomes when it is root and nobody says otherwise.
const NOBODY: u32 = 65_534;

/// Threads of our user on this machine.
fn threads_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|process| process.metadata().is_ok_and(|about| about.uid() == me));
    ours.map(|process| std::fs::read_dir(process.path().join("task")).map_or(0, |tasks| tasks.count() as u64)).sum()
}

/// Files that libraries look for, saying nothing of the machine.
const ETC: [(&str, &str); 4] = [
    ("/etc/passwd", "toka:x:1000:1000::/workspace:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"),
    ("/etc/group", "toka:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Whose rights the program has outside: never those of root.
fn identity(writes: Option<(u32, u32)>, slot: u32) -> Result<Identity, PlanFault> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Identity::Own);
    }
    match writes {
        Some((0, _) | (_, 0)) => Err(PlanFault::new(
            "root-not-writable",
            Errno::PERM,
            "a call writes below a directory of root, and no program runs as root; give the directory to another user",
        )),
        Some((uid, gid)) => Ok(Identity::Become { uid, gid }),
        None => {
            let user = SLOT_USER_MIN + slot;
            Ok(if has_user(user) { Identity::Become { uid: user, gid: user } } else { Identity::Own })
        }
    }
}

/// Whether this user exists in the user namespace of this process (user_namespaces(7)).
fn has_user(user: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
        let (first, _outside, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(user)))
    })
}

/// What every program sees of the machine: programs, libraries, and where Debian keeps which of several programs has a
/// common name.
const BASE: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"];

#[derive(Default)]
struct Plan {
    inputs: Vec<OwnedFd>,
    mounts: Vec<Mount>,
    symlinks: Vec<Symlink>,
    files: Vec<SpecFile>,
    masks: Vec<Mask>,
    placeholders: Vec<Placeholder>,
}

impl Plan {
    fn input(&mut self, descriptor: OwnedFd) -> u32 {
        self.inputs.push(descriptor);
        u32::try_from(self.inputs.len() - 1).unwrap_or(u32::MAX)
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), PlanFault> {
        let held = sealed(content, false).map_err(|error| PlanFault::new("file", errno(&error), error.to_string()))?;
        let input = self.input(held);
        self.files.push(SpecFile { input, path: path.to_owned(), mode });
        Ok(())
    }

    /// What is told to the launcher, as far as it is the same at every level.
    fn job(self, called: &Called<'_>, invocation: Invocation, identity: Identity, cwd: String) -> Job {
        let sandbox = &called.run.sandbox;
        let limits = &sandbox.limits;
        let program = match called.toolchain {
            Some(path) => path.to_owned(),
            None => invocation.argv.first().cloned().unwrap_or_default(),
        };
        let mut env = sandbox.env.clone();
        env.extend(invocation.env);
        let spec = Spec {
            version: VERSION,
            supervisor: std::process::id(),
            level: Level::Strong,
            identity,
            inputs: u32::try_from(self.inputs.len()).unwrap_or(u32::MAX),
            cgroups: Vec::new(),
            memory_cgroup: false,
            mounts: self.mounts,
            symlinks: self.symlinks,
            files: self.files,
            masks: self.masks,
            workspace: None,
            tmp: None,
            shm: None,
            net: Net::None,
            program,
            image: None,
            argv: invocation.argv,
            env: env.into_iter().collect(),
            cwd,
            pass: Vec::new(),
            limits: Limits {
                pids: limits.pids,
                // No cgroup counts the memory of all processes together, so each has no more than all may have.
                as_bytes: limits.as_bytes.min(limits.memory_bytes),
                // The supervisor ends a call whose processes together have taken their time; this holds where it cannot
                // look.
                cpu_s: limits.cpu_us.div_ceil(1_000_000) + 1,
                file_bytes: limits.file_size,
                open_files: limits.open_files,
            },
        };
        Job {
            spec,
            inputs: self.inputs,
            stdin: Stdin::Bytes(invocation.stdin),
            kept: [limits.stdout_bytes, limits.stderr_bytes],
            output_max: limits.output_total_bytes,
            memory_max: limits.memory_bytes,
            cpu_max: limits.cpu_us,
            until: called.until,
            grace: Duration::from_micros(limits.grace_us),
            secrets: None,
            keeps_files: !called.run.outputs.artifacts.is_empty(),
            placeholders: self.placeholders,
            disk: None,
        }
    }

    fn folder(&mut self, folder: &OwnedFd, path: &str, write: bool, exec: bool) -> Result<(), PlanFault> {
        let input = self.input(folder.try_clone().map_err(|error| of_disk(errno(&error)))?);
        self.mounts.push(Mount { input, path: path.to_owned(), write, exec });
        Ok(())
    }

    /// Puts a link for each of what the needs name where the program looks for it. What lies inside another of them is
    /// reached through that.
    fn link_roots(&self, disk: &Disk, roots: &OwnedFd) -> Result<(), PlanFault> {
        let mut linked: Vec<&str> = Vec::new();
        for mount in &self.mounts {
            let Some(below) = mount.path.strip_prefix("/roots/") else { continue };
            let inside = |above: &&str| below.strip_prefix(*above).is_some_and(|rest| rest.starts_with('/'));
            if linked.iter().any(inside) {
                continue;
            }
            let fault = |error: Errno| PlanFault::new("root", error, format!("{}: {error}", mount.path));
            let input = self.inputs.get(mount.input as usize).ok_or_else(|| fault(Errno::BADF))?;
            let target = rustix::fs::readlink(format!("/proc/self/fd/{}", input.as_raw_fd()), Vec::new());
            let target = target.map_err(fault)?.into_string().map_err(|_| fault(Errno::ILSEQ))?;
            disk.dir.link(roots, below, &target).map_err(fault)?;
            linked.push(below);
        }
        Ok(())
    }

    /// Places the values that the program is handed, and says in which forms they must not come back.
    fn secrets(&mut self, wanted: &[Secret], source: Option<&Secrets>) -> Result<Option<Arc<Forms>>, PlanFault> {
        let mut values = Vec::new();
        for secret in wanted {
            let undeclared = || SecretFault::Undeclared { handle: secret.handle.clone() };
            let value = source.ok_or_else(undeclared).and_then(|source| source.value(&secret.handle));
            let value = value.map_err(|fault| PlanFault::new(fault.symbol(), Errno::ACCESS, fault.to_string()))?;
            self.file(&secret.place(), 0o400, &value)?;
            values.push(value);
        }
        Forms::of(&values).map_err(|error| PlanFault::new("secret-forms", errno(&error), error.to_string()))
    }

    /// Mounts [`BASE`]: a link stays one.
    fn base(&mut self) -> Result<(), PlanFault> {
        for path in BASE {
            let fault = |error: Errno| PlanFault::new("base", error, format!("{path}: {error}"));
            match rustix::fs::readlink(path, Vec::new()) {
                Ok(target) => {
                    let target = target.into_string().map_err(|_| fault(Errno::ILSEQ))?;
                    self.symlinks.push(Symlink { path: path.to_owned(), target });
                }
                Err(Errno::INVAL) => {
                    let flags = OFlags::PATH | OFlags::CLOEXEC;
                    let input = self.input(rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(fault)?);
                    self.mounts.push(Mount { input, path: path.to_owned(), write: false, exec: true });
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(fault(error)),
            }
        }
        Ok(())
    }

    /// Mounts what the needs of the call name below `/roots`. The owner of what may be written, if anything may.
    fn roots(
        &mut self,
        call: &AdmittedCall,
        roots: &Roots,
        masked: &[String],
        level: Level,
    ) -> Result<Option<(u32, u32)>, PlanFault> {
        // By path, so that what lies inside another mount is mounted after it.
        let mut wanted: BTreeMap<String, (OwnedFd, FsOps)> = BTreeMap::new();
        for need in call.envelope() {
            let (Scope::Fs(asked), Scope::Fs(granted)) = (&need.scope, &need.within) else { continue };
            let ops = asked.ops().and(granted.ops());
            let anchor = asked.path().anchor();
            let fault = |error: Errno, why: &str| PlanFault::new("root", error, format!("{}: {why}", asked.path()));
            let root = roots.get(anchor.root());
            let root = root.ok_or_else(|| fault(Errno::NOENT, "no directory is given for this root"))?;
            let above: Vec<&str> = granted.path().anchor().segments().collect();
            let all: Vec<&str> = anchor.segments().collect();
            // Beyond what the grant itself spells out, a hidden name is not there.
            if all.iter().skip(above.len()).any(|name| masked.iter().any(|masked| masked == name)) {
                return Err(fault(Errno::NOENT, "this name is hidden from tools; a grant that spells it out shows it"));
            }
            let found = reach(root.as_fd(), &above, &all).map_err(|error| match error {
                Errno::XDEV => fault(error, "a link on the way leads out of what is granted"),
                error => fault(error, &error.to_string()),
            })?;
            let stat = rustix::fs::fstat(&found).map_err(|error| fault(error, &error.to_string()))?;
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !is_file && !asked.path().is_under() {
                return Err(fault(
                    Errno::ISDIR,
                    "a grant of one name does not reach into a directory; grant it with /**",
                ));
            }
            let path = [&["/roots", anchor.root()], all.as_slice()].concat().join("/");
            let ops = match wanted.remove(&path) {
                Some((_, known)) => known.iter().fold(ops, FsOps::with),
                None => ops,
            };
            wanted.insert(path, (found, ops));
        }
        let mut owner = None;
        for (path, (found, ops)) in wanted {
            let fault = |error: Errno| PlanFault::new("root", error, format!("{path}: {error}"));
            let changes = |op: FsOp| match op {
                FsOp::Write | FsOp::Create | FsOp::Delete | FsOp::DeleteSelf => true,
                FsOp::Read | FsOp::List | FsOp::Exec => false,
            };
            let write = ops.iter().any(changes);
            let stat = rustix::fs::fstat(&found).map_err(fault)?;
            if write {
                owner = owner.or(Some((stat.st_uid, stat.st_gid)));
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let mount = u32::try_from(self.mounts.len()).unwrap_or(u32::MAX);
                for name in masked {
                    if level == Level::Landlock {
                        let there = rustix::fs::statat(&found, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
                        if there || write {
                            let why = format!("{path}: at level `landlock` nothing hides `{name}` there");
                            return Err(PlanFault::new("mask", Errno::OPNOTSUPP, why));
                        }
                        continue;
                    }
                    // What is not there cannot be seen, but made.
                    if write {
                        match Placeholder::hold(&found, name) {
                            Ok(held) => self.placeholders.extend(held),
                            // Where we may make nothing, the program may not either.
                            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => continue,
                            Err(error) => return Err(fault(error)),
                        }
                    }
                    self.masks.push(Mask { mount, path: name.clone() });
                }
            }
            let exec = ops.iter().any(|op| op == FsOp::Exec);
            let input = self.input(found);
            self.mounts.push(Mount { input, path, write, exec });
        }
        Ok(owner)
    }
}

/// Opens `all` below a root, where the first of them are what was granted: no link leads out of the grant.
fn reach(root: BorrowedFd<'_>, granted: &[&str], all: &[&str]) -> Result<OwnedFd, Errno> {
    let open = |dir: BorrowedFd<'_>, path: &[&str]| {
        let path = if path.is_empty() { ".".to_owned() } else { path.join("/") };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, &path, flags, Mode::empty(), resolve))
    };
    let below = all.strip_prefix(granted).ok_or(Errno::XDEV)?;
    let prefix = open(root, granted)?;
    if below.is_empty() { Ok(prefix) } else { open(prefix.as_fd(), below) }
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
