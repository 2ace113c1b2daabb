//! Failing syncs, for tests alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::storage::Error;

/// Makes syncs fail from some point on.
#[derive(Clone, Default)]
pub struct Faults {
    failing: Arc<AtomicBool>,
}

impl Faults {
    pub fn before_sync(&self, path: &Path) -> Result<(), Error> {
        if self.failing.load(Ordering::SeqCst) {
            let source = std::io::Error::other("injected");
            return Err(super::segment::failed(path, source));
        }
        Ok(())
    }

    /// From now on, syncs fail, or work again.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }
}
