//! The reference of the members' image, computed and checked before a kubelet meets it.
//!
//! The grammar is that of the distribution project's `reference` package.

use super::Settings;
use crate::api::QuorateCluster;
use crate::model::Refusal;

/// How long the part before tag and digest may be.
const NAME_MAX: usize = 255;

/// The version that members are to run.
#[must_use]
pub fn version(cluster: &QuorateCluster, settings: &Settings) -> String {
    let wanted = cluster.spec.version.clone();
    wanted.unwrap_or_else(|| settings.operator_version.clone())
}

/// The reference of the members' image.
///
/// # Errors
/// A part of it is none: which, and what would be right.
pub fn image(cluster: &QuorateCluster, settings: &Settings) -> Result<String, Refusal> {
    let image = &cluster.spec.image;
    let repository = image
        .repository
        .as_ref()
        .unwrap_or(&settings.member_image_repository);
    check_repository(repository).map_err(|wrong| refusal("repository", repository, &wrong))?;
    if let Some(digest) = &image.digest {
        check_digest(digest).map_err(|wrong| refusal("digest", digest, &wrong))?;
        // A tag beside a digest is for people: runtimes go by the digest.
        return Ok(match &image.tag {
            Some(tag) => format!("{repository}:{}@{digest}", checked_tag(tag)?),
            None => format!("{repository}@{digest}"),
        });
    }
    let tag = image.tag.clone();
    let tag = tag.unwrap_or_else(|| version(cluster, settings));
    Ok(format!("{repository}:{}", checked_tag(&tag)?))
}

fn refusal(part: &str, value: &str, wrong: &str) -> Refusal {
    Refusal {
        reason: "InvalidReference".to_owned(),
        message: format!("spec.image.{part} {value:?}: {wrong}"),
    }
}

fn checked_tag(tag: &str) -> Result<&str, Refusal> {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = |c: char| first(c) || c == '.' || c == '-';
    match tag.starts_with(first) && tag.chars().all(rest) && tag.len() <= 128 {
        true => Ok(tag),
        false => Err(refusal(
            "tag",
            tag,
            "a tag is up to 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
        )),
    }
}

fn check_digest(digest: &str) -> Result<(), String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let fits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match hex.len() == 64 && hex.chars().all(fits) {
        true => Ok(()),
        false => Err("a digest is 'sha256:' and 64 lower-case hexadecimal digits".to_owned()),
    }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.len() > NAME_MAX {
        return Err(format!("it may have {NAME_MAX} characters"));
    }
    if repository.contains('@') {
        return Err("a digest belongs into spec.image.digest".to_owned());
    }
    let (domain, path) = match repository.split_once('/') {
        Some((first, rest)) if is_domain(first) => (Some(first), rest),
        _ => (None, repository),
    };
    if let Some(domain) = domain {
        check_domain(domain)?;
    }
    if path.contains(':') {
        return Err("a tag belongs into spec.image.tag".to_owned());
    }
    match path.split('/').all(is_component) {
        true => Ok(()),
        false => Err(
            "each part between slashes is lower-case letters and digits, joined by one '.', one \
             or two '_', or any number of '-': registry.example.org:5000/team/quorate"
                .to_owned(),
        ),
    }
}

/// What stands before the first slash is a registry when it looks like a host.
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first == "localhost"
}

fn check_domain(domain: &str) -> Result<(), String> {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the registry's port is no number from 0 to 65535".to_owned());
    }
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Ok(());
    }
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match host.split('.').all(label) {
        true => Ok(()),
        false => Err("the registry is no host name or address".to_owned()),
    }
}

fn is_component(component: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(plain) || !component.ends_with(plain) {
        return false;
    }
    let separators = component.split(plain).filter(|text| !text.is_empty());
    let fits = |text: &str| {
        matches!(text, "." | "_" | "__") || text.chars().all(|character| character == '-')
    };
    separators.into_iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::{cluster, settings};

    fn reference(repository: &str, tag: &str, digest: &str) -> Result<String, Refusal> {
        let mut cluster = cluster();
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        cluster.spec.image.repository = given(repository);
        cluster.spec.image.tag = given(tag);
        cluster.spec.image.digest = given(digest);
        image(&cluster, &settings())
    }

    #[test]
    fn references_are_computed() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (repository, tag, digest, expected) in [
            ("", "", "", "quorate.example/quorate:0.1.0".to_owned()),
            (
                "r.example:5000/a/b",
                "v1",
                "",
                "r.example:5000/a/b:v1".to_owned(),
            ),
            (
                "localhost/quorate",
                "x",
                "",
                "localhost/quorate:x".to_owned(),
            ),
            (
                "[::1]:5000/quorate",
                "x",
                "",
                "[::1]:5000/quorate:x".to_owned(),
            ),
            ("a__b/c--d.e", "", "", "a__b/c--d.e:0.1.0".to_owned()),
            ("q", "", &digest, format!("q@{digest}")),
            ("q", "t", &digest, format!("q:t@{digest}")),
        ] {
            assert_eq!(reference(repository, tag, digest), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_what_would_be_right() {
        for (repository, tag, digest, words) in [
            ("Quorate", "", "", "lower-case"),
            ("a//b", "", "", "lower-case"),
            ("a___b", "", "", "lower-case"),
            ("a/b:tag", "", "", "spec.image.tag"),
            ("a@sha256:00", "", "", "spec.image.digest"),
            ("r.example:port/a", "", "", "port"),
            ("r..example/a", "", "", "registry"),
            ("q", "-t", "", "a tag is"),
            ("q", "", "sha256:xyz", "64 lower-case"),
        ] {
            let refused = reference(repository, tag, digest).expect_err("it is none");
            assert_eq!(refused.reason, "InvalidReference");
            assert!(refused.message.contains(words), "{}", refused.message);
        }
        assert!(reference(&"a".repeat(256), "", "").is_err());
    }
}
