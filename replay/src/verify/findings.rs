//! Findings while they are being made: marks instead of numbers, since numbers follow the order of places.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toka_kernel::Broken;
use toka_kernel::ids::{Seq, SessionId};
use toka_kernel::limits::FINDINGS_MAX;

use crate::code::{Class, Code};
use crate::report::Finding;

/// A finding before it has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// What is wrong with an entry, relative to its own bytes.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) class: Class,
    pub(crate) field: Option<String>,
    /// In the entry.
    pub(crate) offset: Option<u64>,
    pub(crate) expected: Value,
    pub(crate) actual: Value,
    pub(crate) detail: Map<String, Value>,
}

impl Fault {
    pub(crate) fn new(code: Code) -> Fault {
        let (expected, actual) = (Value::Null, Value::Null);
        Fault { code, class: code.class(), field: None, offset: None, expected, actual, detail: Map::new() }
    }

    pub(crate) fn at(self, field: impl Into<String>, offset: usize) -> Fault {
        Fault { field: Some(field.into()), offset: Some(offset as u64), ..self }
    }

    pub(crate) fn expected(self, expected: impl Into<Value>, actual: impl Into<Value>) -> Fault {
        Fault { expected: expected.into(), actual: actual.into(), ..self }
    }

    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Fault {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// A broken rule of the kernel. Its numbers come as text.
    pub(crate) fn of(broken: Broken) -> Fault {
        let value = |text: String| match text.parse::<u64>() {
            // The magic bytes are hex digits that may look like a number.
            Ok(number) if broken.field != "magic" => Value::from(number),
            Ok(_) | Err(_) => Value::from(text),
        };
        Fault::new(broken.code.into())
            .at(broken.field, broken.offset)
            .expected(value(broken.expected), value(broken.actual))
    }
}

/// All findings of a verification.
#[derive(Debug, Default)]
pub(super) struct Findings {
    drafts: Vec<Draft>,
    next: u64,
    pub(super) tampered: bool,
    pub(super) unreadable: bool,
}

#[derive(Debug)]
struct Draft {
    mark: Mark,
    session: Option<SessionId>,
    seq: Option<Seq>,
    byte_offset: Option<u64>,
    fault: Fault,
    cause: Option<Mark>,
}

impl Findings {
    /// Notes `fault`, whose bytes begin at `base`.
    pub(super) fn push(
        &mut self,
        session: Option<SessionId>,
        seq: Option<Seq>,
        base: u64,
        fault: Fault,
        cause: Option<Mark>,
    ) -> Mark {
        let mark = Mark(self.next);
        self.next += 1;
        self.tampered |= fault.class == Class::Fail;
        self.unreadable |= fault.class == Class::Unreadable;
        if self.drafts.len() < FINDINGS_MAX {
            let byte_offset = fault.offset.map(|offset| base.saturating_add(offset));
            self.drafts.push(Draft { mark, session, seq, byte_offset, fault, cause });
        }
        mark
    }

    /// The first failure inside a session, or inside any.
    pub(super) fn first_failure(&self, session: Option<SessionId>) -> Option<Mark> {
        let fails = |draft: &&Draft| draft.fault.class == Class::Fail;
        let here = |draft: &&Draft| session.is_none() || draft.session == session;
        self.drafts.iter().filter(fails).find(here).map(|draft| draft.mark)
    }

    /// Adds to the details of a finding that was made before.
    pub(super) fn annotate(&mut self, mark: Mark, name: &str, value: impl Into<Value>) {
        if let Ok(at) = self.drafts.binary_search_by_key(&mark, |draft| draft.mark) {
            self.drafts[at].fault.detail.insert(name.to_owned(), value.into());
        }
    }

    /// The findings with their numbers, by session and place; what concerns the whole input comes last.
    pub(super) fn finish(mut self, trusted: &BTreeMap<SessionId, Option<Seq>>) -> Vec<Finding> {
        let capped = self.next > FINDINGS_MAX as u64;
        self.drafts
            .sort_by_key(|draft| (draft.session.is_none(), draft.session, draft.seq.is_none(), draft.seq, draft.mark));
        let ids: BTreeMap<Mark, u32> = self.drafts.iter().map(|draft| draft.mark).zip(1..).collect();
        let finding = |draft: Draft| Finding {
            id: ids.get(&draft.mark).copied().unwrap_or(0),
            code: draft.fault.code,
            class: draft.fault.class,
            session: draft.session,
            seq: draft.seq,
            byte_offset: draft.byte_offset,
            field: draft.fault.field,
            expected: draft.fault.expected,
            actual: draft.fault.actual,
            caused_by: draft.cause.and_then(|cause| ids.get(&cause).copied()),
            trusted_prefix_seq: draft.session.and_then(|session| trusted.get(&session).copied().flatten()),
            detail: draft.fault.detail,
        };
        let mut findings: Vec<Finding> = self.drafts.into_iter().map(finding).collect();
        if capped {
            let fault = Fault::new(Code::FindingsCapped).expected(Value::Null, self.next);
            let id = u32::try_from(findings.len() + 1).unwrap_or(u32::MAX);
            findings.push(Finding {
                id,
                code: fault.code,
                class: fault.class,
                session: None,
                seq: None,
                byte_offset: None,
                field: None,
                expected: fault.expected,
                actual: fault.actual,
                caused_by: None,
                trusted_prefix_seq: None,
                detail: fault.detail,
            });
        }
        findings
    }
}
