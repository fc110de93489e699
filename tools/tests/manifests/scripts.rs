//! The tools that are shipped as data: their pins, and what their scripts do when they are run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use toka_kernel::ids::{CallId, SessionId};
use toka_tools::{CallNames, SHIPPED, canonicalise, discover, invocation, open_root, pin_text, prepare};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

#[test]
fn every_shipped_tool_is_good_and_pinned_to_its_files() {
    for shipped in SHIPPED {
        let manifest = shipped.load().unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert_eq!(manifest.spec.name, shipped.name);
        let text = std::str::from_utf8(shipped.manifest).expect("UTF-8");
        let pin = format!("digest: {}\n", pin_text(&manifest.spec.program));
        assert!(text.contains(&pin), "{}: a shipped tool writes its pin: {pin}", shipped.name);
    }
    let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
}

#[test]
fn what_is_embedded_is_what_lies_in_the_tree() {
    use std::os::fd::AsFd;
    let dir = open_root(&manifests()).expect("the tree has manifests");
    let found = discover(dir.as_fd(), "tools/manifests", None).whole().unwrap_or_else(|errors| panic!("{errors:#?}"));
    let embedded: Vec<_> = SHIPPED.iter().map(|shipped| shipped.load().expect("good")).collect();
    let found: Vec<_> = found.into_iter().map(|(_, manifest)| manifest).collect();
    assert_eq!(found, embedded);
    let below = |folder: &'static str| {
        let files = fs::read_dir(manifests().join(folder)).expect("it is there");
        files.map(move |file| format!("{folder}/{}", file.expect("a name").file_name().display()))
    };
    // The text of a guest is for people.
    let scripts: BTreeSet<String> =
        below("scripts").chain(below("guests")).filter(|name| !name.ends_with(".wat")).collect();
    let named = SHIPPED.iter().flat_map(|shipped| shipped.files).map(|(name, _)| (*name).to_owned());
    assert_eq!(scripts, named.collect(), "a script that no manifest names");
}

/// Runs a script as somebody does by hand.
fn script(program: &str, name: &str, args: &[&str]) -> Output {
    Command::new(program)
        .arg(manifests().join("scripts").join(name))
        .args(args)
        .env_remove("TOKA_TIME_US")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// What a script printed, and how it ended.
fn told(output: &Output) -> (Value, i32) {
    let said = String::from_utf8_lossy(&output.stderr);
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}\n{said}"));
    (value, output.status.code().expect("it exits"))
}

fn dates(args: &[&str]) -> Output {
    script("python3", "validate_dates.py", args)
}

fn links(args: &[&str]) -> Output {
    script("sh", "validate-links.sh", args)
}

/// A folder with these files.
fn folder(files: &[(&[u8], &str)]) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = scratch.path().join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    scratch
}

/// Rule and text of every finding in one file, with `args`.
fn date_findings(text: &str, args: &[&str]) -> Vec<(String, String)> {
    let scratch = folder(&[(b"a.md", text)]);
    let path = scratch.path().to_str().expect("UTF-8");
    let args: Vec<&str> = ["--today", "2025-06-15"].iter().chain(args).chain(&[path]).copied().collect();
    let (result, status) = told(&dates(&args));
    let findings = result["findings"].as_array().expect("findings");
    assert_eq!(status, i32::from(!findings.is_empty()), "{result}");
    assert_eq!(result["count"], findings.len());
    let pair = |finding: &Value| {
        let field = |name: &str| finding[name].as_str().expect("text").to_owned();
        (field("rule"), field("text"))
    };
    findings.iter().map(pair).collect()
}

#[test]
fn dates_are_found_in_every_form_and_only_there() {
    let future = |text: &str| date_findings(text, &[]);
    for date in [
        "2025-06-16",
        "2025/06/16",
        "16.06.2025",
        "16 June 2025",
        "June 16, 2025",
        "Jun 16, 2025",
        "sept 1, 2025",
        "1 DECEMBER 2025",
    ] {
        assert_eq!(future(&format!("On {date}, perhaps.")), [("future".to_owned(), date.to_owned())]);
    }
    assert_eq!(future("at 2025-06-16T10:00:00Z"), [("future".to_owned(), "2025-06-16".to_owned())]);
    for none in [
        "2025-06-15",
        "2024/12/31",
        "1 May 2020",
        "12025-06-16",
        "2025-06-161",
        "1-2025-06-16",
        "2025-06-16-1",
        "1.16.06.2025",
        "x2025-06-16",
        "16 June 20255",
        "2025-6-16",
        "٢٠٢٥-٠٦-١٦",
    ] {
        assert_eq!(future(none), [], "{none}");
    }
}

#[test]
fn what_is_no_date_is_a_finding_only_when_strict() {
    for text in ["2025-02-30", "2025/13/01", "31.04.2025", "0 June 2024", "0000-01-01"] {
        assert_eq!(date_findings(text, &[]), [], "{text}");
        assert_eq!(date_findings(text, &["--strict"]), [("invalid".to_owned(), text.to_owned())]);
    }
}

#[test]
fn an_exemption_reaches_three_lines_in_both_directions() {
    let text = "2030-01-01\n2030-01-02\n\n\n<!-- DATE:EXEMPT -->\n\n\n2030-01-08\n2030-01-09\n";
    let dates: Vec<String> = date_findings(text, &[]).into_iter().map(|(_, text)| text).collect();
    assert_eq!(dates, ["2030-01-01", "2030-01-09"]);
    assert_eq!(date_findings("2025-06-20 2025-06-21", &["--allow-future-days", "5"]).len(), 1);
}

#[test]
fn a_folder_of_dates_is_read_as_far_as_it_is_text() {
    let scratch = folder(&[
        (b"b/x.md", "fine\n\u{e9} 2030-01-01"),
        (b"a.TXT", "2030-01-02"),
        (b"odd\nname\xff.rs", "2030-01-03"),
        (b"c.png", "2030-01-04"),
        (b".hidden.md", "2030-01-05"),
        (b"target/t.md", "2030-01-06"),
        (b"nul.md", "\0 2030-01-07"),
    ]);
    fs::write(scratch.path().join("latin.md"), b"\xe9 2030-01-08").expect("written");
    fs::File::create(scratch.path().join("large.md")).and_then(|file| file.set_len((4 << 20) + 1)).expect("sparse");
    symlink("a.TXT", scratch.path().join("link.md")).expect("linked");
    let path = scratch.path().to_str().expect("UTF-8");
    let (result, status) = told(&dates(&["--today", "2025-06-15", path]));
    let finding = |file: &str, line: u32, column: u32, date: &str| json!({"file": file, "line": line, "column": column, "text": date, "date": date, "rule": "future"});
    let findings = json!([
        finding("a.TXT", 1, 1, "2030-01-02"),
        finding("b/x.md", 2, 3, "2030-01-01"),
        finding("odd\nname\u{fffd}.rs", 1, 1, "2030-01-03"),
    ]);
    assert_eq!((&result["findings"], status), (&findings, 1));
    let counts = ["files", "dates", "binary", "too_large", "unreadable"].map(|name| result[name].as_u64());
    assert_eq!(counts, [Some(3), Some(3), Some(2), Some(1), Some(0)]);
    assert_eq!(told(&dates(&["--today=2025-06-15", "--findings-ok", path])).1, 0);
}

#[test]
fn today_is_the_day_of_the_call_and_bad_usage_says_so() {
    let scratch = folder(&[(b"a.md", "2023-11-15")]);
    let path = scratch.path().join("a.md");
    let at = |micros: &str| {
        let script = manifests().join("scripts/validate_dates.py");
        Command::new("python3").arg(script).arg(&path).env("TOKA_TIME_US", micros).output().expect("python3")
    };
    let (result, status) = told(&at("1699999999999999"));
    assert_eq!((&result["today"], status), (&json!("2023-11-14"), 1));
    assert_eq!(told(&at("1700006400000000")).1, 0);
    assert_eq!(at("soon").status.code(), Some(2));
    let path = path.to_str().expect("UTF-8");
    for args in [
        &["--today", "2025-02-30", path][..],
        &["--today", "15.06.2025", path],
        &["--allow-future-days", "-1", path],
        &["--what", path],
        &[path, path],
        &[],
        &["--today"],
    ] {
        assert_eq!(dates(args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(dates(&["--", "-none"]).status.code(), Some(8));
}

#[test]
fn links_are_followed_as_a_reader_follows_them() {
    let scratch = folder(&[
        (
            b"index.md",
            "# Top *level* \u{2014} `x`\n\n## Twice\n## Twice\nSub\n---\n\n[a](dir/a.md) [b](dir/b%20c.md#one-1) \
             ![p](p.png \"t\")\n\
             [c](<dir/b c.md>) [d](#top-level--x) [e](#twice-1) [f](#sub) [g](/dir/a.md?x#id) [h](dir/) \
             [i](https://x.example/y)\n\
             <a href=\"dir/a.md\"> [j]: #here <a id=\"here\"></a> [k](mailto:a@b.example) [l](x_(y).md) [m](a\\)b.md)\n\
             `[code](none.md)` ``[`code`](none.md)``\n```\n[fenced](none.md)\n```\n~~~~\n```\n[fenced](none.md)\n~~~\n~~~~\n<!-- [c](none.md)\n[c](none.md) -->\n",
        ),
        (b"dir/a.md", "<h1 id='id'>x</h1>\n[up](../index.md) [up](./../dir/../index.md#twice)\n"),
        (b"dir/b c.md", "One\n===\n# One #\n"),
        (b"p.png", ""),
        (b"x_(y).md", ""),
        (b"a)b.md", ""),
    ]);
    let (result, status) = told(&links(&[scratch.path().to_str().expect("UTF-8")]));
    assert_eq!((&result["findings"], status), (&json!([]), 0), "{result:#}");
    assert_eq!((&result["files"], &result["external"], &result["complete"]), (&json!(5), &json!(2), &json!(true)));
}

#[test]
fn links_that_lead_nowhere_are_told_with_file_line_and_problem() {
    let scratch = folder(&[
        (
            b"index.md",
            "[a](none.md)\n\n[b](dir/a.md#none) [c](../index.md)\n[d]() [e](/../x)\n\n[r]: gone.md 'title'\n",
        ),
        (b"dir/a.md", "[up](../../x.md)\r\n[id](#up)\r\n"),
        (b"odd\n\"name\xff.md", "[x](\"q\".md)\n[y](link.md)\n"),
        (b"a=b.md", "[assignment](-n)"),
        (b"-v.md", "[option](%00)"),
    ]);
    symlink(".", scratch.path().join("loop")).expect("linked");
    symlink("nowhere", scratch.path().join("link.md")).expect("linked");
    let path = scratch.path().to_str().expect("UTF-8");
    let (result, status) = told(&links(&[path]));
    let mut found: Vec<(String, u64, String, String)> = Vec::new();
    for finding in result["findings"].as_array().expect("findings") {
        let field = |name: &str| finding[name].as_str().expect("text").to_owned();
        found.push((field("file"), finding["line"].as_u64().expect("a line"), field("link"), field("problem")));
    }
    found.sort();
    let row =
        |file: &str, line: u64, link: &str, problem: &str| (file.to_owned(), line, link.to_owned(), problem.to_owned());
    let expected = [
        row("-v.md", 1, "%00", "no-such-file"),
        row("a=b.md", 1, "-n", "no-such-file"),
        row("dir/a.md", 1, "../../x.md", "leaves-root"),
        row("dir/a.md", 2, "#up", "no-such-anchor"),
        row("index.md", 1, "none.md", "no-such-file"),
        row("index.md", 3, "../index.md", "leaves-root"),
        row("index.md", 3, "dir/a.md#none", "no-such-anchor"),
        row("index.md", 4, "", "empty"),
        row("index.md", 4, "/../x", "leaves-root"),
        row("index.md", 6, "gone.md", "no-such-file"),
        row("odd\n\"name\u{fffd}.md", 1, "\"q\".md", "no-such-file"),
    ];
    assert_eq!((found, status), (expected.to_vec(), 1));
    assert_eq!(told(&links(&["--findings-ok", "--", path])).1, 0);
    let file = scratch.path().join("index.md");
    for (args, status) in [
        (&[][..], 2),
        (&["--external", path], 2),
        (&[path, path], 2),
        (&[""], 2),
        (&["--", "-none"], 8),
        (&[file.to_str().expect("UTF-8")], 8),
    ] {
        assert_eq!(links(args).status.code(), Some(status), "{args:?}");
    }
}

#[test]
fn a_shipped_tool_gets_what_its_script_takes() {
    let names = CallNames { call: CallId([1; 32]), session: SessionId([2; 32]), time_us: 1_700_000_000_000_000 };
    let scratch = folder(&[(b"docs/a.md", "[x](none.md) 2030-01-01")]);
    for (shipped_name, arguments, count) in [
        ("validate-dates", json!({"path": "work:docs"}), 1),
        ("validate-dates", json!({"path": "work:docs/a.md", "today": "2031-01-01", "strict_mode": true}), 0),
        ("validate-links", json!({"root": "work:docs"}), 1),
    ] {
        let shipped = SHIPPED.iter().find(|shipped| shipped.name == shipped_name).expect("it is shipped");
        let spec = shipped.load().expect("good").spec;
        let prepared = prepare(&spec, &arguments.to_string()).expect("they fit");
        let started = invocation(&spec, &prepared.arguments, &names).expect("they fit");
        // In place of the sandbox: the paths that it would mount.
        let place = |entry: &String| match (entry.strip_prefix("/roots/work"), entry.strip_prefix("/tool")) {
            (Some(below), _) => format!("{}{below}", scratch.path().display()),
            (None, Some(below)) => format!("{}{below}", manifests().display()),
            (None, None) => entry.clone(),
        };
        let mut command = Command::new(started.toolchain.as_ref().expect("a script"));
        command.args(started.argv[1..].iter().map(place)).envs(&started.env);
        // The machine of a test may have its programs elsewhere than a sandbox.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        canonicalise(&text).expect("a result");
        assert_eq!(told(&Output { stdout: text.into_bytes(), ..output }).0["count"], count);
    }
}
