//! Every backend is put through one suite; then what only SQLite promises.

use toka_store::{MemoryLog, SqliteLog, conformance};

#[test]
fn memory_is_a_store() {
    conformance::check(&|| Box::new(MemoryLog::new()));
}

#[test]
fn sqlite_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    conformance::check(&|| {
        number.set(number.get() + 1);
        Box::new(SqliteLog::open(folder.path().join(format!("{}.sqlite", number.get()))).unwrap())
    });
}

#[test]
fn sqlite_keeps_everything_over_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    conformance::check_reopen(&|| Box::new(SqliteLog::open(folder.path().join("toka.sqlite")).unwrap()));
}
