//! What arguments can be, and what a program sees of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use toka_kernel::denial::Code;
use toka_kernel::ids::{CallId, SessionId};
use toka_kernel::tool::{FIXED_ENV, ToolSpec};
use toka_tools::{ArgumentError, CallNames, Invocation, Rule, invocation, prepare};

use crate::good;

const NAMES: CallNames =
    CallNames { call: CallId([7; 32]), session: SessionId([9; 32]), time_us: 1_700_000_000_000_000 };

/// A tool with a parameter of every type that can be passed.
fn tool(pass: &str) -> ToolSpec {
    let params = "  params:
    - { name: text, type: string, required: true, max_len: 1048576 }
    - { name: word, type: enum, values: [ one, -two ] }
    - { name: number, type: integer, default: 3 }
    - { name: flag, type: boolean }
    - { name: path, type: path, required: true, access: [read] }
    - { name: host, type: host }
    - { name: list, type: array, items: { type: string } }
    - { name: json, type: json }";
    good(&format!("  run: {{ kind: executable, path: /usr/bin/tool }}\n{params}\n  pass: {pass}")).spec
}

fn started(spec: &ToolSpec, arguments: &Value) -> Result<Invocation, ArgumentError> {
    let prepared = prepare(spec, &arguments.to_string())?;
    invocation(spec, &prepared.arguments, &NAMES)
}

/// The rule that arguments break, and where.
fn broken(spec: &ToolSpec, arguments: &Value) -> (String, Rule) {
    let error = started(spec, arguments).expect_err("they do not fit");
    (error.pointer, error.rule)
}

#[test]
fn every_item_gives_whole_entries() {
    let spec = tool(
        "{ argv: [ { const: go }, { flag: -v, when: flag }, { flag: --word, param: word, join: true }, \
         { flag: -n, param: number }, { param: path }, { const: -- }, { param: text }, { rest: list } ] }",
    );
    let arguments = json!({
        "text": "-a b; $(c)\n", "word": "-two", "flag": true, "path": "project:d/e f", "list": ["-x", ""], "host": "A.example."
    });
    let started = started(&spec, &arguments).expect("they fit");
    let argv =
        ["/tool/tool", "go", "-v", "--word=-two", "-n", "3", "/roots/project/d/e f", "--", "-a b; $(c)\n", "-x", ""];
    assert_eq!(started.argv, argv);
    assert_eq!((started.toolchain, started.stdin), (None, Vec::new()));
    let seen = [
        r#"{"flag":true,"host":"a.example","list":["-x",""],"number":3,"#,
        r#""path":"/roots/project/d/e f","text":"-a b; $(c)\n","word":"-two"}"#,
    ];
    assert_eq!(String::from_utf8(started.params_json).expect("UTF-8"), seen.concat());
}

#[test]
fn what_is_absent_leaves_nothing_behind() {
    let spec = tool(
        "{ argv: [ { flag: -v, when: flag }, { flag: --word, param: word }, { rest: list } ], \
         env: { HOST: { param: host } } }",
    );
    let started = started(&spec, &json!({"text":"", "path":"project:", "flag":false})).expect("they fit");
    assert_eq!(started.argv, ["/tool/tool"]);
    assert!(!started.env.contains_key("HOST"));
    assert!(String::from_utf8_lossy(&started.params_json).contains(r#""path":"/roots/project""#));
}

#[test]
fn the_environment_is_what_is_fixed_declared_and_told_of_the_call() {
    let mut spec = tool("{ env: { TEXT: { param: text }, JSON: { param: json } } }");
    spec.run.as_mut().expect("foreign").sandbox.env = BTreeMap::from([("MODE".to_owned(), "x".to_owned())]);
    let started =
        started(&spec, &json!({"text":"a=b\n","path":"project:a","json":{"b":1,"a":[true]}})).expect("they fit");
    let mut expected: BTreeMap<String, String> =
        FIXED_ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for (name, value) in [
        ("TEXT", "a=b\n"),
        ("JSON", r#"{"a":[true],"b":1}"#),
        ("MODE", "x"),
        ("TOKA_CALL_ID", &"07".repeat(32)),
        ("TOKA_SESSION", &"09".repeat(32)),
        ("TOKA_TIME_US", "1700000000000000"),
        ("TOKA_PARAMS", "/run/params.json"),
    ] {
        expected.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(started.env, expected);
}

#[test]
fn standard_input_is_nothing_all_arguments_or_the_bytes_of_one() {
    let arguments = json!({"text":"é\n","path":"project:a"});
    let stdin = |pass: &str| started(&tool(pass), &arguments).expect("they fit").stdin;
    assert_eq!(stdin("{ stdin: none }"), b"");
    assert_eq!(stdin("{ stdin: { param: text } }"), "é\n".as_bytes());
    assert_eq!(stdin("{ stdin: { param: json } }"), b"");
    let all = r#"{"number":3,"path":"/roots/project/a","text":"é\n"}"#;
    assert_eq!(stdin("{ stdin: json }"), all.as_bytes());
    let spec = good("  run: { kind: python, path: main.py }\n  params: [ { name: a, type: integer } ]").spec;
    let started = started(&spec, &json!({"a":1})).expect("they fit");
    assert_eq!((started.stdin.as_slice(), started.toolchain.as_deref()), (&br#"{"a":1}"#[..], Some("python3")));
    assert_eq!(started.argv, ["python3", "-s", "-B", "/tool/main.py"]);
    let shell = good("  run: { kind: shell, path: main.sh }").spec;
    assert_eq!(invocation(&shell, b"{}", &NAMES).expect("they fit").argv, ["sh", "/tool/main.sh"]);
}

#[test]
fn a_value_that_looks_like_a_flag_is_refused_before_there_is_a_call() {
    let cases = [
        ("{ argv: [ { param: text } ] }", json!({"text":"-rf","path":"project:a"}), "/text"),
        ("{ argv: [ { param: text } ] }", json!({"text":"-","path":"project:a"}), "/text"),
        ("{ argv: [ { flag: -o, param: text } ] }", json!({"text":"-rf","path":"project:a"}), "/text"),
        ("{ argv: [ { param: number } ] }", json!({"text":"","number":-1,"path":"project:a"}), "/number"),
        ("{ argv: [ { param: word } ] }", json!({"text":"","word":"-two","path":"project:a"}), "/word"),
        ("{ argv: [ { rest: list } ] }", json!({"text":"","list":["a","-b"],"path":"project:a"}), "/list/1"),
    ];
    for (pass, arguments, pointer) in cases {
        let spec = tool(pass);
        let error = prepare(&spec, &arguments.to_string()).expect_err(pass);
        assert_eq!(
            (error.code, error.pointer.as_str(), &error.rule),
            (Code::BadArguments, pointer, &Rule::LeadingDash)
        );
    }
}

#[test]
fn arguments_that_do_not_fit_are_told_where_and_by_which_rule() {
    let spec = good(
        "  run: { kind: python, path: main.py }
  params:
    - { name: s, type: string, max_len: 3 }
    - { name: i, type: integer, min: 1, max: 3 }
    - { name: b, type: boolean }
    - { name: e, type: enum, values: [x] }
    - { name: h, type: host }
    - { name: a, type: array, max_len: 2, items: { type: integer, max: 3 } }
    - { name: j, type: json }",
    )
    .spec;
    for (text, pointer, rule) in [
        (r#"{"s":"abcd"}"#, "/s", "longer than 3 bytes"),
        (r#"{"s":"a\u0000"}"#, "/s", "holds a NUL"),
        (r#"{"i":"1"}"#, "/i", "not of type integer"),
        (r#"{"i":4}"#, "/i", "greater than 3"),
        (r#"{"i":1.5}"#, "/i", "not of type integer"),
        (r#"{"i":9223372036854775808}"#, "", "a number that cannot be represented"),
        (r#"{"b":1}"#, "/b", "not of type boolean"),
        (r#"{"e":"y"}"#, "/e", "none of: x"),
        (r#"{"h":"a b"}"#, "/h", "not a host name or canonical address"),
        (r#"{"a":1}"#, "/a", "not of type array"),
        (r#"{"a":[1,2,3]}"#, "/a", "more than 2 elements"),
        (r#"{"a":[1,4]}"#, "/a/1", "greater than 3"),
        (r#"{"a":[[1]]}"#, "/a/0", "not of type integer"),
        (r#"{"j":{"a":["\u0000"]}}"#, "/j", "holds a NUL"),
        (r#"{"j":{"\u0000":1}}"#, "/j", "holds a NUL"),
        (r#"{"j":1,"j":2}"#, "", "a member name stands twice"),
        (r#"{"z":1}"#, "/z", "no such parameter"),
    ] {
        let error = prepare(&spec, text).expect_err(text);
        assert_eq!((error.pointer.as_str(), error.rule.to_string().as_str()), (pointer, rule), "{text}");
        assert!(!error.to_string().contains("abcd"), "the value is not told");
    }
    let deep = format!(r#"{{"j":{}{}}}"#, "[".repeat(32), "]".repeat(32));
    assert!(prepare(&spec, &deep).is_err());
}

#[test]
fn a_command_line_and_an_environment_have_an_end() {
    let long = "x".repeat((128 << 10) - 1);
    let arguments = |text: &str| json!({"text": text, "path": "project:a"});
    let argv = tool("{ argv: [ { param: text } ] }");
    assert!(started(&argv, &arguments(&long)).is_ok());
    assert_eq!(broken(&argv, &arguments(&format!("{long}x"))), (String::new(), Rule::CommandLine(128 << 10)));
    let env = tool("{ env: { TEXT: { param: text } } }");
    assert!(started(&env, &arguments(&long[..100_000])).is_ok());
    assert_eq!(broken(&env, &arguments(&long)).1, Rule::CommandLine(128 << 10));
    let stdin = tool("{ stdin: { param: text } }");
    assert!(started(&stdin, &arguments(&"x".repeat(1_000_000))).is_ok(), "standard input has no such bound");
}

#[test]
fn a_path_inside_json_is_shown_as_the_program_can_open_it() {
    let spec = good(
        "  run: { kind: python, path: main.py }
  params: [ { name: j, type: json, required: true } ]
  facts: [ { pointer: /j/from, type: path }, { pointer: /j/site, type: host } ]
  needs: [ { need: 'fs:workspace/x#read' } ]",
    )
    .spec;
    let started =
        started(&spec, &json!({"j":{"from":"project:a/b","site":"X.example","to":"project:c"}})).expect("they fit");
    let seen = r#"{"j":{"from":"/roots/project/a/b","site":"x.example","to":"project:c"}}"#;
    assert_eq!(String::from_utf8(started.params_json).expect("UTF-8"), seen);
}

#[test]
fn a_built_in_tool_has_no_command_line() {
    let native = toka_tools::by_name("file-reader").expect("built in");
    assert_eq!(invocation(native.spec(), b"{}", &NAMES).expect_err("it runs inside").rule, Rule::Spec);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_value_becomes_another_entry_a_flag_or_the_end_of_one(
        text in "[-a-z \"'\\\\;$`\\n=\u{e9}/|&*]{0,12}",
        list in prop::collection::vec("[-a-z '\"\\n$]{0,6}", 0..4),
        number: i64,
        flag: bool,
    ) {
        static TOOL: LazyLock<ToolSpec> = LazyLock::new(|| tool(
            "{ argv: [ { flag: -v, when: flag }, { flag: --text, param: text, join: true }, \
            { flag: -n, param: number }, \
             { param: text }, { const: -- }, { rest: list } ], env: { TEXT: { param: text } } }",
        ));
        let spec = &*TOOL;
        let arguments = json!({"text": text, "number": number, "flag": flag, "list": list, "path": "project:a"});
        let refused = text.starts_with('-') || number < 0;
        match started(spec, &arguments) {
            Err(error) => prop_assert!(refused && error.rule == Rule::LeadingDash, "{error}"),
            Ok(started) => {
                prop_assert!(!refused);
                let mut expected = vec!["/tool/tool".to_owned()];
                expected.extend(flag.then(|| "-v".to_owned()));
                expected.extend([format!("--text={text}"), "-n".to_owned(), number.to_string()]);
                expected.extend([text.clone(), "--".to_owned()]);
                expected.extend(list);
                prop_assert_eq!(&started.argv, &expected);
                prop_assert!(started.argv.iter().chain(started.env.values()).all(|entry| !entry.contains('\0')));
                prop_assert_eq!(started.env.get("TEXT"), Some(&text));
                let names = FIXED_ENV.len() + 5;
                prop_assert_eq!(started.env.len(), names);
            }
        }
    }

    #[test]
    fn whatever_is_prepared_can_be_started(text in "\\PC{0,20}", json in "[\\[\\]{}\",:a0-9. ]{0,20}") {
        static TOOL: LazyLock<ToolSpec> = LazyLock::new(|| {
            tool("{ argv: [ { flag: --json, param: json, join: true }, { param: text } ], stdin: json }")
        });
        let spec = &*TOOL;
        let json: Value = serde_json::from_str(&json).unwrap_or(Value::Null);
        if let Ok(prepared) = prepare(spec, &json!({"text": text, "json": json, "path": "project:a"}).to_string()) {
            let started = invocation(spec, &prepared.arguments, &NAMES);
            prop_assert!(started.is_ok(), "{started:?}");
        }
    }
}
