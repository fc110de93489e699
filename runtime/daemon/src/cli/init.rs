//! `toka init`: the node's folder.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::home::{self, Home, HomeError, InitOptions, Profile, read_passphrase};
use toka_runtime::keyfile::Passphrase;
use toka_runtime::random::OsRandom;

use super::failure::{Failure, exit};
use super::print::{instant, talk};

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder to make [default: $TOKA_HOME, else $XDG_DATA_HOME/toka]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What the node is for; `testing` keeps the operator's key without a passphrase
    #[arg(long, value_enum, default_value = "default")]
    profile: ProfileName,
    /// The operator's name, as it stands in key files
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// A file that holds the operator's passphrase, as its only line
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A root public key that is kept elsewhere
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// Say so and succeed where the folder is there already
    #[arg(long)]
    if_missing: bool,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileName {
    Default,
    Testing,
}

pub(crate) fn run(init: Init, home: Option<PathBuf>) -> Result<u8, Failure> {
    let profile = match init.profile {
        ProfileName::Default => Profile::Default,
        ProfileName::Testing => Profile::Testing,
    };
    let now_us = GuardedClock::new(Arc::new(SystemClock))
        .now_us()
        .map_err(|fault| Failure::new(exit::FAILURE, fault.to_string()))?;
    let dir = match &init.dir {
        Some(dir) => dir.clone(),
        None => home_dir(home)?,
    };
    let mut options = InitOptions::new(&dir, profile, now_us);
    options.root_key = init.root_key;
    options.if_missing = init.if_missing;
    if let Some(operator) = init.operator {
        options.operator = operator;
    }
    options.passphrase = match &init.passphrase_file {
        Some(file) => Some(read_passphrase(file)?),
        None if profile == Profile::Default && !dir.exists() => new_passphrase()?,
        None => None,
    };
    let report = Home::init(&options, &mut OsRandom)?;
    for warning in &report.warnings {
        talk(&format!("note: {warning}"));
    }
    let mut out = std::io::stdout().lock();
    if init.json {
        let epochs: Vec<_> = report
            .epochs
            .iter()
            .map(|window| json!({ "epoch": window.epoch, "from_us": window.from_us, "until_us": window.until_us }))
            .collect();
        let files: Vec<String> = report.files.iter().map(|file| file.display().to_string()).collect();
        let document = json!({
            "schema": "toka/init/1", "dir": report.dir.display().to_string(), "new": report.is_new,
            "origin": report.origin, "root": report.root.to_string(), "operator": report.operator.to_string(),
            "epochs": epochs, "files": files,
        });
        writeln!(out, "{document}")?;
        return Ok(exit::OK);
    }
    let word = if report.is_new { "made" } else { "is there already:" };
    writeln!(out, "{word} {}", report.dir.display())?;
    writeln!(out, "origin  {}", report.origin)?;
    writeln!(out, "root    {}", report.root)?;
    if let (Some(first), Some(last)) = (report.epochs.first(), report.epochs.last()) {
        writeln!(
            out,
            "keys    {} event epochs, {} to {}",
            report.epochs.len(),
            instant(first.from_us),
            instant(last.until_us)
        )?;
    }
    if std::io::stderr().is_terminal() {
        talk("next: toka run AGENT.yaml --root project=DIR");
    }
    Ok(exit::OK)
}

/// A new passphrase, typed twice; `None` where nobody can be asked.
fn new_passphrase() -> Result<Option<Passphrase>, Failure> {
    let Some(first) = ask_passphrase("a passphrase for the operator's key: ")? else { return Ok(None) };
    match ask_passphrase("the same again: ")? {
        Some(second) if second == first => Ok(Some(first)),
        Some(_) | None => Err(Failure::new(exit::USAGE, "the passphrases differ; nothing was made")),
    }
}

/// Asks for a passphrase where somebody sits at a terminal.
pub(crate) fn ask_passphrase(prompt: &str) -> Result<Option<Passphrase>, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    Ok(home::ask_passphrase(prompt)?)
}

/// Opens the node's folder.
pub(crate) fn open_home(home: Option<PathBuf>) -> Result<Home, Failure> {
    Ok(Home::open(&home_dir(home)?)?)
}

/// The node's folder: as given, else `TOKA_HOME`, else below the user's data folder.
pub(crate) fn home_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .or_else(|| named("TOKA_HOME"))
        .or_else(|| named("XDG_DATA_HOME").map(|data| data.join("toka")))
        .or_else(|| named("HOME").map(|home| home.join(".local/share/toka")))
        .ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                "nothing says where the node's folder is: TOKA_HOME, XDG_DATA_HOME and HOME are unset",
            )
            .hint("--home DIR names it")
        })
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Failure {
        Failure::new(error.exit_code(), error.to_string()).hint(error.hint())
    }
}
