//! Every limit of the client, with its unit, in one place.

use std::time::Duration;

/// See [`crate::ClientConfig::dial_timeout`].
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`crate::ClientConfig::request_timeout`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`crate::ClientConfig::keepalive_time`].
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// See [`crate::ClientConfig::keepalive_timeout`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest request; etcd: client/v3/options.go.
pub const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest response; etcd: client/v3/options.go.
pub const RECEIVE_BYTES_MAX: usize = i32::MAX as usize;
/// What the server may send on one stream before we read it.
pub const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// What the server may send on one connection before we read it: several streams may rest.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The first pause before a call or a connection is tried again; etcd: client/v3/options.go.
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// The longest pause between two attempts to connect.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often one read is tried at most; etcd: client/v3/options.go.
pub const ATTEMPTS_MAX: u32 = 100;
/// A call that was given up after this long without an answer makes us ask whether the
/// endpoint still answers at all.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Updates of one watch that wait for its consumer.
pub const WATCH_UPDATES_QUEUED_MAX: usize = 1024;
/// Bytes of keys and values in the updates of one watch that wait for its consumer, unless a
/// single update is larger.
pub const WATCH_BYTES_QUEUED_MAX: usize = 8 * 1024 * 1024;
/// Requests (open, progress) that wait for the task that serves the watches of a client.
pub const WATCH_COMMANDS_QUEUED_MAX: usize = 64;
/// Requests (create, cancel, progress) that wait for a watch stream to take them.
pub const WATCH_REQUESTS_QUEUED_MAX: usize = 64;
