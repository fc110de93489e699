//! The folders a run was given, by name: known to this machine only, and no evidence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toka_kernel::ids::SessionId;

use super::folder::Access;
use super::{Home, HomeError, SESSIONS};

/// Absolute folders by the name a session knows them by.
pub type Roots = BTreeMap<String, PathBuf>;

/// Roots of one session.
pub const ROOTS_MAX: usize = 64;

const SCHEMA: &str = "toka-roots/v1";
const FILE_BYTES_MAX: usize = ROOTS_MAX * 8_192;

impl Home {
    /// The folders that `session` was given; `None` if nothing was saved for it.
    ///
    /// # Errors
    /// [`HomeError`] if the file cannot be read, or is not as [`Home::save_roots`] wrote it.
    pub fn roots_of(&self, session: SessionId) -> Result<Option<Roots>, HomeError> {
        let (folder, name) = (self.folder.folder(SESSIONS, Access::Private)?, file_name(session));
        if !folder.has(&name)? {
            return Ok(None);
        }
        let text = folder.read(&name, Access::Private, FILE_BYTES_MAX)?;
        let mismatch = |what| HomeError::Mismatch { path: folder.path().join(&name), what };
        let file: RootsFile = serde_json::from_slice(&text).map_err(|error| mismatch(error.to_string()))?;
        if file.schema != SCHEMA {
            return Err(mismatch(format!("the schema is `{}`, this version knows `{SCHEMA}`", file.schema)));
        }
        check(&file.roots).map_err(mismatch)?;
        Ok(Some(file.roots))
    }

    /// Keeps the folders that `session` was given, in place of earlier ones. At most [`ROOTS_MAX`], absolute, with
    /// names and paths that are UTF-8.
    ///
    /// # Errors
    /// [`HomeError`] if they are outside these bounds or the file cannot be written; then the earlier ones stay.
    pub fn save_roots(&self, session: SessionId, roots: &Roots) -> Result<(), HomeError> {
        let (folder, name) = (self.folder.folder(SESSIONS, Access::Private)?, file_name(session));
        let mismatch = |what| HomeError::Mismatch { path: folder.path().join(&name), what };
        check(roots).map_err(mismatch)?;
        let file = RootsFile { schema: SCHEMA.to_owned(), roots: roots.clone() };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| mismatch(error.to_string()))?;
        if text.len() > FILE_BYTES_MAX {
            return Err(mismatch(format!("it would have more than {FILE_BYTES_MAX} bytes")));
        }
        folder.write(&name, Access::Private, &text, true)?;
        folder.sync()
    }
}

impl Home {
    /// Forgets the folders of a session that never came to be.
    ///
    /// # Errors
    /// When the file cannot be removed. That there is none is no error.
    pub fn forget_roots(&self, session: SessionId) -> Result<(), HomeError> {
        let folder = self.folder.folder(SESSIONS, Access::Private)?;
        folder.remove(&file_name(session))?;
        folder.sync()
    }
}

/// `sessions/<id>.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootsFile {
    schema: String,
    roots: Roots,
}

fn check(roots: &Roots) -> Result<(), String> {
    if roots.len() > ROOTS_MAX {
        return Err(format!("it has {} roots, and a session has {ROOTS_MAX} at most", roots.len()));
    }
    match roots.iter().find(|(name, path)| name.is_empty() || !path.is_absolute()) {
        Some((name, path)) => Err(format!("the root `{name}` is `{}`, which is no absolute path", path.display())),
        None => Ok(()),
    }
}

fn file_name(session: SessionId) -> String {
    format!("{session}.json")
}
