//! Bodies as they stand in the log, for people and programs: any msgpack, of kinds this version knows or not.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use toka_kernel::limits::BODY_DEPTH_MAX;

/// A value of a body. Bytes become hex; the order of fields is that of the bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// Nil.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// Text.
    Text(String),
    /// Bytes, as hex.
    Hex(String),
    /// A list.
    List(Vec<Shown>),
    /// Names with values, in the order of the bytes.
    Fields(Vec<(String, Shown)>),
}

impl Shown {
    /// Reads one msgpack value that fills `bytes`; `None` for anything else, and for what no body may hold.
    pub fn of_body(bytes: &[u8]) -> Option<Shown> {
        let mut reader = Reader { bytes };
        let value = reader.value(0)?;
        reader.bytes.is_empty().then_some(value)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Shown> {
        if depth > BODY_DEPTH_MAX {
            return None;
        }
        let first = self.take(1)?[0];
        Some(match first {
            0x00..=0x7f => Shown::Unsigned(first.into()),
            0xe0..=0xff => Shown::Signed(i64::from(first.cast_signed())),
            0xc0 => Shown::Null,
            0xc2 | 0xc3 => Shown::Bool(first == 0xc3),
            0xcc..=0xcf => Shown::Unsigned(self.number(1 << (first - 0xcc))?),
            0xd0..=0xd3 => self.signed(1 << (first - 0xd0))?,
            0xa0..=0xbf => self.text(usize::from(first & 0x1f))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (first - 0xd9))?;
                self.text(len)?
            }
            0xc4..=0xc6 => {
                let len = self.len(1 << (first - 0xc4))?;
                Shown::Hex(hex(self.take(len)?))
            }
            0x90..=0x9f => self.list(usize::from(first & 0x0f), depth)?,
            0xdc | 0xdd => {
                let len = self.len(2 << (first - 0xdc))?;
                self.list(len, depth)?
            }
            0x80..=0x8f => self.fields(usize::from(first & 0x0f), depth)?,
            0xde | 0xdf => {
                let len = self.len(2 << (first - 0xde))?;
                self.fields(len, depth)?
            }
            0xc1 | 0xc7..=0xcb | 0xd4..=0xd8 => return None,
        })
    }

    /// Nothing is allocated by a length before its bytes are there.
    fn list(&mut self, len: usize, depth: usize) -> Option<Shown> {
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(self.value(depth + 1)?);
        }
        Some(Shown::List(items))
    }

    fn fields(&mut self, len: usize, depth: usize) -> Option<Shown> {
        let mut fields = Vec::new();
        for _ in 0..len {
            // Names are text in every body; whatever else stands there is shown as it would be.
            let name = Value::from(self.value(depth + 1)?);
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            fields.push((name, self.value(depth + 1)?));
        }
        Some(Shown::Fields(fields))
    }

    fn text(&mut self, len: usize) -> Option<Shown> {
        let bytes = self.take(len)?;
        Some(std::str::from_utf8(bytes).map_or_else(|_| Shown::Hex(hex(bytes)), |text| Shown::Text(text.to_owned())))
    }

    fn signed(&mut self, width: usize) -> Option<Shown> {
        let unused = 64 - 8 * u32::try_from(width).ok()?;
        let number = (self.number(width)? << unused).cast_signed() >> unused;
        Some(u64::try_from(number).map_or(Shown::Signed(number), Shown::Unsigned))
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn len(&mut self, width: usize) -> Option<usize> {
        usize::try_from(self.number(width)?).ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shown::Null => serializer.serialize_unit(),
            Shown::Bool(value) => serializer.serialize_bool(*value),
            Shown::Unsigned(value) => serializer.serialize_u64(*value),
            Shown::Signed(value) => serializer.serialize_i64(*value),
            Shown::Text(text) | Shown::Hex(text) => serializer.serialize_str(text),
            Shown::List(items) => serializer.collect_seq(items),
            Shown::Fields(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl From<Shown> for Value {
    fn from(shown: Shown) -> Value {
        match shown {
            Shown::Null => Value::Null,
            Shown::Bool(value) => value.into(),
            Shown::Unsigned(value) => value.into(),
            Shown::Signed(value) => value.into(),
            Shown::Text(text) | Shown::Hex(text) => text.into(),
            Shown::List(items) => items.into_iter().map(Value::from).collect(),
            Shown::Fields(fields) => {
                Value::Object(Map::from_iter(fields.into_iter().map(|(name, value)| (name, value.into()))))
            }
        }
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_number_is_read() {
        let cases: &[(&[u8], Shown)] = &[
            (&[0x7f], Shown::Unsigned(127)),
            (&[0xff], Shown::Signed(-1)),
            (&[0xcd, 1, 0], Shown::Unsigned(256)),
            (&[0xd1, 0xff, 0x00], Shown::Signed(-256)),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Shown::Signed(i64::MIN)),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], Shown::Unsigned(u64::MAX)),
        ];
        for (bytes, value) in cases {
            assert_eq!(Shown::of_body(bytes).as_ref(), Some(value));
        }
    }

    #[test]
    fn what_is_too_deep_too_long_or_left_over_is_nothing() {
        assert_eq!(Shown::of_body(&[0x91; 40]), None);
        assert_eq!(Shown::of_body(&[0xdd, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(Shown::of_body(&[0xc0, 0xc0]), None);
        assert_eq!(Shown::of_body(&[]), None);
    }
}
