//! What goes on until it is stopped: watch, lock, elect, keep-alive. Both tools must print the same
//! lines while the same things happen.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use support::{PATIENCE, Running, Server, Tool, mask, wait_for};

fn start(server: &Server, tool: Tool, words: &[&str]) -> Running {
    Running::start(server.command(tool, words))
}

/// Waits until the server counts so many watches.
fn wait_for_watchers(server: &Server, count: usize) {
    let text = format!("etcd_debugging_mvcc_watcher_total {count}\n");
    wait_for("the watch is there", || {
        metrics(&server.endpoint).contains(&text).then_some(())
    });
}

fn metrics(endpoint: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn watch_history_then_live_in_all_formats() {
    for format in ["simple", "json", "fields"] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let server = Server::start();
            server.prepare(&["put", "foo", "1"]);
            server.prepare(&["put", "foo", "2"]);
            server.prepare(&["del", "foo"]);
            let line = [
                "watch",
                "--prefix",
                "foo",
                "--rev",
                "2",
                "--prev-kv",
                "-w",
                format,
            ];
            let watch = start(&server, tool, &line);
            let count = match format {
                "simple" => 3 + 5 + 5,
                "json" => 1,
                _ => 4 + 7 + 13 + 13,
            };
            let mut lines = watch.lines(count);
            server.prepare(&["put", "foobar", "x"]);
            lines.extend(watch.lines(if format == "json" { 1 } else { 3 }));
            watch.interrupt();
            lines
                .iter()
                .map(|line| mask(&mask(line, "_id\":", ","), "ID\" : ", "\n"))
                .collect::<Vec<_>>()
        });
        assert_eq!(ours, real, "{format}");
        assert!(ours.len() > 1);
    }
}

#[test]
fn watch_tells_progress_and_why_it_ends() {
    let server = Server::start_with(&["--watch-progress-notify-interval=100ms"]);
    for value in ["1", "2", "3"] {
        server.prepare(&["put", "foo", value]);
    }
    server.prepare(&["compaction", "3"]);
    for tool in [Tool::Real, Tool::Ours] {
        let watch = start(&server, tool, &["watch", "foo", "--progress-notify"]);
        assert_eq!(watch.line(), "progress notify: 4", "{tool:?}");
    }
    for format in ["simple", "json"] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let line = ["watch", "foo", "--rev", "1", "-w", format];
            let (code, mut lines) = start(&server, tool, &line).end();
            lines.sort();
            (code, lines)
        });
        assert_eq!(ours, real);
        assert_eq!(ours.0, Some(5));
    }
}

#[test]
fn many_watches_on_one_stream() {
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        let server = Server::start();
        server.prepare(&["put", "a", "1"]);
        let mut watch = start(&server, tool, &["watch", "-i"]);
        watch.write("nonsense");
        let mut lines = watch.lines(1);
        watch.write("");
        lines.extend(watch.lines(1));
        watch.write("watch");
        lines.extend(watch.lines(1));
        watch.write("watch --prefix a b");
        lines.extend(watch.lines(1));
        watch.write("watch a --rev 2");
        lines.extend(watch.lines(3));
        watch.write(
            "watch --prefix 'b c' -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY \
            $ETCD_WATCH_VALUE $ETCD_WATCH_REVISION'",
        );
        wait_for_watchers(&server, 2);
        server.prepare(&["put", "b cd", "x\ny"]);
        // The shell's echo writes the escaped end of line as one.
        lines.extend(watch.lines(6));
        server.prepare(&["del", "a"]);
        lines.extend(watch.lines(3));
        watch.write("progress");
        lines.extend(watch.lines(2));
        watch.close_input();
        let (code, rest) = watch.end();
        (code, lines, rest)
    });
    assert_eq!(ours, real);
    assert_eq!(ours.0, Some(3));
}

#[test]
fn watch_runs_a_command_for_every_event() {
    let server = Server::start();
    for value in ["1", "\"two\" <\u{1}>"] {
        server.prepare(&["put", "foo", value]);
    }
    server.prepare(&["del", "foo"]);
    let echo = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_REVISION";
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        let line = ["watch", "foo", "--rev", "2", "--", "sh", "-c", echo];
        start(&server, tool, &line).lines(9 + 3)
    });
    assert_eq!(ours, real);
    assert!(
        ours.iter()
            .any(|line| line.contains("\"DELETE\" \"foo\" \"\" 4")),
        "{ours:?}"
    );
    for command in [
        &["false"][..],
        &["no-such-program", "x"],
        &["sh", "-c", "kill $$"],
    ] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let line = [&["watch", "foo", "--rev", "2", "--"], command].concat();
            let (code, mut lines) = start(&server, tool, &line).end();
            lines.sort();
            (code, lines)
        });
        assert_eq!(ours, real, "{command:?}");
        assert_eq!(ours.0, Some(1));
    }
}

#[test]
fn watch_takes_its_key_from_the_environment() {
    let server = Server::start();
    server.prepare(&["put", "foo", "1"]);
    for tool in [Tool::Real, Tool::Ours] {
        let mut command = server.command(tool, &["watch", "--rev", "2"]);
        command.env("ETCDCTL_WATCH_KEY", "foo");
        assert_eq!(
            Running::start(command).lines(3),
            ["PUT", "foo", "1"],
            "{tool:?}"
        );
    }
}

#[test]
fn a_lock_is_held_until_interrupted_and_then_goes_to_the_next() {
    for tool in [Tool::Real, Tool::Ours] {
        let server = Server::start();
        let first = start(&server, tool, &["lock", "mutex1"]);
        let key = first.line();
        assert!(key.starts_with("mutex1/"), "{tool:?}: {key}");
        assert_eq!(first.line(), "");
        let second = start(&server, tool, &["lock", "mutex1"]);
        wait_for_watchers(&server, 1);
        second.assert_silent();
        first.interrupt();
        assert_eq!(first.end(), (Some(0), vec![]), "{tool:?}");
        assert_ne!(second.line(), key);
        second.interrupt();
        assert_eq!(second.end(), (Some(0), vec![String::new()]), "{tool:?}");
        assert_eq!(server.prepare(&["get", "--prefix", "mutex1"]), "");
    }
}

#[test]
fn whoever_waits_for_a_lock_may_give_up() {
    for tool in [Tool::Real, Tool::Ours] {
        let server = Server::start();
        let first = start(&server, tool, &["lock", "mutex1"]);
        first.lines(2);
        let second = start(&server, tool, &["lock", "mutex1"]);
        wait_for_watchers(&server, 1);
        second.interrupt();
        let given_up = vec!["Error: context canceled".to_owned()];
        assert_eq!(second.end(), (Some(1), given_up), "{tool:?}");
        let keys = server.prepare(&["get", "--prefix", "mutex1", "--keys-only"]);
        assert_eq!(
            keys.lines().count(),
            2,
            "the first one's key and an empty line: {keys}"
        );
    }
}

#[test]
fn a_killed_holder_frees_the_lock_when_its_lease_ends() {
    let server = Server::start();
    let first = start(&server, Tool::Ours, &["lock", "mutex1", "--ttl", "2"]);
    first.lines(2);
    let second = start(&server, Tool::Ours, &["lock", "mutex1"]);
    wait_for_watchers(&server, 1);
    second.assert_silent();
    drop(first);
    assert!(second.line().starts_with("mutex1/"));
}

#[test]
fn a_command_runs_under_the_lock() {
    let server = Server::start();
    server.prepare(&["put", "x", "1"]);
    let echo = "echo rev=$ETCD_LOCK_REV ${ETCD_LOCK_KEY%/*}; exit 7";
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        let (code, mut lines) = start(&server, tool, &["lock", "m", "--", "sh", "-c", echo]).end();
        lines.sort();
        (code, lines.join("\n"))
    });
    assert_eq!(mask(&ours.1, "rev=", " "), mask(&real.1, "rev=", " "));
    assert_eq!(ours.1, "Error: exit status 7\nrev=5 m");
    assert_eq!((ours.0, real.0), (Some(7), Some(7)));
    assert_eq!(server.prepare(&["get", "--prefix", "m"]), "");
}

#[test]
fn an_election_goes_on_to_the_next_candidate() {
    for tool in [Tool::Real, Tool::Ours] {
        let server = Server::start();
        let observer = start(&server, tool, &["elect", "-l", "one"]);
        let first = start(&server, tool, &["elect", "one", "p1"]);
        let won = first.lines(2);
        assert_eq!(won[1], "p1", "{tool:?}");
        assert_eq!(observer.lines(2), won, "{tool:?}");
        let second = start(&server, tool, &["elect", "one", "p2"]);
        // The observer watches the leader, the second candidate as well.
        wait_for_watchers(&server, 2);
        second.assert_silent();
        server.prepare(&["put", &won[0], "p1 again", "--ignore-lease"]);
        assert_eq!(observer.lines(2), [won[0].as_str(), "p1 again"], "{tool:?}");
        first.interrupt();
        assert_eq!(first.end(), (Some(0), vec![]), "{tool:?}");
        let won = second.lines(2);
        assert_eq!(won[1], "p2", "{tool:?}");
        assert_eq!(observer.lines(2), won, "{tool:?}");
        second.interrupt();
        assert_eq!(second.end().0, Some(0));
        observer.interrupt();
        assert_eq!(observer.end(), (Some(0), vec![]), "{tool:?}");
    }
}

#[test]
fn a_lease_is_kept_alive_until_it_is_revoked() {
    for tool in [Tool::Real, Tool::Ours] {
        let server = Server::start();
        let granted = server.prepare(&["lease", "grant", "2"]);
        let lease = granted.split(' ').nth(1).unwrap();
        let renewing = start(&server, tool, &["lease", "keep-alive", lease]);
        let renewed = format!("lease {lease} keepalived with TTL(2)");
        // Longer than the lease lives by itself.
        assert_eq!(renewing.lines(5), vec![renewed; 5], "{tool:?}");
        server.prepare(&["lease", "revoke", lease]);
        let (code, lines) = renewing.end();
        let last = lines.last().unwrap().as_str();
        assert_eq!(
            (code, last),
            (Some(0), &*format!("lease {lease} expired or revoked."))
        );
    }
}

#[test]
fn a_watch_goes_on_when_the_server_comes_back() {
    let server = Server::start();
    let proxy = Proxy::start("127.0.0.1:0", &server.endpoint);
    let address = proxy.address.clone();
    let mut command = Tool::Ours.command();
    command.args([&format!("--endpoints={address}"), "watch", "--prefix", "k"]);
    let watch = Running::start(command);
    wait_for_watchers(&server, 1);
    server.prepare(&["put", "k1", "v"]);
    assert_eq!(watch.lines(3), ["PUT", "k1", "v"]);
    drop(proxy);
    wait_for_watchers(&server, 0);
    server.prepare(&["put", "k2", "v"]);
    let _proxy = Proxy::start(&address, &server.endpoint);
    assert_eq!(watch.lines(3), ["PUT", "k2", "v"]);
}

/// Passes connections on until it is dropped.
struct Proxy {
    address: String,
    listener: TcpListener,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    fn start(address: &str, to: &str) -> Self {
        let listener = wait_for("the address is free", || TcpListener::bind(address).ok());
        let address = listener.local_addr().unwrap().to_string();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (accepting, kept, to) = (
            listener.try_clone().unwrap(),
            streams.clone(),
            to.to_owned(),
        );
        let accepting = std::thread::spawn(move || {
            while let Ok((near, _)) = accepting.accept() {
                let far = TcpStream::connect(&to).unwrap();
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut into) =
                        (from.try_clone().unwrap(), into.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // Ends when either side is shut down; the test looks at what arrives.
                        std::io::copy(&mut from, &mut into).unwrap_or_default()
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self {
            address,
            listener,
            streams,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).unwrap();
        self.accepting.take().unwrap().join().unwrap();
        for stream in self.streams.lock().unwrap().iter() {
            // The other side may have shut it down before.
            stream
                .shutdown(std::net::Shutdown::Both)
                .unwrap_or_default();
        }
    }
}
