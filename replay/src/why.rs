//! `why`: from a call, a refusal, a grant or an agent back to the first command and to the root key.

mod about;
mod find;
mod refusal;
mod story;
mod tree;

use std::io::{self, Write};

use serde_json::{Value, json};
use toka_kernel::ids::SessionId;

use crate::input::Input;
use crate::json::write_line;
use crate::text::escaped;
use crate::trail::{Stop, Trail};

pub(crate) use self::find::{Target, sessions_with};
pub(crate) use self::story::Story;
pub(crate) use self::tree::Node;

/// The format of `why --json`.
pub(crate) const FORMAT: &str = "toka-why/1";

/// An answer: a tree whose leaves are the root key and the first commands.
#[derive(Debug)]
pub(crate) struct Answer {
    lines: Vec<String>,
    checked: Value,
    session: SessionId,
    /// The system session, where it is in the input and something leads there.
    system: Option<SessionId>,
    pub(crate) tree: Node,
}

/// Explains `target` of `story`. The system session that it cites is followed where the input has it.
///
/// # Errors
/// [`Stop`] where a log does not stand.
pub(crate) fn answer<'a>(
    input: &'a Input,
    root: Option<&'a toka_kernel::keys::PublicKey>,
    story: &Story<'a>,
    target: Target,
) -> Result<Answer, Stop> {
    let system = match story.cites() {
        Some(cited) if input.sessions().any(|session| session == Ok(cited)) => {
            Some(Story::read(Trail::open(input, cited, root)?)?)
        }
        Some(_) | None => None,
    };
    let tree = about::explain(input, root, story, system.as_ref(), target)?;
    let mut lines = vec![story.vouched().line()];
    lines.extend(system.iter().map(|system| format!("sys: system {}", system.vouched().line())));
    Ok(Answer {
        lines,
        checked: story.vouched().json(),
        session: story.session(),
        system: system.map(|system| system.session()),
        tree,
    })
}

/// Prints an answer for people: each line with its seq, indented below what it explains.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    for line in &answer.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    print_node(&answer.tree, 0, answer.session, out)
}

fn print_node(node: &Node, depth: usize, session: SessionId, out: &mut dyn Write) -> io::Result<()> {
    let seq = match node.seq {
        None => String::new(),
        Some(seq) if node.session == session => seq.to_string(),
        Some(seq) => format!("sys:{seq}"),
    };
    let above = if node.above { " (above)" } else { "" };
    writeln!(out, "{seq:>8}  {:indent$}{}{above}", "", escaped(&node.text), indent = 2 * depth)?;
    node.children.iter().try_for_each(|child| print_node(child, depth + 1, session, out))
}

/// Writes an answer as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let document = json!({
        "format": FORMAT,
        "session": answer.session.to_string(),
        "system": answer.system.map(|system| system.to_string()),
        "checked": answer.checked,
        "tree": answer.tree.json(),
    });
    write_line(&document, out)
}
