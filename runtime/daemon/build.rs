//! Builds the small launcher, which `toka` carries in itself. A call is confined by a process that doubles itself, and one
//! of a large program costs half as much again to double; a launcher beside `toka` could be missing or of another version.

use std::env;
use std::path::{Path, PathBuf};
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
    let built = cross_compiled().map_or("release".into(), |triple| {
        cargo.args(["--target", &triple]);
        Path::new(&triple).join("release")
    });
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(status.success(), "the launcher is not built: {status}");
    println!("cargo::rustc-env=TOKA_LAUNCHER={}", target.join(built).join("toka-jail").display());
}

/// The machine that is built for, where it is another one.
fn cross_compiled() -> Option<String> {
    let target = env::var("TARGET").ok()?;
    (env::var("HOST").ok()? != target).then_some(target)
}
