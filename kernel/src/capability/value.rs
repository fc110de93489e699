//! How the parser reads names, paths, constraints, numbers and times.

use std::collections::BTreeSet;

use super::argument::{ArgC, Pointer, Scalar};
use super::host::HostPat;
use super::parse::{Mode, Parser, TextError, is_bare_byte};
use super::pattern::{NamePat, PathPat, RootPath, is_hidden, is_name_seg, is_path_seg};
use super::template::{Hole, Place};
use crate::denial::Code;
use crate::facts::FactType;
use crate::ids::TimeUs;
use crate::limits::{SCALAR_BYTES_MAX, SCALARS_MAX, TIME_US_MAX};

impl<'t> Parser<'t> {
    /// A name pattern up to the keys. A hole stands for a whole name.
    pub(super) fn name(&mut self) -> Result<NamePat, TextError> {
        let at = self.at;
        if self.peek() == Some(b'{') {
            self.hole(Place::Body, |kind| kind == FactType::Str, "a str fact")?;
            return Ok(NamePat::Any);
        }
        let text = self.until(b"?");
        NamePat::parse(text).or_else(|code| {
            let hint = "1 to 8 segments [a-z0-9][a-z0-9_-]* joined by `.`, `*` alone or as the last one";
            self.fail_at(at, code, "not a name", hint)
        })
    }

    /// `root/seg/seg` or `root/seg/**`, where a hole may stand for the root and what follows it.
    pub(super) fn path(&mut self) -> Result<PathPat, TextError> {
        if self.peek() == Some(b'{') {
            self.hole(Place::Body, |kind| kind == FactType::Path, "a path fact")?;
            return self.path_below(String::new());
        }
        let at = self.at;
        let root = self.take_while(is_bare_byte);
        if !is_name_seg(root) {
            return self.fail_at(at, Code::BadPath, "no root", "begin with the name of a root, as `workspace/src`");
        }
        self.path_below(root.to_owned())
    }

    /// The segments behind `joined`, which is a root, or nothing where a hole stands.
    fn path_below(&mut self, mut joined: String) -> Result<PathPat, TextError> {
        let at = self.at;
        let mut under = false;
        while !under && self.eat(b'/') {
            under = self.eat_str("**");
            if !under {
                let segment = self.segment()?;
                joined.push('/');
                joined.push_str(&segment);
            }
        }
        if !matches!(self.peek(), None | Some(b'#' | b'?' | b'&')) {
            let hint = "`**` stands last and alone; other characters than [A-Za-z0-9._@+~-] need quotes";
            return self.fail(Code::BadPath, "the path does not end here", hint);
        }
        match RootPath::checked(joined) {
            Ok(anchor) if under => Ok(PathPat::under(anchor)),
            Ok(anchor) => Ok(PathPat::exact(anchor)),
            Err(code) => self.fail_at(at, code, "path too long", "at most 64 segments and 4,096 bytes"),
        }
    }

    fn segment(&mut self) -> Result<String, TextError> {
        let at = self.at;
        let segment = if self.peek() == Some(b'"') { self.quoted()? } else { self.take_while(is_bare_byte).to_owned() };
        if is_path_seg(&segment) {
            return Ok(segment);
        }
        let hint = "a segment has 1 to 255 bytes, is not `.` or `..` and has no `/`, `\\` or invisible character; \
                    other characters than [A-Za-z0-9._@+~-] need quotes";
        self.fail_at(at, Code::BadPath, "not a path segment", hint)
    }

    /// A JSON pointer, bare or in quotes.
    pub(super) fn pointer(&mut self) -> Result<Pointer, TextError> {
        let at = self.at;
        let text = if self.peek() == Some(b'"') {
            self.quoted()?
        } else {
            self.take_while(|byte| is_bare_byte(byte) || byte == b'/').to_owned()
        };
        Pointer::parse(&text)
            .or_else(|code| self.fail_at(at, code, "not a JSON pointer", "as `/branch`, at most 256 bytes"))
    }

    /// The constraint of one argument.
    pub(super) fn argument(&mut self, pointer: &Pointer) -> Result<ArgC, TextError> {
        let at = self.at;
        if self.peek() == Some(b'{') {
            return self.argument_hole(pointer);
        }
        if self.eat_str("path:") {
            if self.peek() == Some(b'{') {
                return self.argument_path_hole(pointer);
            }
            return self.path().map(ArgC::Path);
        }
        if self.eat_str("host:") {
            let host_at = self.at;
            let host = HostPat::parse(self.until(b"&"));
            return host.map(ArgC::Host).or_else(|code| {
                let hint = "a lower-case name, `*.name`, or an address in canonical form with a prefix length";
                self.fail_at(host_at, code, "not a host", hint)
            });
        }
        if self.eat_str("len<=") {
            let value_at = self.at;
            let value = self.until(b"&");
            return self.number(value_at, value, u64::from(u32::MAX)).map(ArgC::Len);
        }
        if self.peek() != Some(b'"') && self.rest().split('&').next() == Some("absent") {
            self.until(b"&");
            return Ok(ArgC::Absent);
        }
        let first = self.scalar()?;
        if let Scalar::Int(lo) = first
            && self.eat_str("..")
        {
            return match self.scalar()? {
                Scalar::Int(hi) if lo <= hi => Ok(ArgC::Range { lo, hi }),
                Scalar::Int(_) | Scalar::Bool(_) | Scalar::Str(_) => {
                    self.fail_at(at, Code::Malformed, "not a range", "`lo..hi`, integers, lo at most hi")
                }
            };
        }
        self.set_from(first)
    }

    fn set_from(&mut self, first: Scalar) -> Result<ArgC, TextError> {
        let mut values = BTreeSet::from([first]);
        while self.eat(b'|') {
            let at = self.at;
            if !values.insert(self.scalar()?) || values.len() > SCALARS_MAX {
                return self.fail_at(at, Code::Malformed, "a value twice, or too many", "at most 64, each once");
            }
        }
        Ok(ArgC::Set(values))
    }

    fn argument_hole(&mut self, pointer: &Pointer) -> Result<ArgC, TextError> {
        self.hole(Place::Arg(pointer.clone()), |_| true, "a fact")?;
        // Any constraint but `absent` keeps the place until the hole is filled.
        Ok(ArgC::Len(0))
    }

    fn argument_path_hole(&mut self, pointer: &Pointer) -> Result<ArgC, TextError> {
        self.hole(Place::Arg(pointer.clone()), |kind| kind == FactType::Path, "a path fact")?;
        self.path_below(String::new()).map(ArgC::Path)
    }

    fn scalar(&mut self) -> Result<Scalar, TextError> {
        let at = self.at;
        if self.peek() == Some(b'"') {
            let text = self.quoted()?;
            if text.len() > SCALAR_BYTES_MAX {
                return self.fail_at(at, Code::Malformed, "string too long", "at most 256 bytes");
            }
            return Ok(Scalar::Str(text.into()));
        }
        let word = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        match (word, integer(word)) {
            ("true", _) => Ok(Scalar::Bool(true)),
            ("false", _) => Ok(Scalar::Bool(false)),
            (_, Some(value)) => Ok(Scalar::Int(value)),
            (_, None) => self.fail_at(
                at,
                Code::Malformed,
                "not a value",
                "\"text\", an integer, true or false joined by `|`; `lo..hi`, `len<=n`, `path:…`, `host:…` or `absent`",
            ),
        }
    }

    /// `{/pointer}`, noted for later.
    fn hole(&mut self, place: Place, fits: impl Fn(FactType) -> bool, wanted: &str) -> Result<(), TextError> {
        let at = self.at;
        let Mode::Template { facts } = self.mode else {
            return self.fail(Code::Malformed, "a hole", "holes stand only in the needs of a tool");
        };
        self.expect(b'{', "a hole begins with `{`")?;
        let pointer = self.pointer()?;
        self.expect(b'}', "a hole ends with `}`")?;
        let Some(spec) = facts.iter().find(|spec| spec.pointer == pointer.as_str()) else {
            return self.fail_at(at, Code::Malformed, "a hole over no fact", "declare the fact");
        };
        if !fits(spec.kind) {
            return self.fail_at(at, Code::Malformed, "a fact of another type", format!("{wanted} fits here"));
        }
        self.holes.push(Hole { pointer, kind: spec.kind, place });
        Ok(())
    }

    /// A number up to `max`.
    pub(super) fn number<T: TryFrom<u64>>(&self, at: usize, value: &str, max: u64) -> Result<T, TextError> {
        let number = whole(value).filter(|number| *number <= max).and_then(|number| T::try_from(number).ok());
        match number {
            Some(number) => Ok(number),
            None => self.fail_at(at, Code::BadAmount, "not a number in bounds", format!("0 to {max}")),
        }
    }

    /// A time, `never`, or `+` and a duration where a base is known.
    pub(super) fn time(&self, at: usize, value: &str) -> Result<TimeUs, TextError> {
        if value == "never" {
            return Ok(TIME_US_MAX);
        }
        let Some(duration) = value.strip_prefix('+') else {
            return self.number(at, value, TIME_US_MAX);
        };
        let base_us = match self.mode {
            Mode::Capability { base_us } => base_us,
            Mode::Scope | Mode::Template { .. } => None,
        };
        let Some(base_us) = base_us else {
            return self.fail_at(at, Code::Malformed, "a relative time", "only absolute µs are known here");
        };
        let time = duration_us(duration).and_then(|us| base_us.checked_add(us)).filter(|time| *time <= TIME_US_MAX);
        match time {
            Some(time) => Ok(time),
            None => self.fail_at(at, Code::BadAmount, "not a duration", "as +90s, +30m, +12h or +7d"),
        }
    }

    /// `"…"` with `\"`, `\\` and `\u{…}`.
    fn quoted(&mut self) -> Result<String, TextError> {
        let start = self.at;
        self.expect(b'"', "a quote begins with `\"`")?;
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next_char() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(at)?),
                Some(c) if is_hidden(c) => {
                    let hint = format!("write it as \\u{{{:x}}}", u32::from(c));
                    return self.fail_at(at, Code::Malformed, "an invisible character", hint);
                }
                Some(c) => text.push(c),
                None => return self.fail_at(start, Code::Malformed, "a quote without end", "end it with `\"`"),
            }
        }
    }

    fn escape(&mut self, at: usize) -> Result<char, TextError> {
        let escaped = match self.next_char() {
            Some(c @ ('"' | '\\')) => Some(c),
            Some('u') if self.eat(b'{') => {
                let digits = self.take_while(|byte| byte.is_ascii_hexdigit());
                let c = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() <= 6).and_then(char::from_u32);
                c.filter(|_| self.eat(b'}'))
            }
            Some(_) | None => None,
        };
        match escaped {
            Some(c) => Ok(c),
            None => self.fail_at(at, Code::Malformed, "not an escape", "`\\\"`, `\\\\` or `\\u{…}`"),
        }
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        debug_assert!(byte.is_ascii());
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_str(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    pub(super) fn expect(&mut self, byte: u8, hint: &str) -> Result<(), TextError> {
        if self.eat(byte) {
            return Ok(());
        }
        let found = self.rest().chars().next().map_or("the end".to_owned(), |c| format!("`{}`", c.escape_debug()));
        self.fail(Code::Malformed, format!("{found} where `{}` belongs", char::from(byte)), hint)
    }

    pub(super) fn next_char(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Everything up to one of these ASCII bytes or the end.
    pub(super) fn until(&mut self, ends: &[u8]) -> &'t str {
        self.take(|byte| !ends.contains(&byte))
    }

    /// ASCII bytes as long as they are wanted.
    pub(super) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'t str {
        self.take(|byte| byte.is_ascii() && wanted(byte))
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'t str {
        let rest = self.rest();
        let len = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    pub(super) fn fail<T>(&self, code: Code, what: impl Into<String>, hint: impl Into<String>) -> Result<T, TextError> {
        self.fail_at(self.at, code, what, hint)
    }

    pub(super) fn fail_at<T>(
        &self,
        at: usize,
        code: Code,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<T, TextError> {
        Err(TextError { code, at, what: what.into(), hint: hint.into() })
    }
}

/// A whole number without sign, leading zero or fraction; `_` may stand between digits.
pub(super) fn whole(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (first, last) = (bytes.first()?, bytes.last()?);
    let leading_zero = *first == b'0' && bytes.len() > 1;
    if leading_zero || !first.is_ascii_digit() || !last.is_ascii_digit() || text.contains("__") {
        return None;
    }
    bytes.iter().filter(|byte| **byte != b'_').try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => whole(digits).filter(|value| *value != 0).and_then(|value| 0i64.checked_sub_unsigned(value)),
        None => whole(text).and_then(|value| i64::try_from(value).ok()),
    }
}

fn duration_us(text: &str) -> Option<u64> {
    let units =
        [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    units.into_iter().find_map(|(name, us)| whole(text.strip_suffix(name)?)?.checked_mul(us))
}
