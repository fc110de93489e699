//! The worker for guests as a program of its own.
#![forbid(unsafe_code)]

fn main() {
    toka_wasm::enter()
}
