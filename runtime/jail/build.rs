//! Links the small launcher, and the worker for guests, statically where the system has what that takes: loading and
//! relocating the C library anew for each call was a sixth of what a jail cost. Elsewhere they are linked as every other
//! program.
//!
//! Only the whole tree could be told to be static by a flag of the compiler. So the linker is, for the one program that has
//! the name of its package: the names of the shared libraries that the compiler asks for are given to scripts that point
//! to the archives.

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
        ["libc.a", "libm.a", "libgcc_eh.a", "libgcc.a", "rcrt1.o"].map(found).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let Some(folder) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let Ok(program) = env::var("CARGO_PKG_NAME") else { return };
    let [libc, libm, unwinder, builtins] = [0, 1, 2, 3].map(|which: usize| archives[which].display().to_string());
    let scripts = [
        ("libm.so", format!("GROUP({libm} {libc})\n")),
        ("libc.so", format!("GROUP({libc} {unwinder} {builtins})\n")),
        ("libgcc_s.so", format!("GROUP({unwinder} {builtins} {libc})\n")),
    ];
    if scripts.iter().all(|(name, script)| fs::write(folder.join(name), script).is_ok()) {
        println!("cargo::rustc-link-arg-bin={program}=-L{}", folder.display());
        println!("cargo::rustc-link-arg-bin={program}=-static-pie");
        // What is wanted only if it is there must be null, and not left to a loader that never comes.
        println!("cargo::rustc-link-arg-bin={program}=-Wl,--no-dynamic-linker,-z,nodynamic-undefined-weak");
    }
}

/// Where the C compiler has a file; it answers with the bare name if it has none.
fn found(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    (path.is_absolute() && path.is_file()).then(|| path.to_owned())
}
