//! Tables of texts: what they mean, and what is wrong with the others.

use toka_kernel::capability::{Capability, ExactName, HostPat, Scope, parse_path_fact};
use toka_kernel::denial::Code;

/// Each case is a line of text and an indented line with what comes of it.
fn cases(table: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with("--"));
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?.trim_start())))
}

#[test]
fn each_text_prints_as_the_table_says_or_fails_where_it_says() {
    for (text, expected) in cases(include_str!("../data/capability_text.txt")) {
        let found = match Capability::parse_at(text, 1_000_000) {
            Ok(capability) if capability.to_string() == text => "= the same".to_owned(),
            Ok(capability) => format!("= {capability}"),
            Err(error) => format!("! {} at {}: {}", error.code, error.at, error.what),
        };
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn each_child_is_within_its_parent_or_fails_in_the_dimension_the_table_says() {
    for (relation, expected) in cases(include_str!("../data/capability_order.txt")) {
        let (child, parent) = relation.split_once("  <=  ").expect(relation);
        let parse = |text| Capability::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = parse(child).attenuates(&parse(parent)).map_or_else(|dim| dim.name(), |()| "yes");
        assert_eq!(found, expected, "{relation}");
    }
}

#[test]
fn an_error_says_where_what_and_what_to_do() {
    let error = Capability::parse("fs:workspace/data//x#read").expect_err("doubled separator");
    assert_eq!(
        error.to_string(),
        "not a path segment at byte 18: a segment has 1 to 255 bytes, is not `.` or `..` and has no `/`, `\\` or \
         invisible character; other characters than [A-Za-z0-9._@+~-] need quotes"
    );
    let error = Capability::parse("net:https://a.example:443/**#GET").expect_err("later kind");
    assert_eq!(
        error.to_string(),
        "the kind `net` is known but not built yet at byte 0: tool, fs, agent, model and admin are"
    );
}

#[test]
fn a_scope_has_neither_limits_nor_times() {
    assert!(Scope::parse("tool:a?arg./x=1&closed").is_ok());
    for text in ["tool:a?calls=1", "tool:a?exp=5", "tool:a?use=no", "tool:a?gate=approval", "tool:a?depth=1"] {
        assert_eq!(Scope::parse(text).map_err(|error| error.code), Err(Code::Malformed), "{text}");
    }
}

#[test]
fn a_relative_time_needs_a_base() {
    let exp = |text, base| Capability::parse_at(text, base).map(|capability| capability.exp_us).ok().flatten();
    assert_eq!(exp("tool:a?exp=+30m", 5), Some(1_800_000_005));
    assert_eq!(exp("tool:a?exp=+1d", 0), Some(86_400_000_000));
    assert!(Capability::parse("tool:a?exp=+30m").is_err());
    assert!(Capability::parse_at("tool:a?exp=+1us", toka_kernel::limits::TIME_US_MAX).is_err());
    assert!(Capability::parse_at("tool:a?exp=+1us", u64::MAX).is_err());
}

#[test]
fn a_requested_name_is_exact() {
    for name in ["fs", "fs.a.b", "a-b_c.0", "a.a.a.a.a.a.a.a"] {
        assert!(ExactName::parse(name).is_ok(), "{name}");
    }
    let long = "a".repeat(33);
    let cyrillic = "fs.re\u{430}d";
    for name in [
        "",
        "*",
        "fs.*",
        "FS.read",
        cyrillic,
        "fs.read ",
        " fs",
        "fs..read",
        ".fs",
        "fs.",
        "-a",
        "_a",
        "a/b",
        &long,
        "a.a.a.a.a.a.a.a.a",
    ] {
        assert_eq!(ExactName::parse(name), Err(Code::BadName), "{name}");
    }
}

#[test]
fn a_path_fact_is_compared_as_it_stands() {
    for fact in ["r:", "r:data/x", "r:%2e%2e/%252e", "r:...", "r:Work", "r:a:b", "r:**", "r:e\u{301}"] {
        assert!(parse_path_fact(fact).is_ok(), "{fact}");
    }
    for fact in [
        "",
        "r",
        ":",
        ":a",
        "R:a",
        "r.s:a",
        "*:a",
        "r:/",
        "r:/a",
        "r:data/",
        "r:a//b",
        "r:.",
        "r:..",
        "r:a/../../etc",
        "r:./a",
        "r:a/.",
        "r:a\\b",
        "r:a\0",
        "r:a\nb",
        "r:a\u{7f}",
        "r:a\u{85}",
        "r:a\u{202e}b",
        "r:\u{200b}",
        "r:\u{feff}",
        "r:\u{61c}",
    ] {
        assert_eq!(parse_path_fact(fact), Err(Code::BadPath), "{fact:?}");
    }
}

#[test]
fn a_host_fact_is_one_host_in_canonical_form() {
    for host in ["a.example.com", "xn--nxasmq6b.example", "127.0.0.1", "::1"] {
        assert!(HostPat::parse_exact(host).is_ok(), "{host}");
    }
    for host in [
        "*.example.com",
        "10.0.0.0/8",
        "a.example.com.",
        "A.Example.Com",
        "a@b",
        "ex\u{430}mple.com",
        "2130706433",
        "::ffff:1.2.3.4",
    ] {
        assert_eq!(HostPat::parse_exact(host), Err(Code::BadHost), "{host}");
    }
}
