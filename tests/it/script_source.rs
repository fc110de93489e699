//! Agents whose scripts are made up from a seed: every reference is good, nothing else is likely.

use std::collections::BTreeMap;
use std::sync::Arc;

use toka_runtime::agents::script::{Act, OnError, Reference, Step, Target, Test, Value, When};
use toka_runtime::agents::{Agent, Budget, Dependencies, OnExceed, OnFailure, Priority, Then};

/// A small generator of numbers (SplitMix64), so that a case is its seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn one_of<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Agents by name: `top`, and those that it can reach.
pub(crate) fn agents(seed: u64) -> BTreeMap<String, Agent> {
    let mut dice = Dice(seed);
    let names = ["top", "left", "right.hand"];
    names.iter().map(|name| ((*name).to_owned(), agent(name, &names, &mut dice))).collect()
}

pub(crate) fn pool(agents: BTreeMap<String, Agent>) -> BTreeMap<String, Arc<Agent>> {
    agents.into_iter().map(|(name, agent)| (name, Arc::new(agent))).collect()
}

fn agent(name: &str, names: &[&str], dice: &mut Dice) -> Agent {
    let mut writer = Writer { dice, names, ids: 0, known: Vec::new(), loops: Vec::new(), left: 20 };
    let steps = writer.steps();
    Agent {
        name: name.to_owned(),
        version: "1.2.0-rc.1".to_owned(),
        workstream: dice.once_in(2).then(|| "release".to_owned()),
        labels: BTreeMap::from([("team".to_owned(), text(dice))]),
        extra: BTreeMap::from([("x-owner".to_owned(), text(dice))]),
        description: text(dice),
        instructions: text(dice),
        domain: dice.once_in(2).then(|| text(dice)),
        priority: [Priority::Critical, Priority::High, Priority::Medium, Priority::Low][dice.below(4) as usize],
        tools: vec!["*".to_owned(), "git.*".to_owned()],
        capabilities: vec!["fs:project/**#list,read?depth=1".to_owned(), "agent:*?live=4".to_owned()],
        budget: Budget {
            tokens: 1 + dice.below(1_000_000),
            cost_micro: dice.below(3) * 500_000,
            calls: 1 + dice.below(1_000),
            wall_us: 1 + dice.below(100_000_000_000),
            on_exceed: OnExceed::Fail,
        },
        on_failure: OnFailure {
            then: if dice.once_in(2) { Then::Continue } else { Then::StopDependents },
            essential: dice.once_in(2),
        },
        dependencies: Dependencies::default(),
        steps,
        model: None,
    }
}

/// Text with characters that some reader might take for more than text.
pub(crate) fn text(dice: &mut Dice) -> String {
    let pieces: [&str; 14] =
        ["{{ x }}", "$(rm)", ";", "'", "\"", "\\", " # ", ": ", "ä", "🙂", "- ", "null", "012", "~"];
    (0..dice.below(6)).map(|_| dice.one_of(&pieces)).collect()
}

struct Writer<'d, 'n> {
    dice: &'d mut Dice,
    names: &'n [&'n str],
    ids: u32,
    /// What references may name here: target and how many loops it may be out of.
    known: Vec<Target>,
    loops: Vec<String>,
    left: u32,
}

impl Writer<'_, '_> {
    fn steps(&mut self) -> Vec<Step> {
        let count = if self.loops.is_empty() { 4 + self.dice.below(12) } else { 1 + self.dice.below(4) };
        (0..count).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        self.ids += 1;
        self.left = self.left.saturating_sub(1);
        let id = format!("s{}", self.ids);
        let when = if self.dice.once_in(4) { self.when() } else { None };
        let mut on_error = if self.dice.once_in(10) { OnError::Fail } else { OnError::Continue };
        let act = match self.dice.below(12) {
            0..=5 => self.call(&id),
            6 | 7 => self.spawn(&id),
            8 | 9 if self.loops.len() < 3 && self.left > 0 => self.for_each(&id),
            10 => match self.spawned() {
                Some(agent) => Act::Wait { agents: vec![agent] },
                None => self.call(&id),
            },
            11 if self.dice.once_in(4) => {
                on_error = OnError::Fail;
                Act::Fail { code: "enough".to_owned() }
            }
            _ => self.call(&id),
        };
        if !matches!(act, Act::Fail { .. }) {
            self.known.push(Target::Outcome(id.clone()));
        }
        Step { id, when, on_error, act }
    }

    fn call(&mut self, id: &str) -> Act {
        let args = (0..self.dice.below(4)).map(|n| (format!("p{n}"), self.value(3))).collect();
        self.known.push(Target::Output(id.to_owned()));
        self.known.push(Target::Code(id.to_owned()));
        Act::Call { tool: self.dice.one_of(&["reader", "git.log", "hash"]).to_owned(), args }
    }

    fn spawn(&mut self, id: &str) -> Act {
        self.known.push(Target::Code(id.to_owned()));
        self.known.push(Target::AgentOutcome(id.to_owned()));
        self.known.push(Target::AgentCode(id.to_owned()));
        Act::Spawn { spec: self.dice.one_of(self.names).to_owned(), grants: vec!["fs:project/**#read".to_owned()] }
    }

    fn for_each(&mut self, id: &str) -> Act {
        let items = match self.reference() {
            Some(reference) if self.dice.once_in(2) => Value::Ref(reference),
            _ => Value::List((0..self.dice.below(4)).map(|_| self.value(2)).collect()),
        };
        let variable = format!("v{}", self.loops.len());
        let outside = self.known.len();
        self.loops.push(variable.clone());
        self.known.push(Target::Variable(variable.clone()));
        let steps = self.steps();
        self.loops.pop();
        self.known.truncate(outside);
        if matches!(steps.last(), Some(Step { act: Act::Call { .. }, .. })) {
            self.known.push(Target::Output(id.to_owned()));
        }
        Act::ForEach { items, variable, steps }
    }

    fn spawned(&mut self) -> Option<String> {
        self.known.iter().rev().find_map(|target| match target {
            Target::AgentOutcome(id) => Some(id.clone()),
            Target::Output(_) | Target::Outcome(_) | Target::Code(_) | Target::AgentCode(_) | Target::Variable(_) => {
                None
            }
        })
    }

    fn when(&mut self) -> Option<When> {
        let value = self.reference()?;
        let test = match self.dice.below(5) {
            0 => Test::Equals(self.value(1)),
            1 => Test::Not(self.value(1)),
            2 => Test::Exists(self.dice.once_in(2)),
            3 => Test::Max(Value::Int(self.dice.below(5) as i64)),
            _ => Test::Min(Value::Int(-1)),
        };
        Some(When { value, test })
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.dice.below(if depth == 0 { 4 } else { 7 }) {
            0 => Value::Null,
            1 => Value::Bool(self.dice.once_in(2)),
            2 => Value::Int(self.dice.roll() as i64),
            3 => Value::Text(text(self.dice)),
            4 => Value::List((0..self.dice.below(3)).map(|_| self.value(depth - 1)).collect()),
            5 => Value::Map((0..self.dice.below(3)).map(|n| (format!("m{n}"), self.value(depth - 1))).collect()),
            _ => self.reference().map_or(Value::Null, Value::Ref),
        }
    }

    fn reference(&mut self) -> Option<Reference> {
        if self.known.is_empty() {
            return None;
        }
        let to = self.known[self.dice.below(self.known.len() as u64) as usize].clone();
        let pointer = self.dice.one_of(&["", "", "", "", "", "/files", "/files/0", "/0", "/n", "/gone"]).to_owned();
        Some(Reference { to, pointer })
    }
}
