//! Request bodies in pieces, so that a conversation that grows is kept once.
//!
//! A body is cut between the elements of `system`, `tools`, `messages` and `input`; put together again, its pieces are
//! the body, byte for byte. The body of the next turn begins with most of them, so its [`List`] names the list before,
//! how many of its pieces it keeps, and those that are new:
//!
//! ```text
//! turn 1   head … [   user               ]}            list 1 = { keep 0, new: head, user, tail }
//! turn 2   head … [   user   ,assistant  ,tool   ]}    list 2 = { extends 1, keep 2, new: assistant, tool, tail }
//! ```
//!
//! A piece is named by its digest. Names and lists stand in blobs, never in the body of an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// The most pieces that are new with one request: with its list and the list that it extends they fit into the blobs
/// of an entry.
pub const NEW_PIECES_MAX: usize = 62;
/// The most lists that extend each other.
pub const LISTS_MAX: usize = 100_000;

/// The arrays at the top of a body whose elements are pieces.
const CUT: [&[u8]; 4] = [b"system", b"tools", b"messages", b"input"];

/// The name of a piece or of a list: the BLAKE3 digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub [u8; 32]);

impl PieceId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> PieceId {
        PieceId(*blake3::hash(bytes).as_bytes())
    }

    /// Reads a name as it is printed.
    pub fn parse(text: &str) -> Option<PieceId> {
        blake3::Hash::from_hex(text).ok().map(|hash| PieceId(*hash.as_bytes()))
    }
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The pieces of one body, as what is new beside another list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The list it begins like.
    pub extends: Option<PieceId>,
    /// How many pieces of that one it begins with.
    pub keep: usize,
    /// The pieces that follow.
    pub new: Vec<PieceId>,
    /// How many bytes the body has.
    pub bytes: u64,
}

impl List {
    /// The list as JSON text; [`PieceId::of`] it is its name.
    pub fn to_json(&self) -> Vec<u8> {
        let new: Vec<String> = self.new.iter().map(ToString::to_string).collect();
        let extends = self.extends.map(|list| list.to_string());
        json!({ "bytes": self.bytes, "extends": extends, "keep": self.keep, "new": new }).to_string().into_bytes()
    }

    /// Reads what [`List::to_json`] writes; other members are passed over.
    pub fn from_json(text: &[u8]) -> Option<List> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let extends = value.get("extends")?;
        let extends = if extends.is_null() { None } else { Some(PieceId::parse(extends.as_str()?)?) };
        let new = value.get("new")?.as_array()?;
        Some(List {
            extends,
            keep: usize::try_from(value.get("keep")?.as_u64()?).ok()?,
            new: new.iter().map(|id| PieceId::parse(id.as_str()?)).collect::<Option<_>>()?,
            bytes: value.get("bytes")?.as_u64()?,
        })
    }

    /// All pieces of the body in order; `list` finds the lists that it extends.
    ///
    /// # Errors
    /// [`Missing`] where one is gone, or does not hold as many pieces as are kept of it.
    pub fn pieces(&self, list: &dyn Fn(&PieceId) -> Option<List>) -> Result<Vec<PieceId>, Missing> {
        let mut chain = vec![self.clone()];
        while let Some(before) = chain.last().and_then(|last| last.extends) {
            if chain.len() == LISTS_MAX {
                return Err(Missing(before));
            }
            chain.push(list(&before).ok_or(Missing(before))?);
        }
        let mut pieces: Vec<PieceId> = Vec::new();
        for list in chain.into_iter().rev() {
            if list.keep > pieces.len() {
                return Err(Missing(list.extends.unwrap_or(PieceId::of(&list.to_json()))));
            }
            pieces.truncate(list.keep);
            pieces.extend(list.new);
        }
        Ok(pieces)
    }
}

/// A piece or list that is gone: erased, or never there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the piece {0} is not there")]
pub struct Missing(pub PieceId);

/// Puts a body together again.
///
/// # Errors
/// [`Missing`] where a piece is gone.
pub fn join(pieces: &[PieceId], piece: &mut dyn FnMut(&PieceId) -> Option<Vec<u8>>) -> Result<Vec<u8>, Missing> {
    let mut body = Vec::new();
    for id in pieces {
        body.extend(piece(id).ok_or(Missing(*id))?);
    }
    Ok(body)
}

/// A piece with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub id: PieceId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What must be kept of one body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its list.
    pub list: List,
    /// The pieces that nobody has kept before, at most [`NEW_PIECES_MAX`].
    pub pieces: Vec<Piece>,
}

/// What a session has kept so far. One that begins empty after a restart keeps some pieces a second time and is right
/// all the same.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    known: BTreeSet<PieceId>,
    lanes: BTreeMap<String, Last>,
}

/// The last list of a lane.
#[derive(Clone, Debug)]
struct Last {
    list: PieceId,
    pieces: Vec<(PieceId, usize)>,
}

impl Ledger {
    /// Nothing was kept.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// What must be kept of the next body of a lane. The ledger takes it as kept.
    pub fn keep(&mut self, lane: &str, body: &[u8]) -> Kept {
        let last = self.lanes.get(lane);
        let (mut whole, from) = begins_like(last.map(|last| last.pieces.as_slice()).unwrap_or_default(), body);
        let keep = whole.len();
        let extends = last.filter(|_| keep > 0).map(|last| last.list);
        let mut pieces: Vec<Piece> = Vec::new();
        for range in self.joined(body, ranges(body, from)) {
            let (id, len) = (PieceId::of(&body[range.clone()]), range.len());
            if self.known.insert(id) {
                pieces.push(Piece { id, bytes: body[range].to_vec() });
            }
            whole.push((id, len));
        }
        let new = whole[keep..].iter().map(|(id, _)| *id).collect();
        let list = List { extends, keep, new, bytes: body.len() as u64 };
        let last = Last { list: PieceId::of(&list.to_json()), pieces: whole };
        self.lanes.insert(lane.to_owned(), last);
        Kept { list, pieces }
    }

    /// The ranges with so many joined to one that no more than [`NEW_PIECES_MAX`] are new. The last stays apart: it
    /// closes the body and is the same in all of them.
    fn joined(&self, body: &[u8], ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let mut new = BTreeSet::new();
        let mut apart = ranges.len();
        for (index, range) in ranges.iter().enumerate() {
            let id = PieceId::of(&body[range.clone()]);
            if !self.known.contains(&id) && new.insert(id) && new.len() == NEW_PIECES_MAX - 1 {
                apart = index;
            }
        }
        if new.len() <= NEW_PIECES_MAX {
            return ranges;
        }
        let Some((tail, before)) = ranges.split_last() else { return ranges };
        let mut joined = before[..apart].to_vec();
        joined.push(before[apart].start..tail.start);
        joined.push(tail.clone());
        joined
    }
}

/// The pieces that `body` begins with, and where they end.
fn begins_like(pieces: &[(PieceId, usize)], body: &[u8]) -> (Vec<(PieceId, usize)>, usize) {
    let (mut kept, mut at) = (Vec::new(), 0);
    for (id, len) in pieces {
        let next = body.get(at..at + len);
        if next.is_none_or(|bytes| PieceId::of(bytes) != *id) {
            break;
        }
        kept.push((*id, *len));
        at += len;
    }
    (kept, at)
}

/// The pieces of `body` from a byte on: the whole rest where it is no JSON.
fn ranges(body: &[u8], from: usize) -> Vec<Range<usize>> {
    let mut edges: Vec<usize> =
        boundaries(body).into_iter().filter(|edge| *edge > from && *edge < body.len()).collect();
    edges.insert(0, from);
    edges.push(body.len());
    edges.windows(2).map(|pair| pair[0]..pair[1]).filter(|range| !range.is_empty()).collect()
}

/// Where the elements of the arrays in [`CUT`] begin and the arrays end, ascending; nowhere if `body` is no JSON.
fn boundaries(body: &[u8]) -> Vec<usize> {
    if serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Vec::new();
    }
    let mut edges = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    // The name of the member at the top that is read, and whether its value is an array that is cut.
    let (mut name, mut cutting) = (&body[..0], false);
    while at < body.len() {
        match body[at] {
            b'"' => {
                let end = string_end(body, at);
                if depth == 1 {
                    name = &body[at + 1..end - 1];
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth == 2 {
                    let empty = body[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b']');
                    cutting = body[at] == b'[' && !empty && CUT.contains(&name);
                    edges.extend(cutting.then_some(at + 1));
                }
            }
            b'}' | b']' => {
                edges.extend((depth == 2 && cutting).then_some(at));
                depth -= 1;
            }
            b',' if depth == 2 && cutting => edges.push(at),
            _ => {}
        }
        at += 1;
    }
    edges
}

/// Behind the string that begins at `at`. Invariant: the body is JSON, so it ends.
fn string_end(body: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while body[end] != b'"' {
        end += if body[end] == b'\\' { 2 } else { 1 };
    }
    end + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keeps what a session keeps, and puts it together again.
    #[derive(Default)]
    struct Shelf {
        ledger: Ledger,
        pieces: BTreeMap<PieceId, Vec<u8>>,
        lists: BTreeMap<PieceId, List>,
        bytes: usize,
    }

    impl Shelf {
        fn keep(&mut self, lane: &str, body: &[u8]) -> Kept {
            let kept = self.ledger.keep(lane, body);
            for piece in &kept.pieces {
                assert_eq!(piece.id, PieceId::of(&piece.bytes));
                assert!(self.pieces.insert(piece.id, piece.bytes.clone()).is_none(), "a piece was kept before");
                self.bytes += piece.bytes.len();
            }
            let json = kept.list.to_json();
            self.bytes += json.len();
            assert_eq!(List::from_json(&json).as_ref(), Some(&kept.list));
            self.lists.insert(PieceId::of(&json), kept.list.clone());
            assert!(kept.pieces.len() <= NEW_PIECES_MAX, "{} new pieces", kept.pieces.len());
            kept
        }

        fn body(&self, list: &List) -> Result<Vec<u8>, Missing> {
            join(&list.pieces(&|id| self.lists.get(id).cloned())?, &mut |id| self.pieces.get(id).cloned())
        }
    }

    fn cut(body: &str) -> Vec<&str> {
        ranges(body.as_bytes(), 0).into_iter().map(|range| &body[range]).collect()
    }

    #[test]
    fn a_body_is_cut_between_the_elements_of_its_lists() {
        assert_eq!(
            cut(
                r#"{"a":[1,2],"tools":[{"x":[1,2]},{"y":"],["}],"messages":[],"b":{"messages":[1,2]},"input" : [ "a\"]", 2 ]}"#
            ),
            [
                r#"{"a":[1,2],"tools":["#,
                r#"{"x":[1,2]}"#,
                r#",{"y":"],["}"#,
                r#"],"messages":[],"b":{"messages":[1,2]},"input" : ["#,
                r#" "a\"]""#,
                ", 2 ",
                "]}"
            ]
        );
        assert_eq!(cut("not JSON, \"tools\":[1,2]"), ["not JSON, \"tools\":[1,2]"]);
        assert_eq!(cut(r#"{"system":"text","messages":[1]}"#), [r#"{"system":"text","messages":["#, "1", "]}"]);
        assert!(cut("").is_empty());
    }

    fn conversation(turns: usize) -> String {
        let mut messages = vec![json!({ "role": "system", "content": "You audit." })];
        for turn in 0..turns {
            let call = json!({ "id": format!("c{turn}"), "type": "function", "function": { "name": "file-reader", "arguments": "{}" } });
            messages.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
            let content = format!("{turn}: {}", "some line of a file. ".repeat(20));
            messages.push(json!({ "role": "tool", "tool_call_id": format!("c{turn}"), "content": content }));
        }
        let tools: Vec<Value> =
            (0..5).map(|tool| json!({ "name": tool, "parameters": { "type": "object" } })).collect();
        format!("{{\"model\":\"m\",\"tools\":{},\"messages\":{}}}", json!(tools), json!(messages))
    }

    #[test]
    fn a_hundred_turns_cost_at_most_twice_the_last_body() {
        let mut shelf = Shelf::default();
        let mut last = String::new();
        for turn in 0..100 {
            last = conversation(turn);
            let kept = shelf.keep("a", last.as_bytes());
            assert_eq!(shelf.body(&kept.list).expect("all is there"), last.as_bytes());
        }
        assert!(shelf.bytes <= 2 * last.len(), "{} bytes for {}", shelf.bytes, last.len());
        let whole: usize = (0..100).map(|turn| conversation(turn).len()).sum();
        assert!(whole > 20 * shelf.bytes, "whole bodies would take {whole}");
    }

    #[test]
    fn many_new_elements_are_joined_and_the_next_turn_still_costs_little() {
        let mut shelf = Shelf::default();
        let kept = shelf.keep("a", conversation(500).as_bytes());
        assert_eq!(kept.pieces.len(), NEW_PIECES_MAX);
        let before = shelf.bytes;
        let longer = conversation(501);
        let kept = shelf.keep("a", longer.as_bytes());
        assert_eq!((kept.list.keep, kept.pieces.len()), (NEW_PIECES_MAX - 1, 2));
        assert!(shelf.bytes - before < 2_000, "{}", shelf.bytes - before);
        assert_eq!(shelf.body(&kept.list).expect("all is there"), longer.as_bytes());
    }

    #[test]
    fn another_lane_shares_the_pieces_and_not_the_list() {
        let mut shelf = Shelf::default();
        let body = conversation(3);
        shelf.keep("a", body.as_bytes());
        let kept = shelf.keep("b", body.as_bytes());
        assert_eq!((kept.list.extends, kept.pieces.len()), (None, 0));
        assert_eq!(shelf.body(&kept.list).expect("all is there"), body.as_bytes());
    }

    #[test]
    fn a_piece_that_is_gone_is_named() {
        let mut shelf = Shelf::default();
        let kept = shelf.keep("a", conversation(2).as_bytes());
        let gone = kept.pieces[1].id;
        shelf.pieces.remove(&gone);
        assert_eq!(shelf.body(&kept.list), Err(Missing(gone)));
        let orphan = List { extends: Some(PieceId::of(b"x")), ..kept.list };
        assert_eq!(orphan.pieces(&|_| None), Err(Missing(PieceId::of(b"x"))));
        assert_eq!(List::from_json(b"{}"), None);
    }

    fn element() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u8>().prop_map(Value::from),
            "[ -~é\"\\\\\\[\\]{},]{0,12}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..3).prop_map(|items| json!({ "messages": items, "a": [items] })),
        ]
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let name = prop::sample::select(vec!["system", "tools", "messages", "input", "other"]);
        let member = (name, prop::collection::vec(element(), 0..90), any::<bool>());
        let document = prop::collection::vec(member, 0..4).prop_map(|members| {
            let member = |(name, items, spaced): &(&str, Vec<Value>, bool)| {
                let text = if *spaced { serde_json::to_string_pretty(items) } else { serde_json::to_string(items) };
                format!("\"{name}\":{}", text.expect("JSON"))
            };
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(",")).into_bytes()
        });
        prop_oneof![8 => document, 1 => prop::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #[test]
        fn the_pieces_of_every_body_are_the_body(bodies in prop::collection::vec((body(), 0..2_u8), 1..6)) {
            let mut shelf = Shelf::default();
            for (body, lane) in bodies {
                let kept = shelf.keep(&lane.to_string(), &body);
                prop_assert_eq!(kept.list.bytes, body.len() as u64);
                prop_assert_eq!(shelf.body(&kept.list), Ok(body));
            }
        }
    }
}
