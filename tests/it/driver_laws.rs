//! The laws of the driver: what it asks follows from the spec and the transcript, and every script comes to an end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use toka_kernel::denial::Code;
use toka_kernel::ids::{AgentId, CommandId, PrincipalId};
use toka_runtime::agents::{
    AgentSet, AgentSpec, Ask, Driver, EndCode, Ended, Next, Record, Transcript, Why, command_id,
};

use crate::script_source::{Dice, agents, pool, text};

const ME: AgentId = PrincipalId([7; 32]);

/// Whatever is outside the agent, made up from a seed: it answers every command, sooner or later.
struct World {
    dice: Dice,
    transcript: Transcript,
    /// Every command that was asked, as it was asked.
    asked: BTreeMap<CommandId, Ask>,
    open: Vec<CommandId>,
    running: Vec<AgentId>,
    agents: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let transcript = Transcript::new(ME);
        let (asked, open, running) = (BTreeMap::new(), Vec::new(), Vec::new());
        World { dice: Dice(seed), transcript, asked, open, running, agents: 0 }
    }

    fn take(&mut self, ask: Ask) {
        let id = ask.id();
        assert_eq!(id, command_id(ME, ask.path()));
        assert!(!self.transcript.records.contains_key(&id), "asked again: {ask:?}");
        assert!(self.asked.insert(id, ask.clone()).is_none(), "asked twice: {ask:?}");
        let record = match &ask {
            Ask::Call { .. } if self.dice.once_in(3) => {
                self.open.push(id);
                Record::Open
            }
            Ask::Call { .. } => self.outcome(),
            Ask::Spawn { .. } | Ask::Start { .. } if self.dice.once_in(10) => self.refusal(),
            Ask::Spawn { .. } => {
                self.agents += 1;
                Record::Spawned { agent: numbered(self.agents) }
            }
            Ask::Start { agent, .. } => {
                self.running.push(*agent);
                Record::Done
            }
            Ask::Model { .. }
            | Ask::Schedule { .. }
            | Ask::Begin { .. }
            | Ask::EndTask { .. }
            | Ask::Send { .. }
            | Ask::Take { .. }
            | Ask::Control { .. } => panic!("no step of a script asks this: {ask:?}"),
        };
        self.transcript.records.insert(id, record);
    }

    /// Lets one thing happen that the agent may be waiting for.
    fn tick(&mut self) {
        assert!(!self.open.is_empty() || !self.running.is_empty(), "waits for nothing");
        if !self.open.is_empty() && (self.running.is_empty() || self.dice.once_in(2)) {
            let id = self.open.remove(0);
            let outcome = self.outcome();
            self.transcript.records.insert(id, outcome);
        } else {
            let agent = self.running.remove(0);
            let completed = !self.dice.once_in(3);
            let code = if completed { 0 } else { 17 };
            self.transcript.ended.insert(agent, Ended { completed, code });
        }
    }

    fn outcome(&mut self) -> Record {
        match self.dice.below(10) {
            0 => self.refusal(),
            1 => Record::Finished { outcome: "not-found".to_owned(), ok: false, result: None, withheld: false },
            _ => {
                let result = self.result();
                let withheld = self.dice.once_in(8);
                Record::Finished { outcome: "Succeeded".to_owned(), ok: true, result, withheld }
            }
        }
    }

    fn refusal(&mut self) -> Record {
        let code = [Code::OutOfScope, Code::Budget, Code::AgentCap][self.dice.below(3) as usize];
        Record::Refused { code, need: self.dice.once_in(2).then(|| "fs:project/a#read".to_owned()), detail: None }
    }

    fn result(&mut self) -> Option<Json> {
        let word = text(&mut self.dice);
        match self.dice.below(5) {
            0 => None,
            1 => Some(json!(["a", { "x": 1 }, null])),
            2 => Some(json!({ "files": ["a", "b", word], "n": 3 })),
            3 => Some(json!(self.dice.below(4))),
            _ => Some(json!({ "files": [] })),
        }
    }
}

fn numbered(number: u64) -> AgentId {
    let mut id = [3; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    PrincipalId(id)
}

/// Runs a script in a world, looking at every answer with `check`.
fn run(spec: &AgentSpec, world: &mut World, mut check: impl FnMut(&Transcript, &Next)) -> Next {
    let mut driver = Driver::new(spec);
    for _ in 0..100_000 {
        let next = driver.advance(&world.transcript);
        check(&world.transcript, &next);
        match next {
            Next::Commands(asks) => asks.into_iter().for_each(|ask| world.take(ask)),
            Next::Wait => world.tick(),
            Next::End { .. } | Next::Diverged { .. } => return next,
        }
    }
    panic!("no end");
}

fn spec_of(seed: u64) -> AgentSpec {
    AgentSpec::of("top", &pool(agents(seed))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_script_ends_and_asks_no_command_twice(script: u64, seed: u64) {
        let spec = spec_of(script);
        let mut world = World::new(seed);
        let end = run(&spec, &mut world, |_, _| {});
        let Next::End { completed, code, why } = end else { panic!("{end:?}") };
        prop_assert_eq!(completed, code == EndCode::None);
        prop_assert_eq!(completed, why.is_none());
        prop_assert!(world.open.is_empty() && world.running.is_empty(), "ended above something open");
        // A driver that wakes up after all this, knowing the text alone, asks nothing more.
        let decoded = AgentSpec::decode(&spec.encode()).unwrap();
        prop_assert_eq!(Driver::next(&decoded, &world.transcript), Next::End { completed, code, why });
    }

    #[test]
    fn the_same_transcript_gives_the_same_commands(script: u64, seed: u64, stop in 0usize..40) {
        let spec = spec_of(script);
        let mut world = World::new(seed);
        let mut driver = Driver::new(&spec);
        for _ in 0..stop {
            match driver.advance(&world.transcript) {
                Next::Commands(asks) => asks.into_iter().for_each(|ask| world.take(ask)),
                Next::Wait => world.tick(),
                Next::End { .. } | Next::Diverged { .. } => break,
            }
        }
        let next = Driver::next(&spec, &world.transcript);
        prop_assert_eq!(&Driver::next(&spec, &world.transcript.clone()), &next);
        prop_assert_eq!(&driver.advance(&world.transcript), &next);
        prop_assert_eq!(&driver.advance(&world.transcript), &next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn going_on_gives_what_starting_over_gives(script: u64, seed: u64) {
        let spec = spec_of(script);
        run(&spec, &mut World::new(seed), |transcript, next| assert_eq!(Driver::next(&spec, transcript), *next));
    }

    #[test]
    fn what_the_agent_has_not_asked_for_changes_nothing(script: u64, seed: u64) {
        let spec = spec_of(script);
        let mut strange = Transcript::new(ME);
        strange.records.insert(CommandId([9; 16]), Record::Open);
        strange.ended.insert(PrincipalId([200; 32]), Ended { completed: false, code: 1 });
        run(&spec, &mut World::new(seed), |transcript, next| {
            let mut more = transcript.clone();
            more.records.extend(strange.records.clone());
            more.ended.extend(strange.ended.clone());
            assert_eq!(Driver::next(&spec, &more), *next);
        });
    }
}

/// A script by its steps, and what the world answers by the path of the step.
struct Told {
    spec: AgentSpec,
    transcript: Transcript,
    /// The arguments of each call by path.
    calls: BTreeMap<String, Json>,
    asked: Vec<String>,
}

fn told(steps: &str) -> Told {
    let indented: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    let file = format!(
        "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: a, version: 1.0.0 }}\nspec:\n  tools: ['*']\n  program:\n    script:\n      steps:\n{indented}"
    );
    let set = AgentSet::from_files("a.yaml", &BTreeMap::from([("a.yaml".to_owned(), file.into_bytes())]));
    let spec = set.unwrap_or_else(|errors| panic!("{errors:#?}")).top();
    Told { spec, transcript: Transcript::new(ME), calls: BTreeMap::new(), asked: Vec::new() }
}

impl Told {
    /// Runs until it waits or ends; `answer` gives the record of each command by its path.
    fn run(&mut self, answer: impl Fn(&str) -> Record) -> Next {
        let mut driver = Driver::new(&self.spec);
        loop {
            let next = driver.advance(&self.transcript);
            let Next::Commands(asks) = next else { return next };
            for ask in asks {
                if let Ask::Call { path, arguments, .. } = &ask {
                    self.calls.insert(path.clone(), serde_json::from_str(arguments).expect("JSON"));
                }
                self.asked.push(ask.path().to_owned());
                self.transcript.records.insert(ask.id(), answer(ask.path()));
            }
        }
    }
}

fn ok(result: Json) -> Record {
    Record::Finished { outcome: "Succeeded".to_owned(), ok: true, result: Some(result), withheld: false }
}

fn failed(outcome: &str) -> Record {
    Record::Finished { outcome: outcome.to_owned(), ok: false, result: None, withheld: false }
}

fn refused() -> Record {
    Record::Refused { code: Code::OutOfScope, need: Some("fs:project/b#read".to_owned()), detail: None }
}

const COMPLETED: Next = Next::End { completed: true, code: EndCode::None, why: None };

fn ended(code: EndCode, path: &str, detail: &str) -> Next {
    let why = Some(Why { path: path.to_owned(), detail: detail.to_owned() });
    Next::End { completed: false, code, why }
}

#[test]
fn references_are_replaced_whole_at_any_depth() {
    let mut script = told(
        "- { id: scan, call: { tool: t, save: found } }\n\
         - id: use\n  call:\n    tool: t\n    args:\n      all: { ref: steps.scan.output }\n      one: [ { deep: { ref: found, pointer: /files/1 } } ]\n      word: { ref: steps.scan.outcome }\n      none: { ref: steps.scan.code }\n      text: '{{ steps.scan.output }} $(x)'",
    );
    let result = json!({ "files": ["a; rm -rf /", "b\n"], "ratio": 0.5 });
    assert_eq!(script.run(|_| ok(result.clone())), COMPLETED);
    assert_eq!(
        script.calls["use"],
        json!({ "all": result, "one": [{ "deep": "b\n" }], "word": "succeeded", "none": null, "text": "{{ steps.scan.output }} $(x)" })
    );
}

#[test]
fn a_loop_runs_once_per_item_in_order_and_leaves_a_list() {
    let mut script = told(
        "- { id: scan, call: { tool: t } }\n\
         - id: each\n  for_each:\n    in: { ref: steps.scan.output, pointer: /files }\n    as: file\n    steps:\n      - { id: skip, when: { ref: file, pointer: /size, max: 1 }, call: { tool: t } }\n      - { id: read, on_error: continue, when: { ref: file, pointer: /size, min: 1 }, call: { tool: t, args: { path: { ref: file, pointer: /name } } } }\n\
         - { id: end, call: { tool: t, args: { all: { ref: steps.each.output }, second: { ref: steps.each.output, pointer: /1/n } } } }",
    );
    let files =
        json!({ "files": [{ "name": "a", "size": 0 }, { "name": "b", "size": 5 }, { "name": "c", "size": 6 }] });
    let answer = |path: &str| match path {
        "scan" => ok(files.clone()),
        "each[2].read" => failed("not-found"),
        _ => ok(json!({ "n": path })),
    };
    assert_eq!(script.run(answer), COMPLETED);
    assert_eq!(script.asked, ["scan", "each[0].skip", "each[1].read", "each[2].read", "end"]);
    assert_eq!(script.calls["each[1].read"], json!({ "path": "b" }));
    let all = json!([null, { "n": "each[1].read" }, null]);
    assert_eq!(script.calls["end"], json!({ "all": all, "second": "each[1].read" }));
}

#[test]
fn inner_loops_see_outer_items() {
    let mut script = told(
        "- id: a\n  for_each:\n    in: [ [ 1, 2 ], [ 3 ], [] ]\n    as: row\n    steps:\n      - { id: b, for_each: { in: { ref: row }, as: cell, steps: [ { id: c, call: { tool: t, args: { row: { ref: row, pointer: /0 }, cell: { ref: cell } } } } ] } }",
    );
    assert_eq!(script.run(|_| ok(Json::Null)), COMPLETED);
    assert_eq!(script.asked, ["a[0].b[0].c", "a[0].b[1].c", "a[1].b[0].c"]);
    assert_eq!(script.calls["a[0].b[1].c"], json!({ "row": 1, "cell": 2 }));
}

#[test]
fn a_failed_or_refused_call_fails_the_script_unless_it_may_go_on() {
    let steps = "- { id: a, call: { tool: reader } }\n- { id: b, call: { tool: t } }";
    let end = told(steps).run(|_| failed("not-found"));
    assert_eq!(end, ended(EndCode::Call, "a", "the call of `reader` ended as `not-found`"));
    let end = told(steps).run(|_| refused());
    let detail = "the call of `reader` was refused: OUT_OF_SCOPE, it needs `fs:project/b#read`";
    assert_eq!(end, ended(EndCode::Call, "a", detail));
    let end = told(steps).run(|_| Record::Refused { code: Code::Budget, need: None, detail: None });
    assert_eq!(end, ended(EndCode::Budget, "a", "the call of `reader` was refused: BUDGET"));

    let mut script = told(
        "- { id: a, on_error: continue, call: { tool: t } }\n\
         - { id: b, on_error: continue, call: { tool: t } }\n\
         - { id: c, call: { tool: t, args: { a: { ref: steps.a.outcome }, b: { ref: steps.b.outcome }, code: { ref: steps.b.code } } } }",
    );
    let answer = |path: &str| match path {
        "a" => failed("not-found"),
        "b" => refused(),
        _ => ok(Json::Null),
    };
    assert_eq!(script.run(answer), COMPLETED);
    assert_eq!(script.calls["c"], json!({ "a": "not-found", "b": "refused", "code": "OUT_OF_SCOPE" }));
}

#[test]
fn a_failure_in_a_loop_ends_the_loop_and_then_the_script() {
    let steps = |on_error: &str| {
        format!(
            "- {{ id: each, on_error: {on_error}, for_each: {{ in: [ 1, 2 ], as: n, steps: [ {{ id: r, call: {{ tool: t }} }} ] }} }}\n- {{ id: after, call: {{ tool: t, args: {{ how: {{ ref: steps.each.outcome }} }} }} }}"
        )
    };
    let answer = |path: &str| if path == "after" { ok(Json::Null) } else { failed("x") };
    let mut script = told(&steps("fail"));
    assert_eq!(script.run(answer), ended(EndCode::Call, "each[0].r", "the call of `t` ended as `x`"));
    let mut script = told(&steps("continue"));
    assert_eq!(script.run(answer), COMPLETED);
    assert_eq!(script.asked, ["each[0].r", "after"]);
    assert_eq!(script.calls["after"], json!({ "how": "failed" }));
}

#[test]
fn a_missing_value_fails_the_step_and_says_where_it_looked() {
    let use_it = "- { id: a, call: { tool: t } }\n- { id: b, call: { tool: t, args: { x: { ref: steps.a.output, pointer: /files/3 } } } }";
    let end = told(use_it).run(|_| ok(json!({ "files": [1] })));
    assert_eq!(end, ended(EndCode::NoValue, "b", "steps.a.output has nothing at /files/3"));
    let withheld = Record::Finished { outcome: "Succeeded".into(), ok: true, result: Some(json!(1)), withheld: true };
    let end = told(&use_it.replace(", pointer: /files/3", "")).run(|_| withheld.clone());
    assert_eq!(end, ended(EndCode::NoValue, "b", "steps.a.output has no value"));
    let walk = "- { id: a, call: { tool: t } }\n- { id: b, for_each: { in: { ref: steps.a.output }, as: x, steps: [ { id: c, call: { tool: t } } ] } }";
    let end = told(walk).run(|_| ok(json!({ "files": [] })));
    assert_eq!(end, ended(EndCode::NoValue, "b", "steps.a.output is not a list"));
    let mut script = told(
        "- { id: a, on_error: continue, call: { tool: t, args: { x: { ref: v, pointer: /gone } } } }\n"
            .replace("ref: v", "ref: steps.z.output")
            .replace("- { id: a", "- { id: z, call: { tool: t } }\n- { id: a")
            .as_str(),
    );
    assert_eq!(script.run(|_| ok(Json::Null)), COMPLETED);
    assert_eq!(script.asked, ["z"]);
}

#[test]
fn conditions_hold_as_their_table_says() {
    let value = json!({ "n": 3, "s": "three", "null": null, "list": [1, 2] });
    let no_value = |detail: &str| Err(ended(EndCode::NoValue, "b", detail));
    let table: [(&str, Result<bool, Next>); 22] = [
        ("pointer: /n, equals: 3", Ok(true)),
        ("pointer: /n, equals: '3'", Ok(false)),
        ("pointer: /n, not: 4", Ok(true)),
        ("pointer: /n, not: 3", Ok(false)),
        ("pointer: /n, max: 3", Ok(true)),
        ("pointer: /n, max: 2", Ok(false)),
        ("pointer: /n, min: 3", Ok(true)),
        ("pointer: /n, min: 4", Ok(false)),
        ("pointer: /n, min: { ref: steps.a.output, pointer: /list/1 }", Ok(true)),
        ("pointer: /n, equals: { ref: steps.a.output, pointer: /n }", Ok(true)),
        ("pointer: /list, equals: [ 1, 2 ]", Ok(true)),
        ("pointer: /list, equals: [ 1, { ref: steps.a.output, pointer: /list/1 } ]", Ok(true)),
        ("pointer: /null, equals: null", Ok(true)),
        ("pointer: /null, exists: true", Ok(true)),
        ("pointer: /gone, exists: true", Ok(false)),
        ("pointer: /gone, exists: false", Ok(true)),
        ("pointer: /n, exists: false", Ok(false)),
        ("pointer: /gone, equals: 3", no_value("steps.a.output has nothing at /gone")),
        ("pointer: /gone, not: 3", no_value("steps.a.output has nothing at /gone")),
        ("pointer: /s, max: 3", no_value("steps.a.output at /s is not an integer")),
        ("pointer: /n, max: { ref: steps.a.output, pointer: /s }", no_value("steps.a.output at /s is not an integer")),
        (
            "pointer: /n, equals: { ref: steps.a.output, pointer: /gone }",
            no_value("steps.a.output has nothing at /gone"),
        ),
    ];
    for (test, expected) in table {
        let mut script = told(&format!(
            "- {{ id: a, call: {{ tool: t }} }}\n- {{ id: b, when: {{ ref: steps.a.output, {test} }}, call: {{ tool: t }} }}"
        ));
        let end = script.run(|_| ok(value.clone()));
        match expected {
            Ok(runs) => assert_eq!((end, script.asked.contains(&"b".to_owned())), (COMPLETED, runs), "{test}"),
            Err(expected) => assert_eq!(end, expected, "{test}"),
        }
    }
}

#[test]
fn a_skipped_step_leaves_the_word_skipped() {
    let mut script = told(
        "- { id: a, call: { tool: t } }\n\
         - { id: b, when: { ref: steps.a.outcome, equals: refused }, call: { tool: t } }\n\
         - { id: c, call: { tool: t, args: { b: { ref: steps.b.outcome } } } }",
    );
    assert_eq!(script.run(|_| ok(Json::Null)), COMPLETED);
    assert_eq!(script.calls["c"], json!({ "b": "skipped" }));
}

#[test]
fn a_fail_step_ends_the_script() {
    let mut script = told(
        "- { id: a, call: { tool: t } }\n- { id: f, when: { ref: steps.a.output, min: 1 }, fail: { code: too-many } }\n- { id: b, call: { tool: t } }",
    );
    assert_eq!(script.run(|_| ok(json!(1))), ended(EndCode::Script, "f", "the script says `too-many`"));
    assert_eq!(script.asked, ["a"]);
}

/// Answers spawns with the agents 1, 2, 3, … in order of their paths' length and letters.
fn family(path: &str) -> Record {
    if path.ends_with("/start") {
        return Record::Done;
    }
    match path {
        "kid" | "each[0].kid" => Record::Spawned { agent: PrincipalId([1; 32]) },
        "each[1].kid" => Record::Spawned { agent: PrincipalId([2; 32]) },
        _ => ok(Json::Null),
    }
}

#[test]
fn a_spawn_starts_the_child_and_goes_on() {
    let mut script = told(
        "- { id: kid, spawn: { spec: a, grants: [ 'fs:project/**#read' ] } }\n- { id: w, wait: { agents: [ kid ] } }\n- { id: c, call: { tool: t, args: { how: { ref: agents.kid.outcome }, code: { ref: agents.kid.code } } } }",
    );
    assert_eq!(script.run(family), Next::Wait);
    assert_eq!(script.asked, ["kid", "kid/start"]);
    script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: true, code: 0 });
    assert_eq!(script.run(family), COMPLETED);
    assert_eq!(script.calls["c"], json!({ "how": "completed", "code": "NONE" }));
}

#[test]
fn a_wait_for_an_agent_that_fails_fails_unless_it_may_go_on() {
    for (on_error, end) in
        [("fail", ended(EndCode::Dependency, "w", "the agent of `kid` failed: CALL")), ("continue", COMPLETED)]
    {
        let mut script = told(&format!(
            "- {{ id: kid, spawn: {{ spec: a }} }}\n- {{ id: w, on_error: {on_error}, wait: {{ agents: [ kid ] }} }}"
        ));
        script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: false, code: 1 });
        assert_eq!(script.run(family), end);
    }
}

#[test]
fn a_wait_after_a_loop_waits_for_every_agent_of_the_loop() {
    let mut script = told(
        "- { id: each, for_each: { in: [ 1, 2 ], as: n, steps: [ { id: kid, spawn: { spec: a } } ] } }\n- { id: w, wait: { agents: [ kid ] } }\n- { id: c, call: { tool: t } }",
    );
    script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: true, code: 0 });
    assert_eq!(script.run(family), Next::Wait);
    script.transcript.ended.insert(PrincipalId([2; 32]), Ended { completed: true, code: 0 });
    assert_eq!(script.run(family), COMPLETED);
}

#[test]
fn a_wait_inside_a_loop_waits_for_the_agent_of_its_own_item() {
    let mut script = told(
        "- { id: each, for_each: { in: [ 1, 2 ], as: n, steps: [ { id: kid, spawn: { spec: a } }, { id: w, on_error: continue, wait: { agents: [ kid ] } }, { id: c, call: { tool: t, args: { how: { ref: steps.w.outcome } } } } ] } }",
    );
    script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: false, code: 1 });
    script.transcript.ended.insert(PrincipalId([2; 32]), Ended { completed: true, code: 0 });
    assert_eq!(script.run(family), COMPLETED);
    assert_eq!(script.calls["each[0].c"], json!({ "how": "agent-failed" }));
    assert_eq!(script.calls["each[1].c"], json!({ "how": "succeeded" }));
}

#[test]
fn no_agent_ends_above_a_living_child_and_no_failure_goes_unseen() {
    let mut script = told("- { id: kid, spawn: { spec: a } }\n- { id: f, call: { tool: t } }");
    assert_eq!(script.run(family), Next::Wait);
    script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: false, code: 17 });
    let detail = "its agent failed and no step looked: SCRIPT";
    assert_eq!(script.run(family), ended(EndCode::Dependency, "kid", detail));
    let mut script = told("- { id: kid, spawn: { spec: a } }\n- { id: f, fail: { code: x } }");
    assert_eq!(script.run(family), Next::Wait);
    script.transcript.ended.insert(PrincipalId([1; 32]), Ended { completed: true, code: 0 });
    assert_eq!(script.run(family), ended(EndCode::Script, "f", "the script says `x`"));
}

#[test]
fn as_many_items_and_steps_as_may_be_run_and_no_more() {
    let walk = "- { id: a, call: { tool: t } }\n- { id: b, for_each: { in: { ref: steps.a.output }, as: x, steps: [ { id: c, when: { ref: x, equals: none }, call: { tool: t } } ] } }";
    let items = |count: usize| ok(Json::Array(vec![json!(1); count]));
    assert_eq!(told(walk).run(|_| items(1_000)), COMPLETED);
    let end = told(walk).run(|_| items(1_001));
    assert_eq!(end, ended(EndCode::TurnLimit, "b", "1001 items; a loop walks at most 1000"));

    // 1 call, 1 outer loop, 9 inner loops, and 999 × 9 + 998 inner steps: 10,000 with two steps to come.
    let rest = |more: usize| {
        let more: String = (0..more)
            .map(|i| format!("\n- {{ id: m{i}, when: {{ ref: steps.a.outcome, equals: none }}, call: {{ tool: t }} }}"))
            .collect();
        format!(
            "- {{ id: a, call: {{ tool: t }} }}\n- {{ id: o, for_each: {{ in: [ 1, 2, 3, 4, 5, 6, 7, 8, 9 ], as: n, steps: [ {{ id: b, for_each: {{ in: {{ ref: steps.a.output }}, as: x, steps: [ {{ id: c, when: {{ ref: x, equals: none }}, call: {{ tool: t }} }} ] }} }} ] }} }}{more}"
        )
    };
    // 2 + 9 + 9 × 1,000 = 9,011 executed steps before the last ones.
    assert_eq!(told(&rest(989)).run(|_| items(1_000)), COMPLETED);
    let end = told(&rest(990)).run(|_| items(1_000));
    assert_eq!(end, ended(EndCode::TurnLimit, "m989", "more than 10000 steps"));
}

#[test]
fn values_that_are_too_large_together_fail_the_step() {
    let large = json!("x".repeat(400_000));
    let steps = |count: usize| {
        let args: String = (0..count).map(|i| format!("p{i}: {{ ref: steps.a.output }}, ")).collect();
        format!("- {{ id: a, call: {{ tool: t }} }}\n- {{ id: b, call: {{ tool: t, args: {{ {args} }} }} }}")
    };
    assert_eq!(told(&steps(2)).run(|_| ok(large.clone())), COMPLETED);
    let end = told(&steps(3)).run(|_| ok(large.clone()));
    assert_eq!(end, ended(EndCode::TurnLimit, "b", "the values together are too large"));
}

#[test]
fn a_record_of_another_kind_is_a_divergence() {
    let mut script = told("- { id: a, call: { tool: t } }");
    assert_eq!(script.run(|_| Record::Done), Next::Diverged { path: "a".to_owned() });
    let mut script = told("- { id: a, spawn: { spec: a } }");
    assert_eq!(script.run(|_| ok(Json::Null)), Next::Diverged { path: "a".to_owned() });
}

#[test]
fn a_command_id_depends_on_the_agent_and_the_whole_path() {
    let id = command_id(ME, "each[3].read");
    assert_eq!(id.to_string().len(), 32);
    assert_ne!(id, command_id(PrincipalId([8; 32]), "each[3].read"));
    assert_ne!(id, command_id(ME, "each[4].read"));
    assert_ne!(command_id(ME, "kid"), command_id(ME, "kid/start"));
}

#[test]
fn the_scripts_that_are_made_up_reach_every_kind_of_end() {
    let mut ends: BTreeMap<EndCode, usize> = BTreeMap::new();
    let mut asked = Vec::new();
    for seed in 0..2_000 {
        let mut world = World::new(seed * 31 + 7);
        let Next::End { code, .. } = run(&spec_of(seed), &mut world, |_, _| {}) else { panic!("diverged") };
        *ends.entry(code).or_default() += 1;
        asked.push(world.asked.len());
    }
    asked.sort_unstable();
    for code in [EndCode::None, EndCode::Call, EndCode::NoValue, EndCode::Budget, EndCode::Dependency, EndCode::Script]
    {
        assert!(ends.get(&code).is_some_and(|count| *count >= 10), "{ends:?}");
    }
    assert!(asked[1_000] >= 5 && asked[1_999] >= 50, "median {}, most {}", asked[1_000], asked[1_999]);
}
