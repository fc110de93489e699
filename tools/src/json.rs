//! Canonical JSON: the one text of a value, as `toka_kernel::facts` defines and reads it.
//!
//! What the kernel leaves open is settled here: a number that is not written as an integer is the nearest 64-bit
//! binary fraction; if its value is a whole number below 10¹⁵ it becomes that integer, otherwise its digits are the
//! shortest that read back the same. So `1.0`, `1e0` and `1` are one text, and `-0.0` is `0`. An integer that does
//! not fit an `i64` is refused, because readers would round it differently.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toka_kernel::limits::{ARGUMENT_BYTES_MAX, ARGUMENT_DEPTH_MAX};

/// The most bytes of text that [`canonicalise`] reads. More than a canonical text may have, for whitespace and
/// escapes that vanish.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// Why there is no canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// How many bytes had been read, or written where a value was given.
    pub at: usize,
    /// The rule that does not hold.
    pub what: JsonFault,
}

/// The rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not JSON.
    #[error("not JSON")]
    Syntax,
    /// A string with a control character, a wrong escape or half a surrogate pair.
    #[error("not a JSON string")]
    String,
    /// A number that is not in the JSON grammar, an integer outside 64 bits, or too great for a 64-bit fraction.
    #[error("a number that cannot be represented")]
    Number,
    /// A member name that stands twice.
    #[error("a member name stands twice")]
    Duplicate,
    /// Too many containers inside each other.
    #[error("deeper than {ARGUMENT_DEPTH_MAX}")]
    TooDeep,
    /// More than [`TEXT_BYTES_MAX`] bytes to read, or more than 1 MiB in canonical form.
    #[error("longer than {ARGUMENT_BYTES_MAX} bytes")]
    TooLong,
}

/// The canonical text of the JSON in `text`.
pub fn canonicalise(text: &str) -> Result<Vec<u8>, JsonError> {
    canonical(&parse(text)?)
}

/// The canonical text of `value`, at most 1 MiB.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write(value, 0, &mut out).map_err(|what| JsonError { at: out.len(), what })?;
    Ok(out)
}

/// Reads strict JSON: no name twice, no depth above 32, numbers as above.
fn parse(text: &str) -> Result<Value, JsonError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(JsonError { at: TEXT_BYTES_MAX, what: JsonFault::TooLong });
    }
    let mut reader = Reader { text, at: 0 };
    reader.document().map_err(|what| JsonError { at: reader.at, what })
}

fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonFault> {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) => out.extend(number_text(number)?.bytes()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => write_items(b"[]", depth, out, items.iter(), |item, out| write(item, depth + 1, out))?,
        Value::Object(members) => {
            // Sorted here, since the map keeps another order when a feature of its crate is on somewhere.
            let members: BTreeMap<&str, &Value> = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
            write_items(b"{}", depth, out, members.into_iter(), |(name, value), out| {
                write_string(name, out);
                out.push(b':');
                write(value, depth + 1, out)
            })?;
        }
    }
    if out.len() > ARGUMENT_BYTES_MAX { Err(JsonFault::TooLong) } else { Ok(()) }
}

fn write_items<T>(
    [open, close]: &[u8; 2],
    depth: usize,
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut each: impl FnMut(T, &mut Vec<u8>) -> Result<(), JsonFault>,
) -> Result<(), JsonFault> {
    if depth == ARGUMENT_DEPTH_MAX {
        return Err(JsonFault::TooDeep);
    }
    out.push(*open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(item, out)?;
    }
    out.push(*close);
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend(b"\\\""),
            b'\\' => out.extend(b"\\\\"),
            0x08 => out.extend(b"\\b"),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            0x0c => out.extend(b"\\f"),
            b'\r' => out.extend(b"\\r"),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn number_text(number: &Number) -> Result<String, JsonFault> {
    match (number.as_i64(), number.is_u64(), number.as_f64()) {
        (Some(integer), _, _) => Ok(integer.to_string()),
        (None, false, Some(real)) if real.is_finite() => Ok(real_text(real)),
        _ => Err(JsonFault::Number),
    }
}

/// Both ways to print are the shortest that read back the same; a whole number prints without a point.
fn real_text(real: f64) -> String {
    match real.abs() {
        0.0 => "0".to_owned(),
        size if (1e-6..1e15).contains(&size) => format!("{real}"),
        _ => format!("{real:e}"),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Value, JsonFault> {
        let value = self.value(0)?;
        self.space();
        if self.peek().is_none() { Ok(value) } else { Err(JsonFault::Syntax) }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonFault> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth).map(Value::Object),
            Some(b'[') => self.array(depth).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => self.number().map(Value::Number),
            None => Err(JsonFault::Syntax),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Map<String, Value>, JsonFault> {
        let mut members = Map::new();
        self.items(b'}', depth, |reader| {
            let name = reader.string()?;
            reader.space();
            reader.expect(b':')?;
            let value = reader.value(depth + 1)?;
            if members.insert(name, value).is_some() { Err(JsonFault::Duplicate) } else { Ok(()) }
        })?;
        Ok(members)
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, JsonFault> {
        let mut items = Vec::new();
        self.items(b']', depth, |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(items)
    }

    fn items(
        &mut self,
        close: u8,
        depth: usize,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        if depth == ARGUMENT_DEPTH_MAX {
            return Err(JsonFault::TooDeep);
        }
        self.at += 1;
        self.space();
        if self.eat(close) {
            return Ok(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            if self.eat(close) {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn word<T>(&mut self, word: &str, value: T) -> Result<T, JsonFault> {
        word.bytes().try_for_each(|byte| self.expect(byte))?;
        Ok(value)
    }

    fn string(&mut self) -> Result<String, JsonFault> {
        self.expect(b'"')?;
        let mut string = String::new();
        loop {
            let plain = self.rest().find(|c: char| c == '"' || c == '\\' || c < ' ').ok_or(JsonFault::String)?;
            string.push_str(&self.rest()[..plain]);
            self.at += plain;
            if self.eat(b'"') {
                return Ok(string);
            }
            if !self.eat(b'\\') {
                return Err(JsonFault::String);
            }
            string.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, JsonFault> {
        let kind = self.peek().ok_or(JsonFault::String)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' => Ok(char::from(kind)),
            b'b' => Ok('\u{8}'),
            b't' => Ok('\t'),
            b'n' => Ok('\n'),
            b'f' => Ok('\u{c}'),
            b'r' => Ok('\r'),
            b'u' => self.unicode(),
            _ => {
                self.at -= 1; // what stands there may be the middle of a character
                Err(JsonFault::String)
            }
        }
    }

    fn unicode(&mut self) -> Result<char, JsonFault> {
        let first = self.unit()?;
        let code = match first {
            0xd800..=0xdbff if self.eat(b'\\') && self.eat(b'u') => match self.unit()? {
                second @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                _ => return Err(JsonFault::String),
            },
            _ => first,
        };
        char::from_u32(code).ok_or(JsonFault::String)
    }

    fn unit(&mut self) -> Result<u32, JsonFault> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(JsonFault::String)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(JsonFault::String);
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| JsonFault::String)
    }

    fn number(&mut self) -> Result<Number, JsonFault> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        let whole = self.at;
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        let token = &self.text[start..self.at];
        if self.at == whole {
            return token.parse::<i64>().map(Number::from).map_err(|_| JsonFault::Number);
        }
        token.parse().ok().and_then(Number::from_f64).ok_or(JsonFault::Number)
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        if count == 0 { Err(JsonFault::Syntax) } else { Ok(()) }
    }

    fn space(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.eat(byte) { Ok(()) } else { Err(JsonFault::Syntax) }
    }
}
