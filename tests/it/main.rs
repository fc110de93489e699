//! The integration tests of Toka: one binary, a module per concern.

mod authority_laws;
mod bundles;
mod facts_laws;
mod home;
mod kernel;
mod kills;
mod native_tools;
mod runs;
mod model;
mod msgpack;
mod stores;
mod agent_files;
mod driver_laws;
mod script_source;
