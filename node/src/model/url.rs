//! URLs of listeners and members, with etcd's checks.
//!
//! etcd: client/pkg/types/urls.go, urlsmap.go, server/embed/config.go (checkBindURLs,
//! checkHostURLs).

use std::collections::BTreeMap;

/// How to speak to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

/// One URL: `http://host:port`, or `unix://path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// As given, without spaces around it.
    pub text: String,
    pub scheme: Scheme,
    /// `host:port`, or the path of a socket.
    pub address: String,
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// etcd's sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                ));
            }
        };
        let address = rest.strip_prefix("//").unwrap_or(rest);
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            let (authority, path) = match address.find('/') {
                Some(slash) => address.split_at(slash),
                None => (address, ""),
            };
            if split_host_port(authority).is_none() {
                return Err(format!(
                    "URL address does not have the form \"host:port\": {text}"
                ));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            scheme,
            address: address.to_owned(),
        })
    }

    /// Reads URLs that are parted by commas, sorted as etcd sorts them; none from an empty text.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut urls = text
            .split(',')
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// Host and port, without the brackets of an IPv6 address; none of a socket in the file
    /// system.
    pub fn host_port(&self) -> Option<(&str, &str)> {
        match self.scheme {
            Scheme::Http | Scheme::Https => split_host_port(&self.address),
            Scheme::Unix | Scheme::Unixs => None,
        }
    }

    /// Refuses a URL that cannot be bound: its host must be an address or `localhost`.
    pub fn check_bind(&self) -> Result<(), String> {
        match self.host_port() {
            Some(("localhost", _)) | None => Ok(()),
            Some((host, _)) if host.parse::<std::net::IpAddr>().is_ok() => Ok(()),
            Some(_) => Err(format!("expected IP in URL for binding ({})", self.text)),
        }
    }

    /// Refuses a URL that nobody can connect to, because it names no host.
    pub fn check_host(&self) -> Result<(), String> {
        match self.host_port() {
            Some(("", _)) => Err(format!("unexpected empty host ({})", self.text)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether TLS is asked for.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }
}

/// As Go's net.SplitHostPort.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some((host, port))
}

/// The texts of URLs.
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text.clone()).collect()
}

/// Reads `name=URL,name=URL`; a name may stand several times.
pub fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for part in text.split(',') {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        let name = name.trim();
        if url.is_empty() || name.is_empty() {
            return Err(format!("empty URL given for {name:?}"));
        }
        members
            .entry(name.to_owned())
            .or_default()
            .push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_in_the_words_of_etcd() {
        for (text, error) in [
            ("http://localhost:2379", None),
            ("https://[::1]:2379", None),
            ("unix:///tmp/s", None),
            ("unix:relative:1", None),
            (
                "localhost:2379",
                Some("URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ),
            (
                "ftp://a:1",
                Some("URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ),
            (
                "http://localhost",
                Some("URL address does not have the form \"host:port\": http://localhost"),
            ),
            (
                "http://::1:2379",
                Some("URL address does not have the form \"host:port\": http://::1:2379"),
            ),
            (
                "http://a:1/",
                Some("URL must not contain a path: http://a:1/"),
            ),
        ] {
            assert_eq!(Url::parse(text).err().as_deref(), error, "{text}");
        }
    }

    #[test]
    fn lists_are_sorted_and_hold_each_url_once() {
        let urls = Url::parse_list("http://b:1, http://a:1,http://b:1").expect("they are in order");
        assert_eq!(texts(&urls), ["http://a:1", "http://b:1"]);
        assert!(Url::parse_list("").expect("none is fine").is_empty());
        assert!(Url::parse_list("http://a:1,").is_err());
    }

    #[test]
    fn binding_needs_an_address_and_advertising_a_host() {
        let url = |text| Url::parse(text).expect("it is in order");
        assert!(url("http://localhost:1").check_bind().is_ok());
        assert!(url("http://0.0.0.0:1").check_bind().is_ok());
        assert!(url("http://[::]:1").check_bind().is_ok());
        assert_eq!(
            url("http://example.com:1").check_bind(),
            Err("expected IP in URL for binding (http://example.com:1)".to_owned())
        );
        assert!(url("http://example.com:1").check_host().is_ok());
        assert_eq!(
            url("http://:1").check_host(),
            Err("unexpected empty host (http://:1)".to_owned())
        );
    }

    #[test]
    fn a_cluster_names_its_members() {
        let members = parse_cluster("a=http://x:2,b=http://y:1,a=http://x:1").expect("in order");
        assert_eq!(texts(&members["a"]), ["http://x:1", "http://x:2"]);
        assert_eq!(texts(&members["b"]), ["http://y:1"]);
        assert_eq!(
            parse_cluster("a=").err().as_deref(),
            Some("empty URL given for \"a\"")
        );
    }
}
