//! The parser of capabilities, scopes and need templates: one pass, total, bounded.
//!
//! Here is the shape, `kind:body#ops?key=value&key`, and its keys; the values are read in `value.rs`.

use std::collections::BTreeSet;

use super::admin::{AdminOp, AdminScope};
use super::argument::{ArgC, Pointer};
use super::pattern::{ExactName, NamePat, PathPat};
use super::scope::{AgentScope, FsOp, FsOps, FsScope, Scope, ToolScope};
use super::template::Hole;
use super::{Capability, Limits, Rate, Use};
use crate::denial::{Code, Dim};
use crate::facts::FactSpec;
use crate::ids::{Digest, TimeUs};
use crate::limits::{ARGS_MAX, CAPABILITY_TEXT_BYTES_MAX, DEPTH_MAX, DIGESTS_MAX, GATES_MAX};

/// What is wrong with a text, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}: {hint}")]
pub struct TextError {
    /// The code of the denial.
    pub code: Code,
    /// The byte at which reading stopped.
    pub at: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl Capability {
    /// Reads the text of a capability of at most 8 KiB. Beyond the canonical text it takes keys and sets in any order,
    /// `_` between digits, `KB`, `KiB` and so on for bytes, and `never` for a time.
    ///
    /// # Errors
    /// Code, place and hint for the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Capability, TextError> {
        Parser::new(text, Mode::Capability { base_us: None }).capability()
    }

    /// As [`Capability::parse`], and takes times relative to `base_us`: `exp=+30m`.
    ///
    /// # Errors
    /// As [`Capability::parse`].
    pub fn parse_at(text: &str, base_us: TimeUs) -> Result<Capability, TextError> {
        Parser::new(text, Mode::Capability { base_us: Some(base_us) }).capability()
    }
}

impl Scope {
    /// Reads the text of a scope: that of a capability without `use`, `depth`, amounts, rate, times and gates.
    ///
    /// # Errors
    /// As [`Capability::parse`].
    pub fn parse(text: &str) -> Result<Scope, TextError> {
        Parser::new(text, Mode::Scope).capability().map(|capability| capability.scope)
    }
}

/// Reads a scope with holes over these facts.
pub(super) fn template(text: &str, facts: &[FactSpec]) -> Result<(Scope, Vec<Hole>), TextError> {
    let mut parser = Parser::new(text, Mode::Template { facts });
    let capability = parser.capability()?;
    Ok((capability.scope, parser.holes))
}

/// What kind of text is read.
#[derive(Clone, Copy)]
pub(super) enum Mode<'t> {
    Capability { base_us: Option<TimeUs> },
    Scope,
    Template { facts: &'t [FactSpec] },
}

/// A position in a text. Invariant: `at` is a character boundary.
pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
    pub(super) mode: Mode<'t>,
    pub(super) holes: Vec<Hole>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tool,
    Fs,
    Agent,
    Model,
    Admin,
}

/// Kinds of the grammar that no rule uses yet.
const LATER_KINDS: [&str; 4] = ["net", "proc", "code", "secret"];

/// What the keys said. `seen` holds each key but those of arguments.
#[derive(Default)]
struct Keys<'t> {
    seen: Vec<&'t str>,
    use_: Use,
    depth: u8,
    digest: Option<Vec<Digest>>,
    args: Vec<(Pointer, ArgC)>,
    closed: bool,
    live: Option<u32>,
    limits: Limits,
    nbf_us: Option<TimeUs>,
    exp_us: Option<TimeUs>,
    gates: BTreeSet<ExactName>,
}

enum Body {
    Tool(NamePat),
    Fs(PathPat, FsOps),
    Agent(NamePat),
    Model(NamePat),
    Admin(AdminScope),
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, mode: Mode<'t>) -> Parser<'t> {
        Parser { text, at: 0, mode, holes: Vec::new() }
    }

    fn capability(&mut self) -> Result<Capability, TextError> {
        if self.text.len() > CAPABILITY_TEXT_BYTES_MAX {
            return self.fail_at(CAPABILITY_TEXT_BYTES_MAX, Code::Malformed, "text too long", "at most 8,192 bytes");
        }
        let kind = self.kind()?;
        let body = match kind {
            Kind::Tool => Body::Tool(self.name()?),
            Kind::Fs => self.path().and_then(|path| Ok(Body::Fs(path, self.ops()?)))?,
            Kind::Agent => Body::Agent(self.name()?),
            Kind::Model => Body::Model(self.name()?),
            Kind::Admin => Body::Admin(self.admin()?),
        };
        let keys = self.keys(kind)?;
        let scope = match body {
            Body::Tool(name) => ToolScope::new(name, keys.digest, keys.args, keys.closed).map(Scope::Tool),
            Body::Fs(path, ops) => FsScope::new(path, ops).map(Scope::Fs),
            Body::Admin(scope) => Ok(Scope::Admin(scope)),
            Body::Model(name) => Ok(Scope::Model(name)),
            Body::Agent(spec) => Ok(Scope::Agent(AgentScope { spec, live: keys.live })),
        };
        let Ok(scope) = scope else {
            // Sets were checked as they were read, so what is left is `delete` without anything below.
            let hint = "`delete-self` is for the path itself, `/**` reaches below it";
            return self.fail(Code::Malformed, "nothing to delete below one path", hint);
        };
        if keys.exp_us.is_some_and(|exp| keys.nbf_us.unwrap_or(0) >= exp) {
            return self.fail(Code::Malformed, "a capability that is never valid", "`nbf` must be less than `exp`");
        }
        Ok(Capability {
            scope,
            use_: keys.use_,
            depth: keys.depth,
            limits: keys.limits,
            nbf_us: keys.nbf_us,
            exp_us: keys.exp_us,
            gates: keys.gates,
        })
    }

    fn kind(&mut self) -> Result<Kind, TextError> {
        let word = self.until(b":");
        let kind = match word {
            "tool" => Kind::Tool,
            "fs" => Kind::Fs,
            "agent" => Kind::Agent,
            "model" => Kind::Model,
            "admin" => Kind::Admin,
            later if LATER_KINDS.contains(&later) => {
                let what = format!("the kind `{later}` is known but not built yet");
                return self.fail_at(0, Code::Malformed, what, "tool, fs, agent, model and admin are");
            }
            _ => {
                return self.fail_at(
                    0,
                    Code::Malformed,
                    "no kind of capability",
                    "begin with `tool:`, `fs:`, `agent:`, `model:` or `admin:`",
                );
            }
        };
        self.expect(b':', "a colon follows the kind")?;
        Ok(kind)
    }

    fn ops(&mut self) -> Result<FsOps, TextError> {
        let hint = "end with `#` and some of create, delete, delete-self, exec, list, read, write";
        self.expect(b'#', hint)?;
        let at = self.at;
        let mut ops = FsOps::NONE;
        for word in self.until(b"?").split(',') {
            let op = FsOp::ALL.iter().copied().find(|op| op.name() == word);
            match op {
                Some(op) if !ops.has(op) => ops = ops.with(op),
                Some(_) => return self.fail_at(at, Code::Malformed, format!("`{word}` twice"), "name each once"),
                None => return self.fail_at(at, Code::Malformed, "not a file operation", hint),
            }
        }
        Ok(ops)
    }

    fn admin(&mut self) -> Result<AdminScope, TextError> {
        let hint = "`admin:#` and some of approve, cancel, erase, export, grant-root, keys, members, open-session, \
                    pause, policy, read-log, register-tool, resolve, revoke-any, unconfined";
        self.expect(b'#', hint)?;
        let at = self.at;
        let mut ops = Vec::new();
        for word in self.until(b"?").split(',') {
            match AdminOp::ALL.iter().copied().find(|op| op.name() == word) {
                Some(op) if !ops.contains(&op) => ops.push(op),
                Some(_) => return self.fail_at(at, Code::Malformed, format!("`{word}` twice"), "name each once"),
                None => return self.fail_at(at, Code::Malformed, "not an administrative operation", hint),
            }
        }
        match AdminScope::new(&ops) {
            Ok(scope) => Ok(scope),
            Err(code) => self.fail_at(at, code, "no administrative operation", hint),
        }
    }

    fn keys(&mut self, kind: Kind) -> Result<Keys<'t>, TextError> {
        let mut keys = Keys::default();
        if self.is_end() {
            return Ok(keys);
        }
        self.expect(b'?', "keys follow `?`, operations of files `#`")?;
        loop {
            if self.eat_str("arg.") {
                self.argument_key(kind, &mut keys)?;
            } else {
                self.key(kind, &mut keys)?;
            }
            if self.is_end() {
                return Ok(keys);
            }
            self.expect(b'&', "the next key follows `&`")?;
        }
    }

    fn argument_key(&mut self, kind: Kind, keys: &mut Keys<'t>) -> Result<(), TextError> {
        let at = self.at;
        if kind != Kind::Tool {
            return self.fail_at(
                at,
                Code::Malformed,
                "an argument of something else than a tool",
                "only `tool:` has arguments",
            );
        }
        let pointer = self.pointer()?;
        if keys.args.iter().any(|(known, _)| *known == pointer) {
            return self.fail_at(at, Code::Malformed, "an argument twice", "constrain each pointer once");
        }
        if keys.args.len() == ARGS_MAX {
            return self.fail_at(at, Code::Malformed, "too many arguments", "at most 32");
        }
        self.expect(b'=', "a constraint follows `=`")?;
        let arg = self.argument(&pointer)?;
        keys.args.push((pointer, arg));
        Ok(())
    }

    fn key(&mut self, kind: Kind, keys: &mut Keys<'t>) -> Result<(), TextError> {
        let at = self.at;
        let key = self.take_while(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if key.is_empty() {
            return self.fail_at(at, Code::Malformed, "no key", self.key_hint(kind));
        }
        if keys.seen.contains(&key) {
            return self.fail_at(at, Code::Malformed, format!("`{key}` twice"), "give each key once");
        }
        let allowed = match (key, self.mode) {
            ("digest" | "closed", _) => kind == Kind::Tool,
            ("live", _) => kind == Kind::Agent,
            (_, Mode::Capability { .. }) => true,
            (_, Mode::Scope | Mode::Template { .. }) => false,
        };
        if !allowed {
            return self.fail_at(at, Code::Malformed, format!("no key `{key}` here"), self.key_hint(kind));
        }
        keys.seen.push(key);
        if key == "closed" {
            keys.closed = true;
            return Ok(());
        }
        self.expect(b'=', "a value follows `=`")?;
        let value_at = self.at;
        let value = self.until(b"&");
        match key {
            "use" => keys.use_ = self.use_value(value_at, value)?,
            "depth" => keys.depth = self.number(value_at, value, u64::from(DEPTH_MAX))?,
            "digest" => keys.digest = Some(self.digests(value_at, value)?),
            "live" => keys.live = Some(self.number(value_at, value, u64::from(u32::MAX))?),
            "rate" => keys.limits.rate = Some(self.rate(value_at, value)?),
            "nbf" => keys.nbf_us = Some(self.time(value_at, value)?),
            "exp" => keys.exp_us = Some(self.time(value_at, value)?),
            "gate" => keys.gates = self.gates(value_at, value)?,
            _ => match Limits::DIMS.iter().position(|dim| dim.name() == key) {
                Some(index) => keys.limits.amounts[index] = Some(self.amount(value_at, value, Limits::DIMS[index])?),
                None => return self.fail_at(at, Code::Malformed, format!("no key `{key}`"), self.key_hint(kind)),
            },
        }
        Ok(())
    }

    fn key_hint(&self, kind: Kind) -> String {
        let own = match kind {
            Kind::Tool => "digest arg.POINTER closed",
            Kind::Fs | Kind::Model | Kind::Admin => "",
            Kind::Agent => "live",
        };
        let all = "use depth calls bytes_in bytes_out tokens cost_micro wall_us cpu_us rate nbf exp gate";
        match self.mode {
            Mode::Capability { .. } => format!("keys are {own} {all}"),
            Mode::Scope | Mode::Template { .. } => format!("a scope has the keys {own}, and neither limits nor times"),
        }
    }

    fn use_value(&self, at: usize, value: &str) -> Result<Use, TextError> {
        match [Use::No, Use::Convey, Use::Yes].into_iter().find(|known| known.name() == value) {
            Some(known) => Ok(known),
            None => self.fail_at(at, Code::Malformed, "not a use", "no, convey or yes"),
        }
    }

    fn digests(&self, at: usize, value: &str) -> Result<Vec<Digest>, TextError> {
        let digests: Option<BTreeSet<Digest>> = value.split(',').take(DIGESTS_MAX + 1).map(Digest::from_hex).collect();
        match digests {
            Some(digests) if digests.len() == value.split(',').count() => Ok(digests.into_iter().collect()),
            Some(_) | None => self.fail_at(
                at,
                Code::Malformed,
                "no set of digests",
                "1 to 16 different digests of 64 lower-case hex digits, separated by `,`",
            ),
        }
    }

    fn gates(&self, at: usize, value: &str) -> Result<BTreeSet<ExactName>, TextError> {
        let mut gates = BTreeSet::new();
        for word in value.split(',') {
            let Ok(gate) = ExactName::parse(word) else {
                return self.fail_at(at, Code::BadName, "not the name of a policy", "names separated by `,`");
            };
            if !gates.insert(gate) || gates.len() > GATES_MAX {
                return self.fail_at(at, Code::Malformed, "a gate twice, or too many", "at most 8, each once");
            }
        }
        Ok(gates)
    }

    fn rate(&self, at: usize, value: &str) -> Result<Rate, TextError> {
        let rate = value.split_once('/').and_then(|(burst, period)| {
            Rate::new(super::value::whole(period)?, u32::try_from(super::value::whole(burst)?).ok()?)
        });
        match rate {
            Some(rate) => Ok(rate),
            None => self.fail_at(
                at,
                Code::Malformed,
                "not a rate",
                "`burst/period_us`: burst 1 to 1,000,000, period at least 1, their product at most 10^16",
            ),
        }
    }

    /// An amount; bytes may have a unit.
    fn amount(&self, at: usize, value: &str, dim: Dim) -> Result<u64, TextError> {
        let is_bytes = dim == Dim::BytesIn || dim == Dim::BytesOut;
        let units = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
        ];
        let (digits, unit) = units
            .into_iter()
            .filter(|_| is_bytes)
            .find_map(|(name, unit)| Some((value.strip_suffix(name)?, unit)))
            .unwrap_or((value, 1));
        match super::value::whole(digits).and_then(|amount| amount.checked_mul(unit)) {
            Some(amount) => Ok(amount),
            None => self.fail_at(at, Code::BadAmount, "not an amount", "a whole number of 0 to 2^64 - 1"),
        }
    }
}

/// Whether a segment or pointer token may stand without quotes.
pub(super) fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_bare_byte)
}

pub(super) fn is_bare_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'+' | b'~' | b'-')
}
