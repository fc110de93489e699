//! What somebody hears who writes a manifest wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use toka_tools::files::FileCode;
use toka_tools::{MANIFEST_BYTES_MAX, Manifest};

use crate::{HEAD, files, good, read};

/// The manifest of a case without the marks, and the places of the marks.
fn unmarked(case: &str) -> (String, Vec<(u32, u32)>) {
    let run = "spec:\n  run: { kind: python, path: main.py }\n";
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let marked = match case.trim_start_matches('¦') {
        text if text.starts_with("spec:") => format!("{HEAD}{case}"),
        text if text.starts_with("- ") => format!("{HEAD}{run}  params:\n{}", indented(case)),
        text if text.starts_with("apiVersion") || text.trim().is_empty() => case.to_owned(),
        _ if case.starts_with("metadata:") => {
            format!("apiVersion: toka/v1\nkind: Tool\n{case}{run}")
        }
        _ => format!("{HEAD}{run}{}", indented(case)),
    };
    let mut places = Vec::new();
    for (number, line) in (1..).zip(marked.lines()) {
        let mut column = 1;
        for c in line.chars() {
            if c == '¦' { places.push((number, column)) } else { column += 1 }
        }
    }
    (marked.replace('¦', ""), places)
}

/// With `TOKA_BLESS_BAD_MANIFESTS=FILE` the table is also written as it would be right, for people to compare.
#[test]
fn every_bad_manifest_is_told_place_code_message_and_hint() {
    let data = include_str!("bad.txt");
    let mut actual = data.split("\n=== ").next().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in data.split("\n=== ").skip(1) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let marked = rest.find("\n! ").map_or(rest, |at| &rest[..=at]);
        let marked = marked.trim_end_matches('\n').to_owned() + "\n";
        let (text, places) = unmarked(&marked);
        let errors = read(&text).err().unwrap_or_default();
        let found: Vec<(u32, u32)> = errors.iter().map(|error| (error.line, error.column)).collect();
        if found != places || errors.is_empty() {
            let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
            wrong.push(format!("{title}: marked {places:?}, found\n{}\n", shown.join("\n")));
        }
        if !actual.ends_with('\n') {
            actual.push('\n');
        }
        write!(actual, "\n=== {title}\n{marked}").expect("a string");
        for error in &errors {
            write!(actual, "! {}: {}\n  {}\n", error.code.name(), error.message, error.hint).expect("a string");
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 30, "{cases} cases");
    if let Some(file) = std::env::var_os("TOKA_BLESS_BAD_MANIFESTS") {
        std::fs::write(file, &actual).expect("written");
    }
    assert_eq!(actual.trim_end(), data.trim_end());
}

#[test]
fn the_bad_manifests_show_every_code_that_is_about_manifests() {
    let data = include_str!("bad.txt");
    let shown: BTreeSet<&str> = data.lines().filter_map(|line| line.strip_prefix("! ")?.split(':').next()).collect();
    let missing: Vec<&str> = FileCode::ALL
        .iter()
        .filter(|code| (1_080..1_100).contains(&code.number()) && **code != FileCode::NotRegular)
        .map(|code| code.name())
        .filter(|name| !shown.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_manifest_is_at_most_64_kib_and_utf_8() {
    let mut text = format!("{HEAD}spec:\n  run: {{ kind: python, path: main.py }}\n");
    while text.len() < MANIFEST_BYTES_MAX {
        text.push('#');
    }
    assert!(read(&text).is_ok());
    text.push('#');
    assert_eq!(read(&text).expect_err("too large")[0].code, FileCode::TooLarge);
    let errors = Manifest::read("t.tool.yaml", b"apiVersion: toka/v1\nkind: \xff", &files()).expect_err("not UTF-8");
    assert_eq!((errors[0].code, errors[0].line, errors[0].column), (FileCode::NotUtf8, 2, 7));
}

#[test]
fn a_tool_whose_decision_part_would_be_too_large_is_refused_as_a_whole() {
    let needs: String = (0..8).map(|i| format!("    - fs:workspace/{}{i}#read\n", "a".repeat(250))).collect();
    good(&format!("  run: {{ kind: python, path: main.py }}\n  needs:\n{needs}"));
    let needs: String = (0..16).map(|i| format!("    - fs:workspace/{}{i}#read\n", "a".repeat(250))).collect();
    let errors = read(&format!("{HEAD}spec:\n  run: {{ kind: python, path: main.py }}\n  needs:\n{needs}"));
    let errors = errors.expect_err("too large");
    assert_eq!((errors.len(), errors[0].code), (1, FileCode::TooLarge), "{errors:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes: Vec<u8>,
        text in "\\PC*",
        yaml in "[-a{}\\[\\]:, \n\"'#&*!|>%@?~0-9]{0,80}",
    ) {
        let below = format!("{HEAD}spec:\n  run: {{ kind: python, path: main.py }}\n  {yaml}");
        for bytes in [bytes, text.into_bytes(), yaml.into_bytes(), below.into_bytes()] {
            let _ = Manifest::read("t.tool.yaml", &bytes, &files());
        }
    }

    #[test]
    fn a_changed_byte_of_a_good_manifest_gives_a_sound_tool_or_an_error(at: prop::sample::Index, with: u8) {
        let mut bytes = toka_tools::SHIPPED[0].manifest.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let files = toka_tools::SHIPPED[0].files.iter().copied().collect::<std::collections::BTreeMap<&str, &[u8]>>();
        if let Ok(manifest) = Manifest::read("t.tool.yaml", &bytes, &files) {
            prop_assert!(manifest.spec.encode().is_ok() && manifest.spec.decision(0).is_ok());
        }
    }
}
