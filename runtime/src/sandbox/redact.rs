//! Secrets are taken out of what a program gives back, in the forms below, before anything is hashed or kept.
//!
//! Forms: as it is; base64 at each of the three alignments, in both alphabets; hexadecimal in both cases;
//! percent-encoded; escaped as in JSON. Lines of base64, other escapes and what is encoded
//! twice are not among them, and a program that wants to give its secret away can always find another form:
//! this keeps what happens by accident out of the log, and the sandbox keeps the program from telling anybody else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Every form of the secrets of a call.
#[derive(Debug)]
pub(super) struct Forms {
    find: AhoCorasick,
    longest: usize,
    /// Stands where a form stood.
    mark: Vec<u8>,
}

/// A stream on its way through [`Forms`].
///
/// Invariant: `held` is what may still be the beginning of a form, and the result does not depend on how the stream is
/// cut, since a byte is decided on only when every form that could begin there would lie in full in `held`.
#[derive(Debug)]
pub(super) struct Redaction {
    forms: Arc<Forms>,
    held: Vec<u8>,
}

impl Forms {
    /// The forms of these values, each of 8 bytes of text at least; `None` if there are none.
    pub(super) fn of(values: &[Zeroizing<Vec<u8>>]) -> io::Result<Option<Arc<Forms>>> {
        let forms: BTreeSet<Vec<u8>> = values.iter().flat_map(|value| forms_of(value)).collect();
        let Some(longest) = forms.iter().map(Vec::len).max() else { return Ok(None) };
        let mark = mark(&forms).ok_or_else(|| io::Error::other("the values hold every byte there is"))?;
        // Of this kind one is small however many forms there are, and as fast on any input.
        let kind = Some(AhoCorasickKind::ContiguousNFA);
        let find = AhoCorasickBuilder::new().match_kind(MatchKind::LeftmostLongest).kind(kind).build(&forms);
        let find = find.map_err(io::Error::other)?;
        Ok(Some(Arc::new(Forms { find, longest, mark })))
    }

    /// A whole text without any form.
    pub(super) fn redacted(self: &Arc<Forms>, text: &[u8]) -> Vec<u8> {
        let mut redaction = Redaction::new(self.clone());
        let mut clean = Vec::with_capacity(text.len());
        redaction.take(text, &mut |bytes| clean.extend_from_slice(bytes));
        redaction.end(&mut |bytes| clean.extend_from_slice(bytes));
        clean
    }
}

impl Redaction {
    pub(super) fn new(forms: Arc<Forms>) -> Redaction {
        Redaction { forms, held: Vec::new() }
    }

    /// Takes the next bytes, and gives on what is decided.
    pub(super) fn take(&mut self, bytes: &[u8], give: &mut dyn FnMut(&[u8])) {
        self.held.extend_from_slice(bytes);
        // What is held is searched again, so not for every few bytes.
        if self.held.len() >= 2 * self.forms.longest {
            self.decide(self.held.len() - (self.forms.longest - 1), give);
        }
    }

    /// Gives on what was held.
    pub(super) fn end(mut self, give: &mut dyn FnMut(&[u8])) {
        self.decide(self.held.len(), give);
    }

    /// Decides on every form that begins before `limit`.
    fn decide(&mut self, limit: usize, give: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        for found in self.forms.find.find_iter(&self.held) {
            if found.start() >= limit {
                break;
            }
            give(&self.held[at..found.start()]);
            give(&self.forms.mark);
            at = found.end();
        }
        if at < limit {
            give(&self.held[at..limit]);
            at = limit;
        }
        self.held.drain(..at);
    }
}

/// `[secret]`, with other brackets where a form holds these. No form can lie across a bracket, none fits between them,
/// and none is shorter than the whole, so what is redacted holds no form and is not longer than it was.
fn mark(forms: &BTreeSet<Vec<u8>>) -> Option<Vec<u8>> {
    let mut used = [false; 256];
    forms.iter().flatten().for_each(|byte| used[usize::from(*byte)] = true);
    let free = |byte: u8| !used[usize::from(byte)];
    let others = (1..=127).filter(|byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')).chain([0x1a]);
    let pair = [(b'[', b']'), (b'<', b'>'), (b'*', b'*')].into_iter().find(|(open, close)| free(*open) && free(*close));
    let (open, close) = pair.or_else(|| others.into_iter().find(|byte| free(*byte)).map(|byte| (byte, byte)))?;
    Some([&[open], b"secret".as_slice(), &[close]].concat())
}

/// Every form of one value.
fn forms_of(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([value.to_vec()]);
    forms.extend((0..3).flat_map(|before| aligned(value, before)));
    for upper in [false, true] {
        forms.insert(value.iter().flat_map(|byte| hex(*byte, upper)).collect());
        for keeps in [is_never, is_unreserved, is_path, is_component, is_form] {
            forms.insert(percent(value, keeps, upper, false));
            forms.insert(percent(value, keeps, upper, true));
        }
        if let Ok(text) = std::str::from_utf8(value) {
            for (ascii, slash, all) in [
                (false, false, false),
                (true, false, false),
                (false, true, false),
                (true, true, false),
                (true, true, true),
            ] {
                forms.insert(escaped(text, ascii, slash, all, upper).into_bytes());
            }
        }
    }
    forms
}

/// What base64 makes of a value with `before` bytes before it, as far as nothing beside it has a part in it.
fn aligned(value: &[u8], before: usize) -> [Vec<u8>; 2] {
    let whole = [vec![0; before], value.to_vec()].concat();
    let (first, last) = ((before * 8).div_ceil(6), whole.len() * 8 / 6);
    [STANDARD_NO_PAD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)].map(|text| text.as_bytes()[first..last].to_vec())
}

fn hex(byte: u8, upper: bool) -> [u8; 2] {
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

fn is_never(_: u8) -> bool {
    false
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// As Python's `quote` has it.
fn is_path(byte: u8) -> bool {
    is_unreserved(byte) || byte == b'/'
}

/// As `encodeURIComponent` has it.
fn is_component(byte: u8) -> bool {
    is_unreserved(byte) || b"!*'()".contains(&byte)
}

/// As forms are sent.
fn is_form(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._*".contains(&byte)
}

fn percent(value: &[u8], keeps: fn(u8) -> bool, upper: bool, plus: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(3 * value.len());
    for byte in value {
        match byte {
            b' ' if plus => text.push(b'+'),
            byte if keeps(*byte) => text.push(*byte),
            byte => {
                text.push(b'%');
                text.extend(hex(*byte, upper));
            }
        }
    }
    text
}

fn escaped(text: &str, ascii: bool, slash: bool, all: bool, upper: bool) -> String {
    let mut escaped = String::with_capacity(6 * text.len());
    let unit = |into: &mut String, unit: u16| {
        // Invariant: writing to a string cannot fail.
        let _ = if upper { write!(into, "\\u{unit:04X}") } else { write!(into, "\\u{unit:04x}") };
    };
    for c in text.chars() {
        let short = match c {
            '"' => Some('"'),
            '\\' => Some('\\'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '/' if slash => Some('/'),
            _ => None,
        };
        match short {
            Some(short) if !all => escaped.extend(['\\', short]),
            Some(_) | None if all || (ascii && !c.is_ascii()) => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|one| unit(&mut escaped, *one));
            }
            Some(_) | None => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn forms(values: &[&str]) -> Arc<Forms> {
        let values: Vec<_> = values.iter().map(|value| Zeroizing::new(value.as_bytes().to_vec())).collect();
        Forms::of(&values).expect("they build").expect("there are some")
    }

    fn in_pieces(forms: &Arc<Forms>, stream: &[u8], cuts: &[Index]) -> Vec<u8> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let (mut redaction, mut clean) = (Redaction::new(forms.clone()), Vec::new());
        let mut give = |bytes: &[u8]| clean.extend_from_slice(bytes);
        at.windows(2).for_each(|piece| redaction.take(&stream[piece[0]..piece[1]], &mut give));
        redaction.end(&mut give);
        clean
    }

    fn holds(text: &[u8], form: &[u8]) -> bool {
        text.windows(form.len()).any(|window| window == form)
    }

    /// The rule, as plainly as it can be said: from left to right, the longest form that begins here.
    fn naive(forms: &BTreeSet<Vec<u8>>, mark: &[u8], stream: &[u8]) -> Vec<u8> {
        let (mut clean, mut at) = (Vec::new(), 0);
        while at < stream.len() {
            match forms.iter().filter(|form| stream[at..].starts_with(form)).map(Vec::len).max() {
                Some(length) => {
                    clean.extend_from_slice(mark);
                    at += length;
                }
                None => {
                    clean.push(stream[at]);
                    at += 1;
                }
            }
        }
        clean
    }

    /// A value, few letters so that it overlaps itself, or anything that is text.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{8,12}", "[ -~]{8,24}", "[a-z/+ \"\\\\\n\u{e9}\u{1f600}]{8,16}", "secret\\]x{2,4}\\[secret"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn however_a_stream_is_cut_no_form_is_left(
            values in prop::collection::vec(value(), 1..4),
            parts in prop::collection::vec((any::<Index>(), any::<Index>(), prop::collection::vec(any::<u8>(), 0..6)), 0..12),
            cuts in prop::collection::vec(any::<Index>(), 0..20),
        ) {
            let all: BTreeSet<Vec<u8>> = values.iter().flat_map(|value| forms_of(value.as_bytes())).collect();
            let listed: Vec<&Vec<u8>> = all.iter().collect();
            let mut stream = Vec::new();
            for (which, end, noise) in &parts {
                // Whole forms and beginnings of them, so that one is cut short by another.
                let form = which.get(&listed);
                let end = if noise.len() % 2 == 0 { form.len() } else { end.index(form.len() + 1) };
                stream.extend_from_slice(&form[..end]);
                stream.extend_from_slice(noise);
            }
            let forms = forms(&values.iter().map(String::as_str).collect::<Vec<_>>());
            let clean = in_pieces(&forms, &stream, &cuts);
            prop_assert_eq!(&clean, &forms.redacted(&stream));
            prop_assert_eq!(&clean, &naive(&all, &forms.mark, &stream));
            prop_assert!(clean.len() <= stream.len());
            for form in &all {
                prop_assert!(!holds(&clean, form), "{} is left", String::from_utf8_lossy(form));
            }
        }

        #[test]
        fn what_is_no_secret_stays(stream in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(any::<Index>(), 0..9)) {
            // Nothing of so few bytes is that value by chance.
            let forms = forms(&["this value occurs nowhere else"]);
            prop_assert_eq!(in_pieces(&forms, &stream, &cuts), stream);
        }
    }

    #[test]
    fn the_forms_are_those_that_programs_write() {
        let forms = forms_of("p\u{e4}ss/word \"1\"".as_bytes());
        for form in [
            "p\u{e4}ss/word \"1\"",
            "cMOkc3Mvd29yZCAiMS",
            "DDpHNzL3dvcmQgIjEi",
            "ww6Rzcy93b3JkICIxI",
            "70c3a473732f776f726420223122",
            "70C3A473732F776F726420223122",
            "p%C3%A4ss%2Fword%20%221%22",
            "p%c3%a4ss/word%20%221%22",
            "p%C3%A4ss%2Fword+%221%22",
            "p\u{e4}ss/word \\\"1\\\"",
            "p\\u00e4ss/word \\\"1\\\"",
            "p\\u00E4ss\\/word \\\"1\\\"",
            "\\u0070\\u00e4\\u0073\\u0073\\u002f\\u0077\\u006f\\u0072\\u0064\\u0020\\u0022\\u0031\\u0022",
        ] {
            assert!(forms.contains(form.as_bytes()), "{form}");
        }
    }

    #[test]
    fn no_form_is_shorter_than_what_stands_in_its_place() {
        for value in ["12345678", "abcdefgh", "\u{e9}\u{e9}\u{e9}\u{e9}"] {
            assert!(forms_of(value.as_bytes()).iter().all(|form| form.len() >= "[secret]".len()), "{value}");
        }
    }
}
