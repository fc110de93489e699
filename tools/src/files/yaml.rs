//! A YAML file as a tree in which every value knows its place.
//!
//! Only the plain part of YAML 1.2 is read: one document of mappings, lists and scalars. What lets one text mean two
//! things (anchors, aliases, merge keys, tags, duplicate keys, other numbers than decimal ones) is refused.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, options};

use super::FILE_DEPTH_MAX;
use super::problem::{FileCode, Problems, clean, quote};

/// A place in a file: line and column in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Place {
    /// Where a file begins.
    pub const START: Place = Place { line: 1, column: 1 };
}

/// A value and its place.
#[derive(Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A number that is not an integer of 64 bits, as it is written.
    Number(String),
    /// Text.
    Text(Text),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, no name twice.
    Map(Vec<Member>),
    /// Already reported; whoever meets it stays silent.
    Broken,
}

/// Text, and how it is written.
#[derive(Debug)]
pub struct Text {
    /// What it says.
    pub value: String,
    /// Where it stands in the file, quotes included.
    source: Range<usize>,
    quoted: Option<char>,
}

impl Text {
    /// Text that stands at `source`; `quoted` is the quote around it, or what says that it is on several lines.
    pub(super) fn written(value: String, source: Range<usize>, quoted: Option<char>) -> Text {
        Text { value, source, quoted }
    }
}

/// A member of a mapping.
#[derive(Debug)]
pub struct Member {
    /// Where its name stands.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Node,
}

/// Reads the one document of a file. `None` when there is no tree to look at; every mistake is in `problems`.
pub fn parse(problems: &mut Problems<'_>) -> Option<Node> {
    let options = options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: 2 * FILE_DEPTH_MAX,
        block_nesting_limit: 2 * FILE_DEPTH_MAX,
    };
    let parser = Parser::new_from_str_with_options(problems.text, options);
    Builder { parser, problems }.document()
}

/// What the parser says, as far as it makes a tree.
enum Sign {
    Scalar { text: String, style: ScalarStyle, tagged: bool },
    List { tagged: bool },
    Map { tagged: bool },
    Close,
    Alias,
    Document,
    End,
}

struct Builder<'p, 's> {
    parser: Parser<'s, StrInput<'s>>,
    problems: &'p mut Problems<'s>,
}

impl<'s> Builder<'_, 's> {
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        let mut started = false;
        loop {
            let (sign, span) = self.sign()?;
            match sign {
                Sign::End => break,
                Sign::Document if started => {
                    let hint = format!("put each {} into a file of its own", self.problems.format.kind.to_lowercase());
                    self.report(place(&span.start), FileCode::Documents, "a second document begins here", hint);
                    return None;
                }
                Sign::Document => started = true,
                Sign::Scalar { .. } | Sign::List { .. } | Sign::Map { .. } | Sign::Alias | Sign::Close => {
                    root = Some(self.node(sign, span, 1)?);
                }
            }
        }
        if matches!(root, None | Some(Node { kind: Kind::Null, .. })) {
            let hint = format!("begin with `apiVersion: toka/v1` and `kind: {}`", self.problems.format.kind);
            self.report(Place::START, FileCode::Documents, "the file is empty", hint);
            return None;
        }
        root
    }

    /// The next part of the tree; `None` after a syntax error.
    fn sign(&mut self) -> Option<(Sign, Span)> {
        loop {
            let (event, span) = match self.parser.next_event()? {
                Ok(event) => event,
                Err(error) => {
                    let message = format!("not YAML: {}", clean(&error.info(), 200));
                    let hint = "look at the indentation, the quotes and the brackets up to here";
                    self.report(place(error.marker()), FileCode::Syntax, message, hint);
                    return None;
                }
            };
            let sign = match event {
                Event::Scalar(text, style, _, tag) => {
                    Sign::Scalar { text: text.into_owned(), style, tagged: tag.is_some() }
                }
                Event::SequenceStart(_, _, tag) => Sign::List { tagged: tag.is_some() },
                Event::MappingStart(_, _, tag) => Sign::Map { tagged: tag.is_some() },
                Event::SequenceEnd | Event::MappingEnd => Sign::Close,
                Event::Alias(_) | Event::UnresolvedAlias(_) => Sign::Alias,
                Event::DocumentStart(..) => Sign::Document,
                Event::StreamEnd => Sign::End,
                Event::Anchor(_, name) => {
                    let message = format!("anchors are refused: {}", quote(&format!("&{name}")));
                    self.forbidden(&span.start, message, "write the value where it is needed");
                    continue;
                }
                Event::StreamStart | Event::DocumentEnd => continue,
                other => {
                    let message = format!("not understood: {}", quote(&format!("{other:?}")));
                    self.report(place(&span.start), FileCode::Syntax, message, "write plain YAML");
                    return None;
                }
            };
            return Some((sign, span));
        }
    }

    fn node(&mut self, sign: Sign, span: Span, depth: usize) -> Option<Node> {
        let at = place(&span.start);
        if matches!(sign, Sign::List { .. } | Sign::Map { .. }) && depth > FILE_DEPTH_MAX {
            let message = format!("nested deeper than {FILE_DEPTH_MAX} levels");
            self.report(at, FileCode::TooDeep, message, "make the value flatter");
            return None;
        }
        if let Sign::Scalar { tagged: true, .. } | Sign::List { tagged: true } | Sign::Map { tagged: true } = &sign {
            let hint = "leave the tag out; write text in quotes where it must be text";
            self.forbidden(&span.tag_start.unwrap_or(span.start), "tags are refused", hint);
        }
        let kind = match sign {
            Sign::Scalar { tagged: true, .. } => Kind::Broken,
            Sign::Scalar { text, style, .. } => self.scalar(text, style, &span),
            Sign::List { .. } => {
                let mut items = Vec::new();
                loop {
                    match self.sign()? {
                        (Sign::Close, _) => break,
                        (sign, span) => items.push(self.node(sign, span, depth + 1)?),
                    }
                }
                Kind::List(items)
            }
            Sign::Map { .. } => Kind::Map(self.members(depth)?),
            Sign::Alias => {
                self.forbidden(&span.start, "aliases are refused", "write the value where it is needed");
                Kind::Broken
            }
            Sign::Close | Sign::Document | Sign::End => Kind::Broken,
        };
        Some(Node { place: at, kind })
    }

    fn members(&mut self, depth: usize) -> Option<Vec<Member>> {
        let mut members = Vec::new();
        let mut names = BTreeSet::new();
        loop {
            let (sign, span) = self.sign()?;
            let at = place(&span.start);
            if matches!(sign, Sign::Close) {
                return Some(members);
            }
            let name = if let Sign::Scalar { text, style, tagged: false } = sign {
                self.key(&text, style, &span)
            } else {
                self.node(sign, span, depth + 1)?;
                self.report(at, FileCode::BadKey, "a key must be text", "write a plain word before the colon");
                None
            };
            let (sign, span) = self.sign()?;
            let value = self.node(sign, span, depth + 1)?;
            let Some(name) = name else { continue };
            if names.insert(name.clone()) {
                members.push(Member { place: at, name, value });
            } else {
                let message = format!("the key {} stands here a second time", quote(&name));
                self.report(at, FileCode::DuplicateKey, message, "keep one of the two");
            }
        }
    }

    fn key(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Option<String> {
        let at = place(&span.start);
        if style == ScalarStyle::Plain && text == "<<" {
            self.report(
                at,
                FileCode::ForbiddenYaml,
                "merge keys are refused",
                "write the fields where they are needed",
            );
            return None;
        }
        if style == ScalarStyle::Plain && !matches!(resolve(text), Plain::Text) {
            let message = format!("the key {} is not text", quote(text));
            self.report(at, FileCode::BadKey, message, format!("put it into quotes: \"{}\"", clean(text, 60)));
            return None;
        }
        Some(text.to_owned())
    }

    fn scalar(&mut self, value: String, style: ScalarStyle, span: &Span) -> Kind {
        let quoted = match style {
            ScalarStyle::Plain => match resolve(&value) {
                Plain::Null => return Kind::Null,
                Plain::Bool(bit) => return Kind::Bool(bit),
                Plain::Int(number) => return Kind::Int(number),
                Plain::Number => return Kind::Number(value),
                Plain::LeadingZero => {
                    let message = format!("{} could be read as octal or as decimal", quote(&value));
                    let hint = format!("write {} for the number or \"{value}\" for the text", trimmed(&value));
                    self.report(place(&span.start), FileCode::BadNumber, message, hint);
                    return Kind::Broken;
                }
                Plain::Text => None,
            },
            ScalarStyle::SingleQuoted => Some('\''),
            ScalarStyle::DoubleQuoted => Some('"'),
            ScalarStyle::Literal => Some('|'),
            ScalarStyle::Folded => Some('>'),
        };
        let source = span.start.byte_offset().unwrap_or(0)..span.end.byte_offset().unwrap_or(0);
        Kind::Text(Text { value, source, quoted })
    }

    fn forbidden(&mut self, at: &Marker, message: impl Into<String>, hint: &str) {
        self.report(place(at), FileCode::ForbiddenYaml, message, hint);
    }

    fn report(&mut self, place: Place, code: FileCode, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.report(place, code, message, hint);
    }
}

impl Node {
    /// The place of a byte offset inside the text of this node; its beginning where that cannot be told.
    pub fn place_inside(&self, file: &str, offset: usize) -> Place {
        let Kind::Text(text) = &self.kind else { return self.place };
        let inside = text.value.get(..offset).and_then(|before| {
            let source = file.get(text.source.clone())?;
            columns(source.trim_end_matches(['\n', '\r', ' ']), text, before.chars().count())
        });
        match inside.and_then(|columns| u32::try_from(columns).ok()) {
            Some(columns) => Place { column: self.place.column + columns, ..self.place },
            None => self.place,
        }
    }
}

/// How many characters of its source stand before the character `count` of a text, if it is on one line.
fn columns(source: &str, text: &Text, count: usize) -> Option<usize> {
    if source.contains(['\n', '\r']) {
        return None;
    }
    match text.quoted {
        None => (source == text.value).then_some(count),
        Some('\'') => {
            let inner = source.strip_prefix('\'')?;
            let before: Vec<char> = text.value.chars().take(count).collect();
            let doubled = before.iter().filter(|c| **c == '\'').count();
            (inner.len() > count).then_some(1 + count + doubled)
        }
        Some('"') => {
            let mut chars = source.strip_prefix('"')?.chars();
            let mut columns = 1;
            for _ in 0..count {
                let escape = match chars.next()? {
                    '\\' => match chars.next()? {
                        'x' => 4,
                        'u' => 6,
                        'U' => 10,
                        _ => 2,
                    },
                    _ => 1,
                };
                chars.by_ref().take(usize::saturating_sub(escape, 2)).for_each(drop);
                columns += escape;
            }
            Some(columns)
        }
        Some(_) => None,
    }
}

/// What a plain scalar means in the core schema of YAML 1.2.
enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Number,
    LeadingZero,
    Text,
}

fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Plain::Number,
        _ => {}
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits(unsigned) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Plain::LeadingZero;
        }
        return text.parse().map_or(Plain::Number, Plain::Int);
    }
    let radix = |prefix: &str, base: u32| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(base)))
    };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || radix("0x", 16) || radix("0o", 8) || is_decimal(unsigned) {
        return Plain::Number;
    }
    Plain::Text
}

/// Digits with a fraction or an exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

fn trimmed(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number.strip_prefix('+').unwrap_or(number)),
    };
    let digits = digits.trim_start_matches('0');
    format!("{sign}{}", if digits.is_empty() { "0" } else { digits })
}

fn place(marker: &Marker) -> Place {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Place { line: number(marker.line()), column: number(marker.col() + 1) }
}
