//! The first pass: where every page will lie, so that the file can be written from front to back.
//!
//! ```text
//! meta 0 · meta 1 · bucket · bucket · … · directory of the buckets
//!                   └ leaf leaf … branch leaf leaf … branch branch
//! ```
//! A branch lies right behind its last child, so that a bucket's root is its last page and the
//! file's root is the file's last page; both are known once the leaves are counted. Branches have
//! the same number of children, or one less than others, so never only one: bbolt cannot merge
//! that.

use super::format::{ELEMENT_BYTES, PAGE_BYTES, PAGE_HEADER_BYTES};
use super::{Entries, Error};

/// A leaf takes entries up to this size, on pages that follow one another; a single entry may be
/// larger. With one page a leaf, records of some KB would leave a third of the file empty.
const LEAF_BYTES_MAX: usize = 4 * PAGE_BYTES;
const CHILDREN_MIN: usize = 4;
/// Pages before the first bucket.
pub const META_PAGES: u64 = 2;

/// Bytes and entries of the leaf that is being filled.
#[derive(Debug, Clone, Copy)]
pub struct LeafFill {
    pub bytes: usize,
    pub count: usize,
}

impl LeafFill {
    pub fn empty() -> Self {
        Self {
            bytes: PAGE_HEADER_BYTES,
            count: 0,
        }
    }

    /// Whether an entry still belongs into this leaf.
    pub fn takes(&self, key: &[u8], value: &[u8]) -> bool {
        self.count == 0 || self.bytes + entry_bytes(key, value) <= LEAF_BYTES_MAX
    }

    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += entry_bytes(key, value);
        self.count += 1;
    }
}

fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    ELEMENT_BYTES + key.len() + value.len()
}

/// How many pages hold `bytes`.
pub fn pages(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE_BYTES) as u64
}

/// The shape of one bucket's tree.
#[derive(Debug, Clone)]
pub struct BucketPlan {
    pub name: Vec<u8>,
    /// How many leaves there are, at least one.
    pub leaves: u64,
    leaf_pages: u64,
    key_bytes_max: usize,
}

impl BucketPlan {
    fn new(name: &[u8]) -> Self {
        Self {
            name: name.to_vec(),
            leaves: 0,
            leaf_pages: 0,
            key_bytes_max: 0,
        }
    }

    fn close_leaf(&mut self, fill: LeafFill) {
        self.leaves += 1;
        self.leaf_pages += pages(fill.bytes);
    }

    fn children_max(&self) -> usize {
        let element = ELEMENT_BYTES + self.key_bytes_max;
        ((PAGE_BYTES - PAGE_HEADER_BYTES) / element).max(CHILDREN_MIN)
    }

    /// Pages that each branch takes.
    pub fn branch_pages(&self) -> u64 {
        let element = ELEMENT_BYTES + self.key_bytes_max;
        pages(PAGE_HEADER_BYTES + self.children_max() * element)
    }

    /// How many branches each level has, from the one above the leaves up to the root.
    pub fn levels(&self) -> Vec<u64> {
        let mut levels = Vec::new();
        let mut below = self.leaves;
        while below > 1 {
            below = below.div_ceil(self.children_max() as u64);
            levels.push(below);
        }
        levels
    }

    /// All pages of the bucket.
    pub fn pages(&self) -> u64 {
        self.leaf_pages + self.levels().iter().sum::<u64>() * self.branch_pages()
    }
}

/// How a file with certain entries is laid out.
#[derive(Debug, Clone)]
pub struct Plan {
    buckets: Vec<BucketPlan>,
    fill: LeafFill,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// A plan of a file without buckets; give it all entries that the file shall hold.
    pub fn new() -> Self {
        Self {
            buckets: Vec::new(),
            fill: LeafFill::empty(),
        }
    }

    fn close_leaf(&mut self) {
        let fill = std::mem::replace(&mut self.fill, LeafFill::empty());
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.close_leaf(fill);
        }
    }

    /// The size of the file in bytes, without the trailing hash.
    pub fn total_bytes(&self) -> u64 {
        self.clone().finish().1
    }

    /// The buckets, and the size of the file in bytes without the trailing hash.
    pub(crate) fn finish(mut self) -> (Vec<BucketPlan>, u64) {
        self.close_leaf();
        let buckets: u64 = self.buckets.iter().map(BucketPlan::pages).sum();
        let directory: usize = self
            .buckets
            .iter()
            .map(|bucket| entry_bytes(&bucket.name, &[0; 16]))
            .sum();
        let total = META_PAGES + buckets + pages(PAGE_HEADER_BYTES + directory);
        (self.buckets, total * PAGE_BYTES as u64)
    }
}

impl Entries for Plan {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.close_leaf();
        self.buckets.push(BucketPlan::new(name));
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if !self.fill.takes(key, value) {
            self.close_leaf();
        }
        self.fill.add(key, value);
        let bucket = self.buckets.last_mut();
        let bucket = bucket.ok_or_else(|| Error::Order("come before the first bucket".into()))?;
        bucket.key_bytes_max = bucket.key_bytes_max.max(key.len());
        Ok(())
    }
}
