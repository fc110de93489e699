//! The home folder of a node: its keys, the place of its store, and what it knows of sessions beside the evidence.
//!
//! ```text
//! node.json                 who the node is; written last, so a folder with it is a whole home
//! toka.sqlite               the store, which this module names and never opens
//! keys/                     0700
//!   root.key root.pub       root.key is to be moved to a safe place; the node does not need it
//!   event-0001.key .pub .grant … event-0005
//!   operator-<name>-0001.key .pub .grant
//! sessions/<id>.json        the folders a run was given, by the names it knows them by
//! secrets.json              where the values are that tools are handed; written by the operator
//! system.json               the system session, and the folders of registered tools
//! ```
//!
//! **Epochs.** Every 90 days another event key takes over: a new session is written in the newest epoch that has
//! begun. Each key is valid for 180 days, so that a session opened on the last day of an epoch has 90 days left to be
//! finished in. The first window begins one day before the home was made, lest a clock that is set back a little finds
//! no key. With five epochs a home opens sessions for a year and a half. After that, and for a session older than its
//! key, [`Home::event_key`] and [`Home::event_key_of`] say so and name the way on; keys are not renewed silently.
//!
//! **Trust.** Everything is checked when a home is opened: who owns the files and who may read them, each key grant
//! against the root key, each public key against its grant and each secret key against its public one. Only a sealed
//! key is checked later, when it is opened. No secret key is kept in memory that is not asked for.

mod error;
mod folder;
mod init;
mod passphrase;
mod roots;
mod secrets;
mod system;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toka_kernel::ids::{Bytes, KeyId, PrincipalId, TimeUs};
use toka_kernel::keys::{EventKey, KeyGrant, PublicKey, Role, SecretKey, self_test};
use toka_kernel::limits::KEY_GRANTS_PER_GENESIS_MAX;
use toka_store::Vkey;
use toka_store::vkey::is_note_name;

use crate::keyfile::{self, FILE_BYTES_MAX, KeyFile, Passphrase, Purpose};
pub use error::HomeError;
use folder::{Access, Folder};
pub use init::{EpochWindow, InitOptions, InitReport};
pub use passphrase::{ask_passphrase, read_passphrase};
pub use roots::{ROOTS_MAX, Roots};
pub use secrets::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SecretFault, Secrets};
pub use system::SystemPlaces;

/// Bytes of an origin, so that the names of its keys stay note names.
const ORIGIN_BYTES_MAX: usize = 255;
const NODE_SCHEMA: &str = "toka-node/v1";
const NODE_FILE: &str = "node.json";
const KEYS: &str = "keys";
const SESSIONS: &str = "sessions";

/// The home of a node, opened and checked.
#[derive(Debug)]
pub struct Home {
    folder: Folder,
    keys: Folder,
    node: NodeFile,
    root: Vkey,
    root_key_is_here: bool,
    granted: Vec<Granted>,
    operator: usize,
}

impl Home {
    /// Opens the home at `dir` and checks all of it.
    ///
    /// # Errors
    /// [`HomeError`] for the first thing that is not as it must be. Nothing is repaired.
    pub fn open(dir: &Path) -> Result<Home, HomeError> {
        self_test().map_err(|what| HomeError::SelfTest { what })?;
        let dir = std::path::absolute(dir).map_err(|error| HomeError::io(dir, error))?;
        let folder = open_folder(&dir)?;
        let node = NodeFile::read(&folder)?;
        let keys = folder.folder(KEYS, Access::Private)?;
        let root = read_pub(&keys, "root", &Purpose::root(&node.origin))?;
        let root_key_is_here = keys.has("root.key")?;
        if root_key_is_here {
            read_plain(&keys, "root", &Purpose::root(&node.origin), root.key())?;
        }
        let granted = read_granted(&keys, &node.origin, root.key())?;
        let operator = granted
            .iter()
            .rposition(|granted| granted.name.role == Role::Operator && granted.name.owner == node.operator)
            .ok_or_else(|| HomeError::Mismatch {
                path: folder.path().join(NODE_FILE),
                what: format!("the operator `{}` has no key grant in keys/", node.operator),
            })?;
        Ok(Home { folder, keys, node, root, root_key_is_here, granted, operator })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The name of the node, which every key grant and every genesis carries.
    pub fn origin(&self) -> &str {
        &self.node.origin
    }

    /// What it was made for.
    pub fn profile(&self) -> Profile {
        self.node.profile
    }

    /// Where its store is; there may be none yet.
    pub fn store_path(&self) -> PathBuf {
        self.dir().join("toka.sqlite")
    }

    /// The root key, which an auditor pins; its text form is one line.
    pub fn root(&self) -> &Vkey {
        &self.root
    }

    /// Whether the secret root key still lies in this home.
    pub fn root_key_is_here(&self) -> bool {
        self.root_key_is_here
    }

    /// The key grants, checked; the event epochs ascend.
    pub fn grants(&self) -> impl Iterator<Item = &KeyGrant> {
        self.granted.iter().map(|granted| &granted.grant)
    }

    /// The records of all key grants, as a genesis lists them; at most [`KEY_GRANTS_PER_GENESIS_MAX`].
    pub fn grant_records(&self) -> Vec<Bytes> {
        self.grants().map(|grant| Bytes(grant.encode())).collect()
    }

    /// The event key for a session that begins now: of the newest epoch that has begun.
    ///
    /// # Errors
    /// [`HomeError::NoEventKey`] before the first and after the last window, or what reading the key meets.
    pub fn event_key(&self, now_us: TimeUs) -> Result<EventKey, HomeError> {
        let newest = self.events().filter(|granted| is_valid(&granted.grant, now_us)).last();
        let newest = newest.ok_or_else(|| HomeError::NoEventKey {
            now_us,
            from_us: self.events().map(|granted| granted.grant.not_before_us).min().unwrap_or_default(),
            until_us: self.events().map(|granted| granted.grant.not_after_us).max().unwrap_or_default(),
        })?;
        self.read_event_key(newest)
    }

    /// The event key for a session that is written in `epoch` already.
    ///
    /// # Errors
    /// [`HomeError::EpochUnknown`], [`HomeError::EpochOver`] outside its window, or what reading the key meets.
    pub fn event_key_of(&self, epoch: u32, now_us: TimeUs) -> Result<EventKey, HomeError> {
        let granted =
            self.events().find(|granted| granted.grant.epoch == epoch).ok_or(HomeError::EpochUnknown { epoch })?;
        if !is_valid(&granted.grant, now_us) {
            let (from_us, until_us) = (granted.grant.not_before_us, granted.grant.not_after_us);
            return Err(HomeError::EpochOver { epoch, now_us, from_us, until_us });
        }
        self.read_event_key(granted)
    }

    /// The key grant of the operator of this home.
    pub fn operator(&self) -> &KeyGrant {
        &self.granted[self.operator].grant
    }

    /// The id of the operator key.
    pub fn operator_id(&self) -> KeyId {
        self.operator().key.id()
    }

    /// Who opens sessions in this home: the id of the operator key.
    pub fn opener(&self) -> PrincipalId {
        PrincipalId(self.operator_id().0)
    }

    /// Whether a passphrase is needed to open the operator key.
    ///
    /// # Errors
    /// What reading the key meets.
    pub fn operator_key_is_sealed(&self) -> Result<bool, HomeError> {
        let granted = &self.granted[self.operator];
        Ok(matches!(read_key(&self.keys, &granted.stem, &granted.purpose(self.origin()))?, KeyFile::Sealed(_)))
    }

    /// The operator key; `passphrase` is not looked at if the key is not sealed.
    ///
    /// # Errors
    /// [`HomeError::PassphraseNeeded`], [`HomeError::Sealed`] for a wrong one, or what reading the key meets.
    pub fn operator_key(&self, passphrase: Option<&Passphrase>) -> Result<SecretKey, HomeError> {
        let granted = &self.granted[self.operator];
        let purpose = granted.purpose(self.origin());
        let path = key_path(&self.keys, &granted.stem);
        let seed = match read_key(&self.keys, &granted.stem, &purpose)? {
            KeyFile::Plain(seed) => seed,
            KeyFile::Sealed(sealed) => {
                let passphrase = passphrase.ok_or_else(|| HomeError::PassphraseNeeded { path: path.clone() })?;
                sealed.open(&purpose, passphrase).map_err(|fault| HomeError::Sealed { path: path.clone(), fault })?
            }
        };
        matching(seed.secret_key(), &granted.grant.key, &path)
    }

    fn events(&self) -> impl Iterator<Item = &Granted> {
        self.granted.iter().filter(|granted| granted.name.role == Role::Event)
    }

    fn read_event_key(&self, granted: &Granted) -> Result<EventKey, HomeError> {
        let purpose = granted.purpose(self.origin());
        let secret = read_plain(&self.keys, &granted.stem, &purpose, &granted.grant.key)?;
        Ok(EventKey::new(secret, granted.grant.epoch))
    }
}

/// What a home is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For work: the operator key lies under a passphrase.
    Default,
    /// For tests and demos: the operator key may lie open.
    Testing,
}

/// `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    schema: String,
    origin: String,
    profile: Profile,
    operator: String,
}

impl NodeFile {
    fn read(folder: &Folder) -> Result<NodeFile, HomeError> {
        let mismatch = |what: String| HomeError::Mismatch { path: folder.path().join(NODE_FILE), what };
        let text = folder.read(NODE_FILE, Access::Readable, FILE_BYTES_MAX)?;
        let node: NodeFile = serde_json::from_slice(&text).map_err(|error| mismatch(error.to_string()))?;
        if node.schema != NODE_SCHEMA {
            return Err(mismatch(format!("the schema is `{}`, this version knows `{NODE_SCHEMA}`", node.schema)));
        }
        if node.origin.len() > ORIGIN_BYTES_MAX || !is_note_name(&node.origin) {
            return Err(mismatch(format!("the origin is 1 to {ORIGIN_BYTES_MAX} bytes without white space and `+`")));
        }
        Ok(node)
    }
}

/// A key grant and the name of its files.
#[derive(Debug)]
struct Granted {
    stem: String,
    name: KeyName,
    grant: KeyGrant,
}

impl Granted {
    fn purpose(&self, origin: &str) -> Purpose {
        Purpose::of(self.name.role, self.name.epoch, origin)
    }
}

/// What the name of a key file says: `event-0001`, `operator-<owner>-0001`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyName {
    role: Role,
    owner: String,
    epoch: u32,
}

impl KeyName {
    fn parse(stem: &str) -> Option<KeyName> {
        let (front, epoch) = stem.rsplit_once('-')?;
        let epoch = (epoch.len() == 4).then(|| epoch.parse().ok()).flatten()?;
        let (role, owner) = front.split_once('-').unwrap_or((front, ""));
        let role = *Role::ALL.iter().find(|known| known.name() == role)?;
        let name = KeyName { role, owner: owner.to_owned(), epoch };
        (name.stem() == stem && (role == Role::Operator) != owner.is_empty()).then_some(name)
    }

    fn stem(&self) -> String {
        match self.owner.as_str() {
            "" => format!("{}-{:04}", self.role, self.epoch),
            owner => format!("{}-{owner}-{:04}", self.role, self.epoch),
        }
    }
}

fn open_folder(dir: &Path) -> Result<Folder, HomeError> {
    if dir.join(NODE_FILE).exists() {
        // Others may not write here, or they could exchange the folder of the keys with the root key in it.
        return Folder::open(dir, Access::Readable);
    }
    match init::part_of(dir) {
        Some(part) if part.exists() => Err(HomeError::HalfFinished { part }),
        _ if dir.exists() => Err(HomeError::NotAHome { dir: dir.to_owned() }),
        _ => Err(HomeError::Missing { dir: dir.to_owned() }),
    }
}

fn read_granted(keys: &Folder, origin: &str, root: &PublicKey) -> Result<Vec<Granted>, HomeError> {
    let mut granted: Vec<Granted> = Vec::new();
    for file in keys.names()? {
        let Some(stem) = file.strip_suffix(".grant").filter(|stem| !stem.starts_with('.')) else { continue };
        let next = read_one_granted(keys, stem, origin, root)?;
        let twin = granted.iter().find(|other| other.grant.key == next.grant.key).map(|other| other.stem.as_str());
        let twin = twin.or((next.grant.key == *root).then_some("root"));
        if let Some(twin) = twin {
            let what = format!("its key is the one of {twin}, and a key holds one role only");
            return Err(HomeError::Mismatch { path: keys.path().join(file), what });
        }
        granted.push(next);
    }
    let what = match granted.len() {
        0..=KEY_GRANTS_PER_GENESIS_MAX if granted.iter().any(|granted| granted.name.role == Role::Event) => {
            return Ok(granted);
        }
        0..=KEY_GRANTS_PER_GENESIS_MAX => "it has no key grant for an event key".to_owned(),
        count => format!("it has {count} key grants, and a session takes {KEY_GRANTS_PER_GENESIS_MAX} at most"),
    };
    Err(HomeError::Mismatch { path: keys.path().to_owned(), what })
}

fn read_one_granted(keys: &Folder, stem: &str, origin: &str, root: &PublicKey) -> Result<Granted, HomeError> {
    let path = keys.path().join(format!("{stem}.grant"));
    let mismatch = |what: String| HomeError::Mismatch { path: path.clone(), what };
    let name = KeyName::parse(stem)
        .ok_or_else(|| mismatch("its name is not <role>-<epoch> or operator-<name>-<epoch>".to_owned()))?;
    let text = keys.read(&format!("{stem}.grant"), Access::Readable, FILE_BYTES_MAX)?;
    let grant = keyfile::read_grant(&text).map_err(|fault| HomeError::KeyFile { path: path.clone(), fault })?;
    grant.check(root).map_err(|fault| mismatch(format!("{fault} (the root key is that of root.pub)")))?;
    if (grant.role, grant.epoch) != (name.role, name.epoch) {
        return Err(mismatch(format!("it grants {} {}, and its name says another", grant.role, grant.epoch)));
    }
    if grant.origin != origin {
        return Err(mismatch(format!("it is for the node {}, and this one is {origin}", grant.origin)));
    }
    let purpose = Purpose::of(name.role, name.epoch, origin);
    let public = read_pub(keys, stem, &purpose)?.key().clone();
    if public != grant.key {
        return Err(mismatch(format!("it grants the key {}, and {stem}.pub is {}", grant.key.id(), public.id())));
    }
    // The key of an operator may lie elsewhere; without an event key the node cannot write.
    if name.role == Role::Event {
        read_plain(keys, stem, &purpose, &public)?;
    } else if keys.has(&format!("{stem}.key"))?
        && let KeyFile::Plain(seed) = read_key(keys, stem, &purpose)?
    {
        matching(seed.secret_key(), &public, &key_path(keys, stem))?;
    }
    Ok(Granted { stem: stem.to_owned(), name, grant })
}

fn read_pub(keys: &Folder, stem: &str, purpose: &Purpose) -> Result<Vkey, HomeError> {
    let name = format!("{stem}.pub");
    let path = keys.path().join(&name);
    let text = keys.read(&name, Access::Readable, FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&text);
    let vkey: Vkey = text
        .strip_suffix('\n')
        .unwrap_or(&text)
        .parse()
        .map_err(|fault| HomeError::Vkey { path: path.clone(), fault })?;
    if vkey.name() != purpose.vkey_name() {
        let what = format!("it names `{}`, and here `{}` is expected", vkey.name(), purpose.vkey_name());
        return Err(HomeError::Mismatch { path, what });
    }
    Ok(vkey)
}

fn read_key(keys: &Folder, stem: &str, purpose: &Purpose) -> Result<KeyFile, HomeError> {
    let text = keys.read(&format!("{stem}.key"), Access::Private, FILE_BYTES_MAX)?;
    keyfile::read(&text, purpose).map_err(|fault| HomeError::KeyFile { path: key_path(keys, stem), fault })
}

fn read_plain(keys: &Folder, stem: &str, purpose: &Purpose, public: &PublicKey) -> Result<SecretKey, HomeError> {
    let path = key_path(keys, stem);
    match read_key(keys, stem, purpose)? {
        KeyFile::Plain(seed) => matching(seed.secret_key(), public, &path),
        KeyFile::Sealed(_) => {
            Err(HomeError::Mismatch { path, what: "it is sealed, and the node has no passphrase for it".to_owned() })
        }
    }
}

fn matching(secret: SecretKey, public: &PublicKey, path: &Path) -> Result<SecretKey, HomeError> {
    let found = secret.public().id();
    if found != public.id() {
        let what = format!("it holds the key {found}, and the public key beside it is {}", public.id());
        return Err(HomeError::Mismatch { path: path.to_owned(), what });
    }
    Ok(secret)
}

fn key_path(keys: &Folder, stem: &str) -> PathBuf {
    keys.path().join(format!("{stem}.key"))
}

fn is_valid(grant: &KeyGrant, now_us: TimeUs) -> bool {
    (grant.not_before_us..grant.not_after_us).contains(&now_us)
}
