//! `quorate-manifests`: writes the generated files of the checkout, or tells which are stale.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use quorate_operator::manifests;

/// Write CRDs and dashboards into the checkout.
#[derive(Debug, Parser)]
struct Flags {
    /// Write nothing; fail when a file is not what would be written.
    #[arg(long)]
    check: bool,
    /// The checkout.
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let mut stale = Vec::new();
    for file in manifests::all()? {
        let path = flags.root.join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        if !flags.check {
            write(&path, &file.text)?;
        }
        stale.push(file.path.display().to_string());
    }
    match flags.check && !stale.is_empty() {
        true => bail!("stale; run `make manifests`: {}", stale.join(", ")),
        false => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("it lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
