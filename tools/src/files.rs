//! Files that people write, read so that every mistake is told with its place, a code and a way on.
//!
//! [`decode`] and [`yaml::parse`] or [`toml::parse`] make a tree in which every value knows its place; the readers of [`Problems`] take
//! typed values out of it and report what is wrong, so that one run tells all the mistakes of a file. Tool manifests,
//! agent files and the configuration are read with it. Nothing here opens a file.

mod amounts;
mod fields;
mod head;
mod problem;
pub mod quantity;
pub mod toml;
pub mod yaml;

pub use fields::{Fields, Shape};
pub use head::{decode, is_semver};
pub use problem::{FileCode, FileError, Problems, clean, file_error, is_hostile, listed, nearest, quote, suggestion};

/// Depth of nesting in a file.
pub const FILE_DEPTH_MAX: usize = 32;
/// Errors reported for one file; one more says that there are more.
pub const FILE_ERRORS_MAX: usize = 1_000;
/// Bytes of a version.
pub const VERSION_BYTES_MAX: usize = 128;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// What people call it: `agent file`.
    pub noun: &'static str,
    /// What its field `kind` says.
    pub kind: &'static str,
    /// The most bytes it may have.
    pub bytes_max: usize,
}
