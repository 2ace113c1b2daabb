//! Passwords typed at a terminal.

use crate::log::write_error;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Asks for a password on the terminal, without showing what is typed.
///
/// # Errors
/// When there is no terminal.
pub fn ask(prompt: &str) -> Result<String, String> {
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|error| format!("open /dev/tty: {error}"))?;
    let echo = |mode: &str| {
        let input = terminal.try_clone().map_err(|error| error.to_string())?;
        let status = Command::new("stty")
            .arg(mode)
            .stdin(Stdio::from(input))
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("stty {mode}: {status}")),
            Err(error) => Err(format!("stty {mode}: {error}")),
        }
    };
    write_error(prompt);
    echo("-echo")?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    echo("echo")?;
    write_error("\n");
    read.map_err(|error| error.to_string())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
