//! Words that do not belong into the tree. They are written apart here, so that this file keeps the rules as well.

use super::tree;

/// Whether `line` holds `word` with nothing alphanumeric on either side.
fn holds(line: &str, word: &str) -> bool {
    let is_part = |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric() || char == '_');
    line.match_indices(word)
        .any(|(at, _)| !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next()))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn nothing_shipped_is_a_stub() {
    let stubs = [concat!("todo", "!"), concat!("unimplemented", "!"), "not yet implemented", "simulated"];
    let wrong = tree::lines(tree::shipped(), |_, line| {
        let line = line.to_ascii_lowercase();
        stubs.iter().any(|stub| line.contains(stub))
    });
    tree::none(&wrong, "build it, or refuse it with an error that says so:");
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let wrong = tree::lines(tree::files(), |_, line| marks.iter().any(|mark| holds(line, mark)));
    tree::none(&wrong, "do it now, or write down in docs/ what is deliberately absent:");
}

#[test]
fn no_test_is_switched_off() {
    let marks = [concat!("#[", "ignore"), concat!("#[cfg(", "any())]")];
    let wrong = tree::lines(tree::sources(), |_, line| marks.iter().any(|mark| line.trim_start().starts_with(mark)));
    tree::none(&wrong, "mend the test or remove it:");
}

#[test]
fn nothing_waits_for_time_to_pass() {
    let sleeps = [
        concat!("thread::", "sleep"),
        concat!("time::", "sleep"),
        concat!("sleep", "_until"),
        concat!("park", "_timeout"),
    ];
    let wrong =
        tree::lines(tree::sources(), |_, line| !is_comment(line) && sleeps.iter().any(|sleep| line.contains(sleep)));
    tree::none(&wrong, "wait for what you wait for: a channel, a line, a process; push the clock:");
}

#[test]
fn no_library_prints() {
    let prints = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
    let libraries = tree::shipped().filter(|file| {
        // The program prints; the conformance suite of stores is a test that stores of others call, too.
        !file.starts_with("runtime/daemon/") && file != "store/src/conformance.rs"
    });
    let wrong = tree::lines(libraries, |_, line| !is_comment(line) && prints.iter().any(|print| holds(line, print)));
    tree::none(&wrong, "return it, or take a writer as an argument:");
}

#[test]
fn the_program_does_not_panic_where_nobody_reads() {
    let prints = ["println!", "print!", "eprintln!", "eprint!"];
    let program = tree::shipped().filter(|file| file.starts_with("runtime/daemon/"));
    let wrong = tree::lines(program, |_, line| !is_comment(line) && prints.iter().any(|print| holds(line, print)));
    tree::none(&wrong, "these panic when the pipe is closed; use `talk`, or writeln! and its result:");
}

#[test]
fn a_word_is_found_by_itself_only() {
    assert!(holds("a println!(\"x\")", "println!") && !holds("eprintln!()", "println!"));
    assert!(holds("// XY: later", "XY") && !holds("AXY", "XY") && !holds("XYZ", "XY"));
}
