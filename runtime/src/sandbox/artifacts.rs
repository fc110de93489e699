//! Files that a program leaves in its workspace and that are kept: taken when nothing of the jail lives any more, by
//! descriptor, beneath the workspace, through no link. What was asked for and is not kept is told with its reason.
//!
//! They lie in the execution record, one blob of the entry that ends the call, as `artifacts`: a list of
//! `{artifact, path, bytes, blake3, content}` by the bytes of their paths, and `dropped`: a list of `{path, why}`. A path
//! that is no UTF-8 stands in `path_base64`; `content` is base64.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::{Value, json};
use toka_kernel::tool::Artifact;
use toka_tools::ARTIFACTS_BYTES_MAX;

use super::redact::Forms;

/// How deep a file may lie.
const DEPTH_MAX: usize = 64;
/// Names that are looked at in all.
const ENTRIES_MAX: usize = 10_000;
/// Bits of a mode that give a file the rights of another.
const SET_ID: u32 = 0o6000;

/// What was found in a workspace.
#[derive(Debug, Default)]
pub(super) struct Collected {
    kept: Vec<KeptFile>,
    dropped: Vec<(Vec<u8>, &'static str)>,
    /// Whether something was more than the manifest says.
    pub(super) over: bool,
    /// The first artifact that must be there and is not.
    pub(super) missing: Option<String>,
}

/// A file that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// The artifact of the manifest that it belongs to.
    pub artifact: String,
    /// Its path below the workspace; any bytes but NUL.
    pub path: Vec<u8>,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Takes what `declared` says out of a workspace in which nobody changes anything any more.
pub(super) fn collect(
    workspace: BorrowedFd<'_>,
    declared: &[Artifact],
    forms: Option<&std::sync::Arc<Forms>>,
) -> Collected {
    let mut search = Search { globs: declared.iter().map(Glob::of).collect(), ..Search::default() };
    let mut collected = Collected::default();
    match search.folder(workspace, &mut Vec::new()) {
        Ok(()) => {
            search.found.sort();
            collected.take_all(workspace, declared, forms, search.found);
        }
        // The order of names in a folder is nobody's, so of too many none is kept.
        Err(TooMany) => {
            collected.dropped.push((b".".to_vec(), "too-many-entries"));
            collected.over = true;
        }
    }
    collected.dropped.extend(search.dropped);
    collected.dropped.sort();
    let is_kept = |artifact: &&Artifact| collected.kept.iter().any(|file| file.artifact == artifact.name);
    let missing = declared.iter().find(|artifact| artifact.required && !is_kept(artifact));
    collected.missing = missing.map(|artifact| artifact.name.clone());
    if let Some(forms) = forms {
        collected.dropped.iter_mut().for_each(|(path, _)| *path = forms.redacted(path));
    }
    collected
}

impl Collected {
    /// Bytes of the files, each in whole grains.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.iter().map(|file| crate::executor::grains(file.bytes.len())).sum()
    }

    /// Writes it into the record of the call.
    pub(super) fn tell(&self, record: &mut Value) {
        let kept = self.kept.iter().map(|file| {
            let mut item = path_of(&file.path);
            item["artifact"] = json!(file.artifact);
            item["bytes"] = json!(file.bytes.len());
            item["blake3"] = json!(blake3::hash(&file.bytes).to_hex().as_str());
            item["content"] = json!(STANDARD.encode(&file.bytes));
            item
        });
        record["artifacts"] = kept.collect();
        let dropped = self.dropped.iter().map(|(path, why)| {
            let mut item = path_of(path);
            item["why"] = json!(why);
            item
        });
        record["dropped"] = dropped.collect();
    }

    fn take_all(
        &mut self,
        workspace: BorrowedFd<'_>,
        declared: &[Artifact],
        forms: Option<&std::sync::Arc<Forms>>,
        found: Vec<(Vec<u8>, usize)>,
    ) {
        // Files and bytes of each artifact so far.
        let mut used: BTreeMap<usize, (u32, u64)> = BTreeMap::new();
        let mut all = 0;
        for (path, index) in found {
            let Some(artifact) = declared.get(index) else { continue };
            let (files, bytes) = used.entry(index).or_default();
            if *files == artifact.max_files {
                self.drop_over(path, "too-many");
                continue;
            }
            let most = (artifact.max_bytes - *bytes).min(ARTIFACTS_BYTES_MAX - all);
            match take(workspace, &path, most) {
                Ok(content) => {
                    *files += 1;
                    *bytes += content.len() as u64;
                    all += content.len() as u64;
                    let content = forms.map_or_else(|| content.clone(), |forms| forms.redacted(&content));
                    if forms.is_some_and(|forms| forms.redacted(&path) != path) {
                        self.dropped.push((path, "secret-in-name"));
                        continue;
                    }
                    self.kept.push(KeptFile { artifact: artifact.name.clone(), path, bytes: content });
                }
                Err("too-large") => self.drop_over(path, "too-large"),
                Err(why) => self.dropped.push((path, why)),
            }
        }
    }

    fn drop_over(&mut self, path: Vec<u8>, why: &'static str) {
        self.over = true;
        self.dropped.push((path, why));
    }
}

/// A path as JSON.
fn path_of(path: &[u8]) -> Value {
    match std::str::from_utf8(path) {
        Ok(path) => json!({ "path": path }),
        Err(_) => json!({ "path_base64": STANDARD.encode(path) }),
    }
}

/// Reads one file of at most `most` bytes, or says why it is not kept. What a name said before is looked at again on
/// what was opened.
fn take(workspace: BorrowedFd<'_>, path: &[u8], most: u64) -> Result<Vec<u8>, &'static str> {
    let file = open(workspace, path, OFlags::NONBLOCK | OFlags::NOCTTY).map_err(|errno| match errno {
        Errno::LOOP => "link",
        Errno::XDEV => "mount",
        Errno::NAMETOOLONG => "too-deep",
        Errno::NOENT => "gone",
        Errno::NXIO | Errno::NODEV | Errno::ISDIR => "not-regular",
        _ => "unreadable",
    })?;
    let stat = rustix::fs::fstat(&file).map_err(|_| "unreadable")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not-regular");
    }
    if stat.st_nlink != 1 {
        return Err("several-names");
    }
    if stat.st_mode & SET_ID != 0 {
        return Err("set-id");
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > most {
        return Err("too-large");
    }
    let mut content = Vec::new();
    File::from(file).take(most + 1).read_to_end(&mut content).map_err(|_| "unreadable")?;
    if content.len() as u64 > most { Err("too-large") } else { Ok(content) }
}

fn open(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve))
}

/// More than [`ENTRIES_MAX`] names.
struct TooMany;

/// A walk through what the globs can reach.
#[derive(Default)]
struct Search {
    globs: Vec<Glob>,
    entries: usize,
    /// Paths of files, each with the first artifact that names it.
    found: Vec<(Vec<u8>, usize)>,
    dropped: Vec<(Vec<u8>, &'static str)>,
}

impl Search {
    /// Looks at what is in a folder, whose path is `above`.
    fn folder(&mut self, folder: BorrowedFd<'_>, above: &mut Vec<Vec<u8>>) -> Result<(), TooMany> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                self.entries += 1;
                names.push(name.to_vec());
            }
            if self.entries > ENTRIES_MAX {
                return Err(TooMany);
            }
        }
        for name in names {
            above.push(name);
            let entered = self.name(folder, above);
            above.pop();
            entered?;
        }
        Ok(())
    }

    /// Looks at one name, the last of `path`.
    fn name(&mut self, folder: BorrowedFd<'_>, path: &mut Vec<Vec<u8>>) -> Result<(), TooMany> {
        let Some(name) = path.last() else { return Ok(()) };
        let artifact = self.globs.iter().position(|glob| glob.is(path));
        let leads_on = self.globs.iter().any(|glob| glob.is_below(path));
        if artifact.is_none() && !leads_on {
            return Ok(());
        }
        let stat = rustix::fs::statat(folder, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        let joined = path.join(&b'/');
        match (kind, artifact) {
            (Ok(FileType::Directory), _) if !leads_on => {}
            (Ok(FileType::Directory), _) if path.len() == DEPTH_MAX => self.dropped.push((joined, "too-deep")),
            (Ok(FileType::Directory), _) => match open(folder, name, OFlags::DIRECTORY) {
                Ok(below) => self.folder(below.as_fd(), path)?,
                Err(Errno::XDEV) => self.dropped.push((joined, "mount")),
                Err(_) => self.dropped.push((joined, "unreadable")),
            },
            (Ok(FileType::Symlink), _) => self.dropped.push((joined, "link")),
            (Ok(_), Some(artifact)) => self.found.push((joined, artifact)),
            (Ok(_), None) => {}
            (Err(_), _) => self.dropped.push((joined, "unreadable")),
        }
        Ok(())
    }
}

/// Which paths an artifact names.
#[derive(Debug)]
struct Glob {
    /// Segments, in which `*` stands for any bytes.
    segments: Vec<Vec<u8>>,
    /// Whether everything below them is named as well.
    deep: bool,
}

impl Glob {
    fn of(artifact: &Artifact) -> Glob {
        let mut segments: Vec<Vec<u8>> = artifact.path.split('/').map(|part| part.as_bytes().to_vec()).collect();
        let deep = segments.last().is_some_and(|last| last == b"**");
        if deep {
            segments.pop();
        }
        Glob { segments, deep }
    }

    /// Whether it names this path.
    fn is(&self, path: &[Vec<u8>]) -> bool {
        let lengths = if self.deep { path.len() > self.segments.len() } else { path.len() == self.segments.len() };
        lengths && self.agrees(path)
    }

    /// Whether it names something below this path.
    fn is_below(&self, path: &[Vec<u8>]) -> bool {
        (self.deep || path.len() < self.segments.len()) && self.agrees(path)
    }

    fn agrees(&self, path: &[Vec<u8>]) -> bool {
        self.segments.iter().zip(path).all(|(pattern, name)| matches(pattern, name))
    }
}

/// Whether a name is of this pattern. The last `*` that could be longer is tried longer, so this ends soon.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The files that the record of a call holds. Empty for a call that keeps none, and for what is no such record.
pub fn kept_files(record: &Value) -> Vec<KeptFile> {
    let items = record["artifacts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let file = |item: &Value| {
        let path = match item["path"].as_str() {
            Some(path) => path.as_bytes().to_vec(),
            None => STANDARD.decode(item["path_base64"].as_str()?).ok()?,
        };
        let bytes = STANDARD.decode(item["content"].as_str()?).ok()?;
        Some(KeptFile { artifact: item["artifact"].as_str()?.to_owned(), path, bytes })
    };
    items.iter().filter_map(file).collect()
}

/// The record without the content of files, for people and machines that want to know what there is.
pub fn without_content(mut record: Value) -> Value {
    for item in record.get_mut("artifacts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            item.remove("content");
        }
    }
    record
}

/// Makes a folder into which files can be written, unless it is there, and opens it.
///
/// # Errors
/// Where it cannot be made, is no folder, or may not be written.
pub fn make_folder(dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let top = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::accessat(&top, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(top)
}

/// Writes files below `dir`, which is made where it is missing, as `ARTIFACT/PATH`. Nothing that is there is changed, no
/// link is followed, and a path that leads out of `dir` is refused. How many were written.
///
/// # Errors
/// The first thing that cannot be made; what was written before stays.
pub fn write_files(dir: &Path, files: &[KeptFile]) -> io::Result<usize> {
    let top = make_folder(dir)?;
    for file in files {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the record names a path that is none");
        let mut names: Vec<&[u8]> = file.path.split(|byte| *byte == b'/').collect();
        names.insert(0, file.artifact.as_bytes());
        if names.iter().any(|name| matches!(*name, b"" | b"." | b"..") || name.contains(&0)) {
            return Err(invalid());
        }
        let last = names.pop().ok_or_else(invalid)?;
        let mut folder = top.try_clone()?;
        for name in names {
            match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = open(folder.as_fd(), name, OFlags::DIRECTORY)?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&folder, last, flags, Mode::from_raw_mode(0o666))?;
        File::from(made).write_all(&file.bytes)?;
    }
    Ok(files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(path: &str) -> Glob {
        let path = path.to_owned();
        Glob::of(&Artifact { name: "a".to_owned(), path, max_bytes: 1, max_files: 1, required: false })
    }

    fn segments(path: &str) -> Vec<Vec<u8>> {
        path.split('/').map(|part| part.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_glob_names_what_it_says_and_nothing_else() {
        for (pattern, path, names, leads) in [
            ("a", "a", true, false),
            ("a", "b", false, false),
            ("a/b", "a", false, true),
            ("a/b", "a/b", true, false),
            ("a/*.txt", "a/x.txt", true, false),
            ("a/*.txt", "a/.txt", true, false),
            ("a/*.txt", "a/x.txt.gz", false, false),
            ("a/*.txt", "a/b/x.txt", false, false),
            ("*a*b*", "xaxbx", true, false),
            ("*a*b*", "xbxax", false, false),
            ("**", "a/b", true, true),
            ("a/**", "a", false, true),
            ("a/**", "a/b/c", true, true),
            ("a/**", "b/c", false, false),
        ] {
            let (glob, path_of) = (glob(pattern), segments(path));
            assert_eq!((glob.is(&path_of), glob.is_below(&path_of)), (names, leads), "{pattern} {path}");
        }
    }

    #[test]
    fn a_record_that_was_made_up_writes_nothing_outside() {
        let dir = std::env::temp_dir().join(format!("toka-artifacts-{}", std::process::id()));
        let file =
            |path: &str| KeptFile { artifact: "a".to_owned(), path: path.as_bytes().to_vec(), bytes: b"x".into() };
        for path in ["../x", "/x", "a//x", "./x", "", "x\0"] {
            assert!(write_files(&dir, &[file(path)]).is_err(), "{path:?}");
        }
        assert!(!dir.join("x").exists() && !dir.with_file_name("x").exists());
        assert_eq!(write_files(&dir, &[file("b/x\ny")]).expect("writes"), 1);
        assert_eq!(std::fs::read(dir.join("a/b/x\ny")).expect("reads"), b"x");
        let again = write_files(&dir, &[file("b/x\ny")]).expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir_all(&dir).expect("removes");
    }
}
