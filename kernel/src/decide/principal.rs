//! Principals that are added to the system session.

use crate::body::v1::{AddPrincipalAsked, Cmd, PrincipalAdded};
use crate::decide::Answer;
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::keys::Role;
use crate::limits::PRINCIPALS_MAX;
use crate::state::{PrincipalKind, State};

pub(crate) fn add(state: &State, cmd: Option<Cmd>, asked: &AddPrincipalAsked) -> Result<Answer, Denial> {
    match PrincipalKind::from_number(asked.kind) {
        Some(PrincipalKind::Human | PrincipalKind::Service) => {}
        Some(PrincipalKind::Agent | PrincipalKind::Executor | PrincipalKind::Node) | None => {
            return Err(Denial::new(Code::Malformed).rule("kind"));
        }
    }
    if !(1..=2).contains(&asked.custody) {
        return Err(Denial::new(Code::Malformed).rule("custody"));
    }
    for (item, id) in asked.keys.iter().enumerate() {
        if asked.keys[..item].contains(id) {
            return Err(Denial::new(Code::Malformed).item(item).rule("a key twice"));
        }
        let key = state.keys.get(id).ok_or(Denial::new(Code::KeyUnusable).item(item).rule("not granted"))?;
        match key.role {
            Role::Operator | Role::Redact | Role::Token => {}
            Role::Event | Role::Log | Role::Executor | Role::Agent => {
                return Err(Denial::new(Code::KeyWrongRole).item(item).rule(key.role.name()));
            }
        }
        if key.owner.is_some() {
            return Err(Denial::new(Code::KeyInUse).item(item));
        }
    }
    if state.principals.len() - state.agents.len() >= PRINCIPALS_MAX {
        return Err(Denial::new(Code::Limit).rule("principals"));
    }
    let keys = asked.keys.clone();
    Ok(Body::PrincipalAdded(PrincipalAdded { cmd, kind: asked.kind, custody: asked.custody, keys }).into())
}
