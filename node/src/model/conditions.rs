//! What holds for the whole cluster beside its keys: the alarms, and a downgrade under way.

use super::kv::{AlarmMember, AlarmType};

/// Alarms and downgrade, equal on all members that have applied the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// By type, then by member; each once.
    alarms: Vec<AlarmMember>,
    /// The version (`3.6.0`) that the cluster may be downgraded to; none when it may not.
    pub downgrade_target: Option<String>,
}

impl Conditions {
    /// The conditions with these alarms, in whatever order.
    pub fn new(mut alarms: Vec<AlarmMember>, downgrade_target: Option<String>) -> Self {
        alarms.sort_unstable_by_key(place);
        alarms.dedup();
        Self {
            alarms,
            downgrade_target,
        }
    }

    /// All alarms, by type and then by member.
    pub fn alarms(&self) -> &[AlarmMember] {
        &self.alarms
    }

    /// The alarms of one type, or all for the type NONE; a type that etcd does not know has none.
    pub fn alarms_of(&self, kind: i32) -> Vec<AlarmMember> {
        let wanted = |alarm: &&AlarmMember| kind == AlarmType::None as i32 || alarm.alarm == kind;
        self.alarms.iter().filter(wanted).copied().collect()
    }

    /// Whether any member has raised an alarm of this type.
    pub fn has(&self, kind: AlarmType) -> bool {
        self.alarms.iter().any(|alarm| alarm.alarm == kind as i32)
    }

    /// Whether `member` itself has raised an alarm of this type.
    pub fn has_of(&self, member: u64, kind: AlarmType) -> bool {
        let wanted = (kind as i32, member);
        self.alarms.iter().any(|alarm| place(alarm) == wanted)
    }

    /// Raises an alarm; false when it is raised already.
    pub(crate) fn activate(&mut self, alarm: AlarmMember) -> bool {
        let found = self.alarms.binary_search_by_key(&place(&alarm), place);
        let Err(index) = found else {
            return false;
        };
        self.alarms.insert(index, alarm);
        true
    }

    /// Takes an alarm back; false when it is not raised.
    pub(crate) fn deactivate(&mut self, alarm: &AlarmMember) -> bool {
        let found = self.alarms.binary_search_by_key(&place(alarm), place);
        let Ok(index) = found else {
            return false;
        };
        self.alarms.remove(index);
        true
    }
}

fn place(alarm: &AlarmMember) -> (i32, u64) {
    (alarm.alarm, alarm.member_id)
}
