//! Finding codes: their names, the axis they speak about, how bad they are, what they mean and what to do.

use std::fmt;

use toka_kernel::chain;

/// One of the questions a verification answers. All are always answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Every byte belongs to an entry, a blob or the container.
    Frame,
    /// Entries follow each other.
    Chain,
    /// Entries are signed.
    Signatures,
    /// The signing keys lead to the pinned root key.
    Keys,
    /// Commands that must be signed are.
    Commands,
    /// Every event is what the rules give.
    Legality,
    /// Every commitment to the state is right.
    State,
    /// Every blob opens its commitment.
    Blobs,
    /// Nothing is missing at the end.
    Tail,
    /// Somebody else has seen the head.
    Anchor,
    /// It was seen lately.
    Freshness,
}

impl Axis {
    /// Every axis, in the order of reports.
    pub const ALL: [Axis; 11] = [
        Axis::Frame,
        Axis::Chain,
        Axis::Signatures,
        Axis::Keys,
        Axis::Commands,
        Axis::Legality,
        Axis::State,
        Axis::Blobs,
        Axis::Tail,
        Axis::Anchor,
        Axis::Freshness,
    ];

    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Frame => "frame",
            Axis::Chain => "chain",
            Axis::Signatures => "signatures",
            Axis::Keys => "keys",
            Axis::Commands => "commands",
            Axis::Legality => "legality",
            Axis::State => "state",
            Axis::Blobs => "blobs",
            Axis::Tail => "tail",
            Axis::Anchor => "anchor",
            Axis::Freshness => "freshness",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a finding does to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Tampered with, or against the rules: exit 3.
    Fail,
    /// Cannot be read: exit 8.
    Unreadable,
    /// Could not be checked: exit 4 if it was required.
    NotChecked,
    /// Worth knowing, without effect.
    Warning,
}

impl Class {
    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Class::Fail => "FAIL",
            Class::Unreadable => "UNREADABLE",
            Class::NotChecked => "NOT_CHECKED",
            Class::Warning => "WARNING",
        }
    }
}

macro_rules! codes {
    ($($variant:ident $name:literal $axis:ident $class:ident $meaning:literal, $next:literal;)*) => {
        /// What a verification found. Names never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $meaning] $variant),* }

        impl Code {
            /// Every code this version can find.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The name that reports use.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }

            /// The axis it speaks about.
            pub fn axis(self) -> Axis {
                match self { $(Code::$variant => Axis::$axis),* }
            }

            /// What it does to the verdict. `LIMIT_EXCEEDED` in a container is unreadable instead.
            pub fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class),* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning),* }
            }

            /// What to do about it.
            pub fn next_step(self) -> &'static str {
                match self { $(Code::$variant => $next),* }
            }
        }
    };
}

codes! {
    InputUnreadable "INPUT_UNREADABLE" Frame Unreadable "the input cannot be read here", "check the path and the disk, or try another copy";
    BundleTruncated "BUNDLE_TRUNCATED" Frame Unreadable "the file ends early", "fetch the bundle again";
    BundleMalformed "BUNDLE_MALFORMED" Frame Unreadable "the bundle is not built as a bundle is", "fetch the bundle again, or export it again";
    BundleTrailer "BUNDLE_TRAILER" Frame Unreadable "the bytes of the bundle are not those that were exported", "fetch the bundle again";
    ManifestMismatch "MANIFEST_MISMATCH" Frame Fail "the bundle claims to hold something else than it holds", "ask who made the bundle, and export it again";
    FrameTruncated "FRAME_TRUNCATED" Frame Fail "an entry is cut short", "keep this copy as evidence and compare it with another one";
    FrameSurplus "FRAME_SURPLUS" Frame Fail "bytes follow an entry that do not belong to it", "keep this copy as evidence and compare it with another one";
    UnknownVersion "UNKNOWN_VERSION" Frame Fail "an entry does not begin as entries do", "keep this copy as evidence and compare it with another one";
    ReservedBits "RESERVED_BITS" Frame Fail "bits are set that must be zero", "keep this copy as evidence and compare it with another one";
    LimitExceeded "LIMIT_EXCEEDED" Frame Fail "a length or number is above what any writer writes", "keep this copy as evidence; no writer of Toka made this";
    StoreKeyMismatch "STORE_KEY_MISMATCH" Frame Fail "the store keeps an entry or a head under a key or value that contradicts the entries", "somebody edited the store; compare it with a backup";
    BodyNonCanonical "BODY_NON_CANONICAL" Frame Fail "a body is not written as a writer writes it", "whoever held the event key made this entry with another program";
    BodyUndecodable "BODY_UNDECODABLE" Frame Fail "a body is no body of its kind", "whoever held the event key made this entry with another program";
    TornTail "TORN_TAIL" Frame NotChecked "the last entry was not written to its end", "everything before it stands; the node drops it when it next opens the store";
    RangeIncomplete "RANGE_INCOMPLETE" Frame NotChecked "only a part of the session is here", "ask for the whole session";
    FindingsCapped "FINDINGS_CAPPED" Frame Warning "there are more findings than are listed", "begin with the first ones; most others follow from them";

    GenesisInvalid "GENESIS_INVALID" Chain Fail "the first entry is not the genesis of this session", "keep this copy as evidence and compare it with another one";
    GenesisDuplicate "GENESIS_DUPLICATE" Chain Fail "a session begins once, this one begins again", "keep this copy as evidence; two sessions were put together";
    SessionIdMismatch "SESSION_ID_MISMATCH" Chain Fail "an entry of another session stands here", "keep this copy as evidence; two sessions were put together";
    SeqGap "SEQ_GAP" Chain Fail "entries are missing", "keep this copy as evidence and look for the missing entries in another one";
    SeqOrder "SEQ_ORDER" Chain Fail "entries stand in another order than they were written", "keep this copy as evidence and compare it with another one";
    SeqDuplicate "SEQ_DUPLICATE" Chain Fail "an entry stands here twice", "keep this copy as evidence and compare it with another one";
    SeqConflict "SEQ_CONFLICT" Chain Fail "two different entries claim one place", "keep both; one of them was never in the log";
    Equivocation "EQUIVOCATION" Chain Fail "the event key signed two different entries for one place", "the holder of the event key told two stories; this is proof of it";
    LinkMismatch "LINK_MISMATCH" Chain Fail "an entry does not follow the one before it", "an entry was changed, exchanged or spliced in; compare with another copy";
    TimeRegression "TIME_REGRESSION" Chain Fail "time goes back", "whoever held the event key wrote this against the rules";
    CauseInvalid "CAUSE_INVALID" Chain Fail "an entry names a cause that is not earlier", "whoever held the event key wrote this against the rules";
    RefMismatch "REF_MISMATCH" Chain Fail "an entry cites one of another session that is not what stands there", "one of the two sessions was changed; compare both with other copies";
    BodyHashMismatch "BODY_HASH_MISMATCH" Chain Fail "the body is not the one that was signed", "the content of this entry was changed; compare with another copy";
    AfterClose "AFTER_CLOSE" Chain Fail "an entry follows the end of the session", "whoever held the event key added to a closed session";

    SigInvalid "SIG_INVALID" Signatures Fail "the signature does not fit the entry", "the entry was changed or not signed by this key; compare with another copy";
    SigNonCanonical "SIG_NON_CANONICAL" Signatures Fail "the signature is written in a second form", "somebody altered the signature without the key";
    SigMissing "SIG_MISSING" Signatures Fail "there is no signature", "somebody removed the signature; compare with another copy";
    SuiteDowngrade "SUITE_DOWNGRADE" Signatures Fail "the entry claims other algorithms than the session uses", "keep this copy as evidence and compare it with another one";
    SignaturesSampled "SIGNATURES_SAMPLED" Signatures NotChecked "only the last signature was checked", "run it again without --fast";

    RootMismatch "ROOT_MISMATCH" Keys Fail "the keys of this session lead to another root key than the one given", "check that --root is the root key of this node; if it is, the session is not from this node";
    KeyGrantInvalid "KEY_GRANT_INVALID" Keys Fail "a key was not granted by the root key", "do not trust this session; ask the node's operator";
    KeyNotGranted "KEY_NOT_GRANTED" Keys Fail "a key signs here that nobody granted", "do not trust these entries; somebody else wrote or re-signed them";
    KeyOriginMismatch "KEY_ORIGIN_MISMATCH" Keys Fail "a key was granted to another node", "do not trust this session; ask the node's operator";
    KeyWrongRole "KEY_WRONG_ROLE" Keys Fail "a key is used for what it was not granted for", "do not trust these entries; ask the node's operator";
    KeyEpochExpired "KEY_EPOCH_EXPIRED" Keys Fail "a key signs that is no longer in force", "do not trust these entries; ask the node's operator";
    KeyEpochFuture "KEY_EPOCH_FUTURE" Keys Fail "a key signs that is not yet in force", "do not trust these entries; ask the node's operator";
    KeyOutOfWindow "KEY_OUT_OF_WINDOW" Keys Fail "a key signs outside the time it was granted for", "do not trust these entries; ask the node's operator";
    KeyWeak "KEY_WEAK" Keys Fail "a key under which signatures can be forged", "do not trust this session";
    KeyNonCanonical "KEY_NON_CANONICAL" Keys Fail "a key written in a second form", "do not trust this session";
    KeyAlgorithmUnknown "KEY_ALGORITHM_UNKNOWN" Keys Fail "a key of an algorithm this version does not know", "use a newer version";
    RootNotGiven "ROOT_NOT_GIVEN" Keys NotChecked "without the root key nobody knows who wrote this", "give the node's root key: --root FILE, or --root VKEY";

    CommandUnsigned "COMMAND_UNSIGNED" Commands Fail "a command was accepted that must be signed and is not", "whoever held the event key wrote this past the kernel";
    CommandSigInvalid "COMMAND_SIG_INVALID" Commands Fail "a command was accepted whose signature does not hold", "nobody asked for this; whoever held the event key wrote it";
    CommandAudience "COMMAND_AUDIENCE" Commands Fail "a command was accepted that was signed for another session", "a signed command was moved here; whoever held the event key did it";
    CommandExpired "COMMAND_EXPIRED" Commands Fail "a command was accepted whose signature was no longer valid", "whoever held the event key used it too late";
    CommandReplayed "COMMAND_REPLAYED" Commands Fail "a signed command was accepted twice", "whoever held the event key used it again; `first_seq` says where it was used first";
    CommandMismatch "COMMAND_MISMATCH" Commands Fail "the event does not answer the command that was signed", "nobody asked for this; whoever held the event key wrote it";

    TransitionIllegal "TRANSITION_ILLEGAL" Legality Fail "the entry is correctly signed, and the rules do not allow it", "whoever held the event key wrote this past the kernel";
    FactsMismatch "FACTS_MISMATCH" Legality Fail "what was decided about is not what the blob says", "whoever held the event key wrote this past the kernel";
    KindUnknown "KIND_UNKNOWN" Legality NotChecked "an event of a kind this version does not know", "use a newer version; the chain itself is checked";
    SchemaUnknown "SCHEMA_UNKNOWN" Legality NotChecked "an event in a form this version does not know", "use a newer version; the chain itself is checked";
    RulesUnknown "RULES_UNKNOWN" Legality NotChecked "the session is decided by rules this version does not know", "use a newer version; the chain itself is checked";
    StoppedAt "STOPPED_AT" Legality NotChecked "from here on nothing could be decided again", "settle the finding it follows from first";
    StateDiverged "STATE_DIVERGED" State Fail "the commitment to the state is not the state the entries lead to", "whoever held the event key wrote this past the kernel";

    BlobMismatch "BLOB_MISMATCH" Blobs Fail "a blob is not the one the entry refers to", "the content was changed; compare with another copy";
    BlobMissingUnauthorised "BLOB_MISSING_UNAUTHORISED" Blobs Fail "a blob is gone, and no entry says that it may be", "look for the blob in another copy";
    BlobOmitted "BLOB_OMITTED" Blobs NotChecked "a blob was left out of the bundle on purpose", "ask for a bundle with all blobs";

    SessionUnregistered "SESSION_UNREGISTERED" Tail Fail "the system session beside it has not registered this session as it begins", "whoever held the event key opened it and no operator did; do not trust it";
    TruncationNotExcluded "TRUNCATION_NOT_EXCLUDED" Tail NotChecked "the session is open, so its end may have been cut off", "compare the head with one you know from elsewhere";
    AnchorAbsent "ANCHOR_ABSENT" Anchor NotChecked "nobody outside has seen this head", "anchors come with a later version";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! of_chain {
    ($($variant:ident)*) => {
        impl From<chain::Code> for Code {
            fn from(code: chain::Code) -> Code {
                match code { $(chain::Code::$variant => Code::$variant),* }
            }
        }
    };
}

of_chain! {
    UnknownVersion SuiteDowngrade ReservedBits LimitExceeded GenesisInvalid GenesisDuplicate SessionIdMismatch SeqGap
    SeqOrder KeyNotGranted KeyWrongRole KeyEpochExpired KeyEpochFuture KeyOutOfWindow RootMismatch KeyGrantInvalid
    KeyOriginMismatch KeyWeak KeyNonCanonical KeyAlgorithmUnknown SigInvalid SigNonCanonical SigMissing LinkMismatch
    TimeRegression CauseInvalid BodyHashMismatch BodyNonCanonical BodyUndecodable AfterClose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_the_kernel_keeps_its_name() {
        for code in chain::Code::ALL {
            assert_eq!(Code::from(*code).name(), code.name());
        }
    }

    #[test]
    fn no_two_codes_have_one_name() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
