//! What `--help` and `--version` print.

use std::fmt::Write;

use super::table::{self, Effect, Kind, Section};

/// The release of etcd that we are compatible with, as tools read it.
pub const ETCD_VERSION: &str = "3.7.3";
/// etcd's cluster and storage version of that release.
pub const ETCD_MINOR_VERSION: &str = "3.7.0";
/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One line for an error of the command line.
pub const USAGE: &str = "Usage:\n\n  quorate [flags]\n    Start a member.\n\n  \
                         quorate --version\n    Show the versions.\n\n  \
                         quorate -h | --help\n    Show the flags.\n";

/// The first lines that `--version` prints, in the form of etcd's, which tools parse.
pub fn version() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        architecture => architecture,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: Not provided (use ./build instead of go build)\n\
         Go Version: none (Rust)\n\
         Go OS/Arch: {os}/{architecture}\n\
         Quorate Version: {VERSION}\n"
    )
}

/// All flags with defaults and what becomes of those that we do not have.
pub fn flags() -> String {
    let mut text = USAGE.to_owned();
    for section in Section::ALL {
        write!(text, "\n{}:\n", section.title()).expect("a String takes all");
        for flag in table::all().filter(|flag| flag.section == section) {
            let default = match (flag.kind, flag.default) {
                (Kind::Bool, value) => value.to_owned(),
                (Kind::Int | Kind::Uint | Kind::Uint32, value) => value.to_owned(),
                (_, value) => format!("'{value}'"),
            };
            write!(text, "  --{} {default}\n    {}\n", flag.name, flag.help)
                .expect("a String takes all");
            match flag.effect {
                Effect::Works => {}
                Effect::Idle(reason) => {
                    writeln!(text, "    Has no effect: {reason}.").expect("a String takes all");
                }
                Effect::Refused(reason) => {
                    writeln!(text, "    Refused: {reason}.").expect("a String takes all");
                }
            }
        }
    }
    text
}
