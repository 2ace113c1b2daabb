//! bbolt's pages: sizes, flags, headers. All numbers are little endian.
//!
//! bbolt: internal/common/page.go, meta.go.

/// The size of the pages that we write; every page size of bbolt's is read.
pub const PAGE_BYTES: usize = 4096;
pub const PAGE_BYTES_MIN: usize = 4096;
pub const PAGE_BYTES_MAX: usize = 65536;
pub const PAGE_HEADER_BYTES: usize = 16;
/// An element of a branch: `pos u32, ksize u32, pgid u64`; of a leaf: `flags, pos, ksize, vsize`.
pub const ELEMENT_BYTES: usize = 16;
/// What a nested bucket's value begins with: `root u64, sequence u64`.
pub const BUCKET_HEADER_BYTES: usize = 16;

pub const FLAG_BRANCH: u16 = 0x01;
pub const FLAG_LEAF: u16 = 0x02;
pub const FLAG_META: u16 = 0x04;
pub const FLAG_FREELIST: u16 = 0x10;
/// The flag of a leaf's element that is a bucket.
pub const ELEMENT_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Says that no list of free pages is in the file: bbolt finds them by looking.
pub const NO_FREELIST: u64 = u64::MAX;
/// Bytes of a meta page that count.
pub const META_BYTES: usize = PAGE_HEADER_BYTES + 64;

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    /// How many pages follow that belong to this one.
    pub overflow: u32,
}

impl PageHeader {
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.id.to_le_bytes());
        buffer.extend_from_slice(&self.flags.to_le_bytes());
        buffer.extend_from_slice(&self.count.to_le_bytes());
        buffer.extend_from_slice(&self.overflow.to_le_bytes());
    }

    /// Reads the first [`PAGE_HEADER_BYTES`] of `bytes`.
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }
}

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub page_bytes: usize,
    pub root: u64,
    pub freelist: u64,
    /// The number of pages that are or were in use.
    pub high_water: u64,
    pub transaction: u64,
}

impl Meta {
    /// The whole page `id`, of [`PAGE_BYTES`].
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let header = PageHeader {
            id,
            flags: FLAG_META,
            count: 0,
            overflow: 0,
        };
        header.encode(&mut page);
        let page_bytes = u32::try_from(self.page_bytes).expect("at most 65536");
        for number in [MAGIC, VERSION, page_bytes, 0] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        let root_sequence = 0;
        for number in [
            self.root,
            root_sequence,
            self.freelist,
            self.high_water,
            self.transaction,
        ] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&page[PAGE_HEADER_BYTES..]);
        page.extend_from_slice(&checksum.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// Reads the first [`META_BYTES`] of a page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(page: &[u8]) -> Result<Self, String> {
        let header = PageHeader::decode(page);
        let body = &page[PAGE_HEADER_BYTES..META_BYTES];
        if u32_at(body, 0) != MAGIC || header.flags != FLAG_META {
            return Err("no meta page of a bbolt file".into());
        }
        let version = u32_at(body, 4);
        if version != VERSION {
            return Err(format!("bbolt format version {version}, not {VERSION}"));
        }
        if u64_at(body, 56) != checksum(&body[..56]) {
            return Err("the checksum of a meta page is wrong".into());
        }
        let page_bytes = u32_at(body, 8) as usize;
        if !page_bytes.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes)
        {
            return Err(format!(
                "a page size of {page_bytes}, not 4096 to 65536 and a power of two"
            ));
        }
        Ok(Self {
            page_bytes,
            root: u64_at(body, 16),
            freelist: u64_at(body, 32),
            high_water: u64_at(body, 40),
            transaction: u64_at(body, 48),
        })
    }
}

/// FNV-1a of a meta page's body up to the checksum.
fn checksum(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers and the checksum are those of a file that a real etcd 3.7.3 wrote.
    #[test]
    fn a_meta_page_is_etcds() {
        let meta = Meta {
            page_bytes: 4096,
            root: 3,
            freelist: NO_FREELIST,
            high_water: 5,
            transaction: 14,
        };
        let page = meta.encode(0);
        assert_eq!(u64_at(&page, META_BYTES - 8), 10_539_181_831_307_771_563);
        assert_eq!(Meta::decode(&page), Ok(meta));
    }

    #[test]
    fn a_damaged_meta_page_is_refused() {
        let meta = Meta {
            page_bytes: PAGE_BYTES,
            root: 3,
            freelist: NO_FREELIST,
            high_water: 5,
            transaction: 14,
        };
        for at in (8..10).chain(PAGE_HEADER_BYTES..META_BYTES) {
            let mut page = meta.encode(0);
            page[at] ^= 0x40;
            assert!(Meta::decode(&page).is_err(), "byte {at}");
        }
    }
}
