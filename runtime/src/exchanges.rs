//! What was asked of models and what they answered, as the log of a session has it.

use std::collections::BTreeMap;

use serde_json::Value;
use toka_kernel::body::v1::{CallAdmitted, CallFinished, Outcome, Usage};
use toka_kernel::ids::{CallId, Commitment, PrincipalId, Seq, SessionId, derived};
use toka_kernel::tool::{Model as ExecutionModel, ToolSpec};
use toka_kernel::{Body, Entry, Event};
use toka_store::{ReadError, ReadLog};

use crate::engine::open_blob;
use crate::executor::Asked;
use crate::gateway::recorded::Record;
use crate::gateway::{Answer, Failure, Fault, Raw, RawKind, Reply, Usage as Counted};
use crate::session::Conversations;

/// One call of a model.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The call.
    pub call: CallId,
    /// The entry that admitted it.
    pub seq: Seq,
    /// The model, by its name as a tool.
    pub tool: String,
    /// Who asked.
    pub agent: PrincipalId,
    /// Whose conversation it belongs to: the name of the agent.
    pub lane: String,
    /// Which request of the lane it is, from 0.
    pub ordinal: u64,
    /// The body of the request, byte for byte; `None` where a piece of it is erased.
    pub request: Option<Vec<u8>>,
    /// How it ended, once it has.
    pub ended: Option<Ended>,
}

/// How a call of a model ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The outcome.
    pub outcome: Outcome,
    /// What the model said; `None` where it said nothing or the blob is erased.
    pub answer: Option<Answer>,
    /// The body of the answer as it came, without secrets.
    pub raw: Option<Vec<u8>>,
    /// What it took.
    pub usage: Option<Usage>,
    /// More about how it went.
    pub record: Option<Value>,
}

/// The exchanges of a session, and the models that it asked.
#[derive(Clone, Debug, Default)]
pub struct Exchanges {
    /// In the order in which they were admitted.
    pub exchanges: Vec<Exchange>,
    /// The specs of the models, as they are bound.
    pub models: Vec<ToolSpec>,
}

impl Exchanges {
    /// Reads the exchanges of a session. Entries are not verified here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(log: &dyn ReadLog, session: SessionId) -> Result<Exchanges, ReadError> {
        let mut reader = Reader { log, session, conversations: Conversations::default(), found: Exchanges::default() };
        let mut at: BTreeMap<CallId, usize> = BTreeMap::new();
        for row in log.read(session, 0) {
            let Ok(entry) = Entry::read(&row?.bytes) else { continue };
            let Ok(event) = entry.event() else { continue };
            if let Body::ToolBound(bound) = &event.body {
                for bound in bound.tools.iter().filter(|bound| is_model(bound.tool.model)) {
                    let text = reader.blob(event, Some(bound.tool.text))?;
                    reader.found.models.extend(text.and_then(|text| ToolSpec::decode(&text).ok()));
                }
            }
            if let Body::CallAdmitted(admitted) = &event.body
                && is_model(admitted.model)
            {
                let call = CallId(derived(session, entry.header().seq, 0));
                at.insert(call, reader.found.exchanges.len());
                reader.admitted(call, &entry, event, admitted)?;
            }
            if let Body::CallFinished(finished) = &event.body
                && let Some(index) = at.get(&finished.call)
            {
                let ended = reader.ended(event, finished)?;
                reader.found.exchanges[*index].ended = Some(ended);
            }
        }
        Ok(reader.found)
    }

    /// What a recorded provider answers from: the exchanges that have ended and of which everything is kept.
    pub fn records(&self) -> Vec<Record> {
        self.exchanges.iter().filter_map(Exchange::record).collect()
    }
}

impl Exchange {
    fn record(&self) -> Option<Record> {
        let ended = self.ended.as_ref()?;
        let usage = ended.usage.as_ref().filter(|usage| !usage.estimated).map(|usage| Counted {
            tokens_in: usage.tokens_in,
            tokens_cached: usage.tokens_cached,
            tokens_out: usage.tokens_out,
        });
        let status = ended.usage.as_ref().map_or(0, |usage| usage.status);
        let number = |name: &str| ended.record.as_ref()?.get(name)?.as_u64();
        let attempts = number("attempts").and_then(|count| u16::try_from(count).ok()).unwrap_or(1);
        let raw = ended.raw.clone().unwrap_or_default();
        let ended = match (&ended.answer, ended.outcome.symbol.as_deref().and_then(Fault::of_symbol)) {
            (Some(answer), None) => {
                let word = ended.record.as_ref()?.get("body")?.as_str()?;
                Ok(Reply {
                    parts: answer.parts.clone(),
                    stop: answer.stop.clone(),
                    usage,
                    model: answer.model.clone(),
                    status,
                    raw: Raw { kind: RawKind::of_name(word)?, bytes: raw },
                    attempts,
                    first_byte_us: number("first_byte_us").unwrap_or(0),
                })
            }
            (None, Some(fault)) => Err(Failure {
                fault,
                status,
                detail: "as it was recorded".to_owned(),
                raw,
                usage,
                attempts,
                reached: ended.usage.is_some(),
            }),
            (None, None) | (Some(_), Some(_)) => return None,
        };
        Some(Record { lane: self.lane.clone(), ordinal: self.ordinal, body: self.request.clone()?, ended })
    }
}

fn is_model(number: u8) -> bool {
    ExecutionModel::from_number(number) == Some(ExecutionModel::Agent)
}

struct Reader<'l> {
    log: &'l dyn ReadLog,
    session: SessionId,
    conversations: Conversations,
    found: Exchanges,
}

impl Reader<'_> {
    fn open(&self, commitment: Commitment) -> Result<Option<Vec<u8>>, ReadError> {
        open_blob(self.log, self.session, commitment)
    }

    fn blob(&self, event: &Event, index: Option<u16>) -> Result<Option<Vec<u8>>, ReadError> {
        let found = index.and_then(|index| event.blobs.get(usize::from(index)));
        found.map_or(Ok(None), |found| self.open(found.commitment))
    }

    fn admitted(
        &mut self,
        call: CallId,
        entry: &Entry,
        event: &Event,
        admitted: &CallAdmitted,
    ) -> Result<(), ReadError> {
        let (log, session) = (self.log, self.session);
        let read = |commitment| open_blob(log, session, commitment);
        self.conversations.note(&event.blobs, &read)?;
        let arguments = self.blob(event, Some(admitted.args))?.unwrap_or_default();
        let request = self.conversations.body(&arguments, &read)?;
        let asked = serde_json::from_slice(&arguments).ok().as_ref().and_then(Asked::read);
        let (lane, ordinal) = asked.map_or((String::new(), 0), |asked| (asked.lane, asked.ordinal));
        self.found.exchanges.push(Exchange {
            call,
            seq: entry.header().seq,
            tool: admitted.tool.clone(),
            agent: entry.header().principal,
            lane,
            ordinal,
            request,
            ended: None,
        });
        Ok(())
    }

    fn ended(&self, event: &Event, finished: &CallFinished) -> Result<Ended, ReadError> {
        let result = self.blob(event, finished.result)?;
        let record = self.blob(event, finished.record)?;
        Ok(Ended {
            outcome: finished.outcome.clone(),
            answer: result.and_then(|bytes| Answer::from_json(&bytes)),
            raw: self.blob(event, finished.stdout)?,
            usage: finished.usage.clone(),
            record: record.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        })
    }
}
