//! Typed reading of a tree: each reader returns the value, or reports what is wrong at its place and returns nothing.

use std::ops::RangeInclusive;

use toka_kernel::capability::{Capability, NamePat, Scope, is_exact_name, is_name_seg};
use toka_kernel::limits::{CAPABILITY_BYTES_MAX, NAME_SEG_BYTES_MAX, NAME_SEGS_MAX, SCALAR_BYTES_MAX};

use super::problem::{FileCode, Problems, clean, is_hostile, listed, nearest, quote, suggestion};
use super::yaml::{Kind, Member, Node, Place};

/// Which fields a mapping may have.
#[derive(Debug)]
pub struct Shape<'a> {
    /// What the messages call the mapping.
    pub what: &'a str,
    /// Fields that are read.
    pub known: &'a [&'a str],
    /// Fields that are part of the format and not built yet.
    pub later: &'a [&'a str],
    /// Fields with this beginning are read too.
    pub prefix: Option<&'a str>,
}

/// The fields of a mapping, none of them unknown.
#[derive(Debug)]
pub struct Fields<'n> {
    /// Where the mapping begins.
    pub place: Place,
    what: String,
    members: &'n [Member],
}

impl<'n> Fields<'n> {
    /// The value of a field, if it is there.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.members.iter().find(|member| member.name == name).map(|member| &member.value)
    }

    /// Where the name of a field stands; the beginning of the mapping if it is not there.
    pub fn place_of(&self, name: &str) -> Place {
        self.members.iter().find(|member| member.name == name).map_or(self.place, |member| member.place)
    }

    /// Every member, in the order of the file.
    pub fn members(&self) -> &'n [Member] {
        self.members
    }

    /// A field that must be there; `example` is a line that would be right.
    pub fn required(&self, name: &str, example: &str, problems: &mut Problems<'_>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            let message = format!("`{name}` is missing in `{}`", self.what);
            problems.report(self.place, FileCode::MissingField, message, format!("add `{example}`"));
        }
        found
    }
}

impl Problems<'_> {
    /// The fields of a mapping; reports those that are unknown or not built yet.
    pub fn fields<'n>(&mut self, node: &'n Node, shape: &Shape<'_>) -> Option<Fields<'n>> {
        let members = self.map(node, shape.what)?;
        for member in members {
            let name = member.name.as_str();
            if shape.known.contains(&name) || shape.prefix.is_some_and(|prefix| name.starts_with(prefix)) {
                continue;
            }
            if shape.later.contains(&name) {
                let message = format!("`{name}` in `{}` is known and not built yet", shape.what);
                self.report(member.place, FileCode::Unsupported, message, "leave it out: it would have no effect");
                continue;
            }
            let message = format!("unknown field {} in `{}`", quote(name), shape.what);
            let all = shape.known.iter().chain(shape.later).copied();
            let hint = match nearest(name, all) {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => format!("fields here: {}", listed(shape.known.iter().copied())),
            };
            self.report(member.place, FileCode::UnknownField, message, hint);
        }
        Some(Fields { place: node.place, what: shape.what.to_owned(), members })
    }

    /// The members of a mapping.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Member]> {
        let Kind::Map(members) = &node.kind else {
            self.wrong_type(node, what, "a mapping", "write `field: value` lines below it");
            return None;
        };
        Some(members)
    }

    /// The entries of a list of at most `most`.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str, most: usize) -> Option<&'n [Node]> {
        let Kind::List(items) = &node.kind else {
            self.wrong_type(node, what, "a list", "write `- entry` lines below it, or `[a, b]`");
            return None;
        };
        if items.len() > most {
            let message = format!("`{what}` has {} entries", items.len());
            self.report(node.place, FileCode::TooMany, message, format!("at most {most} are allowed"));
            return None;
        }
        Some(items)
    }

    /// Text, whatever it says.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let hint = match &node.kind {
            Kind::Text(text) => return Some(&text.value),
            Kind::Int(number) => format!("put it into quotes: \"{number}\""),
            Kind::Number(number) => format!("put it into quotes: \"{number}\""),
            Kind::Bool(bit) => format!("put it into quotes: \"{bit}\""),
            Kind::Null => "write a text, or leave the line out".to_owned(),
            Kind::List(_) | Kind::Map(_) | Kind::Broken => "write a text".to_owned(),
        };
        self.wrong_type(node, what, "text", &hint);
        None
    }

    /// Text of a line, or of several, without characters that could disturb whoever sees it.
    pub fn plain_text(&mut self, node: &Node, what: &str, most: usize, lines: bool) -> Option<String> {
        let text = self.text(node, what)?;
        if text.len() > most {
            let message = format!("`{what}` is {} bytes long", text.len());
            self.report(node.place, FileCode::TooLong, message, format!("at most {most} bytes are allowed"));
            return None;
        }
        let allowed = |c: char| !is_hostile(c) || (lines && matches!(c, '\n' | '\t' | '\r'));
        if let Some((at, c)) = text.char_indices().find(|(_, c)| !allowed(*c)) {
            let message = format!("`{what}` holds the character U+{:04X}, which cannot be seen", u32::from(c));
            self.report_inside(node, at, FileCode::BadText, message, "remove it");
            return None;
        }
        Some(text.to_owned())
    }

    /// A whole number in a range.
    pub fn whole(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let hint = if *range.end() == i64::MAX.unsigned_abs() {
            format!("write a whole number of at least {}, without quotes", range.start())
        } else {
            format!("write a whole number from {} to {}, without quotes", range.start(), range.end())
        };
        if let Kind::Int(number) = node.kind {
            let fitting = u64::try_from(number).ok().filter(|number| range.contains(number));
            if fitting.is_none() {
                self.report(node.place, FileCode::OutOfRange, format!("`{what}` is {number}"), hint);
            }
            return fitting;
        }
        if let Kind::Number(number) = &node.kind {
            let message = format!("`{what}` is {}, not a whole number of 64 bits", quote(number));
            self.report(node.place, FileCode::BadNumber, message, hint);
        } else {
            self.wrong_type(node, what, "a whole number", &hint);
        }
        None
    }

    /// `true` or `false`.
    pub fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        let Kind::Bool(bit) = node.kind else {
            self.wrong_type(node, what, "true or false", "write `true` or `false`");
            return None;
        };
        Some(bit)
    }

    /// One of several words; `later` are those that are not built yet.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known = words.iter().map(|(word, _)| *word);
        if later.contains(&text) {
            let message = format!("`{text}` for `{what}` is known and not built yet");
            self.report(node.place, FileCode::Unsupported, message, format!("write one of {}", listed(known)));
        } else {
            let message = format!("`{what}` cannot be {}", quote(text));
            self.report(node.place, FileCode::BadChoice, message, suggestion(text, known, "write one of"));
        }
        None
    }

    /// An exact name, `seg("."seg)*`.
    pub fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if is_exact_name(text) {
            return Some(text.to_owned());
        }
        let message = format!("`{what}` is {}, which is no name", quote(text));
        let hint = format!(
            "at most {NAME_SEGS_MAX} parts joined by `.`, each of at most {NAME_SEG_BYTES_MAX} of a-z 0-9 _ - and \
             beginning with a letter or digit{}",
            proposal(text)
        );
        self.report_inside(node, bad_at(text), FileCode::BadName, message, hint);
        None
    }

    /// One segment of a name.
    pub fn word(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if is_name_seg(text) {
            return Some(text.to_owned());
        }
        let message = format!("`{what}` is {}, which is no plain word", quote(text));
        let hint = format!(
            "at most {NAME_SEG_BYTES_MAX} of a-z 0-9 _ -, beginning with a letter or digit{}",
            proposal(&text.replace('.', "-"))
        );
        self.report_inside(node, text.find('.').unwrap_or(bad_at(text)), FileCode::BadName, message, hint);
        None
    }

    /// A pattern of tool names.
    pub fn pattern(&mut self, node: &Node, what: &str) -> Option<(String, NamePat)> {
        let text = self.text(node, what)?;
        match NamePat::parse(text) {
            Ok(pattern) => Some((text.to_owned(), pattern)),
            Err(_) => {
                let message = format!("{} in `{what}` is no pattern of names", quote(text));
                let hint = "write an exact name, `prefix.*`, or `*` for every tool";
                self.report_inside(node, bad_at(text), FileCode::BadPattern, message, hint);
                None
            }
        }
    }

    /// A capability; its canonical text.
    pub fn capability(&mut self, node: &Node, what: &str) -> Option<(String, Capability)> {
        let text = self.text(node, what)?;
        match Capability::parse(text) {
            // Nothing that an agent can ask would use it.
            Ok(Capability { scope: Scope::Admin(_), .. }) => {
                let message = format!("{} in `{what}`: an agent has no administrative rights", quote(text));
                let hint = "leave it out; people and programs are granted such rights";
                self.report_inside(node, 0, FileCode::BadCapability, message, hint);
                None
            }
            Ok(capability) => {
                let canonical = capability.to_string();
                if canonical.len() > CAPABILITY_BYTES_MAX {
                    let message = format!("a capability in `{what}` is {} bytes long", canonical.len());
                    let hint = format!("at most {CAPABILITY_BYTES_MAX} bytes are allowed");
                    self.report(node.place, FileCode::TooLong, message, hint);
                    return None;
                }
                Some((canonical, capability))
            }
            Err(error) => {
                let message = format!("{} in `{what}`: {}", quote(text), clean(&error.what, 200));
                self.report_inside(
                    node,
                    error.at.min(text.len()),
                    FileCode::BadCapability,
                    message,
                    clean(&error.hint, 300),
                );
                None
            }
        }
    }

    /// A JSON pointer, RFC 6901.
    pub fn pointer(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "pointer")?;
        let escapes_end = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
        let fine = text.is_empty() || text.starts_with('/');
        if fine && escapes_end && text.len() <= SCALAR_BYTES_MAX && !text.contains(is_hostile) {
            return Some(text.to_owned());
        }
        let message = format!("{} is no JSON pointer", quote(text));
        let hint = format!(
            "write `/member/0`, with `~1` for `/` and `~0` for `~` inside a member, at most {SCALAR_BYTES_MAX} bytes"
        );
        self.report(node.place, FileCode::BadPointer, message, hint);
        None
    }

    /// Reports that a value is of another type than `wanted`; silent where something was reported already.
    pub fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str, hint: &str) {
        let found = match node.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Broken => return,
        };
        let message = format!("`{what}` must be {wanted}, found {found}");
        self.report(node.place, FileCode::WrongType, message, hint);
    }
}

/// The first byte that no name has, as far as a single character can be wrong.
fn bad_at(text: &str) -> usize {
    let fine = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.' | '*');
    text.find(|c| !fine(c)).unwrap_or(0)
}

/// A name near to the text, when lower case and dashes make it one.
fn proposal(text: &str) -> String {
    let name: String =
        text.trim().chars().map(|c| if c.is_ascii_whitespace() { '-' } else { c.to_ascii_lowercase() }).collect();
    if is_exact_name(&name) { format!(", for example `{name}`") } else { String::new() }
}
