//! The filter of system calls: tables, compiled to one program.
//!
//! It is assembled here. A crate would give each call a place in one long line and each filter one answer; the kernel
//! walks the program for every number there is before it takes it, and that walk was a tenth of what a jail cost.

use std::collections::BTreeMap;

use libc::c_long;
use rustix::io::Errno;
use seccompiler::{BpfProgram, TargetArch, sock_filter};

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
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;

/// SOCK_STREAM, SOCK_DGRAM and the like are the low four bits of a socket's type (socket(2)).
const SOCKET_TYPES: u32 = 0xf;
/// Calls that one leaf of the program compares with.
const LEAF: usize = 4;

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
    let arch = std::env::consts::ARCH.try_into().map_err(|_| Errno::NOSYS)?;
    seccompiler::apply_filter(&program(policy, arch)?).map_err(errno_of)
}

fn errno_of(error: seccompiler::Error) -> Errno {
    use seccompiler::Error;
    match error {
        Error::Prctl(error) | Error::Seccomp(error) => Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
        Error::EmptyFilter | Error::Backend(_) | Error::ThreadSync(_) => Errno::INVAL,
    }
}

/// What becomes of a call that is in a table.
#[derive(Clone, Debug)]
enum Rule {
    /// It fails with this.
    Fails(Errno),
    /// It fails with EPERM unless all of this holds.
    Unless(Vec<Must>),
}

/// What must hold of the low 32 bits of an argument, under a mask. All arguments that are looked at are ints to the
/// kernel, so the other half must not matter here either.
#[derive(Clone, Debug)]
struct Must {
    arg: u32,
    mask: u32,
    among: Vec<u32>,
    /// Whether it must be among them, or must not be.
    is_among: bool,
}

impl Must {
    fn be(arg: u32, among: &[u32]) -> Must {
        Must { arg, mask: u32::MAX, among: among.to_vec(), is_among: true }
    }

    fn not_be(arg: u32, among: &[u32]) -> Must {
        Must { is_among: false, ..Must::be(arg, among) }
    }

    fn under(self, mask: u32) -> Must {
        Must { mask, ..self }
    }
}

/// The tables in one, by number.
fn rules(policy: &Policy) -> BTreeMap<u32, Rule> {
    let mut rules = BTreeMap::new();
    let mut all = |calls: &[c_long], rule: Rule| rules.extend(calls.iter().map(|call| (*call as u32, rule.clone())));
    let refused = Rule::Fails(Errno::PERM);
    all(ABSENT, Rule::Fails(Errno::NOSYS));
    for calls in [REFUSED, REFUSED_OLD, &[OPEN_TREE_ATTR]] {
        all(calls, refused.clone());
    }
    if policy.without_uncounted_memory {
        all(UNCOUNTED, refused.clone());
    }
    if policy.without_metadata {
        for calls in [METADATA, METADATA_OLD, &METADATA_NEW] {
            all(calls, refused.clone());
        }
    }
    let unless = |must: &[Must]| Rule::Unless(must.to_vec());
    let namespaces = NEW_NAMESPACE.iter().fold(0, |flags, flag| flags | number(*flag));
    all(&[libc::SYS_clone], unless(&[Must::be(0, &[0]).under(namespaces)]));
    all(&[libc::SYS_personality], unless(&[Must::be(0, &[0])]));
    all(OF_OTHERS, unless(&[Must::be(0, &[0])]));
    all(&[libc::SYS_setpriority, libc::SYS_ioprio_set], unless(&[Must::be(1, &[0])]));
    all(&[libc::SYS_socket], sockets(policy.net));
    let pairs = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(number);
    let pairs = [Must::be(0, &[number(libc::AF_UNIX)]), Must::be(1, &pairs).under(SOCKET_TYPES)];
    all(&[libc::SYS_socketpair], unless(&pairs));
    let mut ioctls = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD].map(|request| request as u32).to_vec();
    if let Some(pid) = policy.signals_only_to {
        all(SIGNALS, unless(&[Must::be(0, &[pid])]));
        all(&[libc::SYS_pidfd_send_signal], refused);
        // A file can be told to send its owner a signal of one's choice (fcntl(2), F_SETOWN and F_SETSIG).
        let owners = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX].map(number);
        all(&[libc::SYS_fcntl], unless(&[Must::not_be(1, &owners)]));
        ioctls.extend([FIOSETOWN, SIOCSPGRP]);
    }
    all(&[libc::SYS_ioctl], unless(&[Must::not_be(1, &ioctls)]));
    rules
}

fn sockets(net: Net) -> Rule {
    match net {
        Net::None => Rule::Fails(Errno::PERM),
        Net::Loopback | Net::Proxy => Rule::Unless(vec![
            Must::be(0, &[libc::AF_INET, libc::AF_INET6].map(number)),
            Must::be(1, &[libc::SOCK_STREAM, libc::SOCK_DGRAM].map(number)).under(SOCKET_TYPES),
            // MPTCP, SCTP and SMC are streams, too.
            Must::be(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(number)),
        ]),
    }
}

fn number(constant: i32) -> u32 {
    constant.unsigned_abs()
}

/// Foreign ABIs end the process, numbers that were never considered answer ENOSYS, the tables say the rest, and what
/// they do not name is allowed.
///
/// ```text
///     ld  arch        offset 4 of struct seccomp_data
///     jeq ARCH        else kill
///     ld  nr          offset 0
///     jgt NEWEST              ENOSYS
///     a tree of jge over the numbers, down to leaves of a few: jeq, and what becomes of that call
/// ```
fn program(policy: &Policy, arch: TargetArch) -> Result<BpfProgram, Errno> {
    let audit_arch = match arch {
        TargetArch::x86_64 => 0xC000_003E,
        TargetArch::aarch64 => 0xC000_00B7,
        TargetArch::riscv64 => 0xC000_00F3,
    };
    let rules: Vec<(u32, Rule)> = rules(policy).into_iter().collect();
    let mut program = vec![
        load(4),
        jump(libc::BPF_JEQ, audit_arch, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(0),
        jump(libc::BPF_JGT, NEWEST, 0, 1),
        fails(Errno::NOSYS),
    ];
    program.extend(tree(&rules)?);
    Ok(program)
}

fn tree(rules: &[(u32, Rule)]) -> Result<BpfProgram, Errno> {
    let (below, above) = rules.split_at(rules.len() / 2);
    let mut program = vec![];
    if rules.len() > LEAF {
        let below = tree(below)?;
        program.push(jump(libc::BPF_JGE, above[0].0, 0, 1));
        program.push(op(libc::BPF_JMP | libc::BPF_JA, 0, 0, u32::try_from(below.len()).map_err(|_| Errno::TOOBIG)?));
        program.extend(below);
        program.extend(tree(above)?);
        return Ok(program);
    }
    for (call, rule) in rules {
        let then = match rule {
            Rule::Fails(errno) => vec![fails(*errno)],
            Rule::Unless(must) => must.iter().flat_map(check).chain([answer(libc::SECCOMP_RET_ALLOW)]).collect(),
        };
        program.push(jump(libc::BPF_JEQ, *call, 0, u8::try_from(then.len()).map_err(|_| Errno::TOOBIG)?));
        program.extend(then);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    Ok(program)
}

/// Goes on behind itself if `must` holds.
fn check(must: &Must) -> BpfProgram {
    // Arguments are 64 bits each, from offset 16 on, the low half first.
    let mut program = vec![load(16 + 8 * must.arg), op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, must.mask)];
    for (value, after) in must.among.iter().zip((0..must.among.len() as u8).rev()) {
        // Over the comparisons after it and the next instruction, which is the other answer's.
        program.push(jump(libc::BPF_JEQ, *value, after + 1, 0));
    }
    if must.is_among {
        program.push(fails(Errno::PERM));
    } else {
        program.push(op(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1));
        program.push(fails(Errno::PERM));
    }
    program
}

fn op(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(compare: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    op(libc::BPF_JMP | compare | libc::BPF_K, jt, jf, value)
}

fn answer(action: u32) -> sock_filter {
    op(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

fn fails(errno: Errno) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH: u32 = 0xC000_003E;

    /// Runs a program as seccomp(2) does: on architecture, number and arguments.
    fn run(program: &[sock_filter], arch: u32, call: u32, args: [u64; 3]) -> u32 {
        let (mut at, mut acc) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let code = u32::from(code);
            at += 1;
            let jumps = |is_so: bool| usize::from(if is_so { jt } else { jf });
            at += match (code & 0x07, code & 0xf0) {
                (libc::BPF_RET, _) => return k,
                (libc::BPF_LD, _) => {
                    acc = match k {
                        0 => call,
                        4 => arch,
                        low => args[(low as usize - 16) / 8] as u32,
                    };
                    0
                }
                (libc::BPF_ALU, libc::BPF_AND) => {
                    acc &= k;
                    0
                }
                (libc::BPF_JMP, libc::BPF_JA) => k as usize,
                (libc::BPF_JMP, libc::BPF_JEQ) => jumps(acc == k),
                (libc::BPF_JMP, libc::BPF_JGT) => jumps(acc > k),
                (libc::BPF_JMP, libc::BPF_JGE) => jumps(acc >= k),
                other => panic!("no program of ours has {other:?}"),
            };
        }
    }

    /// What the tables say, without a tree.
    fn told(rules: &BTreeMap<u32, Rule>, call: u32, args: [u64; 3]) -> u32 {
        let errno = |errno: Errno| libc::SECCOMP_RET_ERRNO | errno.raw_os_error().unsigned_abs();
        let holds = |must: &Must| must.among.contains(&(args[must.arg as usize] as u32 & must.mask)) == must.is_among;
        match rules.get(&call) {
            _ if call > NEWEST => errno(Errno::NOSYS),
            None => libc::SECCOMP_RET_ALLOW,
            Some(Rule::Fails(because)) => errno(*because),
            Some(Rule::Unless(must)) if must.iter().all(holds) => libc::SECCOMP_RET_ALLOW,
            Some(Rule::Unless(_)) => errno(Errno::PERM),
        }
    }

    fn policies() -> Vec<Policy> {
        let strong =
            Policy { net: Net::None, without_uncounted_memory: true, without_metadata: false, signals_only_to: None };
        let landlock = Policy { without_metadata: true, signals_only_to: Some(77), ..strong };
        vec![strong, landlock, Policy { net: Net::Loopback, without_uncounted_memory: false, ..strong }]
    }

    #[test]
    fn the_program_says_of_every_call_what_the_tables_say() {
        let values = [0, 1, 2, 3, 5, 10, 15, 17, 77, 0x5412, 0x1_0000_5412, 0x8901, 0x2_0000, 0x1000_0011, 1 << 32];
        for policy in policies() {
            let program = program(&policy, TargetArch::x86_64).expect("it fits");
            assert!(program.len() < 400, "{}", program.len());
            let rules = rules(&policy);
            for call in (0..=NEWEST + 2).chain([0x4000_0027, u32::MAX]) {
                for first in values {
                    for second in values {
                        for third in [0, 6, 17, 132] {
                            let args = [first, second, third];
                            let (got, must) = (run(&program, ARCH, call, args), told(&rules, call, args));
                            assert_eq!(got, must, "call {call} with {args:x?} under {policy:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn another_abi_ends_the_process() {
        for policy in policies() {
            let program = program(&policy, TargetArch::x86_64).expect("it fits");
            assert_eq!(run(&program, 0x4000_0003, 20, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}
