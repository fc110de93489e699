//! Which crate may use which, and what the short lists of dependencies hold.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::tree;

/// The rows of docs/ARCHITECTURE.md from below. A crate may use crates of lower rows only.
const ROWS: [&[&str]; 7] = [
    &["toka-kernel"],
    &["toka-store", "toka-projections", "toka-tools"],
    // The runtime speaks to the launcher and to the worker in the types of their protocols; it spawns both and calls
    // nothing of them.
    &["toka-jail", "toka-wasm"],
    &["toka-runtime", "toka-store-net", "toka-replay"],
    &["toka"],
    &["toka-tests"],
    &["toka-benches", "toka-fuzz"],
];

/// What an auditor's program must not bring along.
const NOT_IN_REPLAY: [&str; 10] =
    ["tokio", "mio", "socket2", "reqwest", "hyper", "axum", "toka-runtime", "toka-tools", "toka-store-net", "toka"];

/// What cargo knows of the workspace, with features as they are when everything is built at once.
fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", &host()]);
        serde_json::from_str(&text).expect("cargo metadata is JSON")
    })
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--locked"])
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo {args:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn host() -> String {
    let version = Command::new("rustc").arg("-vV").current_dir(tree::root()).output().expect("rustc runs");
    let version = String::from_utf8(version.stdout).expect("UTF-8");
    version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned()
}

/// The packages of this tree.
fn members() -> impl Iterator<Item = &'static Value> {
    let members = metadata()["workspace_members"].as_array().expect("members");
    packages().filter(|package| members.contains(&package["id"]))
}

fn packages() -> impl Iterator<Item = &'static Value> {
    metadata()["packages"].as_array().expect("packages").iter()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a name")
}

/// The dependencies of a package that are not of its tests only.
fn shipped_with(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().expect("dependencies").iter().filter(|used| used["kind"] != "dev")
}

fn row(name: &str) -> usize {
    let row = ROWS.iter().position(|row| row.contains(&name));
    row.unwrap_or_else(|| panic!("{name} has no row: give it one in tests/it/tidy/crates.rs and docs/ARCHITECTURE.md"))
}

#[test]
fn a_crate_uses_crates_of_lower_rows_only() {
    let mut wrong = Vec::new();
    for package in members() {
        for dependency in shipped_with(package) {
            let (user, used) = (name(package), name(dependency));
            if !dependency["path"].is_null() && row(used) >= row(user) {
                wrong.push(format!("{user} uses {used}"));
            }
        }
    }
    tree::none(&wrong, "a crate may use crates of a lower row only; move the code down, or hand it in as an argument:");
}

#[test]
fn replay_knows_nothing_of_tools() {
    let replay = members().find(|package| name(package) == "toka-replay").expect("toka-replay is in the tree");
    let ours: BTreeSet<&str> = shipped_with(replay).filter(|used| !used["path"].is_null()).map(name).collect();
    assert_eq!(ours, BTreeSet::from(["toka-kernel", "toka-projections", "toka-store"]), "it reads logs and no more");
}

#[test]
fn the_kernel_has_five_dependencies() {
    let kernel = members().find(|package| name(package) == "toka-kernel").expect("toka-kernel is in the tree");
    let names: BTreeSet<&str> = shipped_with(kernel).map(name).collect();
    assert_eq!(
        names,
        BTreeSet::from(["blake3", "ed25519-dalek", "rmp-serde", "serde", "thiserror"]),
        "the kernel is what an auditor has to read; write it by hand, or do it in another crate"
    );
}

#[test]
fn the_auditors_program_links_no_network_and_no_executor() {
    let tree = cargo(&["tree", "-p", "toka-replay", "-e", "normal", "--prefix", "none"]);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("toka-kernel"), "{tree}");
    let found: Vec<_> = NOT_IN_REPLAY.iter().filter(|name| names.contains(**name)).collect();
    assert!(found.is_empty(), "toka-replay links {found:?}; `cargo tree -p toka-replay -i NAME` says through what");
}

#[test]
fn building_everything_at_once_adds_no_network_to_the_auditors_program() {
    let found: BTreeSet<&str> = linked_by("toka-replay");
    assert!(found.contains("toka-kernel") && found.contains("clap"), "{found:?}");
    let found: Vec<_> = NOT_IN_REPLAY.iter().filter(|name| found.contains(**name)).collect();
    assert!(
        found.is_empty(),
        "with the features of the whole workspace toka-replay links {found:?}: a crate that needs them belongs elsewhere"
    );
}

/// The packages that `root` links when features are those of the whole workspace, its tests included.
fn linked_by(root: &str) -> BTreeSet<&'static str> {
    let nodes = metadata()["resolve"]["nodes"].as_array().expect("nodes");
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (node["id"].as_str().expect("an id"), node)).collect();
    let names: BTreeMap<&str, &str> =
        packages().map(|package| (package["id"].as_str().expect("an id"), name(package))).collect();
    let mut open: Vec<&str> = names.iter().filter(|(_, name)| **name == root).map(|(id, _)| *id).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for used in nodes[id]["deps"].as_array().expect("dependencies") {
            let mut kinds = used["dep_kinds"].as_array().expect("kinds").iter();
            if kinds.any(|kind| kind["kind"].is_null()) {
                open.push(used["pkg"].as_str().expect("an id"));
            }
        }
    }
    seen.remove(names.iter().find(|(_, name)| **name == root).expect("it is there").0);
    seen.into_iter().map(|id| names[id]).collect()
}

#[test]
fn no_feature_that_weakens_signature_checks_is_on() {
    for node in metadata()["resolve"]["nodes"].as_array().expect("nodes") {
        let features = node["features"].as_array().expect("features");
        let weak = features.iter().any(|feature| feature == "legacy_compatibility");
        assert!(
            !weak,
            "{} is built with legacy_compatibility, which accepts forged signatures; turn it off",
            node["id"]
        );
    }
    let dalek = metadata()["resolve"]["nodes"].as_array().expect("nodes").iter();
    assert!(dalek.clone().any(|node| node["id"].as_str().is_some_and(|id| id.contains("ed25519-dalek"))));
}

#[test]
fn every_crate_forbids_unsafe_code_at_its_top() {
    let mut wrong = Vec::new();
    for package in members().filter(|package| name(package) != "toka-jail") {
        for target in package["targets"].as_array().expect("targets") {
            let kinds = target["kind"].as_array().expect("kinds");
            if !kinds.iter().any(|kind| kind == "lib" || kind == "bin") {
                continue;
            }
            let path = target["src_path"].as_str().expect("a path");
            let text = std::fs::read_to_string(path).expect("a source file");
            if !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
                wrong.push(path.strip_prefix(&format!("{}/", tree::root().display())).unwrap_or(path).to_owned());
            }
        }
    }
    tree::none(&wrong, "put #![forbid(unsafe_code)] at the top of:");
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let shared: BTreeSet<String> =
        dependency_lines("Cargo.toml").filter(|line| line.contains('#')).filter_map(|line| key(&line)).collect();
    let mut wrong = Vec::new();
    for manifest in tree::files().filter(|file| file.ends_with("Cargo.toml")) {
        for line in dependency_lines(&manifest) {
            let Some(key) = key(&line) else { continue };
            let excused =
                key == "toka" || key.starts_with("toka-") || (manifest != "Cargo.toml" && shared.contains(&key));
            if !excused && !line.contains('#') {
                wrong.push(format!("{manifest}: {line}"));
            }
        }
    }
    tree::none(&wrong, "end the line with a comment: why this, and why not by hand:");
}

/// The lines of a manifest that name a dependency.
fn dependency_lines(manifest: &str) -> impl Iterator<Item = String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in tree::text(manifest).lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && key(line).is_some() {
            lines.push(line.to_owned());
        }
    }
    lines.into_iter()
}

/// What a line of a manifest defines: `serde` of `serde.workspace = true`.
fn key(line: &str) -> Option<String> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim().trim_end_matches(".workspace");
    (!key.is_empty() && !line.trim_start().starts_with('#')).then(|| key.to_owned())
}
