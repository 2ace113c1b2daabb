//! Backups by real sidecars to a volume and to a real S3 server: whole, proved, restored here and
//! by the real etcdutl, and nothing that counts when anything dies on the way.

use anyhow::{Context, Result, ensure};
use async_compression::tokio::write::ZstdDecoder;
use quorate_client::Client;
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Options, specs};
use quorate_e2e::process::{Process, Spec};
use quorate_e2e::rpc::MaintenanceClient;
use quorate_e2e::s3::{ACCESS_KEY, S3, SECRET_KEY, Wire, objects, write_secret};
use quorate_e2e::sidecar::{Pods, Sidecar, gate, hash};
use quorate_e2e::{rpc, secure, wait};
use quorate_proto::etcdserverpb as pb;
use quorate_sidecar::wire::{
    Artifact, BackupRequest, BackupState, DeleteRequest, Phase, PvcStore, RestoreRequest, Store,
    VerifyMode, VerifyRequest, exit,
};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

const BUCKET: &str = "backups-of-e2e";
const SOON: Duration = Duration::from_secs(10);
const MIB: usize = 1024 * 1024;

/// One member with its sidecar, an S3 server and a volume.
struct Bench {
    pods: Pods,
    sidecar: Sidecar,
    s3: S3,
    folder: TempDir,
}

impl Bench {
    async fn start() -> Result<Self> {
        let pods = Pods::start(1).await?;
        let folder = tempfile::tempdir()?;
        let s3 = S3::start(BUCKET, None).await?;
        write_secret(&folder.path().join("credentials"), ACCESS_KEY, SECRET_KEY)?;
        let sidecar = pods.sidecar(0, folder.path()).await?;
        Ok(Self {
            pods,
            sidecar,
            s3,
            folder,
        })
    }

    fn bucket(&self) -> Store {
        self.s3.store(BUCKET, self.s3.port)
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    /// Nothing but the journal of uploads lies in the scratch directory.
    fn scratch_is_clean(&self) -> Result<()> {
        let left = objects(&self.folder.path().join("scratch"))?;
        let is_clean = left.iter().all(|name| name.ends_with("/uploads.json"));
        ensure!(is_clean, "the proofs left {left:?}");
        Ok(())
    }

    /// Puts keys, overwrites, deletes and compacts.
    async fn fill(&self) -> Result<()> {
        let client = self.pods.client(0)?;
        for number in 0..60 {
            client
                .put(format!("key-{}", number % 23), format!("value-{number}"))
                .await?;
        }
        client.delete("key-3").await?;
        let large = quorate_client::proto::etcdserverpb::CompactionRequest {
            revision: 30,
            physical: true,
        };
        client.kv().compact(large).await?;
        for number in 0..20 {
            client
                .put(format!("new-{number}"), vec![b'n'; 10_000])
                .await?;
        }
        Ok(())
    }

    /// Puts so many MiB that do not compress.
    async fn fill_with_noise(&self, mib: usize) -> Result<()> {
        let client = self.pods.client(0)?;
        for number in 0..mib {
            let mut noise = vec![0; MIB];
            rand::fill(&mut noise[..]);
            client.put(format!("noise-{number}"), noise).await?;
        }
        Ok(())
    }

    fn request(&self, name: &str, store: Store) -> BackupRequest {
        BackupRequest {
            name: name.into(),
            store,
            key: format!("tests/pods-12345678/2026/11/{name}"),
            cluster: "tests/pods".into(),
        }
    }

    async fn backup(&self, name: &str, store: Store) -> Result<Artifact> {
        let ended = self.sidecar.backup(&self.request(name, store)).await?;
        ensure!(ended.phase == Phase::Succeeded, "{ended:?}");
        ended.artifact.context("an artifact")
    }

    async fn verify(
        &self,
        name: &str,
        store: Store,
        artifact: &Artifact,
        mode: VerifyMode,
    ) -> Result<Option<String>> {
        let request = VerifyRequest {
            name: format!("{name}-{mode:?}"),
            store,
            artifact: artifact.clone(),
            mode,
        };
        let ended = self.sidecar.verify(&request).await?;
        ensure!(
            (ended.phase == Phase::Failed) == ended.problem.is_some(),
            "{ended:?}"
        );
        Ok(ended.problem.map(|problem| problem.reason))
    }
}

fn volume_store() -> Store {
    Store {
        pvc: Some(PvcStore {
            claim_name: "backups".into(),
        }),
        ..Store::default()
    }
}

/// The gate's flags to start from a backup.
fn restore_flags(spec: &Spec, folder: &Path, store: Store, key: &str) -> Result<Vec<String>> {
    let request = RestoreRequest {
        store,
        key: key.into(),
    };
    Ok(vec![
        format!("--initial-cluster={}", spec.initial_cluster),
        "--initial-cluster-token=e2e".into(),
        format!("--restore={}", serde_json::to_string(&request)?),
        format!(
            "--restore-credentials-dir={}",
            folder.join("credentials").display()
        ),
        format!("--restore-volume={}", folder.join("volume").display()),
        format!("--termination-log={}", folder.join("words").display()),
    ])
}

async fn plain_hash(port: u16, revision: i64) -> Result<(u32, i64)> {
    let mut client = MaintenanceClient::new(rpc::channel(port, SOON)?);
    let answer = client
        .hash_kv(pb::HashKvRequest { revision })
        .await?
        .into_inner();
    Ok((answer.hash, answer.compact_revision))
}

/// A new member that starts from a backup through the gate must have its hash.
async fn start_from(
    folder: &Path,
    store: Store,
    artifact: &Artifact,
    more: &[&str],
) -> Result<(Process, TempDir)> {
    let (mut specs, dir) = specs(&Options::new(Kind::Quorate, 1))?;
    let spec = specs.pop().context("a member")?;
    let mut flags = restore_flags(&spec, folder, store, &artifact.key)?;
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let passed = gate(&spec, &flags)?;
    ensure!(passed.status.success(), "{passed:?}");
    let mut left = std::fs::read_dir(dir.path())?.map(|entry| Ok(entry?.file_name()));
    let left = left.by_ref().collect::<Result<Vec<_>>>()?;
    ensure!(left == ["m1.data"], "the gate left {left:?}");
    // A gate that runs again before the member's first start changes nothing.
    let again = gate(&spec, &flags)?;
    ensure!(again.status.success(), "{again:?}");
    let mut member = Process::start(spec.clone())?;
    member.ready().await?;
    Ok((member, dir))
}

/// The real etcdutl restores what the object holds, and the real etcd serves it.
async fn etcd_from(object: &Path) -> Result<(Process, TempDir)> {
    let (mut specs, dir) = specs(&Options::new(Kind::Etcd, 1))?;
    let spec = specs.pop().context("a member")?;
    let file = dir.path().join("snapshot.db");
    let mut decoder = ZstdDecoder::new(Vec::new());
    decoder.write_all(&std::fs::read(object)?).await?;
    decoder.shutdown().await?;
    std::fs::write(&file, decoder.into_inner())?;
    let restored = Command::new(Kind::Etcd.ctl()?.with_file_name("etcdutl"))
        .arg0("etcdutl")
        .args(["snapshot", "restore"])
        .arg(&file)
        .arg(format!("--name={}", spec.name))
        .arg(format!("--data-dir={}", spec.data_dir.display()))
        .arg(format!("--initial-cluster={}", spec.initial_cluster))
        .arg("--initial-cluster-token=e2e")
        .arg(format!(
            "--initial-advertise-peer-urls=http://127.0.0.1:{}",
            spec.peer_port
        ))
        .output()?;
    ensure!(restored.status.success(), "{restored:?}");
    let mut member = Process::start(spec)?;
    member.ready().await?;
    Ok((member, dir))
}

#[tokio::test]
async fn a_backup_is_whole_proved_and_starts_new_clusters() -> Result<()> {
    let bench = Bench::start().await?;
    bench.fill().await?;
    let volume = bench.volume();
    // A server whose certificate comes of an authority of one's own, which the Secret holds.
    let secure = S3::start(BUCKET, Some(bench.pods.files.server.clone())).await?;
    let trusted = bench.folder.path().join("credentials/ca.crt");
    std::fs::copy(&bench.pods.files.authority.file, trusted)?;
    for (name, store, objects_at) in [
        ("to-s3", bench.bucket(), bench.s3.bucket(BUCKET)),
        (
            "to-s3-by-tls",
            secure.store(BUCKET, secure.port),
            secure.bucket(BUCKET),
        ),
        ("to-volume", volume_store(), volume),
    ] {
        whole(&bench, name, store, &objects_at).await?;
    }
    let (_, metrics) = bench.sidecar.call("GET", "/metrics", "").await?;
    for line in [
        "quorate_sidecar_backups_total{outcome=\"Succeeded\"} 3",
        "quorate_sidecar_verifications_total{mode=\"TestRestore\",outcome=\"Succeeded\"} 3",
    ] {
        ensure!(metrics.contains(line), "{metrics}");
    }
    Ok(())
}

/// Takes a backup to one store, and does all with it that can be done.
async fn whole(bench: &Bench, name: &str, store: Store, objects_at: &Path) -> Result<()> {
    let artifact = bench.backup(name, store.clone()).await?;
    let expected = (artifact.hash, artifact.compact_revision);
    ensure!(
        expected == bench.pods.hash(0, artifact.revision).await?,
        "{artifact:?}"
    );
    ensure!(
        artifact.compact_revision == 30 && artifact.keys > 50,
        "{artifact:?}"
    );
    // The object and its manifest are there, and nothing else; the manifest tells everything.
    let manifest = artifact.key.replace(".snap.zst", ".json");
    ensure!(objects(objects_at)? == [manifest.clone(), artifact.key.clone()]);
    let text = std::fs::read(objects_at.join(&manifest))?;
    ensure!(serde_json::from_slice::<Artifact>(&text)? == artifact);
    let object = objects_at.join(&artifact.key);
    ensure!(std::fs::metadata(&object)?.len() == u64::try_from(artifact.size_bytes)?);

    // Asked for again, it is the same one; under way is one at a time.
    let again: BackupState = bench
        .sidecar
        .backup(&bench.request(name, store.clone()))
        .await?;
    ensure!(again.artifact.as_ref() == Some(&artifact), "{again:?}");
    for mode in [VerifyMode::Hash, VerifyMode::TestRestore] {
        let problem = bench.verify(name, store.clone(), &artifact, mode).await?;
        ensure!(problem.is_none(), "{name} {mode:?}: {problem:?}");
    }
    bench.scratch_is_clean()?;

    let (member, _dir) = start_from(bench.folder.path(), store.clone(), &artifact, &[]).await?;
    let found = plain_hash(member.spec.client_port, artifact.revision).await?;
    ensure!(
        found == expected,
        "{name} restored: {found:?}, {expected:?}"
    );
    let (etcd, _dir) = etcd_from(&object).await?;
    let found = plain_hash(etcd.spec.client_port, artifact.revision).await?;
    ensure!(found == expected, "{name} in etcd: {found:?}, {expected:?}");

    let request = DeleteRequest {
        store,
        key: artifact.key.clone(),
    };
    for _ in 0..2 {
        let body = serde_json::to_string(&request)?;
        let (status, answer) = bench.sidecar.call("POST", "/v1/deletions", &body).await?;
        ensure!(status == 204, "{status} {answer}");
    }
    ensure!(
        objects(objects_at)?.is_empty(),
        "{:?}",
        objects(objects_at)?
    );
    Ok(())
}

#[tokio::test]
async fn a_bumped_restore_is_compacted() -> Result<()> {
    let bench = Bench::start().await?;
    bench.fill().await?;
    let artifact = bench.backup("bumped", volume_store()).await?;
    let folder = bench.folder.path();
    let more = ["--restore-bump-revision=1000"];
    let (member, _dir) = start_from(folder, volume_store(), &artifact, &more).await?;
    let client = Client::connect(quorate_client::ClientConfig::new([format!(
        "127.0.0.1:{}",
        member.spec.client_port
    )]))
    .await?;
    let found = client.get("new-1").await?;
    let revision = found.header.context("a header")?.revision;
    ensure!(revision >= artifact.revision + 1000, "{revision}");
    let refused = hash(&client, artifact.revision).await;
    let error = refused.err().context("the old revision is compacted")?;
    ensure!(error.to_string().contains("compacted"), "{error}");
    Ok(())
}

#[tokio::test]
async fn what_a_store_refuses_has_a_reason_and_no_secret() -> Result<()> {
    let mut bench = Bench::start().await?;
    bench.fill().await?;
    let credentials = bench.folder.path().join("credentials");
    let fail = async |bench: &Bench, name: &str, store: Store, reason: &str| -> Result<()> {
        let ended = bench.sidecar.backup(&bench.request(name, store)).await?;
        let problem = ended.problem.context("a problem")?;
        ensure!(
            ended.phase == Phase::Failed && problem.reason == reason,
            "{name}: {problem:?}"
        );
        ensure!(problem.message.len() > 10, "{problem:?}");
        Ok(())
    };
    let bucket = bench.bucket();
    let missing = bench.s3.store("no-such-bucket", bench.s3.port);
    fail(&bench, "missing", missing, "NotFound").await?;
    write_secret(&credentials, "who-is-this-key", SECRET_KEY)?;
    fail(&bench, "stranger", bucket.clone(), "AccessDenied").await?;
    write_secret(&credentials, ACCESS_KEY, "quite-another-secret")?;
    fail(&bench, "wrong", bucket.clone(), "AccessDenied").await?;
    std::fs::remove_file(credentials.join("AWS_SECRET_ACCESS_KEY"))?;
    fail(&bench, "incomplete", bucket.clone(), "AccessDenied").await?;
    write_secret(&credentials, ACCESS_KEY, SECRET_KEY)?;
    let mut twice = bucket.clone();
    twice.pvc = volume_store().pvc;
    fail(&bench, "twice", twice, "BadRequest").await?;
    bench.s3.kill()?;
    fail(&bench, "down", bucket.clone(), "StoreUnreachable").await?;
    let volume = bench.volume();
    std::fs::rename(&volume, bench.folder.path().join("elsewhere"))?;
    fail(&bench, "unmounted", volume_store(), "NotFound").await?;
    std::fs::create_dir(&volume)?;
    bench.pods.cluster.members[0].kill()?;
    fail(&bench, "no-member", volume_store(), "MemberUnavailable").await?;
    bench.s3.restart().await?;
    ensure!(objects(&bench.s3.bucket(BUCKET))?.is_empty() && objects(&volume)?.is_empty());
    let log = std::fs::read_to_string(&bench.sidecar.log)?;
    for secret in [SECRET_KEY, "quite-another-secret"] {
        ensure!(!log.contains(secret), "a secret is in the log");
    }
    Ok(())
}

/// How an upload is interrupted.
#[derive(Debug, Clone, Copy)]
enum End {
    Cancelled,
    StoreKilled,
    SidecarStopped,
    SidecarKilled,
}

#[tokio::test]
async fn whatever_dies_in_mid_upload_leaves_nothing_that_counts() -> Result<()> {
    let mut bench = Bench::start().await?;
    bench.fill_with_noise(20).await?;
    // One wire for all: what is left behind is removed at the address where it was stored.
    let wire = Wire::before(bench.s3.port, u64::MAX).await?;
    for end in [
        End::Cancelled,
        End::StoreKilled,
        End::SidecarStopped,
        End::SidecarKilled,
    ] {
        let name = format!("{end:?}").to_lowercase();
        wire.hold_after(12 * MIB as u64);
        let request = bench.request(&name, bench.s3.store(BUCKET, wire.port));
        let state: BackupState = bench.sidecar.post("/v1/backups", &request).await?;
        ensure!(state.phase == Phase::Running, "{state:?}");
        wire.is_full().await?;
        let other = bench.request("other", bench.bucket());
        let body = serde_json::to_string(&other)?;
        let (status, answer) = bench.sidecar.call("POST", "/v1/backups", &body).await?;
        ensure!(
            status == 409 && answer.contains("Busy"),
            "{status} {answer}"
        );
        bench.interrupt(end, &name, &wire).await?;
        let left = objects(&bench.s3.bucket(BUCKET))?;
        ensure!(left.is_empty(), "{end:?} left {left:?}");
        // A store that does not answer cannot be told to forget; the next sidecar tells it.
        if !matches!(end, End::StoreKilled) {
            wait::until("no parts of unfinished uploads", SOON, async || {
                Ok(bench.parts()?.is_empty().then_some(()))
            })
            .await
            .with_context(|| format!("after {end:?}"))?;
        }
    }
    // After all of it, a backup goes through.
    let artifact = bench.backup("whole", bench.bucket()).await?;
    let problem = bench
        .verify("whole", bench.bucket(), &artifact, VerifyMode::Hash)
        .await?;
    ensure!(problem.is_none(), "{problem:?}");
    ensure!(bench.parts()?.is_empty(), "{:?}", bench.parts()?);
    // Asked for again of a sidecar that knows nothing of it, it is found where it lies.
    bench.sidecar.kill()?;
    bench.sidecar = bench.pods.sidecar(0, bench.folder.path()).await?;
    let again = bench.backup("whole", bench.bucket()).await?;
    ensure!(again == artifact, "{again:?}, {artifact:?}");
    Ok(())
}

impl Bench {
    async fn interrupt(&mut self, end: End, name: &str, wire: &Wire) -> Result<()> {
        let path = format!("/v1/backups/{name}");
        match end {
            End::Cancelled => {
                wire.open();
                let (status, answer) = self.sidecar.call("DELETE", &path, "").await?;
                ensure!(status == 204, "{status} {answer}");
                let state = self.sidecar.backup_ended(name).await?;
                let problem = state.problem.context("a problem")?;
                ensure!(problem.reason == "Cancelled", "{problem:?}");
            }
            End::StoreKilled => {
                self.s3.kill()?;
                wire.open();
                let state = self.sidecar.backup_ended(name).await?;
                let problem = state.problem.context("a problem")?;
                ensure!(problem.reason == "StoreUnreachable", "{problem:?}");
                self.s3.restart().await?;
            }
            End::SidecarStopped => {
                wire.open();
                self.sidecar.terminate().await?;
                self.sidecar = self.pods.sidecar(0, self.folder.path()).await?;
            }
            End::SidecarKilled => {
                self.sidecar.kill()?;
                wire.open();
                self.sidecar = self.pods.sidecar(0, self.folder.path()).await?;
                let (status, answer) = self.sidecar.call("GET", &path, "").await?;
                ensure!(status == 404, "{status} {answer}");
            }
        }
        Ok(())
    }

    /// Files of unfinished uploads.
    fn parts(&self) -> Result<Vec<String>> {
        let folder = self.s3.bucket(BUCKET).join(".sgwtmp/multipart");
        match folder.exists() {
            true => objects(&folder),
            false => Ok(Vec::new()),
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_leaves_no_file_in_the_volume() -> Result<()> {
    let mut bench = Bench::start().await?;
    bench.fill_with_noise(24).await?;
    let folder = bench.folder.path().to_owned();
    // Killed while the file grows; nothing of it has the name of a backup.
    let request = bench.request("killed", volume_store());
    let _: BackupState = bench.sidecar.post("/v1/backups", &request).await?;
    wait::until("a file that grows", SOON, async || {
        Ok((!objects(&bench.volume())?.is_empty()).then_some(()))
    })
    .await?;
    bench.sidecar.kill()?;
    let counts = |key: &String| key.ends_with(".json");
    ensure!(!objects(&bench.volume())?.iter().any(counts));
    bench.sidecar = bench.pods.sidecar(0, &folder).await?;
    let artifact = bench.backup("whole", volume_store()).await?;
    let left = objects(&bench.volume())?;
    let manifest = artifact.key.replace(".snap.zst", ".json");
    ensure!(left == [manifest, artifact.key], "{left:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_damaged_is_neither_proved_nor_restored() -> Result<()> {
    let bench = Bench::start().await?;
    bench.fill().await?;
    let artifact = bench.backup("good", volume_store()).await?;
    let volume = bench.volume();
    let object = volume.join(&artifact.key);
    let manifest = volume.join(artifact.key.replace(".snap.zst", ".json"));
    let whole = std::fs::read(&object)?;
    let text = std::fs::read_to_string(&manifest)?;
    let lie = text.replace(&format!("\"hash\": {}", artifact.hash), "\"hash\": 1");
    ensure!(lie != text);
    let cut = whole[..whole.len() / 2].to_vec();
    let (middle, last) = (whole.len() / 2, whole.len() - 1);
    let (same, told) = (|| Some(whole.clone()), || Some(text.clone()));
    for (name, content, manifest_text, reason) in [
        ("cut", Some(cut), told(), "Truncated"),
        ("first", flipped(&whole, 9), told(), "HashMismatch"),
        ("middle", flipped(&whole, middle), told(), "HashMismatch"),
        ("last", flipped(&whole, last), told(), "HashMismatch"),
        ("gone", None, told(), "NotFound"),
        ("uncounted", same(), None, "NotFound"),
        ("nonsense", same(), Some("{}".into()), "HashMismatch"),
    ] {
        std::fs::remove_file(&object).ok();
        std::fs::remove_file(&manifest).ok();
        if let Some(content) = content {
            std::fs::write(&object, content)?;
        }
        if let Some(manifest_text) = manifest_text {
            std::fs::write(&manifest, manifest_text)?;
        }
        for mode in [VerifyMode::Hash, VerifyMode::TestRestore] {
            let problem = bench.verify(name, volume_store(), &artifact, mode).await?;
            ensure!(
                problem.as_deref() == Some(reason),
                "{name} {mode:?}: {problem:?}"
            );
        }
        refused_restore(&bench, &artifact, reason)?;
    }
    // A manifest that lies: reading all of it proves nothing, a node that starts from it does.
    std::fs::write(&object, &whole)?;
    std::fs::write(&manifest, &lie)?;
    let liar: Artifact = serde_json::from_str(&lie)?;
    let problem = bench
        .verify("lie", volume_store(), &liar, VerifyMode::Hash)
        .await?;
    ensure!(problem.is_none(), "{problem:?}");
    let problem = bench
        .verify("lie", volume_store(), &liar, VerifyMode::TestRestore)
        .await?;
    ensure!(problem.as_deref() == Some("HashMismatch"), "{problem:?}");
    bench.scratch_is_clean()?;
    Ok(())
}

/// The same bytes but for one bit.
fn flipped(whole: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 0x10;
    Some(bytes)
}

/// The gate must exit with its code, say why, and leave nothing.
fn refused_restore(bench: &Bench, artifact: &Artifact, reason: &str) -> Result<()> {
    let (mut specs, dir) = specs(&Options::new(Kind::Quorate, 1))?;
    let spec = specs.pop().context("a member")?;
    let folder = bench.folder.path();
    std::fs::write(folder.join("words"), "")?;
    let flags = restore_flags(&spec, folder, volume_store(), &artifact.key)?;
    let stopped = gate(&spec, &flags)?;
    ensure!(
        stopped.status.code() == Some(exit::RESTORE_FAILED),
        "{stopped:?}"
    );
    let words = std::fs::read_to_string(folder.join("words"))?;
    ensure!(
        words.contains(reason) && words.lines().count() == 1,
        "{words}"
    );
    let left = std::fs::read_dir(dir.path())?.count();
    ensure!(left == 0, "the gate left something behind");
    Ok(())
}

/// The most memory that a process has held so far.
fn peak_bytes(pid: u32) -> Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line
        .context("VmHWM")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024)
}

#[tokio::test]
async fn memory_does_not_grow_with_the_snapshot() -> Result<()> {
    let bench = Bench::start().await?;
    bench.fill_with_noise(16).await?;
    // Once with a small store, so that what any backup takes is there.
    bench.backup("small", bench.bucket()).await?;
    let before = peak_bytes(bench.sidecar.pid()?)?;
    bench.fill_with_noise(290).await?;
    let artifact = bench.backup("large", bench.bucket()).await?;
    ensure!(artifact.size_bytes > 290 * MIB as i64, "{artifact:?}");
    let after = peak_bytes(bench.sidecar.pid()?)?;
    let grown = after.saturating_sub(before) / MIB;
    eprintln!(
        "a backup of 306 MiB: {} MiB at most, {grown} more than for 16",
        after / MIB
    );
    ensure!(
        grown < 48,
        "{grown} MiB more for 290 MiB more, from {before} bytes"
    );
    let problem = bench
        .verify("large", bench.bucket(), &artifact, VerifyMode::Hash)
        .await?;
    ensure!(problem.is_none(), "{problem:?}");
    let proved = peak_bytes(bench.sidecar.pid()?)?;
    let grown = proved.saturating_sub(before) / MIB;
    eprintln!("its proof: {} MiB at most", proved / MIB);
    ensure!(
        grown < 80,
        "{grown} MiB more to prove 290 MiB, from {before} bytes"
    );
    Ok(())
}

#[tokio::test]
async fn a_backup_under_writes_and_compactions_has_its_own_hash() -> Result<()> {
    let bench = Bench::start().await?;
    bench.fill().await?;
    let client = secure::client(
        &[secure::url(&bench.pods.cluster.members[0], true)],
        Some(bench.pods.files.tls()),
    )?;
    let stop = tokio_util::sync::CancellationToken::new();
    let writes = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut revision = 0;
            while !stop.is_cancelled() {
                for number in 0..20 {
                    let put = client.put(format!("busy-{number}"), "x").await?;
                    revision = put.header.unwrap_or_default().revision;
                }
                let request = pb::CompactionRequest {
                    revision: revision - 10,
                    physical: false,
                };
                client.kv().compact(request).await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    for number in 0..4 {
        let name = format!("busy-{number}");
        let artifact = bench.backup(&name, volume_store()).await?;
        let problem = bench
            .verify(&name, volume_store(), &artifact, VerifyMode::TestRestore)
            .await?;
        ensure!(problem.is_none(), "{artifact:?}: {problem:?}");
    }
    stop.cancel();
    writes.await?
}
