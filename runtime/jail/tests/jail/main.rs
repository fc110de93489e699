//! The launcher as a supervisor drives it, and what programs try from inside.

mod attacks;
mod landlock;
mod protocol;
mod selftest;
mod source;
mod supervisor;
