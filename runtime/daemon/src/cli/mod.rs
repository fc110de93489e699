//! The command line: stdout is data, stderr is talk, exit codes are fixed.

mod call;
mod calls;
mod doctor;
mod failure;
mod init;
mod models;
mod orchestrate;
mod print;
mod run;
mod sessions;
mod tools;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use failure::{Failure, exit};
pub(crate) use sessions::find;

/// Run AI agents so that what they may do is bounded, what they did can be proved, and any session can be replayed
///
/// Every spawn, tool call and capability grant is a signed, hash-chained event. Start with `toka demo`; then `toka init`
/// and `toka run AGENT.yaml`. Exit codes: 0 ok, 1 failure, 2 usage, 3 verification failed, 4 incomplete, 5 denied,
/// 6 limit, 7 busy, 8 unreadable, 9 sandbox unavailable.
#[derive(Debug, Parser)]
#[command(name = "toka", version, max_term_width = 100)]
struct Cli {
    /// The node's folder: keys, store and configuration [default: $TOKA_HOME, else $XDG_DATA_HOME/toka]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the node's folder: keys, store and origin
    Init(init::Init),
    /// Show the whole thing in a few seconds, on a sample project, with no key and no network
    Demo(crate::demo::Demo),
    /// Run an agent file in a new session, or go on with one that was interrupted
    Run(run::Run),
    /// Run the agents of a folder together, in the order of their dependencies
    Orchestrate(orchestrate::Orchestrate),
    /// List, show and export sessions
    #[command(alias = "session")]
    Sessions(sessions::Sessions),
    /// List, check, register and approve tools
    #[command(alias = "tool")]
    Tools(tools::Tools),
    /// Say what came of a call whose outcome a crash has hidden
    Calls(calls::Calls),
    /// List the providers of models, or answer as one that follows a script
    #[command(alias = "models")]
    Model(models::Model),
    /// Try what this machine can confine, step by step
    Doctor(doctor::Doctor),
    /// Verify, show, explain or compare a store or a bundle, offline and read-only (the same as `toka-replay`)
    #[command(disable_help_flag = true)]
    Replay {
        /// What to pass on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Explain a code that Toka has printed: what it means, where it comes from, what to do
    #[command(disable_help_flag = true)]
    Explain {
        /// What to pass on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Verbs that the design has and this version does not.
const LATER: [&str; 25] = [
    "daemon",
    "agents",
    "tasks",
    "messages",
    "grants",
    "approvals",
    "tokens",
    "keys",
    "blobs",
    "mcp",
    "console",
    "query",
    "search",
    "metrics",
    "policy",
    "members",
    "store",
    "rerun",
    "verify-exec",
    "fork",
    "what-if",
    "config",
    "completions",
    "man",
    "menu",
];

/// Runs one command and returns its exit code.
pub(crate) fn run(args: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout with 0, anything else to stderr with 2; a closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    let done = match cli.verb {
        Verb::Init(init) => init::run(init, cli.home),
        Verb::Demo(demo) => crate::demo::run(&demo),
        Verb::Run(run) => run::run(&run, cli.home),
        Verb::Orchestrate(orchestrate) => orchestrate::run(&orchestrate, cli.home),
        Verb::Sessions(sessions) => sessions::run(sessions, cli.home),
        Verb::Tools(tools) => tools::run(tools, cli.home),
        Verb::Calls(calls) => calls::run(&calls, cli.home),
        Verb::Model(model) => models::run(&model, cli.home),
        Verb::Doctor(doctor) => doctor::run(&doctor),
        Verb::Replay { args } => replay(args, cli.home),
        Verb::Explain { args } => Ok(reader("toka", [vec![OsString::from("explain")], args].concat())),
        Verb::Other(words) => Err(unknown(&words)),
    };
    done.unwrap_or_else(|failure| failure.report())
}

/// `toka replay …`: the verbs of `toka-replay`, on the node's own store where no input is named.
fn replay(mut args: Vec<OsString>, home: Option<PathBuf>) -> Result<u8, Failure> {
    let verb = args.first().and_then(|verb| verb.to_str()).unwrap_or_default();
    if let Some(words) = words_of(verb)
        && words_named(&args[1..]) < words
        && !args.iter().any(|arg| arg == "--help" || arg == "-h")
    {
        let store = init::home_dir(home)?.join("toka.sqlite");
        args.insert(1, store.into_os_string());
    }
    Ok(reader("toka replay", args))
}

/// Runs `toka-replay` under another name.
fn reader(name: &str, mut args: Vec<OsString>) -> u8 {
    args.insert(0, OsString::from(name));
    let (mut out, mut err) = (std::io::BufWriter::new(std::io::stdout().lock()), std::io::stderr());
    toka_replay::cli::run(args, &mut out, &mut err, std::io::stderr().is_terminal())
}

/// How many words a verb of `toka-replay` needs, the first of which is its input; none where it has no input.
fn words_of(verb: &str) -> Option<usize> {
    match verb {
        "verify" | "show" | "state" | "diff" | "stats" => Some(1),
        "why" => Some(2),
        _ => None,
    }
}

/// Options of `toka-replay` with a word after them that is no input.
const TAKES_A_WORD: [&str; 17] = [
    "--root",
    "--session",
    "--require",
    "--jobs",
    "--kind",
    "--seq",
    "--agent",
    "--tool",
    "--head",
    "--prior",
    "--revoked",
    "--max-age",
    "--at",
    "--only",
    "--from",
    "--to",
    "--other-session",
];

/// How many words after a verb of `toka-replay` stand for themselves.
fn words_named(words: &[OsString]) -> usize {
    let mut after = false;
    let words = words.iter().map(|word| word.to_string_lossy()).filter(|word| {
        let belongs = std::mem::replace(&mut after, TAKES_A_WORD.contains(&&**word));
        !belongs && !word.starts_with('-')
    });
    words.count()
}

fn unknown(words: &[OsString]) -> Failure {
    let verb = words.first().map(|verb| verb.to_string_lossy().into_owned()).unwrap_or_default();
    // A noun may be said in the singular.
    if LATER.iter().any(|later| *later == verb || later.strip_suffix('s') == Some(&verb)) {
        return Failure::new(exit::USAGE, format!("`toka {verb}` is not built in this version"))
            .hint("`toka --help` lists what is");
    }
    Failure::new(exit::USAGE, format!("there is no verb `{verb}`")).hint("`toka --help` lists the verbs")
}
