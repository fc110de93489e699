//! Programs of the machine that tools are started by, and their digests.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use toka_kernel::ids::Digest;

/// The toolchains that tools are started by in this version.
pub const TOOLCHAINS: [&str; 2] = ["python3", "sh"];

/// Where they are looked for, in this order.
pub const TOOLCHAIN_FOLDERS: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Where a toolchain is on this machine, links followed; `None` if it is in none of [`TOOLCHAIN_FOLDERS`].
pub fn find_toolchain(name: &str) -> Option<PathBuf> {
    TOOLCHAIN_FOLDERS.iter().find_map(|folder| std::fs::canonicalize(Path::new(folder).join(name)).ok())
}

/// The digests of toolchains as they were when they were last read. A file is read again when what the system tells of
/// it has changed, and no content can change without that.
#[derive(Debug, Default)]
pub(super) struct Toolchains {
    seen: Mutex<BTreeMap<PathBuf, (Stamp, Digest)>>,
}

/// Device, inode, size, and the times of its last change of content and of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        let (changed, touched) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
        Stamp(file.dev(), file.ino(), file.size(), changed, touched)
    }
}

impl Toolchains {
    /// Where a toolchain is, and the digest of its program.
    pub(super) fn get(&self, name: &str) -> Option<(String, Digest)> {
        let found = find_toolchain(name)?;
        let digest = self.digest(&found).ok()?;
        Some((found.to_str()?.to_owned(), digest))
    }

    fn digest(&self, path: &Path) -> io::Result<Digest> {
        let mut file = File::open(path)?;
        // Before it is read: what changes meanwhile is read again next time.
        let stamp = Stamp::of(&file.metadata()?);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, digest)) = seen.get(path)
            && *known == stamp
        {
            return Ok(*digest);
        }
        let mut program = Vec::new();
        file.read_to_end(&mut program)?;
        let digest = Digest(*blake3::hash(&program).as_bytes());
        seen.insert(path.to_owned(), (stamp, digest));
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_read_again_only_when_it_has_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("python3");
        let digest = |bytes: &[u8]| Digest(*blake3::hash(bytes).as_bytes());
        std::fs::write(&path, "one").expect("a file");
        let toolchains = Toolchains::default();
        assert_eq!(toolchains.digest(&path).expect("it reads"), digest(b"one"));
        // What only a reader who believes the stamp says.
        let marked = digest(b"not read");
        toolchains.seen.lock().expect("ours").get_mut(&path).expect("it was seen").1 = marked;
        assert_eq!(toolchains.digest(&path).expect("it is known"), marked);
        // As an update does it: another file under the same name; and as an editor does, in place.
        std::fs::write(dir.path().join("new"), "two").expect("a file");
        std::fs::rename(dir.path().join("new"), &path).expect("ours");
        assert_eq!(toolchains.digest(&path).expect("it reads"), digest(b"two"));
        std::fs::write(&path, "three").expect("a file");
        assert_eq!(toolchains.digest(&path).expect("it reads"), digest(b"three"));
        std::fs::remove_file(&path).expect("ours");
        assert!(toolchains.digest(&path).is_err());
    }
}
