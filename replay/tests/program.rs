//! The binary itself, as a process: exit codes, streams, a closed pipe.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use toka_kernel::ids::Seq;
use toka_store::bundle::SessionContent;
use toka_store::{BundleBuilder, NewBlob, Vkey};
use toka_tests::session::{Keys, ORIGIN, Session};

const FS: &str = "fs:project/**#read?exp=1800000000000000";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_toka-replay"))
}

fn run(args: &[&str], file: &Path) -> Output {
    program().args(args).arg(file).output().expect("it runs")
}

fn root() -> String {
    Vkey::new(&format!("{ORIGIN}/root"), Keys::seeded(1).pinned()).expect("a key").to_string()
}

/// A bundle with a closed session, changed by `edit`.
fn bundle(folder: &Path, entries: usize, edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> PathBuf {
    let mut session = Session::open(&[FS, "tool:reader?exp=1800000000000000"]);
    session.bind(toka_tests::session::reader());
    let (opener, fs, tool) = (session.opener(), session.root(0), session.root(1));
    while session.entries.len() < entries {
        session.call(opener, "other:a", tool, &[fs]);
    }
    session.close();
    let mut entries: Vec<Vec<u8>> = session.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    edit(&mut entries);
    let blob = |blob: &toka_tests::session::Blob| NewBlob {
        commitment: blob.reference.commitment,
        salt: blob.salt,
        bytes: blob.bytes.clone(),
    };
    let blobs = session.blobs.iter().map(blob).collect();
    let content = SessionContent { session: session.id(), first_seq: 0 as Seq, entries, blobs };
    let mut bytes = Vec::new();
    BundleBuilder { sessions: vec![content] }.write(&mut bytes).expect("a bundle");
    let path = folder.join("s.tkb");
    std::fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn each_verdict_has_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = root();
    let verify = ["verify", "--root", &root];
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");

    let whole = run(&verify, &bundle(folder.path(), 4, |_| ()));
    assert_eq!(whole.status.code(), Some(0));
    assert!(text(whole.stdout).starts_with("OK: "));
    assert_eq!(text(whole.stderr), "");

    let tampered = run(&verify, &bundle(folder.path(), 4, |entries| *entries[2].last_mut().expect("a byte") ^= 1));
    assert_eq!(tampered.status.code(), Some(3));
    assert!(text(tampered.stdout).contains("BODY_HASH_MISMATCH"));

    let open = run(&verify, &bundle(folder.path(), 4, |entries| entries.truncate(3)));
    assert_eq!(open.status.code(), Some(4));
    assert!(text(open.stdout).lines().next().is_some_and(|line| line.contains("truncation after seq 2 not excluded")));

    let unreadable = run(&verify, folder.path());
    assert_eq!(unreadable.status.code(), Some(8));
    assert!(unreadable.stdout.is_empty() && text(unreadable.stderr).contains("it is a folder"));

    let usage = run(&["verify", "--nonsense"], folder.path());
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(program().output().expect("it runs").status.code(), Some(2));
    assert_eq!(program().arg("--version").output().expect("it runs").status.code(), Some(0));
}

#[test]
fn a_pipe_that_is_closed_ends_it_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = bundle(folder.path(), 60, |_| ());
    let mut child = program()
        .args(["show", "--json", "--raw"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(done.status.code(), Some(0));
    let err = String::from_utf8(done.stderr).expect("text");
    assert!(!err.contains("error") && !err.contains("panic"), "{err}");
}
