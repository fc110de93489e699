//! The program `toka` at a terminal: what it is asked, what it says, and how it ends.
//!
//! Expected transcripts stand in the tests, exit status included. What differs between two runs is written as `<id>`,
//! `<us>`, `<time>`, `<key>`, `<pid>`, `<n>`; the folder of the test as `$DIR`.

pub(crate) mod agents;
mod crash_matrix;
mod exit_codes;
mod export;
mod init;
pub(crate) mod models;
mod normal;
mod openings;
mod orchestrate;
mod replay;
mod run;
mod secrets;
mod sessions;
mod tools;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use toka_tests::programs::program;

use secrets::Secrets;

/// An empty folder to work in, which the node's folder `home` and the directory `project` may come into.
pub(crate) struct Desk {
    dir: TempDir,
}

impl Desk {
    /// A folder without a node.
    pub(crate) fn empty() -> Desk {
        Desk { dir: tempfile::tempdir().expect("a folder") }
    }

    /// A node for tests, and a project with two files in it.
    pub(crate) fn with_node() -> Desk {
        let desk = Desk::empty();
        desk.toka(&["init", "--profile", "testing"]).expect(0);
        desk.write("project/docs/guide.md", "hello\n");
        desk.write("project/secret.txt", "not for agents\n");
        desk
    }

    /// A node that has run an agent to its end; its session.
    pub(crate) fn with_session() -> (Desk, String) {
        let desk = Desk::with_node();
        let session = desk.session(&agents::reader(agents::GUIDE));
        (desk, session)
    }

    /// A node with a session that was killed in the midst of its work.
    pub(crate) fn with_open_session() -> (Desk, String) {
        let desk = Desk::with_node();
        let session = desk.killed_session();
        (desk, session)
    }

    /// Runs an agent to its end, well or badly, and returns the whole id of its session.
    pub(crate) fn session(&self, agent: &str) -> String {
        self.write("agent.yaml", agent);
        let ran = self.toka(&["run", "agent.yaml", "--root", "project=project", "--grant-requested", "--json"]);
        ran.last_json()["session"].as_str().expect("a session").to_owned()
    }

    /// Begins a session and kills its engine.
    ///
    /// Nobody reads what the engine tells beyond the first lines, and there is more of it than the pipe takes. So it
    /// cannot come to its end before it is killed.
    pub(crate) fn killed_session(&self) -> String {
        for file in 0..400 {
            self.write(&format!("project/docs/many/{file:03}.md"), "x");
        }
        self.write("many.yaml", agents::READS_ALL);
        let mut engine = self
            .command("toka", &["run", "many.yaml", "--root", "project=project", "--grant-requested", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("toka runs");
        let mut lines = BufReader::new(engine.stdout.take().expect("piped")).lines();
        let genesis = lines.next().expect("a line").expect("text");
        lines.nth(6).expect("seven more lines").expect("text");
        engine.kill().expect("kills");
        engine.wait().expect("ends");
        let genesis: Value = serde_json::from_str(&genesis).expect("JSON");
        genesis["session"].as_str().expect("a session").to_owned()
    }

    /// Runs `toka` and kills it as soon as it has told so many lines: the session and all that was told, unless the
    /// session was over by then.
    pub(crate) fn killed_after(&self, args: &[&str], lines: usize) -> Option<(String, Vec<Value>)> {
        let mut engine = self.command("toka", args).stdout(Stdio::piped()).spawn().expect("toka runs");
        let mut told: Vec<Value> = Vec::new();
        for line in BufReader::new(engine.stdout.take().expect("piped")).lines() {
            // A line that the kill has cut was not told.
            let Ok(line) = serde_json::from_str(&line.expect("text")) else { break };
            told.push(line);
            if told.len() == lines {
                engine.kill().expect("kills");
            }
        }
        engine.wait().expect("ends");
        let session = told.first()?["session"].as_str()?.to_owned();
        let listed = self.json(&["sessions", "list"]);
        let rows = listed["sessions"].as_array().expect("sessions");
        let row = rows.iter().find(|row| row["session"] == session.as_str()).expect("the session is listed");
        (row["status"] == "interrupted").then_some((session, told))
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// Writes a file, and the folders that lead to it.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Runs `toka` here.
    pub(crate) fn toka(&self, args: &[&str]) -> Ran {
        self.ran("toka", args)
    }

    /// Runs an agent file in `agent.yaml`, granted what it asks for.
    pub(crate) fn run(&self, agent: &str) -> Ran {
        self.write("agent.yaml", agent);
        self.toka(&["run", "agent.yaml", "--root", "project=project", "--grant-requested"])
    }

    /// Runs a shipped program here.
    pub(crate) fn ran(&self, name: &str, args: &[&str]) -> Ran {
        self.ran_with(name, args, &[])
    }

    /// Runs a shipped program here, with these variables in its environment.
    pub(crate) fn ran_with(&self, name: &str, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.command(name, args);
        let output = command.envs(variables.iter().copied()).stderr(Stdio::piped()).output().expect("the program runs");
        Ran::of(name, args, &output, self.dir.path())
    }

    /// The one JSON document that a verb prints.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let ran = self.toka(&args);
        ran.expect(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}\n{ran}"))
    }

    /// A shipped program with nothing of this process's environment, and nobody at the keyboard.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("TOKA_HOME", self.at("home"))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// A run of a program that has ended.
pub(crate) struct Ran {
    typed: String,
    dir: PathBuf,
    /// How it ended; `None` by a signal.
    pub(crate) exit: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Takes what a program said, and sees that it said nothing that no program may say.
    pub(crate) fn of(name: &str, args: &[&str], output: &Output, dir: &Path) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what it says is UTF-8");
        let ran = Ran {
            typed: [&[name], args].concat().join(" "),
            dir: dir.to_owned(),
            exit: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        ran.check_decent();
        ran
    }

    fn check_decent(&self) {
        for said in [&self.out, &self.err] {
            assert!(!said.contains("panicked at") && !said.contains("RUST_BACKTRACE"), "it panicked:\n{self}");
            assert!(!said.contains('\u{1b}'), "it colours where no terminal is:\n{self}");
            if let Some(secret) = Secrets::below(&self.dir).found_in(said) {
                panic!("`{}` says the secret of {secret}", self.typed);
            }
        }
        assert!(self.exit.is_some_and(|exit| (0..=9).contains(&exit)), "this is no exit code of ours:\n{self}");
    }

    /// Fails unless the program ended so.
    #[track_caller]
    pub(crate) fn expect(&self, exit: i32) -> &Ran {
        assert_eq!(self.exit, Some(exit), "\n{self}");
        self
    }

    /// The lines of stdout as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.out.lines().map(parse).collect()
    }

    pub(crate) fn last_json(&self) -> Value {
        self.json_lines().pop().unwrap_or_else(|| panic!("no JSON:\n{self}"))
    }
}

/// What was typed, what came on stdout, what on stderr, and the exit code.
impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let normal = |text: &str| normal::normal(text, &self.dir);
        writeln!(f, "$ {}", normal(&self.typed))?;
        f.write_str(&normal(&self.out))?;
        if !self.err.is_empty() {
            write!(f, "--- stderr\n{}", normal(&self.err))?;
        }
        match self.exit {
            Some(exit) => write!(f, "--- exit {exit}"),
            None => f.write_str("--- killed"),
        }
    }
}

/// Compares a run with its expected transcript.
macro_rules! transcript {
    ($ran:expr, @$expected:literal) => {
        insta::assert_snapshot!($ran.to_string(), @$expected)
    };
}
pub(crate) use transcript;
