//! The system session: the node's own chain, which holds what is true of the node whatever session runs: the tools it
//! knows, where each stands, and what was found of them.

use toka_kernel::body::registry_digest;
use toka_kernel::body::v1::{
    ApproveToolAsked, FirstPrincipal, Grant, OpenAsked, QuarantineToolAsked, RegisterToolAsked, SessionLimits,
};
use toka_kernel::capability::Capability;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{Bytes, CommandId, Digest, GrantId, PrincipalId, SessionId, TimeUs, derived};
use toka_kernel::keys::{PublicKey, SecretKey};
use toka_kernel::limits::STATE_INTERVAL;
use toka_kernel::tool::{ToolSpec, ToolSpecError};
use toka_kernel::{Ask, BlobRef, Body, CLASS_SYSTEM, Code, Command, Event, Genesis, RULES, Signed, ToolState};
use toka_projections::{Catalogue, KnownTool};
use toka_store::{Log, ReadError};

use crate::engine::{CommitError, Engine, LoadError, Parts, open_blob};
use crate::session::Node;

/// What the opener of the system session may do there.
const RIGHTS: &str = "admin:#cancel,grant-root,members,open-session,pause,register-tool,resolve,revoke-any";
/// How long a signed command is good for, in µs: long enough to be committed, too short to be kept.
const SIGNED_US: u64 = 60_000_000;

/// The system session of a node, open for writing.
pub struct System {
    engine: Engine,
    opener: PrincipalId,
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
        let mut random = || {
            let mut bytes = [0; 32];
            parts.random.fill(&mut bytes).map(|()| Digest(bytes)).map_err(CommitError::from)
        };
        let (nonce, seed, open) = (random()?, random()?, random()?);
        let genesis = genesis(node, rights_end_us, nonce, seed, open);
        let mut engine = Engine::open(parts, &genesis)?;
        engine.flush(&mut |_, _| ())?;
        Ok(System { engine, opener: node.opener() })
    }

    /// Loads the system session `session`; every entry is checked again.
    ///
    /// # Errors
    /// [`SystemError::Load`] for the first thing that is wrong with it.
    pub fn load(parts: Parts, session: SessionId, root: &PublicKey, node: &Node) -> Result<System, SystemError> {
        let engine = Engine::load(parts, session, root, &mut |_| ())?;
        Ok(System { engine, opener: node.opener() })
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

    /// Quarantines an approved tool whose files are no longer those that were approved. Nothing happens if it is not
    /// approved any more.
    ///
    /// # Errors
    /// [`SystemError::Commit`].
    pub fn quarantine(&mut self, name: &str, digest: Digest, seen: Option<Digest>) -> Result<(), SystemError> {
        let approved = |tool: &KnownTool| tool.state == ToolState::Approved && tool.digest == digest;
        if !self.tools().get(name).is_some_and(approved) {
            return Ok(());
        }
        let ask = Ask::QuarantineTool(QuarantineToolAsked { name: name.to_owned(), digest, why: DRIFT, seen });
        self.commit(PrincipalId::NODE, Command::of_node(ask, Vec::new()), &[], &format!("quarantining `{name}`"))
    }

    /// The grant of the opener's rights: the first that the genesis issues.
    fn rights(&self) -> GrantId {
        GrantId(derived(self.id(), 0, 0))
    }

    /// An id that differs for every command, since the head does.
    fn command_id(&self, ask: &Ask) -> CommandId {
        let head = self.engine.state().head().hash;
        short(derive(Context::CommandId, &[&head.0, &ask.kind().to_be_bytes()]))
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
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&derive(Context::CommandId, &[&self.engine.state().head().hash.0, b"nonce"]).0[..16]);
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
        if let Body::Refused(refused, _) = &event.body {
            let code = Code::from_number(refused.code).unwrap_or(Code::Malformed);
            return Err(SystemError::Refused { what: what.to_owned(), code, why: refused.rule.clone() });
        }
        Ok(())
    }
}

/// Why a tool is quarantined: its files have changed.
const DRIFT: u8 = 1;

/// The tools that the system session `session` of a store knows, without writing: every entry is applied again.
///
/// # Errors
/// What is wrong with the session or the store.
pub fn known_tools(log: &dyn Log, session: SessionId) -> Result<Vec<(KnownTool, ToolSpec)>, SystemError> {
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

fn genesis(node: &Node, rights_end_us: TimeUs, nonce: Digest, seed: Digest, open: Digest) -> Genesis {
    let opener = node.opener();
    let mut rights = Capability::parse(RIGHTS).ok();
    if let Some(rights) = &mut rights {
        rights.exp_us = Some(rights_end_us);
    }
    let grant = |cap| Grant { parent: None, issuer: opener, subject: opener, cap, answers: Vec::new() };
    Genesis {
        class: CLASS_SYSTEM,
        suite: toka_kernel::entry::SUITE,
        rules: RULES,
        origin: node.origin.clone(),
        nonce,
        seed,
        build: node.build.clone(),
        registry: registry_digest(),
        root_key: node.root_key,
        keys: node.key_grants.clone(),
        interval: STATE_INTERVAL,
        limits: SessionLimits { max_running: 1 },
        interactive: false,
        open: OpenAsked { id: short(open), under: None, body: Bytes(vec![0x80]), signed: None },
        opener,
        principals: vec![FirstPrincipal {
            id: Some(opener),
            kind: 1,
            custody: 1,
            keys: vec![node.operator],
            models: 0,
        }],
        grants: rights.into_iter().map(grant).collect(),
        ceiling: None,
        prices: None,
        extensions: Vec::new(),
        system: None,
        checkpoint: None,
        parent: None,
    }
}

fn short(digest: Digest) -> CommandId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest.0[..16]);
    CommandId(id)
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("engine", &self.engine).finish_non_exhaustive()
    }
}
