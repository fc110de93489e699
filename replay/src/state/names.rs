//! The parts of a state and the names of their fields: the bytes hold short ones.

use crate::shown::Shown;

macro_rules! parts {
    ($($(#[$doc:meta])* $part:ident = $table:literal $name:literal [$($short:literal $long:literal)*];)*) => {
        /// A table of the state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Part { $($(#[$doc])* $part),* }

        impl Part {
            /// Every part, in the order of the tables.
            pub(crate) const ALL: [Part; [$($table),*].len()] = [$(Part::$part),*];

            /// The part that a table of the state is.
            pub(crate) fn of_table(table: u16) -> Option<Part> {
                match table {
                    $($table => Some(Part::$part),)*
                    _ => None,
                }
            }

            /// The word for it in options and output.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Part::$part => $name),* }
            }

            fn fields(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Part::$part => &[$(($short, $long)),*]),* }
            }
        }
    };
}

parts! {
    /// The session itself.
    Session = 1 "session" [
        "cls" "class" "rul" "rules" "opnr" "opener" "max" "running_max" "phas" "phase" "sys" "system"
        "next" "next_commit" "clsd" "closed"
    ];
    /// Whoever may act.
    Principals = 2 "principals" [
        "kind" "kind" "aliv" "alive" "cust" "custody" "keys" "keys" "mods" "models" "abov" "above"
    ];
    /// Keys, as they were granted.
    Keys = 3 "keys" [
        "role" "role" "ownr" "owner" "epo" "epoch" "nbf" "not_before_us" "naf" "not_after_us"
    ];
    /// Grants.
    Grants = 4 "grants" ["grnt" "grant" "rvk" "revoked"];
    /// What was spent of each grant and what is promised.
    Budgets = 5 "budgets" [
        "spnt" "spent" "rsvd" "reserved" "tat" "rate_us" "chld" "children" "live" "live" "flgt" "in_flight"
    ];
    /// Tools that are bound; in the system session those that are registered.
    Tools = 6 "tools" [
        "dig" "digest" "facts" "facts" "needs" "needs" "eff" "effect" "rsv" "reserve" "mod" "model"
        "unbd" "unbound" "stat" "state" "file" "file"
    ];
    /// Agents.
    Agents = 8 "agents" [
        "spec" "spec" "sdig" "spec_digest" "stat" "state" "paus" "paused_by" "par" "parent" "dpth" "depth"
        "grnt" "grant" "plan" "plan" "chld" "live_children" "call" "open_calls" "task" "open_tasks" "dubt" "doubts"
    ];
    /// Tasks.
    Tasks = 9 "tasks" [
        "agt" "agent" "stat" "state" "att" "attempt" "tmo" "timeout_us" "rtry" "retry" "nbf" "not_before_us"
        "due" "due_us" "req" "requires" "ended" "ended_at_commit"
    ];
    /// Unread messages of each agent.
    Messages = 11 "messages" ["unrd" "unread"];
    /// Calls that are open or in doubt, and those that have ended lately.
    Calls = 12 "calls" [
        "seq" "seq" "prin" "principal" "exec" "executor" "grs" "grants" "rsv" "reserve" "dead" "deadline_us"
        "att" "attempt" "dpth" "depth" "eff" "effect" "cncl" "cancel" "dubt" "doubt" "ended" "ended_at_commit"
    ];
    /// Signed commands that could still be sent again.
    Commands = 14 "commands" ["seq" "seq" "til" "until_us"];
    /// What each principal was refused in the last minute in which it was.
    Refusals = 15 "refusals" ["min" "minute" "cnt" "counts" "seen" "seen"];
    /// Sessions that the system session lists.
    Sessions = 17 "sessions" ["opnr" "opener" "open" "open" "rsvd" "reserved"];
}

/// Names inside a field: the path to it, then what stands there.
const INNER: [(&str, &[(&str, &str)]); 9] = [
    ("grant", &[("par", "parent"), ("iss", "issuer"), ("sub", "subject"), ("cap", "cap"), ("ans", "answers")]),
    (
        "plan",
        &[
            ("ws", "workstream"),
            ("phas", "phase"),
            ("req", "requires"),
            ("then", "then"),
            ("rtry", "retry"),
            ("ess", "essential"),
            ("obj", "objectives"),
            ("del", "deliverables"),
            ("mile", "milestones"),
            ("repl", "replaces"),
        ],
    ),
    ("reserved", &[("grnt", "grant"), ("amts", "amounts")]),
    ("retry", &[("max", "max"), ("base", "base_us"), ("cap", "cap_us")]),
    ("deliverables", &[("name", "name"), ("req", "required")]),
    ("milestones", &[("name", "name"), ("mem", "members")]),
    ("facts", &[("ptr", "pointer"), ("typ", "type")]),
    ("needs", &[("text", "text"), ("when", "when")]),
    ("reserve", &[("dim", "dim"), ("base", "base"), ("per", "per"), ("ptr", "pointer")]),
];

impl Part {
    /// The part of that name.
    pub(crate) fn parse(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// The fields of a row under their long names. What a grant is stands in its row as if it were the row.
pub(crate) fn long(part: Part, fields: Vec<(String, Shown)>) -> Vec<(String, Shown)> {
    let mut out = Vec::new();
    for (short, value) in renamed(part.fields(), fields) {
        match (part, inner(&short, value)) {
            (Part::Grants, Shown::Fields(grant)) => out.extend(grant),
            (_, value) => out.push((short, value)),
        }
    }
    out
}

fn renamed(names: &[(&str, &str)], fields: Vec<(String, Shown)>) -> Vec<(String, Shown)> {
    let rename = |(short, value): (String, Shown)| {
        let name = names.iter().find(|(known, _)| *known == short).map(|(_, long)| (*long).to_owned());
        (name.unwrap_or(short), value)
    };
    fields.into_iter().map(rename).collect()
}

/// What stands in the field `name`, under long names.
fn inner(name: &str, value: Shown) -> Shown {
    match value {
        Shown::Fields(fields) => {
            let names = INNER.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, names)| names);
            let inside = |(name, value): (String, Shown)| {
                let value = inner(&name, value);
                (name, value)
            };
            Shown::Fields(renamed(names, fields).into_iter().map(inside).collect())
        }
        Shown::List(items) => Shown::List(items.into_iter().map(|item| inner(name, item)).collect()),
        Shown::Null | Shown::Bool(_) | Shown::Unsigned(_) | Shown::Signed(_) | Shown::Text(_) | Shown::Hex(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_stands_in_its_row_and_lists_are_named_inside() {
        let text = |text: &str| Shown::Text(text.to_owned());
        let grant = Shown::Fields(vec![("par".to_owned(), Shown::Null), ("cap".to_owned(), text("tool:a"))]);
        let row = long(Part::Grants, vec![("grnt".to_owned(), grant), ("rvk".to_owned(), Shown::Bool(false))]);
        let names: Vec<&str> = row.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["parent", "cap", "revoked"]);
        let need = Shown::Fields(vec![("text".to_owned(), text("fs:{}")), ("when".to_owned(), Shown::Null)]);
        let fact = Shown::Fields(vec![("ptr".to_owned(), text("/path")), ("typ".to_owned(), Shown::Unsigned(4))]);
        let row = long(
            Part::Tools,
            vec![("needs".to_owned(), Shown::List(vec![need])), ("facts".to_owned(), Shown::List(vec![fact]))],
        );
        let Shown::List(facts) = &row[1].1 else { panic!("{row:?}") };
        let Shown::Fields(fact) = &facts[0] else { panic!("{facts:?}") };
        assert_eq!(fact[0].0, "pointer");
    }
}
