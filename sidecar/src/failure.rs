//! Why something was not done: a reason that stays the same, and a sentence for a person.

use http::StatusCode;
use quorate_sidecar::wire::Problem;

/// The kinds of failures that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    NotFound,
    Busy,
    StoreUnreachable,
    AccessDenied,
    Truncated,
    HashMismatch,
    MemberUnavailable,
    DiskFull,
    Cancelled,
    Internal,
}

impl Reason {
    /// The word for it on the wire and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Busy => "Busy",
            Self::StoreUnreachable => "StoreUnreachable",
            Self::AccessDenied => "AccessDenied",
            Self::Truncated => "Truncated",
            Self::HashMismatch => "HashMismatch",
            Self::MemberUnavailable => "MemberUnavailable",
            Self::DiskFull => "DiskFull",
            Self::Cancelled => "Cancelled",
            Self::Internal => "Internal",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Busy | Self::Cancelled => StatusCode::CONFLICT,
            Self::Truncated | Self::HashMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::StoreUnreachable | Self::MemberUnavailable | Self::DiskFull | Self::Internal => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// A failure with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// A failure of the local disk.
    pub fn disk(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::DiskFull,
            _ => Reason::Internal,
        };
        Self::new(reason, format!("{what}: {error}"))
    }

    /// A failure of a snapshot's file.
    pub fn snapshot(error: quorate_snapshot::Error) -> Self {
        use quorate_snapshot::Error;
        let reason = match &error {
            Error::Io { path, source } => return Self::disk(path, source),
            Error::NoDigest => Reason::Truncated,
            Error::OtherDigest { .. } | Error::Damaged { .. } | Error::Content { .. } => {
                Reason::HashMismatch
            }
            Error::Order(_)
            | Error::NotEmpty { .. }
            | Error::Sink(_)
            | Error::Compacted
            | Error::Future => Reason::Internal,
            Error::Cluster(_) => Reason::BadRequest,
        };
        // The hashes as numbers would fill a line and tell nobody anything.
        let message = match &error {
            Error::OtherDigest { .. } => "the snapshot's SHA-256 is not that of its content".into(),
            Error::NoDigest => "the snapshot ends before its SHA-256".into(),
            other => other.to_string(),
        };
        Self::new(reason, message)
    }

    /// The HTTP status that goes with it.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.word().to_owned(),
            message: failure.message,
        }
    }
}
