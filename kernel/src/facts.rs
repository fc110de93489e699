//! The part of a call's arguments that authority looks at, and the one walker that reads it.
//!
//! Tools, executor, kernel and verifier call [`extract`] on the same bytes and so cannot disagree about what a call
//! asks for. The walker only reads canonical JSON, because two texts of one value would be two hashes of one act:
//!
//! - RFC 8259 without whitespace, UTF-8, at most 1 MiB, at most 32 containers inside each other;
//! - members ascending by the UTF-8 bytes of their names, so none twice;
//! - in strings only what must be escaped is: `\"` `\\` `\b` `\t` `\n` `\f` `\r`, every other character below U+0020
//!   as `\u00xx` with lower-case digits; all else stands for itself, `/` and U+007F included;
//! - an integer is `0` or `-`? and digits without leading zero, and fits an `i64`; so there is no `-0`;
//! - another number with 10⁻⁶ ≤ |v| < 10¹⁵ has a fraction that does not end in `0` (`-0.5`); beyond these it has one
//!   digit before the point, no fraction that ends in `0`, and an exponent without `+` (`1.5e15`, `2e-7`).
//!   At most 17 significant digits. Whether the digits are the shortest that read back the same is not checked here:
//!   the kernel has no floating point, and no such number can be a fact.

mod form;
mod scan;

pub use form::{host, is_path, is_path_segment, is_pointer, is_root};

use crate::denial::{Code, numbered};
use crate::limits::{ARGUMENT_BYTES_MAX, ARGUMENT_DEPTH_MAX, FACTS_MAX, SCALAR_BYTES_MAX};
use scan::{Cursor, Number, Plain};
use serde::{Deserialize, Serialize};

numbered! {
    /// What a declared fact is.
    FactType: u8 {
        /// A signed integer.
        Int = 1 "int",
        /// A boolean, recorded as 0 or 1.
        Bool = 2 "bool",
        /// A string.
        Str = 3 "str",
        /// `root:relative`.
        Path = 4 "path",
        /// A host name or address.
        Host = 5 "host",
    }
}

/// A fact that a tool declares: where it stands in the arguments and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactSpec {
    /// A JSON pointer (RFC 6901), at most 256 bytes.
    pub pointer: String,
    /// Its type.
    pub kind: FactType,
}

/// A fact as it stands in an event. Exactly one of `int` and `text` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The pointer of its [`FactSpec`].
    #[serde(rename = "ptr")]
    pub pointer: String,
    /// The value of an integer, or 0 or 1 of a boolean.
    pub int: Option<i64>,
    /// The value of a string, path or host, at most 256 bytes.
    pub text: Option<String>,
}

/// What [`extract`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The facts that are present, in the order of their specs.
    pub facts: Vec<Fact>,
    /// Whether the arguments hold anything that is no fact: another scalar, or an empty array or object. The empty
    /// object as a whole (no arguments) is nothing.
    pub extra: bool,
}

/// Why the arguments have no facts. Never holds a value of the arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} at \"{pointer}\": {what}")]
pub struct FactsError {
    /// `BAD_ARGUMENTS`, `BAD_PATH` or `BAD_HOST`; `MALFORMED` where the specs are at fault.
    pub code: Code,
    /// Where, as a JSON pointer of at most 256 bytes: the value, or the nearest place that such a pointer can name.
    pub pointer: String,
    /// The rule that does not hold.
    pub what: FactsFault,
}

/// The rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsFault {
    /// More than 32 facts are declared, one twice, or one with a pointer that is none.
    #[error("the declared facts are more than {FACTS_MAX}, not distinct, or no JSON pointers")]
    Specs,
    /// The bytes are more than a call may carry.
    #[error("the arguments are longer than {ARGUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// The bytes are not UTF-8.
    #[error("the arguments are not UTF-8")]
    NotUtf8,
    /// The bytes are not JSON, or JSON with whitespace.
    #[error("not canonical JSON")]
    Syntax,
    /// A string holds an escape that is wrong or not needed.
    #[error("a string is not in its canonical form")]
    String,
    /// A number is not in its canonical form, or an integer outside 64 bits.
    #[error("a number is not in its canonical form, or an integer outside 64 bits")]
    Number,
    /// Member names do not ascend.
    #[error("member names do not ascend or stand twice")]
    Order,
    /// Too many containers inside each other.
    #[error("deeper than {ARGUMENT_DEPTH_MAX}")]
    TooDeep,
    /// The value at a fact is of another type.
    #[error("not of the declared type {0}")]
    Type(FactType),
    /// The text of a fact is too long to be recorded.
    #[error("longer than {SCALAR_BYTES_MAX} bytes")]
    TextTooLong,
    /// An element of an array cannot be a path or a host.
    #[error("a path or host inside an array")]
    InArray,
    /// Not `root:relative` in the path grammar.
    #[error("not a path of the form root:relative")]
    Path,
    /// Not a host in the host grammar.
    #[error("not a host name or canonical address")]
    Host,
}

/// Reads the facts that `specs` declare from `arguments`, which must be canonical JSON.
///
/// Total: at most 32 levels of recursion, one pass, no allocation but the facts (and the pointer of an error).
/// A pointer that leads nowhere is an absent fact; one that leads to a value of another type, `null` included, is an
/// error. A host is given back lower-cased and without one trailing dot; all other text as it stands.
pub fn extract(arguments: &[u8], specs: &[FactSpec]) -> Result<Extracted, FactsError> {
    check_specs(specs)?;
    if arguments.len() > ARGUMENT_BYTES_MAX {
        return Err(refused(FactsFault::TooLong));
    }
    let text = std::str::from_utf8(arguments).map_err(|_| refused(FactsFault::NotUtf8))?;
    let mut walk = Walk { cursor: Cursor::new(text), specs, facts: [const { None }; FACTS_MAX], extra: false };
    walk.value(Place { depth: 0, alive: all(specs), in_array: false })?;
    walk.cursor.end().map_err(refused)?;
    Ok(Extracted { facts: walk.facts.into_iter().flatten().collect(), extra: walk.extra })
}

fn check_specs(specs: &[FactSpec]) -> Result<(), FactsError> {
    let distinct = |(at, spec): (usize, &FactSpec)| specs[..at].iter().all(|other| other.pointer != spec.pointer);
    let sound = specs.len() <= FACTS_MAX
        && specs.iter().all(|spec| is_pointer(&spec.pointer))
        && specs.iter().enumerate().all(distinct);
    if sound { Ok(()) } else { Err(refused(FactsFault::Specs)) }
}

/// The specs whose pointers lead through a place: a bit each.
type Alive = u32;
const _: () = assert!(FACTS_MAX <= Alive::BITS as usize);

fn all(specs: &[FactSpec]) -> Alive {
    specs.iter().enumerate().fold(0, |alive, (index, _)| alive | 1 << index)
}

fn bits(alive: Alive) -> impl Iterator<Item = usize> {
    (0..FACTS_MAX).filter(move |index| alive >> index & 1 == 1)
}

#[derive(Clone, Copy)]
struct Place {
    /// Containers around it.
    depth: usize,
    alive: Alive,
    /// Whether one of them is an array.
    in_array: bool,
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    specs: &'a [FactSpec],
    facts: [Option<Fact>; FACTS_MAX],
    extra: bool,
}

impl<'a> Walk<'a> {
    fn value(&mut self, place: Place) -> Result<(), FactsError> {
        let fact = bits(place.alive).find(|&index| self.token(index, place.depth).is_none());
        match self.cursor.peek() {
            Some(b'{') => self.no_fact(fact).and_then(|()| self.object(place)),
            Some(b'[') => self.no_fact(fact).and_then(|()| self.array(place)),
            Some(b'"') => {
                let raw = self.cursor.string().map_err(refused)?;
                self.text(fact, raw, place.in_array)
            }
            Some(b't') => self.cursor.literal("true").map_err(refused).and_then(|()| self.bool(fact, 1)),
            Some(b'f') => self.cursor.literal("false").map_err(refused).and_then(|()| self.bool(fact, 0)),
            Some(b'n') => {
                self.cursor.literal("null").map_err(refused)?;
                self.no_fact(fact).and_then(|()| self.other())
            }
            Some(_) => {
                let number = self.cursor.number().map_err(refused)?;
                self.number(fact, number)
            }
            None => Err(refused(FactsFault::Syntax)),
        }
    }

    fn object(&mut self, place: Place) -> Result<(), FactsError> {
        self.enter(place)?;
        if self.cursor.eat(b'}') {
            self.extra |= place.depth > 0;
            return Ok(());
        }
        let mut previous: Option<&str> = None;
        loop {
            let name = self.cursor.string().map_err(refused)?;
            if previous.is_some_and(|previous| !Plain::new(previous).lt(Plain::new(name))) {
                return Err(refused(FactsFault::Order).below(&escaped(name)));
            }
            self.cursor.expect(b':').map_err(refused)?;
            let leads = |token: &str| form::token_bytes(token).eq(Plain::new(name));
            let inner = self.step(place, place.in_array, leads);
            self.value(inner).map_err(|error| error.below(&escaped(name)))?;
            if !self.cursor.more(b'}').map_err(refused)? {
                return Ok(());
            }
            previous = Some(name);
        }
    }

    fn array(&mut self, place: Place) -> Result<(), FactsError> {
        self.enter(place)?;
        if self.cursor.eat(b']') {
            self.extra = true;
            return Ok(());
        }
        // Parsed once per array, since an array of single digits has half a million elements.
        let mut indices = [None; FACTS_MAX];
        for index in bits(place.alive) {
            indices[index] = self.token(index, place.depth).and_then(form::array_index);
        }
        for element in 0.. {
            let leads = bits(place.alive).filter(|&index| indices[index] == Some(element));
            let alive = leads.fold(0, |alive, index| alive | 1 << index);
            let inner = Place { depth: place.depth + 1, alive, in_array: true };
            self.value(inner).map_err(|error| error.below(&element.to_string()))?;
            if !self.cursor.more(b']').map_err(refused)? {
                break;
            }
        }
        Ok(())
    }

    fn enter(&mut self, place: Place) -> Result<(), FactsError> {
        self.cursor.skip();
        if place.depth == ARGUMENT_DEPTH_MAX { Err(refused(FactsFault::TooDeep)) } else { Ok(()) }
    }

    fn step(&self, place: Place, in_array: bool, leads: impl Fn(&str) -> bool) -> Place {
        let alive = bits(place.alive)
            .filter(|&index| self.token(index, place.depth).is_some_and(&leads))
            .fold(0, |alive, index| alive | 1 << index);
        Place { depth: place.depth + 1, alive, in_array }
    }

    /// The reference token of a spec's pointer at `depth`; `None` at its end.
    fn token(&self, index: usize, depth: usize) -> Option<&'a str> {
        self.specs[index].pointer.split('/').nth(depth + 1)
    }

    fn other(&mut self) -> Result<(), FactsError> {
        self.extra = true;
        Ok(())
    }

    fn no_fact(&self, fact: Option<usize>) -> Result<(), FactsError> {
        fact.map_or(Ok(()), |index| Err(refused(FactsFault::Type(self.specs[index].kind))))
    }

    fn bool(&mut self, fact: Option<usize>, value: i64) -> Result<(), FactsError> {
        match fact {
            None => self.other(),
            Some(index) if self.specs[index].kind == FactType::Bool => self.found(index, Some(value), None),
            Some(_) => self.no_fact(fact),
        }
    }

    fn number(&mut self, fact: Option<usize>, number: Number) -> Result<(), FactsError> {
        match (fact, number) {
            (None, _) => self.other(),
            (Some(index), Number::Int(value)) if self.specs[index].kind == FactType::Int => {
                self.found(index, Some(value), None)
            }
            (Some(_), _) => self.no_fact(fact),
        }
    }

    fn text(&mut self, fact: Option<usize>, raw: &str, in_array: bool) -> Result<(), FactsError> {
        let Some(index) = fact else { return self.other() };
        let kind = self.specs[index].kind;
        match kind {
            FactType::Int | FactType::Bool => return self.no_fact(fact),
            FactType::Path | FactType::Host if in_array => return Err(refused(FactsFault::InArray)),
            FactType::Path | FactType::Host | FactType::Str => {}
        }
        if Plain::new(raw).nth(SCALAR_BYTES_MAX).is_some() {
            return Err(refused(FactsFault::TextTooLong));
        }
        let text = String::from_utf8(Plain::new(raw).collect()).map_err(|_| refused(FactsFault::NotUtf8))?;
        let text = match kind {
            FactType::Path if !is_path(&text) => return Err(refused(FactsFault::Path)),
            FactType::Host => host(&text).ok_or_else(|| refused(FactsFault::Host))?,
            FactType::Path | FactType::Str | FactType::Int | FactType::Bool => text,
        };
        self.found(index, None, Some(text))
    }

    fn found(&mut self, index: usize, int: Option<i64>, text: Option<String>) -> Result<(), FactsError> {
        self.facts[index] = Some(Fact { pointer: self.specs[index].pointer.clone(), int, text });
        Ok(())
    }
}

fn refused(what: FactsFault) -> FactsError {
    let code = match what {
        FactsFault::Specs => Code::Malformed,
        FactsFault::Path => Code::BadPath,
        FactsFault::Host => Code::BadHost,
        FactsFault::TooLong
        | FactsFault::NotUtf8
        | FactsFault::Syntax
        | FactsFault::String
        | FactsFault::Number
        | FactsFault::Order
        | FactsFault::TooDeep
        | FactsFault::Type(_)
        | FactsFault::TextTooLong
        | FactsFault::InArray => Code::BadArguments,
    };
    FactsError { code, pointer: String::new(), what }
}

impl FactsError {
    /// The same error, seen from one container further out. What would grow too long is cut at its inner end.
    fn below(mut self, token: &str) -> FactsError {
        let fits = |inner: &str| 1 + token.len() + inner.len() <= SCALAR_BYTES_MAX;
        self.pointer = match self.pointer.as_str() {
            inner if fits(inner) => format!("/{token}{inner}"),
            _ if fits("") => format!("/{token}"),
            _ => String::new(),
        };
        self
    }
}

/// A member name as a reference token; cut short where it could not be part of a pointer anyway.
fn escaped(raw: &str) -> String {
    let name = Plain::new(raw).take(SCALAR_BYTES_MAX + 1).collect();
    String::from_utf8(name).unwrap_or_default().replace('~', "~0").replace('/', "~1")
}
