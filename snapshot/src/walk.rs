//! Walks a file's trees in key order and checks all that it meets: that each page lies inside the
//! file, is met once, says its own number and kind; that each element lies inside its page; that
//! keys ascend and lie where their branch says.

use super::format::{
    BUCKET_HEADER_BYTES, ELEMENT_BUCKET, ELEMENT_BYTES, FLAG_BRANCH, FLAG_FREELIST, FLAG_LEAF,
    NO_FREELIST, PAGE_HEADER_BYTES, PageHeader, u32_at, u64_at,
};
use super::plan::META_PAGES;
use super::reader::File;
use super::{Entries, Error};

/// A tree of this height would hold more than any disk.
const DEPTH_MAX: usize = 24;
/// A page with those that follow it, which one read takes. etcd's records are at most a few MB.
const RUN_BYTES_MAX: u64 = 1 << 30;

/// One walk over a file.
pub struct Walk<'a> {
    file: &'a File,
    /// One bit a page: whether it was met.
    met: Vec<u64>,
    /// The last key of the tree that is walked.
    last_key: Option<Vec<u8>>,
    /// What the branch above says that the next key is at least.
    least: Option<Vec<u8>>,
}

/// A page with those that follow it, in memory.
struct Run {
    /// Where it lies in the file.
    offset: u64,
    header: PageHeader,
    bytes: Vec<u8>,
}

/// What is being walked.
struct Tree<'t> {
    /// None in the file's own tree, whose elements are buckets.
    bucket: Option<&'t [u8]>,
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a File) -> Self {
        let words = file.meta().high_water.div_ceil(64);
        Self {
            file,
            met: vec![0; usize::try_from(words).unwrap_or(usize::MAX)],
            last_key: None,
            least: None,
        }
    }

    pub fn run(mut self, entries: &mut dyn Entries) -> Result<(), Error> {
        let meta = self.file.meta();
        if meta.freelist != NO_FREELIST {
            let run = self.read(meta.freelist, 0)?;
            if run.header.flags != FLAG_FREELIST {
                let what = format!("page {} is no list of free pages", meta.freelist);
                return Err(self.file.damaged(run.offset, what));
            }
        }
        let root = self.read(meta.root, 0)?;
        self.node(&Tree { bucket: None }, root, 0, entries)
    }

    /// Reads page `id` with what follows it. `from` is the offset of what points to it.
    fn read(&mut self, id: u64, from: u64) -> Result<Run, Error> {
        let page_bytes = self.file.meta().page_bytes;
        let high_water = self.file.meta().high_water;
        if !(META_PAGES..high_water).contains(&id) {
            let what = format!("page {id} is named, but pages are {META_PAGES} to {high_water}");
            return Err(self.file.damaged(from, what));
        }
        let offset = id * page_bytes as u64;
        let mut bytes = Vec::new();
        self.file.read_at(offset, page_bytes, &mut bytes)?;
        let header = PageHeader::decode(&bytes);
        if header.id != id {
            let what = format!("page {id} says that it is page {}", header.id);
            return Err(self.file.damaged(offset, what));
        }
        let pages = 1 + u64::from(header.overflow);
        let length = pages * page_bytes as u64;
        if id + pages > high_water || length > RUN_BYTES_MAX {
            let what = format!("page {id} says that it takes {pages} pages");
            return Err(self.file.damaged(offset + 12, what));
        }
        for page in id..id + pages {
            let word = usize::try_from(page / 64).unwrap_or(usize::MAX);
            let bit = 1 << (page % 64);
            if self.met[word] & bit != 0 {
                let what = format!("page {page} belongs to two places");
                return Err(self.file.damaged(from, what));
            }
            self.met[word] |= bit;
        }
        if header.overflow > 0 {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            self.file.read_at(offset, length, &mut bytes)?;
        }
        Ok(Run {
            offset,
            header,
            bytes,
        })
    }

    fn node(
        &mut self,
        tree: &Tree<'_>,
        run: Run,
        depth: usize,
        entries: &mut dyn Entries,
    ) -> Result<(), Error> {
        let elements = PAGE_HEADER_BYTES + usize::from(run.header.count) * ELEMENT_BYTES;
        if elements > run.bytes.len() {
            let what = format!("a page with {} elements is too short", run.header.count);
            return Err(self.file.damaged(run.offset + 10, what));
        }
        match run.header.flags {
            FLAG_LEAF => self.leaf(tree, &run, entries),
            FLAG_BRANCH if depth < DEPTH_MAX => self.branch(tree, run, depth, entries),
            FLAG_BRANCH => Err(self.file.damaged(run.offset, "the tree is too high")),
            flags => {
                let what = format!("a page of kind {flags:#x}, not a branch or a leaf");
                Err(self.file.damaged(run.offset + 8, what))
            }
        }
    }

    fn branch(
        &mut self,
        tree: &Tree<'_>,
        run: Run,
        depth: usize,
        entries: &mut dyn Entries,
    ) -> Result<(), Error> {
        if run.header.count == 0 {
            return Err(self
                .file
                .damaged(run.offset + 10, "a branch without children"));
        }
        let mut children = Vec::with_capacity(usize::from(run.header.count));
        for number in 0..usize::from(run.header.count) {
            let at = PAGE_HEADER_BYTES + number * ELEMENT_BYTES;
            let key_bytes = u32_at(&run.bytes, at + 4) as usize;
            let position = u32_at(&run.bytes, at) as usize;
            let key = self.inside(&run, at, position, key_bytes)?.to_vec();
            children.push((key, u64_at(&run.bytes, at + 8), run.offset + at as u64));
        }
        // The page itself is not needed any more: a level holds no more than its keys.
        drop(run);
        for (key, page, from) in children {
            let ascends = self.last_key.as_ref().is_none_or(|last| *last < key)
                && self.least.as_ref().is_none_or(|least| *least <= key);
            if !ascends {
                let what = "the keys of a branch do not ascend";
                return Err(self.file.damaged(from, what));
            }
            self.least = Some(key);
            let child = self.read(page, from)?;
            let offset = child.offset;
            self.node(tree, child, depth + 1, entries)?;
            if self.least.is_some() {
                let what = "a leaf below a branch has no elements";
                return Err(self.file.damaged(offset, what));
            }
        }
        Ok(())
    }

    fn leaf(&mut self, tree: &Tree<'_>, run: &Run, entries: &mut dyn Entries) -> Result<(), Error> {
        for number in 0..usize::from(run.header.count) {
            let at = PAGE_HEADER_BYTES + number * ELEMENT_BYTES;
            let flags = u32_at(&run.bytes, at);
            let position = u32_at(&run.bytes, at + 4) as usize;
            let key_bytes = u32_at(&run.bytes, at + 8) as usize;
            let value_bytes = u32_at(&run.bytes, at + 12) as usize;
            let data = self.inside(run, at, position, key_bytes.saturating_add(value_bytes))?;
            let (key, value) = data.split_at(key_bytes);
            let from = run.offset + at as u64;
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(self.file.damaged(from, "the keys of a leaf do not ascend"));
            }
            if self
                .least
                .take()
                .is_some_and(|least| least.as_slice() > key)
            {
                let what = "a leaf holds a smaller key than its branch says";
                return Err(self.file.damaged(from, what));
            }
            match tree.bucket {
                None if flags == ELEMENT_BUCKET => {
                    entries.bucket(key)?;
                    // A tree inside a tree: its keys have an order of their own.
                    self.last_key = None;
                    self.bucket(key, value, from, entries)?;
                }
                Some(_) if flags == 0 => entries.entry(key, value)?,
                Some(_) | None => {
                    let what = "a bucket inside a bucket, or a value outside of all: not etcd's";
                    return Err(self.file.damaged(from, what));
                }
            }
            let last = self.last_key.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        name: &[u8],
        value: &[u8],
        from: u64,
        entries: &mut dyn Entries,
    ) -> Result<(), Error> {
        if value.len() < BUCKET_HEADER_BYTES {
            return Err(self.file.damaged(from, "a bucket without its header"));
        }
        let root = u64_at(value, 0);
        let tree = Tree { bucket: Some(name) };
        if root != 0 {
            let run = self.read(root, from)?;
            return self.node(&tree, run, 0, entries);
        }
        // A small bucket lies in its parent's leaf, as a page of its own without a number.
        let inline = &value[BUCKET_HEADER_BYTES..];
        let is_leaf = inline.len() >= PAGE_HEADER_BYTES
            && PageHeader::decode(inline).flags == FLAG_LEAF
            && PageHeader::decode(inline).overflow == 0;
        if !is_leaf {
            return Err(self.file.damaged(from, "a small bucket that is no leaf"));
        }
        let run = Run {
            offset: from,
            header: PageHeader::decode(inline),
            bytes: inline.to_vec(),
        };
        self.node(&tree, run, 0, entries)
    }

    /// The data of the element at `at`, which lies `position` behind it.
    fn inside<'r>(
        &self,
        run: &'r Run,
        at: usize,
        position: usize,
        length: usize,
    ) -> Result<&'r [u8], Error> {
        let elements = PAGE_HEADER_BYTES + usize::from(run.header.count) * ELEMENT_BYTES;
        let start = at.saturating_add(position);
        let data = run.bytes.get(start..start.saturating_add(length));
        data.filter(|_| start >= elements).ok_or_else(|| {
            let from = run.offset + at as u64;
            self.file
                .damaged(from, "an element that lies outside of its page")
        })
    }
}
