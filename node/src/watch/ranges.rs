//! Which watched ranges hold a key: exact keys in a map, ranges in an interval tree.
//!
//! The tree is a treap ordered by (start, end) in which every node knows the furthest end below
//! it, so that asking for a key costs O(log n) plus what is found.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::model::KeyRange;

/// Holders of ranges; `T` names a holder. A holder may hold many ranges, each once.
pub(super) struct RangeIndex<T> {
    keys: HashMap<Bytes, BTreeSet<T>>,
    tree: Link<T>,
    /// Balances the tree; seeded at random, so that no client can order its ranges to unbalance it.
    priority: u64,
}

type Link<T> = Option<Box<Node<T>>>;

struct Node<T> {
    start: Bytes,
    end: End,
    /// The furthest end of this node and all below it.
    reach: End,
    priority: u64,
    holders: BTreeSet<T>,
    left: Link<T>,
    right: Link<T>,
}

/// Where a range ends. `Open` orders behind every key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(Bytes),
    Open,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::At(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}

impl<T: Ord + Copy> RangeIndex<T> {
    pub(super) fn new() -> Self {
        Self {
            keys: HashMap::new(),
            tree: None,
            priority: rand::random::<u64>() | 1,
        }
    }

    /// Adds a holder. Returns whether nobody held this range before.
    pub(super) fn insert(&mut self, range: &KeyRange, holder: T) -> bool {
        let (start, end) = match range {
            KeyRange::One(key) => {
                let holders = self.keys.entry(key.clone()).or_default();
                return holders.insert(holder) && holders.len() == 1;
            }
            KeyRange::Between { start, end } => (start.clone(), End::At(end.clone())),
            KeyRange::From(start) => (start.clone(), End::Open),
        };
        let node = Node {
            start,
            reach: end.clone(),
            end,
            priority: self.next_priority(),
            holders: BTreeSet::from([holder]),
            left: None,
            right: None,
        };
        insert(&mut self.tree, Box::new(node), holder)
    }

    /// Takes a holder out. Returns whether nobody holds this range any longer.
    pub(super) fn remove(&mut self, range: &KeyRange, holder: T) -> bool {
        let (start, end) = match range {
            KeyRange::One(key) => {
                let Some(holders) = self.keys.get_mut(key) else {
                    return false;
                };
                let gone = holders.remove(&holder) && holders.is_empty();
                if gone {
                    self.keys.remove(key);
                }
                return gone;
            }
            KeyRange::Between { start, end } => (start, End::At(end.clone())),
            KeyRange::From(start) => (start, End::Open),
        };
        remove(&mut self.tree, start, &end, holder)
    }

    /// Calls `found` for every holder of a range that holds `key`; a holder of several such ranges
    /// is named once for each.
    pub(super) fn stab(&self, key: &[u8], mut found: impl FnMut(T)) {
        if let Some(holders) = self.keys.get(key) {
            holders.iter().for_each(|&holder| found(holder));
        }
        stab(&self.tree, key, &mut found);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tree.is_none()
    }

    /// xorshift64: any spread will do.
    fn next_priority(&mut self) -> u64 {
        self.priority ^= self.priority << 13;
        self.priority ^= self.priority >> 7;
        self.priority ^= self.priority << 17;
        self.priority
    }
}

impl<T> Node<T> {
    fn order(&self, start: &Bytes, end: &End) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn update_reach(&mut self) {
        let below = [&self.left, &self.right];
        let furthest = below.into_iter().flatten().map(|node| &node.reach).max();
        self.reach = match furthest {
            Some(reach) if *reach > self.end => reach.clone(),
            _ => self.end.clone(),
        };
    }
}

fn insert<T: Ord>(link: &mut Link<T>, new: Box<Node<T>>, holder: T) -> bool {
    let Some(node) = link else {
        *link = Some(new);
        return true;
    };
    let fresh = match node.order(&new.start, &new.end) {
        Ordering::Equal => {
            node.holders.insert(holder);
            return false;
        }
        Ordering::Less => insert(&mut node.left, new, holder),
        Ordering::Greater => insert(&mut node.right, new, holder),
    };
    let priority = node.priority;
    let above = |link: &Link<T>| link.as_ref().is_some_and(|node| node.priority > priority);
    if above(&node.left) {
        rotate(link, |node| &mut node.left, |node| &mut node.right);
    } else if above(&node.right) {
        rotate(link, |node| &mut node.right, |node| &mut node.left);
    } else {
        node.update_reach();
    }
    fresh
}

/// Lifts the child on side `near` above its parent.
fn rotate<T>(
    link: &mut Link<T>,
    near: fn(&mut Node<T>) -> &mut Link<T>,
    far: fn(&mut Node<T>) -> &mut Link<T>,
) {
    let Some(mut parent) = link.take() else {
        return;
    };
    if let Some(mut child) = near(&mut parent).take() {
        *near(&mut parent) = far(&mut child).take();
        parent.update_reach();
        *far(&mut child) = Some(parent);
        child.update_reach();
        *link = Some(child);
    } else {
        *link = Some(parent);
    }
}

fn remove<T: Ord>(link: &mut Link<T>, start: &Bytes, end: &End, holder: T) -> bool {
    let Some(node) = link else {
        return false;
    };
    let gone = match node.order(start, end) {
        Ordering::Less => remove(&mut node.left, start, end, holder),
        Ordering::Greater => remove(&mut node.right, start, end, holder),
        Ordering::Equal => {
            let gone = node.holders.remove(&holder) && node.holders.is_empty();
            if gone {
                let (left, right) = (node.left.take(), node.right.take());
                *link = join(left, right);
            }
            return gone;
        }
    };
    if gone {
        node.update_reach();
    }
    gone
}

/// Joins two trees, of which all of `left` orders before all of `right`.
fn join<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, only) | (only, None) => only,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = join(left.right.take(), Some(right));
                left.update_reach();
                Some(left)
            } else {
                right.left = join(Some(left), right.left.take());
                right.update_reach();
                Some(right)
            }
        }
    }
}

fn stab<T: Copy>(link: &Link<T>, key: &[u8], found: &mut impl FnMut(T)) {
    let Some(node) = link else {
        return;
    };
    if !node.reach.is_behind(key) {
        return;
    }
    stab(&node.left, key, found);
    if node.start.as_ref() <= key {
        if node.end.is_behind(key) {
            node.holders.iter().for_each(|&holder| found(holder));
        }
        stab(&node.right, key, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        let key = || prop::collection::vec(0u8..4, 0..3);
        (key(), key(), 0..4).prop_map(|(start, end, form)| match form {
            0 => KeyRange::One(start.into()),
            1 => KeyRange::From(start.into()),
            _ => KeyRange::Between {
                start: start.into(),
                end: end.into(),
            },
        })
    }

    proptest! {
        /// Against a plain list of (range, holder), after every step.
        #[test]
        fn finds_what_a_plain_list_finds(
            steps in prop::collection::vec((range(), 0usize..3, any::<bool>()), 1..60),
            keys in prop::collection::vec(prop::collection::vec(0u8..5, 0..3), 8),
        ) {
            let mut index = RangeIndex::new();
            let mut list: Vec<(KeyRange, usize)> = Vec::new();
            for (range, holder, add) in steps {
                let entry = (range.clone(), holder);
                if add {
                    let fresh = !list.iter().any(|(held, _)| *held == range);
                    if !list.contains(&entry) {
                        list.push(entry);
                    }
                    prop_assert_eq!(index.insert(&range, holder), fresh);
                } else {
                    let held = list.contains(&entry);
                    list.retain(|other| *other != entry);
                    let gone = held && !list.iter().any(|(held, _)| *held == range);
                    prop_assert_eq!(index.remove(&range, holder), gone);
                }
                for key in &keys {
                    let mut found = Vec::new();
                    index.stab(key, |holder| found.push(holder));
                    let mut expected: Vec<usize> = list
                        .iter()
                        .filter(|(range, _)| range.contains(key))
                        .map(|&(_, holder)| holder)
                        .collect();
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
