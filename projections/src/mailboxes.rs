//! Messages between agents, read and unread.

use std::collections::BTreeMap;

use toka_kernel::ids::{AgentId, Commitment, MessageId, PrincipalId, Seq, derived};
use toka_kernel::{Body, Entry, Event};

use crate::blob;

/// The messages of a session, and what each agent has not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mailboxes {
    rows: BTreeMap<MessageId, MessageRow>,
    /// Oldest first: the order of the entries.
    unread: BTreeMap<AgentId, Vec<MessageId>>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Who sent it.
    pub from: PrincipalId,
    /// Who is to read it.
    pub to: AgentId,
    /// The blob that holds what it says.
    pub content: Commitment,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// The entry that sent it.
    pub sent_at: Seq,
    /// The entry that took it out of the mailbox.
    pub taken_at: Option<Seq>,
}

impl Mailboxes {
    /// The message of this id.
    pub fn get(&self, id: MessageId) -> Option<&MessageRow> {
        self.rows.get(&id)
    }

    /// Every message.
    pub fn iter(&self) -> impl Iterator<Item = (MessageId, &MessageRow)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// What an agent has not read, oldest first; nothing once it has ended.
    pub fn unread(&self, agent: AgentId) -> impl Iterator<Item = (MessageId, &MessageRow)> {
        let ids = self.unread.get(&agent).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.rows.get(id).map(|row| (*id, row)))
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let header = entry.header();
        if let Body::MessageSent(sent) = &event.body
            && let Some(content) = blob(event, Some(sent.content))
        {
            let id = MessageId(derived(entry.session(), header.seq, 0));
            let (from, to, reply_to) = (header.principal, sent.to, sent.reply_to);
            self.rows.insert(id, MessageRow { from, to, content, reply_to, sent_at: header.seq, taken_at: None });
            self.unread.entry(to).or_default().push(id);
        }
        if let Body::MessageTaken(taken) = &event.body
            && let Some(row) = self.rows.get_mut(&taken.message)
        {
            row.taken_at = Some(header.seq);
            if let Some(unread) = self.unread.get_mut(&row.to) {
                unread.retain(|id| *id != taken.message);
            }
        }
        if let Body::AgentEnded(ended) = &event.body {
            self.unread.remove(&ended.agent);
        }
    }
}
