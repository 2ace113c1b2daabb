//! Asking all members at once.

use std::collections::BTreeMap;

use futures::future::join_all;
use quorate_client::Error;

use crate::members::{Door, Reach};
use crate::model::{AlarmKind, Listed, Voice};

/// What was heard, and the doors to those who answered.
#[derive(Debug, Default)]
pub struct Heard {
    /// What each member that answered says of itself.
    pub voices: BTreeMap<String, Voice>,
    /// The members as a linearizable list has them; None when no quorum answered.
    pub listed: Option<Listed>,
    /// Alarms that are raised.
    pub alarms: Vec<(u64, AlarmKind)>,
    /// The members that answered.
    pub doors: BTreeMap<String, Door>,
    /// Why the others did not, in words, by name.
    pub silent: BTreeMap<String, String>,
}

impl Heard {
    /// The name of the member that leads, as most of those who answered say.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        let mut counts = BTreeMap::<u64, usize>::new();
        for voice in self.voices.values().filter(|voice| voice.leader != 0) {
            *counts.entry(voice.leader).or_default() += 1;
        }
        let (leader, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let found = self.voices.iter().find(|(_, voice)| voice.id == leader)?;
        Some(found.0)
    }

    /// The door to ask for what concerns the cluster: the leader's, or any voter's.
    #[must_use]
    pub fn any_door(&self) -> Option<&Door> {
        let leader = self.leader().and_then(|leader| self.doors.get(leader));
        let voter = || {
            let voter = self.voices.iter().find(|(_, voice)| !voice.learner)?;
            self.doors.get(voter.0)
        };
        leader.or_else(voter)
    }
}

/// Asks every member for its voice, and then the cluster for its members and alarms.
pub async fn hear(reaches: Vec<Reach>) -> Heard {
    let mut heard = Heard::default();
    let asked = reaches.into_iter().map(ask);
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok((door, voice)) => {
                heard.doors.insert(name.clone(), door);
                heard.voices.insert(name, voice);
            }
            Err(error) => {
                heard.silent.insert(name, error.to_string());
            }
        }
    }
    if let Some(door) = heard.any_door() {
        let (listed, alarms) = tokio::join!(door.list(), door.alarms());
        heard.listed = listed.ok();
        heard.alarms = alarms.unwrap_or_default();
    }
    heard
}

async fn ask(reach: Reach) -> (String, Result<(Door, Voice), Error>) {
    let name = reach.name.clone();
    let door = match Door::open(reach) {
        Ok(door) => door,
        Err(error) => return (name, Err(error)),
    };
    let voice = door.voice().await;
    (name, voice.map(|voice| (door, voice)))
}
