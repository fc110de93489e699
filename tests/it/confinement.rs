//! Foreign programs under the supervisor, through the shipped binaries: what a program tries, what the host shows of it
//! afterwards, and what `CallFinished` says. The jail by itself is tested in `runtime/jail/tests`.
//!
//! Each attack stands beside a harmless twin that must work, and all of it is tried by root and by an ordinary user,
//! where the test can be both.

mod artifacts;
mod code;
mod doctor;
mod files;
mod guests;
mod kills;
mod launchers;
mod levels;
mod limits;
mod outcomes;
mod secrets;
mod unreaped;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use toka_kernel::body::v1::{CallFinished, Outcome};
use toka_kernel::tool::Level;
use toka_kernel::{Body, Entry, Event};
use toka_projections::outcome_word;
use toka_store::{ReadLog, SqliteReader};

use crate::cli::{Desk, Ran};

/// Who owns what root's programs change.
const NOBODY: u32 = 65_534;
/// Stands in everything that no program may see.
const NEEDLE: &str = "needle-7c1f-in-the-hay";
/// What nothing that is polled for takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the tools of these tests are: a program that does what it is told, since confinement must not depend on what a
/// program is.
const PROGRAM: &str = r#"
import errno, json, os, resource, signal, sys, time
arguments = json.load(sys.stdin)
found = None

def tried(act, *args):
    try:
        return act(*args)
    except OSError as error:
        return errno.errorcode[error.errno]

# Until the test puts this file there.
def wait_for(name):
    while not os.path.exists("/roots/project/docs/" + name):
        time.sleep(0.005)

exec(arguments["code"])
json.dump(found, sys.stdout)
"#;

/// A user who is nobody in particular, another in each process: at `landlock` the processes of a user are counted, whoever
/// started them.
fn nobody() -> u32 {
    20_000 + std::process::id() % 40_000
}

/// A folder with a node in `home` and a directory `project`, and who runs `toka` there.
struct Lab {
    desk: Desk,
    user: u32,
}

impl Lab {
    /// Runs a test once for each user that this process can be.
    fn each(test: impl Fn(&Lab)) {
        let me = rustix::process::geteuid().as_raw();
        for user in BTreeSet::from([me, if me == 0 { nobody() } else { me }]) {
            println!("as user {user}");
            test(&Lab::of(user));
        }
    }

    fn of(user: u32) -> Lab {
        let lab = Lab { desk: Desk::empty(), user };
        lab.own(&lab.desk.at(""));
        lab.toka(&["init", "--profile", "testing"]).expect(0);
        lab.write("project/docs/guide.md", "hello\n");
        lab.write("project/secret.txt", NEEDLE);
        lab.write("other/file.txt", NEEDLE);
        lab.write(".ssh/id_ed25519", NEEDLE);
        lab
    }

    /// Gives a file to the user. What root's programs change must not be root's.
    fn own(&self, path: &Path) {
        let owner = if self.user == 0 && path.starts_with(self.desk.at("project")) { NOBODY } else { self.user };
        if rustix::process::geteuid().is_root() {
            chown(path, Some(owner), Some(owner)).expect("root gives files away");
        }
    }

    /// Writes a file of the user, and the folders that lead to it.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        self.desk.write(name, text);
        let (top, path) = (self.desk.at(""), self.desk.at(name));
        path.ancestors().take_while(|path| *path != top).for_each(|path| self.own(path));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.desk.command("toka", args);
        self.become_user(&mut command);
        command
    }

    fn become_user(&self, command: &mut Command) {
        if self.user != rustix::process::geteuid().as_raw() {
            command.uid(self.user).gid(self.user);
        }
    }

    /// The one JSON document that a verb prints.
    fn document(&self, args: &[&str]) -> Value {
        json(self.toka(args).expect(0).out.as_bytes())
    }

    fn toka(&self, args: &[&str]) -> Ran {
        self.ran(args, &mut self.command(args))
    }

    fn ran(&self, args: &[&str], command: &mut Command) -> Ran {
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("toka runs");
        Ran::of("toka", args, &output, &self.desk.at(""))
    }

    /// Registers and approves a tool with these further lines of its `spec`.
    fn manifest(&self, name: &str, spec: &str) -> Ran {
        let file = format!("{name}.tool.yaml");
        let head = format!("metadata: {{ name: {name}, version: 1.0.0, description: Tries something. }}");
        self.write(&file, format!("apiVersion: toka/v1\nkind: Tool\n{head}\nspec:\n{spec}\n"));
        self.toka(&["tools", "register", &file, "--approve"])
    }

    /// A tool that does what it is told, with this access to the path it is given and these limits.
    fn tool(&self, name: &str, access: &str, sandbox: &str) {
        self.write(&format!("{name}.py"), PROGRAM);
        let spec = format!(
            "  run: {{ kind: python, path: {name}.py }}\n\
             \x20 params:\n\
             \x20   - {{ name: code, type: string, required: true, max_len: 65536 }}\n\
             \x20   - {{ name: path, type: path, required: true, access: [{access}] }}\n\
             \x20 outputs: {{ result: json }}\n\
             \x20 effect: idempotent\n\
             \x20 sandbox: {{ {sandbox} }}"
        );
        self.manifest(name, &spec).expect(0);
    }

    /// Calls a tool that does what it is told.
    fn call(&self, tool: &str, code: &str) -> Called {
        // As JSON, lest the code be taken for some.
        let code = format!("code={}", Value::from(code));
        self.call_with(tool, &["path=project:docs", &code])
    }

    fn call_with(&self, tool: &str, arguments: &[&str]) -> Called {
        let args = Lab::call_args(tool, arguments);
        self.called(self.toka(&args))
    }

    fn call_args<'a>(tool: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        let roots = ["--root", "project=project", "--root", "other=other", "--json"];
        [&["tools", "call", tool], arguments, &roots].concat()
    }

    /// What is in the store of a call that was told as JSON.
    fn called(&self, ran: Ran) -> Called {
        let said: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}\n{ran}"));
        let session = said["session"].as_str().expect("a session").to_owned();
        let mut finished = self.finished(&session);
        assert_eq!(finished.len(), 1, "one call, one end\n{ran}");
        let mut called = finished.remove(0);
        called.told = format!("{}{}", called.told, ran);
        called.exit = ran.exit;
        called
    }

    /// Every event of a session.
    fn events(&self, session: &str) -> Vec<(Entry, Event)> {
        let store = self.store();
        let mut sessions = store.sessions(None).map(|row| row.expect("row").session);
        let session = sessions.find(|id| id.to_string() == session).expect("the session");
        let rows = store.read(session, 0).map(|row| Entry::read(&row.expect("row").bytes).expect("entry"));
        rows.map(|entry| (entry.clone(), entry.event().expect("event").clone())).collect()
    }

    /// Verifies every session of the store. Those that are open may go on, so nothing is asked of their ends.
    fn verify(&self) {
        let checks = "frame,chain,signatures,keys,commands,legality,state,blobs";
        self.toka(&["replay", "verify", "--quiet", "--require", checks]).expect(0);
    }

    fn store(&self) -> SqliteReader {
        SqliteReader::open(self.desk.at("home/toka.sqlite")).expect("the store opens")
    }

    /// The ends of all calls of a session.
    fn finished(&self, session: &str) -> Vec<Called> {
        let store = self.store();
        let mut all = Vec::new();
        for (entry, event) in self.events(session) {
            let Body::CallFinished(finished) = &event.body else { continue };
            let blob = |index: Option<u16>| {
                let reference = event.blobs.get(usize::from(index?))?;
                Some(store.blob(entry.session(), reference.commitment).expect("blob reads")?.bytes)
            };
            let parsed = |bytes: Option<Vec<u8>>| bytes.map_or(Value::Null, |bytes| json(&bytes));
            let stderr = blob(finished.stderr).unwrap_or_default();
            all.push(Called {
                result: parsed(blob(finished.result)),
                record: parsed(blob(finished.record)),
                stdout: blob(finished.stdout).unwrap_or_default(),
                session: session.to_owned(),
                level: Level::Strong,
                told: String::from_utf8_lossy(&stderr[..stderr.len().min(1000)]).into_owned(),
                stderr,
                finished: (**finished).clone(),
                exit: None,
            });
        }
        all
    }

    /// Starts a run of agent files, the first of them on top.
    fn start(&self, files: &[(&str, &str)]) -> Live {
        files.iter().for_each(|(name, text)| self.write(name, text));
        self.live(&["run", files[0].0, "--root", "project=project", "--grant-requested", "--json"])
    }

    fn live(&self, args: &[&str]) -> Live {
        let mut child = self.command(args).stdout(Stdio::piped()).spawn().expect("toka runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Live { child, lines }
    }

    /// What the host shows of a folder: of each name kind, mode, owner, time and content.
    fn shown(&self, folder: &str) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        let mut due = vec![self.desk.at(folder)];
        while let Some(path) = due.pop() {
            let stat = fs::symlink_metadata(&path).expect("there");
            let content = if stat.is_file() { fs::read(&path).expect("reads") } else { Vec::new() };
            let (kind, owner, changed) = (stat.mode(), stat.uid(), (stat.mtime(), stat.mtime_nsec()));
            let what = format!("{kind:o} {owner} {changed:?} {}", String::from_utf8_lossy(&content));
            if stat.is_dir() {
                due.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("entry").path()));
            }
            shown.insert(path.display().to_string(), what);
        }
        shown
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// A call that has ended.
struct Called {
    finished: CallFinished,
    result: Value,
    record: Value,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    session: String,
    /// The level that its tool requires.
    level: Level,
    /// What was said, for failures.
    told: String,
    exit: Option<i32>,
}

impl Called {
    /// Kind, detail, number and symbol of the outcome, as in `limit-exceeded/5` or `start-failed/0 2 exec`.
    fn outcome(&self) -> String {
        let outcome = &self.finished.outcome;
        let number = outcome.number.map(|number| format!(" {number}")).unwrap_or_default();
        let symbol = outcome.symbol.as_ref().map(|symbol| format!(" {symbol}")).unwrap_or_default();
        // Of a failure the word is its symbol, which is told beside the kind here.
        let kind = outcome_word(&Outcome { symbol: None, ..outcome.clone() });
        format!("{kind}/{}{number}{symbol}", outcome.detail)
    }

    /// Fails unless the call ended so. A program that ran was confined as its tool requires.
    #[track_caller]
    fn ended(&self, outcome: &str) -> &Called {
        assert_eq!(self.outcome(), outcome, "{}\n{}", self.record, self.told);
        if let Some(sandbox) = &self.finished.sandbox {
            let level = self.level.number();
            assert_eq!((sandbox.required, sandbox.level), (level, level), "{}", self.told);
            assert_ne!((sandbox.layers, sandbox.landlock_abi, sandbox.jail), (0, 0, None), "{}", self.told);
        }
        self
    }

    /// What the program found, of a call that must have succeeded.
    #[track_caller]
    fn found(&self) -> &Value {
        &self.ended("succeeded/0").result
    }

    fn detail(&self) -> &str {
        self.record["detail"].as_str().unwrap_or_default()
    }
}

/// A `toka` that runs.
struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Live {
    /// The next line of its stdout; `None` at the end.
    fn line(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("text");
        Some(json(line.as_bytes()))
    }

    /// Reads on to the `count`-th line of this kind from here.
    #[track_caller]
    fn await_kind(&mut self, kind: &str, count: usize) -> Value {
        let mut last = Value::Null;
        for _ in 0..count {
            last = loop {
                let line = self.line().unwrap_or_else(|| panic!("it ended before {kind}, after {last}"));
                if line["kind"] == kind {
                    break line;
                }
            };
        }
        last
    }

    /// Reads on to the end; the last line.
    fn end(mut self) -> Value {
        let mut last = Value::Null;
        while let Some(line) = self.line() {
            last = line;
        }
        self.child.wait().expect("ends");
        last
    }

    /// The largest resident size that it has had, in KiB.
    fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Its processes and theirs, each with the time it began at.
    fn descendants(&self) -> BTreeSet<(u32, String)> {
        let (mut found, mut due) = (BTreeSet::new(), vec![self.child.id()]);
        while let Some(pid) = due.pop() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                due.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
            found.extend(began(pid).map(|time| (pid, time)));
        }
        found.retain(|(pid, _)| *pid != self.child.id());
        found
    }
}

/// When a process began, if it lives.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields[0] != "Z").then(|| fields[19].to_owned())
}

/// How many processes of the host have this text on their command line.
fn alive(text: &str) -> usize {
    let has = |process: fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|process| process.path().join("cmdline").exists())
        .map(has)
        .filter(|has| *has)
        .count()
}

/// Waits for something outside that no stream tells.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let latest = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < latest, "it never came: {what}");
        std::thread::yield_now();
    }
}
