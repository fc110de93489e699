//! What an answer consists of.

use serde_json::{Value, json};
use toka_kernel::ids::{Seq, SessionId};

/// One line of an answer, and what explains it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// What it is about: `call`, `refusal`, `need`, `grant`, `agent`, `principal`, `genesis`, `registration`, `entry`,
    /// `command`, `key`, `root-key`, `note`.
    pub(crate) kind: &'static str,
    /// The session of its entry.
    pub(crate) session: SessionId,
    /// Its entry.
    pub(crate) seq: Option<Seq>,
    /// The id of what it is about.
    pub(crate) id: Option<String>,
    /// The line, not yet escaped.
    pub(crate) text: String,
    /// What explains it stands above, where it was said first.
    pub(crate) above: bool,
    /// What explains it.
    pub(crate) children: Vec<Node>,
}

impl Node {
    /// A line without an entry of its own.
    pub(crate) fn new(kind: &'static str, session: SessionId, text: impl Into<String>) -> Node {
        Node { kind, session, seq: None, id: None, text: text.into(), above: false, children: Vec::new() }
    }

    pub(crate) fn at(self, seq: Seq) -> Node {
        Node { seq: Some(seq), ..self }
    }

    pub(crate) fn of(self, id: impl ToString) -> Node {
        Node { id: Some(id.to_string()), ..self }
    }

    pub(crate) fn above(self) -> Node {
        Node { above: true, ..self }
    }

    pub(crate) fn with(mut self, child: Node) -> Node {
        self.children.push(child);
        self
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "kind": self.kind, "session": self.session.to_string(), "seq": self.seq, "id": self.id, "text": self.text,
            "above": self.above, "children": self.children.iter().map(Node::json).collect::<Vec<_>>(),
        })
    }
}
