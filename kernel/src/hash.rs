//! BLAKE3 in derive-key mode: one context string per purpose, never shared and never changed.

use std::sync::OnceLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use crate::ids::Digest;

macro_rules! contexts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a hash is for. A changed pre-image takes a new context, never an old one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Context { $($(#[$doc])* $variant),* }

        impl Context {
            /// Every context with the exact string it stands for.
            pub const ALL: &'static [(Context, &'static str)] =
                &[$((Context::$variant, concat!("toka 2026-11 ", $name, " v1"))),*];
        }
    };
}

contexts! {
    /// What the event key signs: the header of an entry.
    Header = "header",
    /// The hash of an entry: its header and signature.
    Entry = "entry",
    /// The hash of a body, with its kind and schema.
    Body = "body",
    /// A salted blob commitment.
    Blob = "blob",
    /// A key id.
    Key = "key",
    /// What the root key signs in a key grant.
    KeyGrant = "key-grant",
    /// What is signed of a command.
    Command = "command",
    /// Ids derived from (session, seq, ordinal).
    Id = "id",
    /// Where a state leaf lies in the state tree.
    StatePath = "state-path",
    /// A leaf of the state tree.
    StateLeaf = "state-leaf",
    /// An inner node of the state tree.
    StateNode = "state-node",
    /// The digest of a tool spec.
    ToolSpec = "tool-spec",
    /// The digest of the limits and rules that a tool is confined by.
    Sandbox = "sandbox",
    /// The digest of an agent spec without its free text.
    AgentSpec = "agent-spec",
    /// The digest of an executable and its files.
    Program = "program",
    /// What the random bytes of a WASM guest grow from.
    GuestSeed = "guest-seed",
    /// Command ids of agents.
    CommandId = "command-id",
    /// How long a task that is tried again waits.
    Jitter = "jitter",
    /// The registry of kinds, schemas and field names.
    Registry = "registry",
    /// What a refused principal was refused for, in table 15 of the state.
    RefusalSeen = "refusal-seen",
    /// The trailer of a bundle: corruption check only, never evidence.
    Bundle = "bundle",
}

/// Hashes the concatenation of `parts` under `context`.
pub fn derive(context: Context, parts: &[&[u8]]) -> Digest {
    let mut hasher = hasher(context);
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// A hasher under `context` for input that does not lie in memory at once.
pub fn hasher(context: Context) -> Hasher {
    static KEYS: OnceLock<Vec<ContextKey>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| Context::ALL.iter().map(|(_, name)| hash_derive_key_context(name)).collect());
    Hasher::new_from_context_key(&keys[context as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_hashes_as_derive_key_of_its_string() {
        for (context, name) in Context::ALL {
            assert_eq!(derive(*context, &[b"ab", b"c"]).0, blake3::derive_key(name, b"abc"));
        }
    }
}
