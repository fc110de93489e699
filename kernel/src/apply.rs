//! `apply`: the fold. It decides every entry's command again, compares, and only then moves the state on.

mod system;
mod work;

use crate::admitted::{AdmittedCall, Need};
use crate::body::v1::{AgentSpawned, CallAdmitted, CallFinished, Grant, Refused, SessionOpened, ToolBound};
use crate::budget::{self, Vector};
use crate::capability::{ExactName, Scope};
use crate::command::{Ask, Command};
use crate::decide::call::earliest_expiry;
use crate::decide::{call, outcome, tool};
use crate::entry::{Entry, Header};
use crate::event::{Body, Event};
use crate::hash::{Context, derive};
use crate::ids::{AgentId, CallId, GrantId, PrincipalId, Seq, derived};
use crate::keys::KeyGrant;
use crate::limits::REFUSALS_SEEN_MAX;
use crate::state::grants::GrantNode;
use crate::state::rows::RowKey;
use crate::state::{Agent, AgentState, Call, Key, Principal, PrincipalKind, Refusals, Session, State, ToolState};
use crate::tool::{Effect as EffectClass, Model};

/// Work that the runtime must do because an entry was applied. Never recorded: applying again gives it again.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Run a call.
    Start(Box<AdmittedCall>),
    /// Stop a running call: its authority has gone, or somebody who may has asked for it.
    Cancel(CallId),
    /// Ask the agent's driver what comes next.
    Drive(AgentId),
}

/// The effects of one entry, in order.
#[must_use = "an effect that is dropped is work that never happens"]
#[derive(Clone, Debug, Default)]
pub struct Effects(Vec<Effect>);

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Effects {
    /// The effects, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.0.iter()
    }
}

/// An entry that the rules do not allow where it stands, however well it is signed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("entry {seq} is not what the rules give: {rule}")]
pub struct Illegal {
    /// The entry.
    pub seq: Seq,
    /// The rule in words.
    pub rule: String,
    /// What `decide` gives instead, where it gives an event.
    pub decided: Option<Box<Event>>,
}

impl State {
    /// Applies `entry`, whose link and signature a reader has checked with [`crate::Head::accept`].
    ///
    /// # Errors
    /// [`Illegal`] if the entry holds no event of this version, does not stand at the next seq, or is not exactly what
    /// [`State::decide`] gives. The state is then unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<Effects, Illegal> {
        let header = entry.header();
        let illegal = |rule: &str| Illegal { seq: header.seq, rule: rule.to_owned(), decided: None };
        let event = entry.event().map_err(|fault| illegal(&fault.to_string()))?;
        if header.seq != self.head.next_seq() || header.seq > 0 && header.session != self.head.session {
            return Err(illegal("it does not stand at the next seq of this session"));
        }
        let decided = match event.command() {
            None => self.decide_genesis(header, event)?,
            Some(command) => self.decide_again(header, &command).map_err(illegal)?,
        };
        if decided != *event {
            let rule = format!("the rules give {}", describe(&decided));
            return Err(Illegal { seq: header.seq, rule, decided: Some(Box::new(decided)) });
        }
        let effects = self.fold(entry, event);
        self.head = entry.head();
        if self.head.next_seq() == self.session.next_commit {
            self.settle_tree();
        }
        Ok(effects)
    }

    fn decide_genesis(&self, header: &Header, event: &Event) -> Result<Event, Illegal> {
        let illegal = |rule: String| Illegal { seq: header.seq, rule, decided: None };
        let Body::SessionOpened(genesis) = &event.body else {
            return Err(illegal("no genesis".to_owned()));
        };
        if header.seq != 0 || header.principal != PrincipalId::NODE {
            return Err(illegal("a genesis stands at seq 0 and is asked by the node".to_owned()));
        }
        State::open(genesis, header.time_us)
            .map_err(|denial| illegal(format!("the genesis is invalid: {}", denial.rule.unwrap_or_default())))
    }

    fn decide_again(&self, header: &Header, command: &Command) -> Result<Event, &'static str> {
        if header.seq == 0 {
            return Err("the first entry is no genesis");
        }
        if self.commit_due() && !matches!(command.ask, Ask::CommitState(_)) {
            return Err("a commitment to the state is due here");
        }
        let decided = self.decide(header.principal, command, header.time_us);
        if !crate::decide::is_recordable(&decided) {
            return Err("the asker is unknown, the session is closed, or this is no command");
        }
        Ok(decided)
    }

    fn fold(&mut self, entry: &Entry, event: &Event) -> Effects {
        let header = entry.header();
        self.use_signature(header, event);
        match &event.body {
            Body::SessionOpened(body) => self.open_session(entry, body),
            Body::StateCommitted(_) => self.commit_state(header),
            Body::SessionClosed(_) => {
                self.session.closed = true;
                self.touch(RowKey::Session);
                Effects::default()
            }
            Body::Refused(body, ask) => self.count_refusal(header, body, ask),
            Body::AgentSpawned(body) => self.add_agent(header, body),
            Body::AgentStarted(body) => self.start_agent(body.agent),
            Body::AgentPaused(body) => self.pause_agent(body.agent, header.principal),
            Body::AgentResumed(body) => self.resume_agent(body.agent),
            Body::AgentStopping(body) => self.stop_agent(body.agent),
            Body::AgentEnded(body) => self.end_agent(body.agent),
            Body::TaskScheduled(body) => self.schedule_task(header, body),
            Body::TaskStarted(body) => self.start_task(header, body),
            Body::TaskCompleted(body) => self.complete_task(body.task),
            Body::TaskFailed(body) => self.fail_task(body),
            Body::TaskSkipped(body) => self.skip_task(header, body),
            Body::MessageSent(body) => self.deliver(header, body.to),
            Body::MessageTaken(body) => self.take_message(header.principal, body.message),
            Body::GrantIssued(body) => {
                self.add_grant(GrantId(derived(self.head.session, header.seq, 0)), &body.grant);
                Effects::default()
            }
            Body::GrantRevoked(body) => self.revoke_grant(body.grant),
            Body::ToolBound(body) => self.bind_tools(body),
            Body::CallAdmitted(body) => self.admit(header, body),
            Body::CallFinished(body) => self.finish(body),
            Body::CallAttempted(body) => self.attempt_call(body, header.time_us),
            Body::CancelRequested(body) => Effects(self.mark_cancelled(body.call).into_iter().collect()),
            Body::SessionRegistered(body) => self.list_session(body),
            Body::SessionEnded(body) => self.end_session(body),
            Body::ToolRegistered(body) => self.register_tool(body),
            Body::ToolApproved(body) => self.move_tool(&body.name, ToolState::Approved),
            Body::ToolQuarantined(body) => self.move_tool(&body.name, ToolState::Quarantined),
            Body::ToolUnbound(body) => self.unbind_tool(body),
            Body::OutcomeResolved(body) => self.resolve_outcome(body),
            Body::PrincipalAdded(body) => self.add_principal(header, body),
            Body::Observed(_) | Body::SandboxProbed(_) => Effects::default(),
        }
    }

    fn open_session(&mut self, entry: &Entry, genesis: &SessionOpened) -> Effects {
        let session = entry.session();
        self.session = Session {
            class: genesis.class,
            rules: genesis.rules,
            opener: genesis.opener,
            limits: Some(genesis.limits.clone()),
            interval: u64::from(genesis.interval),
            phase: 1,
            system: genesis.system.map(|system| system.session),
            next_commit: u64::from(genesis.interval),
            closed: false,
        };
        self.touch(RowKey::Session);
        let mut ordinal = 0;
        let mut next = || {
            ordinal += 1;
            derived(session, 0, ordinal - 1)
        };
        let ids = genesis.principals.iter().map(|listed| listed.id.unwrap_or_else(|| PrincipalId(next())));
        let ids: Vec<PrincipalId> = ids.collect();
        for record in &genesis.keys {
            let Ok(grant) = KeyGrant::decode(&record.0) else { continue };
            let owner = genesis.principals.iter().position(|listed| listed.keys.contains(&grant.key.id()));
            let key = Key {
                role: grant.role,
                owner: owner.and_then(|index| ids.get(index).copied()),
                public: grant.key.clone(),
                epoch: grant.epoch,
                not_before_us: grant.not_before_us,
                not_after_us: grant.not_after_us,
            };
            self.keys.insert(grant.key.id(), key);
            self.touch(RowKey::Key(grant.key.id()));
        }
        for (id, listed) in ids.into_iter().zip(&genesis.principals) {
            let Some(kind) = PrincipalKind::from_number(listed.kind) else { continue };
            let principal = Principal {
                kind,
                alive: true,
                custody: listed.custody,
                keys: listed.keys.clone(),
                models: listed.models,
                above: None,
            };
            if kind == PrincipalKind::Executor {
                self.add_executor(id, listed.models);
            }
            self.principals.insert(id, principal);
            self.touch(RowKey::Principal(id));
        }
        let ids: Vec<GrantId> = genesis.grants.iter().map(|_| GrantId(next())).collect();
        for (id, grant) in ids.into_iter().zip(&genesis.grants) {
            self.add_grant(id, grant);
        }
        Effects::default()
    }

    fn add_executor(&mut self, id: PrincipalId, models: u8) {
        for (bit, lowest) in self.executors.iter_mut().enumerate() {
            if models >> bit & 1 == 1 && lowest.is_none_or(|known| id < known) {
                *lowest = Some(id);
            }
        }
    }

    fn commit_state(&mut self, header: &Header) -> Effects {
        self.commits += 1;
        self.forget_nonces(header.time_us);
        self.session.next_commit = (header.seq / self.session.interval + 1) * self.session.interval;
        self.touch(RowKey::Session);
        while let Some((ended, call)) = self.ended.front().copied()
            && ended + 2 <= self.commits
        {
            self.ended.pop_front();
            self.calls.remove(&call);
            self.touch(RowKey::Call(call));
        }
        self.forget_tasks();
        Effects::default()
    }

    fn count_refusal(&mut self, header: &Header, refused: &Refused, ask: &Ask) -> Effects {
        let row = self.refusals.entry(header.principal).or_default();
        let minute = header.time_us / 60_000_000;
        if row.minute != minute {
            *row = Refusals { minute, ..Refusals::default() };
        }
        *row.counts.entry(refused.code).or_default() += 1;
        if row.seen.len() < REFUSALS_SEEN_MAX {
            let tool = ask.tool().unwrap_or("");
            let need = refused.need.as_deref().unwrap_or("");
            let len = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
            row.seen.insert(derive(
                Context::RefusalSeen,
                &[&refused.code.to_be_bytes(), &len(tool), tool.as_bytes(), &len(need), need.as_bytes()],
            ));
        }
        self.touch(RowKey::Refusals(header.principal));
        Effects::default()
    }

    fn add_agent(&mut self, header: &Header, spawned: &AgentSpawned) -> Effects {
        let session = self.head.session;
        let id = PrincipalId(derived(session, header.seq, 0));
        let above = self.agents.get_mut(&spawned.parent).map(|parent| {
            parent.live_children += 1;
            parent.depth
        });
        if above.is_some() {
            self.touch(RowKey::Agent(spawned.parent));
        }
        let principal = Principal {
            kind: PrincipalKind::Agent,
            alive: true,
            custody: 1,
            keys: Vec::new(),
            models: 0,
            above: Some(spawned.parent),
        };
        self.principals.insert(id, principal);
        self.touch(RowKey::Principal(id));
        let agent = Agent {
            spec: spawned.spec.clone(),
            spec_digest: spawned.spec_digest,
            state: AgentState::Spawned,
            paused_by: None,
            parent: spawned.parent,
            depth: above.unwrap_or(0) + 1,
            grant: spawned.grant,
            plan: spawned.plan.clone(),
            live_children: 0,
            open_calls: 0,
            open_tasks: 0,
            doubts: 0,
        };
        self.agents.insert(id, agent);
        self.touch(RowKey::Agent(id));
        self.each_above(&[spawned.grant], |node| {
            node.meter.live += 1;
            node.pass(header.time_us);
        });
        for (ordinal, grant) in (1..).zip(&spawned.grants) {
            self.add_grant(GrantId(derived(session, header.seq, ordinal)), grant);
        }
        Effects::default()
    }

    fn start_agent(&mut self, id: AgentId) -> Effects {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.state = AgentState::Running;
            let parent = agent.parent;
            self.running += 1;
            self.running_top += u32::from(!self.agents.contains_key(&parent));
            self.touch(RowKey::Agent(id));
        }
        Effects(self.drive(id).into_iter().collect())
    }

    fn end_agent(&mut self, id: AgentId) -> Effects {
        self.leave_place(id);
        self.clear_desk(id);
        let Some(agent) = self.agents.get_mut(&id) else { return Effects::default() };
        self.stopping = self.stopping.saturating_sub(u32::from(agent.state == AgentState::Stopping));
        agent.state = AgentState::Ended;
        agent.paused_by = None;
        let (grant, parent) = (agent.grant, agent.parent);
        self.touch(RowKey::Agent(id));
        if let Some(principal) = self.principals.get_mut(&id) {
            principal.alive = false;
            self.touch(RowKey::Principal(id));
        }
        self.each_above(&[grant], |node| node.meter.live = node.meter.live.saturating_sub(1));
        let Some(above) = self.agents.get_mut(&parent) else { return Effects::default() };
        above.live_children = above.live_children.saturating_sub(1);
        self.touch(RowKey::Agent(parent));
        Effects(self.drive(parent).into_iter().collect())
    }

    fn add_grant(&mut self, id: GrantId, grant: &Grant) {
        self.grants.add(id, grant.clone());
        self.touch(RowKey::Grant(id));
        self.touch(RowKey::Meter(id));
        if let Some(parent) = grant.parent {
            self.touch(RowKey::Meter(parent));
        }
    }

    fn revoke_grant(&mut self, id: GrantId) -> Effects {
        let Some(at) = self.grants.find(&id) else { return Effects::default() };
        let node = self.grants.at_mut(at);
        node.revoked = true;
        let open: Vec<CallId> = node.open.iter().copied().collect();
        self.touch(RowKey::Grant(id));
        Effects(open.into_iter().filter_map(|call| self.mark_cancelled(call)).collect())
    }

    fn bind_tools(&mut self, bound: &ToolBound) -> Effects {
        for binding in &bound.tools {
            let Ok(parsed) = tool::parse(&binding.tool) else { continue };
            self.tools.insert(binding.tool.name.clone(), parsed);
            self.touch(RowKey::Tool(binding.tool.name.clone()));
        }
        Effects::default()
    }

    fn admit(&mut self, header: &Header, admitted: &CallAdmitted) -> Effects {
        let id = CallId(derived(self.head.session, header.seq, 0));
        let reserve = budget::vector(&admitted.reserve).unwrap_or_default();
        let grants: Vec<GrantId> =
            std::iter::once(admitted.grant).chain(admitted.need_grants.iter().copied()).collect();
        let model = Model::from_number(admitted.model).unwrap_or(Model::Tool);
        let tool = self.tools.get(&admitted.tool);
        let effect = tool.map_or(EffectClass::Read, |tool| tool.effect);
        // A reserve of 0 that was declared is a cap of 0; one that was not is no cap.
        let declared = |index| tool.is_some_and(|tool| tool.declares(index));
        let caps = std::array::from_fn(|index| declared(index).then(|| reserve[index]));
        let executor = self.executor_of(model).unwrap_or_default();
        let envelope = self.envelope(admitted, &grants);
        let at = header.time_us;
        let leaves: Vec<u32> = grants.iter().filter_map(|id| self.grants.find(id)).collect();
        let expiry = earliest_expiry(self, &self.grants.union(&leaves));
        self.each_above(&grants, |node| {
            node.meter.reserve(&reserve);
            node.pass(at);
            node.open.insert(id);
        });
        if let Some(agent) = self.agents.get_mut(&header.principal) {
            agent.open_calls += 1;
            self.touch(RowKey::Agent(header.principal));
        }
        let call = Call {
            seq: header.seq,
            principal: header.principal,
            executor,
            grants,
            reserve,
            deadline: admitted.deadline,
            attempt: 1,
            depth: 0,
            effect,
            cancel: false,
            doubt: false,
            ended: None,
        };
        self.calls.insert(id, call);
        self.open_calls += 1;
        self.touch(RowKey::Call(id));
        let Some(arguments) = header.blobs.get(usize::from(admitted.args)).copied() else { return Effects::default() };
        let call = AdmittedCall {
            id,
            session: self.head.session,
            seq: header.seq,
            at,
            principal: header.principal,
            executor,
            model,
            effect,
            tool: admitted.tool.clone(),
            digest: admitted.digest,
            facts: admitted.facts.clone(),
            arguments,
            pieces: header.blobs.get(usize::from(admitted.args) + 1..).unwrap_or_default().to_vec(),
            envelope,
            caps,
            deadline: admitted.deadline,
            expiry,
            timed_from: at,
            attempt: 1,
            not_before: 0,
        };
        Effects(vec![Effect::Start(Box::new(call))])
    }

    /// Each need with the scope of its grant, met with the narrowing of the command.
    fn envelope(&self, admitted: &CallAdmitted, grants: &[GrantId]) -> Vec<Need> {
        let needs = ExactName::parse(&admitted.tool).ok().and_then(|name| {
            let tool = self.tools.get(&admitted.tool)?;
            call::needs(tool, &name, &admitted.facts, admitted.extra).ok()
        });
        let within = |index: usize| -> Option<Scope> {
            let scope = &self.grants.get(grants.get(index)?)?.grant.cap.scope;
            match admitted.narrow.get(index).and_then(Option::as_ref) {
                Some(narrow) => scope.meet(&narrow.scope),
                None => Some(scope.clone()),
            }
        };
        let needs = needs.unwrap_or_default().into_iter().enumerate();
        let envelope = needs.map(|(index, scope)| {
            // Where a meet would exceed the bounds of a scope, the need itself is within both.
            let within = within(index).unwrap_or_else(|| scope.clone());
            Need { scope, within }
        });
        envelope.collect()
    }

    fn finish(&mut self, finished: &CallFinished) -> Effects {
        let Some(call) = self.calls.get_mut(&finished.call) else { return Effects::default() };
        call.ended = Some(self.commits);
        call.doubt = outcome::leaves_doubt(&finished.outcome, call.effect);
        let doubt = call.doubt;
        let (principal, grants, reserve) = (call.principal, call.grants.clone(), call.reserve);
        if doubt {
            self.doubts += 1;
        } else {
            self.ended.push_back((self.commits, finished.call));
        }
        self.open_calls = self.open_calls.saturating_sub(1);
        self.touch(RowKey::Call(finished.call));
        let charged = finished.charged.as_ref().unwrap_or(&finished.actual);
        let charged: Vector = budget::vector(charged).unwrap_or_default();
        self.each_above(&grants, |node| {
            node.meter.settle(&reserve, &charged);
            node.open.remove(&finished.call);
        });
        if let Some(agent) = self.agents.get_mut(&principal) {
            agent.open_calls = agent.open_calls.saturating_sub(1);
            agent.doubts += u32::from(doubt);
            self.touch(RowKey::Agent(principal));
        }
        // An agent in doubt is asked again when somebody has settled it.
        Effects(self.drive(principal).into_iter().collect())
    }

    /// Changes every grant on the chains of `leaves`, each once.
    pub(super) fn each_above(&mut self, leaves: &[GrantId], mut change: impl FnMut(&mut GrantNode)) {
        let leaves: Vec<u32> = leaves.iter().filter_map(|id| self.grants.find(id)).collect();
        for up in self.grants.union(&leaves) {
            let node = self.grants.at_mut(up);
            change(node);
            let id = node.id;
            self.touch(RowKey::Meter(id));
        }
    }
}

/// An event in a few words, for the report of an illegal entry.
fn describe(event: &Event) -> String {
    let Body::Refused(refused, _) = &event.body else { return format!("{} with other content", event.name()) };
    match crate::denial::Code::from_number(refused.code) {
        Some(code) => format!("Refused({code})"),
        None => format!("Refused({})", refused.code),
    }
}
