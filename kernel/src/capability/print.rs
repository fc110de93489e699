//! The canonical text of capabilities and scopes.

use std::fmt::{self, Display, Formatter, Write};

use super::argument::{ArgC, Scalar};
use super::parse::is_bare;
use super::pattern::{NamePat, PathPat, is_hidden};
use super::scope::{AgentScope, FsScope, Scope, ToolScope};
use super::{Capability, Limits, Use};

/// The canonical text of a capability.
impl Display for Capability {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_body(f, &self.scope)?;
        let mut keys = Keys { f, first: true };
        if self.use_ != Use::Yes {
            keys.pair("use", self.use_.name())?;
        }
        if self.depth != 0 {
            keys.pair("depth", self.depth)?;
        }
        write_scope_keys(&mut keys, &self.scope)?;
        for (dim, amount) in Limits::DIMS.into_iter().zip(self.limits.amounts) {
            keys.option(dim.name(), amount)?;
        }
        if let Some(rate) = self.limits.rate {
            keys.pair("rate", format_args!("{}/{}", rate.burst(), rate.period_us()))?;
        }
        keys.option("nbf", self.nbf_us)?;
        keys.option("exp", self.exp_us)?;
        if !self.gates.is_empty() {
            write_list(keys.key("gate")?, ',', &self.gates)?;
        }
        Ok(())
    }
}

/// The canonical text of a scope: that of a capability without limits.
impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_body(f, self)?;
        write_scope_keys(&mut Keys { f, first: true }, self)
    }
}

impl Display for NamePat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            NamePat::Any => f.write_char('*'),
            NamePat::Below(name) => write!(f, "{name}.*"),
            NamePat::Exact(name) => name.fmt(f),
        }
    }
}

impl Display for PathPat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.anchor().root())?;
        for segment in self.anchor().segments() {
            f.write_char('/')?;
            if is_bare(segment) { f.write_str(segment)? } else { write_quoted(f, segment)? }
        }
        if self.is_under() { f.write_str("/**") } else { Ok(()) }
    }
}

impl Display for ArgC {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ArgC::Set(values) => write_list(f, '|', values),
            ArgC::Range { lo, hi } => write!(f, "{lo}..{hi}"),
            ArgC::Len(max) => write!(f, "len<={max}"),
            ArgC::Path(path) => write!(f, "path:{path}"),
            ArgC::Host(host) => write!(f, "host:{host}"),
            ArgC::Absent => f.write_str("absent"),
        }
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Int(value) => value.fmt(f),
            Scalar::Str(text) => write_quoted(f, text),
        }
    }
}

/// The length of the canonical text, without writing it anywhere.
pub(super) fn canonical_len(capability: &Capability) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail; should it ever, the text counts as too long.
    write!(count, "{capability}").map_or(usize::MAX, |()| count.0)
}

fn write_body(f: &mut Formatter<'_>, scope: &Scope) -> fmt::Result {
    match scope {
        Scope::Tool(ToolScope { name, .. }) => write!(f, "tool:{name}"),
        Scope::Fs(FsScope { path, ops }) => {
            write!(f, "fs:{path}#")?;
            write_list(f, ',', ops.iter().map(|op| op.name()))
        }
        Scope::Agent(AgentScope { spec, .. }) => write!(f, "agent:{spec}"),
        Scope::Model(name) => write!(f, "model:{name}"),
        Scope::Admin(scope) => {
            f.write_str("admin:#")?;
            write_list(f, ',', scope.iter().map(|op| op.name()))
        }
    }
}

fn write_scope_keys(keys: &mut Keys<'_, '_>, scope: &Scope) -> fmt::Result {
    match scope {
        Scope::Tool(ToolScope { digest, args, closed, .. }) => {
            if let Some(digests) = digest {
                write_list(keys.key("digest")?, ',', digests)?;
            }
            for (pointer, arg) in args {
                let f = keys.next()?;
                f.write_str("arg.")?;
                let pointer = pointer.as_str();
                if pointer.split('/').all(|token| token.is_empty() || is_bare(token)) {
                    f.write_str(pointer)?;
                } else {
                    write_quoted(f, pointer)?;
                }
                write!(f, "={arg}")?;
            }
            if *closed { keys.next()?.write_str("closed") } else { Ok(()) }
        }
        Scope::Fs(_) | Scope::Model(_) | Scope::Admin(_) => Ok(()),
        Scope::Agent(AgentScope { live, .. }) => keys.option("live", *live),
    }
}

/// Writes `?` before the first key and `&` before each other.
struct Keys<'k, 'f> {
    f: &'k mut Formatter<'f>,
    first: bool,
}

impl<'f> Keys<'_, 'f> {
    fn next(&mut self) -> Result<&mut Formatter<'f>, fmt::Error> {
        self.f.write_char(if self.first { '?' } else { '&' })?;
        self.first = false;
        Ok(self.f)
    }

    fn key(&mut self, key: &str) -> Result<&mut Formatter<'f>, fmt::Error> {
        let f = self.next()?;
        write!(f, "{key}=")?;
        Ok(f)
    }

    fn pair(&mut self, key: &str, value: impl Display) -> fmt::Result {
        write!(self.key(key)?, "{value}")
    }

    fn option<T: Display>(&mut self, key: &str, value: Option<T>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.pair(key, value))
    }
}

fn write_list<T: Display>(f: &mut Formatter<'_>, separator: char, items: impl IntoIterator<Item = T>) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            f.write_char(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

fn write_quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if is_hidden(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
