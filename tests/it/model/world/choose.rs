//! Random commands about signatures, administrative grants and the system session, and how they become the kernel's.

use toka_kernel::Signed;
use toka_kernel::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, EndHead, EndSessionAsked, GrantAmounts, ObserveAsked, OpenSessionAsked,
    ProbeAsked, QuarantineToolAsked, RegisterToolAsked, ResolveAsked, RootAsked, UnbindAsked,
};
use toka_kernel::ids::{Bytes, CallId, Digest, EntryHash, GrantId, KeyId, PrincipalId, SessionId};
use toka_kernel::keys::SecretKey;
use toka_kernel::{Ask as KernelAsk, BlobRef, EntryRef};

use super::{ANN, Ask, CITED, Cap, How, Id, Key, NODE, Rng, Sign, Standing, World, admin, kernel_tool, tool, tools};

impl World {
    /// Under what right, and signed how: mostly so that it passes.
    pub(super) fn how(&self, by: Id, ask: &Ask, rng: &mut Rng) -> How {
        let wanted = ask.right(by);
        let mut under = None;
        if let Some((must, ops)) = &wanted
            && !ops.is_empty()
            && rng.in_100(if *must { 95 } else { 25 })
        {
            let need = super::Scope::Admin { ops: ops.iter().copied().collect() };
            let fits = |id: &Id, grant: &super::super::rules::Grant| {
                grant.subject == by && need.within(&grant.cap.scope).is_ok() && self.is_live(id)
            };
            under = Some(self.some_grant(rng, fits));
        }
        let of_agents = wanted.as_ref().is_some_and(|(_, ops)| ops.is_empty()) || by == super::SERVICE;
        if let Some(agent) = self.model.target_of(ask).filter(|_| of_agents && rng.in_100(50))
            && let Some(agent) = self.model.agents.get(&agent)
        {
            let need = super::Scope::Agent { spec: agent.spec.clone(), live: Some(0) };
            let fits = |id: &Id, grant: &super::super::rules::Grant| {
                grant.subject == by && need.within(&grant.cap.scope).is_ok() && self.is_live(id)
            };
            let any = |_: &Id, grant: &super::super::rules::Grant| {
                grant.subject == by && matches!(grant.cap.scope, super::Scope::Agent { .. })
            };
            under = Some(if rng.in_100(75) { self.some_grant(rng, fits) } else { self.some_grant(rng, any) });
        }
        if wanted.is_none() && rng.in_100(1) {
            under = Some(self.some_grant(rng, |_, _| true));
        }
        let must = match ask {
            Ask::Approve { .. } | Ask::AddPrincipal { .. } | Ask::Grant { parent: None, .. } => true,
            Ask::Register { state, .. } => *state == 2,
            Ask::Open { roots, .. } => roots.iter().any(|(from, _)| from.is_none()),
            _ => false,
        };
        let sign = rng.in_100(if must { 95 } else { 3 }).then(|| self.sign(by, rng));
        How { under, sign }
    }

    fn sign(&self, by: Id, rng: &mut Rng) -> Sign {
        let own: Vec<Key> = self.model.owned.iter().filter(|(owner, _)| *owner == by).map(|(_, key)| *key).collect();
        let own = if own.is_empty() || rng.in_100(5) { vec![Key::Operator, Key::Spare(1), Key::Event] } else { own };
        let operator = own.iter().copied().find(|key| matches!(key, Key::Operator | Key::Spare(_)));
        let key = if rng.in_100(90) { operator.unwrap_or(own[0]) } else { *rng.of(&own) };
        let not_after = match rng.below(30) {
            0 => self.now,
            1 => self.now + 86_400_000_001,
            2 => self.now + 86_400_000_000,
            3 => self.now + 1,
            4..15 => self.now + 5_000,
            _ => self.now + 3_600_000_000,
        };
        Sign {
            key,
            nonce: if rng.in_100(90) { rng.next() as u8 } else { rng.below(3) as u8 },
            not_after,
            other_session: rng.in_100(3),
            forged: rng.in_100(3),
            other_command: rng.in_100(3),
            garbage: rng.in_100(2),
        }
    }

    fn secret(&self, key: Key) -> SecretKey {
        match key {
            Key::Operator => self.keys.operator.clone(),
            Key::Redact => self.keys.redact.clone(),
            Key::Spare(index) => self.keys.spare[index].clone(),
            Key::Event => self.keys.event.clone(),
            Key::Unknown => SecretKey::from_seed(&[0xfe; 32]),
        }
    }

    pub(super) fn signature(&self, sign: &Sign, ask: &KernelAsk, blobs: &[BlobRef]) -> Bytes {
        let key = self.secret(sign.key);
        let session = if sign.other_session { SessionId([0x42; 32]) } else { self.head.session };
        let mut nonce = [0; 16];
        nonce[0] = sign.nonce;
        let other = KernelAsk::Observe(ObserveAsked { what: 1, subject: None, call: None, count: 99, detail: None });
        let ask = if sign.other_command { &other } else { ask };
        let mut signed = Signed::sign(session, nonce, sign.not_after, ask, blobs, &key);
        if sign.forged {
            signed.signature[3] ^= 1;
        }
        let mut bytes = signed.encode();
        if sign.garbage {
            bytes.0.pop();
        }
        bytes
    }

    /// A grant of the opener for nothing that derives from none.
    pub(super) fn root_grant(&self, rng: &mut Rng) -> (Id, Ask) {
        let mut cap = rng.of(&[tool("*"), admin(&["cancel", "resolve"]), tool("reader")]).clone();
        cap.exp = *rng.of(&[Some(self.now + 86_400_000_000), Some(self.now + 50_000), Some(self.now), None]);
        cap.depth = rng.below(3) as u8;
        (self.model.opener, Ask::Grant { parent: None, cap, to: self.anybody(rng) })
    }

    pub(super) fn resolve(&self, rng: &mut Rng) -> (Id, Ask) {
        let doubts: Vec<Id> = self.model.calls.iter().filter(|(_, call)| call.doubt).map(|(id, _)| *id).collect();
        let all: Vec<Id> = self.model.calls.keys().copied().collect();
        let from = if doubts.is_empty() || rng.in_100(5) { all } else { doubts };
        let call = if from.is_empty() || rng.in_100(3) { [0x66; 32] } else { *rng.of(&from) };
        let verdict = if rng.in_100(95) { 1 + rng.below(3) as u8 } else { *rng.of(&[0, 4]) };
        (*rng.of(&[self.model.opener, self.model.opener, ANN]), Ask::Resolve { call, verdict })
    }

    pub(super) fn unbind(&self, rng: &mut Rng) -> (Id, Ask) {
        // One tool of several comes and goes.
        let name = if rng.in_100(90) { "sum" } else { *rng.of(&["huge", "nothing"]) };
        let bound = self.model.tools.get(name).map_or(1, |tool| tool.digest);
        let digest = if rng.in_100(95) { bound } else { 0x77 };
        (NODE, Ask::Unbind { name: name.to_owned(), digest, why: rng.below(7) as u8, cite: rng.in_100(95) })
    }

    pub(super) fn observe(&self, rng: &mut Rng) -> (Id, Ask) {
        let calls: Vec<Id> = self.model.calls.keys().copied().chain([[0x66; 32]]).collect();
        let call = rng.in_100(60).then(|| *rng.of(&calls));
        let executor =
            call.and_then(|call| self.model.calls.get(&call)).map_or(super::EXECUTOR.0, |call| call.executor);
        let by = *rng.of(&[NODE, executor, executor, super::EXECUTOR.0]);
        (by, Ask::Observe { what: rng.below(12) as u16, call })
    }

    /// Mostly what only the system session has, with enough of the rest to have grants and agents there too.
    pub(super) fn choose_of_system(&self, rng: &mut Rng) -> (Id, Ask) {
        if rng.in_100(10) {
            return self.work(rng);
        }
        match rng.below(1_000) {
            0..180 => self.open_session(rng),
            180..300 => self.end_session(rng),
            300..440 => self.register(rng),
            440..560 => self.approve(rng),
            560..630 => self.quarantine(rng),
            630..670 => self.add_principal(rng),
            670..690 => (NODE, Ask::Probe { levels: rng.below(5) as u8 }),
            690..710 => self.observe(rng),
            710..800 => self.grant(rng),
            800..830 => self.root_grant(rng),
            830..870 => self.spawn(rng),
            870..900 => self.start(rng),
            900..920 => self.end(rng),
            920..940 => self.resolve(rng),
            940..950 => (NODE, Ask::Bind { tool: rng.of(&tools()).clone(), replaces: None, cite: false }),
            950..965 => (self.anybody(rng), Ask::Revoke { grant: self.some_grant(rng, |_, _| true) }),
            965..990 => (NODE, Ask::Commit),
            _ => (self.model.opener, Ask::Close { why: rng.below(5) as u8 }),
        }
    }

    fn open_session(&self, rng: &mut Rng) -> (Id, Ask) {
        let by = *rng.of(&[self.model.opener, self.model.opener, ANN]);
        let mut session = [0; 32];
        session[..8].copy_from_slice(&rng.next().to_be_bytes());
        if rng.in_100(5) {
            session = self.model.listed.keys().next().copied().unwrap_or(session);
        }
        let mut roots = Vec::new();
        for _ in 0..rng.below(4) {
            let from = self.some_grant(rng, |id, grant| grant.subject == by && grant.cap.depth > 0 && self.is_live(id));
            let mut cap = self.child(rng, from);
            // Nothing is filled here.
            if let Some(node) = self.model.grants.get(&from).filter(|_| rng.in_100(90)) {
                cap = cap.filled(&node.cap);
            }
            let from = rng.in_100(90).then_some(from);
            roots.push((from, cap));
        }
        let opener = if rng.in_100(97) { by } else { ANN };
        (by, Ask::Open { session, opener, roots })
    }

    fn end_session(&self, rng: &mut Rng) -> (Id, Ask) {
        let open: Vec<&Id> = self.model.listed.iter().filter(|(_, listed)| listed.open).map(|(id, _)| id).collect();
        let all: Vec<&Id> = self.model.listed.keys().collect();
        let from = if open.is_empty() || rng.in_100(10) { &all } else { &open };
        let session = if from.is_empty() || rng.in_100(3) { [0x11; 32] } else { **rng.of(from) };
        let mut spent = Vec::new();
        if let Some(listed) = self.model.listed.get(&session) {
            for (grant, reserved) in &listed.reserved {
                let mut amounts = reserved.map(|amount| match rng.below(3) {
                    0 => 0,
                    1 => amount,
                    _ => (amount / 2) & !255,
                });
                if rng.in_100(3) {
                    amounts[1] = 7;
                }
                let mut amounts = amounts.to_vec();
                while amounts.last() == Some(&0) && rng.in_100(99) {
                    amounts.pop();
                }
                if rng.in_100(70) {
                    spent.push((*grant, amounts));
                }
            }
        }
        if rng.in_100(4) {
            spent.reverse();
        }
        if rng.in_100(3) {
            spent.push(([0x77; 32], Vec::new()));
        }
        let how = *rng.of(&[1, 1, 1, 1, 2, 2, 0]);
        if how == 2 && rng.in_100(80) {
            spent.clear();
        }
        (NODE, Ask::EndSession { session, how, head: (how == 1) != rng.in_100(3), spent })
    }

    fn register(&self, rng: &mut Rng) -> (Id, Ask) {
        let mut tool = rng.of(&tools()).clone();
        tool.digest = *rng.of(&[1, 2, 3, tool.digest]);
        if rng.in_100(3) {
            tool.effect = 3;
        }
        let state = *rng.of(&[1, 1, 1, 2, 2, 2, 3, 4]);
        let by = *rng.of(&[self.model.opener, self.model.opener, ANN, NODE]);
        (by, Ask::Register { tool, state })
    }

    /// The name and mostly the digest of a registered tool, preferably one that stands there.
    fn known(&self, rng: &mut Rng, wanted: &[Standing]) -> (String, u8) {
        let all = &self.model.registered;
        let good: Vec<&String> =
            all.iter().filter(|(_, (_, standing))| wanted.contains(standing)).map(|(name, _)| name).collect();
        let any: Vec<&String> = all.keys().collect();
        let from = if good.is_empty() || rng.in_100(10) { &any } else { &good };
        if from.is_empty() || rng.in_100(3) {
            return ("nothing".to_owned(), 1);
        }
        let name = (*rng.of(from)).clone();
        let digest = if rng.in_100(95) { all[&name].0 } else { 0x77 };
        (name, digest)
    }

    fn approve(&self, rng: &mut Rng) -> (Id, Ask) {
        let (name, digest) = self.known(rng, &[Standing::Proposed, Standing::Quarantined]);
        (self.model.opener, Ask::Approve { name, digest })
    }

    fn quarantine(&self, rng: &mut Rng) -> (Id, Ask) {
        let (name, digest) = self.known(rng, &[Standing::Approved]);
        (NODE, Ask::Quarantine { name, digest, why: *rng.of(&[1, 1, 2, 3, 5, 4, 0]) })
    }

    fn add_principal(&self, rng: &mut Rng) -> (Id, Ask) {
        let mut keys = Vec::new();
        for _ in 0..rng.below(3) {
            keys.push(*rng.of(&[Key::Spare(0), Key::Spare(1), Key::Spare(1), Key::Operator, Key::Event, Key::Unknown]));
        }
        let kind = *rng.of(&[1, 1, 1, 4, 4, 2, 3, 5]);
        (self.model.opener, Ask::AddPrincipal { kind, custody: 1 + rng.below(11) as u8 / 5, keys })
    }

    /// The kernel's form of what these commands ask.
    pub(super) fn kernel_ask(&self, ask: &Ask, blob: &mut dyn FnMut() -> u16) -> KernelAsk {
        let digest = |byte: u8| Digest([byte; 32]);
        let root = |(from, cap): &(Option<Id>, Cap)| RootAsked { from: from.map(GrantId), cap: cap.text() };
        match ask.clone() {
            Ask::Open { session, opener, roots } => KernelAsk::OpenSession(Box::new(OpenSessionAsked {
                session: SessionId(session),
                opener: PrincipalId(opener),
                roots: roots.iter().map(root).collect(),
            })),
            Ask::EndSession { session, how, head, spent } => KernelAsk::EndSession(EndSessionAsked {
                session: SessionId(session),
                how,
                head: head.then_some(EndHead { seq: 9, hash: EntryHash([9; 32]) }),
                spent: spent
                    .into_iter()
                    .map(|(grant, amounts)| GrantAmounts { grant: GrantId(grant), amounts })
                    .collect(),
            }),
            Ask::Register { tool, state } => KernelAsk::RegisterTool(Box::new(RegisterToolAsked {
                tool: kernel_tool(&tool, blob()),
                file: digest(0xf1),
                state,
            })),
            Ask::Approve { name, digest: of } => KernelAsk::ApproveTool(ApproveToolAsked { name, digest: digest(of) }),
            Ask::Quarantine { name, digest: of, why } => {
                let seen = (why == 1).then_some(digest(0xd1));
                KernelAsk::QuarantineTool(QuarantineToolAsked { name, digest: digest(of), why, seen })
            }
            Ask::Unbind { name, digest: of, why, cite } => {
                let cite = if cite { CITED } else { EntryRef { session: SessionId([0x41; 32]), ..CITED } };
                KernelAsk::UnbindTool(UnbindAsked { name, digest: digest(of), why, cite })
            }
            Ask::Resolve { call, verdict } => {
                let evidence = (verdict == 1).then(&mut *blob);
                KernelAsk::ResolveOutcome(ResolveAsked { call: CallId(call), verdict, evidence })
            }
            Ask::AddPrincipal { kind, custody, keys } => {
                let id = |key: &Key| -> KeyId { self.secret(*key).public().id() };
                KernelAsk::AddPrincipal(AddPrincipalAsked { kind, custody, keys: keys.iter().map(id).collect() })
            }
            Ask::Observe { what, call } => {
                let detail = (what == 1).then(&mut *blob);
                let (subject, call) = (Some(digest(1)), call.map(CallId));
                KernelAsk::Observe(ObserveAsked { what, subject, call, count: 1, detail })
            }
            Ask::Probe { levels } => KernelAsk::RecordProbe(ProbeAsked {
                levels,
                layers: 7,
                landlock_abi: 6,
                jail: digest(0xfa),
                kernel: "Linux".to_owned(),
            }),
            other => unreachable!("not of these: {other:?}"),
        }
    }
}
