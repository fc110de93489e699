//! `toka sessions`: what the store holds.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toka_kernel::ids::{PrincipalId, SessionId};
use toka_kernel::{Body, CLASS_SYSTEM, Entry, State};
use toka_projections::{AgentRow, Views};
use toka_store::bundle::WriteError;
use toka_store::{MemoryLog, ReadLog, SqliteReader};

use super::failure::{Failure, exit};
use super::print::{instant, table, talk};

#[derive(Debug, Args)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List sessions, newest last
    List {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Show what happened in a session, entry by entry
    Show {
        /// The session id, or as much of it as is unique
        session: String,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Write a session to a bundle file that anybody can verify offline
    Export {
        /// The session id, or as much of it as is unique
        session: String,
        /// The file to write [default: SESSION.tkb]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(sessions: Sessions, home: Option<PathBuf>) -> Result<u8, Failure> {
    let home = super::init::home_dir(home)?;
    match sessions.verb {
        Verb::List { json } => list(&home, json),
        Verb::Show { session, json } => show(&home, &session, json),
        Verb::Export { session, output, force, json } => export(&home, &session, output, force, json),
    }
}

/// One session, folded.
struct Folded {
    session: SessionId,
    opener: PrincipalId,
    opened_us: u64,
    closed: bool,
    is_system: bool,
    entries: u64,
    views: Views,
}

impl Folded {
    /// Folds a session of a store. This is reading, not verifying.
    fn read(log: &dyn ReadLog, session: SessionId) -> Result<Folded, Failure> {
        let mut folded = Folded {
            session,
            opener: PrincipalId::NODE,
            opened_us: 0,
            closed: false,
            is_system: false,
            entries: 0,
            views: Views::default(),
        };
        let mut state = State::new();
        for row in log.read(session, 0) {
            let row = row?;
            let damaged = |what: String| {
                Failure::new(exit::UNREADABLE, format!("session {}, entry {}: {what}", session.short(), row.seq))
                    .hint("`toka replay verify` says what is wrong with it")
            };
            let entry = Entry::read(&row.bytes).map_err(|fault| damaged(fault.to_string()))?;
            let effects = state.apply(&entry).map_err(|illegal| damaged(illegal.to_string()))?;
            if let Ok(Body::SessionOpened(genesis)) = entry.event().map(|event| &event.body) {
                folded.opener = genesis.opener;
                folded.is_system = genesis.class == CLASS_SYSTEM;
                folded.opened_us = entry.header().time_us;
            }
            folded.entries += 1;
            folded.views.fold(&entry, &effects);
        }
        folded.closed = state.is_closed();
        Ok(folded)
    }

    fn top(&self) -> Option<&AgentRow> {
        self.views.agents.iter().map(|(_, row)| row).find(|row| row.parent == self.opener)
    }

    fn status(&self) -> &'static str {
        if self.is_system {
            return "system";
        }
        match (self.closed, self.top().and_then(|top| top.ended)) {
            (true, Some((1, _))) => "completed",
            (true, _) => "failed",
            (false, _) => "interrupted",
        }
    }

    fn refusals(&self) -> usize {
        self.views.timeline.iter().filter(|moment| moment.kind == "Refused").count()
    }

    fn json(&self) -> Value {
        json!({
            "session": self.session.to_string(),
            "agent": self.top().map(|top| top.name.clone()),
            "status": self.status(),
            "opened_us": self.opened_us,
            "entries": self.entries,
            "calls": self.views.calls.iter().count(),
            "refused": self.refusals(),
        })
    }
}

fn list(home: &Path, as_json: bool) -> Result<u8, Failure> {
    let store = open(home)?;
    let (mut sessions, mut damaged) = (Vec::new(), Vec::new());
    for row in store.sessions(None) {
        let session = row?.session;
        match Folded::read(store.as_ref(), session) {
            Ok(folded) => sessions.push(folded),
            Err(failure) => damaged.push((session, failure)),
        }
    }
    for (_, failure) in &damaged {
        failure.report();
    }
    let code = if damaged.is_empty() { exit::OK } else { exit::UNREADABLE };
    sessions.sort_by_key(|session| (session.opened_us, session.session));
    let whole = sessions.iter().map(|session| session.session);
    let ids: Vec<SessionId> = whole.chain(damaged.iter().map(|(session, _)| *session)).collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut items: Vec<Value> = sessions.iter().map(Folded::json).collect();
        items.extend(damaged.iter().map(|(session, _)| json!({ "session": session.to_string(), "status": "damaged" })));
        writeln!(out, "{}", json!({ "schema": "toka/sessions/1", "sessions": items }))?;
        return Ok(code);
    }
    if ids.is_empty() {
        talk("no session yet; `toka run AGENT.yaml` makes one");
        return Ok(exit::OK);
    }
    let mut rows =
        vec![["SESSION", "OPENED", "AGENT", "STATUS", "ENTRIES", "CALLS", "REFUSED"].map(str::to_owned).to_vec()];
    for session in &sessions {
        rows.push(vec![
            shortest(&ids, session.session),
            instant(session.opened_us),
            session.top().map_or_else(|| "-".to_owned(), |top| top.name.clone()),
            session.status().to_owned(),
            session.entries.to_string(),
            session.views.calls.iter().count().to_string(),
            session.refusals().to_string(),
        ]);
    }
    for (session, _) in &damaged {
        let mut row = vec!["-".to_owned(); rows[0].len()];
        row[0] = shortest(&ids, *session);
        row[3] = "damaged".to_owned();
        rows.push(row);
    }
    write!(out, "{}", table(&rows))?;
    Ok(code)
}

fn show(home: &Path, session: &str, as_json: bool) -> Result<u8, Failure> {
    let store = open(home)?;
    let folded = Folded::read(store.as_ref(), find(store.as_ref(), session)?)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let moments: Vec<Value> = folded
            .views
            .timeline
            .iter()
            .map(|moment| {
                json!({
                    "seq": moment.seq, "time_us": moment.time_us, "kind": moment.kind,
                    "who": moment.who, "what": moment.what,
                })
            })
            .collect();
        let grants: Vec<Value> = folded
            .views
            .grants
            .iter()
            .map(|grant| {
                json!({
                    "grant": grant.id.to_string(), "parent": grant.parent.map(|id| id.to_string()),
                    "holder": folded.views.timeline.name(grant.subject), "capability": grant.cap.to_string(),
                    "issued_at": grant.issued_at, "revoked_at": grant.revoked_at,
                })
            })
            .collect();
        let mut document = folded.json();
        document["schema"] = json!("toka/session/1");
        document["timeline"] = json!(moments);
        document["grants"] = json!(grants);
        writeln!(out, "{document}")?;
        return Ok(exit::OK);
    }
    writeln!(out, "session {}  {}  opened {}", folded.session, folded.status(), instant(folded.opened_us))?;
    let rows: Vec<Vec<String>> = folded
        .views
        .timeline
        .iter()
        .map(|moment| {
            vec![format!("{:>5}", moment.seq), moment.kind.to_owned(), moment.who.clone(), moment.what.clone()]
        })
        .collect();
    write!(out, "{}", table(&rows))?;
    Ok(exit::OK)
}

fn export(home: &Path, session: &str, output: Option<PathBuf>, force: bool, as_json: bool) -> Result<u8, Failure> {
    let store = open(home)?;
    let session = find(store.as_ref(), session)?;
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{}.tkb", session.short())));
    let bytes = write(store.as_ref(), session, home, &output, force)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let file = output.display().to_string();
        let document =
            json!({ "schema": "toka/export/1", "session": session.to_string(), "file": file, "bytes": bytes });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}", output.display())?;
        talk(&format!("{bytes} bytes; verify it anywhere: toka-replay verify {} --root root.pub", output.display()));
    }
    Ok(exit::OK)
}

/// Writes the bundle under another name first: whoever finds the file finds all of it. Returns its length.
fn write(store: &dyn ReadLog, session: SessionId, home: &Path, output: &Path, force: bool) -> Result<u64, Failure> {
    let named = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Failure::new(exit::FAILURE, format!("{}: there is a file of this name already", output.display()))
                .hint("name another file with -o, or write over it with --force");
        }
        Failure::new(exit::FAILURE, format!("{}: {error}", output.display()))
    };
    let there = fs::canonicalize(output).ok();
    if let Some(there) = &there {
        if !force {
            return Err(named(std::io::ErrorKind::AlreadyExists.into()));
        }
        if there.starts_with(fs::canonicalize(home)?) {
            let what = format!("{}: this file lies in the node's own folder and is not written over", output.display());
            return Err(Failure::new(exit::FAILURE, what).hint("name another file with -o"));
        }
    }
    let whole = |out: &mut dyn Write| {
        toka_store::bundle::write_bundle(store, &[session], out).map_err(|error| match error {
            WriteError::Read(error) => Failure::from(error),
            error @ WriteError::Frame { .. } => Failure::new(exit::UNREADABLE, error.to_string())
                .hint("`toka replay verify` says what is wrong with the store and where"),
            error @ (WriteError::Io(_)
            | WriteError::NoSession(_)
            | WriteError::Order(_)
            | WriteError::Changed(_)
            | WriteError::Limit { .. }) => Failure::new(exit::FAILURE, format!("{}: {error}", output.display())),
        })
    };
    let target = there.unwrap_or_else(|| output.to_owned());
    if target.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        // A pipe or a device is written to; nothing can take its name.
        let mut file = fs::File::options().write(true).open(&target).map_err(named)?;
        return Ok(whole(&mut file)?.bytes);
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::new(
            exit::FAILURE,
            format!("{}: there is no folder {}", output.display(), folder.display()),
        ));
    }
    let mut file = tempfile::Builder::new()
        .prefix(".toka-export-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(named)?;
    let bytes = whole(&mut file)?.bytes;
    file.as_file().sync_all().map_err(named)?;
    let done = if force { file.persist(&target) } else { file.persist_noclobber(&target) };
    done.map_err(|error| named(error.error))?;
    Ok(bytes)
}

fn open(home: &Path) -> Result<Box<dyn ReadLog>, Failure> {
    let path = home.join("toka.sqlite");
    if path.exists() {
        let store = SqliteReader::open(&path);
        return Ok(Box::new(store.map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))?));
    }
    // The first run makes the store.
    if home.join("node.json").exists() {
        return Ok(Box::new(MemoryLog::new()));
    }
    Err(Failure::new(exit::UNREADABLE, format!("there is no store at {}", path.display()))
        .hint("`toka init` makes the node's folder; --home names another"))
}

/// The session that `prefix` names.
pub(crate) fn find(log: &dyn ReadLog, prefix: &str) -> Result<SessionId, Failure> {
    let mut found = Vec::new();
    for row in log.sessions(None) {
        let session = row?.session;
        if session.to_string().starts_with(&prefix.to_ascii_lowercase()) {
            found.push(session);
        }
    }
    match found.as_slice() {
        [one] if !prefix.is_empty() => Ok(*one),
        [] => Err(Failure::new(exit::USAGE, format!("no session begins with `{prefix}`"))
            .hint("`toka sessions list` shows them")),
        many => {
            let names: Vec<String> = many.iter().take(8).map(|id| shortest(many, *id)).collect();
            Err(Failure::new(exit::USAGE, format!("`{prefix}` is not the beginning of one session only"))
                .hint(format!("one of: {}", names.join(", "))))
        }
    }
}

/// The shortest prefix of `id`, of at least 8 digits, that no other id shares.
fn shortest(ids: &[SessionId], id: SessionId) -> String {
    let text = id.to_string();
    let unique = |len: &usize| {
        let sharing = ids.iter().filter(|other| other.to_string()[..*len] == text[..*len]);
        sharing.count() == 1
    };
    let len = (8..=64).find(unique).unwrap_or(64);
    text[..len].to_owned()
}
