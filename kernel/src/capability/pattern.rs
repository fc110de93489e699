//! Names and paths, and the patterns over them.
//!
//! Both are kept as one string with their separator between the segments. No segment can hold the separator, so a
//! pattern covers what is below it exactly when its string and one separator are a prefix.

use crate::denial::Code;
use crate::limits::{NAME_SEG_BYTES_MAX, NAME_SEGS_MAX, PATH_BYTES_MAX, PATH_SEG_BYTES_MAX, PATH_SEGS_MAX};

/// An exact name: 1 to 8 segments `[a-z0-9][a-z0-9_-]{0,31}` joined by `.`, without a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExactName(Box<str>);

impl ExactName {
    /// Reads an exact name.
    ///
    /// # Errors
    /// [`Code::BadName`] for anything else, a pattern included.
    pub fn parse(text: &str) -> Result<ExactName, Code> {
        if is_exact_name(text) { Ok(ExactName(text.into())) } else { Err(Code::BadName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ExactName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is an exact name of the grammar.
pub fn is_exact_name(text: &str) -> bool {
    text.split('.').all(is_name_seg) && text.split('.').count() <= NAME_SEGS_MAX
}

/// Whether `text` is one segment of a name, as roots have it.
pub fn is_name_seg(text: &str) -> bool {
    let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NAME_SEG_BYTES_MAX
        && text.as_bytes().first().is_some_and(lower)
        && text.bytes().all(|byte| lower(&byte) || byte == b'_' || byte == b'-')
}

/// Which names are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePat {
    /// `*`: every name.
    Any,
    /// `a.b.*`: every name with this one and at least one more segment, so `a.b` itself is not among them.
    Below(ExactName),
    /// `a.b`: this name alone.
    Exact(ExactName),
}

impl NamePat {
    /// Reads `*`, `name.*` or an exact name. At most 8 segments, the `*` among them: a pattern below 8 would cover
    /// no name.
    ///
    /// # Errors
    /// [`Code::BadName`] for anything else.
    pub fn parse(text: &str) -> Result<NamePat, Code> {
        if text == "*" {
            return Ok(NamePat::Any);
        }
        let Some(prefix) = text.strip_suffix(".*") else {
            return ExactName::parse(text).map(NamePat::Exact);
        };
        if prefix.split('.').count() >= NAME_SEGS_MAX {
            return Err(Code::BadName);
        }
        ExactName::parse(prefix).map(NamePat::Below)
    }

    /// Whether every name that `narrow` means is meant by this pattern.
    pub fn covers(&self, narrow: &NamePat) -> bool {
        match (self, narrow) {
            (NamePat::Any, NamePat::Any | NamePat::Below(_) | NamePat::Exact(_)) => true,
            (NamePat::Below(wide), NamePat::Exact(name)) => is_below(&name.0, &wide.0, b'.'),
            (NamePat::Below(wide), NamePat::Below(name)) => name == wide || is_below(&name.0, &wide.0, b'.'),
            (NamePat::Exact(wide), NamePat::Exact(name)) => name == wide,
            (NamePat::Below(_), NamePat::Any) | (NamePat::Exact(_), NamePat::Any | NamePat::Below(_)) => false,
        }
    }
}

/// A path under a named root: the root, one segment of a name, and at most 64 segments of 1 to 255 bytes below it.
///
/// Paths are compared byte for byte: no normalisation, no case folding, no percent decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPath {
    /// `root/seg/seg`, which is `root` alone for the root itself.
    text: Box<str>,
}

impl RootPath {
    /// Reads a path fact, `root:relative`; `root:` is the root itself.
    ///
    /// # Errors
    /// [`Code::BadPath`] for anything else. Nothing is tidied up: a leading, trailing or doubled `/`, and `.` and `..`
    /// as segments, are errors.
    pub fn parse_fact(text: &str) -> Result<RootPath, Code> {
        let (root, relative) = text.split_once(':').ok_or(Code::BadPath)?;
        if !is_name_seg(root) {
            return Err(Code::BadPath);
        }
        if relative.is_empty() {
            return Ok(RootPath { text: root.into() });
        }
        if relative.len() > PATH_BYTES_MAX || !relative.split('/').all(is_path_seg) {
            return Err(Code::BadPath);
        }
        RootPath::checked([root, "/", relative].concat())
    }

    /// Takes `root/seg/seg` whose segments were checked one by one. Without a root it is what stands behind the hole of
    /// a template, which becomes a path when it is joined to one.
    pub(super) fn checked(text: String) -> Result<RootPath, Code> {
        let fits = text.len() <= PATH_BYTES_MAX && text.split('/').count() <= 1 + PATH_SEGS_MAX;
        if fits { Ok(RootPath { text: text.into() }) } else { Err(Code::BadPath) }
    }

    /// This path with `tail` behind it.
    pub(super) fn join(&self, tail: &RootPath) -> Result<RootPath, Code> {
        if tail.text.is_empty() { Ok(self.clone()) } else { RootPath::checked([&*self.text, &*tail.text].concat()) }
    }

    /// The name of the root.
    pub fn root(&self) -> &str {
        self.text.split('/').next().unwrap_or_default()
    }

    /// The segments below the root, from the root down.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').skip(1)
    }

    fn is_below(&self, anchor: &RootPath) -> bool {
        is_below(&self.text, &anchor.text, b'/')
    }
}

/// Reads a path fact, `root:relative`; see [`RootPath::parse_fact`].
///
/// # Errors
/// [`Code::BadPath`] for anything that is no path fact.
pub fn parse_path_fact(text: &str) -> Result<RootPath, Code> {
    RootPath::parse_fact(text)
}

/// Whether `text` may be a segment of a path: 1 to 255 bytes, not `.` or `..`, without separators, control characters
/// and characters that a reader does not see.
pub fn is_path_seg(text: &str) -> bool {
    (1..=PATH_SEG_BYTES_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.chars().any(|c| c == '/' || c == '\\' || is_hidden(c))
}

/// C0, C1, DEL, bidi controls and invisible characters: what makes two different texts look alike.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Which paths of one root are meant: one path, or it and all below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPat {
    anchor: RootPath,
    under: bool,
}

impl PathPat {
    /// This path alone.
    pub fn exact(anchor: RootPath) -> PathPat {
        PathPat { anchor, under: false }
    }

    /// This path and all below it.
    pub fn under(anchor: RootPath) -> PathPat {
        PathPat { anchor, under: true }
    }

    /// The path itself.
    pub fn anchor(&self) -> &RootPath {
        &self.anchor
    }

    /// Whether all below the anchor is meant as well.
    pub fn is_under(&self) -> bool {
        self.under
    }

    /// Whether every path that `narrow` means is meant by this pattern.
    pub fn covers(&self, narrow: &PathPat) -> bool {
        if self.under {
            narrow.anchor == self.anchor || narrow.anchor.is_below(&self.anchor)
        } else {
            !narrow.under && narrow.anchor == self.anchor
        }
    }

    /// This pattern behind `path`: how the hole of a template is filled.
    pub(super) fn behind(&self, path: &RootPath) -> Result<PathPat, Code> {
        Ok(PathPat { anchor: path.join(&self.anchor)?, under: self.under })
    }
}

/// Whether `text` is `anchor`, one separator and more.
fn is_below(text: &str, anchor: &str, separator: u8) -> bool {
    text.as_bytes().get(anchor.len()) == Some(&separator) && text.starts_with(anchor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NamePat {
        NamePat::parse(text).expect(text)
    }

    #[test]
    fn a_name_pattern_covers_whole_segments_below_it_and_not_itself() {
        assert!(name("fs.*").covers(&name("fs.a.b")));
        assert!(name("fs.*").covers(&name("fs.*")));
        assert!(name("*").covers(&name("*")));
        for outside in ["fs", "fsx.read", "*", "f.s"] {
            assert!(!name("fs.*").covers(&name(outside)), "{outside}");
        }
    }

    #[test]
    fn a_pattern_that_covers_no_name_is_refused() {
        assert!(NamePat::parse("a.b.c.d.e.f.g.*").is_ok());
        assert_eq!(NamePat::parse("a.b.c.d.e.f.g.h.*"), Err(Code::BadName));
        assert_eq!(NamePat::parse("a.b.c.d.e.f.g.h.i"), Err(Code::BadName));
    }

    #[test]
    fn a_path_is_bounded_in_segments_and_bytes() {
        let deep = |segments: usize| RootPath::parse_fact(&format!("r:{}", vec!["s"; segments].join("/")));
        assert_eq!(deep(64).map(|path| path.segments().count()), Ok(64));
        assert_eq!(deep(65), Err(Code::BadPath));
        assert!(RootPath::parse_fact(&format!("r:{}", "s".repeat(255))).is_ok());
        assert_eq!(RootPath::parse_fact(&format!("r:{}", "s".repeat(256))), Err(Code::BadPath));
    }

    #[test]
    fn a_root_alone_is_the_root_itself() {
        let root = RootPath::parse_fact("workspace:").expect("root");
        assert_eq!((root.root(), root.segments().count()), ("workspace", 0));
    }
}
