//! The system session: the node's own chain, which holds what is true of the node whatever session runs: the tools it
//! knows, where each stands, and what was found of them.

use std::sync::Arc;

use toka_kernel::body::v1::{
    ApproveToolAsked, EndHead, EndSessionAsked, OpenAsked, OpenSessionAsked, ProbeAsked, QuarantineToolAsked,
    RegisterToolAsked, RootAsked,
};
use toka_kernel::capability::Capability;
use toka_kernel::entry::EntryRef;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{Bytes, CommandId, Digest, GrantId, PrincipalId, Seq, SessionId, TimeUs, derived};
use toka_kernel::keys::{PublicKey, SecretKey};
use toka_kernel::signed::open_body;
use toka_kernel::tool::{ToolSpec, ToolSpecError};
use toka_kernel::{Ask, BlobRef, CLASS_SYSTEM, Code, Command, Event, Genesis, Head, Signed, ToolState, event};
use toka_projections::{Catalogue, KnownTool};
use toka_store::{Log, ReadError, ReadLog};

use crate::engine::{CommitError, Engine, LoadError, Parts, open_blob};
use crate::genesis::{Drawn, genesis};
use crate::session::Node;

/// What the opener of the system session may do there.
const RIGHTS: &str = "admin:#cancel,grant-root,members,open-session,pause,register-tool,resolve,revoke-any";
/// How long a signed command is good for, in µs: long enough to be committed, too short to be kept.
const SIGNED_US: u64 = 60_000_000;

/// The system session of a node, open for writing.
pub struct System {
    engine: Engine,
    log: Arc<dyn Log>,
    opener: PrincipalId,
}

/// The opening of a work session as its operator signed it: what the genesis of the session holds, and what the system
/// session registers once the session has an id.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    id: CommandId,
    under: GrantId,
    asked: OpenSessionAsked,
    signed: Bytes,
    /// Where the system session stood.
    cite: EntryRef,
}

impl Opening {
    /// Puts the opening into the genesis it is for.
    pub(crate) fn embed(&self, genesis: &mut Genesis) {
        genesis.system = Some(self.cite);
        genesis.open = OpenAsked {
            id: self.id,
            under: Some(self.under),
            body: Bytes(open_body(&self.asked)),
            signed: Some(self.signed.clone()),
        };
    }
}

/// Why the system session did not take something.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A command could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The session could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The command was refused.
    #[error("{what} was refused: {code}{}", why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        code: Code,
        /// The rule or state behind it.
        why: Option<String>,
    },
    /// The spec of a tool cannot stand in an event.
    #[error("the tool cannot be registered: {0}")]
    Spec(#[from] ToolSpecError),
    /// No tool of this name is registered.
    #[error("no tool `{0}` is registered")]
    UnknownTool(String),
}

impl System {
    /// Opens a new system session; `rights_end_us` is when the rights of its opener end.
    ///
    /// # Errors
    /// [`SystemError::Commit`]; then there is none.
    pub fn create(mut parts: Parts, node: &Node, rights_end_us: TimeUs) -> Result<System, SystemError> {
        let drawn = Drawn::from(parts.random.as_mut()).map_err(CommitError::from)?;
        let mut rights = Capability::parse(RIGHTS).ok();
        if let Some(rights) = &mut rights {
            rights.exp_us = Some(rights_end_us);
        }
        let log = parts.log.clone();
        let mut engine = Engine::open(parts, &genesis(node, CLASS_SYSTEM, &drawn, &rights))?;
        engine.flush(&mut |_, _| ())?;
        Ok(System { engine, log, opener: node.opener() })
    }

    /// Loads the system session `session`; every entry is checked again.
    ///
    /// # Errors
    /// [`SystemError::Load`] for the first thing that is wrong with it.
    pub fn load(parts: Parts, session: SessionId, root: &PublicKey, node: &Node) -> Result<System, SystemError> {
        let log = parts.log.clone();
        let engine = Engine::load(parts, session, root, &mut |_| ())?;
        Ok(System { engine, log, opener: node.opener() })
    }

    /// The session.
    pub fn id(&self) -> SessionId {
        self.engine.session()
    }

    /// The tools it knows.
    pub fn tools(&self) -> &Catalogue {
        &self.engine.views().catalogue
    }

    /// The whole spec of a tool that it knows.
    ///
    /// # Errors
    /// When the store cannot be read, or does not hold what the session commits to.
    pub fn spec(&self, tool: &KnownTool) -> Result<Option<ToolSpec>, SystemError> {
        let bytes = self.engine.blob(tool.text)?;
        Ok(bytes.and_then(|bytes| ToolSpec::decode(&bytes).ok()).filter(|spec| spec.digest() == Ok(tool.digest)))
    }

    /// Registers a tool as proposed; `file` is the digest of the file that describes it. Approving is another step.
    ///
    /// # Errors
    /// [`SystemError::Refused`] where the tool stands already under this digest, or a version of it is approved.
    pub fn propose(&mut self, spec: &ToolSpec, file: Digest) -> Result<(), SystemError> {
        let text = spec.encode()?;
        let tool = spec.decision(0)?;
        let ask = Ask::RegisterTool(Box::new(RegisterToolAsked { tool, file, state: ToolState::Proposed.number() }));
        let mut command = Command::new(self.command_id(&ask), self.engine.state().head().seq, ask, Vec::new());
        command.under = Some(self.rights());
        self.commit(self.opener, command, &[text], &format!("registering `{}`", spec.name))
    }

    /// Registers a new version of an approved tool in its place, signed with the operator's key.
    ///
    /// # Errors
    /// [`SystemError::Refused`] where the tool stands already under this digest.
    pub fn replace(&mut self, spec: &ToolSpec, file: Digest, key: &SecretKey) -> Result<(), SystemError> {
        let text = spec.encode()?;
        let tool = spec.decision(0)?;
        let ask = Ask::RegisterTool(Box::new(RegisterToolAsked { tool, file, state: ToolState::Approved.number() }));
        self.commit_signed(ask, &[text], key, &format!("registering `{}`", spec.name))
    }

    /// Approves the tool `name` under the digest it stands under, signed with the operator's key.
    ///
    /// # Errors
    /// [`SystemError::UnknownTool`], [`SystemError::Refused`] where it is approved already.
    pub fn approve(&mut self, name: &str, key: &SecretKey) -> Result<Digest, SystemError> {
        let digest = self.tools().get(name).ok_or_else(|| SystemError::UnknownTool(name.to_owned()))?.digest;
        let ask = Ask::ApproveTool(ApproveToolAsked { name: name.to_owned(), digest });
        self.commit_signed(ask, &[], key, &format!("approving `{name}`"))?;
        Ok(digest)
    }

    /// Registers the tools that come with the node, each as approved; those that stand so already are left alone.
    ///
    /// # Errors
    /// [`SystemError::Commit`], [`SystemError::Spec`].
    pub fn register_own<'s>(&mut self, own: impl IntoIterator<Item = &'s ToolSpec>) -> Result<(), SystemError> {
        for spec in own {
            let (digest, text) = (spec.digest()?, spec.encode()?);
            if self.tools().get(&spec.name).is_some_and(|known| known.digest == digest) {
                continue;
            }
            // No file describes them: their spec is part of the program.
            let asked =
                RegisterToolAsked { tool: spec.decision(0)?, file: digest, state: ToolState::Approved.number() };
            let ask = Ask::RegisterTool(Box::new(asked));
            let command = Command::new(self.command_id(&ask), self.engine.state().head().seq, ask, Vec::new());
            let committed = self.engine.commit(PrincipalId::NODE, command, &[text])?;
            accepted(&committed.event, &format!("registering `{}`", spec.name))?;
        }
        Ok(self.engine.flush(&mut |_, _| ())?)
    }

    /// Quarantines an approved tool whose files are no longer those that were approved, and says where that stands;
    /// `None` if it is not approved any more, and nothing happens.
    ///
    /// # Errors
    /// [`SystemError::Commit`].
    pub fn quarantine(
        &mut self,
        name: &str,
        digest: Digest,
        seen: Option<Digest>,
    ) -> Result<Option<EntryRef>, SystemError> {
        let approved = |tool: &KnownTool| tool.state == ToolState::Approved && tool.digest == digest;
        if !self.tools().get(name).is_some_and(approved) {
            return Ok(None);
        }
        let ask = Ask::QuarantineTool(QuarantineToolAsked { name: name.to_owned(), digest, why: DRIFT, seen });
        self.commit(PrincipalId::NODE, Command::of_node(ask, Vec::new()), &[], &format!("quarantining `{name}`"))?;
        self.cite(self.engine.state().head().seq)
    }

    /// Records what this machine can confine.
    pub(crate) fn record_probe(&mut self, asked: ProbeAsked) -> Result<(), SystemError> {
        let command = Command::of_node(Ask::RecordProbe(asked), Vec::new());
        self.commit(PrincipalId::NODE, command, &[], "recording what this machine can confine")
    }

    /// The entry that brought a tool of this digest where it stands; `None` unless it is approved.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn approval(&self, name: &str, digest: Digest) -> Result<Option<EntryRef>, SystemError> {
        let approved = |tool: &&KnownTool| tool.digest == digest && tool.state == ToolState::Approved;
        self.tools().get(name).filter(approved).map_or(Ok(None), |known| self.cite(known.changed_at))
    }

    /// The entry that quarantined the tool of this digest; `None` unless it is quarantined.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn quarantined(&self, name: &str, digest: Digest) -> Result<Option<EntryRef>, SystemError> {
        let found = |tool: &&KnownTool| tool.digest == digest && tool.state == ToolState::Quarantined;
        self.tools().get(name).filter(found).map_or(Ok(None), |known| self.cite(known.changed_at))
    }

    /// Signs the opening of a session whose opener holds `roots`, with the operator's key.
    pub(crate) fn sign_opening(
        &self,
        id: CommandId,
        roots: &[Capability],
        key: &SecretKey,
    ) -> Result<Opening, SystemError> {
        let until = self.engine.now_us().map_err(CommitError::from)? + SIGNED_US;
        let roots = roots.iter().map(|cap| RootAsked { from: None, cap: cap.to_string() }).collect();
        let asked = OpenSessionAsked { session: SessionId::ZERO, opener: self.opener, roots };
        let ask = Ask::OpenSession(Box::new(asked.clone()));
        let signed = Signed::sign(self.id(), self.nonce(), until, &ask, &[], key).encode();
        let head = self.engine.state().head();
        let cite = EntryRef { session: head.session, seq: head.seq, hash: head.hash };
        Ok(Opening { id, under: self.rights(), asked, signed, cite })
    }

    /// Registers the session that was sealed with this opening. It may become durable after this and not before.
    pub(crate) fn register_session(&mut self, mut opening: Opening, session: SessionId) -> Result<(), SystemError> {
        opening.asked.session = session;
        let ask = Ask::OpenSession(Box::new(opening.asked));
        let mut command = Command::new(opening.id, opening.cite.seq, ask, Vec::new());
        command.under = Some(opening.under);
        command.signed = Some(opening.signed);
        self.commit(self.opener, command, &[], "opening the session")
    }

    /// Records that a session is closed, and where it ended.
    pub(crate) fn end_session(&mut self, head: &Head) -> Result<(), SystemError> {
        let at = EndHead { seq: head.seq, hash: head.hash };
        self.end(EndSessionAsked { session: head.session, how: CLOSED, head: Some(at), spent: Vec::new() })
    }

    fn end(&mut self, asked: EndSessionAsked) -> Result<(), SystemError> {
        let what = format!("recording the end of session {}", asked.session);
        self.commit(PrincipalId::NODE, Command::of_node(Ask::EndSession(asked), Vec::new()), &[], &what)
    }

    /// Records what a crash kept from being recorded: sessions that were closed, and sessions of which nothing but their
    /// registration became durable.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn settle(&mut self) -> Result<(), SystemError> {
        let open: Vec<SessionId> = self.engine.state().listed_open().collect();
        for session in open {
            match self.log.head(session)? {
                None => self.end(EndSessionAsked { session, how: NEVER_OPENED, head: None, spent: Vec::new() })?,
                Some(head) if head.kind == event::kind::SESSION_CLOSED => self.end_session(&head)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn cite(&self, seq: Seq) -> Result<Option<EntryRef>, SystemError> {
        let entry = self.engine.entry(seq)?;
        Ok(entry.map(|entry| EntryRef { session: self.id(), seq, hash: entry.hash() }))
    }

    /// A nonce that differs for every signature, since the head does.
    fn nonce(&self) -> [u8; 16] {
        CommandId::of(derive(Context::CommandId, &[&self.engine.state().head().hash.0, b"nonce"])).0
    }

    /// The grant of the opener's rights: the first that the genesis issues.
    fn rights(&self) -> GrantId {
        GrantId(derived(self.id(), 0, 0))
    }

    /// An id that differs for every command, since the head does.
    fn command_id(&self, ask: &Ask) -> CommandId {
        let head = self.engine.state().head().hash;
        CommandId::of(derive(Context::CommandId, &[&head.0, &ask.kind().to_be_bytes()]))
    }

    fn commit_signed(
        &mut self,
        ask: Ask,
        contents: &[Vec<u8>],
        key: &SecretKey,
        what: &str,
    ) -> Result<(), SystemError> {
        let (rights, session) = (self.rights(), self.id());
        let until = self.engine.now_us().map_err(CommitError::from)? + SIGNED_US;
        let nonce = self.nonce();
        let mut command = Command::new(self.command_id(&ask), self.engine.state().head().seq, ask, Vec::new());
        command.under = Some(rights);
        let sign = |ask: &Ask, blobs: &[BlobRef]| Signed::sign(session, nonce, until, ask, blobs, key).encode();
        let committed = self.engine.commit_with(self.opener, command, contents, &|command| {
            command.signed = Some(sign(&command.ask, &command.blobs));
        })?;
        self.taken(&committed.event, what)
    }

    fn commit(
        &mut self,
        by: PrincipalId,
        command: Command,
        contents: &[Vec<u8>],
        what: &str,
    ) -> Result<(), SystemError> {
        let committed = self.engine.commit(by, command, contents)?;
        self.taken(&committed.event, what)
    }

    /// Makes an answer durable, a refusal too.
    fn taken(&mut self, event: &Event, what: &str) -> Result<(), SystemError> {
        self.engine.flush(&mut |_, _| ())?;
        accepted(event, what)
    }
}

fn accepted(event: &Event, what: &str) -> Result<(), SystemError> {
    let Some(refused) = event.body.refused() else { return Ok(()) };
    let code = Code::from_number(refused.code).unwrap_or(Code::Malformed);
    Err(SystemError::Refused { what: what.to_owned(), code, why: refused.rule.clone() })
}

/// Why a tool is quarantined and unbound: its files have changed.
pub(crate) const DRIFT: u8 = 1;
/// How a session ended: it was closed, or nothing of it became durable.
const CLOSED: u8 = 1;
const NEVER_OPENED: u8 = 2;

/// The tools that the system session `session` of a store knows, without writing: every entry is applied again.
///
/// # Errors
/// What is wrong with the session or the store.
pub fn known_tools(log: &dyn ReadLog, session: SessionId) -> Result<Vec<(KnownTool, ToolSpec)>, SystemError> {
    let mut views = toka_projections::Views::default();
    let mut state = toka_kernel::State::new();
    for row in log.read(session, 0) {
        let row = row?;
        let entry = toka_kernel::Entry::read(&row.bytes).map_err(|fault| LoadError::Frame { seq: row.seq, fault })?;
        let effects = state.apply(&entry).map_err(LoadError::from)?;
        views.fold(&entry, &effects);
    }
    let mut tools = Vec::new();
    for (_, tool) in views.catalogue.iter() {
        let bytes = open_blob(log, session, tool.text)?;
        let spec = bytes.and_then(|bytes| ToolSpec::decode(&bytes).ok());
        if let Some(spec) = spec.filter(|spec| spec.digest() == Ok(tool.digest)) {
            tools.push((tool.clone(), spec));
        }
    }
    Ok(tools)
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("engine", &self.engine).finish_non_exhaustive()
    }
}
