//! A TOML file as the same tree that YAML makes, so that its mistakes are told in the same way.
//!
//! Dates are refused: nothing that is configured is one, and what looks like a date is a text without its quotes.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{FileCode, Problems, clean};
use super::yaml::{Kind, Member, Node, Place, Text};

/// Reads a file. `None` when there is no tree to look at; every mistake is in `problems`.
pub fn parse(problems: &mut Problems<'_>) -> Option<Node> {
    let (root, errors) = DeTable::parse_recoverable(problems.text);
    for error in &errors {
        let at = error.span().map_or(Place::START, |span| place(problems.text, span.start));
        let message = format!("not TOML: {}", clean(error.message(), 200));
        problems.report(at, FileCode::Syntax, message, "look at the quotes, the brackets and the `=` up to here");
    }
    if !errors.is_empty() {
        return None;
    }
    let kind = Kind::Map(members(root.get_ref(), problems));
    Some(Node { place: Place::START, kind })
}

/// The members of a table in the order of the file; the parser sorts them by name.
fn members(table: &DeTable<'_>, problems: &mut Problems<'_>) -> Vec<Member> {
    let mut named: Vec<_> = table.iter().collect();
    named.sort_by_key(|(name, _)| name.span().start);
    let member = |(name, value): (&Spanned<_>, _)| Member {
        place: place(problems.text, name.span().start),
        name: AsRef::<str>::as_ref(name.get_ref()).to_owned(),
        value: node(value, problems),
    };
    named.into_iter().map(member).collect()
}

fn node(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Node {
    let at = place(problems.text, value.span().start);
    let kind = match value.get_ref() {
        DeValue::String(text) => {
            let source = value.span();
            let written = problems.text.get(source.clone()).unwrap_or_default();
            // Of a text in three quotes the places inside are not counted.
            let quoted = if written.starts_with("\"\"\"") || written.starts_with("'''") {
                Some('|')
            } else {
                written.chars().next()
            };
            Kind::Text(Text::written(text.clone().into_owned(), source, quoted))
        }
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Int(number),
            Err(_) => Kind::Number(number.to_string()),
        },
        DeValue::Float(number) => Kind::Number(number.as_str().to_owned()),
        DeValue::Boolean(bit) => Kind::Bool(*bit),
        DeValue::Datetime(_) => {
            problems.report(at, FileCode::WrongType, "a date cannot stand here", "put it into quotes");
            Kind::Broken
        }
        DeValue::Array(items) => Kind::List(items.iter().map(|item| node(item, problems)).collect()),
        DeValue::Table(table) => Kind::Map(members(table, problems)),
    };
    Node { place: at, kind }
}

/// The place of a byte of a text.
fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line: number(line), column: number(column) }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    const FORMAT: Format = Format { noun: "configuration", kind: "Configuration", bytes_max: 1 << 16 };

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let mut problems = Problems::new("a.toml", text, &FORMAT);
        let node = parse(&mut problems);
        let errors = problems.into_errors().iter().map(ToString::to_string).collect();
        (node, errors)
    }

    #[test]
    fn every_value_knows_its_place_and_the_order_of_the_file() {
        let (node, errors) = read("[b.c]\nz = 1\na = \"é\"\n\n[a]\nlist = [true, 1.5]\n");
        assert!(errors.is_empty(), "{errors:?}");
        let Some(Node { kind: Kind::Map(top), .. }) = node else { panic!("no map") };
        assert_eq!(top.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let Kind::Map(c) = &top[0].value.kind else { panic!("no map") };
        let Kind::Map(fields) = &c[0].value.kind else { panic!("no map") };
        assert_eq!(
            fields.iter().map(|field| (field.name.as_str(), field.place.line)).collect::<Vec<_>>(),
            [("z", 2), ("a", 3)]
        );
        assert_eq!(fields[1].value.place, Place { line: 3, column: 5 });
        assert!(matches!(&fields[1].value.kind, Kind::Text(text) if text.value == "é"));
        assert!(matches!(fields[0].value.kind, Kind::Int(1)));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let (node, errors) = read("a = 1\nb = \n");
        assert!(node.is_none());
        assert!(errors[0].starts_with("a.toml:2:"), "{errors:?}");
        let (_, errors) = read("a = 1\na = 2\n");
        assert!(errors[0].starts_with("a.toml:2:1: TOKA-1010"), "{errors:?}");
        let (_, errors) = read("\nd = 2026-01-01\n");
        assert_eq!(errors, ["a.toml:2:5: TOKA-1023: a date cannot stand here"]);
    }

    #[test]
    fn numbers_beyond_64_bits_stay_as_they_are_written() {
        let (node, _) = read("a = 99999999999999999999\nb = 0x10\n");
        let Some(Node { kind: Kind::Map(top), .. }) = node else { panic!("no map") };
        assert!(matches!(&top[0].value.kind, Kind::Number(text) if text == "99999999999999999999"));
        assert!(matches!(top[1].value.kind, Kind::Int(16)));
    }
}
