//! How calls end, what the record says of it, and what a program is given.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::{Lab, NEEDLE};

#[test]
fn a_call_ends_as_its_program_does() {
    let mut rows: Vec<(String, String)> = [1, 2, 3, 125, 126, 127, 128, 137, 255]
        .map(|code| (format!("sys.exit({code})"), format!("failed/0 {code}")))
        .into();
    rows.extend(
        [1, 6, 9, 11, 15, 24]
            .map(|signal| (format!("os.kill(os.getpid(), {signal})"), format!("signalled/0 {signal}"))),
    );
    for (code, outcome) in [
        ("import ctypes; ctypes.string_at(0)", "signalled/0 11"),
        ("os._exit(0)", "invalid-output/0 not-json"),
        ("open('/workspace/x', 'w').truncate(2 << 20)", "failed/0 1"),
        (
            "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('/workspace/x', 'w').truncate(2 << 20)",
            "limit-exceeded/4",
        ),
        ("open('/workspace/x', 'w').truncate(1 << 20)", "succeeded/0"),
        ("sys.stdout.write('{'); sys.stdout.flush(); os._exit(0)", "invalid-output/0 not-json"),
        ("print('{} {}'); sys.stdout.flush(); os._exit(0)", "invalid-output/0 not-json"),
        ("print('NaN'); sys.stdout.flush(); os._exit(0)", "invalid-output/0 not-json"),
        ("print('{\"a\": 1, \"a\": 2}'); sys.stdout.flush(); os._exit(0)", "invalid-output/0 not-json"),
        ("os.write(1, b'\"\\xff\"'); os._exit(0)", "invalid-output/0 not-utf8"),
        ("found = 'x' * 70000", "invalid-output/0 too-long"),
        ("found = 'x' * 60000", "succeeded/0"),
        ("found = {'a': [1, None, True, 'ü']}", "succeeded/0"),
        ("os.close(0); os.close(1); os.close(2); os._exit(3)", "failed/0 3"),
        // What the system refuses is the program's to deal with.
        ("found = tried(os.mknod, '/workspace/x', 0o600 | 0o020000, 1 << 8 | 3)", "succeeded/0"),
    ] {
        rows.push((code.to_owned(), outcome.to_owned()));
    }
    if cfg!(target_arch = "x86_64") {
        // `mov eax, 20; int 0x80; ret`: a call by the system's other door.
        let code = "import ctypes, mmap\n\
                    page = mmap.mmap(-1, 4096, prot=7)\n\
                    page.write(bytes.fromhex('b814000000cd80c3'))\n\
                    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()";
        rows.push((code.to_owned(), "signalled/1 31".to_owned()));
    }
    Lab::each(|lab| {
        lab.tool("program", "list, read", "limits: { stdout_bytes: 64KiB, file_size: 1MiB, wall: 10s }");
        for (code, outcome) in &rows {
            let called = lab.call("program", code);
            assert_eq!(&called.outcome(), outcome, "{code}\n{}", called.told);
            assert!(called.finished.sandbox.is_some(), "{code} ran");
            assert_eq!(called.exit, Some(i32::from(outcome != "succeeded/0")), "{code}");
        }
    });
}

#[test]
fn a_program_is_given_its_arguments_and_nothing_else() {
    Lab::each(|lab| {
        lab.tool("program", "list, read", "env: { LEVEL: high }");
        let code = format!(
            "code={}",
            json!(
                "found = [sorted(os.listdir('/proc/self/fd')), dict(os.environ), os.umask(0), os.getcwd(), \
                 open('/proc/1/environ').read() if os.access('/proc/1/environ', os.R_OK) else '', \
                 json.load(open('/run/params.json')) == arguments, sorted(arguments), arguments['path'], \
                 os.getuid(), tried(open, '/dev/tty')]"
            )
        );
        // A supervisor that was itself given descriptors and variables that it does not know of.
        lab.write("key", NEEDLE);
        let args = Lab::call_args("program", &["path=project:docs", &code]);
        let toka = lab.command(&args);
        let mut shell = lab.command(&[]);
        shell = {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", "exec 3<key 4<key 5<key 6<key 7<key 8<key 9<key; exec \"$@\"", "sh"]);
            command.arg(toka.get_program()).args(toka.get_args());
            command.current_dir(lab.desk.at("")).env_clear();
            command.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
            lab.become_user(&mut command);
            command
        };
        for name in
            ["API_KEY", "TOKA_PASSPHRASE", "PYTHONSTARTUP", "PYTHONPATH", "BASH_ENV", "GIT_DIR", "LD_LIBRARY_PATH"]
        {
            shell.env(name, NEEDLE);
        }
        let called = lab.called(lab.ran(&args, &mut shell));
        let mut found = called.found().clone();
        let environment = found[1].as_object_mut().expect("an environment");
        let call = called.finished.call.to_string();
        assert_eq!(environment.remove("TOKA_CALL_ID"), Some(json!(call)));
        for name in ["TOKA_SESSION", "TOKA_TIME_US"] {
            assert!(environment.remove(name).is_some_and(|value| value != ""), "{name}");
        }
        assert_eq!(
            found,
            json!([
                ["0", "1", "2", "3"],
                {
                    "HOME": "/workspace", "LANG": "C.UTF-8", "LEVEL": "high", "PATH": "/usr/bin:/bin",
                    "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "TMPDIR": "/tmp",
                    "TOKA_PARAMS": "/run/params.json", "TZ": "UTC",
                },
                0o77, "/workspace", "", true, ["code", "path"], "/roots/project/docs", 1000, "ENOENT",
            ])
        );
    });
}

#[test]
fn what_would_change_the_code_that_runs_is_refused() {
    Lab::each(|lab| {
        lab.write("program.py", super::PROGRAM);
        for name in ["LD_PRELOAD", "LD_AUDIT", "PYTHONSTARTUP", "PYTHONPATH", "TOKA_CALL_ID", "GIT_DIR", "PATH", "HOME"]
        {
            let spec = format!("  run: {{ kind: python, path: program.py }}\n  sandbox: {{ env: {{ {name}: /x }} }}");
            let ran = lab.manifest("program", &spec);
            assert!(ran.expect(1).err.contains("TOKA-1092"), "{name}: {ran}");
        }
        let spec = "  run: { kind: python, path: program.py }\n  sandbox: { env: { NAME: /x } }";
        lab.manifest("program", spec).expect(0);
    });
}

/// A tool that is started as itself, from this file.
fn executable(lab: &Lab, name: &str, content: &[u8]) {
    lab.write(name, content);
    let spec = format!("  run: {{ kind: executable, path: {name} }}\n  effect: read");
    lab.manifest(name, &spec).expect(0);
}

#[test]
fn a_program_that_cannot_be_started_says_why() {
    Lab::each(|lab| {
        for (name, content, outcome, words) in [
            ("works", "#!/bin/sh\necho worked\n", "succeeded/0", ""),
            ("lost", "#!/opt/none/python9\n", "start-failed/0 2 exec", "the interpreter that its first line names"),
            ("text", "just words\n", "start-failed/0 8 exec", "its first line names no interpreter"),
            ("folder", "#!/usr\n", "start-failed/0 13 exec", "Permission denied"),
        ] {
            executable(lab, name, content.as_bytes());
            let called = lab.call_with(name, &[]);
            called.ended(outcome);
            assert!(called.detail().contains(words), "{name}: {}", called.record);
            // Nothing is wrong with this machine.
            assert_eq!(called.exit, Some(i32::from(!words.is_empty())), "{name}: {}", called.told);
        }
    });
}

#[test]
fn what_runs_is_what_was_approved() {
    type Change = fn(&Lab);
    let changes: [(&str, Change, &str); 5] = [
        ("gone", |lab| fs::remove_file(lab.desk.at("gone.py")).expect("removes"), "start-failed/0 no-program"),
        (
            "linked",
            |lab| {
                fs::rename(lab.desk.at("linked.py"), lab.desk.at("moved.py")).expect("renames");
                symlink("moved.py", lab.desk.at("linked.py")).expect("links");
            },
            "start-failed/0 unreadable-program",
        ),
        (
            "folder",
            |lab| {
                fs::remove_file(lab.desk.at("folder.py")).expect("removes");
                fs::create_dir(lab.desk.at("folder.py")).expect("creates");
            },
            "start-failed/0 unreadable-program",
        ),
        (
            "closed",
            |lab| {
                let nothing = fs::Permissions::from_mode(0o000);
                fs::set_permissions(lab.desk.at("closed.py"), nothing).expect("permits");
            },
            "start-failed/0 unreadable-program",
        ),
        ("edited", |lab| lab.write("edited.py", super::PROGRAM.to_owned() + "# one more line\n"), "pin-mismatch/0"),
    ];
    Lab::each(|lab| {
        for (name, change, outcome) in changes {
            lab.tool(name, "list, read", "");
            assert_eq!(*lab.call(name, "found = 1").found(), 1);
            change(lab);
            let called = lab.call(name, "found = 2");
            if name == "closed" && lab.user == 0 {
                // Nothing is closed to root.
                called.ended("succeeded/0");
            } else {
                called.ended(outcome);
                assert!(called.finished.sandbox.is_none() && called.result.is_null(), "nothing ran");
                assert!(!called.detail().is_empty(), "{}", called.record);
            }
        }
        // Drift is remembered, and only an approval of what is there now ends it.
        let args = Lab::call_args("edited", &["path=project:docs", "code=\"found = 3\""]);
        let state = || lab.document(&["tools", "show", "edited", "--json"])["state"].clone();
        assert_eq!(state(), "quarantined");
        let refused = lab.toka(&args);
        assert!(refused.expect(5).err.contains("quarantined"), "{refused}");
        lab.toka(&["tools", "register", "edited.tool.yaml", "--approve"]).expect(0);
        assert_eq!(state(), "approved");
        assert_eq!(*lab.called(lab.toka(&args)).found(), 3);
        lab.verify();
    });
}

#[test]
fn arguments_arrive_whole_or_not_at_all() {
    Lab::each(|lab| {
        lab.tool("program", "list, read", "");
        lab.write("echo.sh", "printf '%s' \"$2\" | wc -c\n");
        let spec = "  run: { kind: shell, path: echo.sh }\n\
                    \x20 params: [{ name: text, type: string, required: true, max_len: 1048576 }]\n\
                    \x20 pass: { argv: [{ const: -- }, { param: text }] }\n\
                    \x20 effect: read";
        lab.manifest("echo", spec).expect(0);
        for (length, fits) in [(10, true), (100_000, true), (131_000, true), (131_072, false), (200_000, false)] {
            // In an agent file, since no command line of ours takes so much.
            let step = format!("{{ id: call, call: {{ tool: echo, args: {{ text: {} }} }} }}", "x".repeat(length));
            lab.write("agent.yaml", crate::cli::agents::agent("echo", "\"tool:echo\"", "", &step));
            let end = lab.live(&["run", "agent.yaml", "--grant-requested", "--json"]).end();
            let finished = lab.finished(end["session"].as_str().expect("a session"));
            if fits {
                assert_eq!(*finished[0].found(), format!("{length}\n"));
            } else {
                assert!(finished.is_empty(), "{length}: nothing began");
                assert_eq!(end["why"]["detail"], "the call of `echo` was refused: BAD_ARGUMENTS");
            }
        }
        // Names of files may be anything.
        let names = ["a\nb", "-rf", " ", "ü\u{202e}", "$(id)"];
        names.iter().for_each(|name| lab.write(&format!("project/docs/part/{name}"), *name));
        let code = "found = {name: open('/roots/project/docs/part/' + name).read() for name in os.listdir('/roots/project/docs/part')}";
        let called = lab.call("program", code);
        for name in names {
            assert_eq!(called.found()[name], name);
        }
        // No argument holds a NUL.
        let ran = lab.toka(&Lab::call_args("program", &["path=project:docs", r#"code="a\u0000b""#]));
        assert!(!ran.out.contains("succeeded"), "{ran}");
    });
}
