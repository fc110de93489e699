//! Which tools may be called in a session, and where their specs are.

use std::collections::BTreeMap;

use toka_kernel::ids::{Commitment, Digest, Seq};
use toka_kernel::{Body, Entry, Event};

/// The tools bound in a session, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry(BTreeMap<String, ToolRow>);

/// A bound tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRow {
    /// The digest that a call must name and that an implementation must have.
    pub digest: Digest,
    /// The blob that holds the whole spec.
    pub text: Commitment,
    /// The entry that bound it.
    pub bound_at: Seq,
    /// The entry from which on it can no longer be called.
    pub unbound_at: Option<Seq>,
}

impl Registry {
    /// The tool of this name.
    pub fn get(&self, name: &str) -> Option<&ToolRow> {
        self.0.get(name)
    }

    /// Every tool, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ToolRow)> {
        self.0.iter().map(|(name, row)| (name.as_str(), row))
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        if let Body::ToolUnbound(unbound) = &event.body
            && let Some(row) = self.0.get_mut(&unbound.name)
        {
            row.unbound_at = Some(entry.header().seq);
        }
        let Body::ToolBound(bound) = &event.body else { return };
        for binding in &bound.tools {
            let Some(text) = event.blobs.get(usize::from(binding.tool.text)) else { continue };
            let row = ToolRow {
                digest: binding.tool.digest,
                text: text.commitment,
                bound_at: entry.header().seq,
                unbound_at: None,
            };
            self.0.insert(binding.tool.name.clone(), row);
        }
    }
}
