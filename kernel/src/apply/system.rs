//! The fold of what the system session records, of what follows from it in a work session, and of signed commands.

use crate::apply::Effects;
use crate::body::v1::{
    GrantAmounts, OutcomeResolved, PrincipalAdded, SessionEnded, SessionRegistered, ToolRegistered, ToolUnbound,
};
use crate::budget;
use crate::decide::{right, tool};
use crate::entry::Header;
use crate::event::{Body, Event};
use crate::ids::{PrincipalId, TimeUs, derived};
use crate::state::rows::RowKey;
use crate::state::{Listed, Nonce, Principal, PrincipalKind, RegisteredTool, State, ToolState};

impl State {
    /// Remembers that a signed command was accepted, so that nobody can send it again.
    pub(super) fn use_signature(&mut self, header: &Header, event: &Event) {
        if matches!(event.body, Body::Refused(..)) {
            return;
        }
        let signed = event.cmd().and_then(|cmd| cmd.signed.as_ref());
        let Some((key, until)) = signed.and_then(right::used_nonce) else { return };
        self.nonces.insert(key, Nonce { seq: header.seq, until });
        self.touch(RowKey::Nonce(key));
    }

    /// Forgets the signed commands that could not be sent again at `at` anyway.
    pub(super) fn forget_nonces(&mut self, at: TimeUs) {
        let past = self.nonces.iter().filter(|(_, nonce)| nonce.until <= at);
        let past: Vec<_> = past.map(|(key, _)| *key).collect();
        for key in past {
            self.nonces.remove(&key);
            self.touch(RowKey::Nonce(key));
        }
    }

    pub(super) fn list_session(&mut self, registered: &SessionRegistered) -> Effects {
        for GrantAmounts { grant, amounts } in &registered.reserved {
            let amounts = budget::vector(amounts).unwrap_or_default();
            self.each_above(&[*grant], |node| node.meter.carve(&amounts));
        }
        let reserved = registered.reserved.clone();
        self.listed.insert(registered.session, Listed { opener: registered.opener, open: true, reserved });
        self.touch(RowKey::Listed(registered.session));
        Effects::default()
    }

    pub(super) fn end_session(&mut self, ended: &SessionEnded) -> Effects {
        let Some(listed) = self.listed.get_mut(&ended.session) else { return Effects::default() };
        listed.open = false;
        let reserved = std::mem::take(&mut listed.reserved);
        self.touch(RowKey::Listed(ended.session));
        for GrantAmounts { grant, amounts } in &reserved {
            let spent = ended.spent.iter().find(|spent| spent.grant == *grant);
            let spent = spent.and_then(|spent| budget::vector(&spent.amounts)).unwrap_or_default();
            let amounts = budget::vector(amounts).unwrap_or_default();
            self.each_above(&[*grant], |node| node.meter.release(&amounts, &spent));
        }
        Effects::default()
    }

    pub(super) fn register_tool(&mut self, registered: &ToolRegistered) -> Effects {
        let name = registered.tool.name.clone();
        if let (Ok(tool), Some(state)) = (tool::parse(&registered.tool), ToolState::from_number(registered.state)) {
            self.registered.insert(name.clone(), RegisteredTool { tool, state, file: registered.file });
            self.touch(RowKey::Tool(name));
        }
        Effects::default()
    }

    pub(super) fn move_tool(&mut self, name: &str, to: ToolState) -> Effects {
        if let Some(known) = self.registered.get_mut(name) {
            known.state = to;
            self.touch(RowKey::Tool(name.to_owned()));
        }
        Effects::default()
    }

    pub(super) fn unbind_tool(&mut self, unbound: &ToolUnbound) -> Effects {
        if let Some(tool) = self.tools.get_mut(&unbound.name) {
            tool.unbound = Some(unbound.why);
            self.touch(RowKey::Tool(unbound.name.clone()));
        }
        Effects::default()
    }

    pub(super) fn add_principal(&mut self, header: &Header, added: &PrincipalAdded) -> Effects {
        let id = PrincipalId(derived(self.head.session, header.seq, 0));
        let Some(kind) = PrincipalKind::from_number(added.kind) else { return Effects::default() };
        for key in &added.keys {
            if let Some(row) = self.keys.get_mut(key) {
                row.owner = Some(id);
                self.touch(RowKey::Key(*key));
            }
        }
        let (custody, keys) = (added.custody, added.keys.clone());
        self.principals.insert(id, Principal { kind, alive: true, custody, keys, models: 0, above: None });
        self.touch(RowKey::Principal(id));
        Effects::default()
    }

    pub(super) fn resolve_outcome(&mut self, resolved: &OutcomeResolved) -> Effects {
        let Some(call) = self.calls.get_mut(&resolved.call) else { return Effects::default() };
        call.doubt = false;
        call.ended = Some(self.commits);
        let principal = call.principal;
        self.ended.push_back((self.commits, resolved.call));
        self.doubts = self.doubts.saturating_sub(1);
        self.touch(RowKey::Call(resolved.call));
        let Some(agent) = self.agents.get_mut(&principal) else { return Effects::default() };
        agent.doubts = agent.doubts.saturating_sub(1);
        self.touch(RowKey::Agent(principal));
        self.drive_below(principal)
    }
}
