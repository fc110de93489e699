//! The engine: the one way in which anything gets into a session's log.
//!
//! `commit` decides, seals and applies on the pending tail; `flush` appends the tail and its blobs in one transaction
//! and only then publishes, projects and lets effects go. No record, no effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use toka_kernel::body::v1::CommitAsked;
use toka_kernel::ids::{CommandId, Commitment, PrincipalId, Seq, SessionId};
use toka_kernel::keys::PublicKey;
use toka_kernel::{
    Ask, BlobRef, Broken, Code, Command, Denial, Effects, Entry, Event, EventKey, Genesis, Head, Illegal, Stamp, State,
    chain, is_recordable,
};
use toka_projections::Views;
use toka_store::{Append, AppendError, Log, NewBlob, RawEntry, ReadError, ReadLog};

use crate::clock::{ClockFault, GuardedClock};
use crate::random::{NoRandom, Random};

/// The writer of one session.
pub struct Engine {
    log: Arc<dyn Log>,
    key: EventKey,
    clock: GuardedClock,
    random: Box<dyn Random>,
    /// Stands after the pending tail.
    state: State,
    /// Stand after what is durable.
    views: Views,
    durable: Head,
    tail: Vec<Sealed>,
    tail_blobs: Vec<NewBlob>,
    /// Where each command id was used first, the tail included.
    used: BTreeMap<CommandId, Seq>,
    poisoned: bool,
}

/// An entry with the effects it had.
pub struct Sealed {
    /// The entry.
    pub entry: Entry,
    effects: Effects,
}

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The seq of the entry that answers it.
    pub seq: Seq,
    /// The event, a refusal included.
    pub event: Event,
    /// Whether the command had been answered before.
    pub repeated: bool,
}

/// Why a command has no entry.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Not a command: it ends at the edge.
    #[error("this is no command: {0}")]
    NoCommand(#[from] toka_kernel::command::NoCommand),
    /// Answered without an entry: the session is closed, or the asker is unknown here.
    #[error("answered without an entry: {0}")]
    Answered(Code),
    /// The id was used for another command.
    #[error("command {id} was used at entry {first} for something else")]
    Conflict {
        /// The id.
        id: CommandId,
        /// Where it was used.
        first: Seq,
    },
    /// The clock cannot be trusted.
    #[error(transparent)]
    Clock(#[from] ClockFault),
    /// No salt can be drawn.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The genesis is not allowed.
    #[error("the session cannot be opened: its {} {}", .0.rule.as_deref().unwrap_or("genesis"), genesis_words(.0))]
    Genesis(Box<Denial>),
    /// The store refused the tail: nothing of it happened.
    #[error("nothing of the last step happened: {0}")]
    Append(#[from] AppendError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An earlier flush failed; the session must be loaded again.
    #[error("an earlier write failed; load the session again")]
    Poisoned,
    /// The engine made an entry that the rules do not allow: a fault of this program.
    #[error("fault of the engine: {0}")]
    Illegal(#[from] Illegal),
}

/// Why a session cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store does not have it.
    #[error("the store has no session {0}")]
    Unknown(SessionId),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Bytes that are no entry.
    #[error("entry {seq} cannot be read: {fault}")]
    Frame {
        /// Where.
        seq: Seq,
        /// Why.
        fault: toka_kernel::entry::FrameFault,
    },
    /// An entry breaks the chain.
    #[error("entry {seq} breaks the chain: {broken}")]
    Broken {
        /// Where.
        seq: Seq,
        /// How.
        broken: Box<Broken>,
    },
    /// An entry breaks the rules.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The store names another head than its entries lead to.
    #[error("the entries end at {seq}, and the store names another head: entries were taken away or changed")]
    Head {
        /// Where the entries end.
        seq: Seq,
    },
    /// The clock cannot be trusted.
    #[error(transparent)]
    Clock(#[from] ClockFault),
}

/// What an engine needs besides a session.
pub struct Parts {
    /// The store.
    pub log: Arc<dyn Log>,
    /// The event key in force.
    pub key: EventKey,
    /// The clock.
    pub clock: GuardedClock,
    /// Where salts come from.
    pub random: Box<dyn Random>,
}

impl Engine {
    /// Opens a session. Nothing is durable before [`Engine::flush`].
    ///
    /// # Errors
    /// [`CommitError::Genesis`] if the rules do not allow the genesis.
    pub fn open(parts: Parts, genesis: &Genesis) -> Result<Engine, CommitError> {
        let mut engine = Engine::empty(parts);
        let now = engine.clock.now_us()?;
        let event = State::open(genesis, now).map_err(|denial| CommitError::Genesis(Box::new(denial)))?;
        engine.seal(PrincipalId::NODE, Stamp { time_us: now, clock_behind: false }, event)?;
        Ok(engine)
    }

    /// Loads a session: every entry is checked and applied again. `each` sees the entries in order.
    ///
    /// # Errors
    /// The first thing that is wrong with the log.
    pub fn load(
        parts: Parts,
        session: SessionId,
        root: &PublicKey,
        each: &mut dyn FnMut(&Entry),
    ) -> Result<Engine, LoadError> {
        let mut engine = Engine::empty(parts);
        let mut keys = None;
        let mut head = Head::none();
        let log = engine.log.clone();
        for row in log.read(session, 0) {
            let row = row?;
            let entry = Entry::read(&row.bytes).map_err(|fault| LoadError::Frame { seq: row.seq, fault })?;
            let broken = |broken| LoadError::Broken { seq: row.seq, broken: Box::new(broken) };
            if keys.is_none() {
                let mut fault = None;
                let ring = chain::keyring(&entry, Some(root), &mut |found| fault = fault.take().or(Some(found)));
                keys = Some(ring);
                if let Some(found) = fault {
                    return Err(broken(found));
                }
            }
            let Some(ring) = &keys else { continue };
            head = head.accept(&entry, ring).map_err(broken)?;
            let effects = engine.state.apply(&entry)?;
            engine.remember(&entry);
            engine.views.fold(&entry, &effects);
            each(&entry);
        }
        if head == Head::none() {
            return Err(LoadError::Unknown(session));
        }
        if log.head(session)? != Some(head) {
            return Err(LoadError::Head { seq: head.seq });
        }
        engine.clock.resume_us(head.time_us)?;
        engine.durable = head;
        Ok(engine)
    }

    fn empty(parts: Parts) -> Engine {
        Engine {
            log: parts.log,
            key: parts.key,
            clock: parts.clock,
            random: parts.random,
            state: State::new(),
            views: Views::default(),
            durable: Head::none(),
            tail: Vec::new(),
            tail_blobs: Vec::new(),
            used: BTreeMap::new(),
            poisoned: false,
        }
    }

    /// Puts a command on the pending tail: decide → seal → apply. `blobs` are the contents it refers to by index.
    ///
    /// A commitment to the state goes first where one is due. A command id that was used before gives the first answer
    /// again if the command is the same.
    ///
    /// # Errors
    /// [`CommitError`]; nothing is then on the tail that was not there before.
    pub fn commit(&mut self, by: PrincipalId, command: Command, blobs: &[Vec<u8>]) -> Result<Committed, CommitError> {
        self.commit_with(by, command, blobs, &|_| ())
    }

    /// As [`Engine::commit`], and lets `sign` put a signature on the command once it refers to its blobs.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn commit_with(
        &mut self,
        by: PrincipalId,
        mut command: Command,
        blobs: &[Vec<u8>],
        sign: &dyn Fn(&mut Command),
    ) -> Result<Committed, CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        if let Some(first) = self.used.get(&command.id).copied() {
            return self.answer_again(first, by, &command, blobs);
        }
        if self.state.commit_due() && !matches!(command.ask, Ask::CommitState(_)) {
            self.commit(PrincipalId::NODE, Command::of_node(Ask::CommitState(CommitAsked {}), Vec::new()), &[])?;
        }
        let kept = self.tail_blobs.len();
        let committed = self.keep_all(blobs, &mut command).and_then(|()| {
            sign(&mut command);
            self.decide_and_seal(by, &command)
        });
        if committed.is_err() {
            self.tail_blobs.truncate(kept);
        }
        committed
    }

    fn keep_all(&mut self, blobs: &[Vec<u8>], command: &mut Command) -> Result<(), CommitError> {
        for bytes in blobs {
            let blob = self.keep(bytes)?;
            command.blobs.push(blob);
        }
        Ok(())
    }

    fn decide_and_seal(&mut self, by: PrincipalId, command: &Command) -> Result<Committed, CommitError> {
        command.check()?;
        let stamp = Stamp::after(self.state.head(), self.clock.now_us()?);
        let event = self.state.decide(by, command, stamp.time_us);
        if !is_recordable(&event) {
            let code = event.body.refused().and_then(|refused| Code::from_number(refused.code));
            return Err(CommitError::Answered(code.unwrap_or(Code::Malformed)));
        }
        let seq = self.seal(by, stamp, event.clone())?;
        Ok(Committed { seq, event, repeated: false })
    }

    fn seal(&mut self, by: PrincipalId, stamp: Stamp, event: Event) -> Result<Seq, CommitError> {
        let entry = Entry::seal(self.state.head(), by, stamp, event, &self.key);
        let effects = self.state.apply(&entry)?;
        self.remember(&entry);
        let seq = entry.header().seq;
        self.tail.push(Sealed { entry, effects });
        Ok(seq)
    }

    /// Makes the tail durable, in one transaction with one flush; then projects it and hands it to `publish`.
    ///
    /// # Errors
    /// [`CommitError::Append`]: nothing of the tail happened, and this engine writes no more.
    pub fn flush(&mut self, publish: &mut dyn FnMut(&Entry, &Views)) -> Result<(), CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        if self.tail.is_empty() {
            return Ok(());
        }
        let append = Append {
            expected: self.durable,
            entries: self.tail.iter().map(|sealed| raw(&sealed.entry)).collect(),
            head: *self.state.head(),
            blobs: std::mem::take(&mut self.tail_blobs),
        };
        let answer = self.log.append(std::slice::from_ref(&append)).pop().unwrap_or(Err(AppendError::Poisoned));
        if let Err(error) = answer {
            self.poisoned = true;
            self.tail.clear();
            return Err(error.into());
        }
        self.durable = append.head;
        for sealed in std::mem::take(&mut self.tail) {
            self.views.fold(&sealed.entry, &sealed.effects);
            publish(&sealed.entry, &self.views);
        }
        Ok(())
    }

    /// The state, the pending tail included.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The views of what is durable.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.state.session_id()
    }

    /// The pending tail, for the drivers of agents and for nobody else.
    pub fn tail(&self) -> &[Sealed] {
        &self.tail
    }

    /// The time as the clock has it.
    ///
    /// # Errors
    /// When the clock cannot be trusted.
    pub fn now_us(&self) -> Result<u64, ClockFault> {
        self.clock.now_us()
    }

    /// The bytes of a blob of this session, from the tail or from the store; `None` if it is not there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn blob(&self, commitment: Commitment) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(blob) = self.tail_blobs.iter().find(|blob| blob.commitment == commitment) {
            return Ok(Some(blob.bytes.clone()));
        }
        open_blob(self.log.as_ref(), self.session(), commitment)
    }

    /// The reference to content: what the session has already, or a new blob on the tail.
    fn keep(&mut self, bytes: &[u8]) -> Result<BlobRef, CommitError> {
        let grains = toka_kernel::entry::grains(bytes.len() as u64);
        if bytes.len() >= toka_store::CONTENT_BYTES_MIN {
            let pending = self.tail_blobs.iter().find(|blob| blob.bytes == bytes).map(|blob| blob.commitment);
            let known = match pending {
                Some(commitment) => Some(commitment),
                None => self.log.find_content(self.session(), bytes)?,
            };
            // What the store says it has is looked at before an entry cites it.
            if let Some(commitment) = known
                && (pending.is_some() || self.blob(commitment)?.as_deref() == Some(bytes))
            {
                return Ok(BlobRef { grains, commitment });
            }
        }
        let mut salt = [0; 32];
        self.random.fill(&mut salt)?;
        let blob = BlobRef::to(&salt, bytes);
        self.tail_blobs.push(NewBlob { commitment: blob.commitment, salt, bytes: bytes.to_vec() });
        Ok(blob)
    }

    fn remember(&mut self, entry: &Entry) {
        let id = entry.event().ok().and_then(Event::cmd).map(|cmd| cmd.id);
        if let Some(id) = id {
            self.used.entry(id).or_insert(entry.header().seq);
        }
    }

    /// The first answer to a command whose id was used at `first`.
    fn answer_again(
        &self,
        first: Seq,
        by: PrincipalId,
        command: &Command,
        blobs: &[Vec<u8>],
    ) -> Result<Committed, CommitError> {
        let conflict = CommitError::Conflict { id: command.id, first };
        let recorded = self.entry(first)?.ok_or(CommitError::Poisoned)?;
        let Ok(event) = recorded.event() else { return Err(conflict) };
        let Some(before) = event.command() else { return Err(conflict) };
        let mut same = recorded.header().principal == by
            && asks_the_same(event, &before.ask, &command.ask)
            && before.under == command.under
            && event.blobs.len() == blobs.len();
        for (blob, bytes) in event.blobs.iter().zip(blobs) {
            same &= self.blob(blob.commitment)?.is_none_or(|recorded| recorded == *bytes);
        }
        if !same {
            return Err(conflict);
        }
        Ok(Committed { seq: first, event: event.clone(), repeated: true })
    }

    /// An entry of the session, from the tail or from the store.
    pub(crate) fn entry(&self, seq: Seq) -> Result<Option<Entry>, CommitError> {
        if let Some(sealed) = self.tail.iter().find(|sealed| sealed.entry.header().seq == seq) {
            return Ok(Some(sealed.entry.clone()));
        }
        match self.log.read(self.session(), seq).next() {
            None => Ok(None),
            Some(row) => Ok(Entry::read(&row?.bytes).ok()),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("head", self.state.head())
            .field("tail", &self.tail.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("seq", &self.entry.header().seq).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The bytes of a blob, if they are those that entries commit to.
///
/// # Errors
/// When the store cannot be read, or holds other bytes or another salt than were committed to.
pub fn open_blob(log: &dyn ReadLog, session: SessionId, commitment: Commitment) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(blob) = log.blob(session, commitment)? else { return Ok(None) };
    if toka_kernel::entry::commitment(&blob.salt, &blob.bytes) != commitment {
        return Err(ReadError {
            what: "its bytes are not those that the log commits to".to_owned(),
            place: format!("session {}, blob {}", session.short(), commitment.short()),
        });
    }
    Ok(Some(blob.bytes))
}

/// What is wrong with a genesis, for people.
fn genesis_words(denial: &Denial) -> String {
    match denial.item {
        Some(item) => format!("(number {}) cannot be granted: expired, never valid or too long", item + 1),
        None => "are out of bounds, or together larger than 16 KiB".to_owned(),
    }
}

fn raw(entry: &Entry) -> RawEntry {
    RawEntry { seq: entry.header().seq, bytes: entry.bytes().to_vec() }
}

/// Whether `again` asks what the recorded event answers. A filled grant is compared by what was asked of it: the same
/// parent and holder, and a text that the filled one attenuates.
fn asks_the_same(event: &Event, before: &Ask, again: &Ask) -> bool {
    if event.kind() == toka_kernel::event::kind::REFUSED {
        return before == again;
    }
    match (before, again) {
        (Ask::SpawnAgent(before), Ask::SpawnAgent(again)) => {
            let mut unfilled = (**again).clone();
            let same =
                before.grants.len() == again.grants.len()
                    && before.grants.iter().zip(&again.grants).all(|(before, again)| {
                        before.parent == again.parent && is_filled_from(&before.cap, &again.cap)
                    });
            unfilled.grants.clone_from(&before.grants);
            same && **before == unfilled
        }
        (Ask::Grant(before), Ask::Grant(again)) => {
            before.grant.parent == again.grant.parent
                && before.grant.to == again.grant.to
                && is_filled_from(&before.grant.cap, &again.grant.cap)
        }
        (Ask::OpenSession(before), Ask::OpenSession(again)) => {
            let roots = before.roots.iter().zip(&again.roots);
            before.session == again.session
                && before.opener == again.opener
                && before.roots.len() == again.roots.len()
                && roots
                    .into_iter()
                    .all(|(before, again)| before.from == again.from && says_the_same(&before.cap, &again.cap))
        }
        (before, again) => before == again,
    }
}

fn says_the_same(canonical: &str, asked: &str) -> bool {
    toka_kernel::capability::Capability::parse(asked).is_ok_and(|asked| asked.to_string() == canonical)
}

fn is_filled_from(filled: &str, asked: &str) -> bool {
    use toka_kernel::capability::Capability;
    let (Ok(filled), Ok(mut asked)) = (Capability::parse(filled), Capability::parse(asked)) else { return false };
    asked.fill_from(&filled);
    asked == filled
}
