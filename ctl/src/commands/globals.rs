//! The flags every command takes.

use crate::cli::{Flag, Kind};

/// Sorted by name, as help shows them.
pub static GLOBAL_FLAGS: [Flag; 21] = [
    Flag::text(
        "auth-jwt-token",
        "",
        "JWT token used for authentication (if this option is used, --user and --password \
         should not be set)",
    )
    .hide(),
    Flag::text(
        "cacert",
        "",
        "verify certificates of TLS-enabled secure servers using this CA bundle",
    )
    .hide(),
    Flag::text(
        "cert",
        "",
        "identify secure client using this TLS certificate file",
    )
    .hide(),
    Flag::of(
        Kind::Duration,
        "command-timeout",
        "5s",
        "timeout for short running command (excluding dial timeout)",
    )
    .hide(),
    Flag::off("debug", "enable client-side debug logging").hide(),
    Flag::of(
        Kind::Duration,
        "dial-timeout",
        "2s",
        "dial timeout for client connections",
    )
    .hide(),
    Flag::text(
        "discovery-srv",
        "",
        "domain name to query for SRV records describing cluster endpoints",
    )
    .letter('d')
    .hide(),
    Flag::text(
        "discovery-srv-name",
        "",
        "service name to query when using DNS discovery",
    )
    .hide(),
    Flag::of(Kind::List, "endpoints", "127.0.0.1:2379", "gRPC endpoints").hide(),
    Flag::off("hex", "print byte strings as hex encoded strings").hide(),
    Flag::on(
        "insecure-discovery",
        "accept insecure SRV records describing cluster endpoints",
    )
    .hide(),
    Flag::off(
        "insecure-skip-tls-verify",
        "skip server certificate verification (CAUTION: this option should be enabled only for \
         testing purposes)",
    )
    .hide(),
    Flag::on(
        "insecure-transport",
        "disable transport security for client connections",
    )
    .hide(),
    Flag::of(
        Kind::Duration,
        "keepalive-time",
        "2s",
        "keepalive time for client \
     connections",
    )
    .hide(),
    Flag::of(
        Kind::Duration,
        "keepalive-timeout",
        "6s",
        "keepalive timeout for client connections",
    )
    .hide(),
    Flag::text("key", "", "identify secure client using this TLS key file").hide(),
    Flag::int(
        "max-recv-bytes",
        "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
    )
    .hide(),
    Flag::int(
        "max-request-bytes",
        "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)",
    )
    .hide(),
    Flag::text(
        "password",
        "",
        "password for authentication (if this option is used, --user option shouldn't include \
         password)",
    )
    .hide(),
    Flag::text(
        "user",
        "",
        "username[:password] for authentication (prompt if password is not supplied)",
    )
    .hide(),
    Flag::text(
        "write-out",
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
    )
    .letter('w')
    .hide(),
];
