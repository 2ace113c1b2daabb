//! The members as clients see them: who raft's membership names, with what they publish.

use super::{Applied, Machine};
use crate::model::kv::{MemberAttributes, Reply};
use crate::model::member::Member;
use crate::storage::{Batch, Error};

/// Stores what a member says of itself. One that is no member (any more) is passed over.
pub(super) fn set_attributes(
    batch: &mut Batch,
    request: &MemberAttributes,
) -> Result<Applied, Error> {
    let members = batch.reader().members()?;
    let member = members.into_iter().find(|it| it.id == request.member_id);
    if let Some(mut member) = member {
        member.name.clone_from(&request.name);
        member.client_urls.clone_from(&request.client_urls);
        batch.put_member(member);
    }
    Ok(Applied::done(Reply::Done))
}

impl Machine {
    /// Takes over raft's membership: ID, peer URLs and role of each member. A name and client
    /// URLs that a member has published stay unless `members` gives others. One that is no longer
    /// named was removed, and stays so.
    pub fn apply_members(&mut self, batch: &mut Batch, members: &[Member]) -> Result<(), Error> {
        let known = batch.reader().members()?;
        for old in &known {
            if !members.iter().any(|member| member.id == old.id) {
                batch.delete_member(old.id);
                batch.put_removed(old.id);
            }
        }
        for member in members {
            let mut member = member.clone();
            if let Some(old) = known.iter().find(|old| old.id == member.id) {
                if member.name.is_empty() {
                    member.name.clone_from(&old.name);
                }
                if member.client_urls.is_empty() {
                    member.client_urls.clone_from(&old.client_urls);
                }
                if member == *old {
                    continue;
                }
            }
            batch.put_member(member);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::Rig;
    use crate::model::kv::command;

    fn member(id: u64) -> Member {
        Member {
            id,
            name: String::new(),
            peer_urls: vec![format!("http://{id}")],
            client_urls: Vec::new(),
            is_learner: false,
        }
    }

    #[test]
    fn members_keep_their_names_and_leave_for_ever() {
        let mut rig = Rig::new();
        let apply = |rig: &mut Rig, members: &[Member]| {
            let mut batch = rig.db.batch();
            rig.machine.apply_members(&mut batch, members).unwrap();
            batch.finish_entry(crate::machine::Position::default());
            rig.db.commit(batch).unwrap();
        };
        apply(&mut rig, &[member(1), member(2)]);
        rig.apply(command::Kind::MemberAttributes(MemberAttributes {
            member_id: 1,
            name: "one".into(),
            client_urls: vec!["http://client".into()],
        }));
        let moved = Member {
            peer_urls: vec!["http://moved".into()],
            ..member(1)
        };
        apply(&mut rig, &[moved]);
        let view = rig.view();
        let members = view.members().unwrap();
        assert_eq!(members.len(), 1);
        assert_eq!((members[0].name.as_str(), members[0].id), ("one", 1));
        assert_eq!(members[0].peer_urls, ["http://moved"]);
        assert!(view.is_removed(2).unwrap() && !view.is_removed(1).unwrap());
        // What a removed member still had to say of itself is passed over.
        rig.apply(command::Kind::MemberAttributes(MemberAttributes {
            member_id: 2,
            name: "two".into(),
            client_urls: Vec::new(),
        }));
        assert_eq!(rig.view().members().unwrap().len(), 1);
    }
}
