//! Code that comes with the call, through the shipped binaries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use toka_kernel::{Ask, Body, Code};

use super::guests::{ECHO, module};
use super::{Called, Lab, NEEDLE};

impl Lab {
    /// Calls `code.LANGUAGE` with these arguments.
    fn code(&self, language: &str, arguments: &Value) -> Called {
        self.write("arguments.json", arguments.to_string());
        let tool = format!("code.{language}");
        let args = ["tools", "call", &tool, "--args-file", "arguments.json", "--root", "project=project", "--json"];
        self.called(self.toka(&args))
    }

    fn python(&self, source: &str) -> Called {
        self.code("python", &json!({ "source": source }))
    }
}

fn here() -> Lab {
    Lab::of(rustix::process::geteuid().as_raw())
}

#[test]
fn code_runs_and_the_record_names_its_digest() {
    Lab::each(|lab| {
        let echo = STANDARD.encode(module(ECHO));
        let show = "import sys; print(sys.argv[1:], sys.stdin.read())";
        let shell = "printf '%s,' \"$@\"; cat";
        for (language, source, result) in [
            ("python", show, "['-v', 'b c'] typed\n"),
            ("shell", shell, "-v,b c,typed"),
            ("wasm", echo.as_str(), "typed"),
        ] {
            let called = lab.code(language, &json!({ "source": source, "args": ["-v", "b c"], "stdin": "typed" }));
            assert_eq!(*called.found(), json!(result), "{language}");
            let bytes = if language == "wasm" { module(ECHO) } else { source.as_bytes().to_vec() };
            let known = json!({ "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().to_string() });
            assert_eq!(called.record["source"], known, "{language}");
            assert_eq!(called.finished.wasm.is_some(), language == "wasm");
        }
        lab.verify();
    });
}

#[test]
fn code_ends_as_it_ends() {
    let lab = here();
    for (source, outcome) in [
        ("print(1)", "succeeded/0"),
        ("raise SystemExit(3)", "failed/0 3"),
        ("import", "failed/0 1"),
        ("import os; os.kill(os.getpid(), 11)", "signalled/0 11"),
        ("import os; os.write(1, b'\\xff')", "invalid-output/0 not-utf8"),
        ("while True: print('x' * 65536)", "limit-exceeded/5"),
    ] {
        assert_eq!(lab.python(source).outcome(), outcome, "{source}");
    }
    lab.code("wasm", &json!({ "source": STANDARD.encode(module("unreachable")) })).ended("trapped/0 unreachable");
}

#[test]
fn code_reaches_nothing_outside_of_its_jail() {
    Lab::each(|lab| {
        let before = lab.shown("project");
        // Each line tries something, and says what the system says.
        let tries = r#"
import errno, glob, os, socket
def tried(act, *args):
    try:
        return str(act(*args))
    except OSError as error:
        return errno.errorcode[error.errno]
project, home, key = PATHS
print(tried(open, project))
print(tried(open, home))
print(tried(open, key))
print(tried(os.listdir, "/roots"))
print(tried(open, "/etc/shadow"))
print(tried(open, "/usr/x", "w"))
print(tried(open, "/tool/main.py", "w"))
print(tried(socket.socket))
print(tried(os.kill, -1, 0) in ("None", "ESRCH", "EPERM"))
print(sorted(name for name in os.environ if not name.startswith("TOKA_")))
print(len(glob.glob("/proc/[0-9]*")) < 8)
open("/workspace/x", "w").write("fine")
print(open("/workspace/x").read())
"#;
        let paths = ["project/secret.txt", "home/toka.sqlite", ".ssh/id_ed25519"].map(|name| lab.desk.at(name));
        let called = lab.python(&tries.replace("PATHS", &format!("{:?}", paths)));
        let expected = "ENOENT\nENOENT\nENOENT\nENOENT\nENOENT\nEROFS\nEROFS\nEPERM\nTrue\n\
                        ['HOME', 'LANG', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED', 'TMPDIR', 'TZ']\nTrue\nfine\n";
        assert_eq!(called.found().as_str(), Some(expected));
        assert!(!called.told.contains(NEEDLE));
        assert_eq!(lab.shown("project"), before);
    });
}

/// An agent that is offered every tool, holds these capabilities, and takes these steps.
fn agent(tools: &str, capabilities: &str, steps: &str) -> String {
    format!(
        "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: agent, version: 1.0.0 }}\nspec:\n  tools: [ {tools} ]\n  \
         capabilities: [ {capabilities} ]\n  program:\n    script:\n      steps:\n{steps}"
    )
}

/// The codes of what was refused in the session of an agent, each with the rule where there is one.
fn refused(lab: &Lab, text: &str) -> Vec<(String, String)> {
    let mut run = lab.start(&[("agent.yaml", text)]);
    let mut last = Value::Null;
    while let Some(line) = run.line() {
        last = line;
    }
    run.child.wait().expect("ends");
    let session = last["session"].as_str().unwrap_or_else(|| panic!("{last}")).to_owned();
    let mut refusals = Vec::new();
    for (entry, event) in lab.events(&session) {
        let Body::Refused(refused, ask) = &event.body else { continue };
        assert!(matches!(**ask, Ask::Call(_)), "{event:?}");
        let reference = refused.detail.and_then(|index| event.blobs.get(usize::from(index)));
        let detail = reference.map(|reference| {
            let blob = toka_store::ReadLog::blob(&lab.store(), entry.session(), reference.commitment);
            super::json(&blob.expect("it reads").expect("it is there").bytes)
        });
        let rule = detail.map(|detail| detail["rule"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
        let code = Code::from_number(refused.code).expect("a code").name().to_owned();
        refusals.push((code, rule));
    }
    refusals
}

#[test]
fn code_takes_the_tool_in_the_grants_of_its_agent() {
    let lab = here();
    let step = "        - { id: one, code: { language: python, source: \"print(1)\" }, on_error: continue }\n";
    let codes = |tools, capabilities| {
        let refusals = refused(&lab, &agent(tools, capabilities, step));
        refusals.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    assert_eq!(codes("code.python", "\"tool:code.python\""), [""; 0]);
    assert_eq!(codes("code.python", "\"tool:code.*\""), [""; 0]);
    assert_eq!(codes("code.python", "\"tool:code.shell\""), ["OUT_OF_SCOPE"]);
    assert_eq!(codes("code.python", ""), ["NO_GRANT"]);
}

#[test]
fn a_type_that_is_not_run_is_refused_by_its_code() {
    let lab = here();
    let call = |tool: &str, source: &str| {
        let call = json!({ "tool": tool, "args": { "source": source } });
        let steps = format!("        - {{ id: one, call: {call}, on_error: continue }}\n");
        refused(&lab, &agent("\"*\"", "\"tool:*\"", &steps))
    };
    let unsupported = "UNSUPPORTED_CODE_TYPE".to_owned();
    for tool in ["code.ruby", "code.javascript", "code.python.x"] {
        let refusals = call(tool, "1");
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].0, unsupported);
        assert!(refusals[0].1.contains("python, shell, wasm"), "{refusals:?}");
    }
    let text = call("code.wasm", "(module (func (export \"_start\")))");
    assert_eq!((&text[0].0, text.len()), (&unsupported, 1));
    assert!(text[0].1.contains("only binary modules"), "{text:?}");
    let elf = call("code.wasm", &STANDARD.encode("\x7fELF"));
    assert_eq!(elf[0].0, unsupported);
    assert_eq!(call("code.wasm", "no base64!")[0].0, "BAD_ARGUMENTS");
    let told = lab.toka(&["tools", "call", "code.ruby", "source=1"]);
    told.expect(2);
    assert!(told.err.contains("UNSUPPORTED_CODE_TYPE") && told.err.contains("python, shell, wasm"), "{told}");
    // At a terminal the rule is told as well.
    let told = lab.toka(&["tools", "call", "code.wasm", "source=(module)"]);
    told.expect(5);
    assert!(told.err.contains("UNSUPPORTED_CODE_TYPE") && told.err.contains("only binary modules"), "{told}");
}

#[test]
fn a_step_of_code_is_a_call_and_leaves_its_output() {
    let lab = here();
    let steps = "        - { id: made, code: { language: python, source: \"print('made here', end='')\" } }\n        \
                 - { id: shown, code: { language: shell, source: \"cat; echo \\\" $1\\\"\", args: [ \"$(id)\" ], stdin: { ref: steps.made.output } } }\n";
    let mut run = lab.start(&[("agent.yaml", &agent("code.python, code.shell", "\"tool:code.*\"", steps))]);
    let mut last = Value::Null;
    while let Some(line) = run.line() {
        last = line;
    }
    run.child.wait().expect("ends");
    let finished = lab.finished(last["session"].as_str().expect("a session"));
    assert_eq!(*finished[0].found(), json!("made here"));
    assert_eq!(*finished[1].found(), json!("made here $(id)\n"), "no shell reads an argument");
    lab.verify();
}
