//! Keys of model servers: where one lies, and reading it. No key ever stands in a file, a flag or a URL of ours.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The least bytes of a key: a shorter one could not be told from other text when answers are cleaned of it.
pub const KEY_BYTES_MIN: usize = 8;
/// The most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4_096;
/// The variable in which systemd says where credentials lie.
pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a key lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// In a variable of the environment.
    Env(String),
    /// In a file of its own, which nobody but its owner may read.
    File(PathBuf),
    /// Among the credentials that systemd hands over.
    Credential(String),
}

impl KeyRef {
    /// Reads `env:NAME`, `file:PATH` or `credential:NAME`.
    ///
    /// # Errors
    /// [`KeyError::Literal`] and [`KeyError::Name`]. Neither quotes the text, which may be a key.
    pub fn parse(text: &str) -> Result<KeyRef, KeyError> {
        let (kind, name) = text.split_once(':').ok_or(KeyError::Literal)?;
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let named = !name.is_empty() && name.len() <= 255 && plain(name) && name != "." && name != "..";
        match kind {
            "env" if named => Ok(KeyRef::Env(name.to_owned())),
            "credential" if named => Ok(KeyRef::Credential(name.to_owned())),
            "file" if name.starts_with('/') && !name.contains('\0') => Ok(KeyRef::File(PathBuf::from(name))),
            "env" | "credential" | "file" => Err(KeyError::Name { kind: kind.to_owned() }),
            _ => Err(KeyError::Literal),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRef::Env(name) => write!(f, "env:{name}"),
            KeyRef::File(path) => write!(f, "file:{}", path.display()),
            KeyRef::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

/// The environment of the process, as an argument.
#[derive(Clone)]
pub struct Environment(Arc<ReadVariable>);

type ReadVariable = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Environment {
    /// The real one.
    pub fn of_process() -> Environment {
        Environment(Arc::new(|name| std::env::var_os(name)))
    }

    /// One that answers from a function.
    pub fn of(read: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Environment {
        Environment(Arc::new(read))
    }

    fn read(&self, name: &str) -> Option<OsString> {
        (self.0)(name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Reads the key that `reference` names, as it is now.
///
/// # Errors
/// [`KeyError`]; no variant holds a byte of a key.
pub fn read_key(reference: &KeyRef, environment: &Environment) -> Result<SecretString, KeyError> {
    match reference {
        KeyRef::Env(name) => {
            let text = environment.read(name).ok_or_else(|| KeyError::Unset { name: name.clone() })?;
            // A key is ASCII; what is not UTF-8 is no key, and is wiped like one.
            let text = Zeroizing::new(text.into_encoded_bytes());
            key_of(&text, &reference.to_string())
        }
        KeyRef::File(path) => read_file(path, 0o600, reference),
        KeyRef::Credential(name) => {
            let directory = environment
                .read(CREDENTIALS_DIRECTORY)
                .ok_or_else(|| KeyError::NoCredentials { name: name.clone() })?;
            // systemd lets the unit's user read them through the group bits of an access list.
            read_file(&Path::new(&directory).join(name), 0o640, reference)
        }
    }
}

/// Reads a file whose mode is within `mode_max`.
fn read_file(path: &Path, mode_max: u32, reference: &KeyRef) -> Result<SecretString, KeyError> {
    let failed = |what: String| KeyError::Unreadable { path: path.to_owned(), what };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.to_string()))?;
    let file = File::from(fd);
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & !mode_max != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    // Room from the start, since a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES_MAX));
    let most = KEY_BYTES_MAX as u64 + 3;
    file.take(most).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    key_of(&text, &reference.to_string())
}

/// A key without its line end.
fn key_of(text: &[u8], reference: &str) -> Result<SecretString, KeyError> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let fine = (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    let key = std::str::from_utf8(text).ok().filter(|_| fine);
    key.map(SecretString::from).ok_or_else(|| KeyError::NoKey { reference: reference.to_owned() })
}

/// Why there is no key. No variant holds a byte of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something that is no reference: perhaps a key itself.
    #[error("this says not where the key lies")]
    Literal,
    /// A reference whose name cannot be one.
    #[error("what stands behind `{kind}:` cannot name a key")]
    Name {
        /// The kind of reference.
        kind: String,
    },
    /// A variable that is not set.
    #[error("the variable {name} is not set")]
    Unset {
        /// The variable.
        name: String,
    },
    /// No credentials were handed over.
    #[error("the credential {name} is not here: {CREDENTIALS_DIRECTORY} is not set")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// A file that cannot be read.
    #[error("{}: {what}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A file that others may read.
    #[error("{}: others have access to it (its mode is {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something that is no key.
    #[error("what {reference} holds is no key")]
    NoKey {
        /// Where it lies.
        reference: String,
    },
}

impl KeyError {
    /// The way on, for the line below the error.
    pub fn hint(&self) -> String {
        match self {
            KeyError::Literal | KeyError::Name { .. } => {
                "write `env:NAME`, `file:/PATH` or `credential:NAME`; if a key stands there, take it out and get a new \
                 one, since this one has been written down"
                    .to_owned()
            }
            KeyError::Unset { name } => format!("set it for this process alone: {name}=… toka …"),
            KeyError::NoCredentials { name } => {
                format!("in the unit of the service: LoadCredential={name}:/etc/toka/{name}")
            }
            KeyError::Unreadable { path, .. } => format!("look at it: ls -l {}", path.display()),
            KeyError::Exposed { path, .. } => format!("if nobody has read it: chmod 600 {}", path.display()),
            KeyError::NoKey { .. } => format!(
                "put the key there, as a line of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} visible ASCII characters without \
                 spaces"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use secrecy::ExposeSecret;

    use super::*;

    const KEY: &str = "sk-canary-0123456789";

    #[test]
    fn a_reference_says_where_a_key_lies() {
        for text in ["env:OPENAI_API_KEY", "file:/etc/toka/key", "credential:openai"] {
            assert_eq!(KeyRef::parse(text).expect("a reference").to_string(), text);
        }
        for text in ["env:", "env:A B", "file:", "file:key", "credential:../key", "credential:.."] {
            assert!(matches!(KeyRef::parse(text), Err(KeyError::Name { .. })), "{text}");
        }
    }

    #[test]
    fn a_literal_key_is_refused_and_not_repeated() {
        for text in [KEY, "Bearer sk-canary-0123456789", "key:sk-canary-0123456789", ""] {
            let error = KeyRef::parse(text).expect_err("it is no reference");
            assert_eq!(error, KeyError::Literal);
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("canary"));
        }
    }

    #[test]
    fn a_key_is_read_from_the_environment() {
        let environment = Environment::of(|name| (name == "A").then(|| KEY.into()));
        let key = read_key(&KeyRef::Env("A".to_owned()), &environment).expect("a key");
        assert_eq!(key.expose_secret(), KEY);
        assert!(!format!("{key:?}").contains("canary"));
        assert_eq!(
            read_key(&KeyRef::Env("B".to_owned()), &environment).expect_err("not set"),
            KeyError::Unset { name: "B".to_owned() }
        );
    }

    #[test]
    fn a_key_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        fs::write(&path, format!("{KEY}\r\n")).expect("it is written");
        let none = Environment::of(|_| None);
        let read = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            read_key(&KeyRef::File(path.clone()), &none).map(|key| key.expose_secret().to_owned())
        };
        assert_eq!(read(0o600).as_deref(), Ok(KEY));
        assert_eq!(read(0o400).as_deref(), Ok(KEY));
        for mode in [0o640, 0o604, 0o700, 0o4600] {
            assert_eq!(read(mode), Err(KeyError::Exposed { path: path.clone(), mode }));
        }
        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link");
        assert!(matches!(read_key(&KeyRef::File(link), &none), Err(KeyError::Unreadable { .. })));
        let folder = KeyRef::File(dir.path().to_owned());
        assert!(matches!(read_key(&folder, &none), Err(KeyError::Unreadable { .. })));
    }

    #[test]
    fn a_credential_lies_where_systemd_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("openai");
        fs::write(&path, KEY).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("a mode");
        let at = dir.path().as_os_str().to_owned();
        let environment = Environment::of(move |name| (name == CREDENTIALS_DIRECTORY).then(|| at.clone()));
        let reference = KeyRef::Credential("openai".to_owned());
        assert_eq!(read_key(&reference, &environment).expect("a key").expose_secret(), KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("a mode");
        assert!(matches!(read_key(&reference, &environment), Err(KeyError::Exposed { .. })));
        let none = Environment::of(|_| None);
        assert!(matches!(read_key(&reference, &none), Err(KeyError::NoCredentials { .. })));
    }

    #[test]
    fn what_cannot_be_a_key_is_none() {
        for text in ["", "short", "two words here", "line\nline\nline", "kéy-kéy-kéy"] {
            let environment = Environment::of(move |_| Some(text.into()));
            let error = read_key(&KeyRef::Env("A".to_owned()), &environment).expect_err("no key");
            assert_eq!(error, KeyError::NoKey { reference: "env:A".to_owned() });
        }
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        let environment = Environment::of(move |_| Some(long.clone().into()));
        assert!(read_key(&KeyRef::Env("A".to_owned()), &environment).is_err());
    }
}
