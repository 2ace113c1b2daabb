//! What the data directory is, as the node says, and whether it is this member's.

use std::path::Path;
use std::process::Stdio;

use quorate_sidecar::wire::exit;
use quorate_snapshot::InitialCluster;
use serde::Deserialize;
use tokio::process::Command;

use super::Stop;
use crate::config::{ClusterState, GateFlags};

/// What the data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Empty,
    Of(Owner),
}

/// Whose data they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub member: u64,
    pub cluster: u64,
    /// The cluster token of its first start, as the node writes it.
    token: Option<String>,
    /// A first start would import them.
    is_import: bool,
}

/// The node's answer: one line of JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    state: String,
    member_id: Option<String>,
    cluster_id: Option<String>,
    token: Option<String>,
    problem: Option<String>,
}

/// Asks the node's program what the directory is.
pub async fn probe(quorate: &Path, data_dir: &Path) -> Result<Data, Stop> {
    let failed = |what: &dyn std::fmt::Display| {
        Stop::usage(format!(
            "cannot look at the data directory with {}: {what}",
            quorate.display()
        ))
    };
    let asked = Command::new(quorate)
        .arg("probe")
        .arg(data_dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = asked.map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(&format_args!("{}: {said}", output.status)));
    }
    let report: Report = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
    data_of(report).ok_or_else(|| failed(&"it says what this version does not know"))?
}

fn data_of(report: Report) -> Option<Result<Data, Stop>> {
    let id = |id: Option<String>| u64::from_str_radix(&id?, 16).ok();
    let is_import = match report.state.as_str() {
        "empty" => return Some(Ok(Data::Empty)),
        "damaged" => {
            let line = report.problem.unwrap_or_default();
            return Some(Err(Stop::new(exit::DATA_CORRUPT, line)));
        }
        "inUse" => return Some(Err(Stop::usage(report.problem.unwrap_or_default()))),
        "member" => false,
        "import" => true,
        _ => return None,
    };
    Some(Ok(Data::Of(Owner {
        member: id(report.member_id)?,
        cluster: id(report.cluster_id)?,
        token: report.token,
        is_import,
    })))
}

impl Owner {
    /// Refuses data that are certainly not this member's, without asking anybody.
    pub fn check(&self, flags: &GateFlags, cluster: &InitialCluster) -> Result<(), Stop> {
        let token = &flags.initial_cluster_token;
        if let Some(kept) = &self.token
            && *kept != token.escape_default().to_string()
        {
            let text = format!("its first start had the cluster token {kept:?}, not {token:?}");
            return Err(self.foreign(flags, &text));
        }
        if flags.initial_cluster_state == ClusterState::Existing {
            return Ok(());
        }
        for (name, _) in cluster.iter().filter(|(name, _)| *name != flags.name) {
            if cluster.member_id(name).is_ok_and(|id| id == self.member) {
                return Err(self.foreign(flags, &format!("that is {name}")));
            }
        }
        let own = cluster.member_id(&flags.name).ok();
        if self.is_import && (own, cluster.id()) != (Some(self.member), self.cluster) {
            let text = "they were restored for other members";
            return Err(self.foreign(flags, text));
        }
        Ok(())
    }

    pub fn foreign(&self, flags: &GateFlags, why: &str) -> Stop {
        let line = format!(
            "data directory {} belongs to member {:016x} of cluster {:016x}, not to {}: {why}",
            flags.data_dir.display(),
            self.member,
            self.cluster,
            flags.name
        );
        Stop::new(exit::WRONG_IDENTITY, line)
    }
}
