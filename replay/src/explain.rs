//! `explain`: what each code and word of Toka means, where it comes from, and what to do.

mod findings;
mod refusals;
mod words;

use std::io::{self, Write};

use serde_json::json;
use toka_kernel::Code as Refusal;
use toka_projections::{END_CODES, OUTCOMES};

use crate::code::Code;
use crate::json::write_line;

/// The format of `explain --json`.
pub(crate) const FORMAT: &str = "toka-explain/1";

/// What speaks in a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// A finding of the verifier.
    Finding,
    /// A refusal of the kernel.
    Refusal,
    /// How a call ended.
    Outcome,
    /// How an agent or a task ended.
    End,
    /// What a program ends with.
    Exit,
}

impl Family {
    /// Every family, in the order in which they are listed.
    pub const ALL: [Family; 5] = [Family::Finding, Family::Refusal, Family::Outcome, Family::End, Family::Exit];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Family::Finding => "finding of verify",
            Family::Refusal => "refusal",
            Family::Outcome => "outcome of a call",
            Family::End => "end of an agent or task",
            Family::Exit => "exit code",
        }
    }
}

/// A code with its explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What speaks.
    pub family: Family,
    /// The code, as it is printed.
    pub name: &'static str,
    /// Its number, where it has one.
    pub number: Option<u16>,
    /// What it means.
    pub meaning: &'static str,
    /// Where it comes from.
    pub cause: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Meaning, cause, and what to do.
type Text = [&'static str; 3];

/// Every code there is, by family, then by number.
pub fn all() -> Vec<Explained> {
    let told =
        |family, name, number, [meaning, cause, next]: Text| Explained { family, name, number, meaning, cause, next };
    let mut all: Vec<Explained> = Code::ALL
        .iter()
        .map(|code| {
            let text = [code.meaning(), findings::cause(*code), code.next_step()];
            told(Family::Finding, code.name(), None, text)
        })
        .collect();
    let refusals = Refusal::ALL.iter();
    all.extend(refusals.map(|code| told(Family::Refusal, code.name(), Some(code.number()), refusals::text(*code))));
    all.extend(
        (1..)
            .zip(OUTCOMES)
            .zip(words::OUTCOME)
            .map(|((number, name), text)| told(Family::Outcome, name, Some(number), text)),
    );
    all.extend(
        (0..).zip(END_CODES).zip(words::END).map(|((number, name), text)| told(Family::End, name, Some(number), text)),
    );
    all.extend((0..).zip(words::EXITS).map(|(number, (name, text))| told(Family::Exit, name, Some(number), text)));
    all
}

/// Everything that is called so: a name in any case and with `-` or `_`, the number of a refusal, `exit 3` or `3`.
pub fn find(text: &str) -> Vec<Explained> {
    let wanted = plain(text);
    let number = wanted.parse::<u16>().ok();
    let is_number = |told: &Explained| match told.family {
        Family::Refusal | Family::Exit => number.is_some() && told.number == number,
        Family::Finding | Family::Outcome | Family::End => false,
    };
    all().into_iter().filter(|told| plain(told.name) == wanted || is_number(told)).collect()
}

/// The names most like `text`, at most three, most like first; none where nothing is like it.
pub fn nearest(text: &str) -> Vec<&'static str> {
    let wanted = plain(text);
    let mut names: Vec<(usize, &'static str)> =
        all().into_iter().map(|told| (distance(&plain(told.name), &wanted), told.name)).collect();
    names.sort_unstable();
    names.dedup_by_key(|(_, name)| *name);
    let near = |(distance, name): &(usize, &str)| {
        let contained = wanted.len() >= 3 && plain(name).contains(&wanted);
        contained || *distance * 2 < name.len().max(wanted.len())
    };
    names.into_iter().filter(near).take(3).map(|(_, name)| name).collect()
}

/// What a refusal means.
pub(crate) fn meaning_of(code: Refusal) -> &'static str {
    refusals::text(code)[0]
}

/// A name as it is compared.
fn plain(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['-', ' '], "_")
}

/// How many characters must be put in, taken out or exchanged to make one text of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, char) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = at + 1;
        for (column, wanted) in other.iter().enumerate() {
            let here = row[column + 1];
            let exchanged = before + usize::from(char != *wanted);
            row[column + 1] = exchanged.min(here + 1).min(row[column] + 1);
            before = here;
        }
    }
    row[other.len()]
}

/// Prints explanations for people.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print(found: &[Explained], out: &mut dyn Write) -> io::Result<()> {
    for (index, told) in found.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}  {}{}", told.name, told.family.name(), numbered(told))?;
        writeln!(out, "  means: {}", told.meaning)?;
        writeln!(out, "  cause: {}", told.cause)?;
        writeln!(out, "  do:    {}", told.next)?;
    }
    Ok(())
}

/// Prints every code with what it means, by family.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print_list(out: &mut dyn Write) -> io::Result<()> {
    let all = all();
    for (index, family) in Family::ALL.into_iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", family.name())?;
        for told in all.iter().filter(|told| told.family == family) {
            let number = told.number.map(|number| number.to_string()).unwrap_or_default();
            writeln!(out, "  {number:>3}  {:<26}  {}", told.name, told.meaning)?;
        }
    }
    Ok(())
}

fn numbered(told: &Explained) -> String {
    match (told.family, told.number) {
        (Family::Exit, _) | (_, None) => String::new(),
        (_, Some(number)) => format!(" {number}"),
    }
}

/// Writes explanations as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(found: &[Explained], out: &mut dyn Write) -> io::Result<()> {
    let code = |told: &Explained| {
        json!({
            "family": told.family.name(), "name": told.name, "number": told.number, "meaning": told.meaning,
            "cause": told.cause, "next": told.next,
        })
    };
    write_line(&json!({ "format": FORMAT, "codes": found.iter().map(code).collect::<Vec<_>>() }), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained() {
        let all = all();
        let wanted = Code::ALL.len() + Refusal::ALL.len() + OUTCOMES.len() + END_CODES.len() + 10;
        assert_eq!(all.len(), wanted);
        for told in &all {
            for text in [told.meaning, told.cause, told.next] {
                assert!(text.len() > 5 && !text.ends_with('.'), "{} is not explained: {text:?}", told.name);
            }
            assert!(find(told.name).contains(told), "{} is not found", told.name);
        }
    }

    #[test]
    fn a_code_is_found_by_its_name_in_any_form_and_by_its_number() {
        let names = |text: &str| find(text).iter().map(|told| (told.family, told.name)).collect::<Vec<_>>();
        assert_eq!(names("out-of-scope"), [(Family::Refusal, "OUT_OF_SCOPE")]);
        assert_eq!(names("403"), names("OUT_OF_SCOPE"));
        assert_eq!(names("timed_out"), [(Family::Outcome, "timed-out")]);
        assert_eq!(names("3"), names("exit 3"));
        assert_eq!(names("BUDGET"), [(Family::Refusal, "BUDGET"), (Family::End, "BUDGET")]);
        assert_eq!(names("teapot"), []);
    }

    #[test]
    fn the_nearest_names_are_said() {
        assert_eq!(nearest("OUT_OF_SCOP")[0], "OUT_OF_SCOPE");
        assert_eq!(nearest("SIG_INVALLID")[0], "SIG_INVALID");
        assert!(nearest("GENESIS").contains(&"GENESIS_INVALID"));
        assert_eq!(nearest("zzzzzzzzzzzzzzzz"), [] as [&str; 0]);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
