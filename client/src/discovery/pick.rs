//! Who gets the next connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;

use super::resolve::{Instance, Instances};

/// Chooses among the instances that are there at the moment.
pub trait Picker: Send + Sync {
    /// Where the next connection goes; `None` while there is no instance.
    fn pick(&self) -> Option<Picked>;
}

/// A choice. Keep it as long as the connection is open: [`LeastConnections`] counts it.
#[derive(Debug)]
#[must_use = "dropping it says that the connection is closed"]
pub struct Picked {
    instance: Instance,
    open: Option<Arc<AtomicUsize>>,
}

impl Picked {
    /// Where to connect to.
    pub fn address(&self) -> &str {
        &self.instance.address
    }

    /// Who was chosen.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    fn uncounted(instance: &Instance) -> Self {
        Self {
            instance: instance.clone(),
            open: None,
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One after the other.
#[derive(Debug)]
pub struct RoundRobin {
    instances: Instances,
    next: AtomicUsize,
}

impl RoundRobin {
    /// Over these instances, as they come and go.
    pub fn new(instances: Instances) -> Self {
        Self {
            instances,
            next: AtomicUsize::new(0),
        }
    }
}

impl Picker for RoundRobin {
    fn pick(&self) -> Option<Picked> {
        let now = self.instances.now();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let instance = now.get(turn.checked_rem(now.len())?)?;
        Some(Picked::uncounted(instance))
    }
}

/// Any, by chance.
#[derive(Debug)]
pub struct Random {
    instances: Instances,
}

impl Random {
    /// Over these instances, as they come and go.
    pub fn new(instances: Instances) -> Self {
        Self { instances }
    }
}

impl Picker for Random {
    fn pick(&self) -> Option<Picked> {
        let now = self.instances.now();
        if now.is_empty() {
            return None;
        }
        let index = rand::rng().random_range(0..now.len());
        Some(Picked::uncounted(&now[index]))
    }
}

/// The one with the fewest connections that this picker gave out and that are still open; among
/// equals, the first by key.
#[derive(Debug)]
pub struct LeastConnections {
    instances: Instances,
    open: Mutex<BTreeMap<Bytes, Arc<AtomicUsize>>>,
}

impl LeastConnections {
    /// Over these instances, as they come and go.
    pub fn new(instances: Instances) -> Self {
        Self {
            instances,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// How many connections to the instance of this key are open.
    pub fn open_connections(&self, key: &[u8]) -> usize {
        let open = self.open.lock();
        open.get(key)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Picker for LeastConnections {
    fn pick(&self) -> Option<Picked> {
        let now = self.instances.now();
        let mut open = self.open.lock();
        // Counts of instances that are gone live on in their open connections only.
        open.retain(|key, _| now.iter().any(|instance| instance.key == *key));
        let count = |instance: &&Instance| {
            let count = open.get(&instance.key);
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        };
        let instance = now.iter().min_by_key(count)?;
        let count = open.entry(instance.key.clone()).or_default();
        count.fetch_add(1, Ordering::Relaxed);
        Some(Picked {
            instance: instance.clone(),
            open: Some(Arc::clone(count)),
        })
    }
}
