//! What tools are handed and nobody writes down: `secrets.json` says where each value is, and a call looks it up when it
//! begins.
//!
//! ```json
//! { "schema": "toka-secrets/v1", "secrets": { "github.token": "file:/etc/toka/github", "mail": "env:MAIL_TOKEN" } }
//! ```
//!
//! The operator writes this file; it never holds a value itself. A value is text, since one that could hold any byte
//! could not be told from what surrounds it, and not so short that it would be found by chance.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::folder::{Access, Folder};
use super::{Home, HomeError};

/// Bytes of the shortest value; a shorter one would be found everywhere.
pub const SECRET_BYTES_MIN: usize = 8;
/// Bytes of the longest value.
pub const SECRET_BYTES_MAX: usize = 4_096;

const FILE: &str = "secrets.json";
const SCHEMA: &str = "toka-secrets/v1";
const FILE_BYTES_MAX: usize = 64 << 10;

/// Where the values of a home are looked up.
#[derive(Clone, Debug)]
pub struct Secrets {
    home: PathBuf,
}

/// Why a value cannot be handed over. No variant holds a byte of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// `secrets.json` does not name it.
    #[error("secrets.json of this node names no `{handle}`; add a line `\"{handle}\": \"file:/PATH\"`")]
    Undeclared {
        /// What was asked for.
        handle: String,
    },
    /// `secrets.json` is not as it must be.
    #[error("{0}")]
    Declarations(#[from] HomeError),
    /// Something else than a place stands where the place of a value belongs.
    #[error("secrets.json must say where `{handle}` is, as `file:/PATH` or `env:NAME`, and never what it is")]
    Literal {
        /// What was asked for.
        handle: String,
    },
    /// Its file, or the variable, is not there or cannot be read.
    #[error("the value of `{handle}` cannot be read: {what}")]
    Unreadable {
        /// What was asked for.
        handle: String,
        /// What the system said.
        what: String,
    },
    /// Others may read or change its file.
    #[error("others have access to {} (its mode is {mode:04o}); if nobody has read it: chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Fewer bytes than [`SECRET_BYTES_MIN`].
    #[error("the value of `{handle}` has fewer than {SECRET_BYTES_MIN} bytes, and could not be kept out of outputs")]
    TooShort {
        /// What was asked for.
        handle: String,
    },
    /// More bytes than [`SECRET_BYTES_MAX`].
    #[error("the value of `{handle}` has more than {SECRET_BYTES_MAX} bytes")]
    TooLong {
        /// What was asked for.
        handle: String,
    },
    /// Not UTF-8, or with control characters other than line ends and tabs.
    #[error("the value of `{handle}` is no text; keep it in base64")]
    NotText {
        /// What was asked for.
        handle: String,
    },
}

impl SecretFault {
    /// The fault as a symbol of an outcome.
    pub fn symbol(&self) -> &'static str {
        match self {
            SecretFault::Undeclared { .. } => "secret-undeclared",
            SecretFault::Declarations(_) => "secret-declarations",
            SecretFault::Literal { .. } => "secret-literal",
            SecretFault::Unreadable { .. } => "secret-unreadable",
            SecretFault::Exposed { .. } => "secret-exposed",
            SecretFault::TooShort { .. } => "secret-too-short",
            SecretFault::TooLong { .. } => "secret-too-long",
            SecretFault::NotText { .. } => "secret-not-text",
        }
    }
}

impl Home {
    /// Where the values are looked up that tools are handed.
    pub fn secrets(&self) -> Secrets {
        Secrets { home: self.dir().to_owned() }
    }
}

impl Secrets {
    /// The value of `handle`, as it is now. A line end behind it is not part of it.
    ///
    /// # Errors
    /// [`SecretFault`].
    pub fn value(&self, handle: &str) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
        let declared = self.declared()?;
        let owned = || handle.to_owned();
        let source = declared.get(handle).ok_or_else(|| SecretFault::Undeclared { handle: owned() })?;
        let mut value = match source.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => read(handle, Path::new(path))?,
            Some(("env", name)) if !name.is_empty() => {
                let unset = |_| SecretFault::Unreadable { handle: owned(), what: format!("{name} is not set") };
                Zeroizing::new(std::env::var(name).map_err(unset)?.into_bytes())
            }
            Some(_) | None => return Err(SecretFault::Literal { handle: owned() }),
        };
        for end in [b'\n', b'\r'] {
            if value.last() == Some(&end) {
                value.pop();
            }
        }
        if value.len() < SECRET_BYTES_MIN {
            return Err(SecretFault::TooShort { handle: owned() });
        }
        if value.len() > SECRET_BYTES_MAX {
            return Err(SecretFault::TooLong { handle: owned() });
        }
        let is_text = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        if !std::str::from_utf8(&value).is_ok_and(is_text) {
            return Err(SecretFault::NotText { handle: owned() });
        }
        Ok(value)
    }

    fn declared(&self) -> Result<BTreeMap<String, String>, SecretFault> {
        let folder = Folder::open(&self.home, Access::Readable)?;
        if !folder.has(FILE)? {
            return Ok(BTreeMap::new());
        }
        let text = folder.read(FILE, Access::Private, FILE_BYTES_MAX)?;
        let mismatch = |what: String| HomeError::Mismatch { path: self.home.join(FILE), what };
        // The reader's own words could repeat what somebody wrote there by mistake.
        let file: SecretsFile = serde_json::from_slice(&text)
            .map_err(|error| mismatch(format!("line {}: it is not as docs/OPERATING.md says", error.line())))?;
        if file.schema != SCHEMA {
            return Err(mismatch(format!("this version knows the schema `{SCHEMA}`")).into());
        }
        Ok(file.secrets)
    }
}

/// `secrets.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsFile {
    schema: String,
    secrets: BTreeMap<String, String>,
}

/// Reads a file that is nobody else's, and no link.
fn read(handle: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    let unreadable = |what: String| SecretFault::Unreadable { handle: handle.to_owned(), what };
    let said = |errno: rustix::io::Errno| unreadable(std::io::Error::from(errno).to_string());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(said)?;
    let stat = rustix::fs::fstat(&fd).map_err(said)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unreadable("it is no regular file".to_owned()));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(unreadable(format!("it belongs to the user with number {}", stat.st_uid)));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFault::Exposed { path: path.to_owned(), mode });
    }
    // One allocation of full size, lest one that grows leave copies behind; two bytes more for a line end.
    let mut value = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 3));
    let most = SECRET_BYTES_MAX as u64 + 3;
    File::from(fd).take(most).read_to_end(&mut value).map_err(|error| unreadable(error.to_string()))?;
    Ok(value)
}
