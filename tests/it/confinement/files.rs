//! Files: what a call was not admitted for is not there, and nothing outside changes.

use super::{Lab, NEEDLE};

/// Tries to look at each of `paths`, in several ways.
const LOOKS: &str = r#"
ways = {
    "read": lambda path: open(path, "rb").read(1).hex(),
    "list": os.listdir,
    "stat": lambda path: os.stat(path).st_mode,
    "open without reading": lambda path: os.open(path, os.O_PATH),
    "go there": os.chdir,
    "run": lambda path: os.execv(path, [path]),
}
found = sorted([tried(way, path), name, path] for path in paths for name, way in ways.items())
"#;

/// Looks for the needle in every file there is, and in what is told of every process.
const WALK: &str = r#"
needle = needle[::-1].encode()
seen, hits = [], []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("usr", "proc", "dev")]
    for name in names:
        path = os.path.join(folder, name)
        content = tried(lambda: open(path, "rb").read())
        seen.append(path)
        if isinstance(content, bytes) and needle in content:
            hits.append(path)
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "mountinfo"):
        content = tried(lambda: open(f"/proc/{pid}/{name}", "rb").read())
        seen.append(f"/proc/{name}")
        if isinstance(content, bytes) and needle in content:
            hits.append(f"/proc/{name}")
found = {"seen": seen, "hits": hits}
"#;

/// Tries to change each of `paths`, in every way.
const CHANGES: &str = r#"
ways = {
    "write": lambda path: open(path, "r+b").write(b"changed"),
    "append": lambda path: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"changed"),
    "cut": lambda path: os.truncate(path, 0),
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, path + "~"),
    "replace": lambda path: os.rename(own(), path),
    "mode": lambda path: os.chmod(path, 0o777),
    "owner": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "time": lambda path: os.utime(path, (1, 1)),
    "attribute": lambda path: os.setxattr(path, "user.x", b"x"),
    "create beside": lambda path: open(os.path.dirname(path) + "/new", "x"),
    "folder beside": lambda path: os.mkdir(os.path.dirname(path) + "/newer"),
    "link beside": lambda path: os.symlink("/", os.path.dirname(path) + "/newest"),
    "take": lambda path: os.link(path, "/workspace/taken"),
}

def own():
    open("/workspace/own", "w").close()
    return "/workspace/own"

refused = ("EROFS", "ENOENT", "EACCES", "EPERM", "EXDEV", "ENOTDIR")
found = sorted([name, path] for path in paths for name, way in ways.items() if tried(way, path) not in refused)
"#;

/// Paths of what lies outside, as a program may spell them.
fn outside(lab: &Lab) -> Vec<String> {
    let here = lab.desk.text("");
    let mut paths: Vec<String> = [
        "/etc/shadow",
        "/root",
        "/home",
        "/var",
        "/sys",
        "/roots/project/secret.txt",
        "/roots/project/../secret.txt",
        "/roots/project/docs/../secret.txt",
        "/roots//project/./docs/.././/secret.txt",
        "/roots/other/file.txt",
        "/roots/project/docs/link-to-file",
        "/roots/project/docs/link-to-folder",
        "/roots/project/docs/link-beside",
        "/proc/self/root/etc/shadow",
        "/proc/self/cwd/../../etc/shadow",
    ]
    .map(str::to_owned)
    .into();
    for below in ["", ".ssh/id_ed25519", "home", "home/toka.sqlite", "home/keys", "project", "project/docs/guide.md"] {
        paths.push(format!("{here}{below}"));
        paths.push(format!("/proc/self/root{here}{below}"));
    }
    paths
}

/// A lab with links to the outside and masked names among the documents.
fn prepare(lab: &Lab) {
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, lab.desk.at("project/docs").join(name)).expect("links");
    };
    link(&lab.desk.text("project/secret.txt"), "link-to-file");
    link(&lab.desk.text(".ssh"), "link-to-folder");
    link("../secret.txt", "link-beside");
    lab.write("project/docs/.env", NEEDLE);
    lab.write("project/docs/.git/config", NEEDLE);
    lab.tool("reader", "list, read", "");
    lab.tool("writer", "create, delete, list, read, write", "");
}

fn paths(paths: &[String]) -> String {
    format!("paths = {}\n", serde_json::to_string(paths).expect("JSON"))
}

#[test]
fn what_a_call_was_not_admitted_for_is_not_there() {
    Lab::each(|lab| {
        prepare(lab);
        let outside = outside(lab);
        for tool in ["reader", "writer"] {
            let called = lab.call(tool, &(paths(&outside) + LOOKS));
            let found = called.found().as_array().expect("a list");
            assert_eq!(found.len(), outside.len() * 6, "every way was tried");
            let there: Vec<_> = found.iter().filter(|one| one[0] != "ENOENT").collect();
            assert!(there.is_empty(), "{tool} finds {there:?}");
        }
        // What it was admitted for is there.
        let code = r#"found = [open("/roots/project/docs/guide.md").read(), os.listdir("/roots/project")]"#;
        assert_eq!(*lab.call("reader", code).found(), serde_json::json!(["hello\n", ["docs"]]));
    });
}

#[test]
fn nothing_of_the_outside_stands_in_any_file() {
    Lab::each(|lab| {
        prepare(lab);
        // Backwards, since a program sees its own arguments.
        let reversed: String = NEEDLE.chars().rev().collect();
        let code = format!("code={}", serde_json::Value::from(format!("needle = '{reversed}'\n{WALK}")));
        let args = Lab::call_args("reader", &["path=project:docs", &code]);
        let called = lab.called(lab.ran(&args, lab.command(&args).env("API_KEY", NEEDLE)));
        let seen = called.found()["seen"].as_array().expect("a list");
        assert!(seen.contains(&"/roots/project/docs/guide.md".into()) && seen.contains(&"/proc/environ".into()));
        assert_eq!(called.result["hits"], serde_json::json!([]));
        // The walk finds a needle where there is one.
        lab.write("project/docs/hay.txt", NEEDLE);
        let called = lab.called(lab.toka(&args));
        assert_eq!(called.found()["hits"], serde_json::json!(["/roots/project/docs/hay.txt"]));
    });
}

#[test]
fn nothing_outside_of_what_may_be_written_changes() {
    Lab::each(|lab| {
        prepare(lab);
        let mut others = outside(lab);
        others.retain(|path| !path.contains("link-"));
        others.extend(["/usr/bin/env", "/etc/passwd", "/run/params.json", "/bin/sh"].map(str::to_owned));
        // Nothing has to hold the place of a masked name, so that even times stay.
        lab.write("project/docs/.ssh/id", NEEDLE);
        lab.write("project/docs/.toka", NEEDLE);
        let folders = ["project", "other", ".ssh", "home/keys"];
        let before = folders.map(|folder| lab.shown(folder));
        let granted = ["/roots/project/docs/guide.md".to_owned(), "/roots/project/docs/.git/config".to_owned()];
        for (tool, also) in [("reader", granted.as_slice()), ("writer", &granted[1..])] {
            let own = format!("/tool/{tool}.py");
            let all = [others.as_slice(), also, &[own]].concat();
            let mut code = paths(&all) + CHANGES;
            if tool == "writer" {
                // Beside a masked name lies what is granted.
                code = code.replace("refused = (", "refused = (\"EEXIST\", ");
            }
            let called = lab.call(tool, &code);
            assert_eq!(*called.found(), serde_json::json!([]), "{tool} changes something");
            assert_eq!(folders.map(|folder| lab.shown(folder)), before, "{tool} changed the host");
        }
        // The granted folder can be written, by the tool that may.
        let code = r#"
open("/roots/project/docs/guide.md", "a").write("more\n")
open("/roots/project/docs/new.md", "x").write("new\n")
os.mkdir("/roots/project/docs/folder")
os.rename("/roots/project/docs/new.md", "/roots/project/docs/folder/new.md")
open("/workspace/own", "w").write("own")
"#;
        lab.call("writer", code).ended("succeeded/0");
        let read = |name: &str| std::fs::read_to_string(lab.desk.at(name)).expect("reads");
        assert_eq!(read("project/docs/guide.md"), "hello\nmore\n");
        assert_eq!(read("project/docs/folder/new.md"), "new\n");
    });
}

/// An agent that may read documents, and calls a tool on something else.
fn agent(path: &str) -> String {
    format!(
        "apiVersion: toka/v1\n\
         kind: Agent\n\
         metadata: {{ name: agent, version: 1.0.0 }}\n\
         spec:\n\
         \x20 tools: [ reader ]\n\
         \x20 capabilities: [ \"fs:project/docs/**#list,read\", \"tool:reader\" ]\n\
         \x20 program:\n\
         \x20   script:\n\
         \x20     steps:\n\
         \x20       - {{ id: read, call: {{ tool: reader, args: {{ path: \"{path}\", code: \"found = 1\" }} }} }}\n"
    )
}

#[test]
fn a_link_does_not_lead_a_call_out_of_its_grant() {
    Lab::each(|lab| {
        prepare(lab);
        lab.write("project/docs/part/a.md", "a");
        std::os::unix::fs::symlink("..", lab.desk.at("project/docs/up")).expect("links");
        std::os::unix::fs::symlink("part", lab.desk.at("project/docs/same")).expect("links");
        for (path, outcome) in [
            ("project:docs/up", "setup-failed/0 18 root"),
            ("project:docs/link-beside", "setup-failed/0 18 root"),
            ("project:docs/link-to-folder", "setup-failed/0 18 root"),
            ("project:docs/nothing", "setup-failed/0 2 root"),
            // Harmless: the folder itself, and a link that stays in the grant.
            ("project:docs/part", "succeeded/0"),
            ("project:docs/same", "succeeded/0"),
        ] {
            let end = lab.start(&[("agent.yaml", &agent(path))]).end();
            let finished = lab.finished(end["session"].as_str().expect("a session"));
            finished[0].ended(outcome);
            if outcome.contains(" 18 ") {
                assert!(finished[0].detail().contains("leads out of what is granted"), "{}", finished[0].record);
            }
            assert_eq!(end["completed"], outcome == "succeeded/0", "{path}");
        }
    });
}

#[test]
fn a_program_of_root_changes_nothing_that_is_roots() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::of(0);
    prepare(&lab);
    let code = r#"open("/roots/project/docs/new", "w"); found = os.getuid()"#;
    std::os::unix::fs::chown(lab.desk.at("project/docs"), Some(0), Some(0)).expect("chown");
    let refused = lab.call("writer", code);
    refused.ended("setup-failed/0 1 root-not-writable");
    assert!(refused.detail().contains("give the directory to another user"), "{}", refused.detail());
    assert!(!lab.desk.at("project/docs/new").exists());
    lab.own(&lab.desk.at("project/docs"));
    assert_eq!(*lab.call("writer", code).found(), serde_json::json!(1000));
    assert!(lab.desk.at("project/docs/new").exists());
}

/// Tries to make each of `names`, in every way there is.
const MAKES: &str = r#"
os.chdir("/roots/project/docs")
ways = {
    "folder": os.mkdir,
    "folders": lambda name: os.makedirs(name + "/hooks"),
    "file": lambda name: open(name, "x").close(),
    "file below": lambda name: open(name + "/config", "x").close(),
    "link": lambda name: os.symlink("/workspace", name),
    "hard link": lambda name: os.link("guide.md", name),
    "renamed file": lambda name: (open("own", "w").close(), os.rename("own", name)),
    "renamed folder": lambda name: (os.makedirs("owned", exist_ok=True), os.rename("owned", name)),
    "away": lambda name: os.rename(name, "gone"),
    "removed": os.rmdir,
    "mode": lambda name: os.chmod(name, 0o777),
}
refused = ("EEXIST", "EROFS", "EACCES", "EPERM", "EBUSY", "ENOENT", "EXDEV", "ENOTDIR", "EISDIR")
found = sorted([name, way] for name in names for way, act in ways.items() if tried(act, name) not in refused)
for left in ("own", "owned"):
    tried(os.remove if left == "own" else os.rmdir, left)
"#;

#[test]
fn a_masked_name_that_is_not_there_cannot_be_made() {
    Lab::each(|lab| {
        lab.tool("writer", "create, delete, list, read, write", "");
        let docs = lab.desk.at("project/docs");
        let there = |name: &str| std::fs::symlink_metadata(docs.join(name)).is_ok();
        let masked = [".git", ".env", ".ssh", ".toka"];
        let code = format!("names = {masked:?}\n{MAKES}");
        assert_eq!(*lab.call("writer", &code).found(), serde_json::json!([]));
        assert!(!masked.iter().any(|name| there(name)), "nothing is left of what held the place");
        // Other names can be made in all these ways, but for those that need something to be there.
        let called = lab.call("writer", &format!("names = ['.gitx']\n{MAKES}"));
        let made = called.found().as_array().expect("a list").len();
        assert!(made > 0, "{}", called.result);
        // A tool that hides nothing makes them.
        lab.tool("open", "create, delete, list, read, write", "fs: { deny_within: [] }");
        lab.call(
            "open",
            "os.makedirs('/roots/project/docs/.git/hooks'); open('/roots/project/docs/.env', 'x').write('x')",
        )
        .ended("succeeded/0");
        assert!(there(".git/hooks") && there(".env"));
        // And then they are hidden, and stay.
        let code = "found = [os.listdir('/roots/project/docs/.git'), open('/roots/project/docs/.env').read()]";
        assert_eq!(*lab.call("writer", code).found(), serde_json::json!([[], ""]));
        assert!(there(".git/hooks") && there(".env") && !there(".ssh"));
    });
}

#[test]
fn what_a_killed_node_left_to_hold_a_place_is_removed_by_the_next_call() {
    Lab::each(|lab| {
        lab.tool("writer", "create, delete, list, read, write", "");
        let left = lab.desk.at("project/docs/.git");
        let mut run = lab.live(&Lab::call_args("writer", &["path=project:docs", "code=\"wait_for('never')\""]));
        super::wait_until("something holds the place", || left.exists());
        run.child.kill().expect("kills");
        run.child.wait().expect("ends");
        assert!(left.exists(), "nobody was there to remove it");
        assert_eq!(*lab.call("writer", &format!("names = ['.git']\n{MAKES}")).found(), serde_json::json!([]));
        assert!(!left.exists());
        // What somebody else made meanwhile is theirs.
        lab.tool("waiter", "create, delete, list, read, write", "");
        let run = lab.live(&Lab::call_args("waiter", &["path=project:docs", "code=\"wait_for('go')\""]));
        super::wait_until("something holds the place", || left.exists());
        std::fs::write(left.join("mine"), "mine").expect("writes");
        lab.write("project/docs/go", "");
        assert_eq!(run.end()["outcome"], "succeeded");
        assert_eq!(std::fs::read(left.join("mine")).expect("reads"), b"mine");
    });
}
