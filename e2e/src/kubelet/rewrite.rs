//! What a container would see, said in the machine's own terms: its paths are folders elsewhere,
//! and its loopback is the address of the Pod.

use std::net::Ipv4Addr;

/// Rewrites arguments and environments of one container.
#[derive(Clone, Debug)]
pub(super) struct Rewriter {
    /// Paths in the container and where they are; the longest that fits counts.
    paths: Vec<(String, String)>,
    address: Ipv4Addr,
    /// The Pod's DNS name, which certificates hold.
    name: String,
}

impl Rewriter {
    pub(super) fn new(
        mut paths: Vec<(String, String)>,
        address: Ipv4Addr,
        name: Option<&str>,
    ) -> Self {
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self {
            paths,
            address,
            name: name.map_or_else(|| address.to_string(), str::to_owned),
        }
    }

    /// One pass, so that what was written is not rewritten again.
    pub(super) fn text(&self, text: &str) -> String {
        let mut written = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let taken = self.replacement(&written, rest);
            let length = match taken {
                Some((length, new)) => {
                    written.push_str(&new);
                    length
                }
                None => {
                    written.push(first);
                    first.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        written
    }

    /// How much of `rest` is replaced, and by what.
    fn replacement(&self, before: &str, rest: &str) -> Option<(usize, String)> {
        let last = before.chars().next_back();
        for (path, host) in &self.paths {
            let fits = rest.strip_prefix(path.as_str()).is_some_and(ends_path);
            if fits && last.is_none_or(|c| !is_of_path(c)) {
                return Some((path.len(), host.clone()));
            }
        }
        if last.is_some_and(|c| is_of_name(c) || c == '.') {
            return None;
        }
        for host in ["0.0.0.0", "127.0.0.1", "localhost", "[::1]", "[::]"] {
            let fits = rest.strip_prefix(host).is_some_and(ends_name);
            if fits {
                // Who is called by TLS shows a certificate, which holds names.
                let is_called = host == "127.0.0.1" || host == "localhost";
                let new = match is_called && before.ends_with("https://") {
                    true => self.name.clone(),
                    false => self.address.to_string(),
                };
                return Some((host.len(), new));
            }
        }
        None
    }
}

fn ends_path(rest: &str) -> bool {
    rest.chars()
        .next()
        .is_none_or(|c| c == '/' || !is_of_path(c))
}

fn ends_name(rest: &str) -> bool {
    rest.chars()
        .next()
        .is_none_or(|c| !is_of_name(c) && c != '.')
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

fn is_of_path(c: char) -> bool {
    is_of_name(c) || c == '/' || c == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter() -> Rewriter {
        let paths = [
            ("/backup", "/x/b"),
            ("/tmp", "/x/t"),
            ("/var/lib/quorate", "/x/d"),
        ];
        let paths = paths.map(|(path, host)| (path.to_owned(), host.to_owned()));
        let name = Some("m.p.ns.svc");
        Rewriter::new(paths.to_vec(), Ipv4Addr::new(127, 1, 0, 2), name)
    }

    #[test]
    fn paths_are_folders_elsewhere() {
        let rewriter = rewriter();
        let cases = [
            ("--data-dir=/var/lib/quorate/data", "--data-dir=/x/d/data"),
            ("/tmp", "/x/t"),
            ("a=/tmp/x,b=/backup", "a=/x/t/x,b=/x/b"),
            // Names that only begin alike, and paths within others.
            ("/tmpfs", "/tmpfs"),
            ("/a/tmp", "/a/tmp"),
            ("https://host/backup", "https://host/backup"),
        ];
        for (text, wanted) in cases {
            assert_eq!(rewriter.text(text), wanted);
        }
    }

    #[test]
    fn loopback_is_the_address_of_the_pod() {
        let rewriter = rewriter();
        let cases = [
            ("https://0.0.0.0:2379", "https://127.1.0.2:2379"),
            ("https://localhost:2379", "https://m.p.ns.svc:2379"),
            ("http://127.0.0.1:2381", "http://127.1.0.2:2381"),
            ("0.0.0.0:2382", "127.1.0.2:2382"),
            (
                "10.0.0.0.0:1 localhost.example",
                "10.0.0.0.0:1 localhost.example",
            ),
            ("127.0.0.10", "127.0.0.10"),
        ];
        for (text, wanted) in cases {
            assert_eq!(rewriter.text(text), wanted);
        }
    }
}
