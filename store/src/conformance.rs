//! What every store must do, as checks that any backend can be put through.
//!
//! ```
//! toka_store::conformance::check(&|| Box::new(toka_store::MemoryLog::new()));
//! ```

use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, EntryHash, Seq, SessionId};
use toka_kernel::limits::{BLOB_BYTES_MAX, ENTRY_BYTES_MAX};

use crate::log::{Append, AppendError, CONTENT_BYTES_MIN, Log, NewBlob, RawEntry, SessionRow, StoredBlob};

/// Puts a backend through every check, each on a fresh store from `make`.
///
/// # Panics
/// When the backend does not do what every store must.
pub fn check(make: &dyn Fn() -> Box<dyn Log>) {
    for (name, run) in CHECKS {
        println!("conformance: {name}");
        run(&*make());
    }
}

/// Puts a backend through the checks of what outlives a handle; `open` opens the same store each time.
///
/// # Panics
/// When the backend does not do what every durable store must.
pub fn check_reopen(open: &dyn Fn() -> Box<dyn Log>) {
    let log = open();
    put(&*log, tail(1, 0, 2));
    put(&*log, Append { blobs: vec![blob(1, 300)], ..tail(1, 3, 4) });
    let before = contents(&*log);
    drop(log);

    let log = open();
    assert_eq!(contents(&*log), before, "everything is there after reopening");
    assert_eq!(log.blob(session(1), blob(1, 300).commitment), Ok(Some(stored(&blob(1, 300)))));
    assert_eq!(log.find_content(session(1), &blob(1, 300).bytes), Ok(Some(blob(1, 300).commitment)));
    assert_eq!(one(&*log, &tail(1, 3, 4)), Ok(head(1, 4)), "a lost answer can be asked for by sending it again");
    put(&*log, tail(1, 5, 5));
    assert_eq!(log.head(session(1)), Ok(Some(head(1, 5))));
}

type Run = fn(&dyn Log);

const CHECKS: &[(&str, Run)] = &[
    ("what was appended is read back byte for byte", what_was_appended_is_read_back),
    ("reading can begin anywhere", reading_can_begin_anywhere),
    ("a long session is read in order", a_long_session_is_read_in_order),
    ("a stale head is a conflict that names the actual one", a_stale_head_is_a_conflict),
    ("a repeat is accepted and changes nothing", a_repeat_is_accepted),
    ("a repeat with other bytes is a conflict", a_repeat_with_other_bytes_is_a_conflict),
    ("a repeat that runs past the head is a conflict", a_repeat_past_the_head_is_a_conflict),
    ("a second genesis is a conflict", a_second_genesis_is_a_conflict),
    ("a session must begin with its genesis", a_session_begins_with_its_genesis),
    ("one refused item does not hinder the others", one_refused_item_does_not_hinder_the_others),
    ("one batch may continue a session twice", one_batch_may_continue_a_session_twice),
    ("a refused item leaves neither entries nor blobs", a_refused_item_leaves_nothing),
    ("an item that contradicts itself is refused", an_item_that_contradicts_itself_is_refused),
    ("blobs come back with their salt", blobs_come_back_with_their_salt),
    ("equal content is found from 256 bytes on", equal_content_is_found),
    ("sessions never share blobs", sessions_never_share_blobs),
    ("sessions are listed by id and in pages", sessions_are_listed_by_id),
    ("the largest is kept and anything larger is refused", the_largest_is_kept),
    ("an empty batch is answered with nothing", an_empty_batch_is_answered_with_nothing),
];

fn what_was_appended_is_read_back(log: &dyn Log) {
    assert_eq!(log.head(session(1)), Ok(None));
    assert_eq!(entries(log, 1, 0), []);
    put(log, tail(1, 0, 0));
    put(log, tail(1, 1, 3));
    assert_eq!(log.head(session(1)), Ok(Some(head(1, 3))));
    assert_eq!(entries(log, 1, 0), tail(1, 0, 3).entries);
}

fn reading_can_begin_anywhere(log: &dyn Log) {
    put(log, tail(1, 0, 9));
    assert_eq!(entries(log, 1, 4), tail(1, 4, 9).entries);
    assert_eq!(entries(log, 1, 10), []);
    assert_eq!(entries(log, 1, Seq::MAX), []);
}

fn a_long_session_is_read_in_order(log: &dyn Log) {
    for from in (0..1_500).step_by(500) {
        put(log, tail(1, from, from + 499));
        put(log, tail(2, from, from + 499));
    }
    assert_eq!(entries(log, 1, 0), tail(1, 0, 1_499).entries);
    assert_eq!(entries(log, 2, 700), tail(2, 700, 1_499).entries);
}

fn a_stale_head_is_a_conflict(log: &dyn Log) {
    put(log, tail(1, 0, 3));
    let mut stale = tail(1, 3, 4);
    stale.entries[0].bytes.push(0);
    assert_eq!(one(log, &stale), Err(AppendError::Conflict { actual: head(1, 3) }));
    let mut other_branch = tail(1, 4, 4);
    other_branch.expected.hash.0[31] ^= 1;
    assert_eq!(one(log, &other_branch), Err(AppendError::Conflict { actual: head(1, 3) }));
    assert_eq!(
        one(log, &tail(1, 5, 5)),
        Err(AppendError::Conflict { actual: head(1, 3) }),
        "ahead is as wrong as behind"
    );
    assert_eq!(entries(log, 1, 0), tail(1, 0, 3).entries);
}

fn a_repeat_is_accepted(log: &dyn Log) {
    put(log, tail(1, 0, 3));
    put(log, tail(1, 4, 6));
    let before = contents(log);
    assert_eq!(one(log, &tail(1, 4, 6)), Ok(head(1, 6)));
    assert_eq!(one(log, &tail(1, 0, 3)), Ok(head(1, 6)), "the answer is the head as it stands");
    assert_eq!(one(log, &tail(1, 2, 5)), Ok(head(1, 6)), "however the entries were cut into tails");
    assert_eq!(contents(log), before);
}

fn a_repeat_with_other_bytes_is_a_conflict(log: &dyn Log) {
    put(log, tail(1, 0, 3));
    for flipped in 0..2 {
        let mut other = tail(1, 2, 3);
        other.entries[flipped].bytes[0] ^= 1;
        assert_eq!(one(log, &other), Err(AppendError::Conflict { actual: head(1, 3) }));
    }
    let mut other = tail(1, 2, 3);
    other.head.hash.0[0] ^= 1;
    assert_eq!(one(log, &other), Err(AppendError::Conflict { actual: head(1, 3) }), "the head is compared too");
    assert_eq!(entries(log, 1, 0), tail(1, 0, 3).entries);
}

fn a_repeat_past_the_head_is_a_conflict(log: &dyn Log) {
    put(log, tail(1, 0, 3));
    assert_eq!(one(log, &tail(1, 2, 5)), Err(AppendError::Conflict { actual: head(1, 3) }));
    assert_eq!(log.head(session(1)), Ok(Some(head(1, 3))));
}

fn a_second_genesis_is_a_conflict(log: &dyn Log) {
    put(log, tail(1, 0, 0));
    assert_eq!(one(log, &tail(1, 0, 0)), Ok(head(1, 0)), "the same one is a repeat");
    let mut other = tail(1, 0, 0);
    other.entries[0].bytes.push(7);
    assert_eq!(one(log, &other), Err(AppendError::Conflict { actual: head(1, 0) }));
}

fn a_session_begins_with_its_genesis(log: &dyn Log) {
    assert_eq!(one(log, &tail(1, 3, 4)), Err(AppendError::Conflict { actual: Head::none() }));
    assert_eq!(log.head(session(1)), Ok(None));
    assert_eq!(contents(log), []);
}

fn one_refused_item_does_not_hinder_the_others(log: &dyn Log) {
    put(log, tail(2, 0, 1));
    let mut large = tail(4, 0, 0);
    large.entries[0].bytes = vec![0; ENTRY_BYTES_MAX + 1];
    let mut taken = Append { blobs: vec![blob(1, 10), blob(1, 10)], ..tail(5, 0, 0) };
    taken.blobs[1].bytes[0] ^= 1;
    let answers = log.append(&[tail(1, 0, 2), tail(2, 5, 5), tail(3, 0, 0), large, taken, tail(2, 2, 3)]);
    assert_eq!(answers[0], Ok(head(1, 2)));
    assert_eq!(answers[1], Err(AppendError::Conflict { actual: head(2, 1) }));
    assert_eq!(answers[2], Ok(head(3, 0)));
    assert!(matches!(answers[3], Err(AppendError::TooLarge { what: "entry", .. })), "{:?}", answers[3]);
    assert!(matches!(answers[4], Err(AppendError::Refused { .. })), "{:?}", answers[4]);
    assert_eq!(answers[5], Ok(head(2, 3)));
    assert_eq!(answers.len(), 6);
    let listed: Vec<_> = rows(log, None).iter().map(|row| row.session).collect();
    assert_eq!(listed, [session(1), session(2), session(3)]);
    put(log, tail(5, 0, 0));
}

fn one_batch_may_continue_a_session_twice(log: &dyn Log) {
    let answers = log.append(&[tail(1, 0, 2), tail(1, 3, 4), tail(1, 3, 4), tail(1, 6, 6)]);
    let conflict = Err(AppendError::Conflict { actual: head(1, 4) });
    assert_eq!(answers, [Ok(head(1, 2)), Ok(head(1, 4)), Ok(head(1, 4)), conflict]);
    assert_eq!(entries(log, 1, 0), tail(1, 0, 4).entries);
}

fn a_refused_item_leaves_nothing(log: &dyn Log) {
    put(log, tail(1, 0, 0));
    put(log, Append { blobs: vec![blob(1, 10)], ..tail(1, 1, 1) });
    let before = contents(log);

    let conflict = Append { blobs: vec![blob(2, 300)], ..tail(1, 5, 5) };
    assert!(one(log, &conflict).is_err());
    let mut taken = Append { blobs: vec![blob(3, 300), blob(1, 10)], ..tail(1, 2, 2) };
    taken.blobs[1].salt[0] ^= 1;
    assert!(matches!(one(log, &taken), Err(AppendError::Refused { .. })), "a commitment stands for one content");

    assert_eq!(contents(log), before);
    for absent in [blob(2, 300), blob(3, 300)] {
        assert_eq!(log.has_blob(session(1), absent.commitment), Ok(false));
        assert_eq!(log.find_content(session(1), &absent.bytes), Ok(None));
    }
    assert_eq!(log.blob(session(1), blob(1, 10).commitment), Ok(Some(stored(&blob(1, 10)))));
    put(log, Append { blobs: vec![blob(3, 300), blob(1, 10)], ..tail(1, 2, 2) });
}

fn an_item_that_contradicts_itself_is_refused(log: &dyn Log) {
    put(log, tail(1, 0, 1));
    let good = tail(1, 2, 4);
    let mut gap = good.clone();
    gap.entries.remove(1);
    let mut shifted = good.clone();
    shifted.entries[0].seq = 1;
    let empty = Append { entries: Vec::new(), ..good.clone() };
    let short = Append { head: head(1, 3), ..good.clone() };
    let foreign = Append { head: head(2, 4), ..good.clone() };
    let headless = Append { head: Head::none(), ..good.clone() };
    for wrong in [gap, shifted, empty, short, foreign, headless] {
        assert!(matches!(one(log, &wrong), Err(AppendError::Refused { .. })), "{wrong:?}");
    }
    put(log, good);
}

fn blobs_come_back_with_their_salt(log: &dyn Log) {
    let blobs = vec![blob(1, 0), blob(2, 1), blob(3, 255), blob(4, 256), blob(5, 100_000)];
    put(log, Append { blobs: blobs.clone(), ..tail(1, 0, 0) });
    for blob in &blobs {
        assert_eq!(log.has_blob(session(1), blob.commitment), Ok(true));
        assert_eq!(log.blob(session(1), blob.commitment), Ok(Some(stored(blob))));
    }
    assert_eq!(log.has_blob(session(1), Commitment([9; 32])), Ok(false));
    assert_eq!(log.blob(session(1), Commitment([9; 32])), Ok(None));
}

fn equal_content_is_found(log: &dyn Log) {
    let (short, long) = (blob(1, CONTENT_BYTES_MIN - 1), blob(2, CONTENT_BYTES_MIN));
    put(log, Append { blobs: vec![short.clone(), long.clone()], ..tail(1, 0, 0) });
    assert_eq!(log.find_content(session(1), &long.bytes), Ok(Some(long.commitment)));
    assert_eq!(log.find_content(session(1), &short.bytes), Ok(None), "a row for less would cost more than it saves");
    assert_eq!(log.find_content(session(2), &long.bytes), Ok(None));

    let again = NewBlob { bytes: long.bytes.clone(), ..blob(3, 0) };
    put(log, Append { blobs: vec![again.clone()], ..tail(1, 1, 1) });
    assert_eq!(log.find_content(session(1), &long.bytes), Ok(Some(long.commitment)), "the first one stays");
    assert_eq!(log.has_blob(session(1), again.commitment), Ok(true));
}

fn sessions_never_share_blobs(log: &dyn Log) {
    put(log, Append { blobs: vec![blob(1, 300)], ..tail(1, 0, 0) });
    put(log, tail(2, 0, 0));
    assert_eq!(log.blob(session(2), blob(1, 300).commitment), Ok(None));
    assert_eq!(log.has_blob(session(2), blob(1, 300).commitment), Ok(false));
    assert_eq!(log.find_content(session(2), &blob(1, 300).bytes), Ok(None));

    let other = NewBlob { commitment: blob(1, 300).commitment, ..blob(2, 400) };
    put(log, Append { blobs: vec![other.clone()], ..tail(2, 1, 1) });
    assert_eq!(log.blob(session(1), other.commitment), Ok(Some(stored(&blob(1, 300)))));
    assert_eq!(log.blob(session(2), other.commitment), Ok(Some(stored(&other))));
}

fn sessions_are_listed_by_id(log: &dyn Log) {
    assert_eq!(rows(log, None), []);
    let batch: Vec<Append> = (0..600).map(|n| tail((n * 7) % 600 + 1, 0, 0)).collect();
    assert!(log.append(&batch).iter().all(Result::is_ok));
    put(log, tail(3, 1, 2));

    let all: Vec<SessionRow> = (1..=600)
        .map(|n| SessionRow { session: session(n), head: Some(head(n, if n == 3 { 2 } else { 0 })) })
        .collect();
    assert_eq!(rows(log, None), all);
    assert_eq!(rows(log, Some(session(598))), all[598..]);
    assert_eq!(rows(log, Some(session(600))), []);
}

fn the_largest_is_kept(log: &dyn Log) {
    let mut largest = Append { blobs: vec![blob(1, BLOB_BYTES_MAX as usize)], ..tail(1, 0, 0) };
    largest.entries[0].bytes = vec![3; ENTRY_BYTES_MAX];
    put(log, largest.clone());
    assert_eq!(entries(log, 1, 0), largest.entries);
    let back = log.blob(session(1), largest.blobs[0].commitment);
    assert!(back.is_ok_and(|back| back == Some(stored(&largest.blobs[0]))), "64 MiB come back as they went");

    let mut large = tail(1, 1, 1);
    large.entries[0].bytes = vec![3; ENTRY_BYTES_MAX + 1];
    assert!(matches!(one(log, &large), Err(AppendError::TooLarge { what: "entry", .. })));
    let large = Append { blobs: vec![blob(2, BLOB_BYTES_MAX as usize + 1)], ..tail(1, 1, 1) };
    assert!(matches!(one(log, &large), Err(AppendError::TooLarge { what: "blob", .. })));
    assert_eq!(log.head(session(1)), Ok(Some(head(1, 0))));
}

fn an_empty_batch_is_answered_with_nothing(log: &dyn Log) {
    assert_eq!(log.append(&[]), []);
}

/// A made-up session; entries are opaque to a store, so nothing here need be an entry.
pub fn session(number: u16) -> SessionId {
    let mut id = [0x5e; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    SessionId(id)
}

/// A made-up head of [`session`] at `seq`.
pub fn head(number: u16, seq: Seq) -> Head {
    let mut hash = session(number).0;
    hash[8..16].copy_from_slice(&seq.to_be_bytes());
    Head { session: session(number), seq, hash: EntryHash(hash), time_us: 1_000 + seq, kind: 1 }
}

/// A made-up tail of [`session`] with the entries `from` to `to`.
pub fn tail(number: u16, from: Seq, to: Seq) -> Append {
    let entry = |seq: Seq| {
        let text = format!("entry {seq} of session {number} ");
        RawEntry { seq, bytes: text.repeat(1 + seq as usize % 5).into_bytes() }
    };
    let expected = from.checked_sub(1).map_or_else(Head::none, |seq| head(number, seq));
    Append { expected, entries: (from..=to).map(entry).collect(), head: head(number, to), blobs: Vec::new() }
}

/// A made-up blob of `len` bytes.
pub fn blob(number: u8, len: usize) -> NewBlob {
    NewBlob { commitment: Commitment([number; 32]), salt: [!number; 32], bytes: vec![number; len] }
}

/// Every session with all its entries.
pub fn contents(log: &dyn Log) -> Vec<(SessionRow, Vec<RawEntry>)> {
    let entries = |row: &SessionRow| log.read(row.session, 0).collect::<Result<_, _>>().expect("entries are read");
    rows(log, None).into_iter().map(|row| (row, entries(&row))).collect()
}

fn stored(blob: &NewBlob) -> StoredBlob {
    StoredBlob { salt: blob.salt, bytes: blob.bytes.clone() }
}

fn rows(log: &dyn Log, after: Option<SessionId>) -> Vec<SessionRow> {
    log.sessions(after).collect::<Result<_, _>>().expect("sessions are listed")
}

fn entries(log: &dyn Log, number: u16, from: Seq) -> Vec<RawEntry> {
    log.read(session(number), from).collect::<Result<_, _>>().expect("entries are read")
}

fn one(log: &dyn Log, item: &Append) -> Result<Head, AppendError> {
    let mut answers = log.append(std::slice::from_ref(item));
    assert_eq!(answers.len(), 1, "one answer per item");
    answers.remove(0)
}

fn put(log: &dyn Log, item: Append) {
    let head = item.head;
    assert_eq!(one(log, &item), Ok(head));
}
