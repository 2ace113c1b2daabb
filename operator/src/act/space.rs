//! Making space in a store whose quota is exceeded.

use super::{ActError, Hands};
use crate::model::AlarmKind;

impl Hands<'_> {
    /// Compacts history, gives the space back on followers and then on the leader, and disarms.
    pub(super) async fn free_space(&self) -> Result<(), ActError> {
        self.any_door()?.compact().await?;
        let leader = self.heard.leader();
        let followers = self
            .heard
            .doors
            .iter()
            .filter(|(name, _)| Some(name.as_str()) != leader);
        let last = leader.and_then(|leader| self.heard.doors.get(leader));
        for door in followers.map(|(_, door)| door).chain(last) {
            door.defragment().await?;
        }
        for (member, kind) in &self.heard.alarms {
            if *kind == AlarmKind::NoSpace {
                self.any_door()?.disarm_no_space(*member).await?;
            }
        }
        Ok(())
    }
}
