//! The reference model of the system session, of signed commands and of administrative grants.

use std::collections::BTreeSet;

use super::cap::{Cap, NEVER, Scope};
use super::rules::{Ask, Id, Kind, Model, NODE, No, Principal, no};

/// Which key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Operator,
    Redact,
    Spare(usize),
    Event,
    Unknown,
}

/// How a command is signed, and what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Sign {
    pub(crate) key: Key,
    pub(crate) nonce: u8,
    pub(crate) not_after: u64,
    pub(crate) other_session: bool,
    pub(crate) forged: bool,
    pub(crate) other_command: bool,
    pub(crate) garbage: bool,
}

/// Under what right, and signed how.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    pub(crate) under: Option<Id>,
    pub(crate) sign: Option<Sign>,
}

/// Where a tool of the system session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Proposed = 1,
    Approved = 2,
    Quarantined = 4,
}

#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) open: bool,
    pub(crate) reserved: Vec<(Id, [u64; 7])>,
}

/// One day.
const DAY: u64 = 86_400_000_000;

impl Ask {
    /// What only the node says of itself: recorded without right and signature.
    pub(crate) fn is_of_node(&self) -> bool {
        use Ask::*;
        matches!(self, Commit | Bind { .. } | EndSession { .. } | Quarantine { .. } | Unbind { .. } | Probe { .. })
    }

    fn must_be_signed(&self, by: Id) -> bool {
        match self {
            Ask::Grant { parent, .. } => parent.is_none(),
            Ask::Register { state, .. } => *state == 2 && by != NODE,
            Ask::Open { roots, .. } => roots.iter().any(|(from, _)| from.is_none()),
            Ask::Approve { .. } | Ask::AddPrincipal { .. } => true,
            _ => false,
        }
    }

    /// The operations that a command may use, and whether it must.
    pub(crate) fn right(&self, by: Id) -> Option<(bool, Vec<&'static str>)> {
        match self {
            Ask::Close { .. } => Some((false, vec!["cancel"])),
            Ask::Start { .. } => Some((false, vec!["pause"])),
            Ask::Revoke { .. } => Some((false, vec!["revoke-any"])),
            Ask::Grant { parent: None, .. } => Some((true, vec!["grant-root"])),
            Ask::Open { .. } if self.must_be_signed(by) => Some((true, vec!["grant-root", "open-session"])),
            Ask::Open { .. } => Some((true, vec!["open-session"])),
            Ask::Register { state: 2, .. } if by == NODE => None,
            Ask::Register { .. } | Ask::Approve { .. } => Some((true, vec!["register-tool"])),
            Ask::AddPrincipal { .. } => Some((true, vec!["members"])),
            Ask::Resolve { .. } => Some((true, vec!["resolve"])),
            Ask::Work(work) => work.ops().map(|ops| (false, ops)),
            _ => None,
        }
    }
}

impl Model {
    /// In which sessions this can be asked.
    pub(super) fn in_class(&self, ask: &Ask) -> Result<(), No> {
        use Ask::*;
        let only_system = matches!(
            ask,
            Open { .. }
                | EndSession { .. }
                | Register { .. }
                | Approve { .. }
                | Quarantine { .. }
                | AddPrincipal { .. }
                | Probe { .. }
        );
        let only_work = matches!(ask, Bind { .. } | Unbind { .. });
        if only_system && !self.is_system || only_work && self.is_system { Err(no(206)) } else { Ok(()) }
    }

    pub(super) fn signed(&self, by: Id, kind: Kind, ask: &Ask, sign: Option<&Sign>, at: u64) -> Result<(), No> {
        let must = ask.must_be_signed(by);
        let Some(sign) = sign.filter(|_| !ask.is_of_node()) else {
            return if must { Err(no(120)) } else { Ok(()) };
        };
        if sign.garbage {
            return Err(no(101));
        }
        if !self.owned.contains(&(by, sign.key)) {
            return Err(no(109));
        }
        let operator = matches!(sign.key, Key::Operator | Key::Spare(_));
        let wants_operator = must || matches!(kind, Kind::Human | Kind::Service);
        if !operator || !wants_operator {
            return Err(no(125));
        }
        if sign.other_session {
            return Err(no(122));
        }
        if at >= sign.not_after || sign.not_after > at + DAY {
            return Err(no(123));
        }
        if let Some((seq, _)) = self.nonces.get(&(sign.key, sign.nonce)) {
            return Err(No { first_seq: Some(*seq), ..no(124) });
        }
        if sign.forged || sign.other_command { Err(no(121)) } else { Ok(()) }
    }

    pub(super) fn admin(&self, by: Id, kind: Kind, under: Option<Id>, ask: &Ask, at: u64) -> Result<(), No> {
        let under = under.filter(|_| !ask.is_of_node());
        let (must, ops) = match (ask.right(by), under) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(no(312)),
            (Some(right), _) => right,
        };
        let Some(under) = under else { return if must { Err(no(312)) } else { Ok(()) } };
        if let Some(answer) = self.orchestrates(by, kind, under, ask, at) {
            return answer;
        }
        self.usable(under, by, at)?;
        let need = Scope::Admin { ops: ops.into_iter().collect() };
        need.within(&self.grants[&under].cap.scope).map_err(|dim| no(312).at(under).dim(dim))
    }

    pub(super) fn open_session(
        &mut self,
        by: Id,
        session: Id,
        opener: Id,
        roots: &[(Option<Id>, Cap)],
        at: u64,
    ) -> Result<Listed, No> {
        if opener != by {
            return Err(no(101));
        }
        if self.listed.contains_key(&session) {
            return Err(no(206));
        }
        let mut reserved: Vec<(Id, [u64; 7])> = Vec::new();
        for (item, (from, cap)) in roots.iter().enumerate() {
            if cap.exp.is_none_or(|exp| exp <= at) || !cap.is_ever_valid() {
                return Err(no(101).item(item));
            }
            let Some(from) = *from else { continue };
            let node = self.grants.get(&from).ok_or(no(308).item(item))?;
            if node.subject != by {
                return Err(no(302).at(from).item(item));
            }
            self.live(from, at).map_err(|no| no.item(item))?;
            self.below(from, cap, by).map_err(|no| no.item(item))?;
            if !reserved.iter().any(|(grant, _)| *grant == from) {
                reserved.push((from, [0; 7]));
            }
            let sum = &mut reserved.iter_mut().find(|(grant, _)| *grant == from).expect("just put").1;
            for (index, sum) in sum.iter_mut().enumerate() {
                let amount = cap.limits[index].unwrap_or(0);
                let amount = if (1..=2).contains(&index) { amount / 256 * 256 } else { amount };
                let dim = super::cap::dim::CALLS + index as u16;
                *sum = sum.checked_add(amount).ok_or(no(602).at(from).dim(dim).item(item))?;
            }
        }
        let leaves: Vec<Id> = reserved.iter().map(|(from, _)| *from).collect();
        let union = self.union(&leaves);
        let total = |id: Id| -> [u128; 7] {
            let below = reserved.iter().filter(|(from, _)| self.chain(*from).contains(&id));
            below.fold([0; 7], |sum, (_, more)| std::array::from_fn(|index| sum[index] + u128::from(more[index])))
        };
        // Sums come before what is left, in the order in which they are made.
        let mut sums: std::collections::BTreeMap<Id, [u64; 7]> = Default::default();
        for (from, amounts) in &reserved {
            for id in self.chain(*from) {
                let sum = sums.entry(id).or_default();
                for index in 0..7 {
                    let dim = super::cap::dim::CALLS + index as u16;
                    sum[index] = sum[index].checked_add(amounts[index]).ok_or(no(602).at(id).dim(dim))?;
                }
            }
        }
        for id in &union {
            let total = total(*id).map(|amount| amount as u64);
            self.budgets(&[*id], &total.map(Some), &total)?;
        }
        for (from, amounts) in &reserved {
            for id in self.chain(*from) {
                let node = self.grants.get_mut(&id).expect("known");
                for (reserved, amount) in node.reserved.iter_mut().zip(amounts) {
                    *reserved = reserved.saturating_add(*amount);
                }
            }
        }
        Ok(Listed { open: true, reserved })
    }

    pub(super) fn end_session(&mut self, session: Id, how: u8, head: bool, spent: &[(Id, Vec<u64>)]) -> Result<(), No> {
        match how {
            1 if head => {}
            2 if !head && spent.is_empty() => {}
            _ => return Err(no(101)),
        }
        let listed = self.listed.get(&session).ok_or(no(101))?.clone();
        if !listed.open {
            return Err(no(206));
        }
        let mut from = 0;
        for (item, (grant, amounts)) in spent.iter().enumerate() {
            match listed.reserved[from..].iter().position(|(known, _)| known == grant) {
                None => return Err(no(101).item(item)),
                Some(at) => from += at + 1,
            }
            let grains =
                amounts.iter().enumerate().all(|(index, amount)| !(1..=2).contains(&index) || amount % 256 == 0);
            if !grains || amounts.last() == Some(&0) {
                return Err(no(105).item(item));
            }
        }
        for (grant, reserved) in &listed.reserved {
            let mut charged = [0; 7];
            if let Some((_, amounts)) = spent.iter().find(|(known, _)| known == grant) {
                charged[..amounts.len()].copy_from_slice(amounts);
            }
            for id in self.chain(*grant) {
                let node = self.grants.get_mut(&id).expect("known");
                for index in 0..7 {
                    node.reserved[index] = node.reserved[index].saturating_sub(reserved[index]);
                    node.spent[index] = node.spent[index].saturating_add(charged[index]);
                }
            }
        }
        self.listed.insert(session, Listed { open: false, reserved: Vec::new() });
        Ok(())
    }

    pub(super) fn register(&mut self, name: &str, digest: u8, state: u8) -> Result<(), No> {
        let becomes = match state {
            1 => Standing::Proposed,
            2 => Standing::Approved,
            _ => return Err(no(101)),
        };
        if let Some((known, standing)) = self.registered.get(name) {
            let takes_away = *standing == Standing::Approved && becomes == Standing::Proposed;
            if takes_away || *known == digest {
                return Err(no(206));
            }
        }
        self.registered.insert(name.to_owned(), (digest, becomes));
        Ok(())
    }

    pub(super) fn move_tool(&mut self, name: &str, digest: u8, from: &[Standing], to: Standing) -> Result<(), No> {
        let (known, standing) = self.registered.get_mut(name).ok_or(no(401))?;
        if *known != digest {
            return Err(no(402));
        }
        if !from.contains(standing) {
            return Err(no(206));
        }
        *standing = to;
        Ok(())
    }

    pub(super) fn unbind(&mut self, name: &str, digest: u8, why: u8, cite: bool) -> Result<(), No> {
        if !(1..=5).contains(&why) || !cite || !self.is_cited {
            return Err(no(101));
        }
        let tool = self.tools.get_mut(name).ok_or(no(401))?;
        if tool.digest != digest {
            return Err(no(402));
        }
        if tool.unbound.is_some() {
            return Err(no(206));
        }
        tool.unbound = Some(why);
        Ok(())
    }

    pub(super) fn add_principal(&mut self, kind: u8, custody: u8, keys: &[Key], made: Id) -> Result<(), No> {
        let kind = match kind {
            1 => Kind::Human,
            4 => Kind::Service,
            _ => return Err(no(101)),
        };
        if !(1..=2).contains(&custody) {
            return Err(no(101));
        }
        let mut before: BTreeSet<Key> = BTreeSet::new();
        for (item, key) in keys.iter().enumerate() {
            if !before.insert(*key) {
                return Err(no(101).item(item));
            }
            match key {
                Key::Unknown => return Err(no(109).item(item)),
                Key::Event => return Err(no(125).item(item)),
                Key::Operator | Key::Redact | Key::Spare(_) => {}
            }
            if self.owned.iter().any(|(_, owned)| owned == key) {
                return Err(no(108).item(item));
            }
        }
        self.principals.insert(made, Principal { kind, alive: true, models: 0 });
        self.owned.extend(keys.iter().map(|key| (made, *key)));
        Ok(())
    }

    pub(super) fn observe(&self, by: Id, what: u16, call: Option<Id>) -> Result<(), No> {
        if !(1..=9).contains(&what) {
            return Err(no(101));
        }
        match call.filter(|_| by != NODE) {
            None => Ok(()),
            Some(call) if self.calls.get(&call).ok_or(no(701))?.executor != by => Err(no(703)),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn resolve(&mut self, call: Id, verdict: u8) -> Result<(), No> {
        if !(1..=3).contains(&verdict) {
            return Err(no(101));
        }
        let call = self.calls.get_mut(&call).ok_or(no(701))?;
        if !call.doubt {
            return Err(no(206));
        }
        call.doubt = false;
        Ok(())
    }

    /// A root grant that is issued later.
    pub(super) fn root(&mut self, by: Id, cap: &Cap, to: Id, at: u64, made: Id) -> Result<(), No> {
        if cap.exp.is_none_or(|exp| exp <= at) || cap.nbf.unwrap_or(0) >= cap.exp.unwrap_or(NEVER) {
            return Err(no(101));
        }
        self.add(made, None, by, to, cap.clone());
        Ok(())
    }
}
