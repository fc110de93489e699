//! How a tool finds out, after a crash, whether a call of another was done.

use serde::{Deserialize, Serialize};

use super::{ParamSpec, is_name, is_param_name};
use crate::limits::{PARAMS_MAX, SCALAR_BYTES_MAX};

/// The call that tells whether an interrupted call was done: present in a [`super::ToolSpec`] iff its effect class is
/// reconcile. The tool it names is of class read and answers `done`, `not_done` or `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The exact name of the tool that is asked.
    pub tool: String,
    /// What it is asked, ascending by name, at most 64.
    #[serde(rename = "prms")]
    pub params: Vec<ProbeParam>,
}

/// One argument of a probe: a value, an argument of the interrupted call, or, where both are absent, its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeParam {
    /// The parameter of the probe.
    pub name: String,
    /// A scalar as JSON, at most 256 bytes.
    #[serde(rename = "val")]
    pub value: Option<String>,
    /// The parameter of the interrupted call whose argument is handed on; left out where that has none.
    pub arg: Option<String>,
}

impl Probe {
    pub(super) fn is_sound(&self, params: &[ParamSpec]) -> bool {
        let ascending = self.params.windows(2).all(|pair| pair[0].name < pair[1].name);
        let known = |name: &String| params.iter().any(|param| param.name == *name);
        let sound = |param: &ProbeParam| {
            let one = param.value.is_none() || param.arg.is_none();
            let short = param.value.as_ref().is_none_or(|value| value.len() <= SCALAR_BYTES_MAX);
            one && short && is_param_name(&param.name) && param.arg.as_ref().is_none_or(known)
        };
        is_name(&self.tool) && ascending && self.params.len() <= PARAMS_MAX && self.params.iter().all(sound)
    }
}
