//! What a killed or failing process leaves behind. Each test runs itself again as the process that is to suffer.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use toka_store::conformance::{blob, head, session, tail};
use toka_store::{Append, AppendError, Log, ReadLog, SqliteLog};

/// Names the store to the process that is to suffer.
const STORE: &str = "TOKA_TEST_STORE";
/// The sessions it appends to in turn.
const SESSIONS: u16 = 3;

#[test]
fn a_killed_writer_has_stored_whatever_it_acknowledged() {
    if let Some(path) = std::env::var_os(STORE) {
        append_until_killed(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = BTreeSet::new();
    for round in 0..40 {
        // Some are killed while they make the store, most while they append to what the ones before them left.
        let path = folder.path().join(if round % 5 == 0 { format!("{round}.sqlite") } else { "s.sqlite".to_owned() });
        let mut child = Command::new(std::env::current_exe().expect("a program"));
        let name = "stores::killed::a_killed_writer_has_stored_whatever_it_acknowledged";
        let child = child.args(["--exact", name, "--nocapture"]).env(STORE, &path).stdout(Stdio::piped());
        let acks = run_and_kill(child.spawn().expect("a process"), round * 7 % 45);
        let log = SqliteLog::open(&path).expect("the store opens");
        if round % 5 != 0 {
            acknowledged.extend(acks.iter().copied());
            check(&log, &acknowledged);
        } else {
            check(&log, &acks);
        }
    }
    assert!(acknowledged.len() > 300, "{} appends were acknowledged", acknowledged.len());
}

/// Reads so many acknowledgements, kills the process, and returns all it has got out.
fn run_and_kill(mut child: Child, after: usize) -> BTreeSet<(u16, u64)> {
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let ack = |line: String| {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let mut acks = BTreeSet::new();
    while acks.len() < after
        && let Some(line) = lines.next()
    {
        acks.extend(ack(line.expect("a line")));
    }
    child.kill().expect("it is killed");
    acks.extend(lines.map_while(Result::ok).filter_map(ack));
    child.wait().expect("it has ended");
    acks
}

fn append_until_killed(path: &Path) -> ! {
    let log = SqliteLog::open(path).expect("the store opens");
    let mut next = (1..=SESSIONS).map(|number| next_seq(&log, number)).collect::<Vec<_>>();
    loop {
        let batch: Vec<Append> =
            (1..=SESSIONS).map(|number| with_blob(number, next[usize::from(number) - 1])).collect();
        assert!(log.append(&batch).iter().all(Result::is_ok));
        let mut out = std::io::stdout().lock();
        for item in &batch {
            let number = u16::from_be_bytes([item.head.session.0[0], item.head.session.0[1]]);
            writeln!(out, "ack {number} {}", item.head.seq).expect("somebody listens");
            next[usize::from(number) - 1] += 1;
        }
    }
}

fn with_blob(number: u16, seq: u64) -> Append {
    let mut blob = blob(1, 200 + (seq % 3) as usize * 4_000);
    blob.commitment.0[..8].copy_from_slice(&seq.to_be_bytes());
    blob.bytes.extend_from_slice(&seq.to_be_bytes());
    Append { blobs: vec![blob], ..tail(number, seq, seq) }
}

fn next_seq(log: &dyn ReadLog, number: u16) -> u64 {
    log.head(session(number)).expect("it is read").map_or(0, |head| head.next_seq())
}

/// Every acknowledged entry is there with its blob, and what is there is whole.
fn check(log: &dyn ReadLog, acknowledged: &BTreeSet<(u16, u64)>) {
    for (number, seq) in acknowledged {
        assert!(*seq < next_seq(log, *number), "entry {seq} of session {number} was acknowledged");
    }
    for number in 1..=SESSIONS {
        let next = next_seq(log, number);
        let entries: Vec<_> = log.read(session(number), 0).collect::<Result<_, _>>().expect("they are read");
        assert_eq!(entries.len() as u64, next);
        assert_eq!(log.head(session(number)), Ok(next.checked_sub(1).map(|seq| head(number, seq))));
        for entry in entries {
            let due = with_blob(number, entry.seq);
            assert_eq!(due.entries[0], entry);
            let stored = log.blob(session(number), due.blobs[0].commitment).expect("it is read").expect("it is there");
            assert_eq!(stored.bytes, due.blobs[0].bytes);
        }
    }
}

#[test]
fn a_writer_whose_write_failed_writes_no_more_until_it_is_opened_again() {
    if let Some(path) = std::env::var_os(STORE) {
        return meet_the_limit(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sqlite");
    let name = "stores::killed::a_writer_whose_write_failed_writes_no_more_until_it_is_opened_again";
    // Files may grow to 512 KiB; a write beyond that fails instead of killing the process.
    let script = format!("trap '' XFSZ; ulimit -f 1024; exec \"$0\" --exact {name}");
    let program = std::env::current_exe().expect("a program");
    let output = Command::new("sh").arg("-c").arg(script).arg(program).env(STORE, &path).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let log = SqliteLog::open(&path).expect("it opens again");
    let next = next_seq(&log, 1);
    assert!(next > 3);
    check(&log, &(0..next).map(|seq| (1, seq)).collect());
    assert_eq!(log.append(&[with_blob(1, next)]), [Ok(head(1, next))]);
}

fn meet_the_limit(path: &Path) {
    let log = SqliteLog::open(path).expect("the store opens");
    let failed = (0..10_000).find_map(|seq| log.append(&[with_blob(1, seq)]).remove(0).err().map(|error| (seq, error)));
    let (seq, error) = failed.expect("the limit is met");
    assert!(matches!(error, AppendError::Io { .. } | AppendError::Full { .. }), "{error}");
    assert_eq!(log.append(&[with_blob(1, seq)]), [Err(AppendError::Poisoned)]);
    assert_eq!(log.checkpoint(), Err(AppendError::Poisoned));
    check(&log, &(0..seq).map(|seq| (1, seq)).collect());
    assert_eq!(next_seq(&log, 1), seq, "what was not acknowledged is not shown");
}
