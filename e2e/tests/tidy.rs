//! The whole repository's style as a test: floors, homes of libraries, lengths, heads, leftovers.
//!
//! It reads what git tracks, so what is built or fetched is not judged. Function length and the
//! like are clippy's.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 400;
const TEST_FILE_LINES_MAX: usize = 800;
const LINE_CHARS_MAX: usize = 100;
const BLOB_BYTES_MAX: u64 = 256 << 10;
const ARCHITECTURE_LINES_MAX: usize = 300;

/// Files that may break a length for now: path and the length it may have. It only shrinks.
const RATCHET: &[(&str, usize)] = &[];

/// Which module of `node/src` may import which others of it. The first match from above decides.
const FLOORS: &[(&str, &[&str])] = &[
    ("main", ANY),
    ("lib", ANY),
    ("server", ANY),
    ("config", ANY),
    ("telemetry", ANY),
    ("model", &[]),
    ("storage", &["model"]),
    ("machine", &["model", "storage"]),
    ("watch", &["model", "machine", "storage"]),
    ("raft", &["model", "storage", "machine", "watch"]),
    ("replica", &["model", "machine", "watch", "raft", "storage"]),
    (
        "tasks",
        &["model", "machine", "watch", "raft", "storage", "replica"],
    ),
    (
        "api",
        &["model", "machine", "watch", "raft", "replica", "storage"],
    ),
];
/// The same for `sidecar/src`.
const SIDECAR_FLOORS: &[(&str, &[&str])] = &[
    ("main", ANY),
    ("lib", &["wire"]),
    ("wire", &[]),
    ("failure", &[]),
    ("logs", &[]),
    ("tasks", &["failure"]),
    ("store", &["failure"]),
    ("member", &["failure"]),
    ("metrics", &["failure"]),
    ("config", &["member", "store"]),
    ("restore", &["failure", "store"]),
    (
        "backup",
        &["failure", "tasks", "store", "member", "metrics"],
    ),
    (
        "verify",
        &[
            "failure", "tasks", "store", "member", "metrics", "backup", "restore",
        ],
    ),
    (
        "gate",
        &["failure", "store", "member", "config", "backup", "restore"],
    ),
    (
        "api",
        &["failure", "tasks", "member", "metrics", "backup", "verify"],
    ),
    ("serve", ANY),
];
const ANY: &[&str] = &["*"];

/// The same for `operator/src`: what decides (model, plan, status, schedule, objects, pki,
/// monitoring) never reaches what speaks to others (members, observe, act, controller).
const OPERATOR_FLOORS: &[(&str, &[&str])] = &[
    ("main", ANY),
    ("lib", ANY),
    ("bin", ANY),
    ("config", &[]),
    ("api", &[]),
    ("model", &["api"]),
    ("plan", &["api", "model"]),
    ("status", &["api", "model", "plan"]),
    ("schedule", &["api", "model"]),
    ("objects", &["api", "model"]),
    ("pki", &["api", "model", "objects"]),
    ("monitoring", &["api", "model", "objects"]),
    ("manifests", &["api", "monitoring"]),
    ("members", &["model"]),
    ("observe", &["api", "model", "objects", "members"]),
    ("act", &["api", "model", "objects", "members", "observe"]),
    ("controller", ANY),
];

/// The folders in which a library may be named.
const HOMES: &[(&str, &[&str])] = &[
    ("rocksdb", &["node/src/storage"]),
    ("openraft", &["node/src/raft", "node/tests"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("x509_parser", &["tls"]),
    (
        "quorate_tls",
        &[
            "node/src/api/listen.rs",
            "node/src/raft/transport",
            "node/src/server",
            "node/src/config",
            "client",
            "sidecar",
            "operator/src/main.rs",
            "operator/src/members",
            "operator/src/pki",
            "e2e",
        ],
    ),
    ("rcgen", &["tls", "operator/src/pki", "e2e"]),
    (
        "tonic",
        &[
            "node/src/api",
            "node/src/raft",
            "node/tests",
            "client",
            "proto",
            "ctl",
            "sidecar/src/member",
            "sidecar/src/verify",
            "e2e",
            "bench",
        ],
    ),
    ("object_store", &["sidecar/src/store"]),
    ("croner", &["operator/src/schedule"]),
];

/// Words that have no place in the deterministic machine.
const MACHINE_BANNED: &[&str] = &["async", "SystemTime", "Instant", "rand", "HashMap"];

/// Where the operator decides, and words that have no place there: what is decided follows from
/// what was seen, and can be tested without a cluster.
const DECIDING: &[&str] = &["model", "plan", "schedule", "status"];
const DECIDING_BANNED: &[&str] = &["async", "SystemTime", "Instant", "rand", "kube", "tokio"];

fn root() -> PathBuf {
    // At run time: checkouts that share a target directory share this program.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("..")
}

fn tracked() -> Result<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root())
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()?;
    ensure!(output.status.success(), "git ls-files: {output:?}");
    let names = String::from_utf8(output.stdout)?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    // A file that is deleted but not yet staged is still listed.
    let there = names.filter(|name| root().join(name).is_file());
    Ok(there.map(str::to_owned).collect())
}

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| name.to_owned())
}

fn rust_files() -> Result<Vec<(String, String)>> {
    let names = tracked()?.into_iter().filter(|name| name.ends_with(".rs"));
    names.map(|name| Ok((name.clone(), read(&name)?))).collect()
}

/// The code without comments and strings, so that words in prose are not taken for code.
fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let mut inside = false;
        let mut previous = ' ';
        for character in line.chars() {
            if character == '"' && previous != '\\' && previous != '\'' {
                inside = !inside;
            } else if !inside {
                code.push(character);
            }
            previous = character;
        }
        code.push('\n');
    }
    code
}

/// What stands before the first `#[cfg(test)]` that opens a module of tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {")
        .map_or(text, |at| &text[..at])
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn fail_if(faults: Vec<String>) -> Result<()> {
    ensure!(faults.is_empty(), "\n{}", faults.join("\n"));
    Ok(())
}

/// The modules of this crate that a file names: `crate::x`, and `crate::{x, y}`.
fn imports(code: &str) -> BTreeSet<String> {
    let flat: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for (at, _) in flat.match_indices("crate::") {
        if flat[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &flat[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        let mut depth = 0;
        let mut first = true;
        for (start, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                character if first && depth == 0 && character.is_alphabetic() => {
                    found.extend(words(&group[start..]).next().map(str::to_owned));
                    first = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn imports_reads_groups() {
    let code = "use crate::{model::{A, b}, storage::c,\n watch}; x(crate::raft::D); $crate::no";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["model", "raft", "storage", "watch"]);
}

#[test]
fn floors_import_downwards() -> Result<()> {
    let mut faults = floor_faults("node/src/", FLOORS)?;
    faults.extend(floor_faults("sidecar/src/", SIDECAR_FLOORS)?);
    faults.extend(floor_faults("operator/src/", OPERATOR_FLOORS)?);
    fail_if(faults)
}

fn floor_faults(folder: &str, floors: &[(&str, &[&str])]) -> Result<Vec<String>> {
    let known: BTreeSet<&str> = floors.iter().map(|(floor, _)| *floor).collect();
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        let Some(inner) = name.strip_prefix(folder) else {
            continue;
        };
        let module = inner.split('/').next().unwrap_or_default();
        let module = module.trim_end_matches(".rs");
        let Some((_, allowed)) = floors.iter().find(|(floor, _)| *floor == module) else {
            faults.push(format!("{name}: {module} is no floor; add it to the table"));
            continue;
        };
        if *allowed == ANY {
            continue;
        }
        // Tests may look at neighbours; the shape is that of the code.
        for import in imports(&code(without_tests(&text))) {
            let floor = known.contains(import.as_str());
            if floor && import != module && !allowed.contains(&import.as_str()) {
                faults.push(format!("{name}: {module} must not import {import}"));
            }
        }
    }
    Ok(faults)
}

#[test]
fn libraries_stay_at_home() -> Result<()> {
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        let code = code(&text);
        for (library, homes) in HOMES {
            let named = words(&code).any(|word| word == *library);
            if named && !homes.iter().any(|home| name.starts_with(home)) {
                faults.push(format!("{name}: {library} belongs to {homes:?}"));
            }
        }
    }
    fail_if(faults)
}

#[test]
fn outsiders_do_not_import_the_node() -> Result<()> {
    let mut faults = Vec::new();
    for package in ["tls", "client", "ctl", "sidecar", "e2e", "bench", "proto"] {
        let manifest = read(&format!("{package}/Cargo.toml"))?;
        if manifest
            .lines()
            .any(|line| line.starts_with("quorate.") || line.starts_with("quorate "))
        {
            faults.push(format!(
                "{package}/Cargo.toml: it must not depend on the node"
            ));
        }
    }
    let node = read("node/Cargo.toml")?;
    if node.lines().any(|line| line.starts_with("quorate-client")) {
        faults.push("node/Cargo.toml: the node must not depend on the client".to_owned());
    }
    fail_if(faults)
}

#[test]
fn files_and_lines_are_short() -> Result<()> {
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        let tests = ["/tests.rs", "_test.rs"];
        let is_test = name.contains("/tests/") || tests.iter().any(|end| name.ends_with(end));
        let lines = without_tests(&text).lines().count();
        let usual = if is_test {
            TEST_FILE_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        let ratchet = RATCHET.iter().find(|(file, _)| *file == name);
        let allowed = ratchet.map_or(usual, |(_, lines)| *lines);
        if lines > allowed {
            faults.push(format!("{name}: {lines} lines, {allowed} are allowed"));
        }
        if ratchet.is_some() && lines <= usual {
            faults.push(format!("{name}: short enough; take it from the ratchet"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX && !cannot_break(line) {
                faults.push(format!(
                    "{name}:{}: over {LINE_CHARS_MAX} characters",
                    number + 1
                ));
            }
        }
    }
    fail_if(faults)
}

/// A row of a table in a comment, or a text that has to be etcd's in one piece.
fn cannot_break(line: &str) -> bool {
    let line = line.trim_start();
    let longest = line.split('"').skip(1).step_by(2).map(str::len).max();
    line.starts_with("//! |") || line.starts_with("/// |") || longest > Some(60)
}

#[test]
fn every_file_says_what_it_is_for() -> Result<()> {
    let files = rust_files()?;
    let silent = files.iter().filter(|(_, text)| !text.starts_with("//! "));
    fail_if(
        silent
            .map(|(name, _)| format!("{name}: the first line is no `//!`"))
            .collect(),
    )
}

#[test]
fn the_machine_is_deterministic() -> Result<()> {
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        if !name.starts_with("node/src/machine/") {
            continue;
        }
        let code = code(without_tests(&text));
        for banned in MACHINE_BANNED {
            if words(&code).any(|word| word == *banned) {
                faults.push(format!("{name}: {banned} has no place in the machine"));
            }
        }
    }
    fail_if(faults)
}

#[test]
fn decisions_are_pure() -> Result<()> {
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        let inner = name.strip_prefix("operator/src/").unwrap_or_default();
        let folder = inner.split('/').next().unwrap_or_default();
        if !DECIDING.contains(&folder) {
            continue;
        }
        let code = code(without_tests(&text));
        for banned in DECIDING_BANNED {
            if words(&code).any(|word| word == *banned) {
                faults.push(format!("{name}: {banned} has no place where it is decided"));
            }
        }
    }
    fail_if(faults)
}

#[test]
fn no_file_is_dead() -> Result<()> {
    let files = rust_files()?;
    let mut faults = Vec::new();
    for (name, _) in &files {
        let path = Path::new(name);
        let Some((_, inner)) = name.split_once("/src/") else {
            continue;
        };
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a name")?;
        if ["lib", "main"].contains(&stem) || inner.starts_with("bin/") {
            continue;
        }
        let folder = path.parent().context("a folder")?;
        let (module, folder) = match stem {
            "mod" => (
                folder
                    .file_name()
                    .and_then(|name| name.to_str())
                    .context("a name")?,
                folder.parent().context("a folder")?,
            ),
            stem => (stem, folder),
        };
        let beside = format!("{}.rs", folder.display());
        // A file of tests may lie beside the file that it tests.
        let tested = format!("{}.rs", module.trim_end_matches("_test"));
        let parents = ["mod.rs", "lib.rs", "main.rs", &tested].map(|file| folder.join(file));
        let declared = files.iter().any(|(other, text)| {
            let is_parent = parents.contains(&PathBuf::from(other)) || *other == beside;
            is_parent && text.lines().any(|line| declares(line, module))
        });
        if !declared {
            faults.push(format!("{name}: no parent has `mod {module};`"));
        }
    }
    fail_if(faults)
}

fn declares(line: &str, module: &str) -> bool {
    let line = line.trim().trim_end_matches(';');
    let mut words = line.split_whitespace();
    words.next_back() == Some(module) && words.next_back() == Some("mod")
}

#[test]
fn no_test_is_ignored() -> Result<()> {
    let mut faults = Vec::new();
    for (name, text) in rust_files()? {
        let code = code(&text);
        for (number, line) in code.lines().enumerate() {
            let flat: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            if flat.starts_with("#[ignore") {
                faults.push(format!("{name}:{}: a test that does not run", number + 1));
            }
        }
    }
    fail_if(faults)
}

#[test]
fn tracked_files_are_small_and_name_no_machine() -> Result<()> {
    // Put together here, so that this file does not name them itself.
    let machine_paths = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut faults = Vec::new();
    for name in tracked()? {
        let bytes = std::fs::read(root().join(&name))?;
        if bytes.len() as u64 > BLOB_BYTES_MAX {
            faults.push(format!("{name}: {} bytes", bytes.len()));
        }
        let text = String::from_utf8_lossy(&bytes);
        for path in &machine_paths {
            for (at, _) in text.match_indices(path.as_str()) {
                // `…/network/…` and URLs hold these letters too: a path starts after a blank.
                let before = text[..at].chars().next_back();
                if before.is_none_or(|c| !c.is_alphanumeric() && !"/.-_}".contains(c)) {
                    faults.push(format!("{name}: holds the path {path}"));
                }
            }
        }
    }
    fail_if(faults)
}

#[test]
fn the_architecture_page_is_short() -> Result<()> {
    let name = "docs/architecture.md";
    let lines = read(name)?.lines().count();
    ensure!(lines <= ARCHITECTURE_LINES_MAX, "{name}: {lines} lines");
    Ok(())
}
