//! What object_store says, as a reason that stays the same and a text without secrets.

use std::error::Error as StdError;
use std::io;

use crate::failure::{Failure, Reason};

/// Longer texts are pages of HTML or XML that help nobody.
const TEXT_CHARS_MAX: usize = 300;
/// A shorter secret would blot out ordinary words.
const SECRET_CHARS_MIN: usize = 6;

/// Codes of S3 that speak of credentials, whatever HTTP status a server sends with them.
const CREDENTIAL_CODES: [&str; 7] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
    // versitygw, for an access key that it does not know.
    "XAdminUserNotFound",
];

/// Values that must not be told.
#[derive(Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn add(&mut self, secret: &str) {
        if secret.len() >= SECRET_CHARS_MIN {
            self.0.push(secret.to_owned());
        }
    }

    fn scrub(&self, text: &str) -> String {
        let scrub = |text: String, secret: &String| text.replace(secret.as_str(), "…");
        self.0.iter().fold(text.to_owned(), scrub)
    }
}

/// `what` was tried, such as `write s3://bucket/key`.
pub fn failure(error: &object_store::Error, what: &str, secrets: &Secrets) -> Failure {
    let reason = reason(error);
    let text = secrets.scrub(&short(error));
    Failure::new(reason, format!("{what}: {text}"))
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

fn reason(error: &object_store::Error) -> Reason {
    use object_store::Error;
    let whole = whole(error);
    if between(&whole, "<Code>", "</Code>").is_some_and(|code| CREDENTIAL_CODES.contains(&code)) {
        return Reason::AccessDenied;
    }
    match error {
        Error::NotFound { .. } => return Reason::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            return Reason::AccessDenied;
        }
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            return Reason::BadRequest;
        }
        Error::JoinError { .. } | Error::NotImplemented { .. } | Error::NotSupported { .. } => {
            return Reason::Internal;
        }
        _ => {}
    }
    let disk = chain(error).find_map(|error| error.downcast_ref::<io::Error>());
    match disk.map(io::Error::kind) {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Reason::DiskFull,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Reason::AccessDenied
        }
        Some(io::ErrorKind::NotFound) => Reason::NotFound,
        _ => Reason::StoreUnreachable,
    }
}

fn whole(error: &object_store::Error) -> String {
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    texts.join(": ")
}

/// The server's own code and message where there is an answer in XML, else the last cause.
fn short(error: &object_store::Error) -> String {
    let whole = whole(error);
    let code = between(&whole, "<Code>", "</Code>");
    let message = between(&whole, "<Message>", "</Message>");
    let text = match (code, message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => chain(error)
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string),
    };
    let text = text.replace(['\n', '\r'], " ");
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_kept_and_secrets_are_not() {
        let mut secrets = Secrets::default();
        secrets.add("AKIASECRETKEY");
        let error = object_store::Error::Unauthenticated {
            path: "a/b".into(),
            source: "Server returned non-2xx status code: 403: <?xml?><Error>\
                     <Code>InvalidAccessKeyId</Code><Message>no key AKIASECRETKEY</Message>\
                     <AWSAccessKeyId>AKIASECRETKEY</AWSAccessKeyId></Error>"
                .into(),
        };
        let failure = failure(&error, "write s3://b/k", &secrets);
        assert_eq!(failure.reason, Reason::AccessDenied);
        assert_eq!(
            failure.message,
            "write s3://b/k: InvalidAccessKeyId: no key …"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_a_store_that_does_not_answer() {
        let generic = |source: io::Error| object_store::Error::Generic {
            store: "it",
            source: Box::new(source),
        };
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, Reason::DiskFull),
            (io::ErrorKind::PermissionDenied, Reason::AccessDenied),
            (io::ErrorKind::ConnectionRefused, Reason::StoreUnreachable),
        ] {
            let found = failure(&generic(kind.into()), "write", &Secrets::default());
            assert_eq!(found.reason, expected);
        }
    }
}
