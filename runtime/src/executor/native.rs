//! Native calls: tools of this program, confined beneath the directories their grants name.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use toka_kernel::body::v1::Outcome;
use toka_kernel::capability::{FsOp, FsOps, FsScope, Scope, parse_path_fact};
use toka_kernel::facts::FactType;
use toka_kernel::{AdmittedCall, Dim};
use toka_tools::{Cancel, Granted, Handed, NativeTool, Ops, Request, ToolFailure, canonical, check, registry};

use super::{Ended, Roots, Stop, Tool, Work, claims, grains, outcome};

/// The native tools this program ships.
pub fn native_tools() -> Vec<Tool> {
    registry().into_iter().map(|tool| Tool::Native(Arc::from(tool))).collect()
}

/// Runs one call to its end. Whatever happens, there is an outcome.
pub(super) fn run(work: &Work, tool: &dyn NativeTool, roots: &Roots) -> Ended {
    let began = Instant::now();
    let ran = run_tool(work, tool, roots);
    let wall = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    let bytes_in = grains(work.arguments.as_ref().map_or(0, Vec::len));
    let (outcome, result, record) = match ran {
        Ok(result) => match bounded(&work.call, result) {
            Ok(result) => (outcome::plain(outcome::SUCCEEDED, 0), Some(result), None),
            Err(too_large) => (too_large, None, None),
        },
        Err(Stop { outcome, detail }) => {
            let record = (!detail.is_empty()).then(|| json!({ "detail": detail }).to_string().into_bytes());
            (outcome, None, record)
        }
    };
    let bytes_out = result.as_ref().map_or(0, |result| grains(result.len()));
    Ended {
        call: work.call.id(),
        attempt: work.call.attempt(),
        outcome,
        // Without CPU time: a thread shared by calls has none that is theirs alone.
        actual: vec![1, bytes_in, bytes_out, 0, 0, wall],
        stdout: None,
        stderr: None,
        result,
        record,
        sandbox: None,
        usage: None,
        wasm: None,
    }
}

fn run_tool(work: &Work, tool: &dyn NativeTool, roots: &Roots) -> Result<Value, Stop> {
    let call = &work.call;
    if tool.spec().digest().ok() != Some(call.digest()) {
        return Err(Stop::new(outcome::PIN_MISMATCH, 0, None, "this program ships another version of the tool"));
    }
    let (specs, bytes) = claims(tool.spec(), work)?;
    let declined = |what: String| Stop::new(outcome::DECLINED, outcome::DETAIL_CLAIMS, None, what);
    let arguments = check(tool.spec(), bytes).map_err(|error| declined(error.to_string()))?;
    let dirs = open_dirs(call, &specs, roots).map_err(failed)?;
    let control = Control { stop: &work.stop, until: work.until };
    let request = Request { call_id: call.id(), time_us: call.at(), arguments: &arguments, dirs: &dirs };
    match catch_unwind(AssertUnwindSafe(|| tool.run(&request, &control))) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(failure)) if failure.symbol == ToolFailure::CANCELLED => Err(control.stopped()),
        Ok(Err(failure)) => Err(failed(failure)),
        Err(_) => Err(Stop::new(outcome::FAILED, 0, Some("panic"), "the tool panicked")),
    }
}

fn failed(failure: ToolFailure) -> Stop {
    Stop::new(outcome::FAILED, 0, Some(failure.symbol), failure.detail)
}

/// Stops a tool at its deadline or when its authority has gone.
struct Control<'a> {
    stop: &'a AtomicBool,
    until: Instant,
}

impl Cancel for Control<'_> {
    fn requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

impl Control<'_> {
    fn stopped(&self) -> Stop {
        if self.stop.load(Ordering::Relaxed) {
            Stop::new(outcome::CANCELLED, outcome::DETAIL_REVOKED, None, "its grant was revoked or the node stops")
        } else {
            Stop::new(outcome::TIMED_OUT, 0, None, "")
        }
    }
}

/// The result as bytes, if it is within what was promised for it.
fn bounded(call: &AdmittedCall, result: Value) -> Result<Vec<u8>, Outcome> {
    let bytes = canonical(&result).map_err(|_| outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_OUTPUT))?;
    match call.reserve(Dim::BytesOut) {
        Some(most) if grains(bytes.len()) > most => {
            Err(outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_OUTPUT))
        }
        Some(_) | None => Ok(bytes),
    }
}

/// Opens, for each path fact, the prefix that its grant names; the tool gets that and nothing else.
fn open_dirs(
    call: &AdmittedCall,
    specs: &[toka_kernel::facts::FactSpec],
    roots: &Roots,
) -> Result<BTreeMap<String, Handed>, ToolFailure> {
    let mut dirs = BTreeMap::new();
    for spec in specs.iter().filter(|spec| spec.kind == FactType::Path) {
        let fact = call.facts().iter().find(|fact| fact.pointer == spec.pointer);
        let Some(path) = fact.and_then(|fact| fact.text.as_deref()) else { continue };
        if let Some((granted, ops)) = grant_of(call, path) {
            dirs.insert(spec.pointer.clone(), open_one(granted, path, ops, roots)?);
        }
    }
    Ok(dirs)
}

/// The grant that covers the needs of `path`, and the operations that are both needed and granted. Where a path has
/// several needs, the one below which most is needed decides.
fn grant_of<'a>(call: &'a AdmittedCall, path: &str) -> Option<(&'a FsScope, FsOps)> {
    let named = parse_path_fact(path).ok()?;
    let mut found: Option<(&FsScope, FsOps, bool)> = None;
    for need in call.envelope() {
        let (Scope::Fs(scope), Scope::Fs(within)) = (&need.scope, &need.within) else { continue };
        if *scope.path().anchor() != named {
            continue;
        }
        let wide = scope.path().is_under();
        let ops = scope.ops().and(within.ops());
        found = Some(match found {
            Some((grant, known, true)) if !wide => (grant, union(known, ops), true),
            Some((_, known, _)) => (within, union(known, ops), wide),
            None => (within, ops, wide),
        });
    }
    found.map(|(grant, ops, _)| (grant, ops))
}

fn union(a: FsOps, b: FsOps) -> FsOps {
    b.iter().fold(a, FsOps::with)
}

fn open_one(granted: &FsScope, path: &str, ops: FsOps, roots: &Roots) -> Result<Handed, ToolFailure> {
    let anchor = granted.path().anchor();
    let root = roots.get(anchor.root()).ok_or_else(|| ToolFailure {
        symbol: ToolFailure::DENIED,
        detail: format!("no directory is given for the root `{}`", anchor.root()),
    })?;
    let segments: Vec<&str> = anchor.segments().collect();
    let granted = Granted { segments: &segments, exact: !granted.path().is_under() };
    let mut allowed: Option<Ops> = None;
    for op in ops.iter() {
        let op = match op {
            FsOp::Read => Ops::READ,
            FsOp::List => Ops::LIST,
            FsOp::Write => Ops::WRITE,
            FsOp::Create => Ops::CREATE,
            // No native tool deletes or executes.
            FsOp::Delete | FsOp::DeleteSelf | FsOp::Exec => continue,
        };
        allowed = Some(allowed.map_or(op, |known| known | op));
    }
    let allowed = allowed
        .ok_or_else(|| ToolFailure { symbol: ToolFailure::DENIED, detail: "no operation is granted".to_owned() })?;
    Handed::open(root.as_fd(), granted, path, allowed)
}
