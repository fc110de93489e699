//! Secrets: a program finds its value in a file, and nobody finds it afterwards, however the program said it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use super::{Called, Lab};

/// With a character that each kind of escaping changes.
const VALUE: &str = "pa+55/w\u{f6}rd \"c9e1\" ?>~";

/// Says the value in every form, byte by byte in one of them, to both streams and into a file.
const SAYS: &str = r#"
import base64, json, os, sys, urllib.parse
path = "/run/secrets/token" if os.path.exists("/run/secrets/token") else "/tool/value"
value = open(path, "rb").read().rstrip(b"\n")
text = value.decode()
forms = [value, value.hex().encode(), value.hex().upper().encode()]
for before in (b"", b"x", b"xy"):
    forms += [base64.b64encode(before + value + b"z"), base64.urlsafe_b64encode(before + value + b"z")]
quoted = [urllib.parse.quote(text), urllib.parse.quote(text, safe=""), urllib.parse.quote_plus(text)]
quoted += ["".join(f"%{byte:02x}" for byte in value), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]]
forms += [form.encode() for form in quoted]
everything = b"".join(b"<" + form + b">" + form + b"\n" for form in forms)
for byte in value:
    os.write(1, bytes([byte]))
for stream in (1, 2):
    os.write(stream, everything)
os.makedirs("/workspace/out")
open("/workspace/out/said", "wb").write(everything)
open("/workspace/out/" + value.hex(), "wb").write(b"named")
seen = [value in open(f"/proc/self/{name}", "rb").read() for name in ("environ", "cmdline")]
print("mode", oct(os.stat(path).st_mode & 0o777), "seen", seen, "uid", os.getuid())
"#;

/// What must be found nowhere. Made here another way than there.
fn forms() -> BTreeSet<Vec<u8>> {
    let value = VALUE.as_bytes();
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
    let json = json!(VALUE).to_string();
    let mut forms =
        vec![VALUE.to_owned(), hex.to_uppercase(), hex, percent.to_lowercase(), json[1..json.len() - 1].to_owned()];
    forms.extend(
        ["pa%2B55/w%C3%B6rd%20%22c9e1%22%20%3F%3E~", "pa%2B55%2Fw%C3%B6rd%20%22c9e1%22%20%3F%3E~"].map(str::to_owned),
    );
    forms.extend(["pa%2B55%2Fw%C3%B6rd+%22c9e1%22+%3F%3E~", "pa+55/w\\u00f6rd \\\"c9e1\\\" ?>~"].map(str::to_owned));
    for before in ["", "x", "xy"] {
        for engine in [&STANDARD, &URL_SAFE] {
            // Without what the bytes beside it have a part in.
            let whole = engine.encode(format!("{before}{VALUE}z"));
            forms.push(whole[4..whole.len() - 4].to_owned());
        }
    }
    forms.into_iter().map(String::into_bytes).collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut due) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = due.pop() {
        for entry in fs::read_dir(dir).expect("lists").map(|entry| entry.expect("entry")) {
            if entry.file_type().expect("a type").is_dir() { due.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// The forms that stand in a text. All of them are text themselves.
fn found_in(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let forms = forms().into_iter().map(|form| String::from_utf8_lossy(&form).into_owned());
    forms.filter(|form| text.contains(form.as_str())).collect()
}

fn manifest(lab: &Lab, name: &str, more: &str) {
    lab.write(&format!("{name}.py"), SAYS);
    let spec = format!(
        "  run: {{ kind: python, path: {name}.py, files: [value] }}\n\
         \x20 outputs: {{ result: text, artifacts: [ {{ name: out, path: 'out/**', max_bytes: 1MiB, max_files: 9 }} ] }}\n\
         \x20 effect: read\n\
         \x20 sandbox: {{ {more} }}"
    );
    lab.manifest(name, &spec).expect(0);
}

/// Says where values are.
fn declare(lab: &Lab, secrets: &Value) {
    let text = json!({ "schema": "toka-secrets/v1", "secrets": secrets }).to_string();
    private(lab, "home/secrets.json", text.as_bytes());
}

fn private(lab: &Lab, name: &str, text: &[u8]) {
    lab.write(name, text);
    fs::set_permissions(lab.desk.at(name), fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// Everything that is kept of a call and everything that is said of it.
fn traces(lab: &Lab, called: &Called, said: &str) -> Vec<(String, Vec<u8>)> {
    let session = called.session.as_str();
    let call = called.finished.call.to_string();
    let mut traces: Vec<(String, Vec<u8>)> = vec![("the terminal".to_owned(), said.as_bytes().to_vec())];
    lab.toka(&["sessions", "export", session, "-o", "export.tkb", "--force"]).expect(0);
    for verb in
        [&["calls", "show", session, &call, "--json"][..], &["calls", "show", session, &call, "--artifacts", "given"]]
    {
        let ran = lab.toka(verb);
        ran.expect(0);
        traces.push((verb.join(" "), format!("{}{}", ran.out, ran.err).into_bytes()));
    }
    for file in files_below(&lab.desk.at("home")).into_iter().chain(files_below(&lab.desk.at("given"))) {
        traces.push((file.display().to_string(), fs::read(&file).expect("reads")));
    }
    traces.push(("the export".to_owned(), fs::read(lab.desk.at("export.tkb")).expect("reads")));
    traces.push(("standard output".to_owned(), called.stdout.clone()));
    traces.push(("standard error".to_owned(), called.stderr.clone()));
    traces.push(("the record".to_owned(), called.record.to_string().into_bytes()));
    let files = toka_runtime::sandbox::kept_files(&called.record);
    traces.extend(files.into_iter().map(|file| ("a file".to_owned(), file.bytes)));
    fs::remove_dir_all(lab.desk.at("given")).expect("removes");
    traces
}

#[test]
fn a_secret_is_found_nowhere_however_it_was_said() {
    Lab::each(|lab| {
        private(lab, "vault/token", format!("{VALUE}\n").as_bytes());
        private(lab, "value", b"nothing is the same as it");
        declare(lab, &json!({ "the.token": format!("file:{}", lab.desk.text("vault/token")) }));
        manifest(lab, "says", "secrets: [ { name: token, handle: the.token, delivery: file } ]");
        let ran = lab.toka(&["tools", "call", "says", "--json"]);
        let said = format!("{}{}", ran.out, ran.err);
        let called = lab.called(ran);
        let result = called.found().as_str().expect("text").to_owned();
        assert!(result.ends_with("mode 0o400 seen [False, False] uid 1000\n"), "{result}");
        assert_eq!(result.matches("[secret]").count(), 1 + 2 * 15, "{result}");
        assert_eq!(called.record["artifacts"].as_array().map(Vec::len), Some(1), "{}", called.record);
        assert_eq!(called.record["dropped"], json!([{ "path": "out/[secret]", "why": "secret-in-name" }]));
        for (what, trace) in traces(lab, &called, &said) {
            assert_eq!(found_in(&trace), [""; 0], "in {what}");
        }
        lab.verify();
        // A program that was not handed it may say the same: the search finds things where they are.
        private(lab, "value", VALUE.as_bytes());
        manifest(lab, "twin", "");
        let ran = lab.toka(&["tools", "call", "twin", "--json"]);
        let said = format!("{}{}", ran.out, ran.err);
        let called = lab.called(ran);
        called.ended("succeeded/0");
        assert_eq!(called.record["dropped"], json!([]));
        let all: Vec<String> = forms().iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect();
        let found: Vec<_> =
            traces(lab, &called, &said).into_iter().filter(|(_, trace)| found_in(trace) == all).collect();
        let names: Vec<&str> = found.iter().map(|(what, _)| what.as_str()).collect();
        for name in ["standard output", "standard error", "the export", "a file"] {
            assert!(names.contains(&name), "{names:?}");
        }
    });
}

#[test]
fn a_secret_from_the_environment_is_handed_over_and_no_other_variable() {
    Lab::each(|lab| {
        private(lab, "value", b"x");
        declare(lab, &json!({ "the.token": "env:A_TOKEN" }));
        manifest(lab, "says", "secrets: [ { name: token, handle: the.token } ]");
        let args = ["tools", "call", "says", "--json"];
        let called = lab.called(lab.ran(&args, lab.command(&args).env("A_TOKEN", VALUE)));
        assert!(called.found().as_str().expect("text").contains("[secret]"));
        assert_eq!(found_in(&called.stdout), [""; 0]);
        lab.called(lab.toka(&args)).ended("setup-failed/0 13 secret-unreadable");
    });
}

#[test]
fn a_secret_that_could_not_be_kept_is_not_handed_over() {
    Lab::each(|lab| {
        private(lab, "value", b"x");
        private(lab, "vault/short", b"1234567\n");
        private(lab, "vault/fine", b"12345678\n");
        private(lab, "vault/long", "x".repeat(4_097).as_bytes());
        private(lab, "vault/bytes", b"\0\x01\x02\x03\x04\x05\x06\x07\x08");
        lab.write("vault/open", VALUE);
        fs::set_permissions(lab.desk.at("vault/open"), fs::Permissions::from_mode(0o640)).expect("chmod");
        symlink("fine", lab.desk.at("vault/link")).expect("links");
        manifest(lab, "says", "secrets: [ { name: token, handle: the.token } ]");
        let file = |name: &str| json!({ "the.token": format!("file:{}", lab.desk.text(&format!("vault/{name}"))) });
        for (secrets, outcome) in [
            (json!({}), "setup-failed/0 13 secret-undeclared"),
            (json!({ "the.token": VALUE }), "setup-failed/0 13 secret-literal"),
            (json!({ "the.token": "file:relative" }), "setup-failed/0 13 secret-literal"),
            (json!({ "the.token": [VALUE] }), "setup-failed/0 13 secret-declarations"),
            (file("nothing"), "setup-failed/0 13 secret-unreadable"),
            (file("link"), "setup-failed/0 13 secret-unreadable"),
            (file("open"), "setup-failed/0 13 secret-exposed"),
            (file("short"), "setup-failed/0 13 secret-too-short"),
            (file("long"), "setup-failed/0 13 secret-too-long"),
            (file("bytes"), "setup-failed/0 13 secret-not-text"),
            (file("fine"), "succeeded/0"),
        ] {
            declare(lab, &secrets);
            let ran = lab.toka(&["tools", "call", "says", "--json"]);
            let said = format!("{}{}", ran.out, ran.err);
            let called = lab.called(ran);
            called.ended(outcome);
            assert_eq!(found_in(said.as_bytes()), [""; 0], "{outcome}");
            assert_eq!(found_in(called.record.to_string().as_bytes()), [""; 0], "{outcome}");
        }
        // Others must not learn either where values are.
        fs::set_permissions(lab.desk.at("home/secrets.json"), fs::Permissions::from_mode(0o644)).expect("chmod");
        lab.called(lab.toka(&["tools", "call", "says", "--json"])).ended("setup-failed/0 13 secret-declarations");
    });
}

#[test]
fn an_operator_sees_which_secrets_a_tool_is_handed() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    private(&lab, "value", b"x");
    manifest(&lab, "says", "secrets: [ { name: token, handle: the.token } ]");
    let shown = lab.toka(&["tools", "show", "says"]);
    assert!(shown.expect(0).out.contains("  secret  the.token at /run/secrets/token\n"), "{shown}");
    assert_eq!(lab.document(&["tools", "show", "says", "--json"])["secrets"], json!(["the.token"]));
}
