//! What a good manifest becomes.

use toka_kernel::denial::Dim;
use toka_kernel::tool::{Effect, Level, ParamType, Run, ToolSpec, bounds};
use toka_tools::{by_name, prepare};

use crate::{HEAD, files, good, read};

fn run(spec: &ToolSpec) -> &Run {
    spec.run.as_ref().expect("a foreign program")
}

/// The reserve of one dimension.
fn reserve(spec: &ToolSpec, dim: Dim) -> Option<u64> {
    spec.reserve.iter().find(|reserve| reserve.dim == dim.number()).map(|reserve| reserve.base)
}

#[test]
fn what_is_not_said_is_as_strict_as_it_can_be() {
    let spec = good("  run: { kind: python, path: main.py }").spec;
    assert_eq!((spec.effect, spec.level), (Effect::Once.number(), Level::Strong.number()));
    assert!(spec.facts.is_empty() && spec.needs.is_empty() && spec.params.is_empty() && spec.parallel_safe);
    let run = run(&spec);
    assert_eq!((run.toolchain.as_deref(), run.sandbox.net), (Some("python3"), 1));
    assert_eq!(run.sandbox.deny_within, [".env", ".git", ".ssh", ".toka"]);
    assert_eq!(run.sandbox.limits.wall_us, bounds::WALL_US.default);
    assert_eq!(reserve(&spec, Dim::WallUs), Some(30_000_000));
    assert_eq!(reserve(&spec, Dim::CpuUs), Some(20_000_000));
    assert_eq!(reserve(&spec, Dim::BytesOut), Some(3 << 20), "both streams and the result");
    assert_eq!(reserve(&spec, Dim::BytesIn), Some(256), "no parameters, so no more than {{}}");
    assert_eq!((reserve(&spec, Dim::Tokens), reserve(&spec, Dim::CostMicro)), (None, None));
}

#[test]
fn a_guest_has_limits_of_its_own_and_no_other_program_has_them() {
    let spec = good("  run: { kind: wasm, path: main.wasm }\n  sandbox: { wasm: { fuel: 5, clock_step_us: 0 } }").spec;
    let run = run(&spec);
    let wasm = run.sandbox.wasm.clone().expect("limits of a guest");
    assert_eq!((wasm.fuel, wasm.clock_step_us), (5, 0));
    assert_eq!((wasm.stack_bytes, wasm.table_elements), (1 << 20, 20_000));
    assert_eq!((spec.level, run.toolchain.as_deref()), (Level::Strong.number(), None));
    let bytes = spec.encode().expect("sound");
    assert_eq!(ToolSpec::decode(&bytes).as_ref(), Ok(&spec));
    let without = |change: &dyn Fn(&mut Run)| {
        let mut spec = spec.clone();
        change(spec.run.as_mut().expect("a foreign program"));
        spec.encode().is_err()
    };
    assert!(without(&|run| run.sandbox.wasm = None));
    assert!(without(&|run| run.sandbox.net = 2));
    assert!(without(&|run| run.sandbox.cwd = "/workspace/a".to_owned()));
    assert!(without(&|run| run.files = vec!["a".to_owned()]));
    let plain = good("  run: { kind: python, path: main.py }").spec;
    let mut odd = plain.clone();
    odd.run.as_mut().expect("a foreign program").sandbox.wasm = Some(wasm);
    assert!(plain.encode().is_ok() && odd.encode().is_err());
}

#[test]
fn a_spec_survives_being_encoded_and_comments_change_nothing() {
    let one = good("  run: { kind: python, path: main.py }\n  effect: read\n  requires: [sh, git]");
    let other = good("  # why\n  requires: [git, sh]\n  effect: read\n  run: { path: main.py, kind: python }");
    assert_eq!(one.spec.digest(), other.spec.digest());
    assert_ne!(one.written, other.written);
    let bytes = one.spec.encode().expect("sound");
    assert_eq!(ToolSpec::decode(&bytes).as_ref(), Ok(&one.spec));
    for cut in 0..bytes.len() {
        assert!(ToolSpec::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn every_field_that_decides_or_confines_changes_the_digest() {
    let base = "  run: { kind: python, path: main.py }\n  params: [ { name: a, type: integer } ]\n";
    let digest = |more: &str| good(&format!("{base}{more}")).spec.digest().expect("sound");
    let plain = digest("");
    for more in [
        "  effect: read",
        "  pass: { argv: [ { param: a } ] }",
        "  outputs: { result: none }",
        "  facts: [ { pointer: /a, type: int } ]",
        "  needs: [ 'fs:workspace/x#read' ]",
        "  reserve: { tokens: 1 }",
        "  parallel_safe: false",
        "  requires: [git]",
        "  sandbox: { level: landlock }",
        "  sandbox: { cwd: /workspace/a }",
        "  sandbox: { net: loopback }",
        "  sandbox: { env: { A: b } }",
        "  sandbox: { workspace: { kind: disk } }",
        "  sandbox: { fs: { deny_within: [] } }",
        "  sandbox: { limits: { pids: 1 } }",
        "  sandbox: { secrets: [ { name: token, handle: github.token } ] }",
        "  sandbox: { secrets: [ { name: token, handle: gitlab.token } ] }",
    ] {
        assert_ne!(digest(more), plain, "{more}");
    }
}

#[test]
fn paths_and_hosts_are_facts_and_access_is_a_need() {
    let params = "  params:
    - { name: tree, type: path, required: true, access: [read, list] }
    - { name: file, type: path, required: true, access: [write, create] }
    - { name: site, type: host }
    - { name: deep, type: json }
    - { name: fix, type: boolean, default: false }
  facts: [ { pointer: /deep/a/0, type: str }, { pointer: /tree, type: path } ]
  needs: [ { need: 'fs:{/tree}/**#write', when: fix }, 'fs:{/tree}/**#list,read' ]";
    let spec = good(&format!("  run: {{ kind: python, path: main.py }}\n{params}")).spec;
    let facts: Vec<&str> = spec.facts.iter().map(|fact| fact.pointer.as_str()).collect();
    assert_eq!(facts, ["/deep/a/0", "/file", "/fix", "/site", "/tree"]);
    let needs: Vec<(&str, Option<&str>)> =
        spec.needs.iter().map(|need| (need.text.as_str(), need.when.as_deref())).collect();
    let expected =
        [("fs:{/file}#create,write", None), ("fs:{/tree}/**#list,read", None), ("fs:{/tree}/**#write", Some("/fix"))];
    assert_eq!(needs, expected);
    assert!(!spec.parallel_safe, "it changes files, so one call at a time unless it says otherwise");

    let prepared = prepare(&spec, r#"{"tree":"work:a","file":"work:b","site":"A.Example.","deep":{"a":["x"]}}"#);
    let facts: Vec<Option<String>> = prepared.expect("good").facts.into_iter().map(|fact| fact.text).collect();
    let expected = ["x", "work:b", "a.example", "work:a"].map(|text| Some(text.to_owned()));
    assert_eq!(facts, expected);
}

#[test]
fn amounts_are_read_with_their_units_and_exactly() {
    let spec = good(
        "  run: { kind: python, path: main.py }
  sandbox:
    limits: { wall: 1h, cpu: 1m30s, grace: 250ms, memory_bytes: 1.5GB, file_size: 512KiB, stdout_bytes: 10MB }
    workspace: { bytes: 1GiB, inodes: 1000 }
  reserve: { wall: 1h0.5s, tokens: 7 }",
    )
    .spec;
    let limits = &run(&spec).sandbox.limits;
    assert_eq!((limits.wall_us, limits.cpu_us, limits.grace_us), (3_600_000_000, 90_000_000, 250_000));
    assert_eq!((limits.memory_bytes, limits.file_size, limits.stdout_bytes), (1_500_000_000, 512 << 10, 10_000_000));
    assert_eq!((reserve(&spec, Dim::WallUs), reserve(&spec, Dim::Tokens)), (Some(3_600_500_000), Some(7)));
}

#[test]
fn every_limit_is_taken_at_its_bound_and_refused_beyond() {
    let limit = |text: &str| {
        let spec =
            format!("{HEAD}spec:\n  run: {{ kind: python, path: main.py }}\n  sandbox: {{ limits: {{ {text} }} }}");
        read(&spec).is_ok()
    };
    for (least, most, below, above) in [
        ("wall: 1us", "wall: 1h", "wall: 0s", "wall: 1h1us"),
        ("pids: 1", "pids: 1024", "pids: 0", "pids: 1025"),
        ("memory_bytes: 1B", "memory_bytes: 16GiB", "memory_bytes: 0B", "memory_bytes: 16385MiB"),
        ("grace: 0s", "grace: 10s", "grace: -1s", "grace: 10001ms"),
        ("open_files: 8", "open_files: 4096", "open_files: 7", "open_files: 4097"),
        ("stdout_bytes: 1B", "stdout_bytes: 16MiB", "stdout_bytes: 0B", "stdout_bytes: 17MiB"),
    ] {
        assert!(limit(least) && limit(most), "{least}, {most}");
        assert!(!limit(below) && !limit(above), "{below}, {above}");
    }
}

#[test]
fn a_built_in_tool_is_what_the_program_says() {
    let native = by_name("file-reader").expect("built in");
    let spec = native.spec();
    let head = format!(
        "apiVersion: toka/v1\nkind: Tool\nmetadata: {{ name: file-reader, version: {}, description: \"{}\" }}\n",
        spec.version, spec.description
    );
    let manifest = read(&format!("{head}spec: {{ run: {{ kind: native }} }}")).expect("good");
    assert_eq!((&manifest.spec, manifest.program.len()), (spec, 0));
}

#[test]
fn an_executable_of_the_machine_is_named_absolutely() {
    let manifest = good("  run: { kind: executable, path: /usr/bin/tool, files: [ lib/a.py ] }");
    assert_eq!(run(&manifest.spec).path, "/usr/bin/tool");
    let names: Vec<&str> = manifest.program.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["/usr/bin/tool", "lib/a.py"]);
}

#[test]
fn a_pin_that_is_right_is_taken() {
    let manifest = good("  run: { kind: python, path: main.py }");
    let pin = toka_tools::pin_text(&manifest.spec.program);
    let pinned = good(&format!("  run: {{ kind: python, path: main.py, digest: \"{pin}\" }}"));
    assert_eq!(pinned.spec.digest(), manifest.spec.digest(), "the pin itself is no part of the tool");
    let mut other = files();
    other.insert("main.py", b"print(2)\n");
    let text = format!("{HEAD}spec: {{ run: {{ kind: python, path: main.py, digest: \"{pin}\" }} }}");
    assert!(toka_tools::Manifest::read("t", text.as_bytes(), &other).is_err());
}

#[test]
fn no_type_of_parameter_is_left_out() {
    let params = "  params:
    - { name: a, type: string, max_len: 3, default: x }
    - { name: b, type: integer, min: -1, max: 1, default: 0 }
    - { name: c, type: boolean, default: true }
    - { name: d, type: enum, values: [ x, y ], default: y }
    - { name: e, type: path, required: true, access: [delete] }
    - { name: f, type: host, default: a.example }
    - { name: g, type: array, max_len: 2, items: { type: integer, max: 3 }, default: [ 1, 2 ] }
    - { name: h, type: json, default: { a: [ null, 1.5 ] } }";
    // A host is a fact, so it has no default.
    let spec = format!("  run: {{ kind: python, path: main.py }}\n{}", params.replace(", default: a.example", ""));
    let spec = good(&spec).spec;
    let kinds: Vec<u8> = spec.params.iter().map(|param| param.kind).collect();
    assert_eq!(kinds, ParamType::ALL.iter().map(|kind| kind.number()).collect::<Vec<_>>());
    let defaults: Vec<Option<&str>> = spec.params.iter().map(|param| param.default.as_deref()).collect();
    let expected =
        [Some("\"x\""), Some("0"), Some("true"), Some("\"y\""), None, None, Some("[1,2]"), Some("{\"a\":[null,1.5]}")];
    assert_eq!(defaults, expected);
    assert_eq!(spec.needs[0].text, "fs:{/e}/**#delete");
    assert!(ToolSpec::decode(&spec.encode().expect("sound")).is_ok());
}

#[test]
fn the_encoding_of_a_foreign_tool_is_frozen() {
    let spec = good(
        "  run: { kind: executable, path: /usr/bin/tool, files: [ lib/a.py ] }
  params:
    - { name: a, type: string }
    - { name: b, type: boolean }
    - { name: c, type: array, items: { type: enum, values: [ x ] } }
  pass:
    argv: [ { const: go }, { flag: -b, when: b }, { flag: --a, param: a, join: true }, { const: -- }, { rest: c } ]
    env: { A: { param: a } }
    stdin: { param: a }
  outputs: { result: json, artifacts: [ { name: out, path: 'out/**', max_bytes: 1MiB, max_files: 3 } ] }
  requires: [ git ]
  sandbox: { env: { MODE: x }, net: loopback }",
    );
    // A changed digest means that no grant and no session of before fits any more.
    let digest = spec.spec.digest().expect("sound").to_string();
    assert_eq!(digest, "0050a8466ec51072e49ea3f5ca5c6f48fe6b511bee7146e5c42111b6eac82d2c");
    let bytes = spec.spec.encode().expect("sound");
    let holds = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    for name in ["const", "when", "flag", "param", "rest", "join", "lim", "wall_us", "arts", "mbyt", "items", "tc"] {
        assert!(holds(name.as_bytes()), "{name}");
    }
}
