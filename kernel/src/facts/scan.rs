//! Reads the tokens of canonical JSON: strings, numbers, literals, punctuation.

use super::FactsFault;

/// A place in the text. Every method either moves past what it read or says what is wrong there.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A number in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Int(i64),
    Real,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), FactsFault> {
        if self.eat(byte) { Ok(()) } else { Err(FactsFault::Syntax) }
    }

    /// After an item of a container: a comma means more, `close` the end.
    pub(super) fn more(&mut self, close: u8) -> Result<bool, FactsFault> {
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(close).map(|()| false)
    }

    pub(super) fn end(&self) -> Result<(), FactsFault> {
        if self.peek().is_none() { Ok(()) } else { Err(FactsFault::Syntax) }
    }

    pub(super) fn literal(&mut self, word: &str) -> Result<(), FactsFault> {
        word.bytes().try_for_each(|byte| self.expect(byte))
    }

    /// A string, given back as it stands between its quotes; [`Plain`] reads it.
    pub(super) fn string(&mut self) -> Result<&'a str, FactsFault> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek().ok_or(FactsFault::Syntax)? {
                b'"' => break,
                b'\\' => self.escape()?,
                0..=0x1f => return Err(FactsFault::String),
                _ => self.skip(),
            }
        }
        let raw = &self.text[start..self.at];
        self.skip();
        Ok(raw)
    }

    fn escape(&mut self) -> Result<(), FactsFault> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => 6,
            [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return Err(FactsFault::String),
        };
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<Number, FactsFault> {
        let rest = &self.text.as_bytes()[self.at..];
        let part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|byte| part(byte)).count();
        let token = &self.text[self.at..self.at + length];
        self.at += length;
        match token {
            "" => Err(FactsFault::Syntax),
            _ if is_integer(token) => token.parse().map(Number::Int).map_err(|_| FactsFault::Number),
            _ if is_real(token) => Ok(Number::Real),
            _ => Err(FactsFault::Number),
        }
    }
}

fn is_integer(token: &str) -> bool {
    token == "0" || is_natural(token.strip_prefix('-').unwrap_or(token))
}

/// Digits that do not begin with `0`.
fn is_natural(digits: &str) -> bool {
    !digits.starts_with('0') && is_digits(digits)
}

fn is_digits(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_real(token: &str) -> bool {
    let token = token.strip_prefix('-').unwrap_or(token);
    let significant = token.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit);
    let significant = significant.skip_while(|digit| *digit == b'0').count();
    significant <= SIGNIFICANT_MAX
        && match token.split_once('e') {
            Some((mantissa, exponent)) => is_mantissa(mantissa) && fits(mantissa, exponent),
            None => is_fixed(token),
        }
}

/// More digits than this no shortest form of 64 bits has.
const SIGNIFICANT_MAX: usize = 17;

/// 10⁻⁶ up to, not including, 10¹⁵, with a fraction.
fn is_fixed(token: &str) -> bool {
    let Some((whole, fraction)) = token.split_once('.') else { return false };
    let zeros = fraction.bytes().take_while(|digit| *digit == b'0').count();
    is_fraction(fraction) && if whole == "0" { zeros <= 5 } else { is_natural(whole) && whole.len() <= 15 }
}

fn is_fraction(fraction: &str) -> bool {
    is_digits(fraction) && !fraction.ends_with('0')
}

fn is_mantissa(mantissa: &str) -> bool {
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    whole.len() == 1 && is_natural(whole) && fraction.is_none_or(is_fraction)
}

/// At both ends of the range only those mantissas that 64 bits can hold. Digits compare like numbers here.
fn fits(mantissa: &str, exponent: &str) -> bool {
    let value = if is_integer(exponent) { exponent.parse().unwrap_or(0) } else { 0 };
    match value {
        -324 => mantissa == "5",
        -323..=-7 | 15..=307 => true,
        308 => mantissa <= "1.7976931348623157",
        _ => false,
    }
}

/// The bytes that a checked string stands for.
#[derive(Clone)]
pub(super) struct Plain<'a> {
    raw: std::slice::Iter<'a, u8>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(raw: &'a str) -> Plain<'a> {
        Plain { raw: raw.as_bytes().iter() }
    }

    fn hex(&mut self) -> Option<u8> {
        let digit = char::from(*self.raw.next()?).to_digit(16)?;
        u8::try_from(digit).ok()
    }
}

impl Iterator for Plain<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = *self.raw.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        match *self.raw.next()? {
            b'b' => Some(0x08),
            b't' => Some(b'\t'),
            b'n' => Some(b'\n'),
            b'f' => Some(0x0c),
            b'r' => Some(b'\r'),
            b'u' => {
                self.raw.nth(1)?; // always 00
                Some(self.hex()? << 4 | self.hex()?)
            }
            itself => Some(itself),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_canonical_form() {
        let good = ["0", "-1", "10", "9223372036854775807", "-9223372036854775808", "0.5", "-0.000001", "1.5e15"];
        let more = ["2e-7", "123456789012345.6", "1e308", "5e-324", "1e15", "-9.3e18"];
        for token in good.iter().chain(&more) {
            assert!(Cursor::new(token).number().is_ok(), "{token}");
        }
        let bad = ["-0", "00", "01", "+1", "1.0", "0.50", "1.", ".5", "1e3", "1E15", "1e+15", "15e15", "-", "1e015"];
        let more = [
            "9223372036854775808",
            "0.0000001",
            "1234567890123456.5",
            "1e309",
            "0.123456789012345678",
            "1e",
            "e",
            "1.8e308",
            "4e-324",
        ];
        for token in bad.iter().chain(&more) {
            assert_eq!(Cursor::new(token).number(), Err(FactsFault::Number), "{token}");
        }
    }

    #[test]
    fn a_character_has_one_canonical_escape() {
        for good in [r#""a/b""#, r#""\"\\\b\t\n\f\r\u0000\u000b\u001f""#, "\"\u{7f}\u{2028}é\""] {
            assert!(Cursor::new(good).string().is_ok(), "{good}");
        }
        for bad in [r#""\/""#, r#""\u0008""#, r#""\u000A""#, r#""\u0041""#, r#""\ud83d\ude00""#, "\"\n\"", r#""\x""#] {
            assert_eq!(Cursor::new(bad).string(), Err(FactsFault::String), "{bad}");
        }
    }
}
