//! Links the small launcher statically where the system has what that takes: loading and relocating the C library anew
//! for each call was a sixth of what a jail cost. Elsewhere it is linked as every other program.
//!
//! Only the whole tree could be told to be static by a flag of the compiler. So the linker is, for this one program: the
//! names of the shared libraries that the compiler asks for are given to scripts that point to the archives.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux")
        || !is("CARGO_CFG_TARGET_ENV", "gnu")
        || env::var("HOST") != env::var("TARGET")
    {
        return;
    }
    let Some(archives) =
        ["libc.a", "libgcc_eh.a", "libgcc.a", "rcrt1.o"].map(found).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let Some(folder) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let [libc, unwinder, builtins] = [&archives[0], &archives[1], &archives[2]].map(|path| path.display().to_string());
    let scripts = [
        ("libc.so", format!("GROUP({libc} {unwinder} {builtins})\n")),
        ("libgcc_s.so", format!("GROUP({unwinder} {builtins} {libc})\n")),
    ];
    if scripts.iter().all(|(name, script)| fs::write(folder.join(name), script).is_ok()) {
        println!("cargo::rustc-link-arg-bin=toka-jail=-L{}", folder.display());
        println!("cargo::rustc-link-arg-bin=toka-jail=-static-pie");
        // What is wanted only if it is there must be null, and not left to a loader that never comes.
        println!("cargo::rustc-link-arg-bin=toka-jail=-Wl,--no-dynamic-linker,-z,nodynamic-undefined-weak");
    }
}

/// Where the C compiler has a file; it answers with the bare name if it has none.
fn found(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    (path.is_absolute() && path.is_file()).then(|| path.to_owned())
}
