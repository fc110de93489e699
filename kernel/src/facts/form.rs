//! The grammars of pointers, paths and hosts.

use std::iter;

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::{NAME_SEG_BYTES_MAX, PATH_BYTES_MAX, PATH_SEG_BYTES_MAX, PATH_SEGS_MAX, SCALAR_BYTES_MAX};

/// Whether `text` is a JSON pointer (RFC 6901) of at most 256 bytes.
pub fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    text.len() <= SCALAR_BYTES_MAX && (text.is_empty() || text.starts_with('/')) && escapes
}

/// The bytes that a reference token stands for.
pub(super) fn token_bytes(token: &str) -> impl Iterator<Item = u8> {
    let mut bytes = token.bytes();
    iter::from_fn(move || match bytes.next()? {
        b'~' => bytes.next().map(|digit| if digit == b'1' { b'/' } else { b'~' }),
        byte => Some(byte),
    })
}

/// The array index that a reference token stands for, if it can be one.
pub(super) fn array_index(token: &str) -> Option<usize> {
    let natural = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    natural.then(|| token.parse().ok()).flatten()
}

/// Whether `text` is `root:relative`: a root and at most 64 segments between single `/`, 4,096 bytes in all.
/// `root:` alone is the root itself.
pub fn is_path(text: &str) -> bool {
    let Some((root, relative)) = text.split_once(':') else { return false };
    let segments = || relative.split('/');
    text.len() <= PATH_BYTES_MAX
        && is_root(root)
        && (relative.is_empty() || segments().count() <= PATH_SEGS_MAX && segments().all(is_path_segment))
}

/// Whether `text` is the name of a root: one segment of a name, `[a-z0-9][a-z0-9_-]{0,31}`.
pub fn is_root(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NAME_SEG_BYTES_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'_' | b'-'))
}

/// Whether `text` is one segment of a path: 1 to 255 bytes, neither `.` nor `..`, and no character that separates,
/// controls, reorders or is invisible. Nothing is tidied up or normalised: two spellings are two names.
pub fn is_path_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= PATH_SEG_BYTES_MAX && !text.chars().any(misleads)
}

fn misleads(c: char) -> bool {
    matches!(c, '/' | '\\')
        || c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

/// The canonical form of a host: lower-case, without one trailing dot. `None` for what is no host.
///
/// A name has labels of `[a-z0-9-]`, 1 to 63 bytes, none beginning or ending with `-`, 253 bytes in all. An address
/// is four decimal numbers, or IPv6 as RFC 5952 prints it, without brackets; IPv4 inside IPv6 and every other
/// spelling of a number are refused, because a resolver would read them as some address.
pub fn host(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('.').unwrap_or(&lower);
    (is_name(bare) || is_ipv4(bare) || (bare == lower && is_ipv6(bare))).then(|| bare.to_owned())
}

fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label) && text.rsplit('.').next().is_some_and(|last| !is_numeric(last))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether some resolver would take a last label for a number.
fn is_numeric(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit()) || label.starts_with("0x")
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok_and(|address| address.to_string() == text)
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_none() && address.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_root_and_plain_segments() {
        for good in ["work:", "work:a", "work:a/b.rs", "w-1_x:a:b", "work:%2e%2e/é", "work:...", "work:~", "work:a b"]
        {
            assert!(is_path(good), "{good:?}");
        }
        let long = format!("work:{}", "a".repeat(256));
        let deep = format!("work:{}a", "a/".repeat(64));
        let bad = ["", "work", ":a", "Work:a", "work:/a", "work:a/", "work:a//b", "work:.", "work:a/../b", "work:a\\b"];
        let more = ["work:\0", "work:a\nb", "work:\u{85}", "work:a\u{202e}b", "work:\u{200b}", "work:\u{feff}a", "/a"];
        for bad in bad.iter().chain(&more).copied().chain([long.as_str(), deep.as_str()]) {
            assert!(!is_path(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        let cases = [
            ("Example.COM.", "example.com"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::1", "::1"),
        ];
        for (text, canonical) in cases {
            assert_eq!(host(text).as_deref(), Some(canonical), "{text}");
        }
        let bad =
            ["", ".", "a..", "a..b", "-a", "a-", "a@b", "a b", "bücher.example", "a_b", "2130706433", "0177.0.0.1"];
        let more = [
            "0x7f.1",
            "0x7f000001",
            "1.2.3",
            "1.2.3.4.5",
            "[::1]",
            "::ffff:1.2.3.4",
            "0:0::1",
            "::1%1",
            "::1.",
            "a:80",
        ];
        for bad in bad.iter().chain(&more) {
            assert_eq!(host(bad), None, "{bad}");
        }
    }
}
