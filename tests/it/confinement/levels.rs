//! Calls at level `landlock`, and calls whose workspace lies on a disk: what holds there, and that nothing stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use toka_kernel::tool::Level;
use toka_runtime::sandbox::kept_files;

use super::{Called, Lab, NEEDLE, alive, wait_until};

/// The two ways to a directory on a disk.
const WAYS: [(&str, Level, &str); 2] =
    [("landlock", Level::Landlock, "level: landlock"), ("disk", Level::Strong, "workspace: { kind: disk }")];

/// A tool that does what it is told, keeps what is in `out`, and is confined so.
fn tool(lab: &Lab, name: &str, access: &str, sandbox: &str) {
    lab.write(&format!("{name}.py"), super::PROGRAM);
    let spec = format!(
        "  run: {{ kind: python, path: {name}.py }}\n\
         \x20 params:\n\
         \x20   - {{ name: code, type: string, required: true, max_len: 65536 }}\n\
         \x20   - {{ name: path, type: path, required: true, access: [{access}] }}\n\
         \x20 outputs: {{ result: json, artifacts: [ {{ name: out, path: 'out/**', max_bytes: 1MiB, max_files: 9 }} ] }}\n\
         \x20 effect: idempotent\n\
         \x20 sandbox: {{ {sandbox} }}"
    );
    lab.manifest(name, &spec).expect(0);
}

/// A test for each user and each way. In the root of the machine a path is as open as its folders are.
fn each(test: impl Fn(&Lab, &str, Level, &str)) {
    Lab::each(|lab| {
        fs::set_permissions(lab.desk.at(""), fs::Permissions::from_mode(0o711)).expect("chmod");
        for (name, level, sandbox) in WAYS {
            println!("{name}");
            test(lab, name, level, sandbox);
        }
    });
}

fn call(lab: &Lab, tool: &str, level: Level, code: &str) -> Called {
    Called { level, ..lab.call(tool, code) }
}

/// What the program says of where it is; nothing of that is left.
fn is_gone(top: &Value) -> bool {
    let top = top.as_str().expect("a path");
    assert!(top.ends_with("/workspace"), "{top}");
    let top = top.trim_end_matches("/workspace");
    top.is_empty() || !Path::new(top).exists()
}

#[test]
fn a_program_finds_what_it_was_promised_and_leaves_nothing() {
    each(|lab, name, level, sandbox| {
        tool(lab, name, "list, read", sandbox);
        let code = r#"
os.mkdir("out")
open("out/a", "w").write("kept")
open(os.environ["TMPDIR"] + "/x", "w").write("x")
params = json.load(open(os.environ["TOKA_PARAMS"]))
deep = "d"
for _ in range(60):
    os.mkdir(deep); deep += "/d"
os.mkdir("closed"); open("closed/x", "w").close()
found = [open(arguments["path"] + "/guide.md").read(), os.listdir(arguments["path"]), params == arguments, os.getcwd() == os.environ["HOME"], os.getcwd()]
"#;
        let called = call(lab, name, level, code);
        let found = called.found();
        assert_eq!(
            found.as_array().expect("a list")[..4],
            [json!("hello\n"), json!(["guide.md"]), json!(true), json!(true)]
        );
        assert!(is_gone(&found[4]), "{found}");
        let kept = kept_files(&called.record);
        assert_eq!((kept.len(), kept[0].path.as_slice(), kept[0].bytes.as_slice()), (1, &b"out/a"[..], &b"kept"[..]));
        let sandbox = called.finished.sandbox.as_ref().expect("it ran");
        assert_eq!(sandbox.layers & 1 == 1, level == Level::Strong, "namespaces: {:b}", sandbox.layers);
        lab.verify();
    });
}

#[test]
fn what_a_call_was_not_admitted_for_stays_closed() {
    each(|lab, name, level, sandbox| {
        tool(lab, name, "list, read", sandbox);
        let (secret, store) = (lab.desk.text("project/secret.txt"), lab.desk.text("home/toka.sqlite"));
        let before = ["project", "other", ".ssh", "home/keys"].map(|folder| lab.shown(folder));
        let code = format!(
            r#"
paths = ["/etc/shadow", "/etc/hostname", "/root", {secret:?}, {store:?}, arguments["path"] + "/../secret.txt", "/proc/1/environ"]
os.mkdir("out")
os.symlink({secret:?}, "out/link")
ways = [lambda path: open(path).read(), lambda path: open(path, "a").write("x"), os.listdir, os.unlink, lambda path: os.link(path, "own")]
allowed = [[path, number] for path in paths + ["out/link"] for number, way in enumerate(ways)
           if not (path == "out/link" and number > 2) and tried(way, path) not in ("EACCES", "ENOENT", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "EXDEV")]
allowed += [name for name in ("guide.md", "new") if tried(lambda: open(arguments["path"] + "/" + name, "a")) not in ("EACCES", "EROFS")]
tool = os.path.dirname(sys.argv[0])
allowed += [name for name in ("new", "{name}.py") if tried(lambda: open(tool + "/" + name, "a")) not in ("EACCES", "EROFS", "EPERM")]
found = allowed
"#
        );
        let called = call(lab, name, level, &code);
        assert_eq!(*called.found(), json!([]));
        assert_eq!(called.record["dropped"], json!([{ "path": "out/link", "why": "link" }]));
        assert!(!called.record.to_string().contains(NEEDLE));
        assert_eq!(["project", "other", ".ssh", "home/keys"].map(|folder| lab.shown(folder)), before);
    });
}

#[test]
fn who_may_write_writes_there_and_nowhere_else() {
    each(|lab, name, level, sandbox| {
        tool(lab, name, "create, list, read, write", &format!("{sandbox}, fs: {{ deny_within: [] }}"));
        let code = r#"
open(arguments["path"] + "/new.md", "w").write("new")
found = tried(lambda: open(arguments["path"] + "/../beside.md", "w"))
"#;
        let called = call(lab, name, level, code);
        assert!(["EACCES", "EROFS", "ENOENT"].map(Value::from).contains(called.found()), "{}", called.result);
        assert_eq!(fs::read(lab.desk.at("project/docs/new.md")).expect("reads"), b"new");
        assert!(!lab.desk.at("project/beside.md").exists());
        fs::remove_file(lab.desk.at("project/docs/new.md")).expect("removes");
    });
}

#[test]
fn where_nothing_can_be_hidden_nothing_that_is_hidden_is_shown() {
    Lab::each(|lab| {
        fs::set_permissions(lab.desk.at(""), fs::Permissions::from_mode(0o711)).expect("chmod");
        tool(lab, "landlock", "list, read", "level: landlock");
        lab.write("project/docs/.env", NEEDLE);
        let called = call(lab, "landlock", Level::Landlock, "found = 1");
        called.ended("setup-failed/0 95 mask");
        assert!(called.detail().contains("nothing hides `.env` there"), "{}", called.detail());
        fs::remove_file(lab.desk.at("project/docs/.env")).expect("removes");
        assert_eq!(*call(lab, "landlock", Level::Landlock, "found = 1").found(), json!(1));
    });
}

#[test]
fn a_workspace_on_a_disk_has_its_bounds() {
    each(|lab, name, level, sandbox| {
        let kind = if level == Level::Strong { "kind: disk, " } else { "" };
        let sandbox =
            sandbox.replace(", workspace: { kind: disk }", "").replace("workspace: { kind: disk }", "level: strong");
        let bounds =
            format!("{sandbox}, workspace: {{ {kind}bytes: 2MiB, inodes: 64 }}, limits: {{ wall: 10s, grace: 100ms }}");
        tool(lab, name, "list, read", &bounds);
        let fill =
            |bytes: u32, then: &str| format!("open('large', 'wb').write(bytes(range(256)) * ({bytes} // 256))\n{then}");
        let crowd = |count: u32| format!("for n in range({count}): open(str(n), 'w').close()");
        let deep = "for _ in range(200):\n    os.mkdir('d'); os.chdir('d')\ntime.sleep(60)";
        for (code, outcome) in [
            (fill(16 << 20, "time.sleep(60)"), "limit-exceeded/6"),
            // Over at the end as well, whoever looked before.
            (fill(16 << 20, ""), "limit-exceeded/6"),
            (fill(1 << 20, ""), "succeeded/0"),
            (crowd(100), "limit-exceeded/6"),
            (crowd(50), "succeeded/0"),
            (deep.to_owned(), "limit-exceeded/6"),
        ] {
            let called = call(lab, name, level, &code);
            called.ended(outcome);
            let sandbox = called.finished.sandbox.as_ref().expect("it ran");
            assert!(sandbox.ended_us - sandbox.started_us < 8_000_000, "{code}");
        }
    });
}

#[test]
fn nobody_and_nothing_survives() {
    let daemons = r#"
for number in range(10):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", mark])
        os._exit(0)
    os.wait()
open("here", "w").close()
"#;
    each(|lab, name, level, sandbox| {
        tool(lab, name, "list, read", &format!("{sandbox}, limits: {{ wall: 3s, grace: 100ms }}"));
        for (then, outcome, number) in
            [("while True: time.sleep(1)", "timed-out/0", 1), ("found = os.getcwd()", "succeeded/0", 2)]
        {
            let mark = format!("5000.{number}{:08}{}", std::process::id(), u8::from(lab.user == 0));
            let called = call(lab, name, level, &format!("mark = '{mark}'\n{daemons}\n{then}"));
            called.ended(outcome);
            assert_eq!(alive(&mark), 0);
            assert!(called.result.is_null() || is_gone(&called.result), "{}", called.result);
        }
    });
}

#[test]
fn what_a_killed_node_left_on_a_disk_is_removed_by_the_next_call() {
    each(|lab, name, level, sandbox| {
        tool(lab, name, "list, read", sandbox);
        let mark = format!("6000.{:08}{}", std::process::id(), u8::from(lab.user == 0));
        let code = format!(
            "code={}",
            json!(format!("open('left-{mark}', 'w').close()\nos.execv('/bin/sleep', ['sleep', '{mark}'])"))
        );
        let mut run = lab.live(&Lab::call_args(name, &["path=project:docs", &code]));
        let left = || {
            let dirs = fs::read_dir("/var/tmp").expect("lists").flatten();
            dirs.filter(|dir| dir.path().join("workspace").join(format!("left-{mark}")).exists()).count()
        };
        // Seen while it is locked: once the node is gone, whoever comes next removes it, another test as well.
        wait_until("the program runs", || alive(&mark) > 0 && left() == 1);
        run.child.kill().expect("kills");
        run.child.wait().expect("ends");
        wait_until("the end of the program", || alive(&mark) == 0);
        call(lab, name, level, "found = 1").ended("succeeded/0");
        assert_eq!(left(), 0);
    });
}
