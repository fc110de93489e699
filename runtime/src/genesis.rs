//! What every session of a node begins with.

use toka_kernel::body::registry_digest;
use toka_kernel::body::v1::{FirstPrincipal, Grant, OpenAsked, SessionLimits};
use toka_kernel::capability::Capability;
use toka_kernel::ids::{Bytes, CommandId, Digest};
use toka_kernel::limits::STATE_INTERVAL;
use toka_kernel::{Genesis, RULES};

use crate::random::{NoRandom, Random};
use crate::session::Node;

/// What is drawn for a genesis.
pub(crate) struct Drawn {
    pub(crate) nonce: Digest,
    pub(crate) seed: Digest,
    pub(crate) open: CommandId,
}

impl Drawn {
    pub(crate) fn from(random: &mut dyn Random) -> Result<Drawn, NoRandom> {
        let (mut nonce, mut seed, mut open) = ([0; 32], [0; 32], [0; 16]);
        random.fill(&mut nonce)?;
        random.fill(&mut seed)?;
        random.fill(&mut open)?;
        Ok(Drawn { nonce: Digest(nonce), seed: Digest(seed), open: CommandId(open) })
    }
}

/// The genesis of a session of this class which the operator opens, who holds these grants. No other session stands
/// behind it.
pub(crate) fn genesis<'c>(
    node: &Node,
    class: u8,
    drawn: &Drawn,
    grants: impl IntoIterator<Item = &'c Capability>,
) -> Genesis {
    let opener = node.opener();
    let grant = |cap: &Capability| Grant {
        parent: None,
        issuer: opener,
        subject: opener,
        cap: cap.clone(),
        answers: Vec::new(),
    };
    Genesis {
        class,
        suite: toka_kernel::entry::SUITE,
        rules: RULES,
        origin: node.origin.clone(),
        nonce: drawn.nonce,
        seed: drawn.seed,
        build: node.build.clone(),
        registry: registry_digest(),
        root_key: node.root_key,
        keys: node.key_grants.clone(),
        interval: STATE_INTERVAL,
        limits: SessionLimits { max_running: 1 },
        interactive: false,
        open: OpenAsked { id: drawn.open, under: None, body: Bytes(vec![0x80]), signed: None },
        opener,
        principals: vec![FirstPrincipal {
            id: Some(opener),
            kind: 1,
            custody: 1,
            keys: vec![node.operator],
            models: 0,
        }],
        grants: grants.into_iter().map(grant).collect(),
        ceiling: None,
        prices: None,
        extensions: Vec::new(),
        system: None,
        checkpoint: None,
        parent: None,
    }
}
