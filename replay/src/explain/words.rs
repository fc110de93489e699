//! Outcomes of calls, ends of agents, and exit codes.

use toka_projections::{END_CODES, OUTCOMES};

use super::Text;

/// How a call ended, by number from 1.
#[rustfmt::skip]
pub(super) const OUTCOME: [Text; OUTCOMES.len()] = [
    ["it ran and did what it was asked", "the tool said so, or a probe found it done", "nothing"],
    ["it ran and said that it failed", "the tool itself; a symbol or an exit code says why", "`toka calls show SESSION CALL` shows its output"],
    ["it ran, and what it gave back is not what it declares", "the result breaks the schema of the tool", "mend the tool or its manifest"],
    ["a signal ended it", "it crashed, or the system call filter stopped it", "`toka calls show SESSION CALL`; the number is the signal"],
    ["a guest came to a trap", "out of fuel, out of memory, or a fault in the module", "mend the module, or give it more"],
    ["it took longer than it may", "its wall time or the end of a grant was reached, and it was killed", "give it more time, or less to do"],
    ["it reached a limit of its jail", "processor time, memory, processes, file sizes or output", "raise that limit in the manifest, or give it less to do"],
    ["it was stopped", "somebody asked, its grant was revoked, or the session closed", "nothing, if that was meant; `why CALL` says who"],
    ["it was killed, and its end was not seen", "processes stayed behind that the system would not end", "look for them on the machine"],
    ["what ran it was lost", "the worker or the connection died in the middle", "a call that may run twice is tried again; else `toka calls resolve`"],
    ["nobody knows whether it was done", "a crash hid the outcome of a call that must not run twice", "find out, then `toka calls resolve SESSION CALL done|not-done|abandon`"],
    ["no jail could be made, and nothing ran", "the kernel lacks what a jail needs, or forbids it", "`toka doctor` names the step and its fix"],
    ["its jail or its directories could not be set up, and nothing ran", "the symbol names the stage, the number is what the system said", "mend that; often a missing directory, file or secret"],
    ["its program could not be started, and nothing ran", "the program is missing or is no program", "look at the manifest and at the file it names"],
    ["its program is not the one that was approved, and nothing ran", "the file was changed after the approval", "look at the change, and approve it or put it back"],
    ["its executor would not run it, and nothing ran", "what it was handed does not fit what it knows of the tool", "tell the operator: log and node do not agree"],
];

/// How an agent or a task ended, by number from 0.
#[rustfmt::skip]
pub(super) const END: [Text; END_CODES.len()] = [
    ["nothing went wrong", "it came to its end as it was meant to", "nothing"],
    ["a call or a spawn failed or was refused", "a step that was not allowed to fail did", "`why` on that call or refusal"],
    ["a reference led to nothing that can be used there", "an earlier step gave no value of that name or type", "mend the reference in the agent file"],
    ["the model never said that it was done", "it answered without calling and without finishing", "say in the prompt how to finish"],
    ["the model declined", "the model's own policy", "ask otherwise, or another model"],
    ["the same call again and again", "the model asked for one thing many times in a row", "give it what it needs, or a better prompt"],
    ["too many calls in a row that made no sense", "the model does not keep to the form of the tools", "use another model, or simpler tools"],
    ["too many refusals in a row", "the model asks for what it is not granted", "grant it, or tell the model what it has"],
    ["as many turns or steps as there may be", "the limit of the agent file was reached", "raise the limit, or give it less to do"],
    ["the model's window is full", "the conversation has become too long", "give it less to read, or a larger model"],
    ["an objective is not met", "the agent ended without what it was to reach", "`show --agent NAME` tells what it did"],
    ["a required deliverable is missing", "the agent ended without making it", "`show --agent NAME` tells what it did"],
    ["a budget is used up", "calls, tokens, money or time of a grant", "raise it in the agent file and run again"],
    ["a task failed", "one of its tasks failed for good", "`why` on the entry of that task"],
    ["an agent that this one relies on failed", "the plan says that its failure stops this one", "look at the other agent first"],
    ["the agent was not spawned in time", "those before it took too long", "raise the timeout of the plan"],
    ["the workstream ran out of time", "its agents together took too long", "raise the timeout of the plan"],
    ["a `fail` step", "the script of the agent says so", "nothing, if that was meant"],
];

/// What a program ends with, by number from 0.
#[rustfmt::skip]
pub(super) const EXITS: [(&str, Text); 10] = [
    ("exit-0", ["done; for `verify`, all that is required holds", "it went well", "nothing"]),
    ("exit-1", ["it failed; for `diff`, the two differ", "the agent, the disk, the clock or permissions", "read the hint; `toka sessions show ID` for an agent"]),
    ("exit-2", ["wrong words, or something that was named and is not there", "an option, a directory, a session, an id", "read the hint, or --help"]),
    ("exit-3", ["tampered with, or against the rules", "the log is not what was written, or should not have been", "keep this copy; compare with another; do not go on with it"]),
    ("exit-4", ["something that is required could not be checked, or an outcome is in doubt", "no root key, an open session, a later version; a call nobody knows the outcome of", "give --root; `toka calls resolve`"]),
    ("exit-5", ["not granted, or refused for want of a right", "you asked for more than was given", "--grant-requested, or ask for less"]),
    ("exit-6", ["a budget or limit is used up", "an agent came to the end of what it may spend", "raise it in the agent file and run again"]),
    ("exit-7", ["another process writes this store", "one store has one writer", "wait, or stop it; the message names its pid"]),
    ("exit-8", ["a file, key or store cannot be read as what it should be", "it is missing, damaged or something else", "`toka replay verify`; put it back from a copy"]),
    ("exit-9", ["a jail cannot be made here", "the kernel lacks what a jail needs, or forbids it", "`toka doctor` names the step and its fix"]),
];
