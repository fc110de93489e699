//! The root key an auditor pins.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toka_kernel::keys::PublicKey;
use toka_store::vkey::{LINE_BYTES_MAX, Vkey, VkeyError};

/// Why there is no root key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The text is neither a file nor a key.
    #[error("`{text}` is neither a file nor a key of the form <origin>/root+<hash>+<key>: {fault}")]
    Text {
        /// The text.
        text: String,
        /// Why it is no key.
        fault: VkeyError,
    },
    /// The file cannot be read.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// The file holds no root key.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it holds none.
        fault: VkeyError,
    },
    /// A key of another purpose.
    #[error("{name} is no root key: its name does not end in /root")]
    NotRoot {
        /// The name of the key.
        name: String,
    },
}

impl RootError {
    /// Whether the text itself is wrong, and not what it leads to.
    pub fn is_usage(&self) -> bool {
        matches!(self, RootError::Text { .. } | RootError::NotRoot { .. })
    }
}

/// The root key that `text` names: the path of a `.pub` file, or the line in it.
///
/// # Errors
/// [`RootError`] if it is neither.
pub fn parse_root(text: &str) -> Result<PublicKey, RootError> {
    let path = Path::new(text);
    if path.exists() {
        return read_root(path);
    }
    let vkey = text.parse().map_err(|fault| RootError::Text { text: text.to_owned(), fault })?;
    root_of(&vkey)
}

/// The root key of the node whose store this file is: `keys/root.pub` beside it, if there is one.
///
/// # Errors
/// [`RootError`] if there is one that holds no root key.
pub fn root_beside(store: &Path) -> Result<Option<PublicKey>, RootError> {
    let path = store.parent().unwrap_or(Path::new("")).join("keys/root.pub");
    if path.exists() { read_root(&path).map(Some) } else { Ok(None) }
}

fn read_root(path: &Path) -> Result<PublicKey, RootError> {
    let io = |what: String| RootError::Io { path: path.to_owned(), what };
    if !path.is_file() {
        return Err(io("it is no regular file".to_owned()));
    }
    let mut line = String::new();
    let file = File::open(path).map_err(|error| io(error.to_string()))?;
    file.take(LINE_BYTES_MAX as u64 + 2).read_to_string(&mut line).map_err(|error| io(error.to_string()))?;
    let vkey = line.strip_suffix('\n').unwrap_or(&line).parse();
    root_of(&vkey.map_err(|fault| RootError::File { path: path.to_owned(), fault })?)
}

fn root_of(vkey: &Vkey) -> Result<PublicKey, RootError> {
    if vkey.name().ends_with("/root") {
        Ok(vkey.key().clone())
    } else {
        Err(RootError::NotRoot { name: vkey.name().to_owned() })
    }
}
