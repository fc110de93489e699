//! Which files can be a program, and what pins them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use toka_tools::files::{FileCode, FileError};
use toka_tools::{
    Folders, Manifest, PROGRAM_FILE_BYTES_MAX, ProgramFault, ProgramFile, load, open_root, program_digest, read_program,
};

use crate::{HEAD, good};

/// Loads a manifest with this `run` from a folder on disk.
fn on_disk(folder: &Path, run: &str) -> Result<Manifest, Vec<FileError>> {
    fs::write(folder.join("t.tool.yaml"), format!("{HEAD}spec: {{ run: {run} }}\n")).expect("written");
    let dir = open_root(folder).expect("a folder");
    let system = open_root(Path::new("/")).expect("a folder");
    load(dir.as_fd(), "t.tool.yaml", "t.tool.yaml", Some(system.as_fd()))
}

/// The one code that a program on disk is refused with.
fn refused(folder: &Path, path: &str) -> FileCode {
    let errors = on_disk(folder, &format!("{{ kind: python, path: \"{path}\" }}")).expect_err(path);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!((errors[0].line, errors[0].column), (4, 36), "{errors:?}");
    errors[0].code
}

#[test]
fn a_program_is_a_regular_file_beneath_the_folder_of_its_manifest() {
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("main.py"), "secret").expect("written");
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path();
    fs::create_dir(folder.join("dir")).expect("made");
    fs::write(folder.join("dir/main.py"), "pass").expect("written");
    symlink("dir/main.py", folder.join("link.py")).expect("linked");
    symlink("dir", folder.join("alias")).expect("linked");
    symlink(outside.path(), folder.join("out")).expect("linked");
    mknodat(CWD, folder.join("pipe.py"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let _socket = UnixListener::bind(folder.join("socket.py")).expect("a socket");
    let large = File::create(folder.join("large.py")).expect("made");
    large.set_len(PROGRAM_FILE_BYTES_MAX + 1).expect("sparse");

    assert!(on_disk(folder, "{ kind: python, path: dir/main.py }").is_ok());
    for (path, code) in [
        ("none.py", FileCode::BadPath),
        ("dir/main.py/x", FileCode::BadPath),
        ("link.py", FileCode::BadPath),
        ("alias/main.py", FileCode::BadPath),
        ("out/main.py", FileCode::BadPath),
        ("../main.py", FileCode::BadPath),
        ("dir/../dir/main.py", FileCode::BadPath),
        ("./dir/main.py", FileCode::BadPath),
        ("dir//main.py", FileCode::BadPath),
        ("dir/main.py/", FileCode::BadPath),
        ("a\\nb.py", FileCode::BadPath),
        ("a\\0b.py", FileCode::BadPath),
        ("dir", FileCode::NotRegular),
        ("pipe.py", FileCode::NotRegular),
        ("socket.py", FileCode::NotRegular),
        ("large.py", FileCode::TooLarge),
    ] {
        assert_eq!(refused(folder, path), code, "{path}");
    }
    large.set_len(PROGRAM_FILE_BYTES_MAX).expect("sparse");
    assert!(on_disk(folder, "{ kind: python, path: large.py }").is_ok());
}

#[test]
fn all_files_together_have_an_end() {
    let scratch = tempfile::tempdir().expect("a folder");
    let names: Vec<String> = (0..5).map(|i| format!("f{i}")).collect();
    for name in &names {
        File::create(scratch.path().join(name)).and_then(|file| file.set_len(60 << 20)).expect("sparse");
    }
    let files = names[1..].join(", ");
    let errors = on_disk(scratch.path(), &format!("{{ kind: python, path: f0, files: [ {files} ] }}"));
    let errors = errors.expect_err("300 MiB");
    assert_eq!((errors.len(), errors[0].code), (1, FileCode::TooLarge));
    assert!(errors[0].message.contains("`f4`"), "{errors:?}");
}

#[test]
fn an_absolute_path_is_read_below_the_directory_that_was_handed_for_it() {
    let scratch = tempfile::tempdir().expect("a folder");
    let top = fs::canonicalize(scratch.path()).expect("a path");
    fs::create_dir(top.join("bin")).expect("made");
    fs::write(top.join("bin/tool"), "#!").expect("written");
    symlink("tool", top.join("bin/alias")).expect("linked");
    fs::write(top.join("t.tool.yaml"), format!("{HEAD}spec: {{ run: {{ kind: executable, path: /bin/tool }} }}\n"))
        .expect("written");
    let dir = open_root(&top).expect("a folder");
    let manifest = load(dir.as_fd(), "t.tool.yaml", "t", Some(dir.as_fd())).expect("below the folder handed as `/`");
    assert_eq!(manifest.program[0].bytes, b"#!");
    let errors = load(dir.as_fd(), "t.tool.yaml", "t", None).expect_err("nothing was handed");
    assert!(errors[0].message.contains("cannot be read here"), "{errors:?}");
    fs::write(top.join("t.tool.yaml"), format!("{HEAD}spec: {{ run: {{ kind: executable, path: /bin/alias }} }}\n"))
        .expect("written");
    let errors = load(dir.as_fd(), "t.tool.yaml", "t", Some(dir.as_fd())).expect_err("a link");
    assert_eq!(errors[0].code, FileCode::BadPath);
}

#[test]
fn the_pin_is_over_names_bytes_and_order() {
    let file = |name: &str, bytes: &str| ProgramFile { name: name.to_owned(), bytes: bytes.as_bytes().to_vec() };
    let digest = |files: &[ProgramFile]| program_digest(files).to_string();
    let pin = digest(&[file("main.py", "print(1)\n")]);
    assert_eq!(pin, "a8f2889e24b5c690dce246794c8b0de6e454dff1294312e833b20bd09f288897", "frozen");
    let others = [
        vec![file("main.py", "print(1)")],
        vec![file("main2.py", "print(1)\n")],
        vec![file("main.py", "print(1)\n"), file("a", "")],
        vec![file("main.py", "print(1)\n"), file("a", ""), file("b", "")],
        vec![file("main.py", "print(1)\n"), file("b", ""), file("a", "")],
        vec![file("main.py", ""), file("print(1)\n", "")],
    ];
    let mut digests: Vec<String> = others.iter().map(|files| digest(files)).chain([pin]).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 1);
}

#[test]
fn what_was_read_once_can_be_read_again_and_compared() {
    let scratch = tempfile::tempdir().expect("a folder");
    fs::write(scratch.path().join("main.py"), "pass").expect("written");
    let manifest = on_disk(scratch.path(), "{ kind: python, path: main.py }").expect("good");
    let run = manifest.spec.run.as_ref().expect("foreign");
    let dir = open_root(scratch.path()).expect("a folder");
    let folders = Folders { beside: dir.as_fd(), system: None };
    let files = read_program(run, &folders).expect("there");
    assert_eq!(program_digest(&files), manifest.spec.program);
    fs::write(scratch.path().join("main.py"), "evil").expect("written");
    assert_ne!(program_digest(&read_program(run, &folders).expect("there")), manifest.spec.program);
    fs::remove_file(scratch.path().join("main.py")).expect("gone");
    assert_eq!(read_program(run, &folders), Err(("main.py".to_owned(), ProgramFault::NotFound)));
}

#[test]
fn a_file_takes_one_place_below_tool() {
    let errors =
        crate::read(&format!("{HEAD}spec: {{ run: {{ kind: executable, path: /usr/bin/tool, files: [ tool ] }} }}"));
    let codes: Vec<FileCode> = errors.expect_err("two at one place").iter().map(|error| error.code).collect();
    assert!(codes.contains(&FileCode::DuplicateName), "{codes:?}");
    good("  run: { kind: executable, path: /usr/bin/tool, files: [ lib/a.py, main.py ] }");
}

#[test]
fn the_shipped_guest_is_what_its_text_becomes() {
    let text = include_str!("../../manifests/guests/release_hasher.wat");
    let assembled = wat::parse_str(text).expect("it is right");
    let shipped = include_bytes!("../../manifests/guests/release_hasher.wasm");
    assert!(assembled == shipped, "assemble tools/manifests/guests/release_hasher.wat anew");
}

#[test]
fn tools_that_run_code_have_sound_specs_and_take_code() {
    let tools = toka_tools::code_tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["code.python", "code.shell", "code.wasm"]);
    for tool in &tools {
        let bytes = tool.encode().expect("sound");
        assert_eq!(toka_kernel::tool::ToolSpec::decode(&bytes).as_ref(), Ok(tool));
        tool.decision(0).expect("small");
        let source = if tool.name == "code.wasm" { "AGFzbQEAAAA=" } else { "1" };
        let given = |arguments: serde_json::Value| toka_tools::prepare(tool, &arguments.to_string());
        given(serde_json::json!({ "source": source, "args": ["-x", ""], "stdin": "a" })).expect("they fit");
        assert!(given(serde_json::json!({})).is_err() && given(serde_json::json!({ "source": 1 })).is_err());
    }
}
