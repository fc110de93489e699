//! What was sent to models, in pieces: each piece is a blob of the session, kept once, and a call's arguments list them.

use std::collections::BTreeMap;

use serde_json::Value;
use toka_kernel::ids::{AgentId, Commitment};
use toka_kernel::{Ask, BlobRef, Event};
use toka_store::ReadError;

use crate::gateway::pieces::{Kept, Ledger, List, PieceId, join};

/// The pieces and lists of a session.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    ledger: Ledger,
    pieces: BTreeMap<PieceId, Commitment>,
    lists: BTreeMap<PieceId, List>,
    /// The calls of a log that is being loaded, whose arguments are read when it is whole.
    unread: Vec<Vec<BlobRef>>,
}

/// What the names of models as tools begin with; no other tool may have such a name.
const MODELS: &str = "model.";

/// Reads a blob of the session.
type ReadBlob<'a> = &'a dyn Fn(Commitment) -> Result<Option<Vec<u8>>, ReadError>;

impl Conversations {
    /// What must be kept of the next request of an agent.
    pub(crate) fn keep(&mut self, agent: AgentId, body: &[u8]) -> Kept {
        self.ledger.keep(&agent.to_string(), body)
    }

    /// Notes a call of a log that is being loaded.
    pub(crate) fn load(&mut self, event: &Event) {
        let Some(command) = event.command() else { return };
        // One without a piece of its own has a list all the same, which the next may extend.
        let pieces = matches!(&command.ask, Ask::Call(asked) if asked.tool.starts_with(MODELS));
        if pieces {
            self.unread.push(event.blobs.clone());
        }
    }

    /// Reads what was noted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn read(&mut self, blob: ReadBlob<'_>) -> Result<(), ReadError> {
        for blobs in std::mem::take(&mut self.unread) {
            self.note(&blobs, blob)?;
        }
        Ok(())
    }

    /// Takes the pieces of a call from its blobs: the arguments, and the pieces that they name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn note(&mut self, blobs: &[BlobRef], blob: ReadBlob<'_>) -> Result<(), ReadError> {
        let Some((first, pieces)) = blobs.split_first() else { return Ok(()) };
        let Some(arguments) = blob(first.commitment)?.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        else {
            return Ok(());
        };
        let named = arguments["pieces"].as_array().into_iter().flatten();
        let named = named.filter_map(|id| id.as_str().and_then(PieceId::parse));
        self.pieces.extend(named.zip(pieces.iter().map(|piece| piece.commitment)));
        if let Some((id, list)) = list_of(&arguments) {
            self.lists.insert(id, list);
        }
        Ok(())
    }

    /// What a call with these arguments sends; `None` where a piece is gone or is not what its name says.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn body(&self, arguments: &[u8], blob: ReadBlob<'_>) -> Result<Option<Vec<u8>>, ReadError> {
        let Some((_, list)) = serde_json::from_slice::<Value>(arguments).ok().as_ref().and_then(list_of) else {
            return Ok(None);
        };
        let Ok(pieces) = list.pieces(&|id| self.lists.get(id).cloned()) else { return Ok(None) };
        let mut fault = None;
        let body = join(&pieces, &mut |id| {
            let bytes = match blob(*self.pieces.get(id)?) {
                Ok(bytes) => bytes?,
                Err(error) => {
                    fault.replace(error);
                    return None;
                }
            };
            (PieceId::of(&bytes) == *id).then_some(bytes)
        });
        match fault {
            Some(error) => Err(error),
            None => Ok(body.ok().filter(|body| body.len() as u64 == list.bytes)),
        }
    }
}

/// The list in the arguments of a call, and its name.
fn list_of(arguments: &Value) -> Option<(PieceId, List)> {
    let text = arguments.get("list")?.to_string();
    let list = List::from_json(text.as_bytes())?;
    Some((PieceId::of(&list.to_json()), list))
}
