//! A store that is gone with the process: for tests, for trying things out, and as the model of the others.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, Seq, SessionId};

use crate::log::{
    Append, AppendError, CONTENT_BYTES_MIN, Durability, Log, NewBlob, Place, RawEntry, ReadError, ReadLog, Rows,
    SessionRow, StoredBlob,
};
use crate::pages::pages;

const PAGE_ROWS: usize = 256;

/// Every session in maps behind one lock.
#[derive(Debug, Default)]
pub struct MemoryLog {
    sessions: Mutex<BTreeMap<SessionId, Chain>>,
}

#[derive(Debug)]
struct Chain {
    head: Head,
    entries: BTreeMap<Seq, Vec<u8>>,
    blobs: BTreeMap<Commitment, StoredBlob>,
    /// Content long enough to be found again. It never leaves the process, so the bytes themselves are the key.
    contents: BTreeMap<Vec<u8>, Commitment>,
}

impl MemoryLog {
    /// An empty store.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Chain>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadLog for MemoryLog {
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow> {
        pages(move |last: Option<&SessionRow>| {
            let from = last.map(|row| row.session).or(after).map_or(Bound::Unbounded, Bound::Excluded);
            let row = |(session, chain): (&SessionId, &Chain)| SessionRow { session: *session, head: Some(chain.head) };
            Ok(self.lock().range((from, Bound::Unbounded)).take(PAGE_ROWS).map(row).collect())
        })
    }

    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError> {
        Ok(self.lock().get(&session).map(|chain| chain.head))
    }

    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry> {
        pages(move |last: Option<&RawEntry>| {
            let from = last.map_or(Bound::Included(from), |entry| Bound::Excluded(entry.seq));
            let entry = |(seq, bytes): (&Seq, &Vec<u8>)| RawEntry { seq: *seq, bytes: bytes.clone() };
            let chains = self.lock();
            let entries = chains.get(&session).map(|chain| chain.entries.range((from, Bound::Unbounded)));
            Ok(entries.into_iter().flatten().take(PAGE_ROWS).map(entry).collect())
        })
    }

    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        Ok(self.lock().get(&session).and_then(|chain| chain.blobs.get(&commitment)).cloned())
    }

    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError> {
        let len = |blob: &StoredBlob| blob.bytes.len() as u64;
        Ok(self.lock().get(&session).and_then(|chain| chain.blobs.get(&commitment)).map(len))
    }
}

impl Log for MemoryLog {
    fn append(&self, batch: &[Append]) -> Vec<Result<Head, AppendError>> {
        let mut chains = self.lock();
        batch.iter().map(|item| append(&mut chains, item)).collect()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError> {
        Ok(self.lock().get(&session).and_then(|chain| chain.contents.get(bytes)).copied())
    }
}

fn append(chains: &mut BTreeMap<SessionId, Chain>, item: &Append) -> Result<Head, AppendError> {
    item.check()?;
    let session = item.head.session;
    match item.place(chains.get(&session).map(|chain| chain.head)) {
        Place::Conflict(actual) => return Err(AppendError::Conflict { actual }),
        Place::Before(actual) => {
            let same = |entry: &RawEntry| chains[&session].entries.get(&entry.seq) == Some(&entry.bytes);
            return if item.entries.iter().all(same) { Ok(actual) } else { Err(AppendError::Conflict { actual }) };
        }
        Place::Next => {}
    }
    check_blobs(chains.get(&session), &item.blobs)?;
    let chain = chains.entry(session).or_insert_with(|| Chain {
        head: item.head,
        entries: BTreeMap::new(),
        blobs: BTreeMap::new(),
        contents: BTreeMap::new(),
    });
    chain.head = item.head;
    chain.entries.extend(item.entries.iter().map(|entry| (entry.seq, entry.bytes.clone())));
    for blob in &item.blobs {
        if blob.bytes.len() >= CONTENT_BYTES_MIN {
            chain.contents.entry(blob.bytes.clone()).or_insert(blob.commitment);
        }
        chain.blobs.insert(blob.commitment, StoredBlob { salt: blob.salt, bytes: blob.bytes.clone() });
    }
    Ok(item.head)
}

/// One commitment stands for one content, in the store and within one item.
fn check_blobs(chain: Option<&Chain>, blobs: &[NewBlob]) -> Result<(), AppendError> {
    let mut seen: BTreeMap<Commitment, (&[u8; 32], &[u8])> = BTreeMap::new();
    for blob in blobs {
        let new = (&blob.salt, blob.bytes.as_slice());
        let stored = chain.and_then(|chain| chain.blobs.get(&blob.commitment));
        let known = stored.map(|stored| (&stored.salt, stored.bytes.as_slice()));
        if known.or(seen.insert(blob.commitment, new)).is_some_and(|known| known != new) {
            return Err(AppendError::Refused { what: "a blob has the commitment of other bytes".to_owned() });
        }
    }
    Ok(())
}
