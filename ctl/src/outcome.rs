//! How a command ends: an exit code and perhaps a line on standard error.

use std::fmt::Display;

/// The exit codes of etcdctl (pkg/cobrautl/error.go).
pub mod code {
    /// A request or command failed.
    pub const ERROR: i32 = 1;
    /// No client could be made, or a lease call failed.
    pub const BAD_CONNECTION: i32 = 2;
    /// What `txn` or `watch -i` read makes no sense.
    pub const INVALID_INPUT: i32 = 3;
    /// A value that a flag does not support.
    pub const BAD_FEATURE: i32 = 4;
    /// The server ended a watch.
    pub const INTERRUPTED: i32 = 5;
    /// Reading or writing failed.
    pub const IO: i32 = 6;
    /// Nobody reads standard output any more; what a shell shows of a program that SIGPIPE ended.
    pub const BROKEN_PIPE: i32 = 141;
    /// Wrong arguments.
    pub const BAD_ARGUMENTS: i32 = 128;
}

/// An end that is not success.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code of the program.
    pub code: i32,
    /// What follows `Error: ` on standard error; nothing when all was said already.
    pub message: Option<String>,
}

impl Exit {
    /// An end with a message.
    pub fn new(code: i32, message: impl Display) -> Self {
        Self {
            code,
            message: Some(message.to_string()),
        }
    }

    /// An end after which nothing more is said.
    pub fn silent(code: i32) -> Self {
        Self {
            code,
            message: None,
        }
    }

    /// The end after wrong arguments.
    pub fn bad_arguments(message: impl Display) -> Self {
        Self::new(code::BAD_ARGUMENTS, message)
    }

    /// The end after a failed request.
    pub fn error(message: impl Display) -> Self {
        Self::new(code::ERROR, message)
    }
}

impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(code::BROKEN_PIPE);
        }
        Self::new(code::IO, error)
    }
}
