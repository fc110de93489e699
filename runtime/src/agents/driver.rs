//! The driver of an agent: from what the log says to what the agent asks next, whatever its program is.
//!
//! A driver owns no clock, no file, no randomness and no hash map, so the same transcript gives the same commands, live,
//! after a crash and in a replay.

use super::ask::Next;
use super::model_driver::ModelDriver;
use super::script_driver::ScriptDriver;
use super::spec::AgentSpec;
use super::transcript::Transcript;

/// How far an agent has come.
///
/// It only remembers: what it answers follows from the spec and the transcript alone, and a new driver over the same
/// transcript answers the same.
#[derive(Clone, Debug)]
pub struct Driver(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Script(Box<ScriptDriver>),
    Model(Box<ModelDriver>),
}

impl Driver {
    /// A driver that has read nothing yet.
    pub fn new(spec: &AgentSpec) -> Driver {
        Driver(match spec.agent().model {
            Some(_) => Kind::Model(Box::new(ModelDriver::new(spec))),
            None => Kind::Script(Box::new(ScriptDriver::new(spec))),
        })
    }

    /// What the agent does next, computed from nothing but the spec and the transcript.
    pub fn next(spec: &AgentSpec, transcript: &Transcript) -> Next {
        Driver::new(spec).advance(transcript)
    }

    /// The same, going on from where the last call stopped. The transcript must be the same one or a later one.
    pub fn advance(&mut self, transcript: &Transcript) -> Next {
        match &mut self.0 {
            Kind::Script(driver) => driver.advance(transcript),
            Kind::Model(driver) => driver.advance(transcript),
        }
    }
}
