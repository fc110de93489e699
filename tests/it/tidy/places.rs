//! Where things lie, and what they are called.

use std::fs;

use super::tree;

/// What may lie at the top of the tree.
const TOP: [&str; 25] = [
    ".cargo",
    ".ci",
    ".dockerignore",
    ".gitignore",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benches",
    "deny.toml",
    "deploy",
    "docs",
    "fuzz",
    "kernel",
    "projections",
    "replay",
    "runtime",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "store",
    "test",
    "tests",
    "tools",
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "shared"];

const FILE_BYTES_MAX: u64 = 1 << 20;

#[test]
fn the_top_of_the_tree_holds_what_is_listed() {
    let mut tops: Vec<String> =
        tree::files().map(|file| file.split('/').next().unwrap_or_default().to_owned()).collect();
    tops.dedup();
    tops.retain(|top| !TOP.contains(&top.as_str()));
    tree::none(&tops, "the top of the tree is for what everybody needs at once; find a place below for:");
}

/// Folders below these hold the modules of a crate, which its own front page is about.
const MODULES: [&str; 6] =
    ["/src/", "tests/it/", "benches/benches/", "replay/tests/", "runtime/jail/tests/", "runtime/wasm/tests/"];

#[test]
fn every_folder_is_in_the_architecture() {
    let page = tree::text("docs/ARCHITECTURE.md");
    let of_modules = |folder: &String| MODULES.iter().any(|modules| format!("{folder}/").contains(modules));
    let missing: Vec<String> =
        tree::folders().into_iter().filter(|folder| !of_modules(folder) && !mentions(&page, folder)).collect();
    tree::none(&missing, "say in docs/ARCHITECTURE.md what lies in:");
}

/// Whether `page` names `folder` as code, by its whole path: `kernel`, or a path that leads through it.
fn mentions(page: &str, folder: &str) -> bool {
    ["`", "/"].iter().any(|end| page.contains(&format!("`{folder}{end}")))
}

#[test]
fn a_folder_is_mentioned_by_its_whole_path() {
    let page = "`docs/adr/` holds decisions, `kernel` the rules, store/ nothing";
    assert!(mentions(page, "kernel") && mentions(page, "docs") && mentions(page, "docs/adr"));
    assert!(!mentions(page, "adr") && !mentions(page, "store") && !mentions(page, "doc"));
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let says_nothing = |name: &str| EMPTY_NAMES.contains(&name.strip_suffix(".rs").unwrap_or(name));
    let mut wrong: Vec<String> = tree::files().filter(|file| file.split('/').any(says_nothing)).collect();
    wrong.extend(tree::lines(tree::sources(), |_, line| {
        let line =
            line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let module = line.strip_prefix("mod ").map(|rest| rest.trim_end_matches([';', '{', ' ']));
        module.is_some_and(says_nothing)
    }));
    tree::none(&wrong, "name it after what it holds; if the only name is util, wait until it has a better one:");
}

#[test]
fn no_file_is_larger_than_a_mebibyte() {
    let size = |file: &String| fs::metadata(tree::root().join(file)).map_or(0, |metadata| metadata.len());
    let large: Vec<String> = tree::files().filter(|file| size(file) > FILE_BYTES_MAX).collect();
    tree::none(&large, "generate it where it is needed, or make it smaller:");
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let paths = ["work", "root", "home"].map(|top| format!("/{top}/"));
    // A path begins after a space, a quote or a bracket; `/proc/self/root/etc` holds none.
    let begins = |line: &str, path: &str| {
        let starts = |(at, _): (usize, &str)| {
            line[..at]
                .chars()
                .next_back()
                .is_none_or(|before| !before.is_ascii_alphanumeric() && !"_-./*$})".contains(before))
        };
        line.match_indices(path).any(starts)
    };
    let wrong = tree::lines(tree::files(), |_, line| paths.iter().any(|path| begins(line, path)));
    tree::none(&wrong, "a fresh clone lies elsewhere; write the path relative to the tree:");
}

#[test]
fn one_place_in_what_is_shipped_starts_processes() {
    let starts = |_: &str, line: &str| {
        let line = line.trim_start();
        !line.starts_with("//") && line.contains("process::") && line.contains("Command")
    };
    let places = tree::lines(tree::shipped(), starts);
    let known = ["runtime/daemon/src/demo/", "runtime/src/sandbox/spawn.rs"];
    let elsewhere: Vec<String> =
        places.iter().filter(|place| !known.iter().any(|known| place.starts_with(known))).cloned().collect();
    tree::none(
        &elsewhere,
        "only the supervisor and the demo start processes; what is to run goes through the executors:",
    );
}

/// What decides what is asked next, and what may never be named there: whatever runs, sends or stores.
const APART: [(&str, &[&str]); 3] = [
    (
        "runtime/src/agents",
        &["crate::executor", "crate::sandbox", "toka_store", "std::process", "std::net", "reqwest", "tokio"],
    ),
    (
        "runtime/src/orchestration.rs",
        &["crate::executor", "crate::sandbox", "crate::gateway", "toka_store", "std::process", "std::net"],
    ),
    ("runtime/src/gateway/recorded.rs", &["reqwest", "tokio::", "std::net", "std::process"]),
];

#[test]
fn what_decides_runs_and_sends_nothing() {
    let mut found = Vec::new();
    for (place, names) in APART {
        let files: Vec<String> = tree::files().filter(|file| file.starts_with(place)).collect();
        assert!(!files.is_empty(), "{place} has moved");
        for file in files {
            for line in tree::text(&file).lines().filter(|line| !line.trim_start().starts_with("//")) {
                let named = names.iter().filter(|name| line.contains(*name));
                found.extend(named.map(|name| format!("{file} names {name}: {}", line.trim())));
            }
        }
    }
    tree::none(&found, "agents and orchestration ask for things, and a recorded answer opens nothing:");
}
