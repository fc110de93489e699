//! What a node's machine can confine, as it was found out last.

use toka_kernel::Body;
use toka_kernel::body::v1::SandboxProbed;
use toka_kernel::ids::Digest;

/// The last probe that the system session records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Levels that hold: bit 0 strong, bit 1 landlock.
    pub levels: u8,
    /// The digest of the launcher that was tried.
    pub jail: Digest,
    /// The release of the kernel it was tried on.
    pub kernel: String,
}

impl Probed {
    pub(crate) fn from(body: &Body) -> Option<Probed> {
        let Body::SandboxProbed(SandboxProbed { levels, jail, kernel, .. }) = body else { return None };
        Some(Probed { levels: *levels, jail: *jail, kernel: kernel.clone() })
    }
}
