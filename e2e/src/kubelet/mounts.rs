//! The volumes of a Pod as folders: claims that stay, and Secrets and ConfigMaps that follow their
//! objects while the Pod runs.

use super::Shared;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource,
    Volume, VolumeProjection,
};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Names and contents of files.
type Contents = BTreeMap<String, Vec<u8>>;

/// Why a volume cannot be mounted yet, as a kubelet says it.
pub(super) type Missing = String;

/// What files are made of, so that they can be made again.
#[derive(Clone, Debug)]
enum Source {
    Secret(SecretVolumeSource),
    Config(ConfigMapVolumeSource),
    Projected(ProjectedVolumeSource),
}

/// A volume whose files follow objects.
#[derive(Debug)]
struct Live {
    folder: PathBuf,
    source: Source,
    written: Contents,
    generation: u64,
}

/// The volumes of one Pod.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    folders: BTreeMap<String, PathBuf>,
    live: Vec<Live>,
}

impl Mounts {
    /// Makes all volumes; those of an earlier try are used again.
    ///
    /// # Errors
    /// When a folder cannot be made. The inner error says what is still missing.
    pub(super) fn prepare(
        shared: &Shared,
        pod: &Pod,
        directory: &Path,
    ) -> Result<Result<Self, Missing>> {
        let mut mounts = Self::default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let folder = directory.join(&volume.name);
            if let Some(claim) = &volume.persistent_volume_claim {
                let bound = shared.claim_folder(namespace, &claim.claim_name);
                let Some(bound) = bound else {
                    return Ok(Err(format!("claim {:?} is not bound", claim.claim_name)));
                };
                make_folder(&bound)?;
                mounts.folders.insert(volume.name.clone(), bound);
                continue;
            }
            make_folder(&folder)?;
            if let Some(source) = source(volume) {
                let contents = match source.contents(shared, namespace) {
                    Ok(contents) => contents,
                    Err(missing) => {
                        let name = &volume.name;
                        let text = format!("MountVolume.SetUp failed for volume {name:?}");
                        return Ok(Err(format!("{text} : {missing}")));
                    }
                };
                let mut live = Live {
                    folder: folder.clone(),
                    source,
                    written: Contents::new(),
                    generation: 0,
                };
                live.write(contents)?;
                mounts.live.push(live);
            } else if volume.empty_dir.is_none() {
                let text = "the fake kubelet knows no such kind of volume";
                return Ok(Err(format!("{}: {text}", volume.name)));
            }
            mounts.folders.insert(volume.name.clone(), folder);
        }
        Ok(Ok(mounts))
    }

    /// Writes what has changed. An object that is gone leaves its files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn refresh(&mut self, shared: &Shared, namespace: &str) -> Result<()> {
        for live in &mut self.live {
            if let Ok(contents) = live.source.contents(shared, namespace)
                && contents != live.written
            {
                live.write(contents)?;
            }
        }
        Ok(())
    }

    /// The paths of a container and where they are.
    pub(super) fn paths(&self, container: &Container) -> Vec<(String, String)> {
        let mut paths = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            if let Some(folder) = self.folders.get(&mount.name) {
                let folder = match &mount.sub_path {
                    Some(inner) => folder.join(inner),
                    None => folder.clone(),
                };
                let inside = mount.mount_path.trim_end_matches('/').to_owned();
                paths.push((inside, folder.display().to_string()));
            }
        }
        paths
    }
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // As a volume with fsGroup, but for a group of one.
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    Ok(())
}

fn source(volume: &Volume) -> Option<Source> {
    let secret = volume.secret.clone().map(Source::Secret);
    let config = volume.config_map.clone().map(Source::Config);
    secret
        .or(config)
        .or_else(|| volume.projected.clone().map(Source::Projected))
}

impl Live {
    /// All files change at once, by a link that is replaced: no reader sees a key without its
    /// certificate.
    fn write(&mut self, contents: Contents) -> Result<()> {
        let before = format!("..{}", self.generation);
        self.generation += 1;
        let now = format!("..{}", self.generation);
        let folder = self.folder.join(&now);
        // Left by an earlier try.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        for (name, bytes) in &contents {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().context("a folder")?)?;
            std::fs::write(&file, bytes)?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        }
        std::fs::create_dir_all(&folder)?;
        let link = self.folder.join("..new");
        if link.is_symlink() {
            std::fs::remove_file(&link)?;
        }
        symlink(&now, &link)?;
        std::fs::rename(&link, self.folder.join("..data"))?;
        let tops = |contents: &Contents| {
            let top = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
            contents
                .keys()
                .map(top)
                .collect::<std::collections::BTreeSet<_>>()
        };
        for name in tops(&contents) {
            let link = self.folder.join(&name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(&name), link)?;
            }
        }
        for name in tops(&self.written).difference(&tops(&contents)) {
            std::fs::remove_file(self.folder.join(name))?;
        }
        let before = self.folder.join(before);
        if before.exists() {
            std::fs::remove_dir_all(before)?;
        }
        self.written = contents;
        Ok(())
    }
}

impl Source {
    fn contents(&self, shared: &Shared, namespace: &str) -> Result<Contents, Missing> {
        match self {
            Self::Secret(source) => {
                let name = source.secret_name.as_deref().unwrap_or_default();
                let data = secret_data(shared, namespace, name);
                chosen(data, &source.items, source.optional, "secret", name)
            }
            Self::Config(source) => {
                let data = config_data(shared, namespace, &source.name);
                chosen(
                    data,
                    &source.items,
                    source.optional,
                    "configmap",
                    &source.name,
                )
            }
            Self::Projected(source) => {
                let mut all = Contents::new();
                for projection in source.sources.iter().flatten() {
                    all.extend(projected(projection, shared, namespace)?);
                }
                Ok(all)
            }
        }
    }
}

fn projected(
    projection: &VolumeProjection,
    shared: &Shared,
    namespace: &str,
) -> Result<Contents, Missing> {
    if let Some(secret) = &projection.secret {
        let data = secret_data(shared, namespace, &secret.name);
        return chosen(data, &secret.items, secret.optional, "secret", &secret.name);
    }
    if let Some(config) = &projection.config_map {
        let data = config_data(shared, namespace, &config.name);
        return chosen(
            data,
            &config.items,
            config.optional,
            "configmap",
            &config.name,
        );
    }
    Err("the fake kubelet projects Secrets and ConfigMaps only".to_owned())
}

fn secret_data(shared: &Shared, namespace: &str, name: &str) -> Option<Contents> {
    let secret = shared.secret(namespace, name)?;
    let data = secret.data.clone().unwrap_or_default().into_iter();
    Some(data.map(|(key, value)| (key, value.0)).collect())
}

fn config_data(shared: &Shared, namespace: &str, name: &str) -> Option<Contents> {
    let config = shared.config_map(namespace, name)?;
    let data = config.data.clone().unwrap_or_default().into_iter();
    let binary = config.binary_data.clone().unwrap_or_default().into_iter();
    let texts = data.map(|(key, value)| (key, value.into_bytes()));
    Some(
        texts
            .chain(binary.map(|(key, value)| (key, value.0)))
            .collect(),
    )
}

fn chosen(
    data: Option<Contents>,
    items: &Option<Vec<KeyToPath>>,
    optional: Option<bool>,
    kind: &str,
    name: &str,
) -> Result<Contents, Missing> {
    let Some(data) = data else {
        return match optional {
            Some(true) => Ok(Contents::new()),
            _ => Err(format!("{kind} {name:?} not found")),
        };
    };
    let Some(items) = items else {
        return Ok(data);
    };
    let mut contents = Contents::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                contents.insert(item.path.clone(), bytes.clone());
            }
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(contents)
}
