//! Views: what anyone but the kernel needs to know of a session, folded from its entries.
//!
//! [`Views`] holds them all: [`Registry`] (which tools may be called), [`Catalogue`] (which ones the node knows),
//! [`Agents`], [`Tasks`], [`Mailboxes`], [`Grants`], [`Calls`] (the outbox that executors take their work from) and
//! [`Timeline`]. Folding the entries again from nothing gives the same content.
//!
//! A view never decides anything, never stands in the way of a commit, and is never evidence: the entries are.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod agents;
mod calls;
mod catalogue;
mod grants;
mod mailboxes;
mod registry;
mod tasks;
mod timeline;

use toka_kernel::ids::Commitment;
use toka_kernel::{Effects, Entry, Event};

pub use agents::{AgentRow, Agents, Held};
pub use calls::{Attempt, CallRow, Calls, Finished};
pub use catalogue::{Catalogue, KnownTool};
pub use grants::{GrantRow, Grants};
pub use mailboxes::{Mailboxes, MessageRow};
pub use registry::{Registry, ToolRow};
pub use tasks::{TaskRow, Tasks};
pub use timeline::{END_CODES, Known, Moment, OUTCOMES, Timeline, outcome_word, outcome_words, service_word, words};

/// Every view of one session, folded together so that all stand at the same entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Views {
    /// Tools that are bound.
    pub registry: Registry,
    /// Tools that the system session knows.
    pub catalogue: Catalogue,
    /// Agents.
    pub agents: Agents,
    /// Tasks of agents.
    pub tasks: Tasks,
    /// Messages to agents.
    pub mailboxes: Mailboxes,
    /// Grants.
    pub grants: Grants,
    /// Calls, open and ended.
    pub calls: Calls,
    /// Everything, in order.
    pub timeline: Timeline,
}

impl Views {
    /// Folds one entry that was applied, with the effects that applying it gave.
    pub fn fold(&mut self, entry: &Entry, effects: &Effects) {
        let Ok(event) = entry.event() else { return };
        self.registry.fold(entry, event);
        self.catalogue.fold(entry, event);
        self.agents.fold(entry, event);
        self.tasks.fold(entry, event);
        self.mailboxes.fold(entry, event);
        self.grants.fold(entry, event);
        self.calls.fold(entry, event, effects);
        self.timeline.fold(entry, event);
    }
}

/// The blob at an index of an event's list.
fn blob(event: &Event, index: Option<u16>) -> Option<Commitment> {
    index.and_then(|index| event.blobs.get(usize::from(index))).map(|blob| blob.commitment)
}
