//! What a rung hands back, and what it leaves for those below it.

use crate::api::OperationKind;
use crate::model::{Action, Refusal};

/// What a rung decided.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) action: Option<Action>,
    pub(super) operation: Option<(OperationKind, String, Option<String>)>,
    pub(super) blocked_by: Option<String>,
}

impl Step {
    /// Do this.
    pub(super) fn act(kind: OperationKind, words: &str, member: &str, action: Action) -> Self {
        Self {
            action: Some(action),
            operation: Some((kind, words.to_owned(), named(member))),
            blocked_by: None,
        }
    }

    /// Wait for this.
    pub(super) fn wait(kind: OperationKind, words: &str, member: &str, for_what: String) -> Self {
        Self {
            action: None,
            operation: Some((kind, words.to_owned(), named(member))),
            blocked_by: Some(for_what),
        }
    }
}

fn named(member: &str) -> Option<String> {
    (!member.is_empty()).then(|| member.to_owned())
}

/// What rungs could not do. The first of each kind is the most urgent, and is shown.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) waiting: Option<Step>,
    pub(super) stalled: Option<Refusal>,
}

impl Notes {
    /// Something waits by itself.
    pub(super) fn wait(&mut self, step: Step) {
        self.waiting.get_or_insert(step);
    }

    /// Nothing goes on here until someone acts.
    pub(super) fn stall(&mut self, refusal: &Refusal) {
        self.stalled.get_or_insert_with(|| refusal.clone());
    }

    /// Nothing goes on here until someone acts, and this operation waits for it.
    pub(super) fn refuse(
        &mut self,
        kind: OperationKind,
        words: &str,
        member: &str,
        refusal: &Refusal,
    ) {
        self.wait(Step::wait(kind, words, member, refusal.message.clone()));
        self.stall(refusal);
    }
}

/// A refusal in the words given.
pub(super) fn refusal(reason: &str, message: String) -> Refusal {
    Refusal {
        reason: reason.to_owned(),
        message,
    }
}
