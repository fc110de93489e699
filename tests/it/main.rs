//! The integration tests of Toka: one binary, a module per concern.

mod bundles;
mod home;
mod kernel;
mod stores;
mod facts_laws;
mod native_tools;
mod authority_laws;
mod runs;
mod authority_laws;
mod facts_laws;
mod kernel;
mod native_tools;
mod stores;
