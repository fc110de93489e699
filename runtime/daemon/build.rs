//! Builds the small launcher, which `toka` carries in itself. A call is confined by a process that doubles itself, and one
//! of a large program costs half as much again to double; a launcher beside `toka` could be missing or of another version.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("cargo sets {name}"));
    let jail = folder("CARGO_MANIFEST_DIR").join("../jail");
    for watched in ["src", "build.rs", "Cargo.toml", "../../Cargo.lock", "../../Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", jail.join(watched).display());
    }
    // Beside the folders of all packages, so that it is built once for every way in which this one is.
    let out = folder("OUT_DIR");
    let target = out.ancestors().nth(3).unwrap_or(&out).join("launcher");
    let mut cargo = Command::new(folder("CARGO"));
    cargo.args(["build", "--release", "--locked", "--bin", "toka-jail"]);
    cargo.arg("--manifest-path").arg(jail.join("Cargo.toml")).arg("--target-dir").arg(&target);
    // Nobody debugs what is carried; who has to builds the launcher by itself.
    cargo.args(["--config", "profile.release.debug=0", "--config", "profile.release.strip='symbols'"]);
    // A lint of this package is none of that one.
    cargo.env_remove("RUSTC_WORKSPACE_WRAPPER");
    // Named in any case, so that what a configuration names does not move the program elsewhere.
    let triple = env::var("TARGET").unwrap_or_else(|_| panic!("cargo sets TARGET"));
    cargo.args(["--target", &triple]);
    let program = target.join(triple).join("release").join("toka-jail");
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(status.success(), "the launcher is not built: {status}");
    println!("cargo::rustc-env=TOKA_LAUNCHER={}", program.display());
}
