//! Why a home cannot be made or used, with the way on.

use std::path::{Path, PathBuf};

use toka_kernel::ids::TimeUs;
use toka_store::vkey::VkeyError;

use crate::clock::utc;
use crate::keyfile::{KeyFileFault, PASSPHRASE_BYTES_MAX, SealFault};
use crate::random::NoRandom;

/// Why a home cannot be made or used. No variant holds a byte of a `.key` file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// There is no home.
    #[error("{}: there is no home of a node here", dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("{}: there is a home of a node here already", dir.display())]
    Exists {
        /// Where it is.
        dir: PathBuf,
    },
    /// A folder without `node.json`.
    #[error("{}: this folder has no node.json, so it is no home of a node", dir.display())]
    NotAHome {
        /// The folder.
        dir: PathBuf,
    },
    /// An `init` was cut off, or runs just now. What it made was never used.
    #[error("{}: `toka init` was cut off while it made this folder, or is making it now; nothing uses it yet", part.display())]
    HalfFinished {
        /// What it made so far.
        part: PathBuf,
    },
    /// The finished folder cannot be put where it belongs.
    #[error("{}: a home cannot be made here: {what}", dir.display())]
    Place {
        /// Where it was to be.
        dir: PathBuf,
        /// What the system said.
        what: String,
    },
    /// Others may read or change what only the owner may.
    #[error("{}: others have access to it (its mode is {mode:04o})", path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The command that sets it right, without the path.
        fix: &'static str,
    },
    /// A symbolic link where a file or folder must stand itself.
    #[error("{}: this is a symbolic link, and keys are not read through links", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error("{}: it belongs to the user with number {owner}, not to {user}, who runs this", path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
        /// The number of the user of this process.
        user: u32,
    },
    /// Neither a regular file nor a folder.
    #[error("{}: it is no {expected}", path.display())]
    Kind {
        /// What it is called.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A key file that is not written as a key file is.
    #[error("{}: {fault}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The line and what belongs there.
        fault: KeyFileFault,
    },
    /// A public key that is not written as one is.
    #[error("{}: line 1: {fault}", path.display())]
    Vkey {
        /// The file.
        path: PathBuf,
        /// What is wrong with the line.
        fault: VkeyError,
    },
    /// A file that reads well and does not belong with the others.
    #[error("{}: {what}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A sealed key that does not open.
    #[error("{}: {fault}", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: SealFault,
    },
    /// The operator key is sealed, or is to be, and no passphrase was given.
    #[error("{}: the operator key is kept under a passphrase, and none was given", path.display())]
    PassphraseNeeded {
        /// The key file.
        path: PathBuf,
    },
    /// A file that holds no passphrase.
    #[error("{}: {what}", path.display())]
    PassphraseFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// Only the public half of the root key is here.
    #[error(
        "{}: with the root key kept elsewhere nobody here can sign the key grants of this node (five event epochs and \
         the operator), and this version cannot read them from elsewhere", file.display()
    )]
    RootElsewhere {
        /// The public key that was named.
        file: PathBuf,
    },
    /// An operator name outside its bounds.
    #[error("`{name}` cannot name an operator: 1 to 32 lower-case letters, digits and `-`, a letter first")]
    OperatorName {
        /// The name.
        name: String,
    },
    /// No event key is valid now.
    #[error("no event key is valid at {}: the event keys here are valid from {} until {}", utc(*now_us), utc(*from_us), utc(*until_us))]
    NoEventKey {
        /// The time, in µs.
        now_us: TimeUs,
        /// When the first becomes valid, in µs.
        from_us: TimeUs,
        /// When the last ceases to be, in µs.
        until_us: TimeUs,
    },
    /// The event key of a session's epoch is not valid now.
    #[error("the event key of epoch {epoch}, in which this session is written, is valid from {} until {}; it is {} now", utc(*from_us), utc(*until_us), utc(*now_us))]
    EpochOver {
        /// The epoch.
        epoch: u32,
        /// The time, in µs.
        now_us: TimeUs,
        /// When the key becomes valid, in µs.
        from_us: TimeUs,
        /// When it ceases to be, in µs.
        until_us: TimeUs,
    },
    /// An epoch for which there is no key.
    #[error("there is no event key of epoch {epoch} here")]
    EpochUnknown {
        /// The epoch.
        epoch: u32,
    },
    /// The signature check of this build lets forgeries through.
    #[error("the self-test of the signature check failed: {what}")]
    SelfTest {
        /// The forgery.
        what: &'static str,
    },
    /// There is no randomness to make keys from.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// It cannot be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
}

impl HomeError {
    /// The exit status of a command that ends with this: 1 failure, 2 usage, 8 unreadable or corrupt.
    pub fn exit_code(&self) -> u8 {
        match self {
            HomeError::PassphraseNeeded { .. } | HomeError::RootElsewhere { .. } | HomeError::OperatorName { .. } => 2,
            HomeError::KeyFile { .. }
            | HomeError::Vkey { .. }
            | HomeError::Mismatch { .. }
            | HomeError::Kind { .. }
            | HomeError::NotAHome { .. }
            | HomeError::PassphraseFile { .. }
            | HomeError::Io { .. } => 8,
            HomeError::Missing { .. }
            | HomeError::Exists { .. }
            | HomeError::HalfFinished { .. }
            | HomeError::Place { .. }
            | HomeError::Exposed { .. }
            | HomeError::Symlink { .. }
            | HomeError::Owner { .. }
            | HomeError::Sealed { .. }
            | HomeError::NoEventKey { .. }
            | HomeError::EpochOver { .. }
            | HomeError::EpochUnknown { .. }
            | HomeError::SelfTest { .. }
            | HomeError::Random(_) => 1,
        }
    }

    /// The way on, for the line below the error; a command stands in it as it is typed.
    pub fn hint(&self) -> String {
        match self {
            HomeError::Missing { dir } => format!("make one: toka init --dir {}", typed(dir)),
            HomeError::Exists { .. } => "use it, name another folder with --dir, or add --if-missing".to_owned(),
            HomeError::NotAHome { .. } => {
                "name a new folder with --dir; if it was a home, put node.json back from a copy".to_owned()
            }
            HomeError::HalfFinished { part } => {
                format!("if no `toka init` runs, remove it and start again: rm -r {}", typed(part))
            }
            HomeError::Place { dir, .. } => format!(
                "a home is made beside its place and moved there in one step, so a mount point cannot be one; name a \
                 folder below: --dir {}",
                typed(&dir.join("home"))
            ),
            HomeError::Exposed { path, fix, .. } => format!("if nobody has read it: {fix} {}", typed(path)),
            HomeError::Symlink { path } => format!("put the file or folder itself at {}", typed(path)),
            HomeError::Owner { path, user, .. } => format!("run this as its owner, or: chown {user} {}", typed(path)),
            HomeError::Kind { .. }
            | HomeError::KeyFile { .. }
            | HomeError::Vkey { .. }
            | HomeError::Mismatch { .. } => {
                "put the file back from a copy; it is not written anew, since sessions depend on it".to_owned()
            }
            HomeError::Sealed { fault: SealFault::Memory { .. }, .. } => "free some memory and try again".to_owned(),
            HomeError::Sealed { .. } => "try another passphrase; without it the key cannot be had back".to_owned(),
            HomeError::PassphraseNeeded { .. } => "give it: --passphrase-file FILE".to_owned(),
            HomeError::PassphraseFile { .. } => {
                format!("put the passphrase there, as a line of 1 to {PASSPHRASE_BYTES_MAX} bytes")
            }
            HomeError::RootElsewhere { .. } => {
                "leave --root-key out, and move keys/root.key to a safe place after `toka init`".to_owned()
            }
            HomeError::OperatorName { .. } => "name it for example `operator`".to_owned(),
            HomeError::NoEventKey { now_us, from_us, .. } if now_us < from_us => {
                "set the clock right: timedatectl status".to_owned()
            }
            HomeError::NoEventKey { .. } => {
                "if the clock is right (timedatectl status), make a new home: toka init --dir \
                 DIR; the sessions here stay readable and verifiable"
                    .to_owned()
            }
            HomeError::EpochOver { now_us, from_us, .. } if now_us < from_us => {
                "set the clock right: timedatectl status".to_owned()
            }
            HomeError::EpochOver { .. } | HomeError::EpochUnknown { .. } => {
                "open a new session (toka run AGENT.yaml): this one stays readable and verifiable, and this \
                 version does not change the event key within a session"
                    .to_owned()
            }
            HomeError::SelfTest { .. } => "this build must not be used; install another one".to_owned(),
            HomeError::Random(_) => "try again once the machine has started up".to_owned(),
            HomeError::Io { path, .. } => format!("look at it: ls -ld {}", typed(path)),
        }
    }

    pub(super) fn io(path: &Path, error: impl std::fmt::Display) -> HomeError {
        HomeError::Io { path: path.to_owned(), what: error.to_string() }
    }
}

/// A path as it is typed in a shell.
fn typed(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@,=".contains(char);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
