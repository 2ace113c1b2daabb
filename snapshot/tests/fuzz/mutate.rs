//! Damages a file where its structure is, and makes its checksums right again, so that they do not
//! shield what reads it.

use sha2::{Digest as _, Sha256};

const META_BYTES: usize = 80;
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;

/// Numbers that follow from a seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        it ^ (it >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// A number at which things go wrong, near `old` or near an edge.
    fn odd(&mut self, old: u64, limit: u64) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => old.wrapping_add(1),
            3 => old.wrapping_sub(1),
            4 => u64::from(u16::MAX),
            5 => u64::from(u32::MAX),
            6 => u64::MAX,
            7 => limit,
            8 => limit.wrapping_sub(1),
            9 => 1 << self.below(64),
            10 => self.next() % limit.max(1),
            _ => self.next(),
        }
    }
}

/// Changes one to four things in `file`.
pub fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    let has_digest = file.len() % 512 == DIGEST_BYTES;
    if has_digest {
        file.truncate(file.len() - DIGEST_BYTES);
    }
    let page_bytes = page_bytes(file);
    for _ in 0..1 + random.below(4) {
        change(file, page_bytes, random);
    }
    if random.below(8) != 0 {
        mend_metas(file, page_bytes);
    }
    if random.below(16) != 0 {
        let digest = Sha256::digest(&*file);
        file.extend_from_slice(&digest);
    }
}

fn page_bytes(file: &[u8]) -> usize {
    let said = file.get(24..28).map_or(0, |it| number(it) as usize);
    if said.is_power_of_two() && (1024..=65536).contains(&said) {
        said
    } else {
        4096
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, it| sum << 8 | u64::from(*it))
}

/// Puts an odd number into the `width` bytes at `at`, if they are there.
fn set(file: &mut [u8], at: usize, width: usize, limit: u64, random: &mut Random) {
    let Some(bytes) = file.get_mut(at..at + width) else {
        return;
    };
    let value = random.odd(number(bytes), limit).to_le_bytes();
    bytes.copy_from_slice(&value[..width]);
}

fn change(file: &mut Vec<u8>, page_bytes: usize, random: &mut Random) {
    let pages = (file.len() / page_bytes).max(1);
    let page = random.below(pages) * page_bytes;
    match random.below(12) {
        0 | 1 => {
            // The page's head: id, flags, count, overflow.
            let (at, width) = [(0, 8), (8, 2), (10, 2), (12, 4)][random.below(4)];
            let elements_max = page_bytes / ELEMENT_BYTES;
            let limit = if at == 10 { elements_max } else { pages };
            set(file, page + at, width, limit as u64, random);
        }
        2..=5 => {
            // An element: of a leaf flags, pos, ksize, vsize; of a branch pos, ksize, pgid.
            let count = file
                .get(page + 10..page + 12)
                .map_or(1, number)
                .clamp(1, 300);
            let element = random.below(usize::try_from(count).unwrap()) * ELEMENT_BYTES;
            let (at, width) = [(0, 4), (4, 4), (8, 4), (12, 4), (8, 8)][random.below(5)];
            let limit = [page_bytes, pages][random.below(2)] as u64;
            set(
                file,
                page + HEADER_BYTES + element + at,
                width,
                limit,
                random,
            );
        }
        6 => {
            // A meta page: page size, root, freelist, high water, transaction.
            let page = random.below(2) * page_bytes;
            let (at, width) = [(24, 4), (32, 8), (48, 8), (56, 8), (64, 8)][random.below(5)];
            set(file, page + at, width, pages as u64, random);
        }
        7 => {
            // Anything: a bucket's root, an inline page, a key, a record.
            let at = page + random.below(page_bytes);
            let width = 1 << random.below(4);
            set(file, at, width, pages as u64, random);
        }
        8 => {
            // One page over another, with or without its own number.
            let other = random.below(pages) * page_bytes;
            let from = if random.below(2) == 0 { 0 } else { 8 };
            if page.max(other) + page_bytes <= file.len() {
                file.copy_within(other + from..other + page_bytes, page + from);
            }
        }
        9 => {
            let end = (page + page_bytes).min(file.len());
            file[page.min(end)..end].fill(0);
        }
        10 => {
            let length = match random.below(3) {
                0 => random.below(file.len() + 1),
                1 => random.below(pages + 1) * page_bytes,
                _ => file.len() + page_bytes,
            };
            file.resize(length, 0);
        }
        _ => {
            if !file.is_empty() {
                let at = random.below(file.len());
                file[at] ^= 1 << random.below(8);
            }
        }
    }
}

/// Makes the checksums of both meta pages right.
fn mend_metas(file: &mut [u8], page_bytes: usize) {
    for page in [0, page_bytes] {
        if let Some(meta) = file.get_mut(page..page + META_BYTES) {
            let (body, sum) = meta[HEADER_BYTES..].split_at_mut(56);
            let fnv = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            sum.copy_from_slice(&fnv.to_le_bytes());
        }
    }
}
