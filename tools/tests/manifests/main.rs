//! Tool manifests, from the file to the command line that a program sees.

mod bad;
mod discovery;
mod documentation;
mod good;
mod passing;
mod programs;
mod scripts;

use std::collections::BTreeMap;

use toka_tools::Manifest;
use toka_tools::files::FileError;

/// The first lines of a good manifest.
const HEAD: &str = "apiVersion: toka/v1\nkind: Tool\nmetadata: { name: t, version: 1.0.0, description: Does it. }\n";

/// What a manifest in memory can name as its program.
fn files() -> BTreeMap<&'static str, &'static [u8]> {
    let files: [(&str, &[u8]); 6] = [
        ("main.py", b"print(1)\n"),
        ("main.sh", b"echo 1\n"),
        ("lib/a.py", b"A = 1\n"),
        ("/usr/bin/tool", b"\x7fELF"),
        ("main.wasm", b"\0asm\x01\0\0\0"),
        ("text.wasm", b"(module)\n"),
    ];
    files.into()
}

fn read(text: &str) -> Result<Manifest, Vec<FileError>> {
    Manifest::read("t.tool.yaml", text.as_bytes(), &files())
}

/// A manifest that must be good, given what stands below `spec:`.
fn good(spec: &str) -> Manifest {
    let text = format!("{HEAD}spec:\n{spec}\n");
    read(&text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}
