//! Key files that are not what they should be, and keys under a passphrase.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toka_kernel::keys::{KeyGrant, Role, SecretKey};
use toka_runtime::HomeError;
use toka_runtime::home::{Profile, read_passphrase};
use toka_runtime::keyfile::{self, KeyFile, Passphrase, Purpose, SealCost, SealFault, Seed};
use toka_runtime::random::SeededRandom;
use toka_store::Vkey;

use super::{Node, START_US, passphrase};

const OPERATOR: &str = "operator-operator-0001.key";

#[test]
fn a_malformed_key_file_is_refused_by_its_line() {
    let node = Node::testing();
    let whole = node.text("event-0001.key");
    let lines: Vec<&str> = whole.lines().collect();
    let (origin, seed) = (&node.report.origin, lines[2]);
    let second = format!("line 2 should be `event 1 {origin}`");
    let magic = "line 1 should be `toka-key/v1`";
    let third = "line 3 should be 32 bytes in base64, or a seed sealed with a passphrase";
    for (text, message) in [
        (String::new(), magic),
        ("toka-key/v1".to_owned(), &*second),
        (format!("toka-key/v1\nevent 1 {origin}"), third),
        (format!("toka-key/v1\nevent 1 {origin}\n"), third),
        (format!("toka-key/v2\nevent 1 {origin}\n{seed}\n"), magic),
        (format!("{seed}\nevent 1 {origin}\ntoka-key/v1\n"), magic),
        (format!("toka-key/v1\n{seed}\nevent 1 {origin}\n"), &*second),
        (whole.replace('\n', "\r\n"), magic),
        (whole.replace("event", "operator"), &*second),
        (whole.replace("event", "root"), &*second),
        (whole.replace("event 1", "event 2"), &*second),
        (whole.replace("event 1", "event 01"), &*second),
        (whole.replace("toka.local", "other.local"), &*second),
        (format!("toka-key/v1\nevent 1 {origin}\n{}\n", &seed[..40]), third),
        (format!("toka-key/v1\nevent 1 {origin}\n{}\n", &seed[..43]), third),
        (format!("toka-key/v1\nevent 1 {origin}\n{seed}AAAA\n"), third),
        (format!("toka-key/v1\nevent 1 {origin}\n {seed}\n"), third),
        (format!("toka-key/v1\nevent 1 {origin}\n{}\n", seed.replace('=', "-")), third),
        (format!("toka-key/v1\nevent 1 {origin}\n*{}\n", &seed[1..]), third),
        (format!("toka-key/v1\nevent 1 {origin}\n{}\n", STANDARD.encode([9; 31])), third),
        (format!("toka-key/v1\nevent 1 {origin}\n{}\n", STANDARD.encode([9; 33])), third),
        (format!("toka-key/v1\nevent 1 {origin}\nsealed {seed}\n"), third),
        (format!("{whole}\n"), "line 4 should be the end of the file"),
        (format!("{whole}{seed}\n"), "line 4 should be the end of the file"),
        (format!("{whole}{}", "a".repeat(5_000)), "it has more than 4096 bytes"),
    ] {
        node.put("event-0001.key", &text);
        node.refuses(message, 8, "put the file back from a copy");
        node.refuses("event-0001.key", 8, "");
    }
    node.put("event-0001.key", [0xff; 100]);
    node.refuses(magic, 8, "");
    node.put("event-0001.key", whole.trim_end());
    node.open();
}

#[test]
fn the_key_of_another_file_is_refused() {
    let node = Node::testing();
    let origin = &node.report.origin;
    let other = STANDARD.encode([9; 32]);
    for (name, line) in
        [("event-0001.key", "event 1"), ("event-0004.key", "event 4"), ("root.key", "root 1"), (OPERATOR, "operator 1")]
    {
        let whole = node.text(name);
        node.put(name, format!("toka-key/v1\n{line} {origin}\n{other}\n"));
        node.refuses("and the public key beside it is", 8, "put the file back");
        node.refuses(name, 8, "");
        node.put(name, whole);
    }
    node.open();
    std::fs::remove_file(node.key("event-0002.key")).unwrap();
    node.refuses("event-0002.key: No such file", 8, "ls -ld");
}

#[test]
fn a_changed_root_key_is_refused() {
    let node = Node::testing();
    let whole = node.text("root.pub");
    let vkey = |name: &str, key: &SecretKey| format!("{}\n", Vkey::new(name, key.public()).unwrap());
    let stranger = SecretKey::from_seed(&[9; 32]);
    let name = node.report.root.name();
    node.put("root.pub", vkey(name, &stranger));
    node.refuses("root.key: it holds the key", 8, "put the file back");
    std::fs::rename(node.key("root.key"), node.dir.join("root.key")).unwrap();
    node.refuses("event-0001.grant: the grant is by another root key (the root key is that of root.pub)", 8, "");
    node.put("root.pub", whole.replace("/root", "/boot"));
    node.refuses("root.pub: line 1: the hash is", 8, "");
    node.put("root.pub", "no key\n");
    node.refuses("root.pub: line 1: it is not of the form", 8, "");
    node.put("root.pub", format!("{whole}\n"));
    node.refuses("root.pub: line 1: the key is not written in base64", 8, "");
    node.put("root.pub", [0xff, 0xfe]);
    node.refuses("root.pub: line 1: it is not of the form", 8, "");
    let key = node.report.root.key().clone();
    node.put("root.pub", format!("{}\n", Vkey::new("other.local/root", key).unwrap()));
    node.refuses("root.pub: it names `other.local/root`, and here", 8, "");
    node.put("root.pub", whole);
    node.open();
}

#[test]
fn a_changed_grant_is_refused() {
    let node = Node::testing();
    let name = "event-0001.grant";
    let whole = node.text(name);
    let bytes = STANDARD.decode(whole.trim_end()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        node.put(name, STANDARD.encode(changed) + "\n");
        node.refuses(name, 8, "put the file back");
    }
    for text in ["", "\n", "*", &whole[..20], &format!("{whole}\n"), &format!("{whole}{whole}")] {
        node.put(name, text);
        node.refuses("event-0001.grant: line 1 should be", 8, "put the file back");
    }
    node.put(name, whole.trim_end());
    node.open();
}

#[test]
fn a_grant_of_something_else_is_refused() {
    let node = Node::testing();
    let root = root_of(&node);
    let origin = &node.report.origin;
    let event = node.open().event_key_of(1, START_US).unwrap().id();
    let key = node.open().grants().find(|grant| grant.key.id() == event).unwrap().key.clone();
    let stranger = SecretKey::from_seed(&[9; 32]).public();
    let issue = |role, epoch, key, origin: &str| KeyGrant::issue(role, epoch, 0..START_US * 2, key, origin, &root);
    let whole = node.text("event-0001.grant");
    for (grant, message) in [
        (issue(Role::Operator, 1, key.clone(), origin), "it grants operator 1, and its name says another"),
        (issue(Role::Event, 2, key.clone(), origin), "it grants event 2, and its name says another"),
        (issue(Role::Event, 1, key, "other.local"), "it is for the node other.local, and this one is toka.local/"),
        (issue(Role::Event, 1, stranger, origin), "and event-0001.pub is"),
    ] {
        node.put("event-0001.grant", keyfile::write_grant(&grant));
        node.refuses(message, 8, "put the file back");
    }
    node.put("event-0001.grant", &whole);
    // A second role for a key that has one already.
    let twin = node.open().operator().key.clone();
    let seed = node.text(OPERATOR).lines().nth(2).unwrap().to_owned();
    let name = Purpose::of(Role::Event, 6, origin).vkey_name();
    node.put("event-0006.grant", keyfile::write_grant(&issue(Role::Event, 6, twin.clone(), origin)));
    node.put("event-0006.pub", format!("{}\n", Vkey::new(&name, twin).unwrap()));
    std::fs::copy(node.key(OPERATOR), node.key("event-0006.key")).unwrap();
    node.put("event-0006.key", format!("toka-key/v1\nevent 6 {origin}\n{seed}\n"));
    node.refuses("operator-operator-0001.grant: its key is the one of event-0006", 8, "");
}

#[test]
fn grants_whose_names_say_nothing_are_refused() {
    let node = Node::testing();
    let whole = node.text("event-0001.grant");
    for name in ["event-1", "event-00001", "event-a-0001", "operator-0001", "boss-0001", "0001", "event"] {
        let name = format!("{name}.grant");
        node.put(&name, &whole);
        node.refuses(&format!("{name}: its name is not <role>-<epoch>"), 8, "");
        std::fs::remove_file(node.key(&name)).unwrap();
    }
    node.put(".event-0001.grant.new", "left by a crash");
    node.put("notes.txt", "no key");
    node.open();
}

#[test]
fn a_home_holds_no_more_grants_than_a_session_takes() {
    let node = Node::testing();
    let (root, origin) = (root_of(&node), &node.report.origin);
    let add = |epoch: u32| {
        let key = SecretKey::from_seed(&[100 + epoch as u8; 32]).public();
        let grant = KeyGrant::issue(Role::Executor, epoch, 0..1, key.clone(), origin, &root);
        let name = Purpose::of(Role::Executor, epoch, origin).vkey_name();
        node.put(&format!("executor-{epoch:04}.grant"), keyfile::write_grant(&grant));
        node.put(&format!("executor-{epoch:04}.pub"), format!("{}\n", Vkey::new(&name, key).unwrap()));
    };
    (1..=26).for_each(add);
    assert_eq!(node.open().grant_records().len(), 32);
    add(27);
    node.refuses("it has 33 key grants, and a session takes 32 at most", 8, "");
}

#[test]
fn a_sealed_operator_key_opens_with_its_passphrase_only() {
    let node = Node::sealed();
    let home = node.open();
    assert!(home.operator_key_is_sealed().unwrap());
    let key = home.operator_key(Some(&passphrase("correct horse"))).unwrap();
    assert_eq!(key.public().id(), home.operator_id());
    for wrong in ["incorrect horse", "correct hors", "Correct horse", " "] {
        let error = home.operator_key(Some(&passphrase(wrong))).unwrap_err();
        assert!(error.to_string().ends_with("either it is another one, or the file was changed"), "{error}");
        assert!(error.to_string().contains(OPERATOR) && error.exit_code() == 1, "{error}");
        node.tells_nothing(&(&error, error.to_string(), error.hint()));
    }
    let error = home.operator_key(None).unwrap_err();
    assert_eq!(error, HomeError::PassphraseNeeded { path: node.key(OPERATOR) });
    assert!(!Node::testing().open().operator_key_is_sealed().unwrap());
}

#[test]
fn a_sealed_key_that_was_changed_does_not_open() {
    let node = Node::sealed();
    let home = node.open();
    let whole = node.text(OPERATOR);
    let words: Vec<&str> = whole.lines().nth(2).unwrap().split(' ').collect();
    let (salt, sealed) = (STANDARD.decode(words[5]).unwrap(), STANDARD.decode(words[6]).unwrap());
    let line = |words: [&str; 7]| {
        let front: Vec<&str> = whole.lines().take(2).collect();
        format!("{}\n{}\n", front.join("\n"), words.join(" "))
    };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        STANDARD.encode(bytes)
    };
    let usual = |words: &[&str]| -> [String; 7] { std::array::from_fn(|at| words[at].to_owned()) };
    let mut changed = Vec::new();
    for at in 0..sealed.len() {
        let mut words = usual(&words);
        words[6] = flipped(&sealed, at);
        changed.push(words);
    }
    for (at, text) in [(2, "m=9".to_owned()), (3, "t=2".to_owned()), (5, flipped(&salt, 0))] {
        let mut words = usual(&words);
        words[at] = text;
        changed.push(words);
    }
    for words in &changed {
        node.put(OPERATOR, line(words.each_ref().map(String::as_str)));
        let error = home.operator_key(Some(&passphrase("correct horse"))).unwrap_err();
        assert_eq!(error, HomeError::Sealed { path: node.key(OPERATOR), fault: SealFault::Passphrase });
    }
    // What a hostile file may demand is bounded, and what it may not is refused before any memory is taken.
    for (at, text) in [
        (0, "Sealed"),
        (1, "argon2i"),
        (2, "m=262145"),
        (2, "m=104857600"),
        (2, "m=7"),
        (2, "m=+8"),
        (2, "m=08"),
        (2, "8"),
        (3, "t=0"),
        (3, "t=17"),
        (3, "t=4294967297"),
        (4, "p=2"),
        (5, "AAAA"),
        (6, "AAAA"),
        (6, ""),
    ] {
        let mut words: [&str; 7] = words.clone().try_into().unwrap();
        words[at] = text;
        node.put(OPERATOR, line(words));
        node.refuses("line 3 should be 32 bytes in base64, or a seed sealed with a passphrase", 8, "");
    }
    // Another operator's sealed key in this place.
    let other = Node::made(|options| {
        options.passphrase = Some(passphrase("correct horse"));
        options.now_us += 1;
    });
    let seed = Seed::draw(&mut SeededRandom::new(b"other")).unwrap();
    let purpose = Purpose::of(Role::Operator, 1, &other.report.origin);
    let cost = SealCost::new(8, 1).unwrap();
    let text = keyfile::write_sealed(&purpose, &seed, &passphrase("x"), cost, &mut SeededRandom::new(b"salt")).unwrap();
    other.put(OPERATOR, text.as_slice());
    let error = other.open().operator_key(Some(&passphrase("x"))).unwrap_err();
    assert!(error.to_string().contains("and the public key beside it is"), "{error}");
}

#[test]
fn the_sealed_form_is_the_one_that_is_written_down() {
    // The same construction, computed with other tools (OpenSSL, by way of the Python package `cryptography`) from the text of `keyfile::seal`.
    let purpose = Purpose::of(Role::Operator, 1, "node.example");
    let text = include_str!("sealed.key");
    let KeyFile::Sealed(sealed) = keyfile::read(text.as_bytes(), &purpose).unwrap() else { panic!("it is sealed") };
    let seed = sealed.open(&purpose, &passphrase("correct horse battery staple")).unwrap();
    assert_eq!(seed.secret_key().public().id(), SecretKey::from_seed(&[0x42; 32]).public().id());
    for other in [Purpose::of(Role::Operator, 2, "node.example"), Purpose::of(Role::Redact, 1, "node.example")] {
        assert!(keyfile::read(text.as_bytes(), &other).is_err());
        assert!(sealed.open(&other, &passphrase("correct horse battery staple")).is_err());
    }
}

#[test]
fn the_default_cost_is_64_mib_and_3_passes() {
    let node = Node::made(|options| {
        options.profile = Profile::Default;
        options.cost = SealCost::DEFAULT;
        options.passphrase = Some(passphrase("correct horse"));
    });
    assert!(node.text(OPERATOR).contains("sealed argon2id m=65536 t=3 p=1 "));
    node.open().operator_key(Some(&passphrase("correct horse"))).unwrap();
    for (memory_kib, passes, fits) in
        [(7, 1, false), (8, 1, true), (262_144, 16, true), (262_145, 1, false), (8, 0, false), (8, 17, false)]
    {
        assert_eq!(SealCost::new(memory_kib, passes).is_some(), fits, "{memory_kib} {passes}");
    }
}

#[test]
fn a_passphrase_is_a_line_of_any_bytes() {
    let read = |bytes: &[u8]| Passphrase::new(bytes.to_vec().into());
    for bytes in [&b""[..], b"\n", b"\r\n", &[b'a'; 1_025]] {
        assert!(read(bytes).is_none());
    }
    assert!(read(&[b'a'; 1_024]).is_some() && read(&[0xff]).is_some());
    let node = Node::sealed();
    for bytes in [&b"correct horse\n"[..], b"correct horse\r\n"] {
        node.open().operator_key(read(bytes).as_ref()).unwrap();
    }
}

#[test]
fn a_passphrase_file_is_read_or_said_to_hold_none() {
    let node = Node::sealed();
    let path = node.dir.join("passphrase");
    std::fs::write(&path, "correct horse\n").unwrap();
    node.open().operator_key(Some(&read_passphrase(&path).unwrap())).unwrap();
    for text in [String::new(), "\n".to_owned(), "a".repeat(1_025), "a".repeat(9_999)] {
        std::fs::write(&path, text).unwrap();
        let error = read_passphrase(&path).unwrap_err();
        assert!(error.to_string().ends_with("passphrase: it holds no passphrase of 1 to 1024 bytes"), "{error}");
        assert_eq!(error.exit_code(), 8);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(read_passphrase(&path).unwrap_err().to_string().contains("No such file"));
}

#[test]
fn nothing_that_holds_a_secret_prints_it() {
    let node = Node::testing();
    let home = node.open();
    let purpose = Purpose::of(Role::Event, 1, home.origin());
    let file = keyfile::read(node.text("event-0001.key").as_bytes(), &purpose).unwrap();
    node.tells_nothing(&home);
    node.tells_nothing(&node.report);
    node.tells_nothing(&file);
    node.tells_nothing(&home.event_key(START_US).unwrap());
    node.tells_nothing(&home.operator_key(None).unwrap());
    node.tells_nothing(&passphrase("correct horse"));
    node.tells_nothing(&SeededRandom::new(b"home"));
    let sealed = Node::sealed();
    let purpose = Purpose::of(Role::Operator, 1, sealed.open().origin());
    sealed.tells_nothing(&keyfile::read(sealed.text(OPERATOR).as_bytes(), &purpose).unwrap());
    let mut options = super::cheap(&sealed.dir);
    options.passphrase = Some(passphrase("correct horse"));
    sealed.tells_nothing(&options);
}

fn root_of(node: &Node) -> SecretKey {
    match keyfile::read(node.text("root.key").as_bytes(), &Purpose::root(&node.report.origin)).unwrap() {
        KeyFile::Plain(seed) => seed.secret_key(),
        KeyFile::Sealed(_) => panic!("a root key is not sealed"),
    }
}
