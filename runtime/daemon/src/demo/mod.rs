//! `toka demo`: a real job, recorded, refused, killed, resumed, proved and attacked, in a few seconds.

mod attacks;
mod sample;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::home::Home;

use crate::cli::{Failure, exit};
use sample::{BEYOND, PLANTED, STOPPED};

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep everything the demo makes in this folder, which must not exist
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The engine is killed after this many durable entries, in the midst of the parent's work.
const KILL_AFTER: usize = 25;

/// What the demo measured. Nothing here is assumed.
#[derive(Debug, Default)]
struct Measured {
    found: usize,
    refused: usize,
    stopped: usize,
    killed_at: u64,
    repeated: usize,
    rerun: usize,
    entries: u64,
    verified: usize,
    /// Answers of models, and those that were the same when models answered from the record.
    answers: usize,
    again: usize,
    attacks: usize,
    attacks_found: usize,
}

impl Measured {
    /// Each number that is not as it must be, in words.
    fn off(&self) -> Vec<String> {
        let expected = [
            ("faults found", self.found, PLANTED.len()),
            ("requests refused", self.refused, 2),
            ("programs stopped by their jail", self.stopped, 2),
            ("calls repeated", self.repeated, 0),
            ("logs verified", self.verified, 2),
            ("answers repeated from the record", self.again, self.answers),
            ("attacks made", self.attacks, 5),
            ("attacks found", self.attacks_found, 5),
        ];
        let off = expected.iter().filter(|(_, measured, expected)| measured != expected);
        off.map(|(what, measured, expected)| format!("{what}: {measured}, not {expected}")).collect()
    }

    fn json(&self, seconds: f64) -> Value {
        json!({
            "schema": "toka/demo/1", "planted": PLANTED.len(), "found": self.found, "refused": self.refused,
            "stopped": self.stopped,
            "killed_at": self.killed_at, "repeated": self.repeated, "rerun": self.rerun, "entries": self.entries,
            "verified": self.verified, "answers": self.answers, "answers_again": self.again, "attacks": self.attacks, "attacks_found": self.attacks_found,
            "seconds": seconds,
        })
    }
}

/// Where the demo works, and how it talks.
struct Stage {
    dir: PathBuf,
    loud: bool,
    began: Instant,
}

pub(crate) fn run(demo: &Demo) -> Result<u8, Failure> {
    let scratch;
    let dir = match &demo.keep {
        Some(dir) => {
            std::fs::create_dir(dir).map_err(|error| {
                Failure::new(exit::FAILURE, format!("{}: {error}", dir.display()))
                    .hint("name a folder that does not exist")
            })?;
            std::fs::canonicalize(dir)?
        }
        None => {
            scratch = tempfile::Builder::new().prefix("toka-demo-").tempdir()?;
            scratch.path().to_owned()
        }
    };
    let stage = Stage { dir, loud: !demo.json, began: Instant::now() };
    let measured = stage.play()?;
    let seconds = stage.began.elapsed().as_secs_f64();
    let told = if demo.json {
        writeln!(std::io::stdout().lock(), "{}", measured.json(seconds))
    } else {
        stage.finale(&measured, seconds, demo.keep.is_some())
    };
    // A number that is off counts, even if nobody reads on.
    let off = measured.off();
    if !off.is_empty() {
        return Err(Failure::new(exit::FAILURE, off.join("; ")));
    }
    told?;
    Ok(exit::OK)
}

impl Stage {
    fn play(&self) -> Result<Measured, Failure> {
        let mut measured = Measured::default();
        self.set_up()?;
        let interrupted = self.run_and_kill()?;
        measured.killed_at = interrupted.last_seq;
        let resumed = self.resume(&interrupted)?;
        measured.repeated = resumed.started.intersection(&interrupted.finished).count();
        measured.rerun = resumed.started.intersection(&interrupted.admitted).count() - measured.repeated;
        let session = resumed.session.clone();
        self.tell_findings(&session, &mut measured)?;
        let model = self.ask_models(&mut measured)?;
        self.count_faults(&mut measured);
        measured.entries = self.prove(&session, "session.tkb", &mut measured.verified)?;
        measured.entries += self.prove(&model, "model.tkb", &mut measured.verified)?;
        self.answer_again(&model, &mut measured)?;
        self.attack(&mut measured)?;
        Ok(measured)
    }

    fn set_up(&self) -> Result<(), Failure> {
        self.say("Toka runs AI agents so that what they may do is bounded and what they did can be proved.\n");
        self.chapter("A project with five planted faults, and a node with keys of its own");
        let tools = self.dir.join("tools");
        sample::write(&self.dir.join("project"), &self.dir.join("agents"), &tools)?;
        let home = self.dir.join("home");
        self.toka(&["init", "--profile", "testing", "--json", "--dir", &text(&home)])?.expect(exit::OK)?;
        for fault in PLANTED {
            self.note(&format!("planted: {} ({})", fault.what, fault.path));
        }
        let manifest = text(&tools.join(sample::TOOL));
        self.toka(&["tools", "register", &manifest, "--approve", "--json"])?.expect(exit::OK)?;
        self.note("approved by the operator: line-counter, a Python program that tries more than it says");
        Ok(())
    }

    /// Runs the agent and kills the engine with SIGKILL once `KILL_AFTER` entries are durable.
    fn run_and_kill(&self) -> Result<Seen, Failure> {
        self.chapter("An agent works; its engine is killed with -9 in the middle");
        let agent = self.dir.join("agents").join(sample::AGENT);
        let project = format!("project={}", text(&self.dir.join("project")));
        let mut engine = self
            .command(&["run", &text(&agent), "--root", &project, "--grant-requested", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut seen = Seen::default();
        if let Some(out) = engine.stdout.take() {
            for line in BufReader::new(out).lines() {
                seen.read(&line?);
                if seen.entries == KILL_AFTER {
                    // SIGKILL: the engine gets no chance to tidy up.
                    engine.kill()?;
                }
            }
        }
        let ended = engine.wait_with_output()?;
        if seen.entries < KILL_AFTER || seen.closed {
            let talk = String::from_utf8_lossy(&ended.stderr).into_owned();
            let what = format!("the engine was to be killed after {KILL_AFTER} entries; it wrote {}", seen.entries);
            return Err(Failure::new(exit::FAILURE, format!("{what}\n{}", talk.trim_end())));
        }
        self.note(&format!(
            "{} entries were durable when it died, {} calls finished",
            seen.entries,
            seen.finished.len()
        ));
        Ok(seen)
    }

    fn resume(&self, interrupted: &Seen) -> Result<Seen, Failure> {
        self.chapter("A new process goes on from the log");
        let ran = self.toka(&["run", "--resume", &interrupted.session, "--json"])?;
        ran.expect(exit::OK)?;
        let mut seen = Seen::default();
        ran.out.lines().for_each(|line| seen.read(line));
        let again = seen.started.intersection(&interrupted.admitted).count();
        self.note(&format!(
            "{} calls started; {again} of them had been interrupted and {}",
            seen.started.len(),
            match again {
                1 => "runs again under the same id",
                _ => "run again under the same ids",
            }
        ));
        Ok(Seen { session: interrupted.session.clone(), ..seen })
    }

    fn tell_findings(&self, session: &str, measured: &mut Measured) -> Result<(), Failure> {
        self.chapter("What the agents found, and what they were refused");
        for fault in sample::found(&self.dir.join("project")) {
            self.note(&format!("found: {} ({})", fault.what, fault.path));
        }
        let shown = self.toka(&["sessions", "show", session, "--json"])?;
        shown.expect(exit::OK)?;
        let shown: Value = parse(&shown.out)?;
        let moments = shown["timeline"].as_array().cloned().unwrap_or_default();
        let refused: Vec<&Value> = moments.iter().filter(|moment| moment["kind"] == "Refused").collect();
        for moment in refused {
            let what = moment["what"].as_str().unwrap_or_default();
            self.note(&format!("refused: {} asked for {what}", moment["who"].as_str().unwrap_or_default()));
            measured.refused += usize::from(what.contains(BEYOND));
        }
        let held = shown["grants"].as_array().cloned().unwrap_or_default();
        let held = held.iter().filter(|grant| grant["holder"] == "drift-checker");
        let held: Vec<&str> = held.filter_map(|grant| grant["capability"].as_str()?.split('?').next()).collect();
        self.note(&format!("it holds: {}", held.join(", ")));
        let is_stopped = |moment: &&Value| moment["kind"] == "CallFinished" && moment["what"] == STOPPED;
        measured.stopped = moments.iter().filter(is_stopped).count();
        self.note(match measured.stopped {
            1 => "stopped by its jail: line-counter found neither the secret nor a network, and its call says that it failed",
            _ => "NOT STOPPED: line-counter",
        });
        Ok(())
    }

    /// Lets a model choose what agents do. It reads a file that tells it to steal, and it obeys.
    fn ask_models(&self, measured: &mut Measured) -> Result<String, Failure> {
        self.chapter(
            "A model leads two others; a file of the project tells one of them to fetch a secret, and it obeys",
        );
        let agents = self.dir.join("agents");
        let project = format!("project={}", text(&self.dir.join("project")));
        let (agent, script) = (text(&agents.join(sample::MODEL_AGENT)), text(&agents.join(sample::MODEL_SCRIPT)));
        let ran =
            self.toka(&["run", &agent, "--root", &project, "--grant-requested", "--model-script", &script, "--json"])?;
        ran.expect(exit::OK)?;
        let (mut asked, mut spawned, mut session) = (0, 0, String::new());
        for line in ran.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let what = line["what"].as_str().unwrap_or_default();
            session = line["session"].as_str().map_or(session, str::to_owned);
            match line["kind"].as_str() {
                Some("CallFinished") => {
                    asked += usize::from(what.starts_with("model."));
                    measured.stopped += usize::from(what == STOPPED);
                }
                Some("AgentSpawned") => spawned += 1,
                Some("Refused") if what.contains(BEYOND) => {
                    measured.refused += 1;
                    self.note(&format!("refused: {} asked for {what}", line["who"].as_str().unwrap_or_default()));
                }
                Some(_) | None => {}
            }
        }
        measured.answers = asked;
        self.note(&format!(
            "{asked} answers of a model over HTTP, {spawned} agents, each with grants within its parent's"
        ));
        self.note("stopped by its jail, again: line-counter, which the model was allowed to call");
        Ok(session)
    }

    fn count_faults(&self, measured: &mut Measured) {
        let findings = sample::found(&self.dir.join("project"));
        measured.found = findings.len();
        if let Some(fault) = findings.iter().find(|fault| fault.finding == "audit/sums.txt") {
            self.note(&format!("found by a WASM guest: {} ({})", fault.what, fault.path));
        }
    }

    /// Runs the agents of the model once more, in a fresh process, with answers from the record and no server.
    fn answer_again(&self, session: &str, measured: &mut Measured) -> Result<(), Failure> {
        let agent = text(&self.dir.join("agents").join(sample::MODEL_AGENT));
        let project = format!("project={}", text(&self.dir.join("project")));
        let ran =
            self.toka(&["run", &agent, "--root", &project, "--grant-requested", "--model-record", session, "--json"])?;
        ran.expect(exit::OK)?;
        let entries = ran.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let answered = |entry: &Value| {
            entry["kind"] == "CallFinished"
                && entry["what"].as_str().is_some_and(|what| what.starts_with("model.") && what.ends_with(" succeeded"))
        };
        measured.again = entries.filter(answered).count();
        self.note(&format!(
            "with the model's server gone, {} of {} answers came from the record",
            measured.again, measured.answers
        ));
        Ok(())
    }

    /// Exports the session and verifies it in a fresh process, with nothing but the file and the root's public key.
    fn prove(&self, session: &str, file: &str, verified: &mut usize) -> Result<u64, Failure> {
        if *verified == 0 {
            self.chapter("A stranger verifies each log offline, with one file and one public key");
        }
        let bundle = text(&self.dir.join(file));
        self.toka(&["sessions", "export", session, "-o", &bundle, "--json"])?.expect(exit::OK)?;
        let ran = self.verify(Path::new(&bundle))?;
        let report: Value = parse(&ran.out)?;
        *verified += usize::from(ran.exit == exit::OK);
        let entries = report["checked"]["entries"].as_u64().unwrap_or(0);
        let signatures = report["checked"]["signatures"].as_u64().unwrap_or(0);
        self.note(&format!(
            "{}: {entries} entries decided again, {signatures} signatures checked",
            report["verdict"].as_str().unwrap_or("?")
        ));
        Ok(entries)
    }

    fn attack(&self, measured: &mut Measured) -> Result<(), Failure> {
        self.chapter("Five attacks on copies of that file");
        let failed = |what: String| Failure::new(exit::FAILURE, what);
        let home = Home::open(&self.dir.join("home"))?;
        let now = GuardedClock::new(Arc::new(SystemClock)).now_us().map_err(|fault| failed(fault.to_string()))?;
        let key = home.event_key(now)?;
        for attack in attacks::make(&self.dir.join("session.tkb"), &self.dir, &key).map_err(failed)? {
            measured.attacks += 1;
            let ran = self.verify(&attack.file)?;
            let report: Value = parse(&ran.out)?;
            let roots = report["findings"].as_array().cloned().unwrap_or_default();
            let hit = roots.iter().find(|finding| {
                finding["code"] == attack.code && finding["seq"] == attack.seq && finding["caused_by"].is_null()
            });
            let found = ran.exit == 3 && hit.is_some();
            measured.attacks_found += usize::from(found);
            let mark = if found { "found" } else { "MISSED" };
            self.note(&format!("{mark}: {} ({} at entry {})", attack.what, attack.code, attack.seq));
        }
        Ok(())
    }

    fn finale(&self, measured: &Measured, seconds: f64, kept: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\n{} of {} faults found, {} requests refused, {} programs stopped by their jail, {} finished calls repeated, \
             {} of {} attacks found; {} entries, {seconds:.1} s",
            measured.found,
            PLANTED.len(),
            measured.refused,
            measured.stopped,
            measured.repeated,
            measured.attacks_found,
            measured.attacks,
            measured.entries,
        )?;
        if kept {
            let dir = self.dir.display();
            writeln!(out, "\nnext:")?;
            writeln!(out, "  toka --home {dir}/home sessions list")?;
            writeln!(out, "  toka replay show {dir}/session.tkb")?;
            writeln!(out, "  toka replay verify {dir}/session.tkb --root {dir}/home/keys/root.pub")?;
        } else {
            writeln!(out, "\n`toka demo --keep DIR` keeps the files; `toka init` and `toka run AGENT.yaml` are next.")?;
        }
        Ok(())
    }

    fn verify(&self, bundle: &Path) -> Result<Ran, Failure> {
        let root = text(&self.dir.join("home/keys/root.pub"));
        self.toka(&["replay", "verify", &text(bundle), "--root", &root, "--json"])
    }

    /// Runs this program in a process of its own.
    fn toka(&self, args: &[&str]) -> Result<Ran, Failure> {
        let output = self.command(args).output()?;
        Ok(Ran {
            verb: args.first().copied().unwrap_or_default().to_owned(),
            exit: output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILURE),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("toka")));
        command.args(args).env("TOKA_HOME", self.dir.join("home")).stdin(Stdio::null());
        command
    }

    fn chapter(&self, title: &str) {
        self.say(&format!("\n{title}"));
    }

    fn note(&self, what: &str) {
        self.say(&format!("  {what}"));
    }

    fn say(&self, what: &str) {
        if self.loud {
            // A reader that has gone misses the talk; the numbers are checked all the same.
            let _ = writeln!(std::io::stdout().lock(), "{what}");
        }
    }
}

/// A run of this program that has ended.
struct Ran {
    verb: String,
    exit: u8,
    out: String,
    err: String,
}

impl Ran {
    fn expect(&self, code: u8) -> Result<(), Failure> {
        if self.exit == code {
            return Ok(());
        }
        Err(Failure::new(
            exit::FAILURE,
            format!("`toka {}` ended with {}\n{}", self.verb, self.exit, self.err.trim_end()),
        ))
    }
}

/// What a run told on its stdout.
#[derive(Debug, Default)]
struct Seen {
    session: String,
    entries: usize,
    last_seq: u64,
    started: BTreeSet<String>,
    admitted: BTreeSet<String>,
    finished: BTreeSet<String>,
    closed: bool,
}

impl Seen {
    fn read(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let word = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        if line["started"].is_string() {
            self.started.insert(word("started"));
        }
        let Some(seq) = line["seq"].as_u64() else { return };
        self.entries += 1;
        self.last_seq = seq;
        self.session = word("session");
        match line["kind"].as_str() {
            Some("CallAdmitted") => drop(self.admitted.insert(word("call"))),
            Some("CallFinished") => drop(self.finished.insert(word("call"))),
            Some("SessionClosed") => self.closed = true,
            Some(_) | None => {}
        }
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(exit::FAILURE, format!("no JSON where JSON was promised: {error}")))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
