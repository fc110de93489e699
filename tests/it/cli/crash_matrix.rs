//! The crash matrix: a run is killed at each boundary of its journal, for each class of effects, with an agent of a
//! script and with one of a model; then the shipped program goes on with it. What the tools did outside agrees with the
//! log, and all ends as it would have without the kill.
//!
//! Boundaries at the store are met by `killed-run`, which runs an agent as `toka run` does and kills itself before or
//! after the n-th append. Those within a call are met from outside: the tool itself waits at a named pipe, and `toka` is
//! killed then. Nobody sleeps, and nobody guesses when.
//!
//! `./test --long` kills before and after every append; without it each class is killed at one side of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::Value;
use toka_kernel::ids::{CallId, SessionId, derived};
use toka_kernel::{Body, CLASS_WORK, Code, Entry, Event};
use toka_projections::outcome_word;
use toka_runtime::engine::open_blob;
use toka_runtime::gateway::scripted::{Script, ScriptedServer};
use toka_store::{ReadLog, SqliteReader};

use super::{Desk, Ran};

/// What may become of a call that a crash has cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Read,
    Idempotent,
    Reconcile,
    Once,
}

/// Who chooses the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Driver {
    Script,
    Model,
}

/// What comes of a call that was open when its node was killed.
struct Expected {
    /// How often its tool is started once more.
    starts: usize,
    outcome: &'static str,
    /// How often its probe is asked.
    probes: usize,
}

/// The table of the effect journal: what comes of a call that was open at a crash, by its class and by whether it had
/// been done outside by then.
fn after_a_crash(class: Class, done: bool) -> Expected {
    let (starts, outcome, probes) = match (class, done) {
        (Class::Read | Class::Idempotent, _) => (1, "succeeded", 0),
        (Class::Reconcile, false) => (1, "succeeded", 1),
        (Class::Reconcile, true) => (0, "succeeded as its probe says", 1),
        (Class::Once, _) => (0, "unknown", 0),
    };
    Expected { starts, outcome, probes }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Idempotent => "idempotent",
            Class::Reconcile => "reconcile",
            Class::Once => "once",
        }
    }
}

/// The tool under test. Outside it leaves a line in `began` when it starts and one in `marks` when it has done its work,
/// both with the id of its call. Before its work and after it, it waits for as long as there is a pipe.
const MARK: &str = r#"
import json, os, sys
os.umask(0o022)
asked = json.load(sys.stdin)
folder, call = asked["folder"] + "/", os.environ["TOKA_CALL_ID"]

def note(name):
    with open(folder + name, "a") as file:
        file.write(call + "\n")

def wait_at(name):
    if os.path.exists(folder + name):
        open(folder + name).read()

def marked():
    return os.path.exists(folder + "marks") and call in open(folder + "marks").read().split()

note("began")
wait_at(f"before-{asked['n']}")
if "CLASS" == "idempotent" and marked():
    pass
elif "CLASS" != "read":
    note("marks")
wait_at(f"after-{asked['n']}")
"#;

/// Its probe.
const MARKED: &str = r#"
import json, os, sys
asked = json.load(sys.stdin)
marks = asked["folder"] + "/marks"
print("done" if os.path.exists(marks) and asked["id"] in open(marks).read().split() else "not_done")
"#;

const PROBE: &str = "\
apiVersion: toka/v1
kind: Tool
metadata: { name: marked, version: 1.0.0, description: Tells whether a call stands among the marks. }
spec:
  run: { kind: python, path: marked.py }
  params:
    - { name: folder, type: path, required: true, access: [list, read] }
    - { name: id, type: string, required: true }
  outputs: { result: text }
  effect: read
";

fn manifest(class: Class) -> String {
    let probe = "  probe: { tool: marked, params: { folder: { arg: folder }, id: { call: id } } }\n";
    format!(
        "apiVersion: toka/v1\nkind: Tool\nmetadata: {{ name: mark, version: 1.0.0, description: Leaves a mark. }}\nspec:\n\
         \x20 run: {{ kind: python, path: mark.py }}\n\
         \x20 params:\n\
         \x20   - {{ name: folder, type: path, required: true, access: [create, list, read, write] }}\n\
         \x20   - {{ name: n, type: integer, required: true }}\n\
         \x20 outputs: {{ result: none }}\n\
         \x20 effect: {}\n{}",
        class.name(),
        if class == Class::Reconcile { probe } else { "" }
    )
}

/// Marks, asks for what it may not have, and marks again.
fn agent(driver: Driver) -> String {
    let program = match driver {
        Driver::Model => "    model: { provider: counted, name: demo }\n",
        Driver::Script => {
            r#"    script:
      steps:
        - { id: one, call: { tool: mark, args: { folder: "project:out", n: 1 } }, on_error: continue }
        - { id: more, call: { tool: file-reader, args: { path: "project:secret.txt" } }, on_error: continue }
        - { id: two, call: { tool: mark, args: { folder: "project:out", n: 2 } }, on_error: continue }
"#
        }
    };
    format!(
        "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: marker, version: 1.0.0 }}\nspec:\n\
         \x20 description: Marks twice\n\
         \x20 tools: [ mark, file-reader ]\n\
         \x20 capabilities: [ \"fs:project/out/**#create,list,read,write\", \"tool:*\" ]\n\
         \x20 program:\n{program}"
    )
}

/// The same as turns of a model; `late` stands before the answer of the second.
fn lane(late: &str) -> String {
    format!(
        r#"apiVersion: toka/v1
kind: ModelScript
lanes:
  marker:
    - reply: {{ calls: [ {{ tool: mark, arguments: {{ folder: "project:out", n: 1 }} }}, {{ tool: file-reader, arguments: {{ path: "project:secret.txt" }} }} ] }}
    - reply: [ {late}{{ calls: [ {{ tool: mark, arguments: {{ folder: "project:out", n: 2 }} }} ] }} ]
    - reply: {{ calls: [ {{ tool: agent.finish, arguments: {{ result: done }} }} ] }}
"#
    )
}

/// A node with the tools of one class, and an agent.
struct Matrix {
    desk: Desk,
    class: Class,
    /// What counts the requests.
    server: Option<ScriptedServer>,
}

/// A way of being killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// Before the n-th append to the store.
    Before(usize),
    /// After it, before anything follows from it.
    After(usize),
    /// While the second mark waits at this pipe.
    InTool(&'static str),
    /// Once the second request has arrived; its answer never comes.
    Asked,
}

/// One run in its own directory, and what was seen of it so far.
struct Round<'m> {
    matrix: &'m Matrix,
    /// Its directory.
    place: String,
    session: Option<SessionId>,
    /// Sessions and requests that there were before.
    others: BTreeSet<SessionId>,
    requests: usize,
    kills: usize,
    /// Pipes at which programs of nodes that are gone may wait until they are gone, too.
    pipes: Vec<File>,
    seen: Seen,
}

/// What the log and the outside show at one moment.
#[derive(Clone, Default)]
struct Seen {
    /// Calls in the order of their admission.
    calls: Vec<Call>,
    /// What agents asked for, and what came of it.
    commands: Vec<(String, String)>,
    closed: bool,
    /// How often each call was started, and how often it did its work.
    began: BTreeMap<String, usize>,
    marks: BTreeMap<String, usize>,
    /// How often each turn of the model was asked for.
    requests: BTreeMap<u64, usize>,
}

/// The cause of an attempt that a crash has ended.
const CRASH: u8 = 6;

#[derive(Clone)]
struct Call {
    id: String,
    tool: String,
    /// Which turn a request of a model is.
    turn: Option<u64>,
    /// The attempts that the log says were lost in a crash.
    lost: usize,
    outcome: Option<String>,
}

impl Seen {
    fn of(&self, tool: &str) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.tool == tool)
    }

    fn open(&self) -> Option<&Call> {
        self.of("mark").find(|call| call.outcome.is_none())
    }

    fn began(&self, call: &Call) -> usize {
        self.began.get(&call.id).copied().unwrap_or(0)
    }

    fn marks(&self, call: &Call) -> usize {
        self.marks.get(&call.id).copied().unwrap_or(0)
    }

    fn find(&self, id: &str) -> Option<&Call> {
        self.calls.iter().find(|call| call.id == id)
    }

    /// Where in the journal of effects this moment lies.
    fn boundary(&self) -> &'static str {
        match self.open() {
            _ if self.calls.is_empty() => "before anything is durable",
            Some(call) if self.began(call) == 0 => "between the admission and the start",
            Some(_) => "between the effect and its durable end",
            None if self.closed => "after the end",
            None if self.of("mark").next().is_some() => "after the durable end of a call",
            None => "before a call is admitted",
        }
    }
}

impl Matrix {
    fn new(class: Class, driver: Driver, late: &str) -> Matrix {
        let desk = Desk::with_node();
        desk.write("tools/mark.tool.yaml", manifest(class));
        desk.write("tools/mark.py", MARK.replace("CLASS", class.name()));
        if class == Class::Reconcile {
            desk.write("tools/marked.tool.yaml", PROBE);
            desk.write("tools/marked.py", MARKED);
        }
        desk.toka(&["tools", "register", "--discover", "tools", "--approve"]).expect(0);
        desk.write("agent.yaml", agent(driver));
        let server = (driver == Driver::Model).then(|| {
            let script = Script::read("model.yaml", lane(late).as_bytes()).expect("a script");
            let server = ScriptedServer::start(script).expect("it listens");
            let base = server.base_url();
            desk.write(
                "home/config.toml",
                format!("[gateway.providers.counted]\ndialect = \"openai_chat\"\nbase_url = \"{base}\"\n"),
            );
            server
        });
        Matrix { desk, class, server }
    }

    fn store(&self) -> SqliteReader {
        SqliteReader::open(self.desk.at("home/toka.sqlite")).expect("the store opens")
    }

    fn sessions(&self) -> BTreeSet<SessionId> {
        self.store().sessions(None).map(|row| row.expect("row").session).collect()
    }

    fn begin(&self, place: &str) -> Round<'_> {
        self.desk.write(&format!("{place}/secret.txt"), "not for agents\n");
        let out = self.desk.at(place).join("out");
        fs::create_dir_all(&out).expect("a folder");
        // A program writes only where somebody else than root owns the folder.
        if fs::metadata(&out).expect("a folder").uid() == 0 {
            chown(&out, Some(65_534), Some(65_534)).expect("root gives files away");
        }
        let requests = self.server.as_ref().map_or(0, |server| server.captured().len());
        let (others, place) = (self.sessions(), place.to_owned());
        Round {
            matrix: self,
            place,
            session: None,
            others,
            requests,
            kills: 0,
            pipes: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// What comes of a run that nobody kills, and how many appends one has.
    fn whole(&self) -> (Vec<(String, String)>, usize) {
        let mut round = self.begin("whole");
        round.toka().expect(0);
        round.look();
        let whole = std::mem::take(&mut round.seen);
        // The same run from the same parts, or the kills below would say nothing of the shipped program.
        let mut same = self.begin("same");
        let output = same.run_apart(usize::MAX, "before").wait_with_output().expect("it runs");
        assert!(output.status.success(), "killed-run does not work here");
        let said = String::from_utf8(output.stdout).expect("text");
        let appends = said.trim().strip_prefix("appends ").expect("a count").parse().expect("a number");
        same.look();
        assert_eq!(same.seen.commands, whole.commands);
        assert!(same.seen.closed && whole.closed);
        for seen in [&same.seen, &whole] {
            assert_eq!(seen.of("mark").map(|call| seen.began(call)).collect::<Vec<_>>(), [1, 1]);
        }
        (whole.commands, appends)
    }
}

impl Round<'_> {
    /// Begins the run or goes on with it, as it stands.
    fn run_apart(&self, at: usize, when: &str) -> Child {
        let desk = &self.matrix.desk;
        let (home, place, at) = (desk.text("home"), desk.text(&self.place), at.to_string());
        let session = self.session.map(|session| session.to_string());
        let what: Vec<&str> = session.as_deref().map_or(vec!["agent.yaml"], |session| vec!["--resume", session]);
        let args = [&[home.as_str(), &place, when, &at][..], &what].concat();
        desk.command("killed-run", &args).stdout(Stdio::piped()).spawn().expect("it starts")
    }

    fn args(&self) -> Vec<String> {
        let root = format!("project={}", self.place);
        let words: &[&str] = match &self.session {
            Some(session) => &["run", "--resume", &session.to_string(), "--quiet"],
            None => &["run", "agent.yaml", "--root", &root, "--grant-requested", "--quiet"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The shipped program begins the run or goes on with it.
    fn toka(&self) -> Ran {
        let args = self.args();
        self.matrix.desk.toka(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs on until this kill; whether it came before the end.
    fn killed(&mut self, kill: Kill) -> bool {
        self.kills += 1;
        let killed = match kill {
            Kill::Before(at) => self.kills_itself(at, "before"),
            Kill::After(at) => self.kills_itself(at, "after"),
            Kill::InTool(pipe) => {
                let path = self.matrix.desk.at(&self.place).join("out").join(format!("{pipe}-2"));
                mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a pipe");
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
                // Nobody can open it for writing before somebody reads from it.
                let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
                let open = || OpenOptions::new().write(true).custom_flags(flags).open(&path);
                let met = self.killed_once(&mut || open().ok());
                fs::remove_file(&path).expect("removes");
                self.pipes.push(met);
                true
            }
            Kill::Asked => {
                let asked = || self.asked().contains_key(&1).then_some(());
                self.killed_once(&mut || asked());
                true
            }
        };
        self.look();
        killed
    }

    fn kills_itself(&self, at: usize, when: &str) -> bool {
        let output = self.run_apart(at, when).wait_with_output().expect("it runs");
        let ended = output.status;
        assert!(ended.signal() == Some(9) || ended.success(), "{when} {at}: {ended}");
        !ended.success()
    }

    /// Starts the shipped program and kills it once something outside is so.
    fn killed_once<T>(&self, is_so: &mut dyn FnMut() -> Option<T>) -> T {
        let args = self.args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut child = self.matrix.desk.command("toka", &args).stdout(Stdio::null()).spawn().expect("toka starts");
        let met = loop {
            if let Some(met) = is_so() {
                break met;
            }
            assert!(child.try_wait().expect("asked").is_none(), "it has ended by itself");
            std::thread::yield_now();
        };
        child.kill().expect("kills");
        child.wait().expect("ends");
        met
    }

    /// Looks at the log and at the outside, and holds them against each other and against what was seen before.
    fn look(&mut self) {
        let found = self.matrix.sessions().into_iter().find(|session| !self.others.contains(session));
        assert!(self.session.is_none() || self.session == found, "a run has one session");
        self.session = found;
        let mut now = Seen { requests: self.asked(), ..Seen::default() };
        let lines = |name: &str| {
            let text = fs::read_to_string(self.matrix.desk.at(&self.place).join("out").join(name));
            let mut counts = BTreeMap::new();
            text.unwrap_or_default().lines().for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
            counts
        };
        (now.began, now.marks) = (lines("began"), lines("marks"));
        if let Some(session) = found {
            self.read(session, &mut now);
            let checks = "frame,chain,signatures,keys,commands,legality,state,blobs";
            let session = session.to_string();
            let verify = ["replay", "verify", "--quiet", "--session", &session, "--require", checks];
            self.matrix.desk.toka(&verify).expect(0);
        }
        self.compare(&now);
        self.seen = now;
    }

    fn asked(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        let captured = self.matrix.server.as_ref().map_or_else(Vec::new, ScriptedServer::captured);
        captured.iter().skip(self.requests).for_each(|asked| *counts.entry(asked.ordinal).or_default() += 1);
        counts
    }

    fn read(&self, session: SessionId, now: &mut Seen) {
        let store = self.matrix.store();
        for row in store.read(session, 0) {
            let entry = Entry::read(&row.expect("row").bytes).expect("entry");
            let event = entry.event().expect("event");
            match &event.body {
                Body::SessionOpened(opened) => assert_eq!(opened.class, CLASS_WORK),
                Body::CallAdmitted(admitted) => {
                    let arguments = blob(&store, session, event, usize::from(admitted.args));
                    let turn = arguments["ordinal"].as_u64();
                    let id = CallId(derived(session, entry.header().seq, 0)).to_string();
                    if admitted.tool != "marked" {
                        let of = turn.map_or_else(|| arguments.to_string(), |turn| turn.to_string());
                        now.commands.push((format!("{} {of}", admitted.tool), id.clone()));
                    }
                    now.calls.push(Call { id, tool: admitted.tool.clone(), turn, lost: 0, outcome: None });
                }
                Body::CallFinished(finished) => {
                    let id = finished.call.to_string();
                    let call = now.calls.iter_mut().find(|call| call.id == id).expect("it was admitted");
                    let word = outcome_word(&finished.outcome);
                    assert_eq!(call.outcome, None, "{} ended twice", call.tool);
                    let by_probe = word == "succeeded" && finished.outcome.detail == 1;
                    call.outcome = Some(if by_probe { format!("{word} as its probe says") } else { word });
                }
                Body::Refused(refused, ask) => {
                    let what = format!("{ask:?}");
                    let what = what.split(['(', ' ']).next().expect("a word").to_owned();
                    let code = Code::from_number(refused.code).expect("a code");
                    now.commands.push((what, code.to_string()));
                }
                Body::SessionClosed(closed) => {
                    now.closed = true;
                    now.commands.push((event.name().to_owned(), closed.why.to_string()));
                }
                Body::AgentSpawned(_)
                | Body::AgentStarted(_)
                | Body::AgentEnded(_)
                | Body::TaskScheduled(_)
                | Body::TaskStarted(_)
                | Body::TaskCompleted(_) => {
                    now.commands.push((event.name().to_owned(), String::new()));
                }
                Body::CallAttempted(attempted) => {
                    let id = attempted.call.to_string();
                    assert_eq!(attempted.cause, CRASH, "nothing else goes wrong here");
                    now.calls.iter_mut().find(|call| call.id == id).expect("it was admitted").lost += 1;
                }
                Body::ToolBound(_) | Body::StateCommitted(_) | Body::OutcomeResolved(_) => {}
                _ => panic!("what is {} doing here?", event.name()),
            }
        }
        let outcome = |id: &String| {
            let call = now.calls.iter().find(|call| call.id == *id)?;
            let told = call.outcome.as_deref().unwrap_or("open");
            Some(told.strip_suffix(" as its probe says").unwrap_or(told).to_owned())
        };
        let commands = now.commands.iter().map(|(what, came)| (what.clone(), outcome(came).unwrap_or(came.clone())));
        now.commands = commands.collect();
    }

    /// What holds at every moment, and between two of them.
    fn compare(&self, now: &Seen) {
        let (class, before) = (self.matrix.class, &self.seen);
        let admitted: BTreeSet<&String> = now.of("mark").map(|call| &call.id).collect();
        let outside = now.began.keys().chain(now.marks.keys()).collect::<BTreeSet<_>>();
        assert!(outside.is_subset(&admitted), "something ran under an id that the log does not have");
        for call in now.of("mark") {
            let (began, marks) = (now.began(call), now.marks(call));
            let once = matches!(class, Class::Once | Class::Idempotent | Class::Reconcile);
            assert!(marks <= usize::from(once) && marks <= began, "{marks} marks of {began} starts");
            assert!(began <= 1 || class != Class::Once, "what may happen once was started {began} times");
            assert!(began - before.began(call) <= 1, "it was started {began} times, {} before", before.began(call));
            let repeats = matches!(class, Class::Read | Class::Idempotent);
            assert!(!repeats || began <= 1 + call.lost, "{began} starts, and {} attempts that were lost", call.lost);
            match call.outcome.as_deref() {
                Some("succeeded") => assert!(began >= 1 && marks == usize::from(once)),
                Some("succeeded as its probe says") => assert!(class == Class::Reconcile && marks == 1),
                Some("unknown") => assert_eq!(class, Class::Once),
                Some(other) => panic!("a mark ended as {other}"),
                None => {}
            }
            let Some(old) = before.find(&call.id) else { continue };
            let more = began - before.began(call);
            match &old.outcome {
                Some(_) => {
                    assert_eq!((&old.outcome, more), (&call.outcome, 0), "what had finished was touched");
                    assert_eq!(marks, before.marks(call));
                }
                None if call.outcome.is_none() => {}
                None => {
                    let expected = after_a_crash(class, before.marks(call) == 1);
                    assert_eq!((more, call.outcome.as_deref()), (expected.starts, Some(expected.outcome)));
                }
            }
        }
        for call in now.calls.iter().filter(|call| call.turn.is_some()) {
            let count = |seen: &Seen| call.turn.and_then(|turn| seen.requests.get(&turn)).copied().unwrap_or(0);
            let more = count(now) - count(before);
            match before.find(&call.id).map(|old| &old.outcome) {
                Some(Some(_)) => assert_eq!(more, 0, "a turn whose answer stands in the log was asked for again"),
                Some(None) | None => assert!(more <= 1, "a turn was asked for {more} times"),
            }
            assert!(call.outcome.is_none() || count(now) >= 1, "an answer that nobody gave");
        }
        let known: BTreeSet<u64> = now.calls.iter().filter_map(|call| call.turn).collect();
        assert!(now.requests.keys().all(|turn| known.contains(turn)), "a request left that the log does not have");
    }

    /// The shipped program goes on to the end, and somebody says what came of what nobody can know.
    fn finish(mut self, whole: &[(String, String)]) {
        let crashed = self.seen.clone();
        let mut unknown = None;
        loop {
            let ran = self.toka();
            self.look();
            match ran.exit {
                Some(0) => break,
                // The kill came after the session had been closed: nothing was left to do.
                Some(1) if crashed.closed => {
                    assert!(ran.err.contains("there is nothing to go on with"), "{ran}");
                    break;
                }
                Some(4) if self.matrix.class == Class::Once && unknown.is_none() => {
                    let call = self.seen.of("mark").find(|call| call.outcome.as_deref() == Some("unknown"));
                    let call = call.unwrap_or_else(|| panic!("nobody is in doubt\n{ran}")).clone();
                    let verdict = if self.seen.marks(&call) == 1 { "done" } else { "not-done" };
                    let session = self.session.expect("a session").to_string();
                    self.matrix.desk.toka(&["calls", "resolve", &session, &call.id, verdict]).expect(0);
                    self.look();
                    unknown = Some(call.id);
                }
                _ => panic!("it does not go on\n{ran}"),
            }
        }
        assert!(self.seen.closed && self.seen.calls.iter().all(|call| call.outcome.is_some()));
        let interrupted = crashed.open();
        assert_eq!(unknown.as_ref(), interrupted.filter(|_| self.matrix.class == Class::Once).map(|call| &call.id));
        if self.kills == 1 {
            let expected = |call| after_a_crash(self.matrix.class, crashed.marks(call) == 1).probes;
            assert_eq!(self.seen.of("marked").count(), interrupted.map_or(0, expected));
        }
        // In the one cell of the table whose outcome nobody can know, exactly that is recorded.
        let place = unknown.map(|id| {
            let marks: Vec<&Call> = self.seen.of("mark").collect();
            marks.iter().position(|call| call.id == id).expect("a mark")
        });
        let mut expected = whole.to_vec();
        if let Some(place) = place {
            expected.iter_mut().filter(|(what, _)| what.starts_with("mark ")).nth(place).expect("a mark").1 =
                "unknown".to_owned();
        }
        assert_eq!(self.seen.commands, expected);
        let session = self.session.expect("a session").to_string();
        let root = ["--root", "home/keys/root.pub"];
        self.matrix.desk.toka(&[&["replay", "verify", "--session", &session][..], &root].concat()).expect(0);
    }
}

fn blob(store: &SqliteReader, session: SessionId, event: &Event, index: usize) -> Value {
    let bytes = open_blob(store, session, event.blobs[index].commitment).expect("it reads").expect("it is there");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Kills a run before and after every append, or at one of the two where time is short, and lets each go on.
fn at_every_append(class: Class, driver: Driver) {
    let long = std::env::var("TOKA_TEST_KILLS").is_ok_and(|kills| kills.parse::<usize>().expect("a number") >= 500);
    let matrix = Matrix::new(class, driver, "");
    let (whole, appends) = matrix.whole();
    let mut met = BTreeMap::<&str, usize>::new();
    for at in 1..=appends {
        // Each half of the classes takes the sides that the other leaves.
        let other = at % 2 == class as usize % 2;
        let kills = [(Kill::Before(at), other), (Kill::After(at), !other)];
        for (kill, _) in kills.into_iter().filter(|(_, due)| long || *due) {
            println!("{kill:?}");
            let mut round = matrix.begin(&format!("{kill:?}").replace(['(', ')'], "-"));
            assert!(round.killed(kill), "it came to its end");
            *met.entry(round.seen.boundary()).or_default() += 1;
            round.finish(&whole);
        }
    }
    println!("{met:#?}");
    assert!(met.len() >= if long { 5 } else { 3 }, "{met:#?}");
    matrix.desk.toka(&["replay", "verify", "--root", "home/keys/root.pub"]).expect(0);
}

/// Kills the shipped program while its second mark waits before its work and after it, and lets it go on.
fn within_a_call(class: Class, driver: Driver) {
    let matrix = Matrix::new(class, driver, "");
    let (whole, _) = matrix.whole();
    for (pipe, done) in [("before", false), ("after", class != Class::Read)] {
        let mut round = matrix.begin(pipe);
        round.killed(Kill::InTool(pipe));
        let call = round.seen.open().expect("it was cut off").clone();
        assert_eq!((round.seen.began(&call), round.seen.marks(&call)), (1, usize::from(done)));
        round.finish(&whole);
    }
}

/// Kills a run as soon as its second call is admitted, and then each time that it goes on, at every append.
fn again_and_again(class: Class) {
    let matrix = Matrix::new(class, Driver::Script, "");
    let (whole, appends) = matrix.whole();
    for at in 1..appends {
        for kill in [Kill::Before(at), Kill::After(at)] {
            let mut round = matrix.begin(&format!("{kill:?}").replace(['(', ')'], "-"));
            round.killed(Kill::InTool("after"));
            if !round.killed(kill) {
                break;
            }
            round.finish(&whole);
        }
    }
}

#[test]
fn a_script_whose_tools_only_read_ends_as_without_the_kill() {
    at_every_append(Class::Read, Driver::Script);
}

#[test]
fn a_script_whose_tools_know_their_calls_ends_as_without_the_kill() {
    at_every_append(Class::Idempotent, Driver::Script);
}

#[test]
fn a_script_whose_tools_are_asked_about_ends_as_without_the_kill() {
    at_every_append(Class::Reconcile, Driver::Script);
}

#[test]
fn a_script_whose_tools_run_once_ends_as_without_the_kill() {
    at_every_append(Class::Once, Driver::Script);
}

#[test]
fn a_model_whose_tools_only_read_ends_as_without_the_kill() {
    at_every_append(Class::Read, Driver::Model);
}

#[test]
fn a_model_whose_tools_know_their_calls_ends_as_without_the_kill() {
    at_every_append(Class::Idempotent, Driver::Model);
}

#[test]
fn a_model_whose_tools_are_asked_about_ends_as_without_the_kill() {
    at_every_append(Class::Reconcile, Driver::Model);
}

#[test]
fn a_model_whose_tools_run_once_ends_as_without_the_kill() {
    at_every_append(Class::Once, Driver::Model);
}

#[test]
fn a_tool_of_a_script_is_cut_off_before_its_work_and_after_it() {
    [Class::Read, Class::Idempotent, Class::Reconcile, Class::Once]
        .into_iter()
        .for_each(|class| within_a_call(class, Driver::Script));
}

#[test]
fn a_tool_of_a_model_is_cut_off_before_its_work_and_after_it() {
    [Class::Read, Class::Idempotent, Class::Reconcile, Class::Once]
        .into_iter()
        .for_each(|class| within_a_call(class, Driver::Model));
}

#[test]
fn a_run_that_is_killed_again_while_it_goes_on_repeats_no_more_than_its_class_lets_it() {
    [Class::Idempotent, Class::Reconcile].into_iter().for_each(again_and_again);
}

#[test]
fn a_model_that_was_asked_and_has_not_answered_is_asked_again_and_one_that_has_is_not() {
    let whole = Matrix::new(Class::Idempotent, Driver::Model, "").whole().0;
    let matrix = Matrix::new(Class::Idempotent, Driver::Model, "{ stall: true }, ");
    let mut round = matrix.begin("asked");
    round.killed(Kill::Asked);
    assert_eq!(round.seen.requests, BTreeMap::from([(0, 1), (1, 1)]));
    let captured = |matrix: &Matrix| matrix.server.as_ref().expect("a server").captured();
    round.finish(&whole);
    let turns: Vec<u64> = captured(&matrix).iter().map(|asked| asked.ordinal).collect();
    assert_eq!(turns, [0, 1, 1, 2]);
    assert_eq!(captured(&matrix)[1].body, captured(&matrix)[2].body, "the same request, byte for byte");
}
