//! What is asked about: a seq, or how the id of a call, a grant or an agent begins, or the name of an agent.

use toka_kernel::ids::{AgentId, CallId, GrantId, PrincipalId, Seq, SessionId, derived};
use toka_kernel::{Body, Entry};

use super::Story;
use crate::input::Input;

/// What is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An entry.
    Seq(Seq),
    /// A call that was admitted.
    Call(CallId),
    /// A grant.
    Grant(GrantId),
    /// An agent.
    Agent(AgentId),
}

/// Why nothing is explained, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotFound(pub(crate) String);

/// Names listed in an error; more are counted.
const LISTED_MAX: usize = 8;

impl Target {
    /// The one thing of `story` that `text` means.
    ///
    /// # Errors
    /// [`NotFound`], naming what there is.
    pub(crate) fn find(story: &Story<'_>, text: &str) -> Result<Target, NotFound> {
        let last = story.last().unwrap_or(0);
        if let Ok(seq) = text.parse::<Seq>()
            && seq <= last
        {
            return Ok(Target::Seq(seq));
        }
        let all = || {
            let calls = story.calls.keys().map(|id| (Target::Call(*id), id.to_string()));
            let grants = story.grants.keys().map(|id| (Target::Grant(*id), id.to_string()));
            let agents = story.agents.keys().map(|id| (Target::Agent(*id), id.to_string()));
            calls.chain(grants).chain(agents)
        };
        let named = story.agents.keys().find(|id| story.names.of(**id) == text);
        if let Some(agent) = named {
            return Ok(Target::Agent(*agent));
        }
        let prefix = text.to_ascii_lowercase();
        let mut found = all().filter(|(_, id)| !prefix.is_empty() && id.starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some((target, _)), None) => Ok(target),
            (Some(_), Some(_)) => {
                let ids = all().filter(|(_, id)| id.starts_with(&prefix)).map(|(target, id)| target.named(&id));
                Err(NotFound(format!("`{text}` begins several ids: {}; write more of it", list(ids))))
            }
            (None, _) => Err(NotFound(nothing(story, text, last))),
        }
    }

    fn named(self, id: &str) -> String {
        match self {
            Target::Seq(seq) => format!("seq {seq}"),
            Target::Call(_) => format!("call {}", &id[..16]),
            Target::Grant(_) => format!("grant {}", &id[..16]),
            Target::Agent(_) => format!("agent {}", &id[..16]),
        }
    }
}

fn nothing(story: &Story<'_>, text: &str, last: Seq) -> String {
    let calls = list(story.calls.keys().map(CallId::short));
    let grants = list(story.grants.keys().map(GrantId::short));
    let agents = list(story.agents.keys().map(|id| format!("{} ({})", story.names.of(*id), id.short())));
    format!(
        "session {} has no seq, call, grant or agent `{text}`: it has seqs 0 to {last}; calls {calls}; grants {grants}; \
         agents {agents}; `show` prints its entries",
        story.session().short()
    )
}

fn list(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{}, and {more} more", names.join(", ")),
    }
}

/// The sessions in which an id begins with `text` or an agent of a spec of that name was spawned. Nothing is checked
/// here: whatever is found is read again by a [`Story`].
pub(crate) fn sessions_with(input: &Input, sessions: &[SessionId], text: &str) -> Vec<SessionId> {
    let prefix = text.to_ascii_lowercase();
    let holds = |session: &&SessionId| {
        let entries = input.entries(**session).map_while(Result::ok);
        let mut entries = entries.filter_map(|stored| Entry::read(&stored.bytes).ok());
        entries.any(|entry| makes(&entry, &prefix, text))
    };
    sessions.iter().filter(holds).copied().collect()
}

/// Whether an entry makes something whose id begins with `prefix`, or an agent called `name`.
fn makes(entry: &Entry, prefix: &str, name: &str) -> bool {
    let made = |ordinals: std::ops::Range<u32>| {
        let id = |ordinal| PrincipalId(derived(entry.session(), entry.header().seq, ordinal)).to_string();
        ordinals.map(id).any(|id| id.starts_with(prefix))
    };
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    match entry.event().map(|event| &event.body) {
        Ok(Body::SessionOpened(genesis)) => made(0..count(genesis.grants.len() + genesis.principals.len())),
        Ok(Body::AgentSpawned(spawned)) => {
            let (spec, instance) = (&spawned.spec, name.split('#').next().unwrap_or(name));
            spec == instance || made(0..count(spawned.grants.len() + 1))
        }
        Ok(Body::CallAdmitted(_) | Body::GrantIssued(_)) => made(0..1),
        Ok(
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentStarted(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::AgentEnded(_)
            | Body::TaskScheduled(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallFinished(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_),
        )
        | Err(_) => false,
    }
}
