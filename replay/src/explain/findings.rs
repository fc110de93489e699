//! Where each finding of the verifier comes from. What it means and what to do stands beside the codes themselves.

use crate::code::Code;

/// Where a finding comes from.
pub(super) fn cause(code: Code) -> &'static str {
    match code {
        Code::InputUnreadable => {
            "the path leads to no store and no bundle, the disk fails, or another version wrote it"
        }
        Code::BundleTruncated => "the copy or download was cut off",
        Code::BundleMalformed => "bytes of the container were changed, or another program made it",
        Code::BundleTrailer => "bytes were changed after the export, on purpose or by a bad copy",
        Code::ManifestMismatch => "sections were exchanged, dropped or added after the export",
        Code::FrameTruncated => "bytes of the entry or of one before it were removed, or a length was changed",
        Code::FrameSurplus => "bytes were added, or a length was changed",
        Code::UnknownVersion => "its first bytes were changed, or a later version wrote it",
        Code::ReservedBits => "bits of the header were changed, or a later version wrote it",
        Code::LimitExceeded => "a length was changed to make the reader work or wait",
        Code::StoreKeyMismatch => "rows of the store were edited with another program than a node",
        Code::BodyNonCanonical | Code::BodyUndecodable => {
            "the event key signed bytes that the node's own program would not write"
        }
        Code::TornTail => "the writer was killed while it wrote",
        Code::RangeIncomplete => "a part of the session was exported, not all of it",
        Code::FindingsCapped => "one change near the beginning makes everything after it a finding",
        Code::GenesisInvalid => "the first entry was changed or exchanged, or the session has another name here",
        Code::GenesisDuplicate | Code::SessionIdMismatch => "entries of two sessions were put into one",
        Code::SeqGap => "entries were removed",
        Code::SeqOrder => "entries were moved",
        Code::SeqDuplicate => "an entry was copied",
        Code::SeqConflict => "an entry was replaced, and the one it replaces is still there",
        Code::Equivocation => "the event key was used for two histories of one session",
        Code::LinkMismatch => "the entry before it was changed after this one was signed",
        Code::TimeRegression => "the writer passed over the rule that time does not go back",
        Code::CauseInvalid => "the writer passed over the rule that a cause is earlier",
        Code::RefMismatch => "the cited session was changed or cut after it was cited, or the citing one is forged",
        Code::BodyHashMismatch => "bytes of the body were changed after it was signed",
        Code::AfterClose => "the event key was used after the end of the session",
        Code::SigInvalid => "bytes of the header or the signature were changed, or another key signed",
        Code::SigNonCanonical => "the signature was rewritten so that its bytes differ and it still seems to hold",
        Code::SigMissing => "the signature was replaced by zeros",
        Code::SuiteDowngrade => "the suite was changed to make a weaker check pass",
        Code::SignaturesSampled => "it was asked for with --fast",
        Code::RootMismatch => "the wrong key was given, or all keys of the session are those of somebody else",
        Code::KeyGrantInvalid => "the record of a key grant was changed, or made without the root key",
        Code::KeyNotGranted => "the session was signed again with a foreign key, or its key grants were removed",
        Code::KeyOriginMismatch => "keys of two nodes were put into one session",
        Code::KeyWrongRole => "a key was stolen or misused for what another key is there for",
        Code::KeyEpochExpired => "an old event key was used after the next one was in force",
        Code::KeyEpochFuture => "a later event key was used before its time",
        Code::KeyOutOfWindow => "the key was used before or after its window, or times were changed",
        Code::KeyWeak => "somebody chose a key under which anything verifies",
        Code::KeyNonCanonical => "a key was rewritten so that one key has two names",
        Code::KeyAlgorithmUnknown => "a later version made the key, or its record was changed",
        Code::RootNotGiven => "no --root was given, and no keys/root.pub lies beside the input",
        Code::CommandUnsigned => "the kernel was passed over: it refuses this command without a signature",
        Code::CommandSigInvalid => "the signed bytes or the signature were made up",
        Code::CommandAudience => "a signature made for one session was copied into another",
        Code::CommandExpired => "an old signed command was kept and used later",
        Code::CommandReplayed => "a signed command was copied",
        Code::CommandMismatch => "a signature over one command was put to another",
        Code::TransitionIllegal => "the kernel was passed over, and what it would have refused was signed",
        Code::FactsMismatch => "the kernel was told other arguments than those that were kept",
        Code::KindUnknown | Code::SchemaUnknown | Code::RulesUnknown => "a later version wrote it",
        Code::StoppedAt => "the state after a fault is not known, so no later event can be decided",
        Code::StateDiverged => "the commitment was made up, or entries before it were exchanged and signed again",
        Code::BlobMismatch => "bytes of the content, its salt or its length were changed",
        Code::BlobMissingUnauthorised => "content was deleted past the node",
        Code::BlobOmitted => "the bundle was exported without it",
        Code::SessionUnregistered => {
            "the event key signed a beginning that the node never registered, or one with other root grants"
        }
        Code::TruncationNotExcluded => "the session has not ended, and nobody outside says how far it goes",
        Code::AnchorAbsent => "a level above L0 was asked for, and this version reaches none",
    }
}
