//! Why something was refused: the code, what was missing, the nearest grant that failed, and the row in which it does.

use toka_kernel::body::v1::Refused;
use toka_kernel::denial::Dim;
use toka_kernel::ids::{GrantId, TimeUs};
use toka_kernel::{Ask, Code, Entry};

use super::Node;
use super::about::{Of, Teller, grant_words};
use super::story::Given;
use crate::explain;
use crate::text::time;
use crate::trail::Stop;

/// Grants of the asker that are listed as held.
const HELD_MAX: usize = 16;

/// Adds to `node` what is known of why it was refused.
///
/// # Errors
/// [`Stop`] where an entry is no longer there as it was.
pub(super) fn reasons(
    teller: &mut Teller<'_, '_>,
    of: Of,
    entry: &Entry,
    refused: &Refused,
    ask: &Ask,
    mut node: Node,
) -> Result<Node, Stop> {
    let code = Code::from_number(refused.code);
    let meaning = code.map_or("a code that this version does not know", explain::meaning_of);
    let name = code.map_or_else(|| refused.code.to_string(), |code| format!("{code} ({})", code.number()));
    node = node.with(teller.node(of, "note", format!("{name}: {meaning}")));
    if let Some(need) = &refused.need {
        let item = refused.item.map(|item| format!("need {item}")).unwrap_or_else(|| "needed".to_owned());
        node = node.with(teller.node(of, "need", format!("{item}: {need}, not covered")));
    }
    let failed = refused.failed_at.and_then(|id| teller.story(of).grants.get(&id).map(|given| (id, given)));
    for row in rows(teller, of, entry, refused, code, failed.map(|(_, given)| given)) {
        node = node.with(teller.node(of, "row", row));
    }
    if let Some(id) = refused.failed_at {
        let fails = teller.node(of, "failed", "the grant that failed").of(id);
        node = node.with(fails.with(teller.grant(of, id)?));
    }
    if let Ask::Call(asked) = ask {
        let needs = teller.needs_at(of, entry.header().seq, &asked.tool, asked.digest, &asked.facts, asked.extra)?;
        let named: Vec<GrantId> = std::iter::once(asked.grant).chain(asked.need_grants.iter().copied()).collect();
        for (index, grant) in named.iter().enumerate() {
            if Some(*grant) == refused.failed_at {
                continue;
            }
            let need = needs.get(index).map_or("?", String::as_str);
            let named = teller.node(of, "need", format!("need {index}: {need}, for which it named"));
            node = node.with(named.with(teller.grant(of, *grant)?));
        }
    }
    Ok(held(teller, of, entry, refused, node))
}

/// The rows in which it fails: what is there, and what would have been needed.
fn rows(
    teller: &Teller<'_, '_>,
    of: Of,
    entry: &Entry,
    refused: &Refused,
    code: Option<Code>,
    failed: Option<&Given>,
) -> Vec<String> {
    let story = teller.story(of);
    let at = entry.header().time_us;
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(format!("row {name}: {text}"));
    let until = |us: Option<TimeUs>| us.map_or_else(|| "never".to_owned(), time);
    let dim = refused.dim.and_then(Dim::from_number);
    match (code, failed) {
        (Some(Code::Revoked), Some(given)) => match given.revoked {
            Some(seq) => row("revoked", format!("revoked at seq {seq}")),
            None => row("revoked", "revoked".to_owned()),
        },
        (Some(Code::Expired), Some(given)) => {
            row("exp", format!("ends {}, asked at {}", until(given.grant.cap.exp_us), time(at)));
        }
        (Some(Code::NotYet), Some(given)) => {
            row("nbf", format!("begins {}, asked at {}", until(given.grant.cap.nbf_us), time(at)));
        }
        (Some(Code::HolderDead), Some(given)) => {
            let holder = given.grant.subject;
            let ended = story.agents.get(&holder).and_then(|agent| agent.ended);
            let ended = ended.map(|seq| format!(" ended at seq {seq}")).unwrap_or_default();
            row("holder", format!("{}{ended}", story.names.of(holder)));
        }
        (Some(Code::NotHolder), Some(given)) => {
            let (holder, asker) = (story.names.of(given.grant.subject), story.names.of(entry.header().principal));
            row("holder", format!("held by {holder}, named by {asker}"));
        }
        (_, Some(given)) if dim.is_some() && refused.limit.is_none() && refused.need.is_some() => {
            let (name, need) = (dim.map_or("?", Dim::name), refused.need.as_deref().unwrap_or_default());
            row(name, format!("the grant reaches {}, needed was {need}", given.grant.cap.scope));
        }
        (_, _) => {
            if let Some(dim) = dim.filter(|_| refused.limit.is_none()) {
                row(dim.name(), "it does not fit".to_owned());
            }
        }
    }
    if let Some(limit) = &refused.limit {
        let name = Dim::from_number(limit.dim).map_or("?", Dim::name);
        let (most, spent, reserved, asked) = (limit.limit, limit.spent, limit.reserved, limit.asked);
        row(name, format!("limit {most}, spent {spent}, promised to open calls {reserved}, asked for {asked}"));
    }
    if let Some(until) = refused.retry_at {
        row("time", format!("not before {}, asked at {}", time(until), time(at)));
    }
    if let Some(rule) = &refused.rule {
        row("rule", rule.clone());
    }
    if let Some(seq) = refused.first_seq {
        row("nonce", format!("used first at seq {seq}"));
    }
    rows
}

/// Adds the grants of the asker that are of the kind that was needed.
fn held(teller: &Teller<'_, '_>, of: Of, entry: &Entry, refused: &Refused, mut node: Node) -> Node {
    let Some(kind) = refused.need.as_deref().and_then(|need| need.split(':').next()) else { return node };
    let story = teller.story(of);
    let (asker, seq) = (entry.header().principal, entry.header().seq);
    let held = story.grants.iter().filter(|(_, given)| {
        given.grant.subject == asker
            && given.seq < seq
            && given.revoked.is_none_or(|revoked| revoked > seq)
            && given.grant.cap.to_string().split(':').next() == Some(kind)
    });
    let mut held: Vec<(&GrantId, &Given)> = held.collect();
    held.sort_by_key(|(id, given)| (given.seq, **id));
    let more = held.len().saturating_sub(HELD_MAX);
    for (id, given) in held.into_iter().take(HELD_MAX) {
        let words = format!("it holds {}", grant_words(story, *id, given));
        node = node.with(teller.node(of, "held", words).at(given.seq).of(id));
    }
    if more > 0 {
        node = node.with(teller.node(of, "note", format!("and {more} more of that kind")));
    }
    node
}
