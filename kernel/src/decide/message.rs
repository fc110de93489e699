//! Messages between agents, and from who spawned them.

use crate::body::v1::{Cmd, MessageSent, MessageTaken, SendAsked, TakeAsked};
use crate::decide::{Answer, agent};
use crate::denial::{Code, Denial};
use crate::entry::BlobRef;
use crate::event::Body;
use crate::ids::PrincipalId;
use crate::limits::{BLOB_GRAIN_BYTES, MAILBOX_MAX, MESSAGE_BYTES_MAX};
use crate::state::{AgentState, State};

pub(crate) fn send(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &SendAsked,
    blobs: &[BlobRef],
) -> Result<Answer, Denial> {
    let content = blobs.get(usize::from(asked.content)).ok_or(Denial::new(Code::Malformed).rule("content"))?;
    if u64::from(content.grains) > MESSAGE_BYTES_MAX / BLOB_GRAIN_BYTES {
        return Err(Denial::new(Code::Malformed).rule("content: longer than 1 MiB"));
    }
    let to = agent::find(state, asked.to)?;
    let is_child = state.agents.get(&by).is_some_and(|sender| sender.parent == asked.to);
    if to.parent != by && !is_child && !agent::has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoGrant).need(agent::need_of(to)?));
    }
    if to.state == AgentState::Ended {
        return Err(Denial::new(Code::AgentEnded));
    }
    if state.mailboxes.get(&asked.to).is_some_and(|unread| unread.len() >= MAILBOX_MAX) {
        return Err(Denial::new(Code::MailboxFull));
    }
    let body = MessageSent { cmd, to: asked.to, content: asked.content, reply_to: asked.reply_to };
    Ok(Body::MessageSent(body).into())
}

pub(crate) fn take(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &TakeAsked) -> Result<Answer, Denial> {
    if !state.mailboxes.get(&by).is_some_and(|unread| unread.contains(&asked.message)) {
        return Err(Denial::new(Code::UnknownMessage));
    }
    Ok(Body::MessageTaken(MessageTaken { cmd, message: asked.message }).into())
}
