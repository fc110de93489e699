//! The launcher as a supervisor drives it, and what programs try from inside: the attack table, row by row, at both levels.

mod attack;
mod devices;
mod files;
mod kernel;
mod limits;
mod network;
mod privileges;
mod processes;
mod protocol;
mod selftest;
mod source;
mod standing;
mod supervisor;
