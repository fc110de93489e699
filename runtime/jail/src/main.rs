//! The launcher as a small program of its own.
//!
//! It does without what the standard library does before `main`, such as looking for the bounds of the stack in
//! `/proc/self/maps`: what it has in memory is copied for each call.
#![deny(unsafe_code)]
#![no_main]

use std::ffi::{c_char, c_int};

#[expect(unsafe_code, reason = "the name that the C library calls; nobody else in this program has it")]
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _args: *const *const c_char) -> c_int {
    // The standard library has taken the arguments before this.
    toka_jail::enter(std::env::args_os().skip(1))
}
