//! What is read: a store or a bundle, opened for reading only.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toka_kernel::ids::{Commitment, Seq, SessionId};
use toka_store::bundle::ContainerCode;
use toka_store::log::Rows;
use toka_store::{Bundle, ReadError, ReadLog, SqliteReader, StoredBlob};

use crate::report::InputInfo;

/// A store or a bundle.
pub struct Input {
    source: Source,
    info: InputInfo,
}

enum Source {
    Store(Box<dyn ReadLog>),
    Bundle(Box<Bundle>),
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}; {hint}")]
pub struct Unreadable {
    /// The path as it was given.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

/// An entry as it lies in the input.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The key of the row, in a store.
    pub(crate) key: Option<Seq>,
    /// Where it begins in the file, in a bundle.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Input {
    /// Opens a store file or a bundle, whichever the first bytes say it is.
    ///
    /// # Errors
    /// [`Unreadable`] for whatever is neither.
    pub fn open(path: &Path) -> Result<Input, Unreadable> {
        let unreadable = |what: String, hint| Unreadable { path: path.display().to_string(), what, hint };
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string(), "check the path"))?;
        if metadata.is_dir() {
            return Err(unreadable("it is a folder".to_owned(), "name the store file or the bundle in it"));
        }
        // Opening a pipe or a device would wait, or never end.
        if !metadata.is_file() {
            return Err(unreadable("it is no regular file".to_owned(), "copy it into a file first"));
        }
        let mut begin = Vec::new();
        let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut begin));
        read.map_err(|error| unreadable(error.to_string(), "check who may read it"))?;
        let source = if begin.starts_with(toka_store::bundle::MAGIC) {
            let bundle = Bundle::open(path);
            Source::Bundle(Box::new(bundle.map_err(|error| unreadable(error.to_string(), "try another copy"))?))
        } else if begin == b"SQLite format 3\0" {
            let store = SqliteReader::open(path);
            Source::Store(Box::new(store.map_err(|error| unreadable(error.to_string(), "try another copy"))?))
        } else {
            let what = if begin.is_empty() { "it is empty" } else { "it is neither a store of Toka nor a bundle" };
            return Err(unreadable(what.to_owned(), "name a store file or a .tkb file"));
        };
        let kind = source.kind();
        let info = InputInfo { kind, path: path.display().to_string(), bytes: Some(metadata.len()) };
        Ok(Input { source, info })
    }

    /// A store of any engine, under the name it has for people.
    pub fn store(store: Box<dyn ReadLog>, name: &str) -> Input {
        let info = InputInfo { kind: "store", path: name.to_owned(), bytes: None };
        Input { source: Source::Store(store), info }
    }

    /// A bundle that is open already.
    pub fn bundle(bundle: Bundle, name: &str) -> Input {
        let info = InputInfo { kind: "bundle", path: name.to_owned(), bytes: Some(bundle.bytes()) };
        Input { source: Source::Bundle(Box::new(bundle)), info }
    }

    /// What it is.
    pub fn info(&self) -> &InputInfo {
        &self.info
    }

    /// The ids of its sessions, ascending.
    pub fn sessions(&self) -> impl Iterator<Item = Result<SessionId, ReadError>> + '_ {
        self.log().sessions(None).map(|row| row.map(|row| row.session))
    }

    pub(crate) fn log(&self) -> &dyn ReadLog {
        match &self.source {
            Source::Store(store) => store.as_ref(),
            Source::Bundle(bundle) => bundle.as_ref(),
        }
    }

    pub(crate) fn as_bundle(&self) -> Option<&Bundle> {
        match &self.source {
            Source::Store(_) => None,
            Source::Bundle(bundle) => Some(bundle),
        }
    }

    /// The entries of a session as they lie there.
    pub(crate) fn entries(&self, session: SessionId) -> Rows<'_, Stored> {
        match &self.source {
            Source::Store(store) => {
                let stored = |raw: toka_store::RawEntry| Stored { key: Some(raw.seq), offset: 0, bytes: raw.bytes };
                Box::new(store.read(session, 0).map(move |raw| raw.map(stored)))
            }
            Source::Bundle(bundle) => {
                let stored =
                    |raw: toka_store::bundle::BundleEntry| Stored { key: None, offset: raw.offset, bytes: raw.bytes };
                Box::new(bundle.entries(session).map(move |raw| raw.map(stored)))
            }
        }
    }

    pub(crate) fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        self.log().blob(session, commitment)
    }

    /// The seq that the entries of a session begin with, as the input says.
    pub(crate) fn first_seq(&self, session: SessionId) -> Seq {
        self.as_bundle().and_then(|bundle| bundle.entries_section(session)).map_or(0, |entries| entries.first_seq)
    }

    /// Whether the file ends before its sections do.
    pub(crate) fn is_cut(&self) -> bool {
        let faults = self.as_bundle().map(Bundle::faults).unwrap_or_default();
        faults.iter().any(|fault| fault.code == ContainerCode::BundleTruncated)
    }
}

impl Source {
    fn kind(&self) -> &'static str {
        match self {
            Source::Store(_) => "store",
            Source::Bundle(_) => "bundle",
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("info", &self.info).finish_non_exhaustive()
    }
}
