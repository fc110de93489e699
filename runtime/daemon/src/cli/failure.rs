//! Why a command did not do what it was asked, and its exit code.

use super::print::talk;

/// Exit codes. When several hold, the caller picks by the order 3, 8, 9, 5, 6, 7, 4, 1.
pub(crate) mod exit {
    pub(crate) const OK: u8 = 0;
    pub(crate) const FAILURE: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const INCOMPLETE: u8 = 4;
    pub(crate) const DENIED: u8 = 5;
    pub(crate) const LIMIT: u8 = 6;
    pub(crate) const BUSY: u8 = 7;
    pub(crate) const UNREADABLE: u8 = 8;
    pub(crate) const SANDBOX: u8 = 9;
}

/// What went wrong, where, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    what: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: u8, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), hint: None }
    }

    /// Something to type or do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Whether the same may go well for another tool: it is no matter of the store or of who else uses it.
    pub(crate) fn is_about_one(&self) -> bool {
        !matches!(self.exit, exit::BUSY | exit::UNREADABLE)
    }

    /// Tells it on stderr and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        talk(&format!("error: {}", self.what));
        if let Some(hint) = &self.hint {
            talk(&format!("hint: {hint}"));
        }
        self.exit
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        // A reader that has seen enough closes the pipe; that ends a command quietly.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(i32::from(exit::OK));
        }
        Failure::new(exit::FAILURE, error.to_string())
    }
}

impl From<toka_store::ReadError> for Failure {
    fn from(error: toka_store::ReadError) -> Failure {
        Failure::new(exit::UNREADABLE, format!("the store cannot be read: {error}"))
            .hint("`toka replay verify` says what is wrong with it and where")
    }
}
