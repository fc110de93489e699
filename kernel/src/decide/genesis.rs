//! The genesis: what a session may begin with.

use crate::body::v1::{FirstPrincipal, OpenBody, SessionOpened};
use crate::decide::grant;
use crate::denial::{Code, Denial};
use crate::entry::SUITE;
use crate::event::{Body, Event};
use crate::ids::{SessionId, TimeUs};
use crate::keys::{KeyGrant, Role};
use crate::limits::{
    COMMAND_BYTES_MAX, GENESIS_GRANTS_MAX, GENESIS_LIST_BYTES_MAX, GENESIS_PRINCIPALS_MAX, KEY_GRANTS_PER_GENESIS_MAX,
    STATE_INTERVAL_MAX, STATE_INTERVAL_MIN, TIME_US_MAX,
};
use crate::signed::Signed;
use crate::state::{PrincipalKind, State};

/// What a session begins with. The genesis is its own command: nothing in it is filled.
pub type Genesis = SessionOpened;

/// The number of the system session: the node's own.
pub const CLASS_SYSTEM: u8 = 1;
/// The number of a work session.
pub const CLASS_WORK: u8 = 2;
/// The rules this version decides by.
pub const RULES: u16 = 1;

impl State {
    /// Decides a genesis.
    ///
    /// # Errors
    /// [`Denial`] with the field in `rule`; a genesis that is denied is in no chain.
    pub fn open(genesis: &Genesis, at: TimeUs) -> Result<Event, Denial> {
        check_head(genesis, at)?;
        check_keys(genesis)?;
        check_principals(genesis)?;
        check_grants(genesis, at)?;
        check_opening(genesis)?;
        Ok(Event { causes: Vec::new(), blobs: Vec::new(), body: Body::SessionOpened(Box::new(genesis.clone())) })
    }
}

fn check_head(genesis: &Genesis, at: TimeUs) -> Result<(), Denial> {
    let fields = [
        ("class", genesis.class == CLASS_WORK || genesis.class == CLASS_SYSTEM),
        ("system", genesis.system.is_none() || genesis.class == CLASS_WORK),
        // What a session pins beside its keys and grants belongs to later rules.
        ("ceiling", genesis.ceiling.is_none()),
        ("prices", genesis.prices.is_none()),
        ("extensions", genesis.extensions.is_empty()),
        ("checkpoint", genesis.checkpoint.is_none()),
        ("parent", genesis.parent.is_none()),
        ("suite", genesis.suite == SUITE),
        ("rules", genesis.rules == RULES),
        ("origin", (1..=255).contains(&genesis.origin.len())),
        ("build", genesis.build.len() <= 64),
        ("interval", (STATE_INTERVAL_MIN..=STATE_INTERVAL_MAX).contains(&genesis.interval)),
        ("limits.max_running", (1..=256).contains(&genesis.limits.max_running)),
        ("time", at <= TIME_US_MAX),
    ];
    match fields.iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(invalid(field)),
        None => Ok(()),
    }
}

fn check_keys(genesis: &Genesis) -> Result<(), Denial> {
    if genesis.keys.len() > KEY_GRANTS_PER_GENESIS_MAX {
        return Err(invalid("keys"));
    }
    let mut ids = Vec::new();
    let mut event_keys = 0;
    for record in &genesis.keys {
        let grant = KeyGrant::decode(&record.0).map_err(|_| invalid("keys"))?;
        let fits = grant.origin == genesis.origin && grant.root == genesis.root_key;
        if !fits || ids.contains(&grant.key.id()) {
            return Err(invalid("keys"));
        }
        event_keys += usize::from(grant.role == Role::Event);
        ids.push(grant.key.id());
    }
    let mut listed: Vec<_> = genesis.principals.iter().flat_map(|principal| &principal.keys).collect();
    listed.sort_unstable();
    let shared = listed.windows(2).any(|pair| pair[0] == pair[1]);
    let known = genesis.principals.iter().flat_map(|principal| &principal.keys).all(|key| ids.contains(key));
    if event_keys == 0 || !known || shared { Err(invalid("keys")) } else { Ok(()) }
}

fn check_principals(genesis: &Genesis) -> Result<(), Denial> {
    let bytes = crate::body::encoded_len(&genesis.principals);
    if genesis.principals.len() > GENESIS_PRINCIPALS_MAX || bytes > GENESIS_LIST_BYTES_MAX {
        return Err(invalid("principals"));
    }
    for (index, principal) in genesis.principals.iter().enumerate() {
        let twice = genesis.principals[..index].iter().any(|other| other.id.is_some() && other.id == principal.id);
        let well_formed = (1..=2).contains(&principal.custody)
            && principal.keys.len() <= 16
            && principal.models < 8
            && principal.id.is_none_or(|id| id != crate::ids::PrincipalId::NODE)
            && match PrincipalKind::from_number(principal.kind) {
                Some(PrincipalKind::Executor) => principal.models != 0,
                Some(PrincipalKind::Human | PrincipalKind::Service) => principal.models == 0,
                Some(PrincipalKind::Agent | PrincipalKind::Node) | None => false,
            };
        if twice || !well_formed {
            return Err(invalid("principals"));
        }
    }
    if listed(genesis, genesis.opener).is_some_and(|opener| opener.kind != PrincipalKind::Executor.number()) {
        Ok(())
    } else {
        Err(invalid("opener"))
    }
}

fn check_grants(genesis: &Genesis, at: TimeUs) -> Result<(), Denial> {
    if genesis.grants.len() > GENESIS_GRANTS_MAX {
        return Err(invalid("grants"));
    }
    if let Some(item) = genesis.grants.iter().position(|root| !grant::fits(&root.cap)) {
        return Err(invalid("grants").item(item));
    }
    if crate::body::encoded_len(&genesis.grants) > GENESIS_LIST_BYTES_MAX {
        return Err(invalid("grants"));
    }
    for (item, root) in genesis.grants.iter().enumerate() {
        let held = listed(genesis, root.subject).is_some_and(|held| held.kind != PrincipalKind::Executor.number());
        let bounded = grant::is_root_window(&root.cap, at);
        let is_root = root.parent.is_none() && root.issuer == genesis.opener && root.answers.is_empty();
        if !held || !bounded || !is_root {
            return Err(invalid("grants").item(item));
        }
    }
    Ok(())
}

/// Checks the command that asked for the session: empty where no system session stands behind it, else the opening that
/// the system session has registered. A person's signature on it is judged there as to its time, here as to its content.
fn check_opening(genesis: &Genesis) -> Result<(), Denial> {
    let open = &genesis.open;
    let Some(system) = genesis.system else {
        return match (open.body.0 == [0x80], open.under, &open.signed) {
            (true, None, None) => Ok(()),
            (false, _, _) => Err(invalid("open.body")),
            (true, Some(_), _) => Err(invalid("open.under")),
            (true, None, Some(_)) => Err(invalid("open.signed")),
        };
    };
    if open.under.is_none() {
        return Err(invalid("open.under"));
    }
    if open.body.0.len() > COMMAND_BYTES_MAX {
        return Err(invalid("open.body"));
    }
    let opening: OpenBody = crate::body::decode(&open.body.0).map_err(|_| invalid("open.body"))?;
    if opening.opener != genesis.opener || opening.roots.len() != genesis.grants.len() {
        return Err(invalid("open.body"));
    }
    for (item, (root, grant)) in opening.roots.iter().zip(&genesis.grants).enumerate() {
        let same = grant::parse(&root.cap).is_ok_and(|cap| cap == grant.cap);
        if !same || grant.subject != genesis.opener {
            return Err(invalid("open.body").item(item));
        }
    }
    let holds = match &open.signed {
        Some(signed) => is_signed(genesis, system.session, &signed.0),
        None => opening.roots.iter().all(|root| root.from.is_some()),
    };
    if holds { Ok(()) } else { Err(invalid("open.signed")) }
}

/// Whether an operator key of the opener signed this opening for the system session.
fn is_signed(genesis: &Genesis, system: SessionId, bytes: &[u8]) -> bool {
    let Some(signed) = Signed::decode(bytes) else { return false };
    let own = listed(genesis, genesis.opener).is_some_and(|opener| opener.keys.contains(&signed.key));
    let grants = genesis.keys.iter().filter_map(|record| KeyGrant::decode(&record.0).ok());
    let key = grants.into_iter().find(|grant| grant.key.id() == signed.key && grant.role == Role::Operator);
    own && signed.is_opening(system, &genesis.open.body.0) && key.is_some_and(|grant| signed.verify(&grant.key).is_ok())
}

/// The principal listed with this id. Ids that are derived from the session are not known in its own genesis.
fn listed(genesis: &Genesis, id: crate::ids::PrincipalId) -> Option<&FirstPrincipal> {
    genesis.principals.iter().find(|principal| principal.id == Some(id))
}

fn invalid(field: &str) -> Denial {
    Denial::new(Code::Malformed).rule(field)
}
