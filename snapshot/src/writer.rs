//! The second pass: writes the pages in order, from the first to the last.

use std::io::Write;

use sha2::{Digest as _, Sha256};

use super::format::{
    BUCKET_HEADER_BYTES, ELEMENT_BUCKET, ELEMENT_BYTES, FLAG_BRANCH, FLAG_LEAF, Meta, NO_FREELIST,
    PAGE_BYTES, PAGE_HEADER_BYTES, PageHeader,
};
use super::plan::{BucketPlan, LeafFill, META_PAGES, Plan, pages};
use super::{Entries, Error};

/// An even number, so that bbolt's next commit goes to page 1 and page 0 stays as it is.
const TRANSACTION: u64 = 2;
const KEY_BYTES_MAX: usize = 32768;
const VALUE_BYTES_MAX: usize = i32::MAX as usize - 1;

/// Writes a bbolt file to `W` as its entries come: the same entries that its [`Plan`] was given.
pub struct Writer<W> {
    pages: PageWriter<W>,
    /// The buckets that are still to come, the last one first.
    plans: Vec<BucketPlan>,
    current: Option<Tree>,
    /// The file's root: the buckets and where their roots are.
    directory: Page,
    total_bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    ///
    /// # Errors
    /// When `sink` fails.
    pub fn new(plan: Plan, sink: W) -> Result<Self, Error> {
        let (mut plans, total_bytes) = plan.finish();
        plans.reverse();
        let mut pages = PageWriter {
            sink,
            hash: Sha256::new(),
            next: 0,
        };
        let high_water = total_bytes / PAGE_BYTES as u64;
        let directory = Page::default();
        let directory_bytes: usize = plans
            .iter()
            .map(|plan| ELEMENT_BYTES + plan.name.len() + BUCKET_HEADER_BYTES)
            .sum();
        let directory_pages = pages_of(directory_bytes);
        for id in 0..META_PAGES {
            let meta = Meta {
                page_bytes: PAGE_BYTES,
                root: high_water - directory_pages,
                freelist: NO_FREELIST,
                high_water,
                transaction: TRANSACTION - id,
            };
            pages.write(&meta.encode(id))?;
        }
        Ok(Self {
            pages,
            plans,
            current: None,
            directory,
            total_bytes,
        })
    }

    /// Bytes of the whole file, without the hash.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn close_bucket(&mut self) -> Result<(), Error> {
        let Some(tree) = self.current.take() else {
            return Ok(());
        };
        let name = tree.plan.name.clone();
        let root = tree.finish(&mut self.pages)?;
        let mut value = [0; BUCKET_HEADER_BYTES];
        value[..8].copy_from_slice(&root.to_le_bytes());
        self.directory.push_entry(ELEMENT_BUCKET, &name, &value);
        Ok(())
    }

    /// Ends the file: its SHA-256, which etcd's snapshots have behind them, and the sink.
    ///
    /// # Errors
    /// When the sink fails, or other entries came than were planned.
    pub fn finish(mut self) -> Result<([u8; 32], W), Error> {
        self.close_bucket()?;
        if !self.plans.is_empty() {
            return Err(differ());
        }
        let directory = std::mem::take(&mut self.directory);
        let count = pages(PAGE_HEADER_BYTES + directory.bytes());
        self.pages.write_page(FLAG_LEAF, &directory, count)?;
        if self.pages.next * PAGE_BYTES as u64 != self.total_bytes {
            return Err(differ());
        }
        Ok((self.pages.hash.finalize().into(), self.pages.sink))
    }
}

impl<W: Write> Entries for Writer<W> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.close_bucket()?;
        let plan = self.plans.pop().filter(|plan| plan.name == name);
        let plan = plan.ok_or_else(differ)?;
        if self.plans.last().is_some_and(|next| next.name <= plan.name) {
            return Err(Error::Order("have buckets that are out of order".into()));
        }
        self.current = Some(Tree::new(plan));
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let tree = self.current.as_mut();
        let tree = tree.ok_or_else(|| Error::Order("come before the first bucket".into()))?;
        tree.entry(key, value, &mut self.pages)
    }
}

fn differ() -> Error {
    Error::Order("are not those that were planned".into())
}

fn pages_of(elements_bytes: usize) -> u64 {
    pages(PAGE_HEADER_BYTES + elements_bytes)
}

/// Puts whole pages out and hashes them.
struct PageWriter<W> {
    sink: W,
    hash: Sha256,
    /// The number of the next page.
    next: u64,
}

impl<W: Write> PageWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.next += (bytes.len() / PAGE_BYTES) as u64;
        self.sink.write_all(bytes).map_err(Error::sink)
    }

    /// Writes `page` on `count` pages; its number.
    fn write_page(&mut self, flags: u16, page: &Page, count: u64) -> Result<u64, Error> {
        let id = self.next;
        let overflow = u32::try_from(count - 1).map_err(Error::sink)?;
        let header = PageHeader {
            id,
            flags,
            count: u16::try_from(page.elements.len()).map_err(Error::sink)?,
            overflow,
        };
        let length = usize::try_from(count).map_err(Error::sink)? * PAGE_BYTES;
        let mut bytes = Vec::with_capacity(length);
        header.encode(&mut bytes);
        let mut position = page.elements.len() * ELEMENT_BYTES;
        for element in &page.elements {
            element.encode(position, &mut bytes);
            position += element.data_bytes() - ELEMENT_BYTES;
        }
        bytes.extend_from_slice(&page.data);
        bytes.resize(length, 0);
        self.write(&bytes)?;
        Ok(id)
    }
}

/// An element of a page that is being filled.
enum Element {
    Entry {
        flags: u32,
        key_bytes: u32,
        value_bytes: u32,
    },
    Child {
        key_bytes: u32,
        page: u64,
    },
}

impl Element {
    fn data_bytes(&self) -> usize {
        match self {
            Self::Entry {
                key_bytes,
                value_bytes,
                ..
            } => *key_bytes as usize + *value_bytes as usize,
            Self::Child { key_bytes, .. } => *key_bytes as usize,
        }
    }

    /// `position` is where the data lies, counted from the element.
    fn encode(&self, position: usize, buffer: &mut Vec<u8>) {
        let position = u32::try_from(position).expect("a page run is smaller than 4 GiB");
        match self {
            Self::Entry {
                flags,
                key_bytes,
                value_bytes,
            } => {
                for number in [*flags, position, *key_bytes, *value_bytes] {
                    buffer.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Child { key_bytes, page } => {
                buffer.extend_from_slice(&position.to_le_bytes());
                buffer.extend_from_slice(&key_bytes.to_le_bytes());
                buffer.extend_from_slice(&page.to_le_bytes());
            }
        }
    }
}

/// A leaf or a branch that is being filled.
#[derive(Default)]
struct Page {
    elements: Vec<Element>,
    data: Vec<u8>,
}

impl Page {
    fn push_entry(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push(Element::Entry {
            flags,
            key_bytes: length(key),
            value_bytes: length(value),
        });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn push_child(&mut self, key: &[u8], page: u64) {
        self.elements.push(Element::Child {
            key_bytes: length(key),
            page,
        });
        self.data.extend_from_slice(key);
    }

    fn first_key(&self) -> &[u8] {
        let bytes = match self.elements.first() {
            Some(Element::Entry { key_bytes, .. } | Element::Child { key_bytes, .. }) => *key_bytes,
            None => 0,
        };
        &self.data[..bytes as usize]
    }

    /// Bytes without the page's header.
    fn bytes(&self) -> usize {
        self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("checked when it came")
}

/// One level of branches.
struct Level {
    page: Page,
    /// How many branches of this level are written, and how many there are.
    written: u64,
    total: u64,
    /// How many children came, and how many there are.
    seen: u64,
    below: u64,
}

/// One bucket's tree, of which only the right edge is in memory.
struct Tree {
    plan: BucketPlan,
    leaf: Page,
    fill: LeafFill,
    last_key: Vec<u8>,
    levels: Vec<Level>,
    leaves: u64,
    root: u64,
}

impl Tree {
    fn new(plan: BucketPlan) -> Self {
        let mut below = plan.leaves;
        let mut levels = Vec::new();
        for total in plan.levels() {
            levels.push(Level {
                page: Page::default(),
                written: 0,
                total,
                seen: 0,
                below,
            });
            below = total;
        }
        Self {
            plan,
            leaf: Page::default(),
            fill: LeafFill::empty(),
            last_key: Vec::new(),
            levels,
            leaves: 0,
            root: 0,
        }
    }

    fn entry<W: Write>(
        &mut self,
        key: &[u8],
        value: &[u8],
        pages: &mut PageWriter<W>,
    ) -> Result<(), Error> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Error::content(
                &self.plan.name,
                format!(
                    "a key of {} and a value of {} bytes: bbolt takes a key of 1 to \
                     {KEY_BYTES_MAX} and a value of at most {VALUE_BYTES_MAX} bytes",
                    key.len(),
                    value.len()
                ),
            ));
        }
        let is_first = self.fill.count == 0 && self.leaves == 0;
        if !is_first && key <= self.last_key.as_slice() {
            return Err(Error::Order("have keys that are out of order".into()));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if !self.fill.takes(key, value) {
            self.close_leaf(pages)?;
        }
        self.fill.add(key, value);
        self.leaf.push_entry(0, key, value);
        Ok(())
    }

    fn close_leaf<W: Write>(&mut self, out: &mut PageWriter<W>) -> Result<(), Error> {
        let id = out.write_page(FLAG_LEAF, &self.leaf, pages(self.fill.bytes))?;
        let mut key = self.leaf.first_key().to_vec();
        self.leaf.clear();
        self.fill = LeafFill::empty();
        self.leaves += 1;
        let mut child = id;
        let branch_pages = self.plan.branch_pages();
        for level in &mut self.levels {
            if level.seen == level.below {
                return Err(differ());
            }
            level.page.push_child(&key, child);
            level.seen += 1;
            // The children are spread evenly: branch n ends with child (n + 1) * below / total.
            let end = u128::from(level.written + 1) * u128::from(level.below);
            if u128::from(level.seen) < end / u128::from(level.total) {
                return Ok(());
            }
            child = out.write_page(FLAG_BRANCH, &level.page, branch_pages)?;
            key = level.page.first_key().to_vec();
            level.page.clear();
            level.written += 1;
        }
        self.root = child;
        Ok(())
    }

    /// Writes what is left; the number of the root.
    fn finish<W: Write>(mut self, out: &mut PageWriter<W>) -> Result<u64, Error> {
        self.close_leaf(out)?;
        let complete = |level: &Level| level.written == level.total;
        if self.leaves != self.plan.leaves || !self.levels.iter().all(complete) {
            return Err(differ());
        }
        Ok(self.root)
    }
}
