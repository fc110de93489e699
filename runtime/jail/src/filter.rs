//! The filter of system calls: one table, compiled to two programs of which the more severe answer holds.

use std::collections::BTreeMap;

use libc::c_long;
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::spec::Net;

/// The newest call that was considered: `file_setattr` of Linux 6.17. Calls above it answer ENOSYS, so that a newer
/// kernel adds nothing unseen; the numbers of the x32 ABI lie far above it.
const NEWEST: u32 = 469;
/// Calls of Linux 6.13 to 6.17 that libc does not name.
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// Calls that answer ENOSYS, so that libraries use older ones, which can be filtered: the arguments of `clone3` and of
/// io_uring lie in memory, where no filter sees them.
const ABSENT: [c_long; 4] =
    [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Calls that answer EPERM whatever their arguments.
const REFUSED: &[c_long] = &[
    // Namespaces, roots and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    // Large and rarely needed parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_seccomp,
    libc::SYS_mbind,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_memfd_secret,
    libc::SYS_vmsplice,
    libc::SYS_mknodat,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Memory that neither the limit on address space nor resident size shows.
const UNCOUNTED: [c_long; 4] = [libc::SYS_memfd_create, libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget];

/// Changes of metadata, which Landlock does not mediate.
const METADATA: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    libc::SYS_utimensat,
    FILE_SETATTR,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// Calls that send a signal; the first argument says to whom.
const SIGNALS: [c_long; 5] =
    [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];

/// Flags of clone(2) that make a namespace. CLONE_NEWTIME is none of them: clone(2) reads its bit as part of a signal.
const NEW_NAMESPACE: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// SOCK_STREAM, SOCK_DGRAM and the like are the low four bits of a socket's type (socket(2)).
const SOCKET_TYPES: u64 = 0xf;

/// What differs between filters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Which sockets there are.
    pub(crate) net: Net,
    /// Whether memory that no process limit counts is refused.
    pub(crate) without_uncounted_memory: bool,
    /// Whether changes of metadata are refused.
    pub(crate) without_metadata: bool,
    /// Whether signals may go to this process only.
    pub(crate) signals_only_to: Option<u32>,
}

/// Puts the filter into force for the calling thread and all that comes of it.
pub(crate) fn install(policy: &Policy) -> Result<(), Errno> {
    let rules = SeccompFilter::new(table(policy)?, SeccompAction::Allow, errno(Errno::PERM), arch()?)
        .map_err(|_| Errno::INVAL)?;
    let rules: BpfProgram = rules.try_into().map_err(|_| Errno::INVAL)?;
    seccompiler::apply_filter(&prefix(arch()?)).map_err(errno_of)?;
    seccompiler::apply_filter(&rules).map_err(errno_of)
}

fn arch() -> Result<TargetArch, Errno> {
    std::env::consts::ARCH.try_into().map_err(|_| Errno::NOSYS)
}

fn errno(errno: Errno) -> SeccompAction {
    SeccompAction::Errno(errno.raw_os_error().unsigned_abs())
}

fn errno_of(error: seccompiler::Error) -> Errno {
    use seccompiler::Error;
    match error {
        Error::Prctl(error) | Error::Seccomp(error) => Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
        Error::EmptyFilter | Error::Backend(_) | Error::ThreadSync(_) => Errno::INVAL,
        #[expect(unreachable_patterns, reason = "a variant that a feature of the crate adds")]
        _ => Errno::INVAL,
    }
}

/// Foreign ABIs end the process, unknown and absent calls answer ENOSYS; all else is allowed here.
///
/// ```text
///     ld  arch        offset 4 of struct seccomp_data
///     jeq ARCH        else kill
///     ld  nr          offset 0
///     jgt NEWEST      ENOSYS
///     jeq each of ABSENT   ENOSYS
///     ret ALLOW
/// ```
fn prefix(arch: TargetArch) -> BpfProgram {
    let audit_arch = match arch {
        TargetArch::x86_64 => 0xC000_003E,
        TargetArch::aarch64 => 0xC000_00B7,
        TargetArch::riscv64 => 0xC000_00F3,
    };
    let op = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let answer = |action| op(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let absent = libc::SECCOMP_RET_ERRNO | Errno::NOSYS.raw_os_error().unsigned_abs();
    let mut program = vec![
        load(4),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, audit_arch),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(0),
        op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, NEWEST),
        answer(absent),
    ];
    for call in ABSENT {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(answer(absent));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// What answers EPERM: the calls by number, each with the rules of which one must match; none means always.
fn table(policy: &Policy) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, Errno> {
    let mut table: BTreeMap<c_long, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, vec![])).collect();
    if policy.without_uncounted_memory {
        table.extend(UNCOUNTED.map(|call| (call, vec![])));
    }
    if policy.without_metadata {
        table.extend(METADATA.iter().map(|call| (*call, vec![])));
    }
    let mut clone = vec![];
    for flag in NEW_NAMESPACE {
        clone.push(rule(&[(0, Compare::Bits(u64::from(flag.unsigned_abs()), u64::from(flag.unsigned_abs())))])?);
    }
    table.insert(libc::SYS_clone, clone);
    table.insert(libc::SYS_personality, vec![rule(&[(0, Compare::IsNot(0))])?]);
    // These act on the caller if their process is 0.
    for call in [
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
    ] {
        table.insert(call, vec![rule(&[(0, Compare::IsNot(0))])?]);
    }
    for call in [libc::SYS_setpriority, libc::SYS_ioprio_set] {
        table.insert(call, vec![rule(&[(1, Compare::IsNot(0))])?]);
    }
    table.insert(libc::SYS_socket, sockets(policy.net)?);
    let mut pairs = types_but(&[libc::SOCK_STREAM, libc::SOCK_SEQPACKET])?;
    pairs.push(rule(&[(0, Compare::IsNot(number(libc::AF_UNIX)))])?);
    table.insert(libc::SYS_socketpair, pairs);
    let mut ioctls = vec![libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];
    if let Some(pid) = policy.signals_only_to {
        for call in SIGNALS {
            table.insert(call, vec![rule(&[(0, Compare::IsNot(u64::from(pid)))])?]);
        }
        table.insert(libc::SYS_pidfd_send_signal, vec![]);
        // A file can be told to send its owner a signal of one's choice (fcntl(2), F_SETOWN and F_SETSIG).
        let owners = [libc::F_SETOWN, 10, 15].map(|command| rule(&[(1, Compare::Is(number(command)))]));
        table.insert(libc::SYS_fcntl, owners.into_iter().collect::<Result<_, _>>()?);
        ioctls.extend([0x8901, 0x8902]);
    }
    // The kernel reads the request as 32 bits, so the other half must not matter here either.
    let ioctls = ioctls.into_iter().map(|request| rule(&[(1, Compare::Is(request))]));
    table.insert(libc::SYS_ioctl, ioctls.collect::<Result<_, _>>()?);
    Ok(table)
}

fn sockets(net: Net) -> Result<Vec<SeccompRule>, Errno> {
    match net {
        Net::None => Ok(vec![]),
        Net::Loopback | Net::Proxy => {
            let mut rules = types_but(&[libc::SOCK_STREAM, libc::SOCK_DGRAM])?;
            let no_internet = [libc::AF_INET, libc::AF_INET6].map(|family| (0, Compare::IsNot(number(family))));
            rules.push(rule(&no_internet)?);
            // MPTCP, SCTP and SMC are streams, too.
            let unusual = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(|it| (2, Compare::IsNot(number(it))));
            rules.push(rule(&unusual)?);
            Ok(rules)
        }
    }
}

/// Rules that match sockets of every type but these.
fn types_but(allowed: &[i32]) -> Result<Vec<SeccompRule>, Errno> {
    let others = (0..=SOCKET_TYPES).filter(|kind| !allowed.iter().any(|allowed| number(*allowed) == *kind));
    others.map(|kind| rule(&[(1, Compare::Bits(SOCKET_TYPES, kind))])).collect()
}

fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}

/// How 32 bits of an argument are compared. All arguments that the table looks at are ints to the kernel.
#[derive(Clone, Copy)]
enum Compare {
    Is(u64),
    IsNot(u64),
    Bits(u64, u64),
}

/// A rule that matches if all of `conditions` do: the index of an argument, and what it must be.
fn rule(conditions: &[(u8, Compare)]) -> Result<SeccompRule, Errno> {
    let condition = |(index, compare): &(u8, Compare)| {
        let (operator, value) = match *compare {
            Compare::Is(value) => (SeccompCmpOp::Eq, value),
            Compare::IsNot(value) => (SeccompCmpOp::Ne, value),
            Compare::Bits(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(*index, SeccompCmpArgLen::Dword, operator, value)
    };
    let conditions = conditions.iter().map(condition).collect::<Result<_, _>>();
    SeccompRule::new(conditions.map_err(|_| Errno::INVAL)?).map_err(|_| Errno::INVAL)
}
