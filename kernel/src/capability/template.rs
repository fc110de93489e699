//! Need templates: scopes with holes over the facts of a call.
//!
//! A template is parsed once, when its tool is bound. A fact fills its hole as a value, never as text that is parsed
//! again, so nothing in an argument can become a separator or a wildcard.

use super::argument::{ArgC, Pointer};
use super::parse::{self, TextError};
use super::pattern::{ExactName, NamePat};
use super::scope::{AgentScope, BadFact, FsScope, Scope, ToolScope, fact_constraint, fact_path};
use crate::denial::Code;
use crate::facts::{Fact, FactSpec, FactType};
use crate::limits::NEED_BYTES_MAX;

/// A scope with holes `{/pointer}`.
///
/// A path fact stands for the root and segments of an `fs:` path or of a `path:` constraint, `{/path}/more/**` being
/// behind or under it; a str fact for the name of a tool or agent; any fact for the constraint of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where a hole is, something that keeps its place.
    scope: Scope,
    holes: Box<[Hole]>,
}

/// A hole, and the fact that fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) pointer: Pointer,
    pub(super) kind: FactType,
    pub(super) place: Place,
}

/// Where in a scope a hole is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The name or path.
    Body,
    /// The constraint of this argument.
    Arg(Pointer),
}

impl Template {
    /// Reads a template of at most 1,024 bytes over the facts that a tool declares.
    ///
    /// # Errors
    /// As [`Scope::parse`], and for a hole over no declared fact, over one whose type does not fit its place, or
    /// elsewhere than in one of the places above.
    pub fn parse(text: &str, facts: &[FactSpec]) -> Result<Template, TextError> {
        if text.len() > NEED_BYTES_MAX {
            return Err(TextError {
                code: Code::Malformed,
                at: NEED_BYTES_MAX,
                what: "need too long".to_owned(),
                hint: "at most 1,024 bytes".to_owned(),
            });
        }
        let (scope, holes) = parse::template(text, facts)?;
        Ok(Template { scope, holes: holes.into() })
    }

    /// The need that these facts make.
    ///
    /// # Errors
    /// [`Code::BadArguments`] where a fact is missing; [`Code::BadName`], [`Code::BadPath`], [`Code::BadHost`] or
    /// [`Code::Malformed`] where one is not what its place takes.
    pub fn fill(&self, facts: &[Fact]) -> Result<Scope, BadFact> {
        let mut scope = self.scope.clone();
        for hole in &self.holes {
            let pointer = hole.pointer.as_str();
            let fact = facts.iter().find(|fact| fact.pointer == pointer);
            let fact = fact.ok_or_else(|| BadFact::new(Code::BadArguments, pointer))?;
            match &hole.place {
                Place::Body => fill_body(&mut scope, fact)?,
                Place::Arg(arg) => fill_argument(&mut scope, arg, hole.kind, fact)?,
            }
        }
        Ok(scope)
    }
}

fn fill_body(scope: &mut Scope, fact: &Fact) -> Result<(), BadFact> {
    let bad = |code| BadFact::new(code, &fact.pointer);
    let (Some(text), None) = (fact.text.as_deref(), fact.int) else { return Err(bad(Code::Malformed)) };
    match scope {
        Scope::Tool(ToolScope { name, .. }) | Scope::Agent(AgentScope { spec: name, .. }) | Scope::Model(name) => {
            *name = NamePat::Exact(ExactName::parse(text).map_err(bad)?);
        }
        Scope::Fs(FsScope { path, .. }) => *path = path.behind(&fact_path(text).map_err(bad)?).map_err(bad)?,
        // Invariant: the parser lets no hole stand where operations are named.
        Scope::Admin(_) => return Err(bad(Code::Malformed)),
    }
    Ok(())
}

fn fill_argument(scope: &mut Scope, pointer: &Pointer, kind: FactType, fact: &Fact) -> Result<(), BadFact> {
    let bad = |code| BadFact::new(code, &fact.pointer);
    let filled = fact_constraint(fact, kind)?;
    // Invariant: the parser puts such a hole only into the arguments of a tool, where the pointer is.
    let Scope::Tool(ToolScope { args, .. }) = scope else { return Err(bad(Code::Malformed)) };
    let Some((_, arg)) = args.iter_mut().find(|(known, _)| known == pointer) else { return Err(bad(Code::Malformed)) };
    *arg = match (&*arg, filled) {
        (ArgC::Path(tail), ArgC::Path(path)) => ArgC::Path(tail.behind(path.anchor()).map_err(bad)?),
        (_, filled) => filled,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [(&str, FactType); 6] = [
        ("/path", FactType::Path),
        ("/spec", FactType::Str),
        ("/n", FactType::Int),
        ("/b", FactType::Bool),
        ("/host", FactType::Host),
        ("/a}b", FactType::Str),
    ];

    fn template(text: &str) -> Result<Template, TextError> {
        let specs = SPECS.map(|(pointer, kind)| FactSpec { pointer: pointer.to_owned(), kind });
        Template::parse(text, &specs)
    }

    fn text(pointer: &str, value: &str) -> Fact {
        Fact { pointer: pointer.to_owned(), int: None, text: Some(value.to_owned()) }
    }

    fn filled(need: &str) -> String {
        let facts = [
            text("/path", "project:out/a *"),
            text("/spec", "audit.links"),
            Fact { pointer: "/n".to_owned(), int: Some(7), text: None },
            Fact { pointer: "/b".to_owned(), int: Some(0), text: None },
            text("/host", "a.example"),
            text("/a}b", "x\"&y"),
        ];
        template(need).expect(need).fill(&facts).expect(need).to_string()
    }

    #[test]
    fn facts_fill_the_holes_of_a_need() {
        for (need, scope) in [
            ("fs:{/path}#read", r##"fs:project/out/"a *"#read"##),
            ("fs:{/path}/**#list", r##"fs:project/out/"a *"/**#list"##),
            ("fs:{/path}/more/segs#write", r##"fs:project/out/"a *"/more/segs#write"##),
            ("fs:{/path}/more/**#delete", r##"fs:project/out/"a *"/more/**#delete"##),
            ("fs:project/out/**#write", "fs:project/out/**#write"),
            ("agent:{/spec}?live=1", "agent:audit.links?live=1"),
            ("tool:{/spec}?closed", "tool:audit.links?closed"),
            ("model:{/spec}", "model:audit.links"),
            ("model:local.small", "model:local.small"),
            ("tool:x?arg./n={/n}&arg./b={/b}&closed", "tool:x?arg./b=false&arg./n=7&closed"),
            ("tool:x?arg./h={/host}", "tool:x?arg./h=host:a.example"),
            (r#"tool:x?arg./s={"/a}b"}"#, r#"tool:x?arg./s="x\"&y""#),
            ("tool:x?arg./p={/path}", r#"tool:x?arg./p=path:project/out/"a *""#),
            ("tool:x?arg./p=path:{/path}/sub/**", r#"tool:x?arg./p=path:project/out/"a *"/sub/**"#),
        ] {
            assert_eq!(filled(need), scope, "{need}");
        }
    }

    #[test]
    fn a_hole_takes_only_a_declared_fact_that_fits_its_place() {
        for need in [
            "fs:{/spec}#read",
            "fs:{/n}/**#read",
            "fs:{/other}#read",
            "fs:project/{/spec}#read",
            "fs:{/path}{/path}#read",
            "fs:{/path}#delete",
            "fs:{/path}",
            "fs:{/path#read",
            "fs:{}#read",
            "agent:{/path}",
            "agent:{/spec}.*",
            "agent:a.{/spec}",
            "model:{/path}",
            "model:a.{/spec}",
            "model:a?live=1",
            "agent:{/spec}?live={/n}",
            "tool:x?arg./p=path:{/spec}",
            "tool:x?arg./p={/n}|{/b}",
            "tool:x?digest={/spec}",
            "tool:x?calls=1",
        ] {
            assert!(template(need).is_err(), "{need}");
        }
        assert!(template(&format!("fs:r/{}#read", "a".repeat(NEED_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_fact_that_does_not_fit_makes_no_need() {
        let fill = |need: &str, fact: Fact| template(need).expect(need).fill(&[fact]).map_err(|bad| bad.code);
        assert_eq!(fill("fs:{/path}#read", text("/other", "r:a")), Err(Code::BadArguments));
        assert_eq!(fill("fs:{/path}#read", text("/path", "r:a/../b")), Err(Code::BadPath));
        assert_eq!(fill("fs:{/path}#read", text("/path", "r/a")), Err(Code::BadPath));
        let deep = format!("r:{}", ["s"; 64].join("/"));
        assert_eq!(fill("fs:{/path}/more#read", text("/path", &deep)), Err(Code::BadPath));
        assert_eq!(fill("agent:{/spec}", text("/spec", "audit.*")), Err(Code::BadName));
        assert_eq!(fill("tool:x?arg./h={/host}", text("/host", "*.example")), Err(Code::BadHost));
        assert_eq!(fill("tool:x?arg./n={/n}", text("/n", "1")), Err(Code::Malformed));
    }
}
