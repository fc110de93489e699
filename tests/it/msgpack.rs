//! Msgpack as a tree of values, by hand: to read rows and bodies without the kernel's structs, and to write bodies that
//! the kernel's encoder never would.

/// One msgpack value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    /// Every integer that can stand in a body.
    Int(i128),
    Str(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Reads exactly one value.
    pub(crate) fn read(bytes: &[u8]) -> Value {
        let mut rest = bytes;
        let value = one(&mut rest);
        assert!(rest.is_empty(), "bytes left over");
        value
    }

    /// The bytes, in the shortest form.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// The field of a map.
    pub(crate) fn field(&self, name: &str) -> &Value {
        let Value::Map(pairs) = self else { panic!("no map: {self:?}") };
        let found = pairs.iter().find(|(key, _)| *key == Value::Str(name.to_owned()));
        &found.unwrap_or_else(|| panic!("no field {name}")).1
    }

    /// The field of a map, to change it.
    pub(crate) fn field_mut(&mut self, name: &str) -> &mut Value {
        let Value::Map(pairs) = self else { panic!("no map: {self:?}") };
        let found = pairs.iter_mut().find(|(key, _)| *key == Value::Str(name.to_owned()));
        &mut found.unwrap_or_else(|| panic!("no field {name}")).1
    }

    pub(crate) fn int(&self) -> i128 {
        let Value::Int(value) = self else { panic!("no integer: {self:?}") };
        *value
    }

    pub(crate) fn list(&self) -> &[Value] {
        let Value::Array(items) = self else { panic!("no array: {self:?}") };
        items
    }

    /// The numbers of a list, filled up with zeros.
    pub(crate) fn amounts(&self) -> [u64; 7] {
        let mut all = [0; 7];
        for (amount, value) in all.iter_mut().zip(self.list()) {
            *amount = u64::try_from(value.int()).expect("an amount");
        }
        all
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => out.push(0xc0),
            Value::Bool(value) => out.push(0xc2 + u8::from(*value)),
            Value::Int(value) => put_int(*value, out),
            Value::Str(text) => {
                match text.len() {
                    len @ 0..=31 => out.push(0xa0 | len as u8),
                    len => put_len(len, [Some(0xd9), Some(0xda), Some(0xdb)], out),
                }
                out.extend_from_slice(text.as_bytes());
            }
            Value::Bin(bytes) => {
                put_len(bytes.len(), [Some(0xc4), Some(0xc5), Some(0xc6)], out);
                out.extend_from_slice(bytes);
            }
            Value::Array(items) => {
                match items.len() {
                    len @ 0..=15 => out.push(0x90 | len as u8),
                    len => put_len(len, [None, Some(0xdc), Some(0xdd)], out),
                }
                items.iter().for_each(|item| item.put(out));
            }
            Value::Map(pairs) => {
                match pairs.len() {
                    len @ 0..=15 => out.push(0x80 | len as u8),
                    len => put_len(len, [None, Some(0xde), Some(0xdf)], out),
                }
                for (key, value) in pairs {
                    key.put(out);
                    value.put(out);
                }
            }
        }
    }
}

fn put_int(value: i128, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let (first, width) = match value {
        -32..=0x7f => return out.push(bytes[15]),
        0x80..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        0x1_0000_0000.. => (0xcf, 8),
        -128..=-33 => (0xd0, 1),
        -0x8000..=-129 => (0xd1, 2),
        -0x8000_0000..=-0x8001 => (0xd2, 4),
        i128::MIN..=-0x8000_0001 => (0xd3, 8),
    };
    out.push(first);
    out.extend_from_slice(&bytes[16 - width..]);
}

fn put_len(len: usize, firsts: [Option<u8>; 3], out: &mut Vec<u8>) {
    let bytes = (len as u32).to_be_bytes();
    let (first, width) = match (len, firsts) {
        (0..=0xff, [Some(first), ..]) => (first, 1),
        (0..=0xffff, [_, Some(first), _]) => (first, 2),
        (_, [_, _, Some(first)]) => (first, 4),
        _ => panic!("no such length"),
    };
    out.push(first);
    out.extend_from_slice(&bytes[4 - width..]);
}

fn one(rest: &mut &[u8]) -> Value {
    let first = take(rest, 1)[0];
    match first {
        0xc0 => Value::Nil,
        0xc2 | 0xc3 => Value::Bool(first == 0xc3),
        0x00..=0x7f => Value::Int(i128::from(first)),
        0xe0..=0xff => Value::Int(i128::from(first as i8)),
        0xcc..=0xcf => Value::Int(i128::from(number(rest, 1 << (first - 0xcc)))),
        0xd0..=0xd3 => {
            let width = 1 << (first - 0xd0);
            let shift = 64 - 8 * width;
            Value::Int(i128::from((number(rest, width as usize) << shift) as i64 >> shift))
        }
        0xa0..=0xbf => text(rest, usize::from(first & 0x1f)),
        0xd9..=0xdb => {
            let len = number(rest, 1 << (first - 0xd9)) as usize;
            text(rest, len)
        }
        0xc4..=0xc6 => {
            let len = number(rest, 1 << (first - 0xc4)) as usize;
            Value::Bin(take(rest, len).to_vec())
        }
        0x90..=0x9f => array(rest, usize::from(first & 0x0f)),
        0xdc | 0xdd => {
            let len = number(rest, 2 << (first - 0xdc)) as usize;
            array(rest, len)
        }
        0x80..=0x8f => map(rest, usize::from(first & 0x0f)),
        0xde | 0xdf => {
            let len = number(rest, 2 << (first - 0xde)) as usize;
            map(rest, len)
        }
        0xc1 | 0xc7..=0xcb | 0xd4..=0xd8 => panic!("{first:#x} has no place in a body"),
    }
}

fn array(rest: &mut &[u8], len: usize) -> Value {
    Value::Array((0..len).map(|_| one(rest)).collect())
}

fn map(rest: &mut &[u8], len: usize) -> Value {
    Value::Map((0..len).map(|_| (one(rest), one(rest))).collect())
}

fn text(rest: &mut &[u8], len: usize) -> Value {
    Value::Str(String::from_utf8(take(rest, len).to_vec()).expect("UTF-8"))
}

fn number(rest: &mut &[u8], width: usize) -> u64 {
    take(rest, width).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(len);
    *rest = after;
    taken
}
