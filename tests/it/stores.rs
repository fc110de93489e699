//! Every backend is put through one suite, and agrees with the dumbest of them.

mod killed;
mod sqlite;

use proptest::prelude::*;
use toka_store::conformance::{self, blob, contents, session, tail};
use toka_store::{Append, AppendError, Durability, Log, MemoryLog, ReadLog, SqliteLog, StoreUrl};

#[test]
fn memory_is_a_store() {
    conformance::check(&|| Box::new(MemoryLog::new()));
}

#[test]
fn sqlite_is_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let number = std::cell::Cell::new(0);
    conformance::check(&|| {
        number.set(number.get() + 1);
        Box::new(SqliteLog::open(folder.path().join(format!("{}.sqlite", number.get()))).expect("a store"))
    });
}

#[test]
fn sqlite_keeps_everything_over_a_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::check_reopen(&|| Box::new(SqliteLog::open(folder.path().join("toka.sqlite")).expect("a store")));
}

#[test]
fn a_store_is_named_by_its_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.sqlite");
    let name = format!("sqlite:{}", path.display());
    let url: StoreUrl = name.parse().expect("a name");
    assert_eq!(url.to_string(), name);
    let log = url.open().expect("a store");
    assert_eq!(log.durability(), Durability::Flushed);
    assert_eq!(log.append(&[tail(1, 0, 0)]), [Ok(conformance::head(1, 0))]);
    assert_eq!(url.open_read_only().expect("a reader").read(session(1), 0).count(), 1);

    let memory: StoreUrl = "memory:".parse().expect("a name");
    assert_eq!(memory.open().expect("a store").durability().to_string(), "memory");
    for wrong in ["", "memory", "memory:x", "sqlite:", "postgres://host/db", "/a/path"] {
        let error = wrong.parse::<StoreUrl>().expect_err("no name").to_string();
        assert_eq!(error, format!("`{wrong}` names no store; this build has `memory:` and `sqlite:PATH`"));
    }
}

/// One append, right or wrong.
#[derive(Clone, Debug)]
struct Move {
    session: u16,
    from: u64,
    more: u64,
    /// Flips a byte of the entry at this place of the tail.
    flip: Option<u64>,
    blob: Option<(u8, usize)>,
    /// Gives the blob other bytes under the same commitment.
    swapped: bool,
}

impl Move {
    fn append(&self) -> Append {
        let mut item = tail(self.session, self.from, self.from + self.more);
        if let Some(entry) = self.flip.and_then(|place| item.entries.get_mut(place as usize)) {
            entry.bytes[0] ^= 1;
        }
        item.blobs.extend(self.blob.map(|(number, len)| blob(number, len)));
        if self.swapped
            && let Some(blob) = item.blobs.first_mut()
        {
            blob.salt[0] ^= 1;
        }
        item
    }
}

fn a_move() -> impl Strategy<Value = Move> {
    let blob = proptest::option::of((0u8..4, prop_oneof![Just(0usize), Just(255), Just(256), Just(5_000)]));
    let flip = proptest::option::weighted(0.1, 0u64..3);
    (1u16..4, 0u64..8, 0u64..3, flip, blob, proptest::bool::weighted(0.1))
        .prop_map(|(session, from, more, flip, blob, swapped)| Move { session, from, more, flip, blob, swapped })
}

/// The words of a refusal are the backend's own.
fn kinds(answers: Vec<Result<toka_kernel::Head, AppendError>>) -> Vec<Result<toka_kernel::Head, AppendError>> {
    let kind = |error| {
        let refused = matches!(error, AppendError::Refused { .. });
        if refused { AppendError::Refused { what: String::new() } } else { error }
    };
    answers.into_iter().map(|answer| answer.map_err(kind)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn sqlite_does_what_memory_does(batches in proptest::collection::vec((any::<bool>(), proptest::collection::vec(a_move(), 1..5)), 1..15)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sqlite");
        let model = MemoryLog::new();
        let mut sqlite = SqliteLog::open(&path).expect("a store");
        for (reopens, moves) in &batches {
            if *reopens {
                drop(sqlite);
                sqlite = SqliteLog::open(&path).expect("a store");
            }
            let batch: Vec<Append> = moves.iter().map(Move::append).collect();
            prop_assert_eq!(kinds(sqlite.append(&batch)), kinds(model.append(&batch)));
        }
        prop_assert_eq!(contents(&sqlite), contents(&model));
        for (number, known) in (1..4).flat_map(|number| (0..4).map(move |known| (number, known))) {
            let (session, commitment) = (session(number), blob(known, 0).commitment);
            prop_assert_eq!(sqlite.blob(session, commitment), model.blob(session, commitment));
            for len in [0, 255, 256, 5_000] {
                let bytes = blob(known, len).bytes;
                prop_assert_eq!(sqlite.find_content(session, &bytes), model.find_content(session, &bytes));
            }
        }
    }
}
