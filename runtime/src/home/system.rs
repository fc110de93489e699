//! What the node knows of its system session and of the files of its tools: where they are on this machine, and no
//! evidence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toka_kernel::ids::SessionId;

use super::folder::Access;
use super::{Home, HomeError};

const FILE: &str = "system.json";
const SCHEMA: &str = "toka-system/v1";
/// Tools whose folders are remembered, and bytes of a path, bound the file.
const FILE_BYTES_MAX: usize = 4 << 20;

/// The system session and the folders of tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemPlaces {
    /// The system session, once there is one.
    pub session: Option<SessionId>,
    /// The folder of each tool's manifest, by the name of the tool.
    pub tools: BTreeMap<String, PathBuf>,
}

impl Home {
    /// What is known; nothing where nothing was saved.
    ///
    /// # Errors
    /// [`HomeError`] if the file cannot be read, or is not as [`Home::save_system`] wrote it.
    pub fn system(&self) -> Result<SystemPlaces, HomeError> {
        if !self.folder.has(FILE)? {
            return Ok(SystemPlaces::default());
        }
        let text = self.folder.read(FILE, Access::Readable, FILE_BYTES_MAX)?;
        let mismatch = |what: String| HomeError::Mismatch { path: self.folder.path().join(FILE), what };
        let file: SystemFile = serde_json::from_slice(&text).map_err(|error| mismatch(error.to_string()))?;
        if file.schema != SCHEMA {
            return Err(mismatch(format!("the schema is `{}`, this version knows `{SCHEMA}`", file.schema)));
        }
        let session = SessionId::from_hex(&file.session).ok_or_else(|| mismatch("no session id".to_owned()))?;
        if let Some((name, path)) = file.tools.iter().find(|(_, path)| !path.is_absolute()) {
            return Err(mismatch(format!("the folder of `{name}` is `{}`, which is no absolute path", path.display())));
        }
        Ok(SystemPlaces { session: Some(session), tools: file.tools })
    }

    /// Keeps what is known, in place of what was before. Nothing is kept without a system session.
    ///
    /// # Errors
    /// [`HomeError`] if the file cannot be written; then the earlier one stays.
    pub fn save_system(&self, places: &SystemPlaces) -> Result<(), HomeError> {
        let Some(session) = places.session else { return Ok(()) };
        let mismatch = |what: String| HomeError::Mismatch { path: self.folder.path().join(FILE), what };
        if let Some((name, _)) = places.tools.iter().find(|(_, path)| !Path::is_absolute(path)) {
            return Err(mismatch(format!("the folder of `{name}` is no absolute path")));
        }
        let file = SystemFile { schema: SCHEMA.to_owned(), session: session.to_string(), tools: places.tools.clone() };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| mismatch(error.to_string()))?;
        self.folder.write(FILE, Access::Readable, &text, true)?;
        self.folder.sync()
    }
}

/// `system.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemFile {
    schema: String,
    session: String,
    tools: BTreeMap<String, PathBuf>,
}
