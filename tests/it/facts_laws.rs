//! The walker of the facts: it reads canonical JSON only, and finds what a naive reader finds.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Number, Value, json};
use toka_kernel::capability::{HostPat, parse_path_fact};
use toka_kernel::denial::Code;
use toka_kernel::facts::{Extracted, Fact, FactSpec, FactType, extract, host, is_path};
use toka_kernel::limits::{ARGUMENT_BYTES_MAX, ARGUMENT_DEPTH_MAX};
use toka_tools::{JsonFault, canonical, canonicalise};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn canonical_json_is_its_own_canonical_form(value in value()) {
        let bytes = canonical(&value).unwrap();
        prop_assert_eq!(&canonicalise(text(&bytes)).unwrap(), &bytes);
        prop_assert_eq!(&canonicalise(&serde_json::to_string_pretty(&value).unwrap()).unwrap(), &bytes);
    }

    #[test]
    fn canonical_json_reads_back_as_the_same_value(value in value()) {
        let read: Value = serde_json::from_slice(&canonical(&value).unwrap()).unwrap();
        prop_assert!(same(&read, &value), "{} and {}", read, value);
    }

    #[test]
    fn what_canonicalise_writes_the_walker_accepts(value in value()) {
        prop_assert!(extract(&canonical(&value).unwrap(), &[]).is_ok());
    }

    #[test]
    fn what_the_walker_accepts_is_canonical(bytes in prop_oneof![changed(), soup()]) {
        if extract(&bytes, &[]).is_ok() {
            let again = canonicalise(text(&bytes)).unwrap();
            // Whether the digits of a fraction are the shortest is beyond the walker.
            prop_assert!(again == bytes || has_fraction(&bytes), "{:?}", text(&bytes));
        } else if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert_ne!(canonicalise(text).ok(), Some(bytes.clone()), "{:?}", text);
        }
    }

    #[test]
    fn no_bytes_and_no_specs_make_the_walker_panic(bytes in vec(any::<u8>(), 0..200), specs in vec(any_spec(), 0..40)) {
        let _ = extract(&bytes, &specs);
        let _ = std::str::from_utf8(&bytes).map(canonicalise);
    }

    #[test]
    fn the_walker_finds_what_a_naive_reader_finds((value, specs) in value_with_specs()) {
        agrees(&canonical(&value).unwrap(), &specs)?;
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_alike_by_both(
        (value, specs) in value_with_specs(),
        place in any::<Index>(),
        byte in prop_oneof![any::<u8>(), select(br#"0123456789-.e{}[]",:\u ~/"#.to_vec())],
    ) {
        let mut bytes = canonical(&value).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if extract(&bytes, &[]).is_ok() {
            agrees(&bytes, &specs)?;
        }
    }

    #[test]
    fn a_fact_and_a_capability_have_the_same_paths(text in prop_oneof!["[a-zA-Z0-9_:./\\\\-]{0,8}", path(), any::<String>()]) {
        prop_assert_eq!(is_path(&text), parse_path_fact(&text).is_ok(), "{:?}", text);
    }

    #[test]
    fn a_fact_and_a_capability_have_the_same_hosts(text in prop_oneof![host_like(), any::<String>()]) {
        match host(&text) {
            Some(canonical) => prop_assert!(HostPat::parse_exact(&canonical).is_ok(), "{:?}", canonical),
            None => prop_assert!(HostPat::parse_exact(&text).is_err(), "{:?}", text),
        }
    }
}

#[test]
fn every_rule_of_the_canonical_form_is_kept() {
    let good = ["{}", "[]", "null", r#"{"a":1,"b":[true,"x"]}"#, r#"{"":0,"B":0,"a":0,"é":0}"#, "-9223372036854775808"];
    for text in good {
        assert!(extract(text.as_bytes(), &[]).is_ok(), "{text}");
        assert_eq!(canonicalise(text).unwrap(), text.as_bytes());
    }
    let bad = [
        ("", "nothing"),
        (" {}", "space before"),
        ("{} ", "space after"),
        (r#"{"a": 1}"#, "space inside"),
        (r#"{"b":1,"a":2}"#, "not ascending"),
        (r#"{"a":1,"a":1}"#, "a name twice"),
        (r#"{"\n":1,"\t":2}"#, "not ascending behind escapes"),
        (r#"{"a":1,}"#, "a comma too many"),
        ("[1", "no end"),
        ("[1]]", "two ends"),
        ("01", "a leading zero"),
        ("-0", "minus zero"),
        ("1.0", "an integer as a fraction"),
        ("1e3", "an integer as a power"),
        ("9223372036854775808", "an integer above 64 bits"),
        ("0.10", "a zero at the end"),
        ("NaN", "no number"),
        (r#""\/""#, "an escape that is not needed"),
        (r#""\u00e9""#, "an escape that is not needed"),
        (r#""\u001F""#, "upper-case digits"),
        ("\"\t\"", "a control character"),
        ("\u{feff}{}", "a byte order mark"),
        ("{'a':1}", "other quotes"),
        ("{} // x", "a comment"),
    ];
    for (text, why) in bad {
        assert_eq!(extract(text.as_bytes(), &[]).map_err(|error| error.code), Err(Code::BadArguments), "{why}");
    }
    assert!(extract(b"\"\xff\"", &[]).is_err(), "not UTF-8");
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    let cases = [
        (r#"{"a":1,"a":2}"#, JsonFault::Duplicate),
        (r#"{"a":1,"\u0061":2}"#, JsonFault::Duplicate),
        ("9223372036854775808", JsonFault::Number),
        ("-9223372036854775809", JsonFault::Number),
        ("1e400", JsonFault::Number),
        (r#""\ud800""#, JsonFault::String),
        (r#""\ud800\u0041""#, JsonFault::String),
        (r#""\u+123""#, JsonFault::String),
        ("\"\n\"", JsonFault::String),
        ("\"\\é\"", JsonFault::String),
        ("01", JsonFault::Syntax),
        ("+1", JsonFault::Syntax),
        (".5", JsonFault::Syntax),
        ("1.", JsonFault::Syntax),
        ("tru", JsonFault::Syntax),
        ("[1,]", JsonFault::Syntax),
        ("\u{feff}1", JsonFault::Syntax),
    ];
    for (text, what) in cases {
        assert_eq!(canonicalise(text).map_err(|error| error.what), Err(what), "{text}");
    }
}

#[test]
fn spellings_of_one_value_become_one_text() {
    let cases = [
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("0.50", "0.5"),
        ("1E-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("1e15", "1e15"),
        ("1.5E+300", "1.5e300"),
        ("999999999999999.9", "999999999999999.9"),
        (r#" { "b" : 1 , "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
        (r#""\u00e9\/\u000a\u001F\ud83d\ude00""#, "\"é/\\n\\u001f😀\""),
    ];
    for (spelling, canonical) in cases {
        assert_eq!(text(&canonicalise(spelling).unwrap()), canonical, "{spelling}");
    }
}

#[test]
fn bounds_hold_exactly() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(extract(nested(ARGUMENT_DEPTH_MAX).as_bytes(), &[]).is_ok());
    assert!(extract(nested(ARGUMENT_DEPTH_MAX + 1).as_bytes(), &[]).is_err());
    assert!(extract("[".repeat(100_000).as_bytes(), &[]).is_err());
    assert_eq!(canonicalise(&nested(ARGUMENT_DEPTH_MAX)).unwrap(), nested(ARGUMENT_DEPTH_MAX).as_bytes());
    assert_eq!(canonicalise(&"[".repeat(100_000)).map_err(|error| error.what), Err(JsonFault::TooDeep));

    let sized = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
    assert!(extract(sized(ARGUMENT_BYTES_MAX).as_bytes(), &[]).is_ok());
    assert!(extract(sized(ARGUMENT_BYTES_MAX + 1).as_bytes(), &[]).is_err());
    assert!(canonicalise(&sized(ARGUMENT_BYTES_MAX)).is_ok());
    assert!(canonicalise(&sized(ARGUMENT_BYTES_MAX + 1)).is_err());

    let fact = |bytes: usize| check(&json!({ "a": "x".repeat(bytes) }), "/a", FactType::Str).map(drop);
    assert_eq!(fact(256), Ok(()));
    assert_eq!(fact(257), Err(Code::BadArguments));
}

#[test]
fn a_fact_has_its_declared_type() {
    let arguments = json!({
        "int": -5, "bool": true, "str": "é\n", "path": "work:a/b", "host": "Example.COM.", "null": null,
        "real": 1.5, "list": [1, "work:a", { "x": false }], "m~n/o": "x", "empty": {},
    });
    let cases = [
        ("/int", FactType::Int, Ok((Some(-5), None))),
        ("/bool", FactType::Bool, Ok((Some(1), None))),
        ("/str", FactType::Str, Ok((None, Some("é\n")))),
        ("/path", FactType::Path, Ok((None, Some("work:a/b")))),
        ("/host", FactType::Host, Ok((None, Some("example.com")))),
        ("/list/0", FactType::Int, Ok((Some(1), None))),
        ("/list/1", FactType::Str, Ok((None, Some("work:a")))),
        ("/list/2/x", FactType::Bool, Ok((Some(0), None))),
        ("/m~0n~1o", FactType::Str, Ok((None, Some("x")))),
        ("/list/1", FactType::Path, Err(Code::BadArguments)),
        ("/int", FactType::Str, Err(Code::BadArguments)),
        ("/bool", FactType::Int, Err(Code::BadArguments)),
        ("/str", FactType::Bool, Err(Code::BadArguments)),
        ("/real", FactType::Int, Err(Code::BadArguments)),
        ("/null", FactType::Str, Err(Code::BadArguments)),
        ("/list", FactType::Str, Err(Code::BadArguments)),
        ("/empty", FactType::Bool, Err(Code::BadArguments)),
        ("", FactType::Str, Err(Code::BadArguments)),
        ("/str", FactType::Path, Err(Code::BadPath)),
        ("/path", FactType::Host, Err(Code::BadHost)),
        ("int", FactType::Int, Err(Code::Malformed)),
        ("/m~2", FactType::Int, Err(Code::Malformed)),
    ];
    for (pointer, kind, expected) in cases {
        let found = check(&arguments, pointer, kind);
        let expected = expected.map(|(int, text)| (int, text.map(str::to_owned)));
        assert_eq!(found, expected.map(Some), "{pointer} as {kind}");
    }
    for absent in ["/nothing", "/int/0", "/list/00", "/list/3", "/list/-", "/list/+0", "/"] {
        assert_eq!(check(&arguments, absent, FactType::Str), Ok(None), "{absent}");
    }
}

#[test]
fn an_error_says_where_and_never_what() {
    let cases = [
        (r#"{"a":{"b~/c":["x",{"secret":-0}]}}"#, "/a/b~0~1c/1/secret"),
        (r#"{"a":{"b":1,"a":2}}"#, "/a/a"),
        (r#"{"path":"work:../secret"}"#, "/path"),
        ("[[1,2,3.0]]", "/0/2"),
    ];
    let specs = [FactSpec { pointer: "/path".to_owned(), kind: FactType::Path }];
    for (text, pointer) in cases {
        let error = extract(text.as_bytes(), &specs).unwrap_err();
        assert_eq!(error.pointer, pointer, "{text}");
        assert!(!error.to_string().contains("work:"), "{error}");
    }
    let long = "n".repeat(1_000);
    let error = extract(format!(r#"{{"{long}":-0}}"#).as_bytes(), &[]).unwrap_err();
    assert_eq!(error.pointer, "");
}

#[test]
fn more_specs_than_allowed_or_one_twice_are_refused() {
    let spec = |name: usize| FactSpec { pointer: format!("/{name}"), kind: FactType::Int };
    let many = |count: usize| (0..count).map(spec).collect::<Vec<_>>();
    assert!(extract(b"{}", &many(32)).is_ok());
    assert_eq!(extract(b"{}", &many(33)).map_err(|error| error.code), Err(Code::Malformed));
    assert_eq!(extract(b"{}", &[spec(1), spec(1)]).map_err(|error| error.code), Err(Code::Malformed));
}

#[test]
fn whatever_is_no_fact_is_extra() {
    let specs: Vec<FactSpec> =
        ["/a", "/o/b", "/l/0"].map(|pointer| FactSpec { pointer: pointer.to_owned(), kind: FactType::Int }).into();
    let cases = [
        ("{}", false),
        (r#"{"a":1}"#, false),
        (r#"{"a":1,"l":[2],"o":{"b":3}}"#, false),
        (r#"{"a":1,"c":null}"#, true),
        (r#"{"l":[2,3]}"#, true),
        (r#"{"l":[]}"#, true),
        (r#"{"o":{}}"#, true),
        ("[]", true),
        ("1", true),
    ];
    for (text, extra) in cases {
        assert_eq!(extract(text.as_bytes(), &specs).unwrap().extra, extra, "{text}");
    }
}

#[test]
fn half_a_million_elements_and_thirty_two_pointers_are_one_pass() {
    let bytes = format!("[{}1]", "1,".repeat(ARGUMENT_BYTES_MAX / 2 - 2));
    let spec = |at: usize| FactSpec { pointer: format!("/{}", at * 10_000), kind: FactType::Int };
    let specs: Vec<FactSpec> = (0..32).map(spec).collect();
    assert_eq!(extract(bytes.as_bytes(), &specs).unwrap().facts.len(), 32);
}

/// The one fact at `pointer`.
#[expect(clippy::type_complexity, reason = "a fact without its pointer")]
fn check(arguments: &Value, pointer: &str, kind: FactType) -> Result<Option<(Option<i64>, Option<String>)>, Code> {
    let specs = [FactSpec { pointer: pointer.to_owned(), kind }];
    let found = extract(&canonical(arguments).unwrap(), &specs).map_err(|error| error.code)?;
    Ok(found.facts.into_iter().next().map(|fact| (fact.int, fact.text)))
}

fn agrees(bytes: &[u8], specs: &[FactSpec]) -> Result<(), TestCaseError> {
    let value: Value = serde_json::from_slice(bytes).unwrap();
    match (extract(bytes, specs), model(&value, specs)) {
        (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected),
        (Err(error), Err(codes)) => prop_assert!(codes.contains(&error.code), "{} but {:?}", error, codes),
        (found, expected) => prop_assert!(false, "{:?} but {:?} in {}", found, expected, text(bytes)),
    }
    Ok(())
}

/// Reads the facts from the parsed value. An error is every code that some fact gives cause for.
fn model(value: &Value, specs: &[FactSpec]) -> Result<Extracted, Vec<Code>> {
    let mut facts = Vec::new();
    let mut errors = Vec::new();
    for spec in specs {
        match value.pointer(&spec.pointer).map(|found| model_fact(value, found, spec)) {
            None => {}
            Some(Ok((int, text))) => facts.push(Fact { pointer: spec.pointer.clone(), int, text }),
            Some(Err(code)) => errors.push(code),
        }
    }
    let nothing = value == &json!({});
    let extra = !nothing && leaves(value) > facts.len();
    if errors.is_empty() { Ok(Extracted { facts, extra }) } else { Err(errors) }
}

fn model_fact(whole: &Value, found: &Value, spec: &FactSpec) -> Result<(Option<i64>, Option<String>), Code> {
    let below = |(at, _): (usize, &str)| whole.pointer(&spec.pointer[..at]).is_some_and(Value::is_array);
    let in_array = spec.pointer.match_indices('/').any(below);
    match (spec.kind, found) {
        (FactType::Int, Value::Number(number)) => {
            number.as_i64().map(|int| (Some(int), None)).ok_or(Code::BadArguments)
        }
        (FactType::Bool, Value::Bool(bool)) => Ok((Some(i64::from(*bool)), None)),
        (FactType::Path | FactType::Host, Value::String(_)) if in_array => Err(Code::BadArguments),
        (FactType::Str | FactType::Path | FactType::Host, Value::String(text)) if text.len() > 256 => {
            Err(Code::BadArguments)
        }
        (FactType::Str, Value::String(text)) => Ok((None, Some(text.clone()))),
        (FactType::Path, Value::String(text)) if is_path(text) => Ok((None, Some(text.clone()))),
        (FactType::Path, Value::String(_)) => Err(Code::BadPath),
        (FactType::Host, Value::String(text)) => host(text).map(|host| (None, Some(host))).ok_or(Code::BadHost),
        (_, _) => Err(Code::BadArguments),
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(leaves).sum(),
        Value::Object(members) if !members.is_empty() => members.values().map(leaves).sum(),
        Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// Equal, with a whole fraction equal to its integer.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Whether a number outside strings is written as a fraction or a power.
fn has_fraction(bytes: &[u8]) -> bool {
    let mut in_string = false;
    let mut escaped = false;
    bytes.windows(2).any(|pair| {
        match pair[0] {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
        !in_string && pair[0].is_ascii_digit() && matches!(pair[1], b'.' | b'e')
    })
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((name(), inner), 0..6).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), -20_i64..20, select(vec![i64::MIN, i64::MAX])].prop_map(Value::from),
        real().prop_map(|real| Number::from_f64(real).map_or(Value::Null, Value::Number)),
        string().prop_map(Value::from),
    ]
}

fn real() -> impl Strategy<Value = f64> {
    let edges = vec![1e15, 999_999_999_999_999.9, 1e-6, 9.999e-7, -0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e16];
    prop_oneof![any::<f64>(), -10.0..10.0, select(edges), any::<i32>().prop_map(f64::from)]
}

fn string() -> impl Strategy<Value = String> {
    let given = ["work:a/b", "work:", "work:a//b", "Example.com.", "127.0.0.1", "a@b", "\u{1f}\"\\/\u{7f}"];
    prop_oneof![any::<String>(), "[a-z\\x00-\\x1f\"\\\\/]{0,8}", select(given.to_vec()).prop_map(str::to_owned)]
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof!["[a-z.]{0,3}", any::<char>().prop_map(String::from), "\\PC{1,3}", "a{254,257}"];
    let odd = select(vec!["\u{61c}", "\u{200b}", "\u{200e}", "\u{202a}", "\u{2060}", "\u{2066}", "\u{feff}", "\u{9f}"]);
    (select(vec!["work", "w-1", "Work", ""]), vec(prop_oneof![4 => segment, 1 => odd.prop_map(str::to_owned)], 0..4))
        .prop_map(|(root, segments)| format!("{root}:{}", segments.join("/")))
}

fn host_like() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9.*_@-]{0,12}",
        "([a-z0-9-]{1,3}[.]){0,3}[a-z0-9]{0,3}[.]?",
        "([0-9]{1,3}[.]){0,4}[0-9]{0,3}",
        "(0x)?[0-9a-f]{1,8}",
        "[0-9a-f:]{2,12}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
        "::(ffff:)?[0-9]{1,2}[.]0[.]0[.][0-9]",
        "[a-z]{60,66}",
        "([a-z]{50}[.]){4}[a-z]{45,55}",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab~/01]{0,2}", any::<String>(), "\\PC{0,3}"]
}

fn kind() -> impl Strategy<Value = FactType> {
    select(FactType::ALL.to_vec())
}

fn any_spec() -> impl Strategy<Value = FactSpec> {
    let pointer = prop_oneof!["(/[ab01~/]{0,2}){0,3}", any::<String>()];
    (pointer, kind()).prop_map(|(pointer, kind)| FactSpec { pointer, kind })
}

/// A value, and specs of which most lead somewhere in it, half of them with the type of what is there.
fn value_with_specs() -> impl Strategy<Value = (Value, Vec<FactSpec>)> {
    let choice = (any::<Index>(), kind(), any::<bool>());
    (value(), vec(choice, 0..5), vec(("(/[ab01]{0,1}){0,2}", kind()), 0..3)).prop_map(|(value, choices, others)| {
        let mut places = Vec::new();
        collect(&value, String::new(), &mut places);
        let mut specs: Vec<FactSpec> = Vec::new();
        let chosen = choices.into_iter().map(|(index, kind, fitting)| {
            let (pointer, found) = &places[index.index(places.len())];
            (pointer.clone(), if fitting { fitting_kind(found, kind) } else { kind })
        });
        for (pointer, kind) in chosen.chain(others) {
            if pointer.len() <= 256 && specs.iter().all(|spec| spec.pointer != pointer) {
                specs.push(FactSpec { pointer, kind });
            }
        }
        (value, specs)
    })
}

fn fitting_kind(value: &Value, otherwise: FactType) -> FactType {
    match value {
        Value::Bool(_) => FactType::Bool,
        Value::Number(_) => FactType::Int,
        Value::String(text) if is_path(text) => FactType::Path,
        Value::String(text) if host(text).is_some() => FactType::Host,
        Value::String(_) => FactType::Str,
        Value::Null | Value::Array(_) | Value::Object(_) => otherwise,
    }
}

fn collect(value: &Value, pointer: String, places: &mut Vec<(String, Value)>) {
    places.push((pointer.clone(), value.clone()));
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| collect(item, format!("{pointer}/{at}"), places));
        }
        Value::Object(members) => {
            for (name, member) in members {
                collect(member, format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Canonical JSON with one to three bytes replaced, added or removed.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), select(br#"0123456789-.e{}[]",:\u ~/bt"#.to_vec())];
    (value(), vec((any::<Index>(), byte, 0..3_u8), 1..4)).prop_map(|(value, edits)| {
        let mut bytes = canonical(&value).unwrap();
        for (place, byte, how) in edits {
            let place = place.index(bytes.len() + 1);
            match how {
                0 if place < bytes.len() => bytes[place] = byte,
                1 if place < bytes.len() => drop(bytes.remove(place)),
                _ => bytes.insert(place, byte),
            }
        }
        bytes
    })
}

/// Tokens in any order.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let tokens = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"\\n\"",
        "\"\\u000a\"",
        "0",
        "-0",
        "1.5",
        "1.50",
        "10",
        "1e15",
        "2e-7",
        "true",
        "null",
        " ",
    ];
    vec(select(tokens.to_vec()), 0..8).prop_map(|tokens| tokens.concat().into_bytes())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
