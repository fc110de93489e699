//! `toka orchestrate`: the agents of a folder, in the order of their dependencies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::models::Told;
use super::{Desk, Ran};

/// What an agent of these tests does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Reads,
    Fails,
}

/// An agent file; `more` goes into its spec.
fn agent(name: &str, does: Does, required: &[&str], optional: &[&str], more: &str) -> String {
    let listed = |names: &[&str]| names.iter().map(|name| format!("{name}: it helps")).collect::<Vec<_>>().join(", ");
    let step = match does {
        Does::Reads => "{ id: read, call: { tool: file-reader, args: { path: \"project:docs/guide.md\" } } }",
        Does::Fails => "{ id: give-up, fail: { code: no-luck } }",
    };
    let tools = if does == Does::Reads { "  tools: [ file-reader ]\n" } else { "" };
    format!(
        "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: {name}, version: 1.0.0 }}\nspec:\n{tools}  \
         capabilities: [ \"fs:project/docs/**#read\", \"tool:file-reader\" ]\n  dependencies: {{ required: {{ {} }}, \
         optional: {{ {} }} }}\n{more}  program: {{ script: {{ steps: [ {step} ] }} }}\n",
        listed(required),
        listed(optional)
    )
}

/// Twelve agents: a base, ten above it of which one fails, and a top that requires nine of them; a required dependency
/// that fails takes what requires it with it, an optional one does not.
fn diamond() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut put = |name: &str, text: String| drop(files.insert(name.to_owned(), text));
    put("base", agent("base", Does::Reads, &[], &[], ""));
    for (index, priority) in ["low", "medium", "high", "low", "medium", "low"].iter().enumerate() {
        let name = format!("mid-{index}");
        let more = format!("  priority: {priority}\n");
        put(&name, agent(&name, Does::Reads, &["base"], &[], &more));
    }
    put("weak", agent("weak", Does::Fails, &["base"], &[], "  on_failure: { essential: false }\n"));
    put("needs-weak", agent("needs-weak", Does::Reads, &["weak"], &[], "  on_failure: { essential: false }\n"));
    put(
        "far-from-weak",
        agent("far-from-weak", Does::Reads, &["needs-weak"], &[], "  on_failure: { essential: false }\n"),
    );
    put("hopes-for-weak", agent("hopes-for-weak", Does::Reads, &["base"], &["weak"], ""));
    let mids: Vec<String> = (0..6).map(|index| format!("mid-{index}")).chain(["hopes-for-weak".to_owned()]).collect();
    let mids: Vec<&str> = mids.iter().map(String::as_str).collect();
    put("top", agent("top", Does::Reads, &mids, &["weak"], "  priority: critical\n"));
    files
}

fn write(desk: &Desk, folder: &str, files: impl IntoIterator<Item = (String, String)>) {
    for (name, text) in files {
        desk.write(&format!("{folder}/{name}.yaml"), text);
    }
}

/// How often the diamond is planned and run.
const ROUNDS: u8 = 100;

/// A folder of the diamond with other file names in each round, so that no listing of it comes in the same order.
fn shuffled(desk: &Desk, round: u8) -> String {
    let folder = format!("round-{round}");
    let mut files: Vec<_> = diamond().into_iter().collect();
    files.sort_by_key(|(name, _)| {
        toka_kernel::hash::derive(toka_kernel::hash::Context::Id, &[&[round], name.as_bytes()])
    });
    for (place, (name, text)) in files.into_iter().enumerate() {
        desk.write(&format!("{folder}/{place:02}-{}.yaml", name.len()), text);
    }
    folder
}

fn plan(desk: &Desk, folder: &str) -> Vec<String> {
    let plan = desk.json(&["orchestrate", folder, "--plan"]);
    let agents = plan["agents"].as_array().expect("agents");
    agents.iter().map(|agent| agent["name"].as_str().expect("a name").to_owned()).collect()
}

fn orchestrate(desk: &Desk, folder: &str, more: &[&str]) -> Ran {
    let args = ["orchestrate", folder, "--root", "project=project", "--grant-requested", "--json"];
    desk.toka(&[&args[..], more].concat())
}

fn started(told: &Told) -> Vec<&str> {
    told.what("AgentStarted").iter().map(|what| what.strip_suffix(" started").expect("who")).collect()
}

fn ends(told: &Told) -> BTreeMap<String, String> {
    let agents = told.end["agents"].as_array().unwrap_or_else(|| panic!("no agents\n{}", told.ran));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    agents.iter().map(|agent| (text(&agent["name"]), text(&agent["outcome"]))).collect()
}

#[test]
fn the_order_is_the_same_however_the_files_lie() {
    let desk = Desk::with_node();
    write(&desk, "agents", diamond());
    let first = plan(&desk, "agents");
    assert_eq!(first.len(), 12);
    for round in 0..ROUNDS {
        assert_eq!(plan(&desk, &shuffled(&desk, round)), first, "round {round}");
    }
}

#[test]
fn a_diamond_runs_in_its_order_and_what_requires_a_failure_never_starts() {
    let desk = Desk::with_node();
    let mut orders = Vec::new();
    for round in 0..ROUNDS {
        let told = Told::of(orchestrate(&desk, &shuffled(&desk, round), &["--max-running", "1"]));
        told.ran.expect(0);
        let ends = ends(&told);
        let of = |outcome: &str| {
            ends.iter().filter(|(_, end)| *end == outcome).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((of("failed"), of("skipped")), (vec!["weak"], vec!["far-from-weak", "needs-weak"]));
        assert_eq!(of("completed").len(), 9);
        let order: Vec<String> = started(&told).into_iter().map(str::to_owned).collect();
        let at =
            |name: &str| order.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name}: {order:?}"));
        assert!(at("base") == 0 && at("top") > at("mid-5") && at("top") > at("hopes-for-weak"), "{order:?}");
        assert!(!order.iter().any(|name| name == "needs-weak" || name == "far-from-weak"));
        orders.push(order);
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "{orders:#?}");
}

#[test]
fn many_agents_need_one_right_to_be_spawned_and_what_cannot_begin_is_no_plan() {
    let desk = Desk::with_node();
    let names = |count: usize| (0..count).map(|index| format!("many-{index:03}"));
    write(&desk, "agents", names(120).map(|name| (name.clone(), agent(&name, Does::Reads, &[], &[], ""))));
    let told = Told::of(orchestrate(&desk, "agents", &[]));
    told.ran.expect(0);
    assert_eq!(ends(&told).values().filter(|end| *end == "completed").count(), 120);
    // Each of these asks for a capability of its own.
    let own = |name: String| {
        let text = agent(&name, Does::Reads, &[], &[], "").replace("project/docs/**", &format!("project/docs/{name}"));
        (name, text)
    };
    write(&desk, "apart", names(70).map(own));
    let ran = desk.toka(&["orchestrate", "apart", "--plan"]);
    ran.expect(1);
    assert!(ran.err.contains("ask for 72 different capabilities together, at most 64 are allowed"), "{ran}");
}

#[test]
fn a_required_dependency_of_somebody_critical_runs_in_its_phase() {
    let desk = Desk::with_node();
    write(&desk, "agents", diamond());
    let ran = desk.toka(&["orchestrate", "agents", "--plan"]);
    ran.expect(0);
    let line =
        |name: &str| ran.out.lines().find(|line| line.contains(&format!("  {name} "))).unwrap_or_default().to_owned();
    assert!(line("base").contains("critical-infrastructure (for "), "{ran}");
    assert!(line("weak").contains("parallel-development"), "an optional one keeps its own\n{ran}");
}

#[test]
fn no_more_run_at_a_time_than_is_said() {
    let desk = Desk::with_node();
    let many =
        (0..9).map(|index| format!("many-{index}")).map(|name| (name.clone(), agent(&name, Does::Reads, &[], &[], "")));
    write(&desk, "agents", many);
    for most in [1, 2, 4] {
        let told = Told::of(orchestrate(&desk, "agents", &["--max-running", &most.to_string()]));
        told.ran.expect(0);
        let (mut running, mut seen) = (0_u32, 0);
        for entry in &told.entries {
            match entry["kind"].as_str() {
                Some("AgentStarted") => running += 1,
                Some("AgentEnded") => running -= 1,
                _ => {}
            }
            seen = seen.max(running);
        }
        assert_eq!(seen, most, "{}", told.ran);
    }
}

#[test]
fn an_essential_agent_that_fails_fails_the_session_and_continue_lets_others_go_on() {
    let desk = Desk::with_node();
    write(
        &desk,
        "strict",
        [
            ("first".to_owned(), agent("first", Does::Fails, &[], &[], "")),
            ("second".to_owned(), agent("second", Does::Reads, &["first"], &[], "")),
        ],
    );
    let told = Told::of(orchestrate(&desk, "strict", &[]));
    told.ran.expect(1);
    assert_eq!(ends(&told)["second"], "skipped");
    let goes_on = "  on_failure: { then: continue, essential: false }\n";
    write(
        &desk,
        "mild",
        [
            ("first".to_owned(), agent("first", Does::Fails, &[], &[], goes_on)),
            ("second".to_owned(), agent("second", Does::Reads, &["first"], &[], "")),
        ],
    );
    let told = Told::of(orchestrate(&desk, "mild", &[]));
    told.ran.expect(0);
    assert_eq!(ends(&told)["second"], "completed");
}

#[test]
fn what_cannot_be_put_into_an_order_is_told_and_nothing_runs() {
    let desk = Desk::with_node();
    let refused = |folder: &str, says: &str| {
        let ran = orchestrate(&desk, folder, &[]);
        ran.expect(1);
        assert!(ran.err.contains(says), "{says}\n{ran}");
    };
    write(
        &desk,
        "circle",
        [
            ("a".to_owned(), agent("a", Does::Reads, &["c"], &[], "")),
            ("b".to_owned(), agent("b", Does::Reads, &["a"], &[], "")),
            ("c".to_owned(), agent("c", Does::Reads, &["b"], &[], "")),
        ],
    );
    refused("circle", "agents require each other: a -> c -> b -> a");
    write(&desk, "unknown", [("a".to_owned(), agent("a", Does::Reads, &["nobody"], &["none"], ""))]);
    refused("unknown", "the agent `a` depends on `nobody`, and no agent file of the folder has that name");
    refused("unknown", "2 errors in the folder; nothing was run");
    write(&desk, "self", [("a".to_owned(), agent("a", Does::Reads, &["a"], &[], ""))]);
    refused("self", "`a` depends on itself");
    let twice = agent("a", Does::Reads, &[], &[], "");
    write(&desk, "twice", [("one".to_owned(), twice.clone()), ("two".to_owned(), twice)]);
    refused("twice", "the agent `a` has two files");
    let row = (0..17).map(|index| {
        let before = format!("r-{:02}", index - 1);
        let required = if index == 0 { vec![] } else { vec![before.as_str()] };
        let name = format!("r-{index:02}");
        (name.clone(), agent(&name, Does::Reads, &required, &[], ""))
    });
    write(&desk, "deep", row);
    refused("deep", "more than 16 agents wait for each other in a row, up to `r-16`");
    desk.write("empty/readme.txt", "nothing");
    let ran = orchestrate(&desk, "empty", &[]);
    ran.expect(8);
    assert!(ran.err.contains("there is no agent file in this folder"), "{ran}");
    assert_eq!(desk.json(&["sessions", "list"])["sessions"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn one_agent_that_requires_another_does_not_run_alone() {
    let desk = Desk::with_node();
    let ran = desk.run(&agent("a", Does::Reads, &["b"], &[], ""));
    ran.expect(1);
    assert!(ran.err.contains("the agent `a` requires `b`, which would not run"), "{ran}");
}

#[test]
fn an_orchestrator_that_was_killed_goes_on_as_another_would_have() {
    let desk = Desk::with_node();
    write(&desk, "agents", diamond());
    let whole = Told::of(orchestrate(&desk, "agents", &["--max-running", "1"]));
    whole.ran.expect(0);
    let order = whole.what("AgentStarted");
    let args =
        ["orchestrate", "agents", "--root", "project=project", "--grant-requested", "--json", "--max-running", "1"];
    let mut interrupted = 0;
    for after in (15..whole.entries.len()).step_by(4) {
        let Some((session, _)) = desk.killed_after(&args, after) else { continue };
        interrupted += 1;
        let rest = Told::of(desk.toka(&["run", "--resume", &session, "--json"]));
        rest.ran.expect(0);
        assert_eq!(ends(&rest), ends(&whole), "killed after {after}");
        let shown = desk.json(&["sessions", "show", &session]);
        let moments = shown["timeline"].as_array().expect("a timeline");
        let again = moments.iter().filter(|moment| moment["kind"] == "AgentStarted");
        let again: Vec<&str> = again.map(|moment| moment["what"].as_str().expect("text")).collect();
        assert_eq!(again, order, "killed after {after}");
    }
    assert!(interrupted >= 3, "{interrupted} runs were interrupted");
}
