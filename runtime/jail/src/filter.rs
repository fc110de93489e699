//! The filter of system calls: tables, compiled to two programs of which the more severe answer holds.

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

/// Names of calls as libc has them, without commas, so that a table reads like one.
macro_rules! calls {
    ($($call:ident)*) => { &[$(libc::$call),*] };
}

/// Calls that answer ENOSYS, so that libraries use older ones, which can be filtered: the arguments of `clone3` and of
/// io_uring lie in memory, where no filter sees them.
const ABSENT: &[c_long] = calls! { SYS_clone3 SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register };

/// Calls that answer EPERM whatever their arguments.
const REFUSED: &[c_long] = calls! {
    SYS_unshare SYS_setns SYS_chroot SYS_pivot_root SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen
    SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_open_by_handle_at SYS_name_to_handle_at
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_process_madvise
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_fanotify_init SYS_fanotify_mark SYS_seccomp
    SYS_keyctl SYS_add_key SYS_request_key
    SYS_mbind SYS_move_pages SYS_migrate_pages SYS_memfd_secret SYS_vmsplice SYS_mknodat
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_quotactl_fd SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
};

/// Changes of metadata, which Landlock does not mediate.
const METADATA: &[c_long] = calls! {
    SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_utimensat
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
};
/// Those that libc does not name.
const METADATA_NEW: [c_long; 3] = [SETXATTRAT, REMOVEXATTRAT, FILE_SETATTR];

/// Older forms, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[c_long] = calls! { SYS_mknod SYS_iopl SYS_ioperm SYS_modify_ldt };
#[cfg(target_arch = "x86_64")]
const METADATA_OLD: &[c_long] = calls! { SYS_chmod SYS_chown SYS_lchown SYS_utime SYS_utimes SYS_futimesat };
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
const METADATA_OLD: &[c_long] = &[];

/// Memory that neither the limit on address space nor resident size shows.
const UNCOUNTED: &[c_long] = calls! { SYS_memfd_create SYS_shmget SYS_msgget SYS_semget };

/// Calls that act on the caller if their process, the first argument, is 0.
const OF_OTHERS: &[c_long] = calls! {
    SYS_prlimit64 SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
};

/// Calls that send a signal; the first argument says to whom.
const SIGNALS: &[c_long] = calls! { SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo };

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

/// Other ways to let a file send a signal, of include/uapi/asm-generic: fcntl.h and sockios.h.
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;

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
    let rules = SeccompFilter::new(conditions(policy)?, SeccompAction::Allow, errno(Errno::PERM), arch()?)
        .map_err(|_| Errno::INVAL)?;
    let rules: BpfProgram = rules.try_into().map_err(|_| Errno::INVAL)?;
    seccompiler::apply_filter(&rules).map_err(errno_of)?;
    // Last, since it refuses seccomp(2) itself.
    seccompiler::apply_filter(&by_number(policy, arch()?)?).map_err(errno_of)
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
    }
}

/// Foreign ABIs end the process, unknown and absent calls answer ENOSYS, refused ones EPERM; all else is allowed here.
/// It is by hand since seccompiler has one answer to a filter, and needs several instructions for each call.
///
/// ```text
///     ld  arch        offset 4 of struct seccomp_data
///     jeq ARCH        else kill
///     ld  nr          offset 0
///     jgt NEWEST              ENOSYS
///     jeq each of ABSENT      ENOSYS
///     jeq each that is refused EPERM
///     ret ALLOW
/// ```
fn by_number(policy: &Policy, arch: TargetArch) -> Result<BpfProgram, Errno> {
    let audit_arch = match arch {
        TargetArch::x86_64 => 0xC000_003E,
        TargetArch::aarch64 => 0xC000_00B7,
        TargetArch::riscv64 => 0xC000_00F3,
    };
    let mut refused = [REFUSED, REFUSED_OLD, &[OPEN_TREE_ATTR]].concat();
    if policy.without_uncounted_memory {
        refused.extend(UNCOUNTED);
    }
    if policy.without_metadata {
        refused.extend([METADATA, METADATA_OLD, &METADATA_NEW].concat());
    }
    let op = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let answer = |action| op(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let error = |errno: Errno| answer(libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs());
    let mut program = vec![
        load(4),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, audit_arch),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(0),
        op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, NEWEST),
        error(Errno::NOSYS),
    ];
    for call in ABSENT {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(error(Errno::NOSYS));
    }
    // Each that matches jumps over those after it and over ALLOW.
    for (call, after) in refused.iter().zip((0..refused.len()).rev()) {
        let over = u8::try_from(after + 1).map_err(|_| Errno::TOOBIG)?;
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, over, 0, *call as u32));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program.push(error(Errno::PERM));
    Ok(program)
}

/// What answers EPERM for some arguments only: the calls, each with the rules of which one must match; none is always.
fn conditions(policy: &Policy) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, Errno> {
    let mut table: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    let mut clone = vec![];
    for flag in NEW_NAMESPACE {
        clone.push(rule(&[(0, Compare::Bits(u64::from(flag.unsigned_abs()), u64::from(flag.unsigned_abs())))])?);
    }
    table.insert(libc::SYS_clone, clone);
    table.insert(libc::SYS_personality, vec![rule(&[(0, Compare::IsNot(0))])?]);
    for call in OF_OTHERS {
        table.insert(*call, vec![rule(&[(0, Compare::IsNot(0))])?]);
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
            table.insert(*call, vec![rule(&[(0, Compare::IsNot(u64::from(pid)))])?]);
        }
        table.insert(libc::SYS_pidfd_send_signal, vec![]);
        // A file can be told to send its owner a signal of one's choice (fcntl(2), F_SETOWN and F_SETSIG).
        let owners = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX].map(|command| rule(&[(1, Compare::Is(number(command)))]));
        table.insert(libc::SYS_fcntl, owners.into_iter().collect::<Result<_, _>>()?);
        ioctls.extend([FIOSETOWN, SIOCSPGRP]);
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
