//! What the rules need to know of a tool.

mod param;
mod probe;
mod run;
mod sandbox;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::denial::{Dim, numbered};
use crate::facts::{FactSpec, FactType, is_pointer, is_root};
use crate::hash::{Context, derive};
use crate::ids::Digest;
use crate::limits::{
    DESCRIPTION_CHARS_MAX, FACTS_MAX, NAME_SEGS_MAX, NEED_BYTES_MAX, NEEDS_MAX, PARAMS_MAX, TOOL_BYTES_MAX,
    TOOL_LABEL_BYTES_MAX, TOOL_LABEL_NAME_BYTES_MAX, TOOL_LABELS_MAX, TOOL_SPEC_BYTES_MAX,
};

pub use param::{Items, ParamSpec, ParamType, is_param_name};
pub use probe::{Probe, ProbeParam};
pub use run::{
    ArgvItem, Artifact, FIXED_ENV, Outputs, Pass, ResultKind, Run, RunKind, Stdin, TOOLCHAINS, is_argv_text,
    is_artifact_path, is_env_name, is_flag, is_program_path, may_set, place,
};
pub use sandbox::{Bound, Net, RunLimits, Sandbox, Secret, WasmLimits, WorkspaceKind, bounds, is_cwd};

numbered! {
    /// What may be done about a call whose outcome a crash has hidden.
    Effect: u8 {
        /// It changes nothing: run it again.
        Read = 1 "read",
        /// Running it again has the same end: run it again.
        Idempotent = 2 "idempotent",
        /// A probe tells whether it was done.
        Reconcile = 3 "reconcile",
        /// Never run it twice.
        Once = 4 "once",
    }
}

numbered! {
    /// Which kind of executor runs a call. The number less one is its bit in a principal's models.
    Model: u8 {
        /// A registered tool.
        Tool = 1 "tool",
        /// Code sent with the call.
        Code = 2 "code",
        /// An agent.
        Agent = 3 "agent",
    }
}

numbered! {
    /// How strongly a call is confined.
    Level: u8 {
        /// Not at all; such a call needs `admin:#unconfined`.
        None = 1 "none",
        /// By Landlock and a system call filter.
        Landlock = 2 "landlock",
        /// By namespaces as well.
        Strong = 3 "strong",
        /// No foreign code runs: the tool is part of the node and confines itself.
        Native = 4 "native",
    }
}

/// The parameter that holds the code, of a tool whose model is [`Model::Code`].
pub const SOURCE: &str = "source";

/// The part of a tool spec that decides, at most 4 KiB encoded. It stands in the event that binds the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its exact name.
    pub name: String,
    /// The digest of the whole spec.
    #[serde(rename = "dig")]
    pub digest: Digest,
    /// The facts it declares, at most 32, each pointer once.
    pub facts: Vec<FactDecl>,
    /// The needs it declares, the tool itself aside, at most 32.
    pub needs: Vec<Need>,
    /// Its effect class: the number of an [`Effect`].
    #[serde(rename = "eff")]
    pub effect: u8,
    /// The worst case per limited dimension; an absent dimension has none.
    #[serde(rename = "rsv")]
    pub reserve: Vec<Reserve>,
    /// Its execution model: the number of a [`Model`].
    #[serde(rename = "mod")]
    pub model: u8,
    /// The blob that holds the whole spec.
    pub text: u16,
}

/// A declared fact, as it stands in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactDecl {
    /// A JSON pointer (RFC 6901), at most 256 bytes.
    #[serde(rename = "ptr")]
    pub pointer: String,
    /// The number of a [`crate::facts::FactType`].
    #[serde(rename = "typ")]
    pub kind: u8,
}

/// A need: the text of a scope with holes over facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The template, at most 1,024 bytes.
    pub text: String,
    /// The pointer of a boolean fact without which the need does not apply.
    pub when: Option<String>,
}

/// The worst case of one limited dimension: `base + per × fact`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The number of the [`crate::denial::Dim`], 20 (bytes_in) to 25 (cpu_us); a call is always one call.
    pub dim: u16,
    /// The fixed part.
    pub base: u64,
    /// What one unit of the fact adds.
    pub per: u64,
    /// The pointer of an integer fact; absent in a call it counts as 0.
    #[serde(rename = "ptr")]
    pub pointer: Option<String>,
}

impl FactDecl {
    /// The declaration as [`crate::facts::extract`] takes it; `None` if its type has no such number.
    pub fn spec(&self) -> Option<FactSpec> {
        FactType::from_number(self.kind).map(|kind| FactSpec { pointer: self.pointer.clone(), kind })
    }
}

/// A whole tool, at most 64 KiB encoded: what decides, and what a caller must know to ask for it.
///
/// Its encoding is named msgpack with the field names below, frozen; its digest is what grants and calls cite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSpec {
    /// Its exact name.
    pub name: String,
    /// Its version, at most 64 bytes.
    #[serde(rename = "ver")]
    pub version: String,
    /// What it does, for those who choose tools: 1 to 1,024 characters without control characters.
    #[serde(rename = "desc")]
    pub description: String,
    /// The digest of what runs.
    #[serde(rename = "prog")]
    pub program: Digest,
    /// The facts it declares, at most 32, each pointer once.
    pub facts: Vec<FactDecl>,
    /// The needs it declares, the tool itself aside, at most 32.
    pub needs: Vec<Need>,
    /// Its effect class: the number of an [`Effect`].
    #[serde(rename = "eff")]
    pub effect: u8,
    /// The worst case per limited dimension, ascending; an absent dimension has none.
    #[serde(rename = "rsv")]
    pub reserve: Vec<Reserve>,
    /// Its execution model: the number of a [`Model`].
    #[serde(rename = "mod")]
    pub model: u8,
    /// The least confinement it may run under: the number of a [`Level`].
    #[serde(rename = "lvl")]
    pub level: u8,
    /// Whether two calls of it may run at a time in one session.
    #[serde(rename = "par")]
    pub parallel_safe: bool,
    /// Its parameters, at most 64, ascending by name.
    #[serde(rename = "prms")]
    pub params: Vec<ParamSpec>,
    /// What it answers, at most 1,024 characters without control characters.
    #[serde(rename = "out")]
    pub result: String,
    /// For people who look for tools, at most 32; not written when there are none.
    #[serde(rename = "lbls", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The foreign program behind it; a tool without one is part of the node. Not written when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// How it is found out whether an interrupted call was done. Not written when there is none.
    #[serde(rename = "prb", default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// Why bytes are no tool spec, or a spec has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolSpecError {
    /// More bytes than allowed.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The encoded length.
        bytes: usize,
        /// The bound: of the whole spec, or of its decision part.
        max: usize,
    },
    /// Not the one encoding of a tool spec.
    #[error("not the canonical encoding of a tool spec")]
    Encoding,
    /// A field outside its bounds or form.
    #[error("{field} is outside its bounds or form")]
    Form {
        /// The field.
        field: &'static str,
    },
}

impl ToolSpec {
    /// The canonical bytes, checked like [`ToolSpec::decode`] checks them.
    pub fn encode(&self) -> Result<Vec<u8>, ToolSpecError> {
        self.check()?;
        let bytes = rmp_serde::to_vec_named(self).map_err(|_| ToolSpecError::Encoding)?;
        within(bytes, TOOL_SPEC_BYTES_MAX)
    }

    /// Reads canonical bytes. Whatever is not exactly what [`ToolSpec::encode`] writes is refused.
    pub fn decode(bytes: &[u8]) -> Result<ToolSpec, ToolSpecError> {
        if bytes.len() > TOOL_SPEC_BYTES_MAX {
            return Err(ToolSpecError::TooLarge { bytes: bytes.len(), max: TOOL_SPEC_BYTES_MAX });
        }
        let spec: ToolSpec = rmp_serde::from_slice(bytes).map_err(|_| ToolSpecError::Encoding)?;
        if spec.encode()? == bytes { Ok(spec) } else { Err(ToolSpecError::Encoding) }
    }

    /// The digest that pins the tool.
    pub fn digest(&self) -> Result<Digest, ToolSpecError> {
        Ok(derive(Context::ToolSpec, &[&self.encode()?]))
    }

    /// The part that decides, with `text` the index of the blob that holds the whole; at most 4 KiB encoded.
    pub fn decision(&self, text: u16) -> Result<Tool, ToolSpecError> {
        let tool = Tool {
            name: self.name.clone(),
            digest: self.digest()?,
            facts: self.facts.clone(),
            needs: self.needs.clone(),
            effect: self.effect,
            reserve: self.reserve.clone(),
            model: self.model,
            text,
        };
        let bytes = rmp_serde::to_vec_named(&tool).map_err(|_| ToolSpecError::Encoding)?;
        within(bytes, TOOL_BYTES_MAX).map(|_| tool)
    }

    /// The declared facts as [`crate::facts::extract`] takes them.
    pub fn fact_specs(&self) -> Result<Vec<FactSpec>, ToolSpecError> {
        self.facts.iter().map(|fact| fact.spec().ok_or(ToolSpecError::Form { field: "facts" })).collect()
    }

    /// Checks the bounds and forms that can be seen without the state. Needs are parsed when the tool is bound.
    fn check(&self) -> Result<(), ToolSpecError> {
        let ascending = self.params.windows(2).all(|pair| pair[0].name < pair[1].name);
        let dims = self.reserve.windows(2).all(|pair| pair[0].dim < pair[1].dim);
        let rules = [
            (is_name(&self.name), "name"),
            (is_text(&self.version, 1, 64), "version"),
            (is_text(&self.description, 1, DESCRIPTION_CHARS_MAX), "description"),
            (self.facts.len() <= FACTS_MAX && self.facts.iter().all(|fact| self.may_declare(fact)), "facts"),
            (self.needs.len() <= NEEDS_MAX && self.needs.iter().all(|need| self.may_need(need)), "needs"),
            (Effect::from_number(self.effect).is_some(), "effect"),
            (dims && self.reserve.iter().all(|reserve| self.may_reserve(reserve)), "reserve"),
            (Model::from_number(self.model).is_some(), "model"),
            (Level::from_number(self.level).is_some(), "level"),
            (
                ascending && self.params.len() <= PARAMS_MAX && self.params.iter().all(|param| self.may_take(param)),
                "params",
            ),
            (is_text(&self.result, 0, DESCRIPTION_CHARS_MAX), "result"),
            (self.labels.len() <= TOOL_LABELS_MAX && self.labels.iter().all(is_label), "labels"),
            (self.may_probe(), "probe"),
            (self.may_be_code(), "model"),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds).map(|(_, field)| *field);
        let run = || self.run.as_ref().and_then(|run| run.fault(self.level, &self.params));
        match broken.or_else(run) {
            Some(field) => Err(ToolSpecError::Form { field }),
            None => Ok(()),
        }
    }

    fn may_declare(&self, fact: &FactDecl) -> bool {
        let kind = FactType::from_number(fact.kind);
        is_pointer(&fact.pointer) && kind.is_some_and(|kind| self.declares(&fact.pointer, kind))
    }

    /// A path or host that were no fact would be out of reach of every need and every constraint.
    fn may_take(&self, param: &ParamSpec) -> bool {
        let fact = match ParamType::from_number(param.kind) {
            Some(ParamType::Path) => Some(FactType::Path),
            Some(ParamType::Host) => Some(FactType::Host),
            Some(
                ParamType::String
                | ParamType::Integer
                | ParamType::Boolean
                | ParamType::Enum
                | ParamType::Array
                | ParamType::Json,
            )
            | None => None,
        };
        param.is_sound() && fact.is_none_or(|kind| self.declares(&format!("/{}", param.name), kind))
    }

    fn may_need(&self, need: &Need) -> bool {
        need.text.len() <= NEED_BYTES_MAX && need.when.as_ref().is_none_or(|when| self.declares(when, FactType::Bool))
    }

    fn may_probe(&self) -> bool {
        let reconciles = Effect::from_number(self.effect) == Some(Effect::Reconcile);
        match &self.probe {
            Some(probe) => reconciles && probe.is_sound(&self.params),
            None => !reconciles,
        }
    }

    /// Code comes with the call: as the argument `source`, for a program that says how it is run.
    fn may_be_code(&self) -> bool {
        let is_source =
            |param: &ParamSpec| param.name == SOURCE && param.required && param.kind == ParamType::String.number();
        match Model::from_number(self.model) {
            Some(Model::Code) => self.run.is_some() && self.params.iter().any(is_source),
            Some(Model::Tool | Model::Agent) | None => true,
        }
    }

    fn may_reserve(&self, reserve: &Reserve) -> bool {
        let pointer = reserve.pointer.as_ref();
        (Dim::BytesIn.number()..=Dim::CpuUs.number()).contains(&reserve.dim)
            && pointer.map_or(reserve.per == 0, |pointer| self.declares(pointer, FactType::Int))
    }

    fn declares(&self, pointer: &str, kind: FactType) -> bool {
        let mut named = self.facts.iter().filter(|fact| fact.pointer == pointer);
        named.next().is_some_and(|fact| fact.kind == kind.number()) && named.next().is_none()
    }
}

fn is_label((name, text): (&String, &String)) -> bool {
    let bounded = (1..=TOOL_LABEL_NAME_BYTES_MAX).contains(&name.len()) && text.len() <= TOOL_LABEL_BYTES_MAX;
    bounded && !name.chars().chain(text.chars()).any(char::is_control)
}

fn within(bytes: Vec<u8>, max: usize) -> Result<Vec<u8>, ToolSpecError> {
    if bytes.len() <= max { Ok(bytes) } else { Err(ToolSpecError::TooLarge { bytes: bytes.len(), max }) }
}

fn is_name(name: &str) -> bool {
    name.split('.').count() <= NAME_SEGS_MAX && name.split('.').all(is_root)
}

fn is_text(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}
