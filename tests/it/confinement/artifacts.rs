//! Artifacts: what a program leaves is kept as the manifest says, and what it leaves to lead the collector astray is
//! listed and not kept.

use std::fs;

use serde_json::{Value, json};
use toka_runtime::sandbox::kept_files;

use super::{Called, Lab};

/// A tool that does what it is told, keeps these artifacts, and may have many files.
fn keeper(lab: &Lab, name: &str, artifacts: &str) {
    lab.write(&format!("{name}.py"), super::PROGRAM.replace("json.dump(found, sys.stdout)", ""));
    let spec = format!(
        "  run: {{ kind: python, path: {name}.py }}\n\
         \x20 params: [{{ name: code, type: string, required: true, max_len: 65536 }}]\n\
         \x20 outputs: {{ result: none, artifacts: [ {artifacts} ] }}\n\
         \x20 effect: idempotent\n\
         \x20 sandbox: {{ workspace: {{ inodes: 20000 }}, limits: {{ wall: 10s, grace: 100ms }} }}"
    );
    lab.manifest(name, &spec).expect(0);
}

fn call(lab: &Lab, tool: &str, code: &str) -> Called {
    lab.call_with(tool, &[&format!("code={}", json!(code))])
}

type Pairs = Vec<(String, String)>;

/// Names and contents of what was kept, and names and reasons of what was not.
fn collected(called: &Called) -> (Pairs, Pairs) {
    let kept = kept_files(&called.record).into_iter();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let dropped = called.record["dropped"].as_array().expect("a list").iter();
    (
        kept.map(|file| (text(&file.path), text(&file.bytes))).collect(),
        dropped.map(|item| (word(&item["path"]), word(&item["why"]))).collect(),
    )
}

fn pairs(list: &[(&str, &str)]) -> Pairs {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

const OUT: &str = "{ name: out, path: 'out/**', max_bytes: 1KiB, max_files: 20 }";

#[test]
fn what_leads_astray_is_listed_and_not_kept() {
    Lab::each(|lab| {
        keeper(lab, "keeper", OUT);
        let file = "open('out/a', 'w').write('fine')";
        for (attack, dropped, twin) in [
            ("os.symlink('/etc/shadow', 'out/x')", &[("out/x", "link")][..], "open('out/x', 'w').write('a')"),
            ("os.symlink('a', 'out/x')", &[("out/x", "link")], "open('out/x', 'w').write('a')"),
            ("os.symlink('/etc', 'out/x')", &[("out/x", "link")], "os.mkdir('out/x'); open('out/x/passwd', 'w')"),
            ("os.symlink('/proc/self/root', 'out/x')", &[("out/x", "link")], "os.mkdir('out/x')"),
            (
                "os.link('out/a', 'out/x')",
                &[("out/a", "several-names"), ("out/x", "several-names")],
                "import shutil; shutil.copy('out/a', 'out/x')",
            ),
            ("os.link('/tool/keeper.py', 'out/x')", &[], "open('out/x', 'w')"),
            (
                "open('out/x', 'w'); os.chmod('out/x', 0o4755)",
                &[("out/x", "set-id")],
                "open('out/x', 'w'); os.chmod('out/x', 0o755)",
            ),
            (
                "open('out/x', 'w'); os.chmod('out/x', 0o2755)",
                &[("out/x", "set-id")],
                "open('out/x', 'w'); os.chmod('out/x', 0o700)",
            ),
        ] {
            let begin = format!("os.mkdir('out')\n{file}\n");
            let called = call(lab, "keeper", &format!("{begin}tried(lambda: exec({attack:?}))"));
            called.ended("succeeded/0");
            let (kept, listed) = collected(&called);
            assert_eq!(listed, pairs(dropped), "{attack}");
            let hit = dropped.iter().any(|(path, _)| *path == "out/a");
            assert_eq!(kept, if hit { vec![] } else { pairs(&[("out/a", "fine")]) }, "{attack}");
            let called = call(lab, "keeper", &format!("{begin}{twin}"));
            called.ended("succeeded/0");
            let (kept, listed) = collected(&called);
            assert_eq!((kept.first(), listed), (pairs(&[("out/a", "fine")]).first(), vec![]), "{twin}");
        }
    });
}

#[test]
fn a_pipe_is_no_file() {
    Lab::each(|lab| {
        keeper(lab, "keeper", OUT);
        // Where the filter lets nobody make one there is none, else it is listed; nothing waits for its other end.
        let called =
            call(lab, "keeper", "os.mkdir('out'); tried(os.mkfifo, 'out/x'); open('out/a', 'w').write('fine')");
        let (kept, listed) = collected(called.ended("succeeded/0"));
        assert_eq!(kept, pairs(&[("out/a", "fine")]));
        assert!(listed.is_empty() || listed == pairs(&[("out/x", "not-regular")]), "{listed:?}");
    });
}

#[test]
fn a_link_in_the_place_of_the_folder_leads_nowhere() {
    Lab::each(|lab| {
        keeper(
            lab,
            "keeper",
            "{ name: out, path: 'out/*', max_bytes: 1KiB, max_files: 9 }, { name: one, path: 'etc/passwd', max_bytes: 1KiB }",
        );
        let called = call(lab, "keeper", "os.symlink('/etc', 'out'); os.symlink('/etc', 'etc')");
        let (kept, listed) = collected(called.ended("succeeded/0"));
        assert_eq!((kept, listed), (vec![], pairs(&[("etc", "link"), ("out", "link")])));
        let called = call(
            lab,
            "keeper",
            "os.mkdir('out'); os.mkdir('etc'); open('etc/passwd', 'w').write('mine'); open('out/b', 'w')",
        );
        let (kept, listed) = collected(called.ended("succeeded/0"));
        assert_eq!((kept, listed), (pairs(&[("etc/passwd", "mine"), ("out/b", "")]), vec![]));
    });
}

#[test]
fn names_are_bytes_and_come_in_their_order() {
    Lab::each(|lab| {
        keeper(lab, "keeper", OUT);
        let code = r#"
os.makedirs(b"out/a")
for name in (b"out/a.b", b"out/a/b", b"out/a-b", b"out/line\nend", b"out/\xff\xfe", b"out/*", b"out/\xc3\xa4"):
    open(name, "w").write("x")
"#;
        let called = call(lab, "keeper", code);
        called.ended("succeeded/0");
        let names: Vec<Vec<u8>> = kept_files(&called.record).into_iter().map(|file| file.path).collect();
        let expected: [&[u8]; 7] =
            [b"out/*", b"out/a-b", b"out/a.b", b"out/a/b", b"out/line\nend", b"out/\xc3\xa4", b"out/\xff\xfe"];
        assert_eq!(names, expected);
        // Written out they have the same names, and nothing that is there is replaced.
        let call = called.finished.call.to_string();
        let show = ["calls", "show", &called.session, &call, "--artifacts", "given"];
        let ran = lab.toka(&show);
        assert!(ran.expect(0).err.contains("kept out: out/line\\nend, 1 bytes\n"), "{ran}");
        assert_eq!(fs::read(lab.desk.at("given/out/out/line\nend")).expect("reads"), b"x");
        assert_eq!(fs::read_dir(lab.desk.at("given/out/out")).expect("lists").count(), 7);
        fs::write(lab.desk.at("given/out/out/*"), "changed").expect("writes");
        assert!(lab.toka(&show).expect(1).err.contains("nothing that is there is replaced"));
        assert_eq!(fs::read(lab.desk.at("given/out/out/*")).expect("reads"), b"changed");
        lab.verify();
    });
}

#[test]
fn more_than_was_said_ends_the_call_and_is_listed() {
    Lab::each(|lab| {
        keeper(
            lab,
            "keeper",
            "{ name: out, path: 'out/**', max_bytes: 1KiB, max_files: 3 }, { name: log, path: log, max_bytes: 10B }",
        );
        let some = |sizes: &str| {
            format!("os.mkdir('out')\nfor name, size in {sizes}.items(): open(name, 'w').write('x' * size)")
        };
        let deep =
            |depth: u32| format!("os.makedirs('out' + '/d' * {depth})\nopen('out' + '/d' * {depth} + '/f', 'w')");
        for (code, outcome, dropped) in [
            (some("{'out/a': 1024}"), "succeeded/0", &[][..]),
            (some("{'out/a': 1025, 'out/b': 1}"), "limit-exceeded/9", &[("out/a", "too-large")]),
            (some("{'out/a': 1000, 'out/b': 25}"), "limit-exceeded/9", &[("out/b", "too-large")]),
            (some("{'out/a': 0, 'out/b': 0, 'out/c': 0}"), "succeeded/0", &[]),
            (some("{'out/a': 0, 'out/b': 0, 'out/c': 0, 'out/d': 0}"), "limit-exceeded/9", &[("out/d", "too-many")]),
            (some("{'log': 10}"), "succeeded/0", &[]),
            (some("{'log': 11}"), "limit-exceeded/9", &[("log", "too-large")]),
            (deep(62), "succeeded/0", &[]),
            (
                "os.truncate(os.open('log', os.O_CREAT | os.O_RDWR), 1 << 25)".to_owned(),
                "limit-exceeded/9",
                &[("log", "too-large")],
            ),
        ] {
            let called = call(lab, "keeper", &code);
            assert_eq!(collected(called.ended(outcome)).1, pairs(dropped), "{code}");
        }
        let called = call(lab, "keeper", &deep(64));
        let (kept, listed) = collected(called.ended("succeeded/0"));
        assert_eq!((kept, listed.len(), listed[0].1.as_str()), (vec![], 1, "too-deep"));
        // So many names that nobody looks through them; and almost so many, of which none is asked for.
        keeper(lab, "narrow", "{ name: out, path: 'out/f*', max_bytes: 1KiB }");
        let crowd = |count: u32| {
            format!("os.mkdir('out')\nfor n in range({count}): open(f'out/{{n}}', 'w')\nopen('out/f', 'w')")
        };
        let called = call(lab, "narrow", &crowd(10_000));
        assert_eq!(collected(called.ended("limit-exceeded/9")), (vec![], pairs(&[(".", "too-many-entries")])));
        let called = call(lab, "narrow", &crowd(9_998));
        assert_eq!(collected(called.ended("succeeded/0")), (pairs(&[("out/f", "")]), vec![]));
    });
}

#[test]
fn files_are_kept_when_a_program_has_ended_of_itself() {
    Lab::each(|lab| {
        keeper(lab, "keeper", "{ name: log, path: '*.log', max_bytes: 1KiB, required: true }");
        let log = "open('a.log', 'w').write('so far')\n";
        let so_far = || pairs(&[("a.log", "so far")]);
        assert_eq!(collected(call(lab, "keeper", log).ended("succeeded/0")).0, so_far());
        assert_eq!(collected(call(lab, "keeper", &format!("{log}sys.exit(3)")).ended("failed/0 3")).0, so_far());
        let missing = call(lab, "keeper", "open('a.txt', 'w')");
        missing.ended("invalid-output/0 artifact-missing");
        assert_eq!(missing.detail(), "the artifact `log` must be there and is not");
        // What was not done in time is no result, and its reason comes first.
        let stopped = call(lab, "keeper", &format!("{log}time.sleep(60)"));
        assert_eq!(stopped.ended("timed-out/0").record["artifacts"], Value::Null);
        // Who goes on when the program has ended goes on for nobody.
        let swap = "
if os.fork() == 0:
    os.setsid()
    while True:
        os.symlink('/etc/passwd', 'b'); os.rename('b', 'a.log')
        open('b', 'w').write('so far'); os.rename('b', 'a.log')
";
        let swapped = call(lab, "keeper", &format!("{log}{swap}"));
        let word = swapped.outcome();
        match collected(&swapped) {
            (kept, listed) if word == "succeeded/0" => {
                assert!(kept.len() == 1 && listed.is_empty() && ["", "so far"].contains(&kept[0].1.as_str()))
            }
            (kept, listed) => assert_eq!(
                (kept, listed, word.as_str()),
                (vec![], pairs(&[("a.log", "link")]), "invalid-output/0 artifact-missing")
            ),
        }
    });
}

#[test]
fn kept_files_reach_whoever_called() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    keeper(&lab, "keeper", OUT);
    let code = format!("code={}", json!("os.makedirs('out/b'); open('out/b/c', 'w').write('text')"));
    let ran = lab.toka(&["tools", "call", "keeper", &code, "--artifacts", "given", "--json"]);
    let said: Value = serde_json::from_str(&ran.expect(0).out).expect("JSON");
    let digest = blake3::hash(b"text").to_hex().to_string();
    assert_eq!(
        said["record"]["artifacts"],
        json!([{ "artifact": "out", "path": "out/b/c", "bytes": 4, "blake3": digest }])
    );
    assert_eq!(fs::read(lab.desk.at("given/out/out/b/c")).expect("reads"), b"text");
    // What is there is not replaced, and what the call came to is told all the same.
    let ran = lab.toka(&["tools", "call", "keeper", &code, "--artifacts", "given", "--json"]);
    let said: Value = serde_json::from_str(&ran.expect(1).out).expect("JSON");
    assert_eq!(said["outcome"], "succeeded");
    assert!(ran.err.contains("the files of the call cannot be written below given"), "{ran}");
    let ran = lab.toka(&["tools", "call", "keeper", &code]);
    assert!(ran.expect(0).err.contains("kept out: out/b/c, 4 bytes\n"), "{ran}");
}
