//! How many keys there are in each block of the key space, at one revision. Immutable once it is
//! shared: a change copies the counts of the chunks that it touches and shares all else.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Change;
use crate::model::KeyRange;
use crate::storage::Error;

/// Keys of a new block: what a count may have to walk at either end of its range.
pub(super) const BLOCK_KEYS: usize = 512;
/// A block with more is cut into new ones.
const BLOCK_KEYS_MAX: u32 = 2 * BLOCK_KEYS as u32;
/// Blocks of a new chunk, and the most of any.
const CHUNK_BLOCKS: usize = 64;
const CHUNK_BLOCKS_MAX: usize = 2 * CHUNK_BLOCKS;

/// Neighbouring blocks. The first key of each block, and the number of its keys.
#[derive(Debug, Clone)]
struct Chunk {
    starts: Arc<Vec<Bytes>>,
    counts: Arc<Vec<u32>>,
    total: u64,
}

impl Chunk {
    fn of(blocks: Vec<(Bytes, u32)>) -> Self {
        let total = blocks.iter().map(|(_, count)| u64::from(*count)).sum();
        let (starts, counts) = blocks.into_iter().unzip();
        Self {
            starts: Arc::new(starts),
            counts: Arc::new(counts),
            total,
        }
    }

    fn blocks(&self) -> impl Iterator<Item = (Bytes, u32)> + '_ {
        self.starts.iter().cloned().zip(self.counts.iter().copied())
    }
}

/// See the module. The first block begins at the empty key, so that every key has a block.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    chunks: Vec<Chunk>,
}

/// Whole blocks inside a range: their keys, and where they begin and end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) keys: u64,
    pub(super) from: Bytes,
    /// None at the end of the key space.
    pub(super) to: Option<Bytes>,
}

/// Gives the keys of a range, in order.
pub(super) type ReadKeys<'r> = dyn FnMut(&KeyRange) -> Result<Vec<Bytes>, Error> + 'r;

impl Blocks {
    /// Of blocks in order, the first of which begins at the empty key.
    pub(super) fn of(blocks: Vec<(Bytes, u32)>) -> Self {
        let mut chunks = Vec::with_capacity(blocks.len() / CHUNK_BLOCKS + 1);
        let mut rest = blocks.into_iter().peekable();
        while rest.peek().is_some() {
            chunks.push(Chunk::of(rest.by_ref().take(CHUNK_BLOCKS).collect()));
        }
        Self { chunks }
    }

    /// The block that `key` belongs to: chunk and place in it.
    fn find(&self, key: &[u8]) -> (usize, usize) {
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.starts[0].as_ref() <= key);
        let chunk = chunk.saturating_sub(1);
        let starts = &self.chunks[chunk].starts;
        let block = starts.partition_point(|start| start.as_ref() <= key);
        (chunk, block.saturating_sub(1))
    }

    fn start(&self, (chunk, block): (usize, usize)) -> Option<&Bytes> {
        self.chunks.get(chunk)?.starts.get(block)
    }

    fn next(&self, (chunk, block): (usize, usize)) -> (usize, usize) {
        if block + 1 < self.chunks[chunk].starts.len() {
            (chunk, block + 1)
        } else {
            (chunk + 1, 0)
        }
    }

    /// The blocks that lie in `range` as a whole; none when no block does.
    pub(super) fn whole(&self, range: &KeyRange) -> Option<Whole> {
        let mut first = self.find(range.start());
        if self.start(first)? != range.start() {
            first = self.next(first);
        }
        let behind = match range {
            KeyRange::Between { end, .. } => self.find(end),
            KeyRange::From(_) | KeyRange::One(_) => (self.chunks.len(), 0),
        };
        if first >= behind {
            return None;
        }
        let mut keys = 0;
        for number in first.0..=behind.0.min(self.chunks.len() - 1) {
            let chunk = &self.chunks[number];
            let from = if number == first.0 { first.1 } else { 0 };
            let to = if number == behind.0 {
                behind.1
            } else {
                chunk.counts.len()
            };
            keys += if to - from == chunk.counts.len() {
                chunk.total
            } else {
                chunk.counts[from..to].iter().map(|n| u64::from(*n)).sum()
            };
        }
        Some(Whole {
            keys,
            from: self.start(first)?.clone(),
            to: self.start(behind).cloned(),
        })
    }

    /// Takes changes in, and cuts blocks that have become too large; `read_keys` reads the state
    /// with all of the changes.
    pub(super) fn apply(
        &mut self,
        changes: &[Change],
        read_keys: &mut ReadKeys<'_>,
    ) -> Result<(), Error> {
        let mut touched = BTreeSet::new();
        for change in changes {
            let (number, block) = self.find(&change.key);
            let chunk = &mut self.chunks[number];
            let count = &mut Arc::make_mut(&mut chunk.counts)[block];
            // What is deleted was there, so that neither falls below zero.
            if change.created {
                *count += 1;
                chunk.total += 1;
            } else {
                *count = count.saturating_sub(1);
                chunk.total = chunk.total.saturating_sub(1);
            }
            if *count > BLOCK_KEYS_MAX || *count == 0 {
                touched.insert(change.key.clone());
            }
        }
        for key in touched {
            self.mend(&key, read_keys)?;
        }
        Ok(())
    }

    /// Cuts the block of `key` when it is too large, and lets it go when it is empty.
    fn mend(&mut self, key: &[u8], read_keys: &mut ReadKeys<'_>) -> Result<(), Error> {
        let at = self.find(key);
        let (number, block) = at;
        let count = self.chunks[number].counts[block];
        let mut blocks: Vec<_> = self.chunks[number].blocks().collect();
        if count == 0 && at != (0, 0) {
            // The block before it takes its place.
            blocks.remove(block);
        } else if count > BLOCK_KEYS_MAX
            && let Some(start) = self.start(at).cloned()
        {
            let range = match self.start(self.next(at)).cloned() {
                Some(end) => KeyRange::Between {
                    start: start.clone(),
                    end,
                },
                None => KeyRange::From(start.clone()),
            };
            blocks.splice(block..=block, cut(start, &read_keys(&range)?));
        } else {
            return Ok(());
        }
        if blocks.is_empty() {
            self.chunks.remove(number);
        } else if blocks.len() > CHUNK_BLOCKS_MAX {
            let parts = Self::of(blocks).chunks;
            self.chunks.splice(number..=number, parts);
        } else {
            self.chunks[number] = Chunk::of(blocks);
        }
        Ok(())
    }
}

/// Blocks for `keys`, the first of which begins at `start`.
fn cut(start: Bytes, keys: &[Bytes]) -> Vec<(Bytes, u32)> {
    let mut blocks: Vec<_> = keys
        .chunks(BLOCK_KEYS)
        .map(|part| (part[0].clone(), part.len() as u32))
        .collect();
    match blocks.first_mut() {
        Some((first, _)) => *first = start,
        None => blocks.push((start, 0)),
    }
    blocks
}
