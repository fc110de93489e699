//! The home folder of a node: made once, opened with every check, and never saying a secret.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod clock;
mod keys;
mod permissions;
mod vkey;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toka_kernel::keys::{EventKey, Role};
use toka_runtime::home::{Profile, Roots};
use toka_runtime::keyfile::{Passphrase, SealCost};
use toka_runtime::random::{NoRandom, OsRandom, Random, SeededRandom};
use toka_runtime::{Home, HomeError, InitOptions, InitReport};

/// When test homes are made: 2026-01-01T00:00:00Z.
const START_US: u64 = toka_tests::session::START_US;
const DAY_US: u64 = 86_400_000_000;

/// A home for testing in a folder that vanishes.
struct Node {
    dir: PathBuf,
    report: InitReport,
    secrets: Vec<String>,
    _scratch: tempfile::TempDir,
}

impl Node {
    fn testing() -> Node {
        Node::made(|_| {})
    }

    fn sealed() -> Node {
        Node::made(|options| {
            options.profile = Profile::Default;
            options.passphrase = Some(passphrase("correct horse"));
        })
    }

    fn made(change: impl FnOnce(&mut InitOptions)) -> Node {
        let scratch = tempfile::tempdir().unwrap();
        let mut options = cheap(&scratch.path().join("toka"));
        change(&mut options);
        let report = Home::init(&options, &mut SeededRandom::new(b"home")).unwrap();
        let dir = report.dir.clone();
        Node { secrets: secrets(&dir), dir, report, _scratch: scratch }
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join("keys").join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.key(name)).unwrap()
    }

    /// Writes over a key file, keeping its mode.
    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.key(name), text).unwrap();
    }

    fn open(&self) -> Home {
        Home::open(&self.dir).unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint()))
    }

    /// Opens the home, which must be refused; no word of the refusal may be a secret.
    fn refusal(&self) -> HomeError {
        let error = Home::open(&self.dir).expect_err("this home must be refused");
        self.tells_nothing(&error);
        self.tells_nothing(&error.to_string());
        self.tells_nothing(&error.hint());
        error
    }

    /// Opens the home, which must be refused in these words: a part of the message, the exit status, a part of the hint.
    fn refuses(&self, message: &str, exit_code: u8, hint: &str) {
        let error = self.refusal();
        assert!(error.to_string().contains(message), "{error}\nlacks: {message}");
        assert!(error.to_string().contains(&*self.dir.to_string_lossy()), "{error} names no file");
        assert!(error.hint().contains(hint), "{}\nlacks: {hint}", error.hint());
        assert_eq!(error.exit_code(), exit_code, "{error}");
    }

    fn tells_nothing(&self, what: &dyn Debug) {
        let text = format!("{what:?} {what:#?}");
        let lower = text.to_lowercase();
        for secret in &self.secrets {
            assert!(!text.contains(secret) && !lower.contains(secret), "{text}\ntells {secret}");
        }
    }
}

/// Every seed in the `.key` files below `dir`, as base64, hex and as a list of numbers.
fn secrets(dir: &Path) -> Vec<String> {
    let mut secrets = vec!["correct horse".to_owned()];
    for entry in std::fs::read_dir(dir.join("keys")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.lines().nth(2).unwrap();
            if let Ok(seed) = STANDARD.decode(line) {
                let numbers = format!("{:?}", &seed[..8]);
                secrets.extend([line.to_owned(), hex(&seed), numbers.trim_matches(['[', ']']).to_owned()]);
            }
        }
    }
    secrets
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec().into()).unwrap()
}

fn cheap(dir: &Path) -> InitOptions {
    InitOptions { cost: SealCost::new(8, 1).unwrap(), ..InitOptions::new(dir, Profile::Testing, START_US) }
}

/// The usual options at a fresh place.
fn fresh() -> (tempfile::TempDir, InitOptions) {
    let scratch = tempfile::tempdir().unwrap();
    let options = cheap(&scratch.path().join("toka"));
    (scratch, options)
}

fn init(options: &InitOptions) -> Result<InitReport, HomeError> {
    Home::init(options, &mut OsRandom)
}

#[test]
fn a_home_that_was_made_opens() {
    let node = Node::testing();
    let home = node.open();
    assert_eq!(home.profile(), Profile::Testing);
    assert_eq!(home.origin(), node.report.origin);
    assert_eq!(home.root(), &node.report.root);
    assert_eq!(home.root().name(), format!("{}/root", home.origin()));
    assert_eq!(home.operator_id(), node.report.operator);
    assert_eq!(home.opener().0, node.report.operator.0);
    assert_eq!(home.operator().role, Role::Operator);
    assert_eq!(home.store_path(), node.dir.join("toka.sqlite"));
    assert_eq!(home.operator_key(None).unwrap().public().id(), home.operator_id());
    assert_eq!(home.grant_records().len(), 6);
    assert_eq!(home.grants().filter(|grant| grant.role == Role::Event).count(), 5);
    for grant in home.grants() {
        grant.check(home.root().key()).unwrap();
        assert_eq!(grant.origin, home.origin());
    }
}

#[test]
fn init_makes_these_files_with_these_modes_and_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::testing();
    let mut listed = node.report.files.clone();
    listed.sort();
    let mut found = vec![PathBuf::from("node.json")];
    for entry in std::fs::read_dir(node.dir.join("keys")).unwrap() {
        found.push(Path::new("keys").join(entry.unwrap().file_name()));
    }
    found.sort();
    assert_eq!(listed, found);
    assert_eq!(found.len(), 1 + 2 + 6 * 3);
    let mode = |path: &Path| std::fs::metadata(node.dir.join(path)).unwrap().permissions().mode() & 0o7777;
    for file in &found {
        let private = file.extension().is_some_and(|extension| extension == "key");
        assert_eq!(mode(file) & if private { 0o7177 } else { 0o7133 }, 0, "{}", file.display());
    }
    for folder in ["", "keys", "sessions"] {
        assert_eq!(mode(Path::new(folder)), 0o700, "{folder}");
    }
    assert!(node.report.is_new);
    assert!(node.report.warnings[0].contains("keys/root.key"), "{:?}", node.report.warnings);
    assert!(node.report.warnings[1].contains("testing"), "{:?}", node.report.warnings);
}

#[test]
fn one_seed_makes_one_home_and_the_operating_system_makes_another() {
    let (one, two) = (Node::testing(), Node::testing());
    assert_eq!(one.report.root, two.report.root);
    assert_eq!(one.text("event-0003.key"), two.text("event-0003.key"));
    let ((_a, a), (_b, b)) = (fresh(), fresh());
    assert_ne!(init(&a).unwrap().root, init(&b).unwrap().root);
}

#[test]
fn a_second_init_is_refused_unless_the_home_will_do() {
    let node = Node::testing();
    let before = node.text("root.key");
    let error = init(&cheap(&node.dir)).unwrap_err();
    assert_eq!((&error, error.exit_code()), (&HomeError::Exists { dir: node.dir.clone() }, 1));
    assert!(error.hint().contains("--if-missing"));
    // Neither profile nor passphrase matter then: a container starts with the same line every time.
    let options = InitOptions { if_missing: true, ..InitOptions::new(&node.dir, Profile::Default, START_US) };
    let report = init(&options).unwrap();
    assert_eq!((report.is_new, report.files.len()), (false, 0));
    assert_eq!(report.root, node.report.root);
    assert_eq!(node.text("root.key"), before);
    // A home that is there and not in order will not do.
    node.put("root.pub", "nonsense\n");
    assert_eq!(init(&options).unwrap_err().exit_code(), 8);
}

#[test]
fn an_empty_folder_becomes_a_home_and_one_with_things_in_it_does_not() {
    let (_scratch, options) = fresh();
    std::fs::create_dir(&options.dir).unwrap();
    init(&options).unwrap();
    let (_scratch, options) = fresh();
    std::fs::create_dir(&options.dir).unwrap();
    std::fs::write(options.dir.join("thesis.txt"), "words").unwrap();
    let error = init(&options).unwrap_err();
    assert_eq!(error, HomeError::NotAHome { dir: options.dir.clone() });
    assert_eq!(std::fs::read_dir(&options.dir).unwrap().count(), 1);
    assert_eq!(Home::open(&options.dir).unwrap_err(), error);
    assert_eq!(error.exit_code(), 8);
}

#[test]
fn a_home_that_was_never_made_says_how_to_make_one() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("a home");
    let error = Home::open(&dir).unwrap_err();
    assert_eq!((&error, error.exit_code()), (&HomeError::Missing { dir: dir.clone() }, 1));
    assert_eq!(error.hint(), format!("make one: toka init --dir '{}'", dir.display()));
}

#[test]
fn folders_above_a_home_are_made_and_a_file_in_its_place_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    init(&cheap(&scratch.path().join("share/deep/toka"))).unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "words").unwrap();
    let error = init(&cheap(&file)).unwrap_err();
    assert!(matches!(error, HomeError::Place { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "words");
}

/// A source that dries up after some draws, as a full disk or a power cut would stop an `init` in between.
struct Dry(u32);

impl Random for Dry {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| NoRandom { what: "dry".to_owned() })?;
        bytes.fill(self.0 as u8 + 1);
        Ok(())
    }
}

#[test]
fn an_init_that_fails_on_the_way_leaves_nothing_behind() {
    for draws in 0..8 {
        let (scratch, options) = fresh();
        let error = Home::init(&options, &mut Dry(draws)).unwrap_err();
        assert!(matches!(error, HomeError::Random(_)), "after {draws} draws: {error:?}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "after {draws} draws");
    }
    let (_scratch, options) = fresh();
    Home::init(&options, &mut Dry(8)).unwrap();
}

#[test]
fn an_init_that_was_cut_off_is_explained_and_neither_used_nor_written_over() {
    let node = Node::testing();
    let part = node.dir.with_file_name("toka.init-part");
    std::fs::rename(&node.dir, &part).unwrap();
    std::fs::remove_file(part.join("node.json")).unwrap();
    let expected = HomeError::HalfFinished { part: part.clone() };
    assert_eq!(node.refusal(), expected);
    assert_eq!(init(&cheap(&node.dir)).unwrap_err(), expected);
    std::fs::create_dir(&node.dir).unwrap();
    assert_eq!(node.refusal(), expected);
    assert_eq!(expected.hint(), format!("if no `toka init` runs, remove it and start again: rm -r {}", part.display()));
    assert_eq!(expected.exit_code(), 1);
    assert!(part.join("keys/root.key").exists());
    std::fs::remove_dir_all(&part).unwrap();
    init(&cheap(&node.dir)).unwrap();
    node.open();
}

#[test]
fn options_that_cannot_be_met_are_usage_errors_and_make_nothing() {
    let (scratch, options) = fresh();
    let error = init(&InitOptions { root_key: Some("root.pub".into()), ..options }).unwrap_err();
    assert!(error.to_string().starts_with("root.pub: with the root key kept elsewhere"), "{error}");
    assert!(error.hint().contains("leave --root-key out"), "{}", error.hint());
    assert_eq!(error.exit_code(), 2);
    let dir = scratch.path().join("toka");
    let error = init(&InitOptions { profile: Profile::Default, ..cheap(&dir) }).unwrap_err();
    assert_eq!(error, HomeError::PassphraseNeeded { path: dir.join("keys/operator-operator-0001.key") });
    assert_eq!((error.exit_code(), error.hint().as_str()), (2, "give it: --passphrase-file FILE"));
    for name in ["", "Ada", "1st", "-a", "a b", "a/b", "..", "a+b", "é", &"a".repeat(33)] {
        let error = init(&InitOptions { operator: name.to_owned(), ..cheap(&dir) }).unwrap_err();
        assert_eq!((&error, error.exit_code()), (&HomeError::OperatorName { name: name.to_owned() }, 2));
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    let report = init(&InitOptions { operator: "ada-0001".to_owned(), ..cheap(&dir) }).unwrap();
    assert!(report.files.contains(&PathBuf::from("keys/operator-ada-0001-0001.grant")));
}

#[test]
fn each_moment_has_its_event_key_until_there_is_none() {
    let node = Node::testing();
    let home = node.open();
    let epoch = |day: u64| home.event_key(START_US + day * DAY_US).map(|key| key.epoch());
    for (day, expected) in [(0, 1), (88, 1), (89, 2), (178, 2), (179, 3), (269, 4), (359, 5), (538, 5)] {
        assert_eq!(epoch(day), Ok(expected), "day {day}");
    }
    assert_eq!(home.event_key(START_US - DAY_US).map(|key| key.epoch()), Ok(1), "a clock set back by a day");
    let late = epoch(539).unwrap_err();
    assert_eq!(
        late.to_string(),
        "no event key is valid at 2027-06-24T00:00:00Z: the event keys here are valid from 2025-12-31T00:00:00Z until \
         2027-06-24T00:00:00Z"
    );
    assert!(late.hint().contains("toka init --dir") && late.exit_code() == 1);
    let early = home.event_key(START_US - 2 * DAY_US).unwrap_err();
    assert!(early.hint().contains("clock"), "{}", early.hint());
}

#[test]
fn a_session_is_written_in_its_epoch_for_at_least_ninety_days() {
    let node = Node::testing();
    let home = node.open();
    let id = |key: EventKey| key.id();
    let granted: Vec<_> = home.grants().filter(|grant| grant.role == Role::Event).map(|grant| grant.key.id()).collect();
    for day in 0..449 {
        let opened = home.event_key(START_US + day * DAY_US).unwrap();
        let resumed = home.event_key_of(opened.epoch(), START_US + (day + 90) * DAY_US).unwrap();
        assert_eq!(id(opened), id(resumed.clone()), "day {day}");
        assert_eq!(granted[resumed.epoch() as usize - 1], resumed.id());
    }
    let over = home.event_key_of(1, START_US + 179 * DAY_US).unwrap_err();
    assert_eq!(
        over.to_string(),
        "the event key of epoch 1, in which this session is written, is valid from 2025-12-31T00:00:00Z until \
         2026-06-29T00:00:00Z; it is 2026-06-29T00:00:00Z now"
    );
    assert!(over.hint().starts_with("open a new session") && over.exit_code() == 1);
    assert!(home.event_key_of(2, START_US).unwrap_err().hint().contains("clock"));
    assert_eq!(home.event_key_of(6, START_US).unwrap_err(), HomeError::EpochUnknown { epoch: 6 });
}

#[test]
fn the_epochs_of_the_report_are_those_of_the_grants() {
    let node = Node::testing();
    let home = node.open();
    let events = home.grants().filter(|grant| grant.role == Role::Event);
    for (epoch, grant) in node.report.epochs.iter().zip(events) {
        assert_eq!(
            (epoch.epoch, epoch.from_us, epoch.until_us),
            (grant.epoch, grant.not_before_us, grant.not_after_us)
        );
    }
    assert_eq!(node.report.epochs.len(), 5);
}

#[test]
fn the_node_works_without_its_root_key() {
    let node = Node::testing();
    assert!(node.open().root_key_is_here());
    std::fs::remove_file(node.key("root.key")).unwrap();
    let home = node.open();
    assert!(!home.root_key_is_here());
    home.event_key(START_US).unwrap();
}

#[test]
fn the_roots_of_a_session_are_kept_and_replaced() {
    let node = Node::testing();
    let home = node.open();
    let session = toka_kernel::ids::SessionId([7; 32]);
    assert_eq!(home.roots_of(session), Ok(None));
    let roots = |path: &str| Roots::from([("project".to_owned(), PathBuf::from(path))]);
    home.save_roots(session, &roots("/srv/one")).unwrap();
    // What a crash in the middle of a replacement leaves is no obstacle.
    std::fs::write(node.dir.join(format!("sessions/.{session}.json.new")), "{").unwrap();
    home.save_roots(session, &roots("/srv/two words")).unwrap();
    assert_eq!(node.open().roots_of(session), Ok(Some(roots("/srv/two words"))));
    assert!(home.save_roots(session, &roots("relative")).unwrap_err().to_string().contains("no absolute path"));
    let many = (0..65).map(|number| (number.to_string(), PathBuf::from("/"))).collect();
    assert!(home.save_roots(session, &many).unwrap_err().to_string().contains("64 at most"));
    assert_eq!(home.roots_of(session), Ok(Some(roots("/srv/two words"))));
    for text in
        ["", "{}", r#"{"schema":"toka-roots/v2","roots":{}}"#, r#"{"schema":"toka-roots/v1","roots":{"a":"b"}}"#]
    {
        std::fs::write(node.dir.join(format!("sessions/{session}.json")), text).unwrap();
        let error = home.roots_of(session).unwrap_err();
        assert!(error.exit_code() == 8 && error.to_string().contains(&format!("{session}.json")), "{text}: {error}");
    }
}

#[test]
fn a_damaged_node_file_is_refused_with_its_place() {
    let node = Node::testing();
    let whole = std::fs::read_to_string(node.dir.join("node.json")).unwrap();
    for (from, to, message) in [
        ("}", "", "EOF while parsing"),
        ("toka-node/v1", "toka-node/v9", "the schema is `toka-node/v9`"),
        ("\"testing\"", "\"tseting\"", "unknown variant"),
        ("\"schema\"", "\"extra\": 1, \"schema\"", "unknown field `extra`"),
        ("toka.local/", "toka local/", "the origin is 1 to 255 bytes without white space and `+`"),
        ("\"operator\": \"operator\"", "\"operator\": \"ada\"", "the operator `ada` has no key grant"),
    ] {
        std::fs::write(node.dir.join("node.json"), whole.replacen(from, to, 1)).unwrap();
        node.refuses(message, 8, "put the file back");
        node.refuses("node.json", 8, "");
    }
}
