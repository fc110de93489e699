//! What is wrong with a file: always a place, a code, a message and a way on.

use std::fmt;
use std::fmt::Write as _;

use super::yaml::{Node, Place};
use super::{FILE_ERRORS_MAX, Format};

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {code}: {message}")]
pub struct FileError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What kind of mistake it is.
    pub code: FileCode,
    /// What is wrong. It may quote the file; what could disturb a terminal is escaped.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

macro_rules! file_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal,)*) => {
        /// A kind of mistake in a file. Numbers never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum FileCode { $($(#[$doc])* $variant = $number),* }

        impl FileCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [FileCode] = &[$(FileCode::$variant),*];

            /// The name of the code, as documents and machines cite it: `BadName`.
            pub fn name(self) -> &'static str {
                match self { $(FileCode::$variant => stringify!($variant)),* }
            }
        }
    };
}

file_codes! {
    /// The file is missing, no regular file, or cannot be read.
    Unreadable = 1001,
    /// The file is larger than it may be.
    TooLarge = 1002,
    /// The file is not UTF-8.
    NotUtf8 = 1003,
    /// The file is not YAML, or not TOML where that is due.
    Syntax = 1010,
    /// The file is nested deeper than it may be.
    TooDeep = 1011,
    /// The file holds no document, or more than one.
    Documents = 1012,
    /// An anchor, alias, merge key or tag.
    ForbiddenYaml = 1013,
    /// The same key twice.
    DuplicateKey = 1014,
    /// A key that is not text.
    BadKey = 1015,
    /// A field that nobody knows.
    UnknownField = 1020,
    /// A field that must be there.
    MissingField = 1021,
    /// A field or word that is known and not built yet.
    Unsupported = 1022,
    /// Text where a list belongs, and the like.
    WrongType = 1023,
    /// Another `kind`.
    BadKind = 1024,
    /// A name outside the name grammar.
    BadName = 1030,
    /// A version that is not semver, or another `apiVersion`.
    BadVersion = 1031,
    /// More of something than there may be, or none where one is needed.
    TooMany = 1032,
    /// Longer than it may be, or empty.
    TooLong = 1033,
    /// A number outside its range.
    OutOfRange = 1034,
    /// None of the words that may stand there.
    BadChoice = 1035,
    /// Not a duration, a size or an amount of money.
    BadUnit = 1036,
    /// Not a capability.
    BadCapability = 1037,
    /// Not a pattern of tool names.
    BadPattern = 1038,
    /// Text with characters that may not stand there.
    BadText = 1039,
    /// A number that is not a plain decimal integer of 64 bits.
    BadNumber = 1040,
    /// A step with no act or with several.
    BadStep = 1050,
    /// The same id or name for two things.
    DuplicateId = 1051,
    /// A reference that leads nowhere.
    BadReference = 1052,
    /// Not a JSON pointer.
    BadPointer = 1053,
    /// A condition without a test or with several.
    BadCondition = 1054,
    /// A call of a tool that `tools` does not list.
    ToolNotListed = 1055,
    /// An agent for which there is no file beside this one.
    UnknownAgent = 1060,
    /// A file that names another agent than its own name says.
    NameMismatch = 1061,
    /// A warning: agents that spawn each other.
    SpawnCycle = 1070,
    /// A warning: a grant of a spawn that no request of the agent covers.
    GrantNotCovered = 1071,
    /// A warning: a pattern in `tools` that no step needs.
    ToolUnused = 1072,
    /// A name that is kept for the node itself.
    ReservedName = 1080,
    /// The same name twice where each must be one thing.
    DuplicateName = 1081,
    /// A path outside its form, one that leads nowhere, or one with a link on the way.
    BadPath = 1082,
    /// A directory, pipe, socket or device where a file must be.
    NotRegular = 1083,
    /// A toolchain that nobody knows, or not the one that goes with the kind.
    UnknownToolchain = 1084,
    /// A built-in tool that this program does not have.
    UnknownNative = 1085,
    /// A digest that is written and is not the one of the files.
    PinMismatch = 1086,
    /// A parameter whose fields do not fit each other.
    BadSchema = 1087,
    /// Two fields that exclude each other.
    Conflict = 1088,
    /// A mapping of parameters that could be read in two ways, or leads nowhere.
    BadMapping = 1089,
    /// A fact that no parameter can be.
    BadFact = 1090,
    /// A reserve that a call within its limits could overrun.
    ReserveTooSmall = 1091,
    /// A sandbox that would confine nothing, or let in what must stay out.
    BadSandbox = 1092,
    /// A tool of effect class reconcile that does not say how to find out, or one of another class that does.
    ProbeMissing = 1093,
}

impl FileCode {
    /// The number behind `TOKA-`.
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for FileCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TOKA-{}", self.number())
    }
}

/// The errors of one file, while it is read.
#[derive(Debug)]
pub struct Problems<'s> {
    file: &'s str,
    /// What kind of file it is.
    pub format: &'static Format,
    /// The text of the file without a byte-order mark.
    pub text: &'s str,
    errors: Vec<FileError>,
}

impl<'s> Problems<'s> {
    /// No errors yet. `file` is its name for people, `text` what [`super::decode`] made of it.
    pub fn new(file: &'s str, text: &'s str, format: &'static Format) -> Problems<'s> {
        Problems { file, format, text, errors: Vec::new() }
    }

    /// Adds an error. Beyond [`FILE_ERRORS_MAX`] one more says that there are more, and the others are dropped.
    pub fn report(&mut self, place: Place, code: FileCode, message: impl Into<String>, hint: impl Into<String>) {
        if self.errors.len() > FILE_ERRORS_MAX {
            return;
        }
        let mut error = file_error(self.file, place, code, message, hint);
        if self.errors.len() == FILE_ERRORS_MAX {
            error.code = FileCode::TooMany;
            error.message = format!("more than {FILE_ERRORS_MAX} errors; the others are not listed");
            error.hint = "mend these first, then look again".to_owned();
        }
        self.errors.push(error);
    }

    /// Reports at a byte offset inside the text of a node, as exactly as the way it is written allows.
    pub fn report_inside(
        &mut self,
        node: &Node,
        offset: usize,
        code: FileCode,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(node.place_inside(self.text, offset), code, message, hint);
    }

    /// Whether anything was reported.
    pub fn any(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Everything that was reported, in the order of the places.
    pub fn into_errors(mut self) -> Vec<FileError> {
        self.errors.sort_by_key(|error| (error.line, error.column));
        self.errors
    }
}

/// An error at a place of a file.
pub fn file_error(
    file: &str,
    place: Place,
    code: FileCode,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> FileError {
    let (message, hint) = (message.into(), hint.into());
    FileError { file: file.to_owned(), line: place.line, column: place.column, code, message, hint }
}

/// Text from a file inside a message: in backticks, at most 60 characters, escaped where it could disturb.
pub fn quote(text: &str) -> String {
    format!("`{}`", clean(text, 60))
}

/// At most so many characters of a text, escaped where it could disturb whoever sees it.
pub fn clean(text: &str, most: usize) -> String {
    let mut cleaned = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            cleaned.push('…');
            break;
        }
        if is_hostile(c) {
            // Invariant: writing to a string cannot fail.
            let _ = write!(cleaned, "\\u{{{:x}}}", u32::from(c));
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// Control characters, and those that change the order of text or cannot be seen.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The words as a hint lists them.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// "did you mean …?" when some word is near, else what could stand there.
pub fn suggestion<'a>(word: &str, words: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    match (nearest(word, words.clone()), words.clone().into_iter().next()) {
        (Some(near), _) => format!("did you mean {}?", quote(near)),
        (None, Some(_)) => format!("{what}: {}", listed(words)),
        (None, None) => format!("{what}: none is declared"),
    }
}

/// The word at the least edit distance, if one is near at all; the first among equals.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).collect();
    let limit = (word.len() / 3).max(1);
    let near = words.into_iter().map(|candidate| (distance(&word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
fn distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut before = vec![0; to.len() + 1];
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1; to.len() + 1];
        for (j, b) in to.iter().enumerate() {
            next[j + 1] = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}
