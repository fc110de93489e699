//! The agent files of these tests.

/// A step that reads what the agent may read.
pub(crate) const GUIDE: &str = r#"{ id: guide, call: { tool: file-reader, args: { path: "project:docs/guide.md" } } }"#;
/// A step that asks for more; it ends the agent.
pub(super) const SECRET: &str = r#"{ id: secret, call: { tool: file-reader, args: { path: "project:secret.txt" } } }"#;
/// The same, and the agent goes on.
pub(super) const SECRET_OR_NOT: &str =
    r#"{ id: secret, call: { tool: file-reader, args: { path: "project:secret.txt" } }, on_error: continue }"#;

/// An agent that may read the documents of the project, with these steps.
pub(crate) fn reader(steps: &str) -> String {
    reader_with("", steps)
}

/// The same with another line in its `spec`.
pub(super) fn reader_with(line: &str, steps: &str) -> String {
    agent("file-reader", r#""fs:project/docs/**#read", "tool:file-reader""#, line, steps)
}

/// An agent called `reader` with these tools, capabilities, one more line and these steps.
pub(crate) fn agent(tools: &str, capabilities: &str, line: &str, steps: &str) -> String {
    let line = if line.is_empty() { String::new() } else { format!("  {line}\n") };
    let steps: String = steps.lines().map(|step| format!("        - {step}\n")).collect();
    format!(
        "apiVersion: toka/v1\n\
         kind: Agent\n\
         metadata: {{ name: reader, version: 1.0.0 }}\n\
         spec:\n\
         \x20 tools: [ {tools} ]\n\
         \x20 capabilities: [ {capabilities} ]\n\
         {line}\
         \x20 program:\n\
         \x20   script:\n\
         \x20     steps:\n\
         {steps}"
    )
}

/// An agent that reads every file below `project/docs/many`.
pub(super) const READS_ALL: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: reads-all, version: 1.0.0 }
spec:
  tools: [ file-lister, file-reader ]
  capabilities: [ "fs:project/docs/**#list,read", "tool:file-lister", "tool:file-reader" ]
  budget: { calls: 1000, wall: 1h }
  program:
    script:
      steps:
        - { id: files, call: { tool: file-lister, args: { path: "project:docs/many" } } }
        - id: each
          for_each:
            in: { ref: steps.files.output, pointer: /entries }
            as: file
            steps:
              - { id: text, call: { tool: file-reader, args: { path: { ref: file, pointer: /path } } } }
"#;

/// An agent that reads the guide and spawns `child` with this grant.
pub(super) fn parent(grant: &str) -> String {
    agent(
        "file-reader",
        r#""fs:project/docs/**#read?depth=1", "tool:file-reader?depth=1", "agent:child?live=1""#,
        "",
        &format!(
            "{GUIDE}\n\
             {{ id: helper, spawn: {{ spec: child, grants: [ \"{grant}\", \"tool:file-reader\" ] }} }}\n\
             {{ id: done, wait: {{ agents: [ helper ] }} }}"
        ),
    )
}

/// The agent that [`parent`] spawns.
pub(super) fn child(tool: &str) -> String {
    format!(
        "apiVersion: toka/v1\n\
         kind: Agent\n\
         metadata: {{ name: child, version: 1.0.0 }}\n\
         spec:\n\
         \x20 tools: [ {tool} ]\n\
         \x20 capabilities: [ \"fs:project/docs/**#read\", \"tool:{tool}\" ]\n\
         \x20 program:\n\
         \x20   script:\n\
         \x20     steps:\n\
         \x20       - {{ id: guide, call: {{ tool: {tool}, args: {{ path: \"project:docs/guide.md\" }} }} }}\n"
    )
}
