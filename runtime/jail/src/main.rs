//! The launcher as a small program of its own.
#![deny(unsafe_code)]

fn main() -> ! {
    toka_jail::enter(std::env::args_os().skip(1))
}
