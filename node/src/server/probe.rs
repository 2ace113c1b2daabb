//! `quorate probe DATA-DIR`: what a data directory is, as one line of JSON, for those who start
//! members. It only reads, and always exits with 0: the answer is in the line.
//!
//! ```text
//! {"state":"empty"}                                       a first start is possible
//! {"state":"member","memberId":"…","clusterId":"…","token":"…"}
//! {"state":"import","memberId":"…","clusterId":"…"}       a first start imports it
//! {"state":"inUse","problem":"…"}                         a process has it
//! {"state":"damaged","problem":"…"}                       no start can read it
//! ```

use std::path::Path;

use serde_json::{Value, json};

use crate::raft::identity::StartError;
use crate::raft::probe::{Probed, probe};

/// What stands before the directory on the command line.
pub const COMMAND: &str = "probe";

/// The line for the data directory `path`.
pub fn report(path: &Path) -> String {
    let id = |id: u64| format!("{id:016x}");
    let line: Value = match probe(path) {
        Ok(Probed::Empty) => json!({"state": "empty"}),
        Ok(Probed::Member(owner)) => json!({
            "state": "member",
            "memberId": id(owner.member),
            "clusterId": id(owner.cluster),
            "token": owner.token(),
        }),
        Ok(Probed::Import { member, cluster }) => json!({
            "state": "import",
            "memberId": id(member),
            "clusterId": id(cluster),
        }),
        Err(error @ StartError::InUse { .. }) => {
            json!({"state": "inUse", "problem": error.to_string()})
        }
        Err(error) => json!({"state": "damaged", "problem": error.to_string()}),
    };
    format!("{line}\n")
}
