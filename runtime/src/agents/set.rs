//! An agent file and every file that its spawn steps reach, read in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use toka_kernel::capability::Capability;

use toka_tools::files::yaml::Place;
use toka_tools::files::{FileCode, FileError, file_error, nearest, quote};

use super::file::{AgentFile, read};
use super::limits::{FILE_BYTES_MAX, FILES_MAX};
use super::spec::{Agent, AgentSpec};

/// An agent and all agents that it can reach, none of them with an error.
#[derive(Clone, Debug)]
pub struct AgentSet {
    /// The agents that nobody of the set spawns, the one whose file was named first.
    tops: Vec<String>,
    agents: BTreeMap<String, Arc<Agent>>,
    warnings: Vec<FileError>,
}

/// The files of one folder.
trait Folder {
    /// The bytes of a file, at most [`FILE_BYTES_MAX`] and one more; `None` when there is no such file.
    fn bytes(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// What the errors call the file.
    fn shown(&self, name: &str) -> String;
    /// The names in the folder, for hints.
    fn names(&self) -> Vec<String>;
}

impl AgentSet {
    /// Reads an agent file and, from the same folder, `NAME.yaml` or `NAME.agent.yaml` for each agent NAME that a
    /// spawn step names. Nothing is followed out of the folder: no links, no other folders.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn load(path: &Path) -> Result<AgentSet, Vec<FileError>> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let top = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let given = match parent {
            Some(parent) => format!("{}/", parent.display()),
            None => String::new(),
        };
        gather(&OnDisk { path: parent.unwrap_or(Path::new(".")), given }, &top)
    }

    /// Reads every agent file of a folder, and what their spawn steps reach. A `.yaml` file that says it is of another
    /// kind is passed over, and so is a `.tool.yaml`.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files. A folder without an agent file is wrong.
    pub fn load_folder(path: &Path) -> Result<AgentSet, Vec<FileError>> {
        let folder = OnDisk { path, given: format!("{}/", path.display()) };
        let wrong = |message: String, hint: &str| {
            vec![file_error(&path.display().to_string(), Place::START, FileCode::Unreadable, message, hint)]
        };
        if let Err(error) = fs::read_dir(path) {
            return Err(wrong(format!("the folder cannot be read: {error}"), "name a folder with agent files"));
        }
        let (mut loaded, mut errors): (BTreeMap<String, Loaded>, Vec<FileError>) = (BTreeMap::new(), Vec::new());
        for name in folder.names().iter().filter(|name| name.ends_with(".yaml") && !name.ends_with(".tool.yaml")) {
            let shown = folder.shown(name);
            let bytes = match folder.bytes(name) {
                Ok(Some(bytes)) if is_of_another_kind(&bytes) => continue,
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error) => {
                    errors.push(unreadable(&shown, &error));
                    continue;
                }
            };
            match read(&shown, &bytes) {
                Ok(file) if loaded.contains_key(&file.agent.name) => {
                    let message = format!("the agent {} has two files", quote(&file.agent.name));
                    let hint = format!("{} names it, too: rename one of them", loaded[&file.agent.name].shown);
                    errors.push(file_error(&shown, file.name_place, FileCode::DuplicateId, message, hint));
                }
                Ok(file) => drop(loaded.insert(file.agent.name.clone(), Loaded { shown, file })),
                Err(wrong) => errors.extend(wrong),
            }
        }
        if loaded.is_empty() && errors.is_empty() {
            return Err(wrong(
                "there is no agent file in this folder".to_owned(),
                "an agent file is a `.yaml` with `kind: Agent`",
            ));
        }
        // One that another spawns runs below it.
        let spawned: BTreeSet<String> =
            loaded.values().flat_map(|one| &one.file.spawnings).map(|spawning| spawning.spec.clone()).collect();
        let tops = loaded.keys().filter(|name| !spawned.contains(*name)).cloned().collect();
        complete(&folder, loaded, errors, tops)
    }

    /// The same over files in memory, by name.
    ///
    /// # Errors
    /// As [`AgentSet::load`].
    pub fn from_files(top: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<AgentSet, Vec<FileError>> {
        gather(files, top)
    }

    /// The spec of the agent whose file was named.
    pub fn top(&self) -> AgentSpec {
        // Invariant: a set holds the top agent and all that is reachable from it.
        self.get(&self.tops[0]).expect("a set without its top agent")
    }

    /// The specs of all agents of a folder that no other one spawns, by name.
    pub fn tops(&self) -> Vec<AgentSpec> {
        self.tops.iter().filter_map(|name| self.get(name)).collect()
    }

    /// The spec of an agent of the set.
    pub fn get(&self, name: &str) -> Option<AgentSpec> {
        AgentSpec::of(name, &self.agents)
    }

    /// The names of all agents of the set, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }

    /// What is allowed and looks like a mistake.
    pub fn warnings(&self) -> &[FileError] {
        &self.warnings
    }
}

/// A file that was read, or could not be.
struct Loaded {
    shown: String,
    file: AgentFile,
}

fn gather(folder: &dyn Folder, top: &str) -> Result<AgentSet, Vec<FileError>> {
    let mut loaded: BTreeMap<String, Loaded> = BTreeMap::new();
    let shown = folder.shown(top);
    let file = match folder.bytes(top) {
        Ok(Some(bytes)) => read(&shown, &bytes)?,
        Ok(None) => {
            let hint = "name an agent file that exists";
            return Err(vec![file_error(&shown, Place::START, FileCode::Unreadable, "there is no such file", hint)]);
        }
        Err(error) => return Err(vec![unreadable(&shown, &error)]),
    };
    let top = file.agent.name.clone();
    loaded.insert(top.clone(), Loaded { shown, file });
    complete(folder, loaded, Vec::new(), vec![top])
}

/// Reads what the agents that are loaded can reach by their spawn steps.
fn complete(
    folder: &dyn Folder,
    mut loaded: BTreeMap<String, Loaded>,
    mut errors: Vec<FileError>,
    tops: Vec<String>,
) -> Result<AgentSet, Vec<FileError>> {
    let mut open: Vec<String> = loaded.keys().cloned().collect();
    let mut tried: BTreeSet<String> = loaded.keys().cloned().collect();
    let known = loaded.len();
    while let Some(name) = open.pop() {
        let Some(parent) = loaded.get(&name) else { continue };
        let mut found = Vec::new();
        for spawning in &parent.file.spawnings {
            if !tried.insert(spawning.spec.clone()) {
                continue;
            }
            if tried.len() > known.max(1) - 1 + FILES_MAX {
                let message = format!("more than {FILES_MAX} agents can be reached");
                let hint = "let fewer agents spawn each other";
                errors.push(file_error(&parent.shown, spawning.place, FileCode::TooMany, message, hint));
                errors.sort_by(by_place);
                return Err(errors);
            }
            match sibling(folder, &parent.shown, &spawning.spec, spawning.place) {
                Ok(child) => found.push((spawning.spec.clone(), child)),
                Err(mut wrong) => errors.append(&mut wrong),
            }
        }
        for (name, child) in found.into_iter().rev() {
            open.push(name.clone());
            loaded.insert(name, child);
        }
    }
    if !errors.is_empty() {
        errors.sort_by(by_place);
        return Err(errors);
    }
    let warnings = warnings(&loaded);
    let agents = loaded.into_iter().map(|(name, loaded)| (name, Arc::new(loaded.file.agent))).collect();
    Ok(AgentSet { tops, agents, warnings })
}

/// The file of an agent that a step at `place` spawns.
fn sibling(folder: &dyn Folder, parent: &str, name: &str, place: Place) -> Result<Loaded, Vec<FileError>> {
    let mut found = None;
    for file in [format!("{name}.yaml"), format!("{name}.agent.yaml")] {
        let shown = folder.shown(&file);
        match folder.bytes(&file) {
            Ok(None) => {}
            Ok(Some(_)) if found.is_some() => {
                let message = format!("the agent {} has two files beside this one", quote(name));
                let hint = format!("keep `{name}.yaml` or `{name}.agent.yaml`");
                return Err(vec![file_error(parent, place, FileCode::UnknownAgent, message, hint)]);
            }
            Ok(Some(bytes)) => found = Some((shown, bytes)),
            Err(error) => return Err(vec![unreadable(&shown, &error)]),
        }
    }
    let Some((shown, bytes)) = found else {
        let names = folder.names();
        let known = names.iter().filter_map(|file| file.strip_suffix(".yaml"));
        let known: Vec<&str> = known.map(|name| name.strip_suffix(".agent").unwrap_or(name)).collect();
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean {}? Else add `{name}.yaml` beside this file", quote(near)),
            None => format!("add `{name}.yaml` beside this file"),
        };
        let message = format!("there is no file for the agent {}", quote(name));
        return Err(vec![file_error(parent, place, FileCode::UnknownAgent, message, hint)]);
    };
    let file = read(&shown, &bytes)?;
    if file.agent.name != name {
        let message = format!("this file is read for the agent {} and names {}", quote(name), quote(&file.agent.name));
        let hint = format!("write `name: {name}`, or rename the file");
        return Err(vec![file_error(&shown, file.name_place, FileCode::NameMismatch, message, hint)]);
    }
    Ok(Loaded { shown, file })
}

fn warnings(loaded: &BTreeMap<String, Loaded>) -> Vec<FileError> {
    let mut warnings = Vec::new();
    for (name, Loaded { shown, file }) in loaded {
        for (pattern, place) in &file.unused_tools {
            let message = format!("no step calls a tool that {} matches", quote(pattern));
            warnings.push(file_error(shown, *place, FileCode::ToolUnused, message, "leave it out"));
        }
        for spawning in &file.spawnings {
            if reaches(loaded, &spawning.spec, name) {
                let message = format!("{} can spawn {} again", quote(&spawning.spec), quote(name));
                let hint = "make sure that a `when` ends it; the depth of agents is bounded";
                warnings.push(file_error(shown, spawning.place, FileCode::SpawnCycle, message, hint));
            }
            for (grant, place) in &spawning.grants {
                if !file.requests.iter().any(|request| may_cover(request, grant)) {
                    let message = format!("no capability that the agent requests covers {}", quote(&grant.to_string()));
                    let hint = "request it in `spec.capabilities`, or narrow the grant";
                    warnings.push(file_error(shown, *place, FileCode::GrantNotCovered, message, hint));
                }
            }
        }
    }
    warnings.sort_by(by_place);
    warnings
}

/// Whether a grant made from the request could be handed on so. The kernel decides on what is really granted.
fn may_cover(request: &Capability, grant: &Capability) -> bool {
    let mut filled = grant.clone();
    filled.fill_from(request);
    // Depth is not compared: whoever runs the file gives each grant the depth that the tree of agents takes.
    filled.attenuates(request).is_ok()
}

/// Whether spawning can lead from one agent to another.
fn reaches(loaded: &BTreeMap<String, Loaded>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        let children = loaded.get(name).map(|loaded| loaded.file.spawnings.as_slice()).unwrap_or_default();
        open.extend(children.iter().map(|child| child.spec.as_str()).filter(|child| seen.insert(child)));
    }
    false
}

fn by_place(a: &FileError, b: &FileError) -> std::cmp::Ordering {
    (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column))
}

fn unreadable(shown: &str, error: &io::Error) -> FileError {
    let message = format!("the file cannot be read: {error}");
    let hint = "name a regular file that may be read, not a link";
    file_error(shown, Place::START, FileCode::Unreadable, message, hint)
}

/// Whether a file says in a line of its own that it is of another kind than an agent.
fn is_of_another_kind(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(|line| line.strip_prefix("kind:")).any(|kind| kind.trim() != "Agent")
}

struct OnDisk<'p> {
    path: &'p Path,
    /// What the caller wrote before the name of the file.
    given: String,
}

impl Folder for OnDisk<'_> {
    fn bytes(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let seen = match fs::symlink_metadata(&path) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !seen.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = File::open(&path)?;
        let opened = file.metadata()?;
        if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn shown(&self, name: &str) -> String {
        [&self.given, name].concat()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path).into_iter().flatten().flatten().take(1_000);
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

impl Folder for BTreeMap<String, Vec<u8>> {
    fn bytes(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.get(name).cloned())
    }

    fn shown(&self, name: &str) -> String {
        name.to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
