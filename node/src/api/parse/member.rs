//! Peer URLs of a member.

use crate::model::Refusal;
use crate::model::url::{Url, texts};

/// The peer URLs of a new member, in etcd's order.
///
/// etcd: client/pkg/types/urls.go, `NewURLs`.
///
/// # Errors
/// [`Refusal::BadMemberUrls`] when there is none, or one that is none.
pub fn peer_urls(given: &[String]) -> Result<Vec<String>, Refusal> {
    let urls = given.iter().map(|text| Url::parse(text));
    let mut urls = urls
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Refusal::BadMemberUrls)?;
    // Commas part the URLs of a member where they are kept together.
    if urls.is_empty() || urls.iter().any(|url| url.text.contains(',')) {
        return Err(Refusal::BadMemberUrls);
    }
    urls.sort_by(|one, other| one.text.cmp(&other.text));
    Ok(texts(&urls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_sorted_and_checked() {
        let parse = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            peer_urls(&urls)
        };
        assert_eq!(
            parse(&["http://b:1", " http://a:1"]),
            Ok(vec!["http://a:1".to_owned(), "http://b:1".to_owned()])
        );
        for bad in [
            &[][..],
            &["localhost:1"],
            &["http://a"],
            &["http://a:1/path"],
            &["http://a:1,http://b:1"],
        ] {
            assert_eq!(parse(bad), Err(Refusal::BadMemberUrls), "{bad:?}");
        }
    }
}
