//! Laws about bytes: headers, entries, bodies.

use std::sync::OnceLock;

use proptest::prelude::*;
use toka_kernel::entry::Header;
use toka_kernel::ids::{Commitment, Digest, EntryHash, KeyId, PrincipalId, SessionId};
use toka_kernel::{BlobRef, Entry, Event, Head};

use super::{CASES, config};
use crate::model::world::{Flavour, Rng, World};
use crate::msgpack::Value;

/// A work session with every kind of its class, and the head before each entry.
pub(crate) fn sample() -> &'static (World, Vec<Head>) {
    static SAMPLE: OnceLock<(World, Vec<Head>)> = OnceLock::new();
    SAMPLE.get_or_init(|| grown(Flavour::Cited))
}

/// The same of a system session.
pub(crate) fn system_sample() -> &'static (World, Vec<Head>) {
    static SAMPLE: OnceLock<(World, Vec<Head>)> = OnceLock::new();
    SAMPLE.get_or_init(|| grown(Flavour::System))
}

/// One or the other.
pub(super) fn sample_of(system: bool) -> &'static (World, Vec<Head>) {
    if system { system_sample() } else { sample() }
}

/// The first of many sessions that holds each kind of its class, and a row of each table of an agent's work.
fn grown(flavour: Flavour) -> (World, Vec<Head>) {
    let world = (7..200).map(|seed| grown_from(seed, flavour)).find(|world| is_rich(world, flavour));
    let world = world.expect("one of so many sessions is rich");
    let heads = std::iter::once(Head::none()).chain(world.entries.iter().map(Entry::head)).collect();
    (world, heads)
}

fn grown_from(seed: u64, flavour: Flavour) -> World {
    let mut world = World::of(seed, flavour);
    let mut rng = Rng(seed);
    for _ in 0..2_000 {
        if world.entries.len() < 500 || !is_rich(&world, flavour) {
            world.step(rng.next());
        }
    }
    world
}

fn is_rich(world: &World, flavour: Flavour) -> bool {
    let of_work = |number: u16| (0x0201..=0x0502).contains(&number) || (0x0610..=0x0706).contains(&number);
    let (work, tables): (bool, &[u16]) =
        if flavour == Flavour::System { (false, &[8, 17]) } else { (true, &[8, 9, 11, 12]) };
    let wanted = toka_kernel::body::KINDS.iter().filter(|kind| kind.name != "SessionClosed");
    let mut wanted = wanted.filter(|kind| of_work(kind.number) == work || kind.name == "Observed");
    let rows = world.state.rows();
    world.entries.len() >= 500
        && wanted.all(|kind| world.entries.iter().any(|entry| entry.header().kind == kind.number))
        && tables.iter().all(|table| rows.iter().any(|(of, ..)| of == table))
}

proptest! {
    #![proptest_config(config(CASES))]

    #[test]
    fn any_changed_byte_is_found(system in any::<bool>(), entry in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let (world, heads) = sample_of(system);
        let index = entry.index(world.entries.len());
        let mut bytes = world.entries[index].bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let found = match Entry::read(&bytes) {
            Err(_) => true,
            Ok(entry) => heads[index].accept(&entry, &world.keyring).is_err(),
        };
        prop_assert!(found, "entry {index}, byte {at}, bit {bit}");
    }

    #[test]
    fn any_cut_or_longer_entry_is_found(system in any::<bool>(), entry in any::<prop::sample::Index>(), len in any::<prop::sample::Index>(), more in any::<u8>()) {
        let (world, _) = sample_of(system);
        let bytes = world.entries[entry.index(world.entries.len())].bytes();
        prop_assert!(Entry::read(&bytes[..len.index(bytes.len())]).is_err());
        prop_assert!(Entry::read(&[bytes, &[more]].concat()).is_err());
    }

    #[test]
    fn header_decode_encode(system in any::<bool>(), header in a_header(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let (world, _) = sample_of(system);
        let entry = Entry::forge(header.clone(), &body, &world.writer);
        let read = Entry::read(entry.bytes()).expect("a frame");
        prop_assert_eq!(read.bytes(), entry.bytes());
        prop_assert_eq!(read.header(), entry.header());
        prop_assert_eq!(&Header::read(entry.bytes()).expect("a header"), entry.header());
        prop_assert_eq!(read.hash(), entry.hash());
        prop_assert_eq!(read.body(), &body[..]);
        let same = Header { body_len: header.body_len, body_hash: header.body_hash, ..read.header().clone() };
        prop_assert_eq!(same, header);
    }

    #[test]
    fn header_read_is_total(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        if let Ok(entry) = Entry::read(&bytes) {
            prop_assert_eq!(entry.bytes(), &bytes[..]);
        }
    }

    /// Decoding what was encoded gives it back; what is accepted encodes to the same bytes. A body is changed in one to
    /// three places, so most of the accepted ones say something else.
    #[test]
    fn body_decode_encode(system in any::<bool>(), entry in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let (world, _) = sample_of(system);
        let entry = &world.entries[entry.index(world.entries.len())];
        let event = Event::decode(entry.header(), entry.body()).expect("honest");
        prop_assert_eq!(Ok(&event), entry.event());
        prop_assert_eq!(&event.encode()[..], entry.body());
        let mut value = Value::read(entry.body());
        let mut rng = Rng(seed);
        for _ in 0..1 + rng.below(3) {
            change_one(&mut value, &mut rng);
        }
        let bytes = value.write();
        if let Ok(event) = Event::decode(entry.header(), &bytes) {
            prop_assert_eq!(event.encode(), bytes);
        }
    }

    #[test]
    fn body_decode_is_total(system in any::<bool>(), entry in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (world, _) = sample_of(system);
        let header = world.entries[entry.index(world.entries.len())].header();
        if let Ok(event) = Event::decode(header, &bytes) {
            prop_assert_eq!(event.encode(), bytes);
        }
    }

    #[test]
    fn a_body_has_one_encoding(system in any::<bool>(), entry in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let (world, _) = sample_of(system);
        let entry = &world.entries[entry.index(world.entries.len())];
        let mut rng = Rng(seed);
        let value = Value::read(entry.body());
        let loose = loosely(&value, &mut rng);
        prop_assume!(loose != entry.body());
        prop_assert!(Event::decode(entry.header(), &loose).is_err(), "{:?}", value);
    }
}

fn a_header() -> impl Strategy<Value = Header> {
    let id = any::<[u8; 32]>;
    let blob = (any::<u32>(), id()).prop_map(|(grains, id)| BlobRef { grains, commitment: Commitment(id) });
    (
        (any::<[u8; 4]>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>(), any::<u16>()),
        (id(), any::<u64>(), id(), any::<u64>(), any::<u32>(), id(), id()),
        prop::collection::vec(any::<u64>(), 0..=16),
        prop::collection::vec(blob, 0..=64),
    )
        .prop_map(|(first, second, causes, blobs)| Header {
            magic: first.0,
            suite: first.1,
            flags: first.2,
            kind: first.3,
            schema: first.4,
            reserved: first.5,
            session: SessionId(second.0),
            seq: second.1,
            prev: EntryHash(second.2),
            time_us: second.3,
            key_epoch: second.4,
            signer: KeyId(second.5),
            principal: PrincipalId(second.6),
            body_len: 0,
            body_hash: Digest::ZERO,
            causes,
            blobs,
        })
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Map(pairs) => pairs.iter().map(|(_, value)| count(value)).sum(),
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Str(_) | Value::Bin(_) => 0,
    }
}

/// The `at`-th value of a tree, in writing order.
fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, at)),
        Value::Map(pairs) => pairs.iter_mut().find_map(|(_, item)| nth(item, at)),
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Str(_) | Value::Bin(_) => None,
    }
}

/// Changes a value to another of the same or of a neighbouring type.
pub(super) fn change_one(value: &mut Value, rng: &mut Rng) {
    let mut at = rng.below(count(value));
    let Some(value) = nth(value, &mut at) else { return };
    *value = changed(value, rng);
}

pub(super) fn changed(value: &Value, rng: &mut Rng) -> Value {
    let id = || Value::Bin(vec![0x5a; 32]);
    match value {
        Value::Nil => [Value::Int(7), id(), Value::Str("x".to_owned()), Value::Array(Vec::new())][rng.below(4)].clone(),
        Value::Bool(value) => Value::Bool(!value),
        Value::Int(value) => match rng.below(6) {
            0 => Value::Nil,
            1 => Value::Int(0),
            2 => Value::Int(i128::from(u64::MAX)),
            3 => Value::Int(-1),
            4 => Value::Int(value ^ 1),
            _ => Value::Int(value + 256),
        },
        Value::Str(text) => match rng.below(4) {
            0 => Value::Nil,
            1 => Value::Str(String::new()),
            2 => Value::Str(format!("{text}x")),
            _ => Value::Str("tool:*?depth=3&calls=7".to_owned()),
        },
        Value::Bin(bytes) => match rng.below(3) {
            0 => Value::Nil,
            1 => Value::Bin(bytes.iter().map(|byte| byte ^ 1).collect()),
            _ => Value::Bin(Vec::new()),
        },
        Value::Array(items) => match rng.below(3) {
            0 => Value::Array(Vec::new()),
            1 => Value::Array(items.iter().chain(items.first()).cloned().collect()),
            _ => Value::Array(items.iter().rev().cloned().collect()),
        },
        Value::Map(pairs) => match rng.below(3) {
            0 => Value::Nil,
            1 => Value::Map(pairs.iter().skip(1).cloned().collect()),
            _ => Value::Map(pairs.iter().chain(pairs.first()).cloned().collect()),
        },
    }
}

/// The same value in bytes that a lenient decoder would read alike, or with something msgpack has and bodies have not.
fn loosely(value: &Value, rng: &mut Rng) -> Vec<u8> {
    let honest = value.write();
    match rng.below(12) {
        0 => return [&honest[..], &[0xc0]].concat(),
        1 => return nested(rng.below(40) + 17, &honest),
        2 => return honest[..honest.len() - 1].to_vec(),
        _ => {}
    }
    let mut at = rng.below(count(value));
    let mut copy = value.clone();
    let Some(place) = nth(&mut copy, &mut at) else { return honest };
    let (original, marker) = (place.clone(), Value::Str("\u{1}marker\u{1}".to_owned()));
    *place = marker.clone();
    let (with_marker, marker) = (copy.write(), marker.write());
    let from = with_marker.windows(marker.len()).position(|window| window == marker).expect("the marker");
    let (before, after) = (&with_marker[..from], &with_marker[from + marker.len()..]);
    [before, &loose(&original, rng), after].concat()
}

fn loose(value: &Value, rng: &mut Rng) -> Vec<u8> {
    match value {
        // nil as an empty extension, as a float
        Value::Nil => [vec![0xc7, 0, 1], vec![0xca, 0, 0, 0, 0], vec![0xc1]][rng.below(3)].clone(),
        Value::Bool(value) => [vec![u8::from(*value)], vec![0xd4, 1, u8::from(*value)]][rng.below(2)].clone(),
        Value::Int(value) => {
            let wide = |first: u8, width: usize| [&[first], &value.to_be_bytes()[16 - width..]].concat();
            match rng.below(6) {
                0 if value.write_len() < 9 && *value >= 0 => wide(0xcf, 8),
                1 if value.write_len() < 9 => wide(0xd3, 8),
                2 if value.write_len() < 5 && *value >= 0 => wide(0xce, 4),
                3 if value.write_len() < 3 && *value >= 0 => wide(0xcd, 2),
                4 => [&[0xcb][..], &(*value as f64).to_be_bytes()].concat(),
                _ => [&[0xcf][..], &[0xff; 8]].concat().into_iter().chain([0xc0]).collect(),
            }
        }
        Value::Str(text) => match rng.below(3) {
            0 => Value::Bin(text.clone().into_bytes()).write(),
            1 => [&[0xdb][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat(),
            _ => Value::Array(text.bytes().map(|byte| Value::Int(byte.into())).collect()).write(),
        },
        Value::Bin(bytes) => match rng.below(3) {
            0 => [&[0xc6][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat(),
            1 => Value::Array(bytes.iter().map(|byte| Value::Int((*byte).into())).collect()).write(),
            _ => [&[0xc9][..], &(bytes.len() as u32).to_be_bytes(), &[1], bytes].concat(),
        },
        Value::Array(items) => {
            let inner: Vec<u8> = items.iter().flat_map(Value::write).collect();
            [&[0xdd][..], &(items.len() as u32).to_be_bytes(), &inner].concat()
        }
        Value::Map(pairs) => {
            let inner = |pairs: &[(Value, Value)]| -> Vec<u8> {
                pairs.iter().flat_map(|(key, value)| [key.write(), value.write()].concat()).collect()
            };
            let mut other = pairs.clone();
            match rng.below(5) {
                0 => return [&[0xdf][..], &(pairs.len() as u32).to_be_bytes(), &inner(pairs)].concat(),
                1 => return Value::Array(pairs.iter().map(|(_, value)| value.clone()).collect()).write(),
                2 => other.reverse(),
                3 => other.push((Value::Str("more".to_owned()), Value::Nil)),
                _ => {
                    for (index, pair) in other.iter_mut().enumerate() {
                        pair.0 = Value::Int(index as i128);
                    }
                }
            }
            Value::Map(other).write()
        }
    }
}

trait WriteLen {
    fn write_len(&self) -> usize;
}

impl WriteLen for i128 {
    fn write_len(&self) -> usize {
        Value::Int(*self).write().len()
    }
}

fn nested(depth: usize, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x91; depth];
    bytes.extend_from_slice(inner);
    bytes
}

#[test]
fn the_samples_hold_every_kind_but_the_end() {
    let entries = [sample(), system_sample()].map(|(world, _)| &world.entries);
    for kind in toka_kernel::body::KINDS.iter().filter(|kind| kind.name != "SessionClosed") {
        let mut all = entries.iter().flat_map(|entries| entries.iter());
        assert!(all.any(|entry| entry.header().kind == kind.number), "{}", kind.name);
    }
}
