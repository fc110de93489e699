//! `toka sessions`: what the store holds.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toka_kernel::ids::{PrincipalId, SessionId};
use toka_kernel::{Body, Entry, State};
use toka_projections::{AgentRow, Views};
use toka_store::{ReadLog, SqliteReader};

use super::failure::{Failure, exit};
use super::print::{instant, table};

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
    let path = super::init::home_dir(home).join("toka.sqlite");
    match sessions.verb {
        Verb::List { json } => list(&path, json),
        Verb::Show { session, json } => show(&path, &session, json),
        Verb::Export { session, output, force, json } => export(&path, &session, output, force, json),
    }
}

/// One session, folded.
struct Folded {
    session: SessionId,
    opener: PrincipalId,
    opened_us: u64,
    closed: bool,
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

fn list(path: &Path, as_json: bool) -> Result<u8, Failure> {
    let store = open(path)?;
    let mut sessions = Vec::new();
    for row in store.sessions(None) {
        sessions.push(Folded::read(&store, row?.session)?);
    }
    sessions.sort_by_key(|session| (session.opened_us, session.session));
    let ids: Vec<SessionId> = sessions.iter().map(|session| session.session).collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let items: Vec<Value> = sessions.iter().map(Folded::json).collect();
        writeln!(out, "{}", json!({ "schema": "toka/sessions/1", "sessions": items }))?;
        return Ok(exit::OK);
    }
    if sessions.is_empty() {
        eprintln!("no session yet; `toka run AGENT.yaml` makes one");
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
    write!(out, "{}", table(&rows))?;
    Ok(exit::OK)
}

fn show(path: &Path, session: &str, as_json: bool) -> Result<u8, Failure> {
    let store = open(path)?;
    let folded = Folded::read(&store, find(&store, session)?)?;
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

fn export(path: &Path, session: &str, output: Option<PathBuf>, force: bool, as_json: bool) -> Result<u8, Failure> {
    let store = open(path)?;
    let session = find(&store, session)?;
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{}.tkb", session.short())));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if !force {
        options.create_new(true);
    }
    let named = |error: std::io::Error| {
        let failure = Failure::new(exit::FAILURE, format!("{}: {error}", output.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return failure.hint("name another file with -o, or write over it with --force");
        }
        failure
    };
    let mut file = options.open(&output).map_err(named)?;
    toka_store::bundle::write_bundle(&store, &[session], &mut file)
        .map_err(|error| Failure::new(exit::FAILURE, format!("{}: {error}", output.display())))?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    let mut out = std::io::stdout().lock();
    if as_json {
        let file = output.display().to_string();
        let document =
            json!({ "schema": "toka/export/1", "session": session.to_string(), "file": file, "bytes": bytes });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}", output.display())?;
        eprintln!("{bytes} bytes; verify it anywhere: toka-replay verify {} --root root.pub", output.display());
    }
    Ok(exit::OK)
}

fn open(path: &Path) -> Result<SqliteReader, Failure> {
    if !path.exists() {
        return Err(Failure::new(exit::UNREADABLE, format!("there is no store at {}", path.display()))
            .hint("`toka init` makes one; --home names another folder"));
    }
    SqliteReader::open(path).map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))
}

/// The session that `prefix` names.
pub(crate) fn find(log: &dyn ReadLog, prefix: &str) -> Result<SessionId, Failure> {
    let mut found = Vec::new();
    for row in log.sessions(None) {
        let session = row?.session;
        if session.to_string().starts_with(prefix) {
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
