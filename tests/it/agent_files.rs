//! What an agent file says, and what it hears when it says it wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use toka_runtime::agents::limits::*;
use toka_runtime::agents::script::{Act, OnError, Target, Value};
use toka_runtime::agents::{Agent, AgentSet, AgentSpec, FileCode, FileError, Priority, SpecError, Then};
use toka_tools::files::quantity::{Duration, QuantityError, Size, Usd};
use toka_tools::files::{FILE_DEPTH_MAX, FILE_ERRORS_MAX};

use crate::script_source::{agents, pool};

const HEAD: &str = "apiVersion: toka/v1\nkind: Agent\nmetadata: { name: a, version: 1.0.0 }\n";
const STEPS: &str = "spec:\n  tools: [ '*' ]\n  program:\n    script:\n      steps:\n";

fn load(text: &str) -> Result<AgentSet, Vec<FileError>> {
    AgentSet::from_files("a.yaml", &BTreeMap::from([("a.yaml".to_owned(), text.as_bytes().to_vec())]))
}

/// The one agent of a file that must be good.
fn good(text: &str) -> Agent {
    let set = load(text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    set.top().agent().as_ref().clone()
}

/// The code of the one error of a file, or none.
fn code(text: &str) -> Option<FileCode> {
    match load(text) {
        Ok(_) => None,
        Err(errors) => {
            assert_eq!(errors.len(), 1, "{errors:#?}");
            Some(errors[0].code)
        }
    }
}

fn with_spec(spec: &str) -> String {
    format!(
        "{HEAD}spec:\n  tools: ['*']\n  program: {{ script: {{ steps: [ {{ id: s, call: {{ tool: t }} }} ] }} }}\n{spec}\n"
    )
}

fn with_steps(steps: &str) -> String {
    let indented: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    format!("{HEAD}{STEPS}{indented}")
}

#[test]
fn every_bad_file_is_told_place_code_message_and_hint() {
    let mut failures = String::new();
    let mut count = 0;
    for case in include_str!("agent_files/errors.txt").split("\n=== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (marked, expected) = match rest.find("\n! ") {
            Some(at) => rest.split_at(at + 1),
            None => (rest, ""),
        };
        let marked = match marked {
            marked if marked.starts_with("- ") || marked.starts_with("- ¦") => with_steps(marked.trim_end()),
            marked if marked.starts_with("spec:") => format!("{HEAD}{marked}"),
            marked => marked.to_owned(),
        };
        let places = places(&marked);
        let errors = load(&marked.replace('¦', "")).err().unwrap_or_default();
        let mut found = String::new();
        for error in &errors {
            let _ = writeln!(found, "! {}: {}\n  {}", error.code, error.message, error.hint);
        }
        let at: Vec<(u32, u32)> = errors.iter().map(|error| (error.line, error.column)).collect();
        if found.trim() != expected.trim() || at != places {
            let _ = writeln!(failures, "=== {title}\nplaces {at:?}, expected {places:?}\n{found}");
        }
        count += 1;
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 50, "{count} cases");
}

/// The places that are marked in a text, in lines and columns from 1.
fn places(marked: &str) -> Vec<(u32, u32)> {
    let (mut line, mut column, mut found) = (1, 1, Vec::new());
    for c in marked.chars() {
        match c {
            '¦' => found.push((line, column)),
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    found
}

#[test]
fn line_ends_and_a_byte_order_mark_move_no_place() {
    let text = with_steps("- { id: ä, call: { tool: t } }\n- { id: s, cal: { tool: t } }");
    let plain = load(&text).unwrap_err();
    assert_eq!(plain.len(), 3);
    assert_eq!((plain[0].line, plain[0].column), (9, 15));
    assert_eq!(load(&text.replace('\n', "\r\n")).unwrap_err(), plain);
    assert_eq!(load(&format!("\u{feff}{text}")).unwrap_err(), plain);
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let errors = load(&with_spec("  description: 'äöü🙂'\n  ünknown: 1")).unwrap_err();
    assert_eq!((errors[0].line, errors[0].column), (8, 3));
    let errors = load("{ apiVersion: 'ä🙂', kind: Tool }").unwrap_err();
    let at: Vec<_> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!(at, [(1, 1), (1, 1), (1, 15), (1, 27)]);
}

#[test]
fn bytes_that_are_no_utf8_are_placed() {
    let mut bytes = b"apiVersion: toka/v1\nkind: \xc3\xa4".to_vec();
    bytes.push(0xff);
    let errors = AgentSet::from_files("a.yaml", &BTreeMap::from([("a.yaml".to_owned(), bytes)])).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].line, errors[0].column, errors[0].code), (2, 8, FileCode::NotUtf8));
    assert_eq!(errors[0].to_string(), "a.yaml:2:8: TOKA-1003: the file is not UTF-8");
}

#[test]
fn a_file_says_what_it_says_and_defaults_fill_the_rest() {
    let agent = good(&with_spec(""));
    assert_eq!((agent.name.as_str(), agent.version.as_str()), ("a", "1.0.0"));
    assert_eq!(
        (agent.priority, agent.on_failure.then, agent.on_failure.essential),
        (Priority::Medium, Then::StopDependents, true)
    );
    let budget = agent.budget;
    assert_eq!((budget.tokens, budget.cost_micro, budget.calls, budget.wall_us), (100_000, 0, 200, 1_800_000_000));
    assert!(agent.capabilities.is_empty() && agent.labels.is_empty() && agent.description.is_empty());
    assert_eq!(agent.steps[0].on_error, OnError::Fail);

    let agent = good(
        "apiVersion: toka/v1\n\
         kind: Agent\n\
         metadata: { name: release.auditor, version: 1.2.0-rc.1, workstream: release, labels: { team: no, on: 'yes' }, x-owner: ann }\n\
         spec:\n\
         \x20 description: |\n    Two lines\n    of text\n\
         \x20 domain: quality\n\
         \x20 priority: high\n\
         \x20 instructions: { text: Look closely }\n\
         \x20 tools: [ file-reader, 'git.*' ]\n\
         \x20 capabilities:\n    - fs:project/**#read,list?depth=1\n    - agent:audit.*?live=3\n\
         \x20 budget: { tokens: 50000, usd: \"0.50\", calls: 40, wall: 1h30m, on_exceed: fail }\n\
         \x20 on_failure: { then: continue, essential: false }\n\
         \x20 program: { script: { steps: [ { id: s, call: { tool: git.log } } ] } }\n",
    );
    assert_eq!(agent.description, "Two lines\nof text\n");
    assert_eq!(agent.labels, BTreeMap::from([("team".into(), "no".into()), ("on".into(), "yes".into())]));
    assert_eq!(agent.extra, BTreeMap::from([("x-owner".into(), "ann".into())]));
    assert_eq!(agent.capabilities, ["fs:project/**#list,read?depth=1", "agent:audit.*?live=3"]);
    assert_eq!((agent.budget.cost_micro, agent.budget.calls, agent.budget.wall_us), (500_000, 40, 5_400_000_000));
    assert_eq!((agent.on_failure.then, agent.on_failure.essential), (Then::Continue, false));
    assert_eq!(
        (agent.priority, agent.workstream.as_deref(), agent.domain.as_deref()),
        (Priority::High, Some("release"), Some("quality"))
    );
}

#[test]
fn values_reach_the_script_as_plain_text() {
    let agent = good(&with_steps(
        "- id: s\n  call:\n    tool: t\n    args:\n      a: '{{ steps.x }}'\n      b: \"$(rm -rf /); \\n`x`\"\n      c: no\n      d: [ 1, -2, true, null, '3' ]",
    ));
    let Act::Call { args, .. } = &agent.steps[0].act else { panic!("no call") };
    assert_eq!(args["a"], Value::Text("{{ steps.x }}".into()));
    assert_eq!(args["b"], Value::Text("$(rm -rf /); \n`x`".into()));
    assert_eq!(args["c"], Value::Text("no".into()));
    let list = vec![Value::Int(1), Value::Int(-2), Value::Bool(true), Value::Null, Value::Text("3".into())];
    assert_eq!(args["d"], Value::List(list));
}

#[test]
fn a_parameter_may_be_called_ref() {
    let agent = good(&with_steps("- { id: s, call: { tool: git.log, args: { ref: main } } }"));
    let Act::Call { args, .. } = &agent.steps[0].act else { panic!("no call") };
    assert_eq!(args["ref"], Value::Text("main".into()));
}

#[test]
fn a_saved_name_is_another_word_for_its_step() {
    let agent = good(&with_steps(
        "- { id: scan, call: { tool: t, save: found } }\n\
         - { id: kid, spawn: { spec: a, save: helper } }\n\
         - { id: use, when: { ref: agents.helper.outcome, equals: completed }, call: { tool: t, args: { x: { ref: found } } } }\n\
         - { id: w, wait: { agents: [ helper ] } }",
    ));
    let Act::Call { args, .. } = &agent.steps[2].act else { panic!("no call") };
    assert!(matches!(&args["x"], Value::Ref(reference) if reference.to == Target::Output("scan".into())));
    assert_eq!(agent.steps[2].when.as_ref().unwrap().value.to, Target::AgentOutcome("kid".into()));
    assert_eq!(agent.steps[3].act, Act::Wait { agents: vec!["kid".into()] });
}

/// The same file at a bound and one beyond it.
fn check_bound(at: usize, file: impl Fn(usize) -> String, beyond: FileCode) {
    assert_eq!(code(&file(at)), None, "at {at}");
    assert_eq!(code(&file(at + 1)), Some(beyond), "at {}", at + 1);
}

#[test]
fn each_bound_holds_on_both_sides() {
    let list = |count: usize, of: &dyn Fn(usize) -> String| (0..count).map(of).collect::<Vec<_>>().join(", ");
    let head = |fields: &str| {
        format!(
            "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ version: 1.0.0, {fields} }}\nspec: {{ tools: ['*'], program: {{ script: {{ steps: [ {{ id: s, call: {{ tool: t }} }} ] }} }} }}\n"
        )
    };
    check_bound(32, |n| head(&format!("name: {}", "a".repeat(n))), FileCode::BadName);
    check_bound(8, |n| head(&format!("name: {}", vec!["a"; n].join("."))), FileCode::BadName);
    check_bound(
        LABELS_MAX,
        |n| head(&format!("name: a, labels: {{ {} }}", list(n, &|i| format!("l{i}: x")))),
        FileCode::TooMany,
    );
    check_bound(LABELS_MAX, |n| head(&format!("name: a, {}", list(n, &|i| format!("x-{i}: x")))), FileCode::TooMany);
    check_bound(LABEL_BYTES_MAX, |n| head(&format!("name: a, labels: {{ l: {} }}", "x".repeat(n))), FileCode::TooLong);
    check_bound(LABEL_BYTES_MAX, |n| head(&format!("name: a, labels: {{ {}: x }}", "l".repeat(n))), FileCode::TooLong);
    check_bound(LABEL_BYTES_MAX, |n| with_spec(&format!("  domain: {}", "x".repeat(n))), FileCode::TooLong);
    check_bound(DESCRIPTION_BYTES_MAX, |n| with_spec(&format!("  description: {}", "x".repeat(n))), FileCode::TooLong);
    check_bound(
        INSTRUCTIONS_BYTES_MAX,
        |n| with_spec(&format!("  instructions: {{ text: {} }}", "x".repeat(n))),
        FileCode::TooLong,
    );
    check_bound(
        CAPABILITIES_MAX,
        |n| with_spec(&format!("  capabilities: [ {} ]", list(n, &|i| format!("'tool:t{i}'")))),
        FileCode::TooMany,
    );
    let tools = |n| with_steps("- { id: s, call: { tool: t } }").replace("'*'", &list(n, &|_| "t".to_owned()));
    check_bound(TOOLS_MAX, tools, FileCode::TooMany);
    check_bound(
        STEPS_MAX,
        |n| with_steps(&(0..n).map(|i| format!("- {{ id: s{i}, call: {{ tool: t }} }}\n")).collect::<String>()),
        FileCode::TooMany,
    );
    check_bound(LOOP_DEPTH_MAX, |n| with_steps(&nested(n)), FileCode::TooDeep);
    check_bound(
        LOOP_ITEMS_MAX,
        |n| {
            with_steps(&format!(
                "- {{ id: e, for_each: {{ in: [ {} ], as: i, steps: [ {{ id: s, call: {{ tool: t }} }} ] }} }}",
                list(n, &|i| i.to_string())
            ))
        },
        FileCode::TooMany,
    );
    check_bound(
        64,
        |n| {
            with_steps(&format!(
                "- {{ id: e, spawn: {{ spec: a, grants: [ {} ] }} }}",
                list(n, &|i| format!("'tool:t{i}'"))
            ))
        },
        FileCode::TooMany,
    );
    check_bound(
        256,
        |n| with_steps(&format!("- {{ id: e, call: {{ tool: t, args: {{ {}: 1 }} }} }}", "p".repeat(n))),
        FileCode::TooLong,
    );
    let pointer = |n: usize| {
        let pointer = format!("/{}", "p".repeat(n - 1));
        with_steps(&format!(
            "- {{ id: s, call: {{ tool: t }} }}\n- {{ id: e, call: {{ tool: t, args: {{ x: {{ ref: steps.s.output, pointer: {pointer} }} }} }} }}"
        ))
    };
    check_bound(256, pointer, FileCode::BadPointer);
    let deep = |n: usize| {
        let n = n - 8; // the levels above the arguments
        with_steps(&format!("- {{ id: e, call: {{ tool: t, args: {{ x: {}{} }} }} }}", "[".repeat(n), "]".repeat(n)))
    };
    check_bound(FILE_DEPTH_MAX, deep, FileCode::TooDeep);
    let sized = |n: usize| {
        let text = with_spec("");
        format!("{text}#{}", "x".repeat(n - text.len() - 1))
    };
    check_bound(FILE_BYTES_MAX, sized, FileCode::TooLarge);
    check_bound(365, |n| with_spec(&format!("  budget: {{ wall: {n}d }}")), FileCode::OutOfRange);
    assert_eq!(code(&with_spec("  budget: { tokens: 1, calls: 1, usd: \"0.000001\", wall: 1us }")), None);
}

/// So many loops inside each other.
fn nested(depth: usize) -> String {
    let open: String =
        (0..depth).map(|i| format!("[ {{ id: e{i}, for_each: {{ in: [ 1 ], as: v{i}, steps: ")).collect();
    let script = format!("{open}[ {{ id: s, call: {{ tool: t }} }} ]{}", " } } ]".repeat(depth));
    script.strip_prefix("[ ").and_then(|script| script.strip_suffix(" ]")).map(|step| format!("- {step}")).unwrap()
}

#[test]
fn errors_beyond_the_bound_are_counted_as_one_more() {
    let file = format!("[ {} ]", "*a , ".repeat(2 * FILE_ERRORS_MAX));
    let errors = load(&file).unwrap_err();
    assert_eq!(errors.len(), FILE_ERRORS_MAX + 1);
    assert_eq!(errors[FILE_ERRORS_MAX].code, FileCode::TooMany);
}

#[test]
fn quantities_are_read_exactly() {
    let duration = |text: &str| Duration::parse(text).map(|duration| duration.0);
    assert_eq!(duration("90s"), Ok(90_000_000));
    assert_eq!(duration("1h30m"), Ok(5_400_000_000));
    assert_eq!(duration("1d2h3m4s5ms6us"), Ok(93_784_005_006));
    assert_eq!(duration("1.5h"), Ok(5_400_000_000));
    assert_eq!(duration("0.0000001s"), Err(QuantityError::TooFine));
    assert_eq!(duration("90"), Err(QuantityError::NoUnit));
    assert_eq!(duration("1m1h"), Err(QuantityError::Order));
    assert_eq!(duration("1s1s"), Err(QuantityError::Order));
    assert_eq!(duration("1 s"), Err(QuantityError::BadUnit));
    assert_eq!(duration("5%"), Err(QuantityError::Percent));
    assert_eq!(duration(""), Err(QuantityError::Empty));
    assert_eq!(duration("-1s"), Err(QuantityError::BadNumber));
    assert_eq!(duration("99999999999999d"), Err(QuantityError::TooLarge));
    assert_eq!(Size::parse("512MB"), Ok(Size(512_000_000)));
    assert_eq!(Size::parse("128MiB"), Ok(Size(134_217_728)));
    assert_eq!(Size::parse("1.5GiB"), Ok(Size(1_610_612_736)));
    assert_eq!(Size::parse("0.1B"), Err(QuantityError::TooFine));
    assert_eq!(Size::parse("1mb"), Err(QuantityError::BadUnit));
    assert_eq!(Usd::parse("0.50"), Ok(Usd(500_000)));
    assert_eq!(Usd::parse("0.000001"), Ok(Usd(1)));
    assert_eq!(Usd::parse("0.0000001"), Err(QuantityError::TooFine));
    assert_eq!(Usd::parse("1e3"), Err(QuantityError::BadUnit));
    assert_eq!(Usd::parse(".5"), Err(QuantityError::BadNumber));
    assert_eq!(Usd::parse("18446744073709.551615"), Ok(Usd(u64::MAX)));
    assert_eq!(Usd::parse("18446744073709.551616"), Err(QuantityError::TooLarge));
}

/// A file of one agent that spawns others.
fn spawning(name: &str, children: &[&str]) -> Vec<u8> {
    let steps: String =
        children.iter().map(|child| format!("{{ id: k-{child}, spawn: {{ spec: {child} }} }}, ")).collect();
    let steps = if steps.is_empty() { "{ id: s, fail: { code: x } }".to_owned() } else { steps };
    format!("apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: {name}, version: 1.0.0 }}\nspec: {{ program: {{ script: {{ steps: [ {steps} ] }} }} }}\n").into_bytes()
}

fn folder(files: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect()
}

#[test]
fn a_set_holds_every_agent_that_can_be_reached() {
    let files = folder(&[
        ("main.yaml", spawning("top", &["left", "right"])),
        ("left.yaml", spawning("left", &["right"])),
        ("right.agent.yaml", spawning("right", &[])),
        ("other.yaml", b"not even YAML: [".to_vec()),
    ]);
    let set = AgentSet::from_files("main.yaml", &files).unwrap();
    assert_eq!(set.names().collect::<Vec<_>>(), ["left", "right", "top"]);
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    let top = set.top();
    assert_eq!(top.child("left"), set.get("left"));
    assert_eq!(top.child("left").unwrap().child("right"), set.get("right"));
    assert_eq!(top.child("top"), None);
    assert_eq!(top.child("other"), None);
}

#[test]
fn errors_of_every_file_are_found_in_one_run() {
    let files = folder(&[
        ("top.yaml", spawning("top", &["left", "right", "gone", "twice"])),
        ("left.yaml", spawning("lefty", &[])),
        ("right.yaml", b"kind: [".to_vec()),
        ("gnoe.yaml", Vec::new()),
        ("twice.yaml", spawning("twice", &[])),
        ("twice.agent.yaml", spawning("twice", &[])),
    ]);
    let errors = AgentSet::from_files("top.yaml", &files).unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let line = String::from_utf8(files["top.yaml"].clone()).unwrap().lines().nth(3).unwrap().to_owned();
    let column = |name: &str| 1 + line.find(&format!("spec: {name} ")).unwrap() + "spec: ".len();
    assert_eq!(
        shown,
        [
            "left.yaml:3:19: TOKA-1061: this file is read for the agent `left` and names `lefty`",
            "right.yaml:1:7: TOKA-1010: not YAML: unclosed bracket '['",
            &format!("top.yaml:4:{}: TOKA-1060: there is no file for the agent `gone`", column("gone")),
            &format!("top.yaml:4:{}: TOKA-1060: the agent `twice` has two files beside this one", column("twice")),
        ]
    );
    assert_eq!(errors[2].hint, "did you mean `gnoe`? Else add `gone.yaml` beside this file");
}

#[test]
fn agents_that_spawn_each_other_are_allowed_and_warned_about() {
    let files = folder(&[("a.yaml", spawning("a", &["b"])), ("b.yaml", spawning("b", &["a"]))]);
    let set = AgentSet::from_files("a.yaml", &files).unwrap();
    let codes: Vec<FileCode> = set.warnings().iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [FileCode::SpawnCycle, FileCode::SpawnCycle]);
    let spec = set.top();
    assert_eq!(AgentSpec::decode(&spec.encode()).unwrap().child("b").unwrap().child("a"), Some(spec));
}

#[test]
fn a_grant_that_no_request_covers_is_warned_about() {
    let steps = "- { id: k, spawn: { spec: kid, grants: [ 'fs:project/src/**#read', 'fs:project/src/**#write', 'fs:elsewhere/**#read' ] } }\n- { id: s, call: { tool: t } }";
    let text = with_steps(steps).replace(
        "spec:\n  tools",
        "spec:\n  capabilities: [ 'fs:project/**#read,write?depth=1', 'fs:other/**#read' ]\n  tools",
    );
    let files = folder(&[("a.yaml", text.into_bytes()), ("kid.yaml", spawning("kid", &[]))]);
    let set = AgentSet::from_files("a.yaml", &files).unwrap();
    let shown: Vec<String> = set.warnings().iter().map(ToString::to_string).collect();
    let column = 7 + steps.find("'fs:elsewhere").unwrap();
    let message = "no capability that the agent requests covers `fs:elsewhere/**#read`";
    assert_eq!(shown, [format!("a.yaml:10:{column}: TOKA-1071: {message}")]);
}

#[test]
fn as_many_files_as_may_be_are_read_and_no_more() {
    let chain = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("a{i}")).collect();
        let file = |i: usize| {
            let next: Vec<&str> = names.get(i + 1).map(String::as_str).into_iter().collect();
            (format!("a{i}.yaml"), spawning(&names[i], &next))
        };
        AgentSet::from_files("a0.yaml", &(0..count).map(file).collect())
    };
    let set = chain(FILES_MAX).unwrap();
    assert_eq!(set.names().count(), FILES_MAX);
    assert!(AgentSpec::decode(&set.top().encode()).is_ok());
    assert_eq!(chain(FILES_MAX + 1).unwrap_err()[0].code, FileCode::TooMany);
}

#[test]
fn files_are_read_from_their_folder_and_links_are_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(scratch.path().join(name), bytes).unwrap();
    write("top.yaml", spawning("top", &["kid"]));
    write("kid.yaml", spawning("kid", &[]));
    let set = AgentSet::load(&scratch.path().join("top.yaml")).unwrap();
    assert_eq!(set.names().collect::<Vec<_>>(), ["kid", "top"]);

    std::fs::remove_file(scratch.path().join("kid.yaml")).unwrap();
    write("real", spawning("kid", &[]));
    std::os::unix::fs::symlink("real", scratch.path().join("kid.yaml")).unwrap();
    let errors = AgentSet::load(&scratch.path().join("top.yaml")).unwrap_err();
    assert_eq!(errors[0].code, FileCode::Unreadable);
    assert!(errors[0].file.ends_with("/kid.yaml"));

    let errors = AgentSet::load(&scratch.path().join("none.yaml")).unwrap_err();
    assert_eq!(errors[0].code, FileCode::Unreadable);
    let errors = AgentSet::load(scratch.path()).unwrap_err();
    assert_eq!(errors[0].code, FileCode::Unreadable);
}

#[test]
fn the_digest_leaves_free_text_out_and_nothing_else() {
    let digest = |text: &str| load(text).unwrap().top().digest();
    let one = with_spec("  description: one\n  instructions: { text: one }");
    assert_eq!(digest(&one), digest(&one.replace("one", "two")));
    assert_ne!(load(&one).unwrap().top().encode(), load(&one.replace("one", "two")).unwrap().top().encode());
    for other in [
        one.replace("version: 1.0.0", "version: 1.0.1"),
        one.replace("tool: t", "tool: u"),
        one.replace("  description: one", "  priority: low"),
        one.replace("id: s", "id: r"),
        format!("{one}  budget: {{ calls: 7 }}\n"),
        format!("{one}  capabilities: [ 'tool:t' ]\n"),
    ] {
        assert_ne!(digest(&one), digest(&other), "{other}");
    }
    let child = |code: &str| {
        let kid = String::from_utf8(spawning("b", &[])).unwrap().replace("code: x", code);
        let files = folder(&[("a.yaml", spawning("a", &["b"])), ("b.yaml", kid.into_bytes())]);
        AgentSet::from_files("a.yaml", &files).unwrap().top().digest()
    };
    assert_ne!(child("code: y"), child("code: z"));
}

#[test]
fn a_spec_at_every_bound_of_depth_is_decoded_again() {
    let deep = FILE_DEPTH_MAX - 8;
    let brackets = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    for steps in [nested(LOOP_DEPTH_MAX), format!("- {{ id: e, call: {{ tool: t, args: {{ x: {brackets} }} }} }}")] {
        let spec = load(&with_steps(&steps)).unwrap().top();
        assert_eq!(AgentSpec::decode(&spec.encode()), Ok(spec));
    }
}

#[test]
fn bytes_that_are_not_the_canonical_spec_are_refused() {
    let spec = load(&with_spec("")).unwrap().top();
    let bytes = spec.encode();
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(AgentSpec::decode(&longer), Err(SpecError::NotCanonical));
    assert!(matches!(AgentSpec::decode(&bytes[..bytes.len() - 1]), Err(SpecError::Encoding(_))));
    assert!(matches!(AgentSpec::decode(&[]), Err(SpecError::Encoding(_))));
    assert!(matches!(AgentSpec::decode(&vec![0x91; 1 << 20]), Err(SpecError::Encoding(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_agent_survives_being_encoded_and_printed(seed: u64) {
        let made = agents(seed);
        let spec = AgentSpec::of("top", &pool(made.clone())).unwrap();
        prop_assert_eq!(AgentSpec::decode(&spec.encode()), Ok(spec.clone()));
        prop_assert_eq!(AgentSpec::decode(&spec.encode()).unwrap().digest(), spec.digest());
        let files = made.iter().map(|(name, agent)| (format!("{name}.yaml"), agent.print().into_bytes())).collect();
        let read = AgentSet::from_files("top.yaml", &files).map_err(|errors| TestCaseError::fail(format!("{errors:#?}\n{}", made["top"].print())))?;
        prop_assert_eq!(read.top(), spec);
    }

    #[test]
    fn quantities_survive_being_printed(number: u64) {
        prop_assert_eq!(Duration::parse(&Duration(number).to_string()), Ok(Duration(number)));
        prop_assert_eq!(Size::parse(&Size(number).to_string()), Ok(Size(number)));
        prop_assert_eq!(Usd::parse(&Usd(number).to_string()), Ok(Usd(number)));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in "\\PC*", yaml in "[-a{}\\[\\]:, \n\"'#&*!|>%@?~0-9]{0,80}") {
        for bytes in [bytes, text.into_bytes(), yaml.clone().into_bytes(), format!("{HEAD}{STEPS}      {yaml}").into_bytes()] {
            let _ = AgentSet::from_files("a.yaml", &BTreeMap::from([("a.yaml".to_owned(), bytes.clone())]));
            let _ = AgentSpec::decode(&bytes);
        }
    }

    #[test]
    fn no_change_of_a_good_file_or_spec_makes_the_reader_panic(seed: u64, at: prop::sample::Index, with: [u8; 2], cut: bool) {
        let made = agents(seed);
        let mut text = made["top"].print().into_bytes();
        let mut spec = AgentSpec::of("top", &pool(made.clone())).unwrap().encode();
        for bytes in [&mut text, &mut spec] {
            let at = at.index(bytes.len() - 1);
            bytes.splice(at..at + 1 + usize::from(cut), with);
        }
        let files = made.iter().map(|(name, agent)| (format!("{name}.yaml"), agent.print().into_bytes()));
        let mut files: BTreeMap<String, Vec<u8>> = files.collect();
        files.insert("top.yaml".into(), text);
        let _ = AgentSet::from_files("top.yaml", &files);
        if let Ok(decoded) = AgentSpec::decode(&spec) {
            prop_assert_eq!(decoded.encode(), spec);
        }
    }
}
