//! The tools of a session: bound as the system session approved them, and taken away when they drift.

use toka_kernel::body::v1::{BindAsked, Binding, UnbindAsked};
use toka_kernel::ids::{CallId, Digest, PrincipalId};
use toka_kernel::{Ask, Command, EntryRef};

use super::{RunError, Session, refused};
use crate::executor::Tool;
use crate::system::DRIFT;

impl Session {
    /// Unbinds the tools that were quarantined while nothing ran here.
    pub(super) fn unbind_quarantined(&mut self) -> Result<(), RunError> {
        let Some(system) = &self.system else { return Ok(()) };
        let mut found = Vec::new();
        for (name, row) in self.views().registry.iter().filter(|(_, row)| row.unbound_at.is_none()) {
            if let Some(cite) = system.quarantined(name, row.digest)? {
                found.push((name.to_owned(), row.digest, cite));
            }
        }
        found.into_iter().try_for_each(|(name, digest, cite)| self.unbind(name, digest, cite))
    }

    pub(super) fn unbind(&mut self, name: String, digest: Digest, cite: EntryRef) -> Result<(), RunError> {
        let asked = UnbindAsked { name, digest, why: DRIFT, cite };
        let command = Command::of_node(Ask::UnbindTool(asked), Vec::new());
        let committed = self.engine.commit(PrincipalId::NODE, command, &[])?;
        refused("unbinding a tool", &committed.event)
    }

    /// Quarantines the tool of a call that was not run because its files are not what was approved, and takes it from
    /// this session.
    pub(super) fn quarantine(&mut self, call: CallId) -> Result<(), RunError> {
        let Some(row) = self.views().calls.get(call) else { return Ok(()) };
        let name = row.tool.clone();
        let Some(digest) = self.engine.state().bound_digest(&name) else { return Ok(()) };
        let Some(system) = &mut self.system else { return Ok(()) };
        match system.quarantine(&name, digest, None)? {
            Some(cite) => self.unbind(name, digest, cite),
            None => Ok(()),
        }
    }

    /// Binds as many tools as one event takes.
    pub(super) fn bind(&mut self, wanted: &[Tool]) -> Result<(), RunError> {
        let fault = |error: toka_kernel::tool::ToolSpecError| RunError::Capability {
            capability: "a tool".to_owned(),
            why: error.to_string(),
        };
        let mut tools = Vec::new();
        let mut blobs = Vec::new();
        for (index, tool) in wanted.iter().enumerate() {
            let text = u16::try_from(index).unwrap_or(u16::MAX);
            let cite = self.approval(tool)?;
            tools.push(Binding { tool: tool.spec().decision(text).map_err(fault)?, cite, replaces: None });
            blobs.push(tool.spec().encode().map_err(fault)?);
        }
        let command = Command::of_node(Ask::BindTool(BindAsked { tools }), Vec::new());
        let committed = self.engine.commit(PrincipalId::NODE, command, &blobs)?;
        refused("binding the tools", &committed.event)
    }

    /// Where the system session approved a tool, if there is one.
    pub(super) fn approval(&self, tool: &Tool) -> Result<Option<EntryRef>, RunError> {
        let Some(system) = &self.system else { return Ok(None) };
        let name = &tool.spec().name;
        let unapproved = || RunError::NotApproved(name.clone());
        let digest = tool.spec().digest().map_err(|_| unapproved())?;
        system.approval(name, digest)?.ok_or_else(unapproved).map(Some)
    }
}
