//! `decide`: a command in, exactly one event out. Total: a refusal is an event.
//!
//! Every check stands in the fixed order of `docs/FORMAT.md`, so that the first failing one gives the code.

pub(crate) mod agent;
pub(crate) mod attempt;
pub(crate) mod call;
pub(crate) mod genesis;
pub(crate) mod grant;
pub(crate) mod listing;
pub(crate) mod message;
pub(crate) mod observation;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod principal;
pub(crate) mod registry;
pub(crate) mod right;
pub(crate) mod session;
pub(crate) mod task;
pub(crate) mod tool;

use crate::body::v1::{Cmd, Refused};
use crate::command::{Ask, Command};
use crate::denial::{Code, Denial};
use crate::entry::BlobRef;
use crate::event::{Body, Event};
use crate::ids::{Bytes, PrincipalId, Seq, TimeUs};
use crate::limits::{BODY_BYTES_MAX, CAPABILITY_TEXT_BYTES_MAX, REFUSAL_BYTES_MAX, RULE_BYTES_MAX};
use crate::state::State;

/// The rule that stands in a refusal while a commitment to the state is due.
const COMMIT_DUE: &str = "state commitment due";

/// What a command comes to when it is not refused.
pub(crate) struct Answer {
    causes: Vec<Seq>,
    body: Body,
}

impl Answer {
    /// The command that the event implies.
    fn implied(&self, blobs: &[BlobRef]) -> Option<Ask> {
        let event = Event { causes: Vec::new(), blobs: blobs.to_vec(), body: self.body.clone() };
        event.command().map(|command| command.ask)
    }
}

impl From<Body> for Answer {
    fn from(body: Body) -> Answer {
        Answer { causes: Vec::new(), body }
    }
}

impl State {
    /// What `command`, asked by `by` at `at`, comes to in this state. Reads only.
    ///
    /// A command that fails [`Command::check`], or whose blobs are not those its body refers to, is no command; deciding
    /// it gives a refusal that no chain may hold. The same is true of the codes [`Code::SessionClosed`] and
    /// [`Code::UnknownPrincipal`]: an edge answers with them, outside the log ([`is_recordable`]).
    pub fn decide(&self, by: PrincipalId, command: &Command, at: TimeUs) -> Event {
        match self.answer(by, command, at) {
            Ok(Answer { causes, body }) => {
                let event = Event { causes, blobs: command.blobs.clone(), body };
                if fits(&event) {
                    event
                } else {
                    refusal(command, Denial::new(Code::Malformed).rule("filled: too long"))
                }
            }
            Err(denial) => refusal(command, denial),
        }
    }

    fn answer(&self, by: PrincipalId, command: &Command, at: TimeUs) -> Result<Answer, Denial> {
        // What the node asks of itself is recorded without id, right and signature, so it is decided without them.
        let cmd = command.cmd();
        if !command.is_one() || cmd.as_ref().is_some_and(|cmd| cmd.via.is_some()) {
            return Err(Denial::new(Code::Malformed));
        }
        if self.session.closed {
            return Err(Denial::new(Code::SessionClosed));
        }
        let kind = right::asker(self, by, &command.ask)?;
        if self.commit_due() && !matches!(command.ask, Ask::CommitState(_)) {
            return Err(Denial::new(Code::IllegalTransition).rule(COMMIT_DUE));
        }
        let signed = right::signed(self, by, kind, command, at)?;
        let asked = signed.as_ref().unwrap_or(&command.ask);
        let under = right::named(self, by, kind, cmd.as_ref().and_then(|cmd| cmd.under), asked, at)?;
        let answer = self.own_rules(by, cmd, asked, &command.blobs, at)?;
        if let Some(leaf) = under {
            let chain = self.grants.union(&[leaf]);
            call::check_gates(self, &chain, &[leaf])?;
        }
        // An event in which capabilities were filled implies another command than was signed; no other event may.
        if *asked != command.ask && answer.implied(&command.blobs).as_ref() != Some(&command.ask) {
            return Err(Denial::new(Code::CommandSigInvalid).rule(right::ANOTHER_COMMAND));
        }
        Ok(answer)
    }

    fn own_rules(
        &self,
        by: PrincipalId,
        cmd: Option<Cmd>,
        ask: &Ask,
        blobs: &[BlobRef],
        at: TimeUs,
    ) -> Result<Answer, Denial> {
        match ask {
            Ask::CommitState(_) => session::commit_state(self, cmd),
            Ask::CloseSession(asked) => session::close(self, by, cmd, asked),
            Ask::SpawnAgent(asked) => agent::spawn(self, by, cmd, asked, at),
            Ask::StartAgent(asked) => agent::start(self, by, cmd, asked),
            Ask::PauseAgent(asked) => agent::pause(self, by, cmd, asked),
            Ask::ResumeAgent(asked) => agent::resume(self, by, cmd, asked),
            Ask::StopAgent(asked) => agent::stop(self, by, cmd, asked),
            Ask::EndAgent(asked) => agent::end(self, by, cmd, asked),
            Ask::ScheduleTask(asked) => task::schedule(self, by, cmd, asked),
            Ask::StartTask(asked) => task::start(self, by, cmd, asked, at),
            Ask::CompleteTask(asked) => task::complete(self, by, cmd, asked),
            Ask::FailTask(asked) => task::fail(self, by, cmd, asked, at),
            Ask::SkipTask(asked) => task::skip(self, by, cmd, asked),
            Ask::SendMessage(asked) => message::send(self, by, cmd, asked, blobs),
            Ask::TakeMessage(asked) => message::take(self, by, cmd, asked),
            Ask::Grant(asked) => grant::issue(self, by, cmd, asked, at),
            Ask::Revoke(asked) => grant::revoke(self, by, cmd, asked),
            Ask::BindTool(asked) => tool::bind(self, cmd, asked),
            Ask::Call(asked) => call::call(self, by, cmd, asked, blobs.len(), at),
            Ask::Report(asked) => call::report(self, by, cmd, asked),
            Ask::ReportAttempt(asked) => attempt::report(self, by, cmd, asked, at),
            Ask::CancelCall(asked) => attempt::cancel(self, by, cmd, asked),
            Ask::OpenSession(asked) => listing::open(self, by, cmd, asked, at),
            Ask::EndSession(asked) => listing::end(self, cmd, asked),
            Ask::RegisterTool(asked) => registry::register(self, cmd, asked),
            Ask::ApproveTool(asked) => registry::approve(self, cmd, asked),
            Ask::QuarantineTool(asked) => registry::quarantine(self, cmd, asked),
            Ask::UnbindTool(asked) => tool::unbind(self, cmd, asked),
            Ask::ResolveOutcome(asked) => outcome::resolve(self, cmd, asked),
            Ask::AddPrincipal(asked) => principal::add(self, cmd, asked),
            Ask::Observe(asked) => observation::observe(self, by, cmd, asked),
            Ask::RecordProbe(asked) => observation::probe(cmd, asked),
        }
    }
}

/// Whether an event may stand in a chain. Refusals to strangers, on closed sessions, of what is no command, and while a
/// commitment to the state is due may not: the edge answers them, or the engine commits first.
pub fn is_recordable(event: &Event) -> bool {
    let Body::Refused(refused, _) = &event.body else { return true };
    let at_the_edge = [Code::SessionClosed, Code::UnknownPrincipal].map(Code::number).contains(&refused.code);
    !at_the_edge
        && refused.rule.as_deref() != Some(COMMIT_DUE)
        && event.command().is_some_and(|command| command.is_one())
}

/// Whether an event in which capabilities were filled keeps the bounds that its command kept: a body's, and those of the
/// command that it implies.
fn fits(event: &Event) -> bool {
    let narrowed = |body: &Body| matches!(body, Body::CallAdmitted(body) if !body.narrow.is_empty());
    let filled = matches!(event.body, Body::AgentSpawned(_) | Body::GrantIssued(_) | Body::SessionRegistered(_));
    let grows = filled || narrowed(&event.body);
    !grows || event.encoded_len() <= BODY_BYTES_MAX && event.command().is_some_and(|command| command.check().is_ok())
}

fn refusal(command: &Command, denial: Denial) -> Event {
    let body = command.ask.encode();
    let signed = command.signed.as_ref().map_or(0, |signed| signed.0.len());
    let room = BODY_BYTES_MAX.saturating_sub(body.len() + signed + REFUSAL_BYTES_MAX).min(CAPABILITY_TEXT_BYTES_MAX);
    let refused = Refused {
        cmd: command.cmd(),
        kind: command.ask.kind(),
        schema: 1,
        body: Bytes(body),
        code: denial.code.number(),
        failed_at: denial.failed_at,
        item: denial.item,
        dim: denial.dim.map(|dim| dim.number()),
        need: denial.need.filter(|need| need.len() <= room),
        limit: denial.limit,
        retry_at: denial.retry_at,
        approval: None,
        rule: denial.rule.filter(|rule| rule.len() <= RULE_BYTES_MAX),
        first_seq: denial.first_seq,
        detail: command.ask.detail_of(denial.code.number()),
    };
    Event {
        causes: Vec::new(),
        blobs: command.blobs.clone(),
        body: Body::Refused(Box::new(refused), Box::new(command.ask.clone())),
    }
}
