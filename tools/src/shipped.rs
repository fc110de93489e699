//! The tools that are shipped as data: manifests and scripts that are part of the program's own bytes.
//!
//! They are registered like any other tool. What sets them apart is only that their digests are known beforehand.

use std::collections::BTreeMap;

use crate::files::FileError;
use crate::manifest::Manifest;

/// A manifest and the files that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// The name of the tool.
    pub name: &'static str,
    /// The bytes of the manifest.
    pub manifest: &'static [u8],
    /// Each file by its path beside the manifest.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// Every tool shipped as data, ascending by name.
pub const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "release-hasher",
        manifest: include_bytes!("../manifests/release-hasher.tool.yaml"),
        files: &[("guests/release_hasher.wasm", include_bytes!("../manifests/guests/release_hasher.wasm"))],
    },
    Shipped {
        name: "validate-dates",
        manifest: include_bytes!("../manifests/validate-dates.tool.yaml"),
        files: &[("scripts/validate_dates.py", include_bytes!("../manifests/scripts/validate_dates.py"))],
    },
    Shipped {
        name: "validate-links",
        manifest: include_bytes!("../manifests/validate-links.tool.yaml"),
        files: &[("scripts/validate-links.sh", include_bytes!("../manifests/scripts/validate-links.sh"))],
    },
];

impl Shipped {
    /// Reads the manifest, as one on disk is read.
    ///
    /// # Errors
    /// Everything that is wrong with it: for what is shipped, nothing.
    pub fn load(&self) -> Result<Manifest, Vec<FileError>> {
        let files: BTreeMap<&str, &[u8]> = self.files.iter().copied().collect();
        Manifest::read(&format!("shipped/{}.tool.yaml", self.name), self.manifest, &files)
    }
}
