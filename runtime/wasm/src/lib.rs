//! The worker that runs one WASM guest. It is started in a jail of its own for each call, reads no file, opens no socket,
//! and tells what came of the guest in one [`Report`].
//!
//! - [`Handed`] is how it gets what it needs: descriptors, over the socket that is its standard input.
//! - [`Job`] is what it is told of the call, [`Report`] what it says in the end.
//! - `enter` is the worker itself, in builds with the feature `engine`; the node needs only the words above.
//!
//! The same module with the same job does the same: random bytes come from a seed, the clock moves by a step whenever it
//! is read, NaN has one form, and fuel counts instructions. What the guest finds of the world is in [`Job`], and nothing
//! else: no files, no sockets, no environment, no other threads.
#![forbid(unsafe_code)]

#[cfg(feature = "engine")]
mod engine;
mod handing;
mod words;

#[cfg(feature = "engine")]
pub use engine::{Streams, enter, run};
pub use handing::Handed;
pub use words::{End, Job, MODULE_BYTES_MAX, REPORT_BYTES_MAX, Report, WordFault};
