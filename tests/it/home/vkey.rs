//! Verifier keys of C2SP signed-note.

use toka_kernel::keys::{KeyFault, PublicKey};
use toka_store::Vkey;
use toka_store::vkey::VkeyError;

/// The public key of RFC 8032, section 7.1, test 1.
const KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72,
    0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

#[test]
fn a_key_is_written_as_the_specification_says() {
    // SHA-256 and base64 of this line were computed with other tools from name ‖ 0x0A ‖ 0x01 ‖ key.
    let line = "node.example/root+89209b14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
    let vkey = Vkey::new("node.example/root", PublicKey::admit(&KEY).unwrap()).unwrap();
    assert_eq!(vkey.to_string(), line);
    assert_eq!(vkey.hash(), 0x8920_9b14);
    assert_eq!(line.parse(), Ok(vkey));
}

#[test]
fn keys_that_others_have_published_are_read() {
    for line in [
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert_eq!(line.parse::<Vkey>().unwrap().to_string(), line);
    }
}

#[test]
fn a_line_that_is_no_key_says_why() {
    let shape = VkeyError::Shape;
    for (line, fault) in [
        ("", shape),
        ("node.example/root", shape),
        ("node.example/root+89209b14", shape),
        ("node.example/root+89209B14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", shape),
        ("node.example/root+89209b1+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", shape),
        ("node.example/root++8920914+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", shape),
        ("+89209b14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", VkeyError::Name),
        ("node.example root+08196da1+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", VkeyError::Name),
        ("node\u{2003}root+08196da1+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", VkeyError::Name),
        ("node.example/root+89209b14+AddamAGCsQq31Uv-08lkBzoO4XLz2qYjJa8CGmj3B1Ea", VkeyError::Base64),
        ("node.example/root+89209b14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea\n", VkeyError::Base64),
        ("node.example/root+89209b14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1E", VkeyError::Base64),
        ("node.example/root+89209b14+", VkeyError::Length { found: 0 }),
        ("node.example/root+6ae3e452+AtdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea", VkeyError::Algorithm(2)),
        ("node.example/root+0e993b77+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1E=", VkeyError::Length { found: 31 }),
        ("node.example/root+052410ed+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", VkeyError::Key(KeyFault::Weak)),
        (
            "node.example/root+b1b204ce+Af////////////////////////////////////////9/",
            VkeyError::Key(KeyFault::NonCanonical),
        ),
        (
            "node.example/boot+89209b14+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
            VkeyError::Hash { expected: expected_hash("node.example/boot"), found: 0x8920_9b14 },
        ),
        (&"a".repeat(600), shape),
    ] {
        assert_eq!(line.parse::<Vkey>(), Err(fault), "{line}");
    }
}

#[test]
fn a_name_that_would_break_the_line_is_refused() {
    let key = PublicKey::admit(&KEY).unwrap();
    for name in ["", "a b", "a+b", "a\tb", "a\nb", "a\u{a0}b", "a\0b", &"a".repeat(513)] {
        assert_eq!(Vkey::new(name, key.clone()), Err(VkeyError::Name), "{name:?}");
    }
    let longest = Vkey::new(&"é".repeat(256), key).unwrap();
    assert_eq!(longest.to_string().parse(), Ok(longest));
}

fn expected_hash(name: &str) -> u32 {
    Vkey::new(name, PublicKey::admit(&KEY).unwrap()).unwrap().hash()
}
