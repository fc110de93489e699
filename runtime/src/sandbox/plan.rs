//! From an admitted call of a foreign program to what the launcher is told: exactly what the call was admitted for.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use toka_jail::spec::{File as SpecFile, Identity, Level, Limits, Mask, Mount, Net, Spec, Symlink, Tmpfs, VERSION};
use toka_kernel::AdmittedCall;
use toka_kernel::capability::{FsOp, FsOps, Scope};
use toka_kernel::tool::{self, Run, ToolSpec, WorkspaceKind, place};
use toka_tools::{Invocation, PARAMS_FILE, ProgramFile};

use super::spawn::sealed;
use super::supervise::Job;
use crate::executor::Roots;

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
    pub(super) invocation: Invocation,
    pub(super) files: &'a [ProgramFile],
    pub(super) roots: &'a Roots,
    /// The program of the toolchain, where there is one.
    pub(super) toolchain: Option<&'a str>,
    /// The number of the executor thread.
    pub(super) slot: u32,
    pub(super) until: Instant,
}

/// Plans a call.
pub(super) fn plan(called: Called<'_>) -> Result<Job, PlanFault> {
    let sandbox = &called.run.sandbox;
    if called.spec.level != tool::Level::Strong.number() {
        return Err(PlanFault::new("level", Errno::NOSYS, "only level `strong` is supervised in this version"));
    }
    if sandbox.workspace_kind != WorkspaceKind::Memory.number() {
        return Err(PlanFault::new("workspace", Errno::NOSYS, "workspaces on disk are not built in this version"));
    }
    let mut plan = Plan::default();
    plan.base()?;
    let writes = plan.roots(called.call, called.roots, &sandbox.deny_within)?;
    for file in called.files {
        plan.file(&place(&file.name), 0o555, &file.bytes)?;
    }
    plan.file(PARAMS_FILE, 0o444, &called.invocation.params_json)?;
    for (path, content) in ETC {
        plan.file(path, 0o444, content.as_bytes())?;
    }
    let program = match called.toolchain {
        Some(path) => path.to_owned(),
        None => called.invocation.argv.first().cloned().unwrap_or_default(),
    };
    let limits = &sandbox.limits;
    let mut env = sandbox.env.clone();
    env.extend(called.invocation.env);
    let tmpfs = |bytes: u64, inodes: u64, exec| Tmpfs { bytes, inodes: inodes.max(2), exec };
    let spec = Spec {
        version: VERSION,
        supervisor: std::process::id(),
        level: Level::Strong,
        identity: identity(writes, called.slot)?,
        inputs: u32::try_from(plan.inputs.len()).unwrap_or(u32::MAX),
        cgroups: Vec::new(),
        memory_cgroup: false,
        mounts: plan.mounts,
        symlinks: plan.symlinks,
        files: plan.files,
        masks: plan.masks,
        workspace: Some(tmpfs(sandbox.workspace_bytes, sandbox.workspace_inodes, true)),
        tmp: Some(tmpfs(sandbox.tmp_bytes, sandbox.tmp_inodes, false)),
        shm: (sandbox.shm_bytes > 0).then(|| tmpfs(sandbox.shm_bytes, sandbox.tmp_inodes, false)),
        net: if sandbox.net == tool::Net::Loopback.number() { Net::Loopback } else { Net::None },
        program,
        argv: called.invocation.argv,
        env: env.into_iter().collect(),
        cwd: sandbox.cwd.clone(),
        pass: Vec::new(),
        limits: Limits {
            pids: limits.pids,
            // No cgroup counts the memory of all processes together, so each has no more than all may have.
            as_bytes: limits.as_bytes.min(limits.memory_bytes),
            // The supervisor ends a call whose processes together have taken their time; this holds where it cannot look.
            cpu_s: limits.cpu_us.div_ceil(1_000_000) + 1,
            file_bytes: limits.file_size,
            open_files: limits.open_files,
        },
    };
    Ok(Job {
        spec,
        inputs: plan.inputs,
        stdin: called.invocation.stdin,
        kept: [limits.stdout_bytes, limits.stderr_bytes],
        output_max: limits.output_total_bytes,
        memory_max: limits.memory_bytes,
        cpu_max: limits.cpu_us,
        until: called.until,
        grace: Duration::from_micros(limits.grace_us),
    })
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
                    let there = rustix::fs::statat(&found, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
                    if there || !write {
                        self.masks.push(Mask { mount, path: name.clone() });
                    }
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
