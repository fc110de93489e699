//! What the source of the launcher promises to whoever reads it.

use std::fs;
use std::path::Path;

/// Lines of code in the crate, without the self-test, unit tests, comments and blank lines.
const CODE_LINES_MAX: usize = 1_770;
/// Blocks of unsafe code.
const UNSAFE_BLOCKS_MAX: usize = 10;

fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).expect("a source file"))).collect()
}

#[test]
fn the_launcher_stays_small_enough_to_be_read() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let lines = |text: &str| {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        text.lines().filter(is_code).count()
    };
    let sum: usize = sources().iter().filter(|(name, _)| name != "selftest.rs").map(|(_, text)| lines(text)).sum();
    assert!((500..=CODE_LINES_MAX).contains(&sum), "{sum} lines of code; what can go?");
}

#[test]
fn unsafe_code_lies_in_one_file_and_says_why_it_is_sound() {
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        let blocks: Vec<usize> = (0..lines.len())
            .filter(|&at| !lines[at].trim_start().starts_with("//") && lines[at].contains(concat!("unsafe", " {")))
            .collect();
        if name != "sys.rs" {
            assert!(blocks.is_empty(), "{name}: unsafe code belongs into sys.rs");
            continue;
        }
        assert!((1..=UNSAFE_BLOCKS_MAX).contains(&blocks.len()), "{} blocks", blocks.len());
        for at in blocks {
            let is_comment = |line: &&&str| line.trim_start().starts_with("//");
            let mut above = lines[..at].iter().rev().take_while(is_comment);
            assert!(
                above.any(|line| line.trim_start().starts_with("// SAFETY: ")),
                "{name}:{}: why is it sound?",
                at + 1
            );
        }
        assert!(!text.contains(concat!("unsafe", " fn")) && !text.contains(concat!("unsafe", " impl")), "{name}");
    }
}
