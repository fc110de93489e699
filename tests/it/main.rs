//! The integration tests of Toka: one binary, a module per concern.
#![forbid(unsafe_code)]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at one kind and lets the others be")]

mod agent_files;
mod agents_at_work;
mod authority_laws;
mod bounds;
mod bundles;
mod cli;
mod confinement;
mod demo;
mod docs;
mod driver_laws;
mod facts_laws;
mod format;
mod golden;
mod home;
mod independent;
mod kernel;
mod kills;
mod laws;
mod model;
mod msgpack;
mod native_tools;
mod reading;
mod refusals;
mod runs;
mod script_source;
mod stores;
mod system_session;
mod tidy;
mod verify;
