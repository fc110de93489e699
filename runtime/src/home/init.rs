//! Making a home: all of it beside its place, then one rename.

use std::fs;
use std::path::{Path, PathBuf};

use toka_kernel::ids::{KeyId, TimeUs};
use toka_kernel::keys::{KeyGrant, Role, SecretKey, self_test};
use toka_kernel::limits::TIME_US_MAX;
use toka_store::Vkey;

use super::folder::{Access, Folder};
use super::{Home, HomeError, KEYS, KeyName, NODE_FILE, NODE_SCHEMA, NodeFile, Profile, SESSIONS};
use crate::keyfile::{Passphrase, Purpose, SealCost, Seed, write_grant, write_plain, write_sealed};
use crate::random::Random;

/// Event epochs signed beforehand: the one in force and the next four.
const EPOCHS: u32 = 5;
const DAY_US: u64 = 86_400_000_000;
/// How long an epoch opens sessions.
const EPOCH_US: u64 = 90 * DAY_US;
/// How long its key is valid.
const VALID_US: u64 = 2 * EPOCH_US;
/// How long before the home was made the first key is valid.
const EARLY_US: u64 = DAY_US;

/// How to make a home.
#[derive(Debug)]
pub struct InitOptions {
    /// Where; the folder must not exist or be empty.
    pub dir: PathBuf,
    /// What for.
    pub profile: Profile,
    /// The file of a public root key whose secret half is kept elsewhere. Refused: see [`HomeError::RootElsewhere`].
    pub root_key: Option<PathBuf>,
    /// The name of the operator: 1 to 32 lower-case letters, digits and `-`, a letter first.
    pub operator: String,
    /// What the operator key is sealed with; needed unless the profile is [`Profile::Testing`].
    pub passphrase: Option<Passphrase>,
    /// How much work it is to try a passphrase.
    pub cost: SealCost,
    /// Whether a home that is there already will do.
    pub if_missing: bool,
    /// The time now, in µs; the windows of the keys begin with it.
    pub now_us: TimeUs,
}

impl InitOptions {
    /// A home at `dir` for an operator called `operator`, sealed at the default cost; everything else left out.
    pub fn new(dir: &Path, profile: Profile, now_us: TimeUs) -> InitOptions {
        InitOptions {
            dir: dir.to_owned(),
            profile,
            root_key: None,
            operator: "operator".to_owned(),
            passphrase: None,
            cost: SealCost::DEFAULT,
            if_missing: false,
            now_us,
        }
    }
}

/// What there is after an `init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitReport {
    /// The home, as an absolute path.
    pub dir: PathBuf,
    /// Whether it was made just now.
    pub is_new: bool,
    /// The files made, relative to the home; none if it is not new.
    pub files: Vec<PathBuf>,
    /// The name of the node.
    pub origin: String,
    /// The root key, for auditors to pin.
    pub root: Vkey,
    /// The operator key.
    pub operator: KeyId,
    /// The event epochs.
    pub epochs: Vec<EpochWindow>,
    /// What its owner should do or know, a sentence each.
    pub warnings: Vec<String>,
}

/// When an event key is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochWindow {
    /// The epoch.
    pub epoch: u32,
    /// Valid from this time on, in µs.
    pub from_us: TimeUs,
    /// Valid before this time, in µs.
    pub until_us: TimeUs,
}

impl Home {
    /// Makes a home: a root key, event keys for five epochs and an operator key, with their grants.
    ///
    /// It is whole or not there: until the last step everything lies in a folder beside its place, which is removed
    /// when a step fails and stays, unused, when the process is cut off; the next `init` and every [`Home::open`] then
    /// say so. Nothing that exists is written over.
    ///
    /// # Errors
    /// [`HomeError`]; then there is no new home.
    pub fn init(options: &InitOptions, random: &mut dyn Random) -> Result<InitReport, HomeError> {
        self_test().map_err(|what| HomeError::SelfTest { what })?;
        let dir = std::path::absolute(&options.dir).map_err(|error| HomeError::io(&options.dir, error))?;
        if is_taken(&dir)? {
            return match options.if_missing {
                true => Ok(report(&Home::open(&dir)?, Vec::new())),
                false => Err(HomeError::Exists { dir }),
            };
        }
        check(options, &dir)?;
        let files = make(options, &dir, random)?;
        Ok(report(&Home::open(&dir)?, files))
    }
}

/// The folder in which the home at `dir` is made; `None` for the root of the file system.
pub(super) fn part_of(dir: &Path) -> Option<PathBuf> {
    let mut name = dir.file_name()?.to_owned();
    name.push(".init-part");
    Some(dir.with_file_name(name))
}

/// Whether there is a home at `dir`; an error if something else is.
fn is_taken(dir: &Path) -> Result<bool, HomeError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match (dir.join(NODE_FILE).exists(), entries.next().is_none()) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(HomeError::NotAHome { dir: dir.to_owned() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(HomeError::Place { dir: dir.to_owned(), what: error.to_string() }),
    }
}

fn check(options: &InitOptions, dir: &Path) -> Result<(), HomeError> {
    if let Some(file) = &options.root_key {
        return Err(HomeError::RootElsewhere { file: file.clone() });
    }
    let name = options.operator.as_bytes();
    let spelt = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if !(1..=32).contains(&name.len()) || !name[0].is_ascii_lowercase() || !name.iter().all(spelt) {
        return Err(HomeError::OperatorName { name: options.operator.clone() });
    }
    if options.profile == Profile::Default && options.passphrase.is_none() {
        let stem = operator_name(options).stem();
        return Err(HomeError::PassphraseNeeded { path: dir.join(KEYS).join(format!("{stem}.key")) });
    }
    Ok(())
}

fn make(options: &InitOptions, dir: &Path, random: &mut dyn Random) -> Result<Vec<PathBuf>, HomeError> {
    let place = |error: std::io::Error| HomeError::Place { dir: dir.to_owned(), what: error.to_string() };
    let (Some(parent), Some(part)) = (dir.parent(), part_of(dir)) else {
        return Err(HomeError::Place { dir: dir.to_owned(), what: "it has no name in a folder".to_owned() });
    };
    fs::create_dir_all(parent).map_err(place)?;
    match rustix::fs::mkdir(&part, rustix::fs::Mode::RWXU) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(HomeError::HalfFinished { part }),
        Err(error) => return Err(place(error.into())),
    }
    let made = fill(options, &part, random).and_then(|files| {
        // An empty folder at `dir` is replaced, one with anything in it is not.
        fs::rename(&part, dir).map_err(place)?;
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(place)?;
        Ok(files)
    });
    if made.is_err() {
        // It is ours, since we made it, and nobody has used it. If it cannot be removed, the next `init` names it.
        let _ = fs::remove_dir_all(&part);
    }
    made
}

fn fill(options: &InitOptions, part: &Path, random: &mut dyn Random) -> Result<Vec<PathBuf>, HomeError> {
    let folder = Folder::open(part, Access::Private)?;
    let origin = draw_origin(random)?;
    let mut maker = Maker { keys: folder.make(KEYS)?, files: Vec::new(), origin };
    let root_seed = Seed::draw(random)?;
    let root = root_seed.secret_key();
    let purpose = Purpose::root(&maker.origin);
    maker.put("root.key", Access::Private, &write_plain(&purpose, &root_seed))?;
    maker.put_pub("root", &purpose, &root)?;
    for window in (1..=EPOCHS).map(|epoch| window(epoch, options.now_us)) {
        let name = KeyName { role: Role::Event, owner: String::new(), epoch: window.epoch };
        let seed = Seed::draw(random)?;
        let text = write_plain(&Purpose::of(Role::Event, window.epoch, &maker.origin), &seed);
        maker.put_key(&name, &text, &seed, window, &root)?;
    }
    let name = operator_name(options);
    let seed = Seed::draw(random)?;
    let purpose = Purpose::of(Role::Operator, name.epoch, &maker.origin);
    let text = match &options.passphrase {
        None => write_plain(&purpose, &seed),
        Some(passphrase) => write_sealed(&purpose, &seed, passphrase, options.cost, random).map_err(|fault| {
            HomeError::Sealed { path: maker.keys.path().join(format!("{}.key", name.stem())), fault }
        })?,
    };
    // An operator key is not bound to an epoch of the event key: it is valid as long as any of them.
    let first_us = window(1, options.now_us).from_us;
    let life = EpochWindow { epoch: name.epoch, from_us: first_us, until_us: window(EPOCHS, options.now_us).until_us };
    maker.put_key(&name, &text, &seed, life, &root)?;
    folder.make(SESSIONS)?;
    let node = NodeFile {
        schema: NODE_SCHEMA.to_owned(),
        origin: maker.origin.clone(),
        profile: options.profile,
        operator: options.operator.clone(),
    };
    let node = serde_json::to_string_pretty(&node).map_err(|error| HomeError::io(&part.join(NODE_FILE), error))? + "\n";
    folder.write(NODE_FILE, Access::Readable, node.as_bytes(), false)?;
    maker.files.push(PathBuf::from(NODE_FILE));
    maker.keys.sync()?;
    folder.sync()?;
    Ok(maker.files)
}

/// Writes key files and remembers which.
struct Maker {
    keys: Folder,
    files: Vec<PathBuf>,
    origin: String,
}

impl Maker {
    fn put(&mut self, name: &str, access: Access, bytes: &[u8]) -> Result<(), HomeError> {
        self.keys.write(name, access, bytes, false)?;
        self.files.push(Path::new(KEYS).join(name));
        Ok(())
    }

    fn put_pub(&mut self, stem: &str, purpose: &Purpose, key: &SecretKey) -> Result<(), HomeError> {
        let name = format!("{stem}.pub");
        let vkey = Vkey::new(&purpose.vkey_name(), key.public())
            .map_err(|fault| HomeError::Vkey { path: self.keys.path().join(&name), fault })?;
        self.put(&name, Access::Readable, format!("{vkey}\n").as_bytes())
    }

    fn put_key(
        &mut self,
        name: &KeyName,
        text: &[u8],
        seed: &Seed,
        window: EpochWindow,
        root: &SecretKey,
    ) -> Result<(), HomeError> {
        let (stem, key) = (name.stem(), seed.secret_key());
        let purpose = Purpose::of(name.role, name.epoch, &self.origin);
        let valid = window.from_us..window.until_us;
        let grant = KeyGrant::issue(name.role, name.epoch, valid, key.public(), &self.origin, root);
        self.put(&format!("{stem}.key"), Access::Private, text)?;
        self.put_pub(&stem, &purpose, &key)?;
        self.put(&format!("{stem}.grant"), Access::Readable, write_grant(&grant).as_bytes())
    }
}

fn operator_name(options: &InitOptions) -> KeyName {
    KeyName { role: Role::Operator, owner: options.operator.clone(), epoch: 1 }
}

fn window(epoch: u32, now_us: TimeUs) -> EpochWindow {
    let from_us = now_us.saturating_sub(EARLY_US) + u64::from(epoch - 1) * EPOCH_US;
    let bounded = |us: u64| us.min(TIME_US_MAX);
    EpochWindow { epoch, from_us: bounded(from_us), until_us: bounded(from_us + VALID_US) }
}

fn draw_origin(random: &mut dyn Random) -> Result<String, HomeError> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(format!("toka.local/{:016x}", u64::from_be_bytes(bytes)))
}

fn report(home: &Home, files: Vec<PathBuf>) -> InitReport {
    let mut warnings = Vec::new();
    if home.root_key_is_here() {
        warnings.push(format!(
            "Move {} to a safe place off this machine: whoever has it can speak for this node, and the node does not \
             need it.",
            home.keys.path().join("root.key").display()
        ));
    }
    if home.profile() == Profile::Testing {
        warnings
            .push("This is a home for testing: whoever can read its files can approve in its operator's name.".into());
    }
    let epochs = home.events().map(|granted| EpochWindow {
        epoch: granted.grant.epoch,
        from_us: granted.grant.not_before_us,
        until_us: granted.grant.not_after_us,
    });
    InitReport {
        dir: home.dir().to_owned(),
        is_new: !files.is_empty(),
        files,
        origin: home.origin().to_owned(),
        root: home.root().clone(),
        operator: home.operator_id(),
        epochs: epochs.collect(),
        warnings,
    }
}
