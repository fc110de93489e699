//! `docs/FORMAT.md` says what the code does: its tables are read and compared.

use std::collections::BTreeMap;

use toka_kernel::body::{KINDS, v1};
use toka_kernel::hash::Context;
use toka_kernel::{Code, Dim, chain};

const PAGE: &str = include_str!("../../docs/FORMAT.md");

/// The rows of the first table below a heading, without the row of names.
fn table(heading: &str) -> Vec<Vec<String>> {
    let mut lines = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let first = lines.find(|line| line.starts_with('|') || line.starts_with('#'));
    assert!(first.is_some_and(|line| line.starts_with('|')), "no table below {heading}");
    lines.take_while(|line| line.starts_with('|')).skip(1).map(cells).collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace("\\|", "|")).collect()
}

/// The short field names of the table below a heading; `°` marks what is filled.
fn fields(heading: &str) -> Vec<String> {
    table(heading).iter().map(|row| row[0].trim_end_matches('°').to_owned()).collect()
}

#[test]
fn the_page_lists_the_kinds_with_their_fields() {
    let code = KINDS.iter().map(|kind| {
        let number = format!("{:#06x}", kind.number);
        [&number, kind.name, kind.command, &kind.schema.to_string(), &kind.fields.join(" ")].map(str::to_owned).to_vec()
    });
    assert_eq!(table("## Kinds"), code.collect::<Vec<_>>());
    for kind in KINDS {
        assert_eq!(fields(&format!("### {}", kind.name)), kind.fields, "{}", kind.name);
    }
}

#[test]
fn the_page_lists_the_fields_of_what_stands_in_bodies() {
    let parts: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("Cmd", v1::Cmd::FIELDS),
        ("Via", v1::Via::FIELDS),
        ("Grant", v1::Grant::FIELDS),
        ("GrantAsked", v1::GrantAsked::FIELDS),
        ("GrantTo", v1::GrantTo::FIELDS),
        ("SessionLimits", v1::SessionLimits::FIELDS),
        ("OpenAsked", v1::OpenAsked::FIELDS),
        ("FirstPrincipal", v1::FirstPrincipal::FIELDS),
        ("Prices", v1::Prices::FIELDS),
        ("ExtensionPin", v1::ExtensionPin::FIELDS),
        ("LimitReached", v1::LimitReached::FIELDS),
        ("Plan", v1::Plan::FIELDS),
        ("Retry", v1::Retry::FIELDS),
        ("Deliverable", v1::Deliverable::FIELDS),
        ("Milestone", v1::Milestone::FIELDS),
        ("Binding", v1::Binding::FIELDS),
        ("Outcome", v1::Outcome::FIELDS),
        ("SandboxRecord", v1::SandboxRecord::FIELDS),
        ("WasmRecord", v1::WasmRecord::FIELDS),
        ("Usage", v1::Usage::FIELDS),
        ("AttemptUsage", v1::AttemptUsage::FIELDS),
        ("Root", v1::Root::FIELDS),
        ("RootAsked", v1::RootAsked::FIELDS),
        ("OpenBody", v1::OpenBody::FIELDS),
        ("GrantAmounts", v1::GrantAmounts::FIELDS),
        ("EndHead", v1::EndHead::FIELDS),
    ]);
    for (name, code) in parts {
        assert_eq!(fields(&format!("#### {name}")), code, "{name}");
    }
}

/// A command is the event without `cmd` and without what is filled, plus the two last fields of a call.
#[test]
fn the_page_marks_what_a_command_does_not_say() {
    for (event, asked, more) in [
        ("StateCommitted", v1::CommitAsked::FIELDS, &[][..]),
        ("SessionClosed", v1::CloseAsked::FIELDS, &[]),
        ("AgentSpawned", v1::SpawnAsked::FIELDS, &[]),
        ("AgentStarted", v1::StartAsked::FIELDS, &[]),
        ("AgentPaused", v1::PauseAsked::FIELDS, &[]),
        ("AgentResumed", v1::ResumeAsked::FIELDS, &[]),
        ("AgentStopping", v1::StopAsked::FIELDS, &[]),
        ("AgentEnded", v1::EndAsked::FIELDS, &[]),
        ("TaskScheduled", v1::ScheduleAsked::FIELDS, &[]),
        ("TaskStarted", v1::StartTaskAsked::FIELDS, &[]),
        ("TaskCompleted", v1::CompleteTaskAsked::FIELDS, &[]),
        ("TaskFailed", v1::FailTaskAsked::FIELDS, &[]),
        ("TaskSkipped", v1::SkipTaskAsked::FIELDS, &[]),
        ("MessageSent", v1::SendAsked::FIELDS, &[]),
        ("MessageTaken", v1::TakeAsked::FIELDS, &[]),
        ("CallAttempted", v1::AttemptAsked::FIELDS, &[]),
        ("CancelRequested", v1::CancelAsked::FIELDS, &[]),
        ("GrantIssued", v1::IssueAsked::FIELDS, &[]),
        ("GrantRevoked", v1::RevokeAsked::FIELDS, &[]),
        ("ToolBound", v1::BindAsked::FIELDS, &[]),
        ("CallAdmitted", v1::CallAsked::FIELDS, &["unft", "det"]),
        ("CallFinished", v1::ReportAsked::FIELDS, &[]),
        ("SessionRegistered", v1::OpenSessionAsked::FIELDS, &[]),
        ("SessionEnded", v1::EndSessionAsked::FIELDS, &[]),
        ("ToolRegistered", v1::RegisterToolAsked::FIELDS, &[]),
        ("ToolApproved", v1::ApproveToolAsked::FIELDS, &[]),
        ("ToolQuarantined", v1::QuarantineToolAsked::FIELDS, &[]),
        ("ToolUnbound", v1::UnbindAsked::FIELDS, &[]),
        ("OutcomeResolved", v1::ResolveAsked::FIELDS, &[]),
        ("PrincipalAdded", v1::AddPrincipalAsked::FIELDS, &[]),
        ("Observed", v1::ObserveAsked::FIELDS, &[]),
        ("SandboxProbed", v1::ProbeAsked::FIELDS, &[]),
    ] {
        let rows = table(&format!("### {event}"));
        let said = rows.iter().map(|row| row[0].as_str()).filter(|name| *name != "cmd" && !name.ends_with('°'));
        assert_eq!(said.chain(more.iter().copied()).collect::<Vec<_>>(), asked, "{event}");
    }
}

#[test]
fn the_page_lists_codes_dimensions_contexts_and_findings() {
    let first_two = |heading| -> Vec<Vec<String>> { table(heading).iter().map(|row| row[..2].to_vec()).collect() };
    let numbered = |number: u16, name: &str| vec![number.to_string(), name.to_owned()];
    let codes: Vec<_> = Code::ALL.iter().map(|code| numbered(code.number(), code.name())).collect();
    assert_eq!(first_two("## Refusal codes"), codes);
    let dims: Vec<_> = Dim::ALL.iter().map(|dim| numbered(dim.number(), dim.name())).collect();
    assert_eq!(table("## Dimensions"), dims);
    let names: Vec<String> = table("## Hashes").iter().map(|row| format!("toka 2026-11 {} v1", row[0])).collect();
    assert_eq!(names, Context::ALL.iter().map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>());
    let findings: Vec<String> = table("## Findings about an entry").iter().map(|row| row[0].clone()).collect();
    assert_eq!(findings, chain::Code::ALL.iter().map(|code| code.name().to_owned()).collect::<Vec<_>>());
}

#[test]
fn the_page_lists_the_fields_of_the_state() {
    let rows = [crate::laws::sample(), crate::laws::system_sample()].map(|(world, _)| world.state.rows());
    let page: BTreeMap<String, Vec<String>> =
        table("## State").iter().map(|row| (row[0].clone(), row[3].split(' ').map(str::to_owned).collect())).collect();
    let mut seen = BTreeMap::new();
    for (number, _, value) in rows.into_iter().flatten() {
        let crate::msgpack::Value::Map(pairs) = crate::msgpack::Value::read(&value) else { panic!("no map") };
        let names = pairs.into_iter().map(|(key, _)| match key {
            crate::msgpack::Value::Str(name) => name,
            other => panic!("{other:?}"),
        });
        let names = names.collect::<Vec<_>>();
        let before = seen.insert(number.to_string(), names.clone());
        assert!(before.is_none_or(|before| before == names), "table {number} has rows of two kinds");
    }
    assert_eq!(page, seen);
}
