//! What this machine can hold, found out by trying: the launcher's test of itself.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toka_kernel::body::v1::ProbeAsked;

use super::spawn::Launcher;

/// What a level holds here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The level that was tried: `strong` or `landlock`.
    pub level: String,
    /// Whether everything held.
    pub ok: bool,
    /// The layers in force, as bits.
    pub layers: u64,
    /// The Landlock ABI in force.
    pub landlock_abi: u16,
    /// Why the jail could not be made, if it could not.
    pub failed: Option<SelfTestFailed>,
    /// Each canary.
    pub steps: Vec<Step>,
}

/// The step at which the jail failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTestFailed {
    /// The step.
    pub stage: String,
    /// What the kernel said.
    pub errno: i32,
}

/// One canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was tried.
    pub name: String,
    /// Whether it was held off, or, for what is harmless, worked.
    pub ok: bool,
    /// What was found instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

impl Launcher {
    /// Tries `level`, which is `strong` or `landlock`.
    ///
    /// # Errors
    /// When the launcher cannot be started or does not answer with a report.
    pub fn self_test(&self, level: &str) -> io::Result<SelfTest> {
        let output = self.start_self_test(level)?.wait_with_output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            // Before there is a jail to report on, the report is an error alone.
            let report = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            if let Some(error) = report["error"].as_str() {
                return io::Error::other(format!("the launcher could not begin: {error}"));
            }
            let said = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("the launcher gave no report ({}): {}", output.status, said.trim()))
        })
    }
}

/// The release of the kernel that runs.
fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Which levels `launcher` can hold on this machine, each tried; nothing where the launcher cannot be read. Takes about a
/// second of processor time, since the limit of it is tried too.
pub(crate) fn probe(launcher: &Launcher) -> Option<ProbeAsked> {
    let jail = launcher.digest().ok()?;
    let mut asked = ProbeAsked { levels: 0, layers: 0, landlock_abi: 0, jail, kernel: kernel_release() };
    let tests = std::thread::scope(|scope| {
        let strong = scope.spawn(|| launcher.self_test("strong"));
        let landlock = launcher.self_test("landlock");
        [strong.join().ok().and_then(Result::ok), landlock.ok()]
    });
    for (bit, test) in tests.into_iter().enumerate() {
        let Some(test) = test else { continue };
        asked.landlock_abi = asked.landlock_abi.max(test.landlock_abi);
        if test.ok {
            asked.levels |= 1 << bit;
            asked.layers |= test.layers;
        }
    }
    Some(asked)
}
