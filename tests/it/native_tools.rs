//! The native tools: what they answer, and what they refuse to reach.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;
use toka_kernel::denial::{Code, Dim};
use toka_kernel::facts::FactType;
use toka_kernel::ids::{CallId, Digest};
use toka_kernel::limits::{TOOL_BYTES_MAX, TOOL_SPEC_BYTES_MAX};
use toka_kernel::tool::{Effect, Level, ParamType, ToolSpec, ToolSpecError};
use toka_tests::session::Session;
use toka_tools::{Cancel, Granted, Handed, Ops, Request, Rule, by_name, check, open_root, prepare, registry};

/// A tree with a granted directory and what lies outside of it, and what may go wrong in it.
struct Tree {
    dir: TempDir,
    root: OwnedFd,
}

impl Tree {
    fn new() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        fs::create_dir_all(top.join("in/sub")).unwrap();
        fs::create_dir_all(top.join("out")).unwrap();
        fs::write(top.join("in/plain"), "hello").unwrap();
        fs::write(top.join("in/sub/deep"), "deep").unwrap();
        fs::write(top.join("out/secret"), "secret").unwrap();
        symlink("sub/deep", top.join("in/link-inside")).unwrap();
        symlink("sub", top.join("in/dir-inside")).unwrap();
        symlink("../out/secret", top.join("in/link-out")).unwrap();
        symlink(top.join("out/secret"), top.join("in/link-absolute")).unwrap();
        symlink("../out", top.join("in/dir-out")).unwrap();
        symlink("nowhere", top.join("in/link-dangling")).unwrap();
        symlink("link-loop", top.join("in/link-loop")).unwrap();
        symlink("/proc/self/root/etc/hostname", top.join("in/link-magic")).unwrap();
        fs::hard_link(top.join("out/secret"), top.join("in/hard")).unwrap();
        mkfifoat(CWD, top.join("in/fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        drop(UnixListener::bind(top.join("in/socket")).unwrap());
        let root = open_root(top).unwrap();
        Tree { dir, root }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Calls a tool with everything below `in` granted.
    fn call(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        let granted = Granted { segments: &["in"], exact: false };
        run(self.root.as_fd(), granted, tool, arguments, 1, &AtomicBool::new(false))
    }

    fn exact(&self, segments: &[&str], tool: &str, arguments: &Value) -> Result<Value, String> {
        let granted = Granted { segments, exact: true };
        run(self.root.as_fd(), granted, tool, arguments, 1, &AtomicBool::new(false))
    }

    fn read(&self, relative: &str) -> Result<String, String> {
        let answer = self.call("file-reader", &json!({ "path": format!("work:{relative}") }))?;
        Ok(answer["content"].as_str().unwrap().to_owned())
    }

    fn write(&self, relative: &str, options: &Value) -> Result<String, String> {
        let mut arguments = json!({ "path": format!("work:{relative}"), "content": "new" });
        for (name, value) in options.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        self.call("file-writer", &arguments)?;
        Ok(fs::read_to_string(self.path(relative)).unwrap())
    }

    fn list(&self, options: &Value) -> Result<Vec<String>, String> {
        let answer = self.call("file-lister", options)?;
        let line = |entry: &Value| {
            let path = entry["path"].as_str().or(entry["path_base64"].as_str()).unwrap();
            format!("{path} {} {}", entry["kind"].as_str().unwrap(), entry["bytes"])
        };
        Ok(answer["entries"].as_array().unwrap().iter().map(line).collect())
    }
}

/// Does what an executor does: checks the arguments, opens the prefix, runs the tool.
fn run(
    root: std::os::fd::BorrowedFd<'_>,
    granted: Granted<'_>,
    tool: &str,
    arguments: &Value,
    call: u8,
    control: &dyn Cancel,
) -> Result<Value, String> {
    let tool = by_name(tool).unwrap();
    let prepared = prepare(tool.spec(), &arguments.to_string()).map_err(|error| error.code.to_string())?;
    let arguments = check(tool.spec(), &prepared.arguments).unwrap();
    let path = arguments["path"].as_str().unwrap();
    let ops = Ops::READ | Ops::LIST | Ops::WRITE | Ops::CREATE;
    let handed = Handed::open(root, granted, path, ops).map_err(|failure| failure.symbol.to_owned())?;
    let dirs = BTreeMap::from([("/path".to_owned(), handed)]);
    let request = Request { call_id: CallId([call; 32]), time_us: 0, arguments: &arguments, dirs: &dirs };
    tool.run(&request, control).map_err(|failure| failure.symbol.to_owned())
}

fn fails<T>(symbol: &str) -> Result<T, String> {
    Err(symbol.to_owned())
}

#[test]
fn the_reader_reaches_what_is_granted_and_nothing_else() {
    let tree = Tree::new();
    let cases = [
        ("in/plain", Ok("hello")),
        ("in/sub/deep", Ok("deep")),
        ("in/link-inside", Ok("deep")),
        ("in/dir-inside/deep", Ok("deep")),
        ("in/link-out", Err("denied")),
        ("in/link-absolute", Err("denied")),
        ("in/dir-out/secret", Err("denied")),
        ("in/link-magic", Err("denied")),
        ("in/link-loop", Err("denied")),
        ("in/hard", Err("denied")),
        ("out/secret", Err("denied")),
        ("in", Err("not-regular")),
        ("in/sub", Err("not-regular")),
        ("in/fifo", Err("not-regular")),
        ("in/socket", Err("not-regular")),
        ("in/link-dangling", Err("not-found")),
        ("in/nothing", Err("not-found")),
        ("in/plain/below", Err("not-found")),
    ];
    for (path, expected) in cases {
        assert_eq!(tree.read(path), expected.map(str::to_owned).map_err(str::to_owned), "{path}");
    }
}

#[test]
fn a_grant_of_one_path_follows_no_link_beside_it() {
    let tree = Tree::new();
    let read = |segments: &[&str], path: &str| {
        let answer = tree.exact(segments, "file-reader", &json!({ "path": path }));
        answer.map(|answer| answer["content"].as_str().unwrap().to_owned())
    };
    assert_eq!(read(&["in", "plain"], "work:in/plain"), Ok("hello".to_owned()));
    assert_eq!(read(&["in", "link-inside"], "work:in/link-inside"), fails("denied"));
    assert_eq!(read(&["in", "plain"], "work:in/sub/deep"), fails("denied"));
    assert_eq!(read(&["in"], "work:in/plain"), fails("denied"));
    assert_eq!(read(&[], "work:"), fails("not-regular"));
}

#[test]
fn a_prefix_that_is_a_link_is_not_opened() {
    let tree = Tree::new();
    let below = |segments: &[&str], path: &str| {
        let granted = Granted { segments, exact: false };
        let arguments = json!({ "path": path });
        run(tree.root.as_fd(), granted, "file-reader", &arguments, 1, &AtomicBool::new(false)).map(drop)
    };
    assert_eq!(below(&["in", "dir-inside"], "work:in/dir-inside/deep"), fails("denied"));
    assert_eq!(below(&["in", "dir-out"], "work:in/dir-out/secret"), fails("denied"));
    assert_eq!(below(&["in", "link-inside"], "work:in/link-inside"), fails("denied"));
    assert_eq!(below(&["in", "sub"], "work:in/sub/deep"), Ok(()));
    assert_eq!(below(&["in", "plain"], "work:in/plain"), Ok(()), "everything below a file is that file");
    assert_eq!(below(&[], "work:in/plain"), Ok(()));
}

#[test]
fn a_path_outside_the_grammar_ends_before_any_system_call() {
    let tree = Tree::new();
    let long = format!("work:in/{}", "a/".repeat(2_100));
    let wide = format!("work:in/{}", "a".repeat(256));
    let bad = [
        "",
        "work",
        "work:in/../out/secret",
        "work:..",
        "work:/in/plain",
        "/in/plain",
        "work:in/plain/",
        "work:in//plain",
        "work:in/./plain",
        "work:in/pl\0ain",
        "work:in\\plain",
        "work:in/\u{202e}plain",
        "work:in/plain\n",
        "WORK:in/plain",
        &long,
        &wide,
    ];
    for tool in registry() {
        for path in bad {
            let mut arguments = json!({ "path": path });
            if tool.spec().name == "file-writer" {
                arguments["content"] = Value::from("x");
            }
            assert_eq!(tree.call(&tool.spec().name, &arguments), fails("BAD_PATH"), "{path:?}");

            // And where nobody has checked before.
            let dirs = BTreeMap::new();
            let request = Request { call_id: CallId::ZERO, time_us: 0, arguments: &arguments, dirs: &dirs };
            let failure = tool.run(&request, &AtomicBool::new(false)).unwrap_err();
            assert_eq!(failure.symbol, "bad-path", "{path:?}");
        }
    }
    assert_eq!(tree.read("in/plain"), Ok("hello".to_owned()));
}

#[test]
fn odd_names_in_the_grammar_are_plain_names() {
    let tree = Tree::new();
    for name in ["%2e%2e", "...", "~", " ", "a:b", "-rf", "é", "e\u{301}", "*", "\"q\""] {
        let path = format!("in/{name}");
        assert_eq!(tree.read(&path), fails("not-found"), "{name}");
        assert_eq!(tree.write(&path, &json!({})), Ok("new".to_owned()), "{name}");
        assert_eq!(tree.read(&path), Ok("new".to_owned()), "{name}");
    }
}

#[test]
fn a_tool_takes_no_directory_that_was_opened_for_something_else() {
    let tree = Tree::new();
    let arguments = json!({ "path": "work:in/plain" });
    let granted = Granted { segments: &["in"], exact: false };
    let handed = |path: &str, ops: Ops| {
        BTreeMap::from([("/path".to_owned(), Handed::open(tree.root.as_fd(), granted, path, ops).unwrap())])
    };
    let read = |dirs: &BTreeMap<String, Handed>| {
        let request = Request { call_id: CallId::ZERO, time_us: 0, arguments: &arguments, dirs };
        let tool = by_name("file-reader").unwrap();
        tool.run(&request, &AtomicBool::new(false)).map(drop).map_err(|failure| failure.symbol)
    };
    assert_eq!(read(&handed("work:in/plain", Ops::READ)), Ok(()));
    assert_eq!(read(&handed("work:in/sub/deep", Ops::READ)), Err("denied"));
    assert_eq!(read(&handed("other:in/plain", Ops::READ)), Err("denied"));
    assert_eq!(read(&handed("work:in/plain", Ops::LIST | Ops::WRITE)), Err("denied"));
    assert_eq!(read(&BTreeMap::new()), Err("denied"));
}

#[test]
fn devices_mounts_and_magic_links_of_the_machine_are_refused() {
    let read = |root: &Path, path: &str| {
        let root = open_root(root).unwrap();
        let granted = Granted { segments: &[], exact: false };
        let arguments = json!({ "path": path });
        run(root.as_fd(), granted, "file-reader", &arguments, 1, &AtomicBool::new(false)).map(drop)
    };
    let own = PathBuf::from(format!("/proc/{}", std::process::id()));
    assert_eq!(read(Path::new("/dev"), "dev:null"), fails("not-regular"));
    assert_eq!(read(Path::new("/dev"), "dev:tty"), fails("not-regular"));
    assert_eq!(read(&own, "proc:root/etc/passwd"), fails("denied"));
    assert_eq!(read(&own, "proc:cwd/Cargo.toml"), fails("denied"));
    assert_eq!(read(&own, "proc:fd/0"), fails("denied"));
    assert_eq!(read(&own, "proc:status"), Ok(()));
    assert_eq!(read(Path::new("/"), "host:proc/version"), fails("denied"));
    assert_eq!(read(Path::new("/proc"), "proc:version"), Ok(()));
}

#[test]
fn a_root_is_an_absolute_path_to_a_directory_and_no_link() {
    let tree = Tree::new();
    let symbol = |path: &Path| open_root(path).map(drop).map_err(|failure| failure.symbol);
    assert_eq!(symbol(&tree.path("in")), Ok(()));
    assert_eq!(symbol(Path::new("in")), Err("bad-path"));
    assert_eq!(symbol(&tree.path("in/dir-inside")), Err("not-dir"));
    assert_eq!(symbol(&tree.path("in/plain")), Err("not-dir"));
    assert_eq!(symbol(Path::new("/proc/self/root")), Err("not-dir"));
    assert_eq!(symbol(Path::new("/proc/self/root/proc")), Err("denied"));
}

#[test]
fn the_reader_answers_ranges_encodings_and_hashes() {
    let tree = Tree::new();
    fs::write(tree.path("in/text"), "aé€😀z").unwrap();
    fs::write(tree.path("in/binary"), b"\xff\x00").unwrap();
    fs::write(tree.path("in/nul"), "a\0").unwrap();
    fs::write(tree.path("in/empty"), "").unwrap();
    let read = |path: &str, options: Value| {
        let mut arguments = options;
        arguments["path"] = Value::from(format!("work:in/{path}"));
        let answer = tree.call("file-reader", &arguments)?;
        let [content, encoding, bytes, total, truncated] =
            ["content", "encoding", "bytes", "total", "truncated"].map(|name| answer[name].clone());
        assert_eq!(answer.as_object().unwrap().len(), 6);
        Ok::<Value, String>(json!([content, encoding, bytes, total, truncated]))
    };
    let cases = [
        ("text", json!({}), json!(["aé€😀z", "utf8", 11, 11, false])),
        ("text", json!({ "offset": 10 }), json!(["z", "utf8", 1, 11, false])),
        ("text", json!({ "length": 8 }), json!(["aé€", "utf8", 6, 11, true])),
        ("text", json!({ "length": 0 }), json!(["", "utf8", 0, 11, true])),
        ("text", json!({ "offset": 100 }), json!(["", "utf8", 0, 11, false])),
        ("text", json!({ "offset": i64::MAX }), json!(["", "utf8", 0, 11, false])),
        ("text", json!({ "offset": 2, "length": 1 }), json!(["qQ==", "base64", 1, 11, true])),
        ("text", json!({ "length": 2, "encoding": "base64" }), json!(["YcM=", "base64", 2, 11, true])),
        ("binary", json!({}), json!(["/wA=", "base64", 2, 2, false])),
        ("nul", json!({}), json!(["YQA=", "base64", 2, 2, false])),
        ("nul", json!({ "encoding": "utf8" }), json!(["a\0", "utf8", 2, 2, false])),
        ("empty", json!({}), json!(["", "utf8", 0, 0, false])),
    ];
    for (path, options, expected) in cases {
        assert_eq!(read(path, options.clone()), Ok(expected), "{path} {options}");
    }
    assert_eq!(read("binary", json!({ "encoding": "utf8" })), fails("not-utf8"));
    let answer = tree.call("file-reader", &json!({ "path": "work:in/plain" })).unwrap();
    assert_eq!(answer["blake3"], blake3::hash(b"hello").to_hex().as_str());
}

#[test]
fn the_lister_sorts_by_path_bytes_and_follows_no_link() {
    let tree = Tree::new();
    fs::write(tree.path("in/sub-x"), "").unwrap();
    fs::write(tree.path("in/.hidden"), "12").unwrap();
    let flat = tree.list(&json!({ "path": "work:in" })).unwrap();
    let expected = [
        "work:in/dir-inside link 0",
        "work:in/dir-out link 0",
        "work:in/fifo fifo 0",
        "work:in/hard file 6",
        "work:in/link-absolute link 0",
        "work:in/link-dangling link 0",
        "work:in/link-inside link 0",
        "work:in/link-loop link 0",
        "work:in/link-magic link 0",
        "work:in/link-out link 0",
        "work:in/plain file 5",
        "work:in/socket socket 0",
        "work:in/sub dir 0",
        "work:in/sub-x file 0",
    ];
    assert_eq!(flat, expected);
    let deep = tree.list(&json!({ "path": "work:in", "recursive": true, "show_hidden": true })).unwrap();
    assert_eq!(deep.len(), flat.len() + 2);
    assert_eq!(deep[0], "work:in/.hidden file 2");
    assert_eq!(deep[deep.len() - 3..], ["work:in/sub dir 0", "work:in/sub-x file 0", "work:in/sub/deep file 4"]);

    for (path, symbol) in [
        ("work:in/plain", "not-dir"),
        ("work:in/fifo", "not-dir"),
        ("work:in/dir-inside", "symlink"),
        ("work:in/dir-out", "symlink"),
        ("work:in/nothing", "not-found"),
        ("work:out", "denied"),
    ] {
        assert_eq!(tree.list(&json!({ "path": path })), fails(symbol), "{path}");
    }
    assert_eq!(tree.list(&json!({ "path": "work:in/sub" })), Ok(vec!["work:in/sub/deep file 4".to_owned()]));
}

#[test]
fn a_listed_path_can_be_handed_back() {
    let tree = Tree::new();
    for granted in [Granted { segments: &[], exact: false }, Granted { segments: &["in"], exact: false }] {
        let path = if granted.segments.is_empty() { "work:" } else { "work:in" };
        let arguments = json!({ "path": path, "recursive": true });
        let call = |tool: &str, arguments: &Value| {
            run(tree.root.as_fd(), granted, tool, arguments, 1, &AtomicBool::new(false))
        };
        let answer = call("file-lister", &arguments).unwrap();
        let paths: Vec<&str> =
            answer["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
        assert!(paths.contains(&"work:in/sub/deep"), "{paths:?}");
        assert_eq!(call("file-reader", &json!({ "path": "work:in/sub/deep" })).unwrap()["content"], "deep");
    }
}

#[test]
fn a_name_that_is_no_path_is_listed_as_base64() {
    let tree = Tree::new();
    fs::create_dir(tree.path("in/odd")).unwrap();
    for name in [b"\xff".as_slice(), b"new\nline", "\u{202e}".as_bytes()] {
        fs::write(tree.path("in/odd").join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    let listed = tree.list(&json!({ "path": "work:in/odd" })).unwrap();
    // work:in/odd/ and then: new, a line feed, line; U+202E; one byte ff.
    let expected =
        ["d29yazppbi9vZGQvbmV3CmxpbmU= file 0", "d29yazppbi9vZGQv4oCu file 0", "d29yazppbi9vZGQv/w== file 0"];
    assert_eq!(listed, expected);
}

#[test]
fn the_lister_says_what_its_bounds_left_out() {
    let tree = Tree::new();
    for name in 0..30 {
        fs::create_dir_all(tree.path(&format!("in/many/{name:02}/x/y"))).unwrap();
    }
    let list = |options: Value| {
        let mut arguments = options;
        arguments["path"] = Value::from("work:in/many");
        arguments["recursive"] = Value::from(true);
        let answer = tree.call("file-lister", &arguments).unwrap();
        let count = answer["entries"].as_array().unwrap().len();
        (count, answer["truncated"].as_bool().unwrap(), answer["entries"][count - 1].clone())
    };
    let (count, truncated, last) = list(json!({}));
    assert_eq!((count, truncated, &last["path"]), (90, false, &json!("work:in/many/29/x/y")));
    let (count, truncated, last) = list(json!({ "max_entries": 90 }));
    assert_eq!((count, truncated, &last["path"]), (90, false, &json!("work:in/many/29/x/y")));
    let (count, truncated, last) = list(json!({ "max_entries": 4 }));
    assert_eq!((count, truncated, &last["path"]), (4, true, &json!("work:in/many/01")));
    let (count, truncated, last) = list(json!({ "max_depth": 2 }));
    assert_eq!((count, truncated), (60, true));
    assert_eq!(last, json!({ "path": "work:in/many/29/x", "kind": "dir", "bytes": 0, "unread": "depth" }));
    for bad in [json!({ "max_entries": 0 }), json!({ "max_entries": 10_001 }), json!({ "max_depth": 65 })] {
        let mut arguments = bad;
        arguments["path"] = Value::from("work:in");
        assert_eq!(tree.list(&arguments), fails("BAD_ARGUMENTS"));
    }
}

#[test]
fn a_mount_is_listed_and_not_entered() {
    let root = open_root(Path::new("/")).unwrap();
    let granted = Granted { segments: &[], exact: false };
    let list = |arguments: Value| run(root.as_fd(), granted, "file-lister", &arguments, 1, &AtomicBool::new(false));
    assert_eq!(list(json!({ "path": "host:proc" })), fails("denied"));
    let top = list(json!({ "path": "host:" })).unwrap();
    assert!(top["entries"].as_array().unwrap().iter().any(|entry| entry["path"] == "host:proc"));
}

#[test]
fn the_writer_replaces_whole_files_and_keeps_their_mode() {
    let tree = Tree::new();
    fs::set_permissions(tree.path("in/plain"), Permissions::from_mode(0o640)).unwrap();
    let held = fs::File::open(tree.path("in/plain")).unwrap();
    assert_eq!(tree.write("in/plain", &json!({})), Ok("new".to_owned()));
    assert_eq!(std::io::read_to_string(held).unwrap(), "hello", "who has it open keeps the old content");
    let mode = |path: &str| fs::metadata(tree.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("in/plain"), 0o640);
    assert_eq!(tree.write("in/fresh", &json!({})), Ok("new".to_owned()));
    assert_eq!(mode("in/fresh"), 0o644);
    assert_eq!(tree.write("in/empty", &json!({ "content": "" })), Ok(String::new()));
    assert_eq!(tree.write("in/bytes", &json!({ "content": "YQ==", "encoding": "base64" })), Ok("a".to_owned()));
    assert_eq!(tree.write("in/bytes", &json!({ "content": "YR==", "encoding": "base64" })), fails("bad-arguments"));
    let answer = tree.call("file-writer", &json!({ "path": "work:in/fresh", "content": "abc" })).unwrap();
    assert_eq!(answer, json!({ "bytes": 3, "blake3": blake3::hash(b"abc").to_hex().as_str() }));
}

#[test]
fn the_writer_reaches_what_is_granted_and_nothing_else() {
    let tree = Tree::new();
    let cases = [
        ("in/link-inside", "symlink"),
        ("in/link-out", "symlink"),
        ("in/link-dangling", "symlink"),
        ("in/dir-inside/f", "symlink"),
        ("in/dir-out/f", "symlink"),
        ("in/hard", "denied"),
        ("in/sub", "not-regular"),
        ("in", "not-regular"),
        ("in/fifo", "not-regular"),
        ("in/socket", "not-regular"),
        ("in/nothing/f", "parent-missing"),
        ("in/plain/f", "parent-missing"),
        ("out/f", "denied"),
    ];
    for (path, symbol) in cases {
        assert_eq!(tree.write(path, &json!({})), fails(symbol), "{path}");
    }
    assert_eq!(fs::read_to_string(tree.path("out/secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(tree.path("out")).unwrap().count(), 1);
    let left = fs::read_dir(tree.path("in"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().as_bytes().starts_with(b".toka-"));
    assert_eq!(left.count(), 0, "a failed call leaves no temporary file");
    assert_eq!(tree.write("in/sub/f", &json!({})), Ok("new".to_owned()));
}

#[test]
fn missing_directories_are_made_beneath_the_grant_only() {
    let tree = Tree::new();
    let parents = json!({ "parents": true });
    assert_eq!(tree.write("in/a/b/c/f", &parents), Ok("new".to_owned()));
    assert_eq!(tree.write("in/a/b/c/f", &parents), Ok("new".to_owned()));
    assert_eq!(tree.write("in/dir-out/a/f", &parents), fails("symlink"));
    assert_eq!(tree.write("in/plain/a/f", &parents), fails("parent-missing"));
    assert!(!tree.path("out/a").exists());

    let below = |segments: &[&str], path: &str| {
        let granted = Granted { segments, exact: false };
        let arguments = json!({ "path": path, "content": "x", "parents": true });
        run(tree.root.as_fd(), granted, "file-writer", &arguments, 1, &AtomicBool::new(false)).map(drop)
    };
    assert_eq!(below(&["in", "made"], "work:in/made/d/f"), Ok(()), "the granted directory itself may be made");
    assert_eq!(below(&["in", "no", "such"], "work:in/no/such/f"), fails("not-found"), "what is above it may not");
    assert!(!tree.path("in/no").exists());
}

#[test]
fn a_new_file_takes_no_name_that_is_taken() {
    let tree = Tree::new();
    let new = json!({ "mode": "create_new" });
    for path in ["in/plain", "in/hard"] {
        assert_eq!(tree.write(path, &new), fails("exists"), "{path}");
    }
    assert_eq!(tree.write("in/link-dangling", &new), fails("symlink"));
    assert_eq!(tree.write("in/fresh", &new), Ok("new".to_owned()));
    assert_eq!(tree.write("in/fresh", &new), Ok("new".to_owned()), "the same call again");
    let other = json!({ "path": "work:in/fresh", "content": "new", "mode": "create_new" });
    let granted = Granted { segments: &["in"], exact: false };
    let answer = run(tree.root.as_fd(), granted, "file-writer", &other, 2, &AtomicBool::new(false));
    assert_eq!(answer, fails("exists"), "another call with the same content");
}

#[test]
fn an_unexpected_file_is_left_as_it_is() {
    let tree = Tree::new();
    let expect = |content: &str| json!({ "expect_blake3": blake3::hash(content.as_bytes()).to_hex().as_str() });
    assert_eq!(tree.write("in/plain", &expect("other")), fails("changed"));
    assert_eq!(tree.write("in/nothing", &expect("")), fails("changed"));
    assert_eq!(fs::read_to_string(tree.path("in/plain")).unwrap(), "hello");
    assert_eq!(tree.write("in/plain", &expect("hello")), Ok("new".to_owned()));
    assert_eq!(tree.write("in/plain", &expect("hello")), Ok("new".to_owned()), "the same call again");
    for bad in ["", "ab", &"A".repeat(64), &"g".repeat(64)] {
        assert_eq!(tree.write("in/plain", &json!({ "expect_blake3": bad })), fails("bad-arguments"), "{bad}");
    }
    let both = json!({ "mode": "create_new", "expect_blake3": "0".repeat(64) });
    assert_eq!(tree.write("in/plain", &both), fails("bad-arguments"));
}

#[test]
fn a_cancelled_call_stops_and_leaves_nothing() {
    /// Says stop from the `n`-th question on.
    struct After(Cell<usize>);
    impl Cancel for After {
        fn requested(&self) -> bool {
            self.0.set(self.0.get().saturating_sub(1));
            self.0.get() == 0
        }
    }
    let tree = Tree::new();
    fs::write(tree.path("in/big"), vec![b'x'; 300 << 10]).unwrap();
    for name in 0..600 {
        fs::write(tree.path(&format!("in/sub/{name}")), "").unwrap();
    }
    let granted = Granted { segments: &["in"], exact: false };
    let calls = [
        ("file-reader", json!({ "path": "work:in/big" })),
        ("file-lister", json!({ "path": "work:in/sub" })),
        ("file-writer", json!({ "path": "work:in/new", "content": "x".repeat(300 << 10) })),
    ];
    for (tool, arguments) in calls {
        for questions in 1..4 {
            let control = After(Cell::new(questions));
            assert_eq!(run(tree.root.as_fd(), granted, tool, &arguments, 1, &control), fails("cancelled"), "{tool}");
        }
        assert!(run(tree.root.as_fd(), granted, tool, &arguments, 1, &AtomicBool::new(false)).is_ok(), "{tool}");
        fs::remove_file(tree.path("in/new")).ok();
    }
}

#[test]
fn arguments_are_checked_against_the_parameters() {
    let reader = by_name("file-reader").unwrap();
    let writer = by_name("file-writer").unwrap();
    let long = json!({ "path": "work:a", "content": "", "expect_blake3": "0".repeat(65) }).to_string();
    let cases: [(&ToolSpec, &str, &str, Rule); 11] = [
        (reader.spec(), "[]", "", Rule::NotObject),
        (reader.spec(), "{}", "/path", Rule::Missing),
        (reader.spec(), r#"{"path":"work:a","x/~":1}"#, "/x~1~0", Rule::Unknown),
        (reader.spec(), r#"{"path":1}"#, "/path", Rule::Type(ParamType::Path)),
        (reader.spec(), r#"{"path":"work:a","offset":"1"}"#, "/offset", Rule::Type(ParamType::Integer)),
        (reader.spec(), r#"{"path":"work:a","offset":1.5}"#, "/offset", Rule::Type(ParamType::Integer)),
        (reader.spec(), r#"{"path":"work:a","offset":null}"#, "/offset", Rule::Type(ParamType::Integer)),
        (reader.spec(), r#"{"path":"work:a","offset":-1}"#, "/offset", Rule::Min(0)),
        (reader.spec(), r#"{"path":"work:a","length":16777217}"#, "/length", Rule::Max(16 << 20)),
        (writer.spec(), r#"{"path":"work:a","content":"\u0000"}"#, "/content", Rule::Nul),
        (writer.spec(), &long, "/expect_blake3", Rule::MaxLen(64)),
    ];
    for (spec, text, pointer, rule) in cases {
        let error = prepare(spec, text).unwrap_err();
        assert_eq!((error.code, error.pointer.as_str(), &error.rule), (Code::BadArguments, pointer, &rule), "{text}");
        assert_eq!(error.detail(), json!({ "pointer": pointer, "rule": rule.to_string() }));
    }
    let error = prepare(reader.spec(), r#"{"path":"work:a","encoding":"hush"}"#).unwrap_err();
    assert!(matches!(error.rule, Rule::Values(_)) && !error.to_string().contains("hush"), "{error}");
    let error = prepare(reader.spec(), r#"{"path":"work:../hush"}"#).unwrap_err();
    assert_eq!(error.code, Code::BadPath);
    assert!(!error.to_string().contains("hush"), "{error}");
    assert_eq!(prepare(reader.spec(), r#"{"path":"work:a","path":"work:b"}"#).unwrap_err().code, Code::BadArguments);
    assert!(check(reader.spec(), br#"{ "path":"work:a"}"#).is_err(), "not canonical");
}

#[test]
fn prepared_arguments_are_canonical_and_have_no_defaults() {
    let reader = by_name("file-reader").unwrap();
    let prepared = prepare(reader.spec(), r#" { "path": "work:a", "offset": 1.0 } "#).unwrap();
    assert_eq!(prepared.arguments, br#"{"offset":1,"path":"work:a"}"#);
    let facts: Vec<&str> = prepared.facts.iter().map(|fact| fact.pointer.as_str()).collect();
    assert_eq!(facts, ["/path", "/offset"], "in the order of the spec");
    assert!(!prepared.extra);
    let writer = by_name("file-writer").unwrap();
    assert!(prepare(writer.spec(), r#"{"path":"work:a","content":"x"}"#).unwrap().extra, "content is no fact");
}

#[test]
fn every_native_tool_has_a_spec_that_can_be_bound() {
    let names: Vec<String> = registry().iter().map(|tool| tool.spec().name.clone()).collect();
    assert_eq!(names, ["file-lister", "file-reader", "file-writer"]);
    for tool in registry() {
        let spec = tool.spec();
        let bytes = spec.encode().unwrap();
        assert!(bytes.len() <= TOOL_SPEC_BYTES_MAX);
        assert_eq!(&ToolSpec::decode(&bytes).unwrap(), spec);
        let decision = spec.decision(7).unwrap();
        assert_eq!((decision.digest, decision.text), (spec.digest().unwrap(), 7));
        assert!(spec.fact_specs().unwrap().iter().any(|fact| fact.kind == FactType::Path));
        assert_eq!(spec.level, Level::Native.number());
        let dims: Vec<u16> = spec.reserve.iter().map(|reserve| reserve.dim).collect();
        assert_eq!(dims, (Dim::BytesIn.number()..=Dim::CpuUs.number()).collect::<Vec<_>>(), "a worst case for each");
        let defaults = spec.params.iter().filter_map(|param| param.default.as_ref());
        defaults.for_each(|default| assert_eq!(toka_tools::canonicalise(default).unwrap(), default.as_bytes()));
    }
    assert_eq!(by_name("file-reader").unwrap().spec().effect, Effect::Read.number());
    assert_eq!(by_name("file-lister").unwrap().spec().effect, Effect::Read.number());
    assert_eq!(by_name("file-writer").unwrap().spec().effect, Effect::Idempotent.number());
    assert!(by_name("file-eater").is_none());
}

#[test]
fn every_native_tool_can_be_bound_in_a_session() {
    let mut session = Session::open(&["fs:project/**#list,read?depth=2&exp=1800000000000000"]);
    for tool in registry() {
        let event = session.bind(tool.spec().decision(0).unwrap());
        assert_eq!(event.name(), "ToolBound", "{event:?}");
    }
}

type Change = fn(&mut ToolSpec);

#[test]
fn a_tool_spec_has_one_encoding() {
    let spec = by_name("file-lister").unwrap().spec().clone();
    let bytes = spec.encode().unwrap();
    let mut digests = vec![spec.digest().unwrap()];
    let changes: [Change; 8] = [
        |spec| spec.version.push('1'),
        |spec| spec.description.push('1'),
        |spec| spec.program = Digest([1; 32]),
        |spec| spec.needs.truncate(1),
        |spec| spec.effect = Effect::Once.number(),
        |spec| spec.parallel_safe = false,
        |spec| spec.params[0].required = true,
        |spec| spec.result.push('1'),
    ];
    for change in changes {
        let mut changed = spec.clone();
        change(&mut changed);
        digests.push(changed.digest().unwrap());
    }
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len(), "every field is pinned");

    for cut in 0..bytes.len() {
        assert!(ToolSpec::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(ToolSpec::decode(&[bytes.clone(), vec![0]].concat()), Err(ToolSpecError::Encoding));
    let mut named = bytes.clone();
    named[2] ^= 1; // the first letter of the first field name
    assert!(ToolSpec::decode(&named).is_err());
    let huge = vec![0; TOOL_SPEC_BYTES_MAX + 1];
    assert!(matches!(ToolSpec::decode(&huge), Err(ToolSpecError::TooLarge { .. })));
}

#[test]
fn a_tool_spec_outside_its_form_has_no_bytes() {
    let spec = by_name("file-lister").unwrap().spec().clone();
    let changes: [(&str, Change); 16] = [
        ("name", |spec| spec.name = "File".to_owned()),
        ("name", |spec| spec.name = "a..b".to_owned()),
        ("version", |spec| spec.version.clear()),
        ("description", |spec| spec.description = "a\nb".to_owned()),
        ("facts", |spec| spec.facts[0].kind = 9),
        ("facts", |spec| spec.facts[0].pointer = "path".to_owned()),
        ("facts", |spec| spec.facts.push(spec.facts[0].clone())),
        ("needs", |spec| spec.needs[1].when = Some("/path".to_owned())),
        ("effect", |spec| spec.effect = 0),
        ("reserve", |spec| spec.reserve.swap(0, 1)),
        ("reserve", |spec| spec.reserve[2].pointer = Some("/path".to_owned())),
        ("level", |spec| spec.level = 5),
        ("params", |spec| spec.params.reverse()),
        ("params", |spec| spec.params[0].name = "Path".to_owned()),
        ("params", |spec| spec.params[0].values = vec!["x".to_owned()]),
        ("params", |spec| drop(spec.facts.remove(0))),
    ];
    for (field, change) in changes {
        let mut changed = spec.clone();
        change(&mut changed);
        assert_eq!(changed.encode(), Err(ToolSpecError::Form { field }));
    }
    let mut changed = spec;
    changed.needs = vec![changed.needs[0].clone(); 20];
    changed.needs.iter_mut().for_each(|need| need.text = "x".repeat(1_000));
    assert!(changed.encode().is_ok());
    let large = changed.decision(0).unwrap_err();
    assert!(matches!(large, ToolSpecError::TooLarge { max: TOOL_BYTES_MAX, .. }), "{large}");
}
