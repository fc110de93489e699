//! Where entries and blobs are kept: in memory, in SQLite, in bundle files.
//!
//! - [`Log`] keeps the chains of many sessions and makes a tail and its blobs durable together.
//! - [`ReadLog`] is its read half, all that a verifier needs; a [`bundle::Bundle`] has it too.
//! - [`StoreUrl`] names a store: `memory:` or `sqlite:PATH`.
//! - [`Vkey`] is a public key as one line of text, the form in which an auditor pins a root key.
//!
//! What this crate refuses to do: it decides nothing, it decodes no body, it changes no entry once written, it
//! retries no failed flush, and it links no async runtime. Entries are opaque bytes that it compares, keeps and returns.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bundle;
pub mod conformance;
pub mod log;
pub mod memory;
mod pages;
pub mod sqlite;
pub mod url;
pub mod vkey;

pub use bundle::{Bundle, BundleBuilder, write_bundle};
pub use log::{
    Append, AppendError, CONTENT_BYTES_MIN, Durability, Log, NewBlob, RawEntry, ReadError, ReadLog, SessionRow,
    StoredBlob,
};
pub use memory::MemoryLog;
pub use sqlite::{OpenError, SqliteLog, SqliteReader};
pub use url::StoreUrl;
pub use vkey::Vkey;
