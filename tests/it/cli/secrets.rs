//! The secrets below a folder, in every form in which a program could say them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// What nobody may say, each with the file it stands in.
pub(super) struct Secrets(Vec<(PathBuf, String)>);

impl Secrets {
    /// The seeds of the key files of every node below `dir`, and the passphrases beside them.
    pub(super) fn below(dir: &Path) -> Secrets {
        let mut secrets = Vec::new();
        for path in files(dir) {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            if path.extension().is_some_and(|extension| extension == "key") {
                let seeds = text.lines().skip(2).filter_map(|line| STANDARD.decode(line).ok());
                for seed in seeds.filter(|seed| seed.len() == 32) {
                    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
                    secrets.extend([STANDARD_NO_PAD.encode(&seed), hex].map(|form| (path.clone(), form)));
                }
            } else if path.extension().is_some_and(|extension| extension == "passphrase") {
                secrets
                    .extend(text.lines().filter(|line| !line.is_empty()).map(|line| (path.clone(), line.to_owned())));
            }
        }
        Secrets(secrets)
    }

    /// The file whose secret stands in `text`.
    pub(super) fn found_in(&self, text: &str) -> Option<String> {
        let lower = text.to_ascii_lowercase();
        let said = |(_, secret): &&(PathBuf, String)| text.contains(secret) || lower.contains(secret);
        self.0.iter().find(said).map(|(path, _)| path.display().to_string())
    }
}

/// Where keys and passphrases of a test lie: not among the many files of a project.
fn files(dir: &Path) -> Vec<PathBuf> {
    let folders = ["", "home/keys", "other/keys", "kept/home/keys"];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(dir.join(folder)).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

#[test]
fn a_seed_is_found_in_every_form() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("home/keys")).expect("folders");
    let seed: Vec<u8> = (100..132).collect();
    let base64 = STANDARD.encode(&seed);
    fs::write(dir.path().join("home/keys/root.key"), format!("toka-key/v1\nroot 1 x\n{base64}\n")).expect("a file");
    let hex: String = seed.iter().map(|byte| format!("{byte:02X}")).collect();
    let secrets = Secrets::below(dir.path());
    assert!(secrets.found_in(&format!("key {base64}!")).is_some());
    assert!(secrets.found_in(&format!("key {hex}!")).is_some());
    assert!(secrets.found_in("toka-key/v1 root 1 x").is_none());
}
