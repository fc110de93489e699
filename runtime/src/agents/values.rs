//! Values, references and conditions of a script, read from a file with what is in scope at their place.

use std::collections::BTreeMap;

use toka_tools::files::yaml::{Kind, Member, Node, Place};
use toka_tools::files::{FileCode, Problems, Shape, nearest, quote};

use super::limits::MEMBER_BYTES_MAX;
use super::script::{Reference, Target, Test, Value, When};

/// What the steps read so far have left, and which loops are open.
pub(super) struct Values {
    /// Every id of the script and its place.
    ids: BTreeMap<String, Place>,
    known: BTreeMap<String, Known>,
    /// Names given by `save`, and the steps they stand for.
    saved: BTreeMap<String, String>,
    loops: Vec<Open>,
}

/// A step that has been read.
struct Known {
    leaves: Leaves,
    /// The loops around it.
    loops: Vec<String>,
}

/// What a step leaves for references.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Output, outcome and code.
    Call,
    /// Outcome and code, and an agent.
    Agent,
    /// Outcome, and output when its last step is a call.
    Loop { output: bool },
    /// An outcome.
    Wait,
    /// Nothing is known about it; it is reported already or ends the script.
    Nothing,
}

struct Open {
    id: String,
    variable: Option<String>,
}

impl Values {
    pub(super) fn new(ids: BTreeMap<String, Place>) -> Values {
        Values { ids, known: BTreeMap::new(), saved: BTreeMap::new(), loops: Vec::new() }
    }

    pub(super) fn known_call(&mut self, id: Option<&str>) {
        self.know(id, Leaves::Call);
    }

    pub(super) fn known_spawn(&mut self, id: Option<&str>) {
        self.know(id, Leaves::Agent);
    }

    pub(super) fn known_loop(&mut self, id: Option<&str>, output: bool) {
        self.know(id, Leaves::Loop { output });
    }

    pub(super) fn known_wait(&mut self, id: Option<&str>) {
        self.know(id, Leaves::Wait);
    }

    pub(super) fn known_broken(&mut self, id: Option<&str>) {
        self.know(id, Leaves::Nothing);
    }

    fn know(&mut self, id: Option<&str>, leaves: Leaves) {
        let Some(id) = id else { return };
        let loops = self.loops.iter().map(|open| open.id.clone()).collect();
        self.known.entry(id.to_owned()).or_insert(Known { leaves, loops });
    }

    pub(super) fn depth(&self) -> usize {
        self.loops.len()
    }

    pub(super) fn enter_loop(&mut self, id: Option<&str>, variable: Option<&str>) {
        self.loops.push(Open { id: id.unwrap_or_default().to_owned(), variable: variable.map(str::to_owned) });
    }

    pub(super) fn leave_loop(&mut self) {
        self.loops.pop();
    }

    /// Whether a name can be given to something else; reports when it is taken.
    pub(super) fn check_new_name(&self, name: &str, place: Place, problems: &mut Problems<'_>) -> bool {
        let reserved = matches!(name, "steps" | "agents");
        let open = self.loops.iter().any(|open| open.variable.as_deref() == Some(name));
        if reserved || open || self.saved.contains_key(name) {
            let message = format!("the name {} is taken", quote(name));
            problems.report(place, FileCode::DuplicateId, message, "choose another name");
            return false;
        }
        true
    }

    pub(super) fn save(&mut self, name: &str, id: &str, place: Place, problems: &mut Problems<'_>) {
        if self.check_new_name(name, place, problems) {
            self.saved.insert(name.to_owned(), id.to_owned());
        }
    }

    /// The arguments of a call: a mapping of parameters, itself never a reference.
    pub(super) fn args(&self, node: &Node, problems: &mut Problems<'_>) -> Option<BTreeMap<String, Value>> {
        let members = problems.map(node, "args")?;
        if let [Member { name, value: Node { kind: Kind::Text(text), .. }, place }, ..] = members
            && name == "ref"
            && members.iter().all(|member| matches!(member.name.as_str(), "ref" | "pointer"))
            && self.looks_like_reference(&text.value)
        {
            let message = "`args` itself cannot be a reference";
            let hint = "put the reference under the name of a parameter: `args: { content: { ref: … } }`";
            problems.report(*place, FileCode::BadReference, message, hint);
            return None;
        }
        self.members(members, problems)
    }

    /// JSON, in which `{ ref, pointer? }` is a reference.
    pub(super) fn value(&self, node: &Node, problems: &mut Problems<'_>) -> Option<Value> {
        match &node.kind {
            Kind::Null => Some(Value::Null),
            Kind::Bool(bit) => Some(Value::Bool(*bit)),
            Kind::Int(number) => Some(Value::Int(*number)),
            Kind::Number(number) => {
                let message = format!("{} is not an integer of 64 bits, and fractions are not kept", quote(number));
                problems.report(node.place, FileCode::BadNumber, message, format!("write it as text: \"{number}\""));
                None
            }
            Kind::Text(text) => Some(Value::Text(text.value.clone())),
            Kind::List(items) => {
                let values: Vec<Option<Value>> = items.iter().map(|item| self.value(item, problems)).collect();
                Some(Value::List(values.into_iter().collect::<Option<_>>()?))
            }
            Kind::Map(members) if members.iter().any(|member| member.name == "ref") => {
                if let Some(other) = members.iter().find(|member| !matches!(member.name.as_str(), "ref" | "pointer")) {
                    let message = format!("a mapping with `ref` is a reference, it cannot have {}", quote(&other.name));
                    let hint = "a reference has `ref` and `pointer` only";
                    problems.report(other.place, FileCode::BadReference, message, hint);
                    return None;
                }
                self.reference(members, problems).map(Value::Ref)
            }
            Kind::Map(members) => self.members(members, problems).map(Value::Map),
            Kind::Broken => None,
        }
    }

    fn members(&self, members: &[Member], problems: &mut Problems<'_>) -> Option<BTreeMap<String, Value>> {
        let mut values = BTreeMap::new();
        let mut whole = true;
        for member in members {
            if member.name.len() > MEMBER_BYTES_MAX {
                let message = format!("the name of a member is {} bytes long", member.name.len());
                let hint = format!("at most {MEMBER_BYTES_MAX} bytes are allowed");
                problems.report(member.place, FileCode::TooLong, message, hint);
                whole = false;
            }
            match self.value(&member.value, problems) {
                Some(value) => drop(values.insert(member.name.clone(), value)),
                None => whole = false,
            }
        }
        whole.then_some(values)
    }

    /// `{ ref, pointer? }` and one test.
    pub(super) fn when(&self, node: &Node, problems: &mut Problems<'_>) -> Option<When> {
        const TESTS: [&str; 5] = ["equals", "not", "exists", "max", "min"];
        let known = &["ref", "pointer", "equals", "not", "exists", "max", "min"];
        let fields = problems.fields(node, &Shape { what: "when", known, later: &[], prefix: None })?;
        fields.required("ref", "ref: steps.ID.outcome", problems)?;
        let value = self.reference(fields.members(), problems);
        let tests: Vec<&str> = TESTS.iter().copied().filter(|test| fields.get(test).is_some()).collect();
        let [name] = tests[..] else {
            let message = format!("the condition has {} tests", tests.len());
            let hint = "give it one of `equals`, `not`, `exists`, `max`, `min`";
            let place = tests.get(1).map_or(fields.place, |second| fields.place_of(second));
            problems.report(place, FileCode::BadCondition, message, hint);
            return None;
        };
        let operand = fields.get(name)?;
        let test = match name {
            "exists" => problems.flag(operand, "exists").map(Test::Exists),
            "equals" => self.value(operand, problems).map(Test::Equals),
            "not" => self.value(operand, problems).map(Test::Not),
            "max" => self.bound(operand, "max", problems).map(Test::Max),
            _ => self.bound(operand, "min", problems).map(Test::Min),
        };
        Some(When { value: value?, test: test? })
    }

    /// An integer, or a reference to one.
    fn bound(&self, node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<Value> {
        match self.value(node, problems)? {
            value @ (Value::Int(_) | Value::Ref(_)) => Some(value),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                problems.wrong_type(node, what, "an integer", "write a number, or a reference to one");
                None
            }
        }
    }

    fn reference(&self, members: &[Member], problems: &mut Problems<'_>) -> Option<Reference> {
        let pointer = match members.iter().find(|member| member.name == "pointer") {
            Some(member) => problems.pointer(&member.value),
            None => Some(String::new()),
        };
        let node = &members.iter().find(|member| member.name == "ref")?.value;
        let text = problems.text(node, "ref")?;
        let to = self.target(text, node, problems)?;
        Some(Reference { to, pointer: pointer? })
    }

    fn target(&self, text: &str, node: &Node, problems: &mut Problems<'_>) -> Option<Target> {
        let parts: Vec<&str> = text.split('.').collect();
        let bad = |problems: &mut Problems<'_>, message: String, hint: String| {
            problems.report(node.place, FileCode::BadReference, message, hint);
            None
        };
        match parts[..] {
            ["steps", id, part] => {
                let known = self.step(id, node, problems)?;
                let (id_owned, has): (_, &[&str]) = (id.to_owned(), known.leaves.parts());
                match part {
                    "output" if has.contains(&part) => Some(Target::Output(id_owned)),
                    "outcome" if has.contains(&part) => Some(Target::Outcome(id_owned)),
                    "code" if has.contains(&part) => Some(Target::Code(id_owned)),
                    _ if known.leaves == Leaves::Nothing => None,
                    _ => {
                        let message = format!("the step {} has no {}", quote(id), quote(part));
                        let parts: Vec<_> = has.iter().map(|part| format!("`steps.{id}.{part}`")).collect();
                        bad(problems, message, format!("write {}", parts.join(" or ")))
                    }
                }
            }
            ["agents", name, part] => {
                let id = self.saved.get(name).map_or(name, String::as_str);
                let known = self.step(id, node, problems)?;
                match (known.leaves, part) {
                    (Leaves::Agent, "outcome") => Some(Target::AgentOutcome(id.to_owned())),
                    (Leaves::Agent, "code") => Some(Target::AgentCode(id.to_owned())),
                    (Leaves::Nothing, _) => None,
                    (Leaves::Agent, _) => {
                        let message = format!("the agent {} has no {}", quote(name), quote(part));
                        bad(problems, message, format!("write `agents.{name}.outcome` or `agents.{name}.code`"))
                    }
                    (Leaves::Call | Leaves::Loop { .. } | Leaves::Wait, _) => {
                        let message = format!("the step {} spawns no agent", quote(id));
                        bad(problems, message, format!("write `steps.{id}.outcome`"))
                    }
                }
            }
            [name] if self.variables().any(|variable| variable == name) => Some(Target::Variable(name.to_owned())),
            [name] if self.saved.contains_key(name) => {
                let id = self.saved.get(name)?;
                match self.step(id, node, problems)?.leaves {
                    Leaves::Call => Some(Target::Output(id.clone())),
                    Leaves::Agent => {
                        let message = format!("{} is an agent", quote(name));
                        bad(problems, message, format!("write `agents.{name}.outcome`"))
                    }
                    Leaves::Loop { .. } | Leaves::Wait | Leaves::Nothing => None,
                }
            }
            _ => {
                let names = self.variables().chain(self.saved.keys().map(String::as_str));
                let near = if parts.len() == 1 { nearest(text, names) } else { None };
                let hint = match near {
                    Some(near) => format!("did you mean {}?", quote(near)),
                    None => {
                        "write `steps.ID.output`, `steps.ID.outcome`, `steps.ID.code`, `agents.ID.outcome`, or the \
                             name of a loop's item or of a `save`"
                            .to_owned()
                    }
                };
                bad(problems, format!("{} refers to nothing", quote(text)), hint)
            }
        }
    }

    /// A step that a reference here may name.
    fn step(&self, id: &str, node: &Node, problems: &mut Problems<'_>) -> Option<&Known> {
        let here: Vec<&str> = self.loops.iter().map(|open| open.id.as_str()).collect();
        match self.known.get(id) {
            Some(known)
                if known.loops.iter().zip(&here).all(|(there, here)| there == here)
                    && known.loops.len() <= here.len() =>
            {
                Some(known)
            }
            Some(known) => {
                let inside = known.loops.iter().find(|id| !here.contains(&id.as_str())).map_or("", String::as_str);
                let message = format!("the step {} runs once per item of {}", quote(id), quote(inside));
                let hint = format!(
                    "refer to it inside the loop, or to `steps.{inside}.output`: what the last step of the loop \
                     returned, by item"
                );
                problems.report(node.place, FileCode::BadReference, message, hint);
                None
            }
            None => {
                self.report_unknown(id, node, problems);
                None
            }
        }
    }

    /// A spawn step that a wait names: any that stands before, in a loop that is over too.
    pub(super) fn agent(&self, node: &Node, problems: &mut Problems<'_>) -> Option<String> {
        let name = problems.text(node, "agents")?;
        let id = self.saved.get(name).map_or(name, String::as_str);
        match self.known.get(id).map(|known| known.leaves) {
            Some(Leaves::Agent) => Some(id.to_owned()),
            Some(Leaves::Nothing) => None,
            Some(Leaves::Call | Leaves::Loop { .. } | Leaves::Wait) => {
                let message = format!("the step {} spawns no agent", quote(id));
                problems.report(node.place, FileCode::BadReference, message, "name a `spawn` step");
                None
            }
            None => {
                self.report_unknown(id, node, problems);
                None
            }
        }
    }

    fn report_unknown(&self, id: &str, node: &Node, problems: &mut Problems<'_>) {
        if let Some(place) = self.ids.get(id) {
            let message = format!("the step {} is not over here", quote(id));
            let hint = format!("it stands at line {}: refer to steps that come before", place.line);
            problems.report(node.place, FileCode::BadReference, message, hint);
            return;
        }
        let hint = match nearest(id, self.known.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {}?", quote(near)),
            None => "name the id of a step that comes before".to_owned(),
        };
        problems.report(node.place, FileCode::BadReference, format!("no step has the id {}", quote(id)), hint);
    }

    fn variables(&self) -> impl Iterator<Item = &str> + Clone {
        self.loops.iter().filter_map(|open| open.variable.as_deref())
    }

    fn looks_like_reference(&self, text: &str) -> bool {
        text.starts_with("steps.")
            || text.starts_with("agents.")
            || self.variables().any(|variable| variable == text)
            || self.saved.contains_key(text)
    }
}

impl Leaves {
    fn parts(self) -> &'static [&'static str] {
        match self {
            Leaves::Call => &["output", "outcome", "code"],
            Leaves::Agent => &["outcome", "code"],
            Leaves::Loop { output: true } => &["output", "outcome"],
            Leaves::Loop { output: false } | Leaves::Wait => &["outcome"],
            Leaves::Nothing => &[],
        }
    }
}
