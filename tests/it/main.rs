//! The integration tests of Toka: one binary, a module per concern.

mod agent_files;
mod authority_laws;
mod bundles;
mod driver_laws;
mod facts_laws;
mod home;
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at one kind and lets the others be")]

mod bounds;
mod format;
mod golden;
mod kernel;
mod kills;
mod laws;
mod model;
mod msgpack;
mod native_tools;
mod runs;
mod script_source;
mod refusals;
mod stores;
mod verify;
