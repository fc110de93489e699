//! A passphrase from a file or a terminal, so that it never stands in arguments or the environment.

use std::io::{Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

use super::HomeError;
use crate::keyfile::{PASSPHRASE_BYTES_MAX, Passphrase};

/// Reads a passphrase from `path`, without its line end. Whose file it is and who may read it is the caller's
/// business: secrets are often mounted so that all may read them.
///
/// # Errors
/// [`HomeError::PassphraseFile`] if it cannot be read, or is empty or longer than [`PASSPHRASE_BYTES_MAX`].
pub fn read_passphrase(path: &Path) -> Result<Passphrase, HomeError> {
    let failed = |what: String| HomeError::PassphraseFile { path: path.to_owned(), what };
    // Two bytes for the line end and one that shows that there is too much; room for them from the start, since a
    // buffer that grows leaves copies behind.
    let bytes_max = PASSPHRASE_BYTES_MAX + 3;
    let mut text = Zeroizing::new(Vec::with_capacity(2 * bytes_max));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(bytes_max as u64).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    Passphrase::new(text).ok_or_else(|| failed("it holds no passphrase of 1 to 1024 bytes".to_owned()))
}

/// Asks for a passphrase on the terminal of this process, which does not show what is typed; `None` where there is no
/// terminal or nothing is typed.
///
/// # Errors
/// When the terminal cannot be read.
pub fn ask_passphrase(prompt: &str) -> std::io::Result<Option<Passphrase>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let Ok(mut terminal) = std::fs::File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let shown = tcgetattr(&terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    terminal.write_all(prompt.as_bytes())?;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let mut text = Zeroizing::new(vec![0; PASSPHRASE_BYTES_MAX + 3]);
    // A terminal hands over a line at a time.
    let read = terminal.read(&mut text);
    let restored = tcsetattr(&terminal, OptionalActions::Now, &shown);
    terminal.write_all(b"\n")?;
    restored?;
    text.truncate(read?);
    Ok(Passphrase::new(text))
}
