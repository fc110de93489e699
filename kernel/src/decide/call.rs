//! Calls: admission and the report of how one ended.

use crate::body::v1::{CallAdmitted, CallAsked, CallFinished, Cmd, LimitReached, Outcome, ReportAsked};
use crate::budget::{self, CALLS, LIMITED, NoRoom, TOKENS, Vector, WALL};
use crate::capability::{Capability, ExactName, Scope, Use};
use crate::decide::{Answer, grant, outcome, task, tool};
use crate::denial::{Code, Denial, Dim};
use crate::event::Body;
use crate::facts::{Fact, FactType};
use crate::ids::{CallId, GrantId, PrincipalId, TimeUs};
use crate::limits::{CALLS_OPEN_MAX, DIMENSIONS, TIME_US_MAX};
use crate::state::{BoundTool, Call, State, TaskState};

/// The name of the approval policy that is always there.
const BUILT_IN_POLICY: &str = "approval";

pub(crate) fn call(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &CallAsked,
    blobs: usize,
    at: TimeUs,
) -> Result<Answer, Denial> {
    let name = ExactName::parse(&asked.tool).map_err(|code| Denial::new(code).rule("tool"))?;
    if let Some(code) = asked.unfit {
        return Err(unfit(code));
    }
    if asked.detail.is_some() {
        // No admission could refer to that blob.
        return Err(Denial::new(Code::Malformed).rule("detail without unfit"));
    }
    if asked.parent.is_some() {
        return Err(Denial::new(Code::Malformed).rule("parent: not built in these rules"));
    }
    if let Some(id) = asked.task {
        let task = task::find_of(state, id, by)?;
        if task.state != TaskState::Started {
            return Err(task::not_from(task));
        }
    }
    let tool = state.tools.get(&asked.tool).ok_or(Denial::new(Code::UnknownTool))?;
    if tool.digest != asked.digest {
        return Err(Denial::new(Code::DigestChanged));
    }
    tool::callable(tool)?;
    if state.executor_of(tool.model).is_none() {
        return Err(Denial::new(Code::WrongKind).rule("no executor"));
    }
    let needs = needs(tool, &name, &asked.facts, asked.extra)?;
    let of_model = needs.iter().any(|need| matches!(need, Scope::Model(_)));
    if !of_model && !asked.pieces(blobs).is_empty() {
        return Err(Denial::new(Code::Malformed).rule("pieces: only what is sent to a model has them"));
    }
    let worst = worst_case(tool, &asked.facts)?;
    let reserve = lowered(&worst, &asked.asked)?;
    let narrow = parse_narrow(&asked.narrow, needs.len())?;
    if asked.need_grants.len() + 1 != needs.len() {
        let next = needs.get(asked.need_grants.len() + 1).map(|scope| Capability::of(scope.clone()));
        let denial = Denial::new(Code::NeedUnnamed).item(asked.need_grants.len() + 1);
        return Err(match next {
            Some(need) => denial.need(need),
            None => denial,
        });
    }
    let mut leaves = Vec::with_capacity(needs.len());
    for (item, id) in named(asked).enumerate() {
        let index = grant::usable(state, id, by, at)
            .map_err(|denial| denial.item(item).need(Capability::of(needs[item].clone())))?;
        leaves.push(index);
    }
    for (item, need) in needs.iter().enumerate() {
        covered(state, need, leaves[item], item)?;
    }
    for (item, need) in needs.iter().enumerate() {
        let narrow = narrow.get(item).and_then(Option::as_ref);
        narrowed(need, narrow, item, at)?;
        amounts_within(&worst, &reserve, narrow, item)?;
    }
    // A call in doubt stays as long as it takes somebody to settle it.
    if state.open_calls + state.doubts >= CALLS_OPEN_MAX {
        let open = (state.open_calls + state.doubts) as u64;
        return Err(Denial::count(Code::Limit, Dim::InFlight, CALLS_OPEN_MAX as u64, open, 1));
    }
    let union = state.grants.union(&leaves);
    check_rates(state, &union, at)?;
    check_budgets(state, &union, &worst, &reserve).map_err(|denial| unpriced(denial, of_model))?;
    check_gates(state, &union, &leaves)?;
    let expiry = earliest_expiry(state, &union);
    let wall = worst[WALL].map_or(TIME_US_MAX, |_| at.saturating_add(reserve[WALL]));
    Ok(Body::CallAdmitted(Box::new(CallAdmitted {
        cmd,
        model: tool.model.number(),
        tool: asked.tool.clone(),
        digest: asked.digest,
        grant: asked.grant,
        need_grants: asked.need_grants.clone(),
        facts: asked.facts.clone(),
        extra: asked.extra,
        args: asked.args,
        asked: asked.asked.clone(),
        narrow,
        reserve: budget::amounts(&reserve),
        deadline: wall.min(expiry),
        rule: None,
        task: asked.task,
        parent: None,
    }))
    .into())
}

/// The earliest end of the grants on these chains.
pub(crate) fn earliest_expiry(state: &State, union: &[u32]) -> TimeUs {
    union.iter().filter_map(|up| state.grants.at(*up).grant.cap.exp_us).min().unwrap_or(TIME_US_MAX)
}

fn named(asked: &CallAsked) -> impl Iterator<Item = &GrantId> {
    std::iter::once(&asked.grant).chain(&asked.need_grants)
}

/// A code that was found while preparing. It can only refuse, and only with a code that preparing can find.
fn unfit(code: u16) -> Denial {
    let may = matches!(code, 111 | 401 | 407..=414 | 611);
    match Code::from_number(code) {
        Some(code) if may => Denial::new(code),
        Some(_) | None => Denial::new(Code::Malformed).rule("unfit"),
    }
}

/// What a call needs: first the tool itself, then each need of the tool whose condition holds.
pub(crate) fn needs(tool: &BoundTool, name: &ExactName, facts: &[Fact], extra: bool) -> Result<Vec<Scope>, Denial> {
    check_facts(tool, facts)?;
    let bad = |fact: crate::capability::BadFact| Denial::new(fact.code).rule("facts");
    let mut needs = Vec::with_capacity(1 + tool.needs.len());
    needs.push(Scope::tool_need(name, tool.digest, facts, &tool.facts, extra).map_err(bad)?);
    for (template, when) in &tool.needs {
        let holds = when
            .as_ref()
            .is_none_or(|pointer| facts.iter().any(|fact| fact.pointer == *pointer && fact.int == Some(1)));
        if holds {
            needs.push(template.fill(facts).map_err(bad)?);
        }
    }
    Ok(needs)
}

/// Facts stand in the order of the tool, each of its type.
fn check_facts(tool: &BoundTool, facts: &[Fact]) -> Result<(), Denial> {
    let mut specs = tool.facts.iter();
    for fact in facts {
        let spec = specs.find(|spec| spec.pointer == fact.pointer);
        let spec = spec.ok_or(Denial::new(Code::Malformed).rule("facts: undeclared, twice or out of order"))?;
        let fits = match spec.kind {
            FactType::Int => fact.int.is_some() && fact.text.is_none(),
            FactType::Bool => matches!(fact.int, Some(0 | 1)) && fact.text.is_none(),
            FactType::Str | FactType::Path | FactType::Host => fact.int.is_none() && fact.text.is_some(),
        };
        if !fits {
            return Err(Denial::new(Code::Malformed).rule("facts: type"));
        }
    }
    Ok(())
}

/// The declared worst case per limited dimension; none where there is none.
fn worst_case(tool: &BoundTool, facts: &[Fact]) -> Result<[Option<u64>; DIMENSIONS], Denial> {
    let mut worst = [None; DIMENSIONS];
    worst[CALLS] = Some(1);
    for reserve in &tool.reserve {
        let Some(index) = budget::index_of(reserve.dim) else { continue };
        let units = match &reserve.pointer {
            None => 0,
            Some(pointer) => {
                let fact = facts.iter().find(|fact| fact.pointer == *pointer).and_then(|fact| fact.int).unwrap_or(0);
                u64::try_from(fact).map_err(|_| Denial::new(Code::BadAmount).dim(LIMITED[index]))?
            }
        };
        let amount = reserve.per.checked_mul(units).and_then(|more| more.checked_add(reserve.base));
        let amount = amount.ok_or(Denial::new(Code::BadAmount).dim(LIMITED[index]))?;
        worst[index] = Some(if budget::is_bytes(index) { budget::whole_grains(amount) } else { amount });
    }
    Ok(worst)
}

/// The worst case, lowered to what was asked for.
fn lowered(worst: &[Option<u64>; DIMENSIONS], asked: &[Option<u64>]) -> Result<Vector, Denial> {
    let mut reserve = worst.map(|amount| amount.unwrap_or(0));
    for (index, asked) in asked.iter().enumerate() {
        let Some(amount) = *asked else { continue };
        let whole = !budget::is_bytes(index) || budget::whole_grains(amount) == amount;
        if index == CALLS && amount != 1 || !whole || worst[index].is_none_or(|worst| amount > worst) {
            return Err(Denial::new(Code::BadAmount).dim(LIMITED[index]));
        }
        reserve[index] = amount;
    }
    Ok(reserve)
}

/// The narrowing of a command: nothing, or one per need in order.
pub(crate) fn parse_narrow(texts: &[Option<String>], needs: usize) -> Result<Vec<Option<Capability>>, Denial> {
    if !texts.is_empty() && texts.len() != needs {
        return Err(Denial::new(Code::Malformed).rule("narrow: one per need, or none"));
    }
    let parse = |(item, text): (usize, &Option<String>)| {
        text.as_ref().map(|text| grant::parse(text).map_err(|denial| denial.item(item))).transpose()
    };
    texts.iter().enumerate().map(parse).collect()
}

/// Whether the grant at `index` covers `need`.
pub(crate) fn covered(state: &State, need: &Scope, index: u32, item: usize) -> Result<(), Denial> {
    let node = state.grants.at(index);
    need.within(&node.grant.cap.scope).map_err(|dim| {
        let code = if dim == Dim::Digest { Code::DigestChanged } else { Code::OutOfScope };
        Denial::new(code).at_grant(node.id).item(item).dim(dim).need(Capability::of(need.clone()))
    })
}

/// Whether the narrowing of a command leaves room for `need` at `at`.
pub(crate) fn narrowed(need: &Scope, narrow: Option<&Capability>, item: usize, at: TimeUs) -> Result<(), Denial> {
    let Some(narrow) = narrow else { return Ok(()) };
    let denied = |dim| Denial::new(Code::Narrowed).item(item).dim(dim);
    need.within(&narrow.scope).map_err(denied)?;
    if at < narrow.nbf_us.unwrap_or(0) || at >= narrow.exp_us.unwrap_or(TIME_US_MAX) {
        return Err(denied(Dim::Time));
    }
    if narrow.use_ != Use::Yes {
        return Err(Denial::new(Code::Narrowed).item(item).rule("use"));
    }
    Ok(())
}

/// Whether the reserve keeps the amounts of a narrowing; what has no worst case keeps none.
fn amounts_within(
    worst: &[Option<u64>; DIMENSIONS],
    reserve: &Vector,
    narrow: Option<&Capability>,
    item: usize,
) -> Result<(), Denial> {
    let Some(narrow) = narrow else { return Ok(()) };
    let exceeds = |index: usize, most: u64| worst[index].is_none() || reserve[index] > most;
    let over = (0..DIMENSIONS).find(|index| narrow.limits.amounts[*index].is_some_and(|most| exceeds(*index, most)));
    match over {
        None => Ok(()),
        Some(index) => Err(Denial::new(Code::Narrowed).item(item).dim(LIMITED[index])),
    }
}

/// Whether every rate on the chains lets one more pass; the latest of the waits is named.
pub(crate) fn check_rates(state: &State, union: &[u32], at: TimeUs) -> Result<(), Denial> {
    let mut wait: Option<(TimeUs, GrantId)> = None;
    for up in union {
        let node = state.grants.at(*up);
        let Some(rate) = node.grant.cap.limits.rate else { continue };
        let earliest = budget::earliest(node.meter.tat, rate.period_us(), rate.burst());
        if earliest > at && wait.is_none_or(|(until, _)| earliest > until) {
            wait = Some((earliest, node.id));
        }
    }
    match wait {
        None => Ok(()),
        Some((until, grant)) => {
            let mut denial = Denial::new(Code::Rate).at_grant(grant).dim(Dim::Rate);
            denial.retry_at = Some(until.min(TIME_US_MAX));
            Err(denial)
        }
    }
}

pub(crate) fn check_budgets(
    state: &State,
    union: &[u32],
    worst: &[Option<u64>; DIMENSIONS],
    reserve: &Vector,
) -> Result<(), Denial> {
    for up in union {
        let node = state.grants.at(*up);
        for (index, limit) in node.grant.cap.limits.amounts.iter().enumerate() {
            let Some(limit) = *limit else { continue };
            if worst[index].is_none() {
                return Err(Denial::new(Code::ReserveUndeclared).at_grant(node.id).dim(LIMITED[index]));
            }
            let code = match node.meter.room(index, reserve[index], limit) {
                Ok(()) => continue,
                Err(NoRoom::Full) => Code::Budget,
                Err(NoRoom::Overflow) => Code::BudgetOverflow,
                Err(NoRoom::Overrun) => Code::BudgetOverrun,
            };
            let mut denial = Denial::new(code).at_grant(node.id).dim(LIMITED[index]);
            denial.limit = Some(LimitReached {
                dim: LIMITED[index].number(),
                limit,
                spent: node.meter.spent[index],
                reserved: node.meter.reserved[index],
                asked: reserve[index],
            });
            return Err(denial);
        }
    }
    Ok(())
}

/// A model call whose cost nobody has declared is one whose model has no price.
fn unpriced(denial: Denial, of_model: bool) -> Denial {
    let no_price = of_model && denial.code == Code::ReserveUndeclared && denial.dim == Some(Dim::CostMicro);
    if no_price { Denial { code: Code::NoPrice, ..denial } } else { denial }
}

/// Whether a gate stands in the way. No policy can be bound in these rules and nobody can approve, so a gate refuses.
pub(crate) fn check_gates(state: &State, union: &[u32], leaves: &[u32]) -> Result<(), Denial> {
    let answered =
        |gate: &str| leaves.iter().any(|leaf| state.grants.at(*leaf).grant.answers.iter().any(|answer| answer == gate));
    for up in union {
        let node = state.grants.at(*up);
        if let Some(gate) = node.grant.cap.gates.iter().find(|gate| !answered(gate.as_str())) {
            let built_in = gate.as_str() == BUILT_IN_POLICY;
            let code = if built_in { Code::ApprovalUnavailable } else { Code::PolicyUnavailable };
            return Err(Denial::new(code).at_grant(node.id).dim(Dim::Gates).rule(gate.as_str()));
        }
    }
    Ok(())
}

pub(crate) fn report(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &ReportAsked) -> Result<Answer, Denial> {
    let Some(class) = OutcomeClass::of(&asked.outcome) else {
        return Err(Denial::new(Code::Malformed).rule("outcome"));
    };
    outcome::check_records(asked)?;
    if asked.of.is_some() {
        return Err(Denial::new(Code::Malformed).rule("of: not built in these rules"));
    }
    let actual = budget::vector(&asked.actual).ok_or(Denial::new(Code::BadAmount))?;
    check_usage(asked, &actual)?;
    let call = open(state, asked.call)?;
    let node = by == PrincipalId::NODE && class == OutcomeClass::Hidden;
    if by != call.executor && !node {
        return Err(Denial::new(Code::NotExecutor));
    }
    if asked.attempt != call.attempt {
        return Err(Denial::new(Code::IllegalTransition).rule("attempt"));
    }
    let charged = charge(class, &actual, &call.reserve);
    let overrun = std::array::from_fn(|index| charged[index].saturating_sub(call.reserve[index]));
    let body = CallFinished {
        cmd,
        call: asked.call,
        attempt: asked.attempt,
        outcome: asked.outcome.clone(),
        actual: asked.actual.clone(),
        charged: differs(&charged, &actual).then(|| budget::amounts(&charged)),
        overrun: (overrun != Vector::default()).then(|| budget::amounts(&overrun)),
        late: is_late(state, call),
        stdout: asked.stdout,
        stderr: asked.stderr,
        result: asked.result,
        record: asked.record,
        sandbox: asked.sandbox.clone(),
        wasm: asked.wasm.clone(),
        of: None,
        usage: asked.usage.clone(),
    };
    Ok(Answer { causes: vec![call.seq], body: Body::CallFinished(Box::new(body)) })
}

/// What a call is charged. Calls are spent at admission and never counted here.
pub(crate) fn charge(outcome: OutcomeClass, actual: &Vector, reserve: &Vector) -> Vector {
    let mut charged = match outcome {
        OutcomeClass::NotStarted => Vector::default(),
        OutcomeClass::Ran => *actual,
        OutcomeClass::Hidden => *reserve,
    };
    charged[CALLS] = 0;
    charged
}

/// Whether what is charged is not what was reported, calls aside.
fn differs(charged: &Vector, actual: &Vector) -> bool {
    charged[CALLS + 1..] != actual[CALLS + 1..]
}

/// Whether the authority of an open call has gone since it was admitted.
fn is_late(state: &State, call: &Call) -> bool {
    call.grants.iter().filter_map(|id| state.grants.find(id)).any(|leaf| {
        state.grants.chain(leaf).any(|up| {
            let node = state.grants.at(up);
            node.revoked || !state.principals.get(&node.grant.subject).is_some_and(|subject| subject.alive)
        })
    })
}

/// The tokens of a call are those that its model has counted.
fn check_usage(asked: &ReportAsked, actual: &Vector) -> Result<(), Denial> {
    let Some(usage) = &asked.usage else { return Ok(()) };
    if usage.tokens_cached > usage.tokens_in {
        return Err(Denial::new(Code::Malformed).rule("usage"));
    }
    if usage.tokens_in.checked_add(usage.tokens_out) != Some(actual[TOKENS]) {
        return Err(Denial::new(Code::BadAmount).dim(Dim::Tokens).rule("usage"));
    }
    Ok(())
}

/// A call that has not ended.
pub(crate) fn open(state: &State, call: CallId) -> Result<&Call, Denial> {
    let call = state.calls.get(&call).ok_or(Denial::new(Code::UnknownCall))?;
    if call.ended.is_some() { Err(Denial::new(Code::AlreadyFinished)) } else { Ok(call) }
}

/// What an outcome says about the charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeClass {
    /// Nothing ran.
    NotStarted,
    /// It ran and ended.
    Ran,
    /// Nobody knows: charged as promised.
    Hidden,
}

impl OutcomeClass {
    /// The class of a well-formed outcome.
    pub(crate) fn of(outcome: &Outcome) -> Option<OutcomeClass> {
        Some(match outcome.kind {
            1..=7 | 9 => OutcomeClass::Ran,
            // Cancelled: whether it had started is not known, so what was reported is charged.
            8 => OutcomeClass::Ran,
            10 | 11 => OutcomeClass::Hidden,
            12..=16 => OutcomeClass::NotStarted,
            _ => return None,
        })
    }
}
