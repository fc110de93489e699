//! What differs between two runs, written alike.

use std::path::Path;

/// `text` with the folder of the test as `$DIR`, and ids, keys and times by what they are.
pub(super) fn normal(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "$DIR");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let (shown, taken) = if out.ends_with(|before: char| before.is_ascii_alphanumeric()) {
            (None, first.len_utf8())
        } else {
            token(&out, rest).map_or((None, first.len_utf8()), |(shown, taken)| (Some(shown), taken))
        };
        out.push_str(shown.unwrap_or(&rest[..taken]));
        rest = &rest[taken..];
    }
    out
}

/// What stands at the beginning of `rest`, if it is something that differs, and how long it is.
fn token(before: &str, rest: &str) -> Option<(&'static str, usize)> {
    if let Some(len) = instant(rest) {
        return Some(("<time>", len));
    }
    let len = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let word = &rest[..len];
    let is_number = len > 0 && word.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && before.ends_with("pid ") {
        return Some(("<pid>", len));
    }
    if is_number && rest[len..].starts_with(" bytes;") {
        return Some(("<n>", len));
    }
    if is_number && len == 16 && before.ends_with(['=', ':']) {
        return Some(("<us>", len));
    }
    if !matches!(len, 8 | 12 | 16 | 64) || !word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    // A public key: <name>+<hash>+<key in base64>.
    if before.ends_with('+') && rest[len..].starts_with('+') {
        let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        return Some(("<key>", rest.bytes().take_while(base64).count()));
    }
    Some(("<id>", len))
}

/// The length of the time that `text` begins with, such as 2026-01-31T23:59:59Z, with or without a fraction.
fn instant(text: &str) -> Option<usize> {
    let form = b"0000-00-00T00:00:00";
    let fits = |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
    if text.len() < form.len() || !text.bytes().zip(form).all(fits) {
        return None;
    }
    let rest = &text[form.len()..];
    let fraction = rest.bytes().take_while(|byte| *byte == b'.' || byte.is_ascii_digit()).count();
    rest[fraction..].starts_with('Z').then_some(form.len() + fraction + 1)
}

#[test]
fn what_differs_between_runs_is_written_alike() {
    let hex = "0123456789abcdef";
    for (text, normal_text) in [
        ("/tmp/x/home: no", "$DIR/home: no"),
        ("since 2026-11-22T17:29:38Z, pid 4711", "since <time>, pid <pid>"),
        ("2026-11-22T17:29:38.001002Z", "<time>"),
        ("exp=1795370378038242, 17 entries, 12345678 bytes; ok", "exp=<us>, 17 entries, <n> bytes; ok"),
        (&format!("session {hex} {hex}{hex}{hex}{hex} `01234567`"), "session <id> <id> `<id>`"),
        ("toka.local/f34e08f4b8273fb2/root+557cc08f+AQCF/q+5y=\n", "toka.local/<id>/root+<key>\n"),
        ("a file-reader deadbeefs 0123456", "a file-reader deadbeefs 0123456"),
    ] {
        assert_eq!(normal(text, Path::new("/tmp/x")), normal_text);
    }
}
