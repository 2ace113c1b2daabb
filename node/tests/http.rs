//! The doors of a running node over plain HTTP: health, version, metrics, the JSON gateway, and
//! whom they turn away.

use std::time::Duration;

use quorate::config::{self, Action};
use quorate::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Node {
    server: Server,
    _directory: tempfile::TempDir,
}

impl Node {
    async fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("data");
        let mut arguments = vec![
            "--name=m1".to_owned(),
            format!("--data-dir={}", data_dir.display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        ];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let config = match config::read(&arguments, std::iter::empty()).expect("flags") {
            Action::Run(config) => *config,
            other => panic!("{other:?}"),
        };
        let server = Server::start(config).await.expect("it starts");
        let node = Self {
            server,
            _directory: directory,
        };
        node.ready().await;
        node
    }

    async fn ready(&self) {
        let ready = async {
            while self.get("/readyz").await.status != 200 {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, ready)
            .await
            .expect("it is ready in time");
    }

    async fn send(&self, request: String) -> Answer {
        let port = self.server.client_ports()[0];
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        Answer::parse(&String::from_utf8(bytes).expect("a text"))
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, "", body).await
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a number");
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn has_header(&self, line: &str) -> bool {
        self.head.lines().any(|header| header == line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_version_and_metrics() {
    let node = Node::start(&[]).await;
    let health = node.get("/health").await;
    assert_eq!(
        (health.status, health.body.as_str()),
        (200, "{\"health\":\"true\",\"reason\":\"\"}")
    );
    assert!(
        health.has_header("Content-Type: text/plain; charset=utf-8"),
        "{}",
        health.head
    );
    assert!(health.has_header("Access-Control-Allow-Origin: *"));
    for path in [
        "/livez",
        "/livez/serializable_read",
        "/readyz",
        "/readyz/linearizable_read",
    ] {
        let answer = node.get(path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "ok\n"),
            "{path}"
        );
        assert!(answer.has_header("X-Content-Type-Options: nosniff"));
    }
    let verbose = node
        .get("/readyz?verbose&exclude=data_corruption")
        .await
        .body;
    assert_eq!(
        verbose,
        "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"
    );
    let version = node.get("/version").await;
    assert_eq!(
        version.body,
        "{\"etcdserver\":\"3.7.3\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}"
    );
    for (method, path) in [
        ("POST", "/health"),
        ("PUT", "/readyz"),
        ("DELETE", "/version"),
    ] {
        let answer = node.call(method, path, "", "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (405, "Method Not Allowed\n")
        );
        assert!(answer.has_header("Allow: GET"));
    }
    for path in ["/", "/v2/keys", "/readyz/nothing", "/debug/pprof/"] {
        let answer = node.get(path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "404 page not found\n")
        );
    }
    node.server.stop().await.expect("it stops in peace");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_etcds_names() {
    let node = Node::start(&[]).await;
    let metrics = node.get("/metrics").await;
    assert!(metrics.has_header("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_version{server_version=\"3.7.3\"} 1",
        "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
        "etcd_debugging_mvcc_current_revision 1",
    ] {
        assert!(
            metrics.body.lines().any(|l| l == line),
            "{line}\n{}",
            metrics.body
        );
    }
    node.server.stop().await.expect("it stops in peace");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_goes_the_way_of_grpc() {
    let node = Node::start(&[]).await;
    let put = node
        .post("/v3/kv/put", "{\"key\":\"Zm9v\",\"value\":\"YmFy\"}")
        .await;
    assert_eq!(put.status, 200, "{}", put.body);
    assert!(
        put.has_header("Grpc-Metadata-Content-Type: application/grpc"),
        "{}",
        put.head
    );
    let range = node
        .post("/v3beta/kv/range", "{\"key\":\"Zm9v\"}")
        .await
        .body;
    let range: serde_json::Value = serde_json::from_str(&range).expect("JSON");
    assert_eq!(range["kvs"][0]["value"], "YmFy");
    assert_eq!(range["kvs"][0]["mod_revision"], "2");
    assert_eq!(range["count"], "1");
    for (path, body, status, answer) in [
        (
            "/v3/kv/range",
            "{}",
            400,
            "{\"code\":3,\"message\":\"etcdserver: key is not provided\"}",
        ),
        (
            "/v3/lease/revoke",
            "{\"ID\":\"7\"}",
            404,
            "{\"code\":5,\"message\":\"etcdserver: requested lease not found\"}",
        ),
        (
            "/v3/kv/nothing",
            "{}",
            404,
            "{\"code\":5,\"message\":\"Not Found\"}",
        ),
    ] {
        let got = node.post(path, body).await;
        assert_eq!((got.status, got.body.as_str()), (status, answer), "{path}");
    }
    let get = node.get("/v3/kv/range").await;
    let text = "{\"code\":12,\"message\":\"Method Not Allowed\"}";
    assert_eq!((get.status, get.body.as_str()), (501, text));
    node.server.stop().await.expect("it stops in peace");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away() {
    let node = Node::start(&["--host-whitelist=localhost", "--cors=http://a.example:1"]).await;
    let health = node
        .call("GET", "/health", "Origin: http://a.example:1\r\n", "")
        .await;
    assert_eq!(health.status, 200);
    assert!(health.has_header("Access-Control-Allow-Origin: http://a.example:1"));
    let health = node
        .call("GET", "/health", "Origin: http://b.example:1\r\n", "")
        .await;
    assert!(
        !health.head.contains("Access-Control-Allow-Origin"),
        "{}",
        health.head
    );
    let request = "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let refused = node.send(request.to_owned()).await;
    assert_eq!(refused.status, 421);
    assert!(refused.body.contains("--host-whitelist"));
    node.server.stop().await.expect("it stops in peace");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_not_taken() {
    let node = Node::start(&[]).await;
    let port = node.server.client_ports()[0];
    let directory = tempfile::tempdir().expect("a directory");
    let start = |client: u16, data_dir: std::path::PathBuf| async move {
        let arguments = [
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--name=m1".to_owned(),
        ];
        match config::read(&arguments, std::iter::empty()).expect("flags") {
            Action::Run(config) => Server::start(*config).await.err(),
            other => panic!("{other:?}"),
        }
    };
    let taken = start(port, directory.path().join("data")).await;
    let expected = format!("listen tcp 127.0.0.1:{port}: bind: address already in use");
    assert_eq!(taken, Some(expected));
    let shared = start(0, node._directory.path().join("data")).await;
    let shared = shared.expect("two members cannot share a directory");
    assert!(shared.contains("in use by another process"), "{shared}");
    node.server.stop().await.expect("it stops in peace");
}

/// A second start needs no flags that name the cluster, and keeps what was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_knows_its_member() {
    let url = "--initial-advertise-peer-urls=http://127.0.0.1:7";
    let named = "--initial-cluster=m1=http://127.0.0.1:7";
    let Node { server, _directory } = Node::start(&[url, named]).await;
    server.stop().await.expect("it stops in peace");
    let data_dir = _directory.path().join("data");
    let start = |flags: Vec<String>| {
        let mut arguments = vec![
            format!("--data-dir={}", data_dir.display()),
            "--name=m1".to_owned(),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        ];
        arguments.extend(flags);
        async move {
            match config::read(&arguments, std::iter::empty()).expect("flags") {
                Action::Run(config) => Server::start(*config).await,
                other => panic!("{other:?}"),
            }
        }
    };
    let server = start(Vec::new()).await.expect("the directory knows");
    server.stop().await.expect("it stops in peace");
    let named = [url, named].map(str::to_owned);
    let other = "--initial-cluster-token=another".to_owned();
    let error = start([&named[..], &[other]].concat())
        .await
        .err()
        .expect("that is another cluster");
    assert!(error.contains("belongs to member"), "{error}");
}
