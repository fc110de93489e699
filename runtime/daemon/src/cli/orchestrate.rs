//! `toka orchestrate`: the agents of a folder in one session, each started when those that it requires have completed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use toka_runtime::agents::{AgentSet, Priority};
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::orchestration::{MAX_RUNNING, Plan, Planned, plan};
use toka_runtime::session::{AgentEnd, Finish, plan_grants};

use super::failure::{Failure, exit};
use super::init::open_home;
use super::models::Answers;
use super::print::{count, table, talk};
use super::run::{Run, Work, begin_work, clock_fault, failed, named_root, refuse_file, tell_end};
use super::tools::Key;

/// Without --plan it runs them: each agent is granted what its file asks for, and started by an orchestrator that may
/// start and stop agents and do nothing else. An agent runs when its phase is open and all that it requires have completed;
/// those that require one that failed never start. An interrupted session goes on with `toka run --resume`.
#[derive(Debug, Args)]
pub(crate) struct Orchestrate {
    /// The folder; each `.yaml` file in it with `kind: Agent` is an agent, unless another one spawns it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print in which order the agents would start, and run nothing
    #[arg(long)]
    plan: bool,
    /// How many agents run at a time
    #[arg(long, value_name = "N", default_value_t = MAX_RUNNING, value_parser = clap::value_parser!(u16).range(1..=256))]
    max_running: u16,
    /// A directory that the agents' grants may name; repeat for more
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = named_root)]
    roots: Vec<(String, PathBuf)>,
    /// Grant what the files ask for without asking
    #[arg(long)]
    grant_requested: bool,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    answers: Answers,
    /// One JSON document per entry on stdout as soon as it is durable, then one for the end
    #[arg(long)]
    json: bool,
    /// Say nothing but the result
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(orchestrate: &Orchestrate, home: Option<PathBuf>) -> Result<u8, Failure> {
    let plan = load(&orchestrate.dir)?;
    if orchestrate.plan {
        // What cannot run is no plan.
        let now_us = GuardedClock::new(Arc::new(SystemClock)).now_us().map_err(clock_fault)?;
        plan_grants(&plan, now_us).map_err(failed)?;
        return show(&plan, orchestrate.json);
    }
    let home = open_home(home)?;
    let run = Run {
        file: None,
        roots: orchestrate.roots.clone(),
        grant_requested: orchestrate.grant_requested,
        key: orchestrate.key.clone(),
        resume: None,
        answers: orchestrate.answers.clone(),
        json: orchestrate.json,
        quiet: orchestrate.quiet,
    };
    let work = Work::Plan { plan: &plan, max_running: orchestrate.max_running };
    let finish = begin_work(&run, &home, &work)?;
    if !orchestrate.json {
        print_ends(&finish)?;
    }
    tell_end(&run, &finish)
}

fn load(dir: &Path) -> Result<Plan, Failure> {
    let set = AgentSet::load_folder(dir).map_err(|errors| refuse_file(&errors))?;
    for warning in set.warnings() {
        talk(&format!("{warning}\n  hint: {}", warning.hint));
    }
    plan(set.tops()).map_err(|errors| {
        for error in &errors {
            talk(&format!("error: {error}"));
        }
        Failure::new(
            exit::FAILURE,
            format!("{} in the folder; nothing was run", count(errors.len(), "error", "errors")),
        )
        .hint("`spec.dependencies` of the agent files says who waits for whom")
    })
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical => "critical",
        Priority::High => "high",
        Priority::Medium => "medium",
        Priority::Low => "low",
    }
}

fn show(plan: &Plan, as_json: bool) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>();
    if as_json {
        let one = |planned: &Planned| {
            let agent = planned.spec.agent();
            json!({
                "name": agent.name, "wave": planned.wave, "phase": planned.phase.name(),
                "earlier_for": planned.earlier_for, "priority": priority(agent.priority),
                "required": names(&mut agent.dependencies.required.keys()),
                "optional": names(&mut agent.dependencies.optional.keys()), "essential": agent.on_failure.essential,
            })
        };
        let agents: Vec<_> = plan.agents.iter().map(one).collect();
        writeln!(out, "{}", json!({ "schema": "toka/plan/1", "agents": agents }))?;
        return Ok(exit::OK);
    }
    let mut rows = vec![["WAVE", "AGENT", "PRIORITY", "PHASE", "REQUIRES", "HOPES FOR"].map(str::to_owned).to_vec()];
    for planned in &plan.agents {
        let agent = planned.spec.agent();
        let because = planned.earlier_for.as_ref().map(|name| format!(" (for {name})")).unwrap_or_default();
        let listed = |found: Vec<String>| if found.is_empty() { "-".to_owned() } else { found.join(", ") };
        rows.push(vec![
            planned.wave.to_string(),
            agent.name.clone(),
            priority(agent.priority).to_owned(),
            format!("{}{because}", planned.phase.name()),
            listed(names(&mut agent.dependencies.required.keys())),
            listed(names(&mut agent.dependencies.optional.keys())),
        ]);
    }
    write!(out, "{}", table(&rows))?;
    Ok(exit::OK)
}

/// How an agent ended, in a word.
pub(crate) fn end_word(end: &AgentEnd) -> &'static str {
    match end {
        AgentEnd { completed: true, .. } => "completed",
        AgentEnd { stopped: true, .. } => "stopped",
        AgentEnd { started: false, .. } => "skipped",
        AgentEnd { .. } => "failed",
    }
}

fn print_ends(finish: &Finish) -> Result<(), Failure> {
    for end in &finish.agents {
        let why = end.why.as_ref().map(|why| format!("  {}: {}", why.path, why.detail)).unwrap_or_default();
        let code = if end_word(end) == "failed" { format!("  {}", end.code.name()) } else { String::new() };
        talk(&format!("{:<9}  {}{code}{why}", end_word(end), end.name));
    }
    Ok(())
}
