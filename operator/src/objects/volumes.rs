//! What a member's Pod mounts, and where.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
    VolumeMount,
};
use kube::ResourceExt;
use quorate_sidecar::wire::{RestoreRequest, Store};

use super::Names;
use crate::api::{QuorateCluster, QuorateMember, StorageMedium};

/// Where the volume is mounted.
const DATA_MOUNT: &str = "/var/lib/quorate";
/// The data directory: below the mount, whose root holds such as `lost+found`.
pub const DATA_DIRECTORY: &str = "/var/lib/quorate/data";
/// What members show to clients.
pub const SERVER_TLS: &str = "/etc/quorate/tls/server";
/// What members show to each other.
pub const PEER_TLS: &str = "/etc/quorate/tls/peer";
/// What clients show to members.
pub const CLIENT_TLS: &str = "/etc/quorate/tls/client";
/// What the sidecar shows to the operator.
pub const SIDECAR_TLS: &str = "/etc/quorate/tls/sidecar";
/// Credentials of the store of backups.
pub const BACKUP_CREDENTIALS: &str = "/etc/quorate/backup";
/// Credentials of the store that a cluster begins from.
pub const RESTORE_CREDENTIALS: &str = "/etc/quorate/restore";
/// A claim that is the store of backups.
pub const BACKUP_VOLUME: &str = "/backup";
/// A claim that is the store that a cluster begins from.
pub const RESTORE_VOLUME: &str = "/restore";
/// Files that may go at any time.
pub const SCRATCH: &str = "/tmp";

/// Files of Secrets: for their owner and the Pod's group, which is the program's.
const SECRET_MODE: i32 = 0o440;

/// A container of a member's Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gate before the start.
    Gate,
    /// The member.
    Member,
    /// The sidecar beside it.
    Sidecar,
}

/// One volume, where it is mounted, and in which containers.
struct Mounted {
    volume: Volume,
    path: &'static str,
    in_containers: &'static [Role],
    read_only: bool,
}

/// The volumes of a Pod, and the mounts of its containers.
pub struct Volumes(Vec<Mounted>);

impl Volumes {
    /// Those of a member; `restore` for a seed that has not started from it yet.
    pub fn new(
        cluster: &QuorateCluster,
        member: &QuorateMember,
        restore: Option<&RestoreRequest>,
    ) -> Self {
        use Role::{Gate, Member, Sidecar};
        let names = Names::new(cluster);
        let tls = &cluster.spec.tls;
        let mut all = Self(Vec::new());
        all.add(data(cluster, member), DATA_MOUNT, &[Gate, Member]);
        all.add_read_only(data(cluster, member), DATA_MOUNT, &[Sidecar]);
        all.add(scratch(), SCRATCH, &[Gate, Member, Sidecar]);
        if tls.client.enabled() {
            let server = secret("tls-server", names.server_secret(), false);
            all.add_read_only(server, SERVER_TLS, &[Member]);
            let client = secret("tls-client", names.client_secret(), false);
            all.add_read_only(client, CLIENT_TLS, &[Gate, Member, Sidecar]);
        }
        if tls.peer.enabled() {
            let peer = secret("tls-peer", names.peer_secret(), false);
            all.add_read_only(peer, PEER_TLS, &[Member]);
        }
        let sidecar = secret("tls-sidecar", names.sidecar_secret(), false);
        all.add_read_only(sidecar, SIDECAR_TLS, &[Sidecar]);
        if let Some(backup) = &cluster.spec.backup {
            all.store(&backup.store, &BACKUP);
        }
        if let Some(restore) = restore {
            all.store(&restore.store, &RESTORE);
        }
        all
    }

    fn add(&mut self, volume: Volume, path: &'static str, in_containers: &'static [Role]) {
        self.0.push(Mounted {
            volume,
            path,
            in_containers,
            read_only: false,
        });
    }

    fn add_read_only(&mut self, volume: Volume, path: &'static str, roles: &'static [Role]) {
        self.add(volume, path, roles);
        if let Some(last) = self.0.last_mut() {
            last.read_only = true;
        }
    }

    /// Credentials are optional: a member must start without those of its backups, and says by
    /// itself that they are missing when they are needed.
    fn store(&mut self, store: &Store, places: &StorePlaces) {
        if let Some(name) = store.credentials_secret() {
            let volume = secret(places.credentials_name, name.to_owned(), true);
            self.add_read_only(volume, places.credentials, places.containers);
        }
        if let Some(pvc) = &store.pvc {
            let volume = claim(places.volume_name, &pvc.claim_name);
            match places.volume_read_only {
                true => self.add_read_only(volume, places.volume, places.containers),
                false => self.add(volume, places.volume, places.containers),
            }
        }
    }

    /// Whether something is mounted there.
    pub fn has(&self, path: &str) -> bool {
        self.0.iter().any(|mounted| mounted.path == path)
    }

    /// What a container mounts.
    pub fn mounts(&self, role: Role) -> Vec<VolumeMount> {
        let own = self
            .0
            .iter()
            .filter(|mounted| mounted.in_containers.contains(&role));
        let mount = own.map(|mounted| VolumeMount {
            name: mounted.volume.name.clone(),
            mount_path: mounted.path.to_owned(),
            read_only: mounted.read_only.then_some(true),
            ..VolumeMount::default()
        });
        mount.collect()
    }

    /// Each volume once.
    pub fn into_volumes(self) -> Vec<Volume> {
        let mut all: Vec<Volume> = Vec::new();
        for mounted in self.0 {
            if all.iter().all(|known| known.name != mounted.volume.name) {
                all.push(mounted.volume);
            }
        }
        all
    }
}

/// Where what belongs to a store is mounted.
struct StorePlaces {
    credentials_name: &'static str,
    credentials: &'static str,
    volume_name: &'static str,
    volume: &'static str,
    volume_read_only: bool,
    containers: &'static [Role],
}

const BACKUP: StorePlaces = StorePlaces {
    credentials_name: "backup-credentials",
    credentials: BACKUP_CREDENTIALS,
    volume_name: "backup",
    volume: BACKUP_VOLUME,
    volume_read_only: false,
    containers: &[Role::Sidecar],
};

const RESTORE: StorePlaces = StorePlaces {
    credentials_name: "restore-credentials",
    credentials: RESTORE_CREDENTIALS,
    volume_name: "restore",
    volume: RESTORE_VOLUME,
    volume_read_only: true,
    containers: &[Role::Gate],
};

fn data(cluster: &QuorateCluster, member: &QuorateMember) -> Volume {
    let storage = &cluster.spec.storage;
    let mut volume = Volume {
        name: "data".to_owned(),
        ..Volume::default()
    };
    match storage.medium {
        StorageMedium::Persistent => {
            volume = claim("data", &Names::new(cluster).claim(&member.name_any()));
        }
        StorageMedium::Memory => {
            volume.empty_dir = Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(storage.size.clone()),
            });
        }
    }
    volume
}

fn scratch() -> Volume {
    Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn claim(volume: &str, name: &str) -> Volume {
    Volume {
        name: volume.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }
}

fn secret(volume: &str, name: String, optional: bool) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            default_mode: Some(SECRET_MODE),
            optional: optional.then_some(true),
            items: None,
        }),
        ..Volume::default()
    }
}
