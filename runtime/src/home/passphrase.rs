//! A passphrase from a file, so that it never stands in arguments or the environment.

use std::io::Read;
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
