//! The metadata of a call that etcd looks at.
//!
//! etcd: server/etcdserver/api/v3rpc/interceptor.go, api/v3rpc/rpctypes/metadatafields.go.

use http::HeaderMap;
use tonic::metadata::MetadataMap;

const REQUIRE_LEADER: &str = "hasleader";
const CLIENT_API_VERSION: &str = "client-api-version";

/// Whether a stream must end when there is no leader.
pub fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata
        .get(REQUIRE_LEADER)
        .is_some_and(|value| value.as_encoded_bytes() == b"true")
}

/// As [`requires_leader`], from the headers of the request.
pub fn headers_require_leader(headers: &HeaderMap) -> bool {
    headers
        .get(REQUIRE_LEADER)
        .is_some_and(|value| value.as_bytes() == b"true")
}

/// The client's API version, `unknown` when it names none; `Err` when it is not text.
pub fn client_api_version(headers: &HeaderMap) -> Result<&str, std::str::Utf8Error> {
    match headers.get(CLIENT_API_VERSION) {
        Some(version) => std::str::from_utf8(version.as_bytes()),
        None => Ok("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn metadata_is_read_as_etcd_reads_it() {
        let mut headers = HeaderMap::new();
        assert!(!headers_require_leader(&headers));
        assert_eq!(client_api_version(&headers), Ok("unknown"));
        headers.insert("hasleader", HeaderValue::from_static("TRUE"));
        headers.insert("client-api-version", HeaderValue::from_static("3.7"));
        assert!(!headers_require_leader(&headers));
        assert_eq!(client_api_version(&headers), Ok("3.7"));
        headers.insert("hasleader", HeaderValue::from_static("true"));
        let bytes = HeaderValue::from_bytes(b"\xff").expect("opaque bytes are allowed");
        headers.insert("client-api-version", bytes);
        assert!(headers_require_leader(&headers));
        assert!(client_api_version(&headers).is_err());
        assert!(requires_leader(&MetadataMap::from_headers(headers)));
    }
}
