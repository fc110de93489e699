//! What the documentation says can be done, done as it says.
//!
//! Every block of README.md, of docs/TOOLS.md and of docs/REPLAY.md that begins with ```` ```sh run ```` is part of one script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toka_tests::programs::program;

use crate::tidy::tree;

#[test]
fn what_the_readme_tells_to_type_works() {
    let path = tree::root().join("README.md");
    let readme = fs::read_to_string(&path).expect("the tree has a README.md");
    let script = script(&readme);
    assert!(!script.is_empty(), "README.md has no ```sh run block: mark those that can be run anywhere");
    if let Err(said) = run(&script) {
        panic!("what README.md tells to type does not work\n{said}");
    }
}

#[test]
fn what_the_page_on_tools_tells_to_type_works() {
    let page = tree::text("docs/TOOLS.md");
    let guest = wat::parse_str(block(&page, "wat echo.wat")).expect("the text of a module");
    let manifest = block(&page, "yaml echo.tool.yaml");
    let files = [("echo.wasm", guest.as_slice()), ("echo.tool.yaml", manifest.as_bytes())];
    let script = format!("toka init --profile testing\n{}", script(&page));
    assert!(script.lines().count() > 6, "docs/TOOLS.md has no ```sh run block");
    if let Err(said) = run_beside(&files, &script) {
        panic!("what docs/TOOLS.md tells to type does not work\n{said}");
    }
}

#[test]
fn what_the_page_on_reading_a_log_tells_to_type_works() {
    let page = tree::text("docs/REPLAY.md");
    let script = format!("toka init --profile testing\n{}", script(&page));
    assert!(script.lines().count() > 30, "docs/REPLAY.md has no ```sh run block");
    if let Err(said) = run(&script) {
        panic!("what docs/REPLAY.md tells to type does not work\n{said}");
    }
}

/// The block that begins with these words.
fn block<'p>(page: &'p str, head: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block `{head}`"));
    rest.split("\n```").next().unwrap_or_default()
}

#[test]
fn a_script_is_all_its_blocks_and_nothing_else() {
    let readme = "# T\n```sh run\nexport A=1\ntest ! -e x; touch x\n```\n```sh\nfalse\n```\nfalse\n```sh run\ntest $A = 1\ntest -e x\ntoka --version\ntoka-replay --version\ntest ! -e $TOKA_HOME\n```\n";
    let script = script(readme);
    assert_eq!(script.lines().count(), 7, "{script}");
    run(&script).expect("it works");
}

#[test]
fn a_script_that_fails_is_told_with_the_line_that_failed() {
    let said = run("toka --version\ntoka no-such-verb\n").expect_err("it fails");
    assert!(said.contains("+ toka no-such-verb") && said.contains("there is no verb"), "{said}");
    run("echo $NOT_SET_ANYWHERE\n").expect_err("a name that is not set is an error");
}

#[test]
fn every_link_in_the_documentation_leads_to_a_file() {
    let mut dead = Vec::new();
    for page in tree::files().filter(|page| page.ends_with(".md")) {
        let text = tree::text(&page);
        let folder = Path::new(&page).parent().expect("a folder");
        for link in links(&text) {
            if !tree::root().join(folder).join(link).exists() {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere; mend or drop them:\n{}", dead.join("\n"));
}

#[test]
fn links_are_read_as_a_reader_follows_them() {
    let text = "[a](b.md) [c](d/e.md#part \"title\") ![f](g.png) [h](#part) [i](https://j.example/k)\n```\n[no](link)\n```\n`[nor](this)`\n[l](<m n.md>)";
    assert_eq!(links(text), ["b.md", "d/e.md", "g.png", "m n.md"]);
}

/// The lines of every `sh run` block.
fn script(markdown: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in markdown.lines() {
        match (inside, line.trim_end()) {
            (false, "```sh run") => inside = true,
            (true, "```") => inside = false,
            (true, _) => script.extend([line, "\n"]),
            (false, _) => {}
        }
    }
    script
}

/// Runs a script in an empty folder, as somebody would who has just installed Toka. Whatever it said, if it failed.
fn run(script: &str) -> Result<(), String> {
    run_beside(&[], script)
}

/// As [`run`], in a folder with these files.
fn run_beside(files: &[(&str, &[u8])], script: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("a file");
    }
    let programs: PathBuf = program("toka").parent().expect("a folder").to_owned();
    program("toka-replay");
    let mut path = vec![programs];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let output = Command::new("bash")
        .args(["-c", &format!("set -eux\n{script}")])
        .current_dir(dir.path())
        .env("PATH", std::env::join_paths(path).expect("a PATH"))
        .env("HOME", dir.path().join("user"))
        .env("TOKA_HOME", dir.path().join("user/toka"))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("bash runs");
    if output.status.success() {
        return Ok(());
    }
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}\n--- stdout\n{}\n--- stderr\n{}", output.status, said(&output.stdout), said(&output.stderr)))
}

/// The files that a page links to, without the place in them.
fn links(markdown: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        // What stands between two backticks is code.
        let prose = line.split('`').step_by(2).filter(|_| !fenced);
        for part in prose {
            links.extend(part.split("](").skip(1).filter_map(target));
        }
    }
    links
}

/// The file that a link names, given what follows its opening bracket.
fn target(rest: &str) -> Option<&str> {
    let target = match rest.strip_prefix('<') {
        Some(rest) => rest.split('>').next()?,
        None => rest.split([')', ' ']).next()?,
    };
    let file = target.split('#').next()?;
    (!file.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(file)
}
