//! Values of fields in words.

use toka_kernel::budget::LIMITED;
use toka_kernel::keys::Role;
use toka_kernel::tool::{Effect, Model};
use toka_kernel::{AgentState, PrincipalKind, TaskState, ToolState};

use super::Part;
use crate::shown::Shown;
use crate::text::escaped;

/// The value of a field for people. Ids are cut to 16 digits; JSON has them whole.
pub(crate) fn text(part: Part, name: &str, value: &Shown) -> String {
    match (value, word(part, name, value)) {
        (_, Some(word)) => word.to_owned(),
        (Shown::List(items), None) if is_amounts(name, items) => amounts(items),
        (_, None) => plain(value),
    }
}

fn plain(value: &Shown) -> String {
    match value {
        Shown::Null => "-".to_owned(),
        Shown::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Shown::Unsigned(value) => value.to_string(),
        Shown::Signed(value) => value.to_string(),
        Shown::Hex(hex) => hex[..hex.len().min(16)].to_owned(),
        Shown::Text(text) => quoted(text),
        Shown::List(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        Shown::Fields(fields) => {
            let field = |(name, value): &(String, Shown)| {
                let listed = if let Shown::List(items) = value { Some(items) } else { None };
                let value = match listed.filter(|items| is_amounts(name, items)) {
                    Some(items) => amounts(items),
                    None => plain(value),
                };
                format!("{name}={value}")
            };
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Text with quotes where it would not be seen where it ends.
fn quoted(text: &str) -> String {
    let safe = |char: char| !char.is_whitespace() && !"\"[]{}".contains(char);
    let text = escaped(text);
    if !text.is_empty() && text != "-" && text.chars().all(safe) {
        text
    } else {
        format!("\"{}\"", text.replace('"', "\\\""))
    }
}

/// Fields that hold an amount per dimension, without trailing zeros.
fn is_amounts(name: &str, items: &[Shown]) -> bool {
    matches!(name, "spent" | "reserved" | "reserve" | "amounts")
        && items.iter().all(|item| matches!(item, Shown::Unsigned(_)))
}

fn amounts(items: &[Shown]) -> String {
    // Zeros in the middle only keep the others in their places.
    let seen = LIMITED.iter().zip(items).filter(|(_, item)| **item != Shown::Unsigned(0));
    let words: Vec<String> = seen.map(|(dim, item)| format!("{dim}={}", plain(item))).collect();
    format!("[{}]", words.join(" "))
}

/// The word for a number that stands for one.
fn word(part: Part, name: &str, value: &Shown) -> Option<&'static str> {
    let Shown::Unsigned(number) = value else { return None };
    let small = u8::try_from(*number).ok()?;
    match (part, name) {
        (Part::Session, "class") => ["system", "work"].get(usize::from(small).wrapping_sub(1)).copied(),
        (Part::Principals, "kind") => PrincipalKind::from_number(small).map(PrincipalKind::name),
        (Part::Principals, "custody") => ["in-process", "separate"].get(usize::from(small).wrapping_sub(1)).copied(),
        (Part::Keys, "role") => Role::from_number(small).map(Role::name),
        (Part::Tools | Part::Calls, "effect") => Effect::from_number(small).map(Effect::name),
        (Part::Tools, "model") => Model::from_number(small).map(Model::name),
        (Part::Tools, "state") => ToolState::from_number(small).map(ToolState::name),
        (Part::Agents, "state") => AgentState::from_number(small).map(AgentState::name),
        (Part::Tasks, "state") => TaskState::from_number(small).map(TaskState::name),
        (
            Part::Session
            | Part::Principals
            | Part::Keys
            | Part::Grants
            | Part::Budgets
            | Part::Tools
            | Part::Agents
            | Part::Tasks
            | Part::Messages
            | Part::Calls
            | Part::Commands
            | Part::Refusals
            | Part::Sessions,
            _,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_words_and_text_ends_where_it_is_seen_to() {
        assert_eq!(text(Part::Agents, "state", &Shown::Unsigned(2)), "running");
        assert_eq!(text(Part::Agents, "depth", &Shown::Unsigned(2)), "2");
        assert_eq!(text(Part::Tasks, "state", &Shown::Unsigned(99)), "99");
        assert_eq!(text(Part::Agents, "spec", &Shown::Text("a b\u{1b}".to_owned())), "\"a b\\u{1b}\"");
        assert_eq!(text(Part::Agents, "spec", &Shown::Text("auditor".to_owned())), "auditor");
        assert_eq!(text(Part::Agents, "parent", &Shown::Null), "-");
        let amounts = Shown::List([3, 0, 512].map(Shown::Unsigned).to_vec());
        assert_eq!(text(Part::Budgets, "spent", &amounts), "[calls=3 bytes_out=512]");
    }
}
