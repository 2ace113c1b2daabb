//! Calls to one real member: answers, refusals, and what is told when the answer is lost.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, client_of, eventually};
use quorate_client::{Client, ClientConfig, Compare, Error, Refusal, Session, delete, get, put};
use tonic::Code;

#[tokio::test]
async fn get_put_delete_and_txn() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for key in ["a1", "a2", "a3", "b1"] {
        client.put(key, format!("value of {key}")).await.unwrap();
    }
    let page = client.get("a").prefix().limit(2).await.unwrap();
    assert!(page.more);
    assert_eq!((page.count, page.kvs.len()), (3, 2));
    let rest = client.get("a2").from_key().keys_only().await.unwrap();
    assert_eq!(rest.kvs.len(), 3);
    assert!(rest.kvs[0].value.is_empty());
    assert_eq!(client.get("").prefix().count_only().await.unwrap().count, 4);
    let old = client.put("a1", "new").prev_kv().await.unwrap();
    assert_eq!(&old.prev_kv.unwrap().value[..], b"value of a1");
    let gone = client.delete("a").prefix().prev_kv().await.unwrap();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (3, 3));

    let txn = client
        .txn()
        .when(Compare::value("b1").equal("value of b1"))
        .when(Compare::create_revision("c").equal(0))
        .then(put("c", "1"))
        .then(delete("b1"))
        .or_else(get("b1"));
    let first = txn.clone().await.unwrap();
    assert!(first.succeeded);
    assert_eq!(first.responses.len(), 2);
    assert!(!txn.await.unwrap().succeeded);
    assert_eq!(client.get("b1").await.unwrap().count, 0);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let refusal = async |answer: Result<(), Error>| answer.unwrap_err().refusal().unwrap();
    let put_with_lease = client.put("k", "v").lease(77).await.map(drop);
    assert_eq!(refusal(put_with_lease).await, Refusal::LeaseNotFound);
    let empty = client.get("").await.map(drop);
    assert_eq!(refusal(empty).await, Refusal::EmptyKey);
    let future = client.get("k").revision(99).await.map(drop);
    assert_eq!(refusal(future).await, Refusal::FutureRevision);
    let too_large = client.put("k", vec![0; 1_600_000]).await.map(drop);
    assert_eq!(refusal(too_large).await, Refusal::RequestTooLarge);

    // Over our own limit it does not leave, so the outcome is certain.
    let error = client.put("k", vec![0; 3_000_000]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(client.get("k").await.unwrap().count, 0);
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint() {
    let cluster = Cluster::start(1).await;
    let client = client_of(vec![cluster.members[0].socket.clone()]);
    client.put("k", "v").await.unwrap();
    assert_eq!(cluster.client().get("k").await.unwrap().count, 1);
}

#[tokio::test]
async fn nothing_to_connect_to_is_told_in_time() {
    let port = common::free_port();
    let config = ClientConfig {
        dial_timeout: Duration::from_millis(300),
        ..ClientConfig::new([format!("127.0.0.1:{port}")])
    };
    let error = Client::connect(config.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    // A write that found no connection was not done.
    let client = Client::connect_lazy(config).unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn endpoints_that_are_dead_or_dumb_get_no_calls() {
    let cluster = Cluster::start(1).await;
    let dumb = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client_of(vec![
        format!("127.0.0.1:{}", common::free_port()),
        dumb.local_addr().unwrap().to_string(),
        cluster.members[0].endpoint.clone(),
    ]);
    let started = Instant::now();
    for turn in 0..30 {
        client.put("k", turn.to_string()).await.unwrap();
    }
    // One call handed to the dumb one would take the whole request timeout.
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(client.get("k").await.unwrap().kvs[0].version, 30);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_ambiguous_and_not_repeated() {
    let mut cluster = Cluster::start(1).await;
    let client = Client::connect(ClientConfig {
        request_timeout: Duration::from_secs(4),
        ..ClientConfig::new(cluster.endpoints())
    })
    .await
    .unwrap();
    client.put("k", "0").await.unwrap();

    // Stopped: the call is taken by the kernel, the answer does not come in time.
    cluster.members[0].pause();
    let error = client.put("k", "1").await.unwrap_err();
    assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
    assert_eq!(error.code(), Some(Code::DeadlineExceeded));
    assert!(!error.is_retryable());
    let read = client.get("k").await.unwrap_err();
    assert!(matches!(read, Error::Unreachable { .. }), "{read:?}");
    cluster.members[0].resume();
    let kv = eventually(async || client.get("k").await.ok()).await.kvs;
    assert!(kv[0].version <= 2, "it was done twice: {kv:?}");

    // Killed while the call is in flight: as unknown, and told at once.
    cluster.members[0].pause();
    let call = tokio::spawn(client.put("k", "2").into_future());
    let endpoint = cluster.endpoints().remove(0);
    eventually(async || unread_bytes(&endpoint).then_some(())).await;
    cluster.members[0].kill();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
    assert_eq!(error.code(), Some(Code::Unavailable), "{error:?}");
}

/// Whether the kernel holds bytes of a connection for a server that does not read them.
fn unread_bytes(endpoint: &str) -> bool {
    let port: u16 = endpoint
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a port");
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, unread) = fields[4].split_once(':').expect("two queues");
        fields[1].ends_with(&format!(":{port:04X}")) && unread != "00000000" && fields[3] == "01"
    })
}

#[tokio::test]
async fn every_task_ends_with_its_handle() {
    use quorate_client::discovery::{Resolver, register};
    let cluster = Cluster::start(1).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    eventually(async || (tasks() == 0).then_some(())).await;
    let client = cluster.client();
    let watch = client.watch("k").await.unwrap();
    let kept = client
        .grant_lease(60)
        .await
        .unwrap()
        .keep_alive()
        .await
        .unwrap();
    let session = Session::open(&client, 60).await.unwrap();
    let held = session.mutex("m").lock().await.unwrap();
    let resolver = Resolver::start(&client, "service").await.unwrap();
    let registration = register(&client, "service", "a:1", 60).await.unwrap();
    drop(held);
    drop((client, watch, kept, session, resolver));
    registration.deregister().await.unwrap();
    eventually(async || (tasks() == 0).then_some(())).await;
}

/// A server that reads the beginning of each call and then does `end` to it.
async fn rude_server(end: fn(h2::server::SendResponse<bytes::Bytes>) -> bool) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                continue;
            };
            while let Some(Ok((_request, respond))) = connection.accept().await {
                if !end(respond) {
                    break;
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_write_goes_on_to_the_next_only_if_the_server_did_not_look_at_it() {
    let cluster = Cluster::start(1).await;
    let refuses = rude_server(|mut respond| {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        true
    });
    let aborts = rude_server(|mut respond| {
        respond.send_reset(h2::Reason::CANCEL);
        true
    });
    let loses = rude_server(|_| false);
    let servers = [
        (refuses.await, true),
        (aborts.await, false),
        (loses.await, false),
    ];
    for (rude, is_certain) in servers {
        let client = client_of(vec![rude.clone(), cluster.members[0].endpoint.clone()]);
        // Both must be connected, or there is nothing to choose.
        let other = client.endpoint(&rude).unwrap();
        assert!(other.put("warm", "up").await.is_err());
        let (mut done, mut ambiguous) = (0, 0);
        let end = Instant::now() + common::DEADLINE;
        // The rude one must have had its share; it is away for a while after each call.
        while done < 20 || (!is_certain && ambiguous < 3) {
            assert!(Instant::now() < end, "{done} done, {ambiguous} in doubt");
            match client.put(&rude, "v").await {
                Ok(_) => done += 1,
                Err(Error::Ambiguous { .. }) => ambiguous += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        let version = cluster.client().get(&rude).await.unwrap().kvs[0].version;
        assert_eq!(
            version, done,
            "each answered write was done once, the others never"
        );
        assert_eq!(ambiguous == 0, is_certain, "{ambiguous} writes in doubt");
    }
}
