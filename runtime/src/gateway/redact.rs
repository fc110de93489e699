//! Answers without the secrets that were used to get them.
//!
//! A server may echo the key that it was sent. Before an answer is handed to anybody, each known secret is replaced:
//! as it is, and in base64, hex, percent and JSON forms. A body that still spells a secret, in pieces over several
//! events or in escapes, is withheld as a whole. What is sent is never changed. This keeps accidents out of the record;
//! it is no boundary of authority.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Part, Raw, RawKind, sse};

/// What stands in the place of a secret.
pub const PLACEHOLDER: &str = "[redacted key]";
/// What stands in the place of a whole body.
pub const WITHHELD: &str = "[withheld: the body spelt a key in pieces]";

/// A base64 form shorter than this could be anything.
const FORM_BYTES_MIN: usize = 8;
/// The least bytes at the end of a text that are taken for the beginning of a secret.
const CUT_BYTES_MIN: usize = 6;

/// Knows secrets and takes them out.
#[derive(Default)]
pub struct Redactor {
    forms: Vec<Form>,
    /// The secrets as they are.
    plain: Vec<SecretString>,
}

struct Form {
    bytes: Zeroizing<Vec<u8>>,
    any_case: bool,
}

impl Redactor {
    /// Knows `secrets`.
    pub fn of<'s>(secrets: impl IntoIterator<Item = &'s SecretString>) -> Redactor {
        let mut redactor = Redactor::default();
        for secret in secrets {
            redactor.learn(secret);
        }
        redactor
    }

    fn learn(&mut self, secret: &SecretString) {
        let text = secret.expose_secret();
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return;
        }
        let mut add = |form: String, any_case| {
            let bytes = Zeroizing::new(form.into_bytes());
            if !self.forms.iter().any(|known| *known.bytes == *bytes) {
                self.forms.push(Form { bytes, any_case });
            }
        };
        add(text.to_owned(), false);
        add(hex(bytes), true);
        for all in [false, true] {
            add(percent(bytes, all), true);
        }
        let json = Value::from(text).to_string();
        let json = json[1..json.len() - 1].to_owned();
        add(json.replace('/', "\\/"), false);
        add(json, false);
        // Within other text a secret begins at any of three places of a group; its first and last characters mix with
        // what stands beside it.
        for before in 0..3 {
            let padded = Zeroizing::new([&[0, 0][..before], bytes].concat());
            let (from, to) = ([0, 2, 3][before], padded.len() / 3 * 4);
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let form = engine.encode(&*padded);
                if let Some(core) = form.get(from..to).filter(|core| core.len() >= FORM_BYTES_MIN) {
                    add(core.to_owned(), false);
                }
            }
        }
        // The longest first, so that no rest of a longer form is left.
        self.forms.sort_by_key(|form| std::cmp::Reverse(form.bytes.len()));
        self.plain.push(secret.clone());
    }

    /// `text` with each secret replaced.
    pub fn text(&self, text: &str) -> String {
        // Invariant: forms are ASCII, so what is left of a text is text.
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// `bytes` with each secret replaced.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut begins = [false; 256];
        for form in &self.forms {
            for byte in [form.bytes[0].to_ascii_lowercase(), form.bytes[0].to_ascii_uppercase()] {
                begins[usize::from(byte)] = true;
            }
        }
        let mut clean = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let here = begins[usize::from(bytes[at])];
            let len = if here { self.forms.iter().find_map(|form| form.len_at(&bytes[at..])) } else { None };
            match len {
                Some(len) => {
                    clean.extend_from_slice(PLACEHOLDER.as_bytes());
                    at += len;
                }
                None => {
                    clean.push(bytes[at]);
                    at += 1;
                }
            }
        }
        clean
    }

    /// A part of an answer with each secret replaced.
    pub fn part(&self, part: Part) -> Part {
        match part {
            Part::Text(text) => Part::Text(self.text(&text)),
            Part::Reasoning(text) => Part::Reasoning(self.text(&text)),
            Part::Refusal(text) => Part::Refusal(self.text(&text)),
            Part::Call(mut call) => {
                for text in [&mut call.id, &mut call.name, &mut call.arguments] {
                    *text = self.text(text);
                }
                Part::Call(call)
            }
        }
    }

    /// A body that may be kept: with each secret replaced, or withheld where that is not enough.
    pub fn body(&self, kind: RawKind, bytes: &[u8]) -> Raw {
        if self.forms.is_empty() {
            return Raw { kind, bytes: bytes.to_vec() };
        }
        let clean = self.bytes(bytes);
        if self.is_spelt(kind, &clean) {
            return Raw { kind: RawKind::Withheld, bytes: WITHHELD.as_bytes().to_vec() };
        }
        Raw { kind, bytes: clean }
    }

    /// Whether the texts of a body spell a secret, each place of its documents read over all of them.
    fn is_spelt(&self, kind: RawKind, bytes: &[u8]) -> bool {
        let mut places = BTreeMap::new();
        match kind {
            RawKind::Events => {
                let mut events = Vec::new();
                // Beyond a bound nothing is read any more, and what was before it is looked at.
                let _ = sse::Parser::new().feed(bytes, &mut events);
                for event in &events {
                    collect(&event.data, &mut places);
                }
            }
            RawKind::Whole => collect(&String::from_utf8_lossy(bytes), &mut places),
            RawKind::Withheld => {}
        }
        places.values().any(|text| self.bytes(text.as_bytes()) != text.as_bytes())
    }
}

impl Form {
    /// How many bytes of a secret `bytes` begin with: all of one, or what was left of one before a body was cut.
    fn len_at(&self, bytes: &[u8]) -> Option<usize> {
        let len = self.bytes.len().min(bytes.len());
        let (here, form) = (&bytes[..len], &self.bytes[..len]);
        let same = if self.any_case { here.eq_ignore_ascii_case(form) } else { here == form };
        (same && len >= CUT_BYTES_MIN.min(self.bytes.len())).then_some(len)
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.plain.len()).finish()
    }
}

/// Adds the texts of a document to what stood at their places before; what is no JSON stands at one place.
fn collect(document: &str, places: &mut BTreeMap<String, String>) {
    match serde_json::from_str::<Value>(document) {
        Ok(value) => walk(&value, String::new(), places),
        Err(_) => places.entry("?".to_owned()).or_default().push_str(document),
    }
}

fn walk(value: &Value, place: String, places: &mut BTreeMap<String, String>) {
    match value {
        Value::String(text) => places.entry(place).or_default().push_str(text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{place}/{index}"), places);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                places.entry(format!("{place}/#")).or_default().push_str(name);
                walk(value, format!("{place}/{name}"), places);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Percent encoding of what must be encoded, or of `all`.
fn percent(bytes: &[u8], all: bool) -> String {
    let plain = |byte: u8| !all && (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;

    use super::*;

    const KEY: &str = "sk-ca/na+ry\"0123456789";

    fn redactor() -> Redactor {
        Redactor::of([&SecretString::from(KEY)])
    }

    #[test]
    fn a_key_is_found_in_each_of_its_forms() {
        let forms = [
            KEY.to_owned(),
            hex(KEY.as_bytes()),
            hex(KEY.as_bytes()).to_uppercase(),
            "sk-ca%2Fna%2Bry%220123456789".to_owned(),
            "sk-ca%2fna%2bry%220123456789".to_owned(),
            percent(KEY.as_bytes(), true),
            "sk-ca/na+ry\\\"0123456789".to_owned(),
            "sk-ca\\/na+ry\\\"0123456789".to_owned(),
        ];
        for form in forms {
            assert_eq!(redactor().text(&format!("<{form}>")), format!("<{PLACEHOLDER}>"), "{form}");
        }
    }

    #[test]
    fn a_key_is_found_within_base64_of_more_than_itself() {
        for before in ["", "a", "ab", "abc", "Bearer "] {
            for after in ["", "!", "!!", "\n"] {
                let text = format!("{before}{KEY}{after}");
                for form in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                    let clean = redactor().text(&form);
                    assert!(clean.contains(PLACEHOLDER), "{before:?} {after:?}: {form}");
                    assert!(clean.len() <= PLACEHOLDER.len() + form.len() - KEY.len(), "too much is left: {clean}");
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_a_key_at_the_end_of_what_was_cut_is_taken_out() {
        for len in CUT_BYTES_MIN..=KEY.len() {
            assert_eq!(redactor().text(&format!("it is {}", &KEY[..len])), format!("it is {PLACEHOLDER}"));
        }
        assert_eq!(redactor().text("sk-ca"), "sk-ca");
        assert_eq!(redactor().text("sk-ca/na "), "sk-ca/na ");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        let text = "sk-ca/na+ry\"012345678 is not the key, nor is ü\u{0}";
        assert_eq!(redactor().text(text), text);
        assert_eq!(redactor().bytes(b"\xff\xfe"), b"\xff\xfe");
        assert_eq!(Redactor::default().text(KEY), KEY);
        assert!(!format!("{:?}", redactor()).contains("sk-"));
    }

    #[test]
    fn a_body_that_spells_a_key_in_pieces_is_withheld() {
        let (one, two) = KEY.split_at(9);
        let event = |text: &str| format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }));
        let spelt = [event(one), event(two)].concat();
        assert_eq!(redactor().body(RawKind::Events, spelt.as_bytes()).bytes, WITHHELD.as_bytes());
        let whole = event(KEY);
        let clean = redactor().body(RawKind::Events, whole.as_bytes());
        assert_eq!((clean.kind, clean.bytes), (RawKind::Events, event(PLACEHOLDER).into_bytes()));
        let escaped = format!("{{\"a\":\"\\u0073{}\"}}", KEY[1..].replace('"', "\\\""));
        assert_eq!(redactor().body(RawKind::Whole, escaped.as_bytes()).kind, RawKind::Withheld);
        let apart = [event(one), event("other"), event(two)].concat();
        assert_eq!(redactor().body(RawKind::Events, apart.as_bytes()).bytes, apart.as_bytes());
    }
}
