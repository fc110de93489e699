//! docs/TOOLS.md says what is so.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use toka_kernel::ids::{CallId, SessionId};
use toka_tools::files::FileCode;
use toka_tools::{CallNames, Manifest, invocation, prepare};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/TOOLS.md");
    std::fs::read_to_string(path).expect("docs/TOOLS.md")
}

/// The blocks that are files, by their names: what stands behind the language.
fn blocks(page: &str) -> BTreeMap<&str, &str> {
    let mut blocks = BTreeMap::new();
    for (index, part) in page.split("\n```").enumerate() {
        if let (true, Some((head, text))) = (index % 2 == 1, part.split_once('\n'))
            && let Some((_, name)) = head.split_once(' ')
        {
            blocks.insert(name, text);
        }
    }
    blocks
}

#[test]
fn the_manifests_on_the_page_are_good_and_its_script_runs() {
    let page = page();
    let blocks = blocks(&page);
    let files: BTreeMap<&str, &[u8]> = [
        ("words.py", blocks["words.py"].as_bytes()),
        ("/usr/bin/sha256sum", b"\x7fELF"),
        ("echo.wasm", b"\0asm\x01\0\0\0"),
    ]
    .into();
    let manifests: Vec<&&str> = blocks.keys().filter(|name| name.ends_with(".tool.yaml")).collect();
    assert_eq!(manifests.len(), 3);
    for name in manifests {
        Manifest::read(name, blocks[*name].as_bytes(), &files).unwrap_or_else(|errors| panic!("{errors:#?}"));
    }

    let words = Manifest::read("words.tool.yaml", blocks["words.tool.yaml"].as_bytes(), &files).expect("good");
    assert_eq!(words.spec.needs[0].text, "fs:{/path}#read");
    let scratch = tempfile::tempdir().expect("a folder");
    let text = scratch.path().join("notes.txt");
    std::fs::write(&text, "one two\ntwo").expect("written");
    std::fs::write(scratch.path().join("words.py"), blocks["words.py"]).expect("written");
    let prepared = prepare(&words.spec, r#"{"path":"project:notes.txt","least":2}"#).expect("they fit");
    let names = CallNames { call: CallId([1; 32]), session: SessionId([1; 32]), time_us: 1 };
    let started = invocation(&words.spec, &prepared.arguments, &names).expect("they fit");
    let stdin = String::from_utf8(started.stdin).expect("UTF-8");
    let input = scratch.path().join("input");
    std::fs::write(&input, stdin.replace("/roots/project/notes.txt", &text.display().to_string())).expect("written");
    let output = Command::new("python3")
        .arg(scratch.path().join("words.py"))
        .stdin(Stdio::from(std::fs::File::open(input).expect("there")))
        .output()
        .expect("python3");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result, json!({"counts": {"two": 2}}), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_code_that_only_manifests_have_is_on_the_page_with_its_name() {
    let page = page();
    let missing: Vec<String> = FileCode::ALL
        .iter()
        .filter(|code| code.number() >= 1_080)
        .map(|code| format!("| {code} | {} |", code.name()))
        .filter(|row| !page.contains(row))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for row in page.lines().filter(|line| line.starts_with("| TOKA-")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let known = FileCode::ALL.iter().any(|code| code.to_string() == cells[1] && code.name() == cells[2]);
        assert!(known, "{row}");
    }
}
