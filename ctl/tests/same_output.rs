//! The same command lines through the real etcdctl and ours: same output, same exit code.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use support::{Server, Tool, assert_same, finish, mask, masked, wait_for};

const FORMATS: [&str; 6] = ["simple", "json", "fields", "protobuf", "table", "nonsense"];

fn plain(text: &str) -> String {
    text.to_owned()
}

/// Without revisions: writes of one tool move them for the other.
fn without_revisions(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["revision\":", "version\":"] {
        text = mask(&text, name, ",");
        text = text.replace("X}", "X").replace("X,", "X");
    }
    for name in ["Revision\" : ", "Version\" : "] {
        text = mask(&text, name, "\n");
    }
    text
}

/// Without lease IDs and the time that is left.
fn without_lease(text: &str) -> String {
    let mut text = without_revisions(text);
    for (before, end) in [
        ("lease ", " "),
        ("\"ID\":", ","),
        ("\"id\":", ","),
        ("\"ttl\":", ","),
        ("\"lease\":", "}"),
        ("\"ID\" : ", "\n"),
        ("Lease\" : ", "\n"),
        ("\"TTL\" : ", "\n"),
        ("remaining(", ")"),
    ] {
        text = mask(&text, before, end);
    }
    text
}

/// Without durations, and without the width of a column that holds one.
fn without_durations(text: &str) -> String {
    let mut text = text.replace(['─', ' '], "");
    for (before, end) in [
        ("took=", "\n"),
        ("\"took\":\"", "\""),
        ("\"Took\":", "\n"),
        ("│true│", "│"),
        ("│false│", "│"),
        ("took", "\n"),
    ] {
        text = mask(&text, before, end);
    }
    text
}

fn filled() -> Server {
    let server = Server::start();
    let pairs = [
        ("a", "1"),
        ("b", "2"),
        ("foo", "bar"),
        ("foo1", "two\nlines"),
        ("foo2", "<&>\"\\"),
        ("zä\u{200b}", "ü\u{1}\u{7f}"),
    ];
    for (key, value) in pairs {
        server.prepare(&["put", "--", key, value]);
    }
    server.prepare(&["put", "foo", "again"]);
    server.prepare(&["del", "b"]);
    server
}

#[test]
fn reads_in_all_formats() {
    let server = filled();
    let lines: [&[&str]; 26] = [
        &["get", "foo"],
        &["get", "--prefix", "foo"],
        &["get", "foo", "--keys-only"],
        &["get", "a", "foo2"],
        &["get", "a", "foo2", "ignored"],
        &["get", "--from-key", "foo1"],
        &["get", "--from-key", ""],
        &["get", "--prefix", ""],
        &["get", "--prefix", "foo", "--limit", "2"],
        &[
            "get",
            "--prefix",
            "",
            "--sort-by",
            "modify",
            "--order",
            "descend",
        ],
        &[
            "get",
            "--prefix",
            "",
            "--sort-by",
            "value",
            "--order",
            "ASCEND",
        ],
        &[
            "get",
            "--prefix",
            "",
            "--min-mod-rev",
            "3",
            "--max-mod-rev",
            "6",
        ],
        &["get", "nope"],
        &["get", "--prefix", "foo", "--count-only"],
        &["get", "foo", "--print-value-only"],
        &["get", "b", "--rev", "3"],
        &["get", "foo", "--rev", "99999"],
        &["get", "--prefix", "", "--stream"],
        &["get", "foo", "--consistency", "s"],
        &["member", "list"],
        &["member", "list", "--consistency", "s"],
        &["alarm", "list"],
        &["endpoint", "status"],
        &["endpoint", "status", "--cluster"],
        &["endpoint", "hashkv"],
        &["endpoint", "hashkv", "--cluster", "--rev", "4"],
    ];
    for format in FORMATS {
        for line in lines {
            assert_same(&server, &[line, &["-w", format]].concat(), b"", plain);
            assert_same(
                &server,
                &[line, &["-w", format, "--hex"]].concat(),
                b"",
                plain,
            );
        }
        let health = ["endpoint", "health", "-w", format];
        assert_same(&server, &health, b"", without_durations);
        assert_same(&server, &["version", "-w", format], b"", plain);
    }
}

#[test]
fn writes_in_all_formats() {
    let server = filled();
    let transaction = b"mod(\"a\") > \"0\"\nval(\"foo\") != \"x\"\n\nget --prefix foo\n\
        put c 1 --prev-kv\ndel --prefix zz\n\nput never 1\n\n";
    server.prepare(&["put", "foo", "new"]);
    server.prepare(&["put", "c", "1"]);
    for format in FORMATS.into_iter().filter(|format| *format != "protobuf") {
        let with = |line: &[&'static str]| [line, &["-w", format]].concat();
        let put = with(&["put", "foo", "new", "--prev-kv"]);
        assert_same(&server, &put, b"", without_revisions);
        let put = with(&["put", "foo", "--ignore-value", "--prev-kv", "--hex"]);
        assert_same(&server, &put, b"", without_revisions);
        assert_same(
            &server,
            &with(&["put", "from-input"]),
            b"a\nb\n",
            without_revisions,
        );
        assert_same(&server, &with(&["del", "nope"]), b"", without_revisions);
        for tool in [Tool::Real, Tool::Ours] {
            server.prepare(&["put", "gone1", "x"]);
            server.prepare(&["put", "gone2", "y"]);
            let delete = with(&["del", "--prefix", "gone", "--prev-kv"]);
            let ran = server.run(tool, &delete, b"");
            if format == "json" {
                assert!(
                    ran.stdout.contains("\"deleted\":2,\"prev_kvs\":[{"),
                    "{ran:?}"
                );
            }
        }
        assert_same(&server, &with(&["txn"]), transaction, without_revisions);
        assert_same(
            &server,
            &with(&["txn", "-i", "--hex"]),
            transaction,
            without_revisions,
        );
    }
    let failing = b"mod(\"a\") = \"0\"\n\nput never 1\n\ndel --prefix --prev-kv nope\nget a\n\n";
    assert_same(&server, &["txn"], failing, plain);
    assert_same(&server, &["get", "never"], b"", plain);
}

#[test]
fn writes_in_protobuf() {
    let server = filled();
    let protobuf = |words: &[&str]| {
        let mut command = server.command(Tool::Ours, words);
        command.args(["-w", "protobuf"]).output().unwrap().stdout
    };
    let put = protobuf(&["put", "foo", "new", "--prev-kv"]);
    let response = pb::PutResponse::decode(put.as_slice()).unwrap();
    assert_eq!(response.encode_to_vec(), put);
    let previous = response.prev_kv.unwrap();
    assert_eq!(
        (&previous.key[..], &previous.value[..]),
        (&b"foo"[..], &b"again"[..])
    );
    // What changes nothing is the same in every byte.
    assert_same(&server, &["del", "nope", "-w", "protobuf"], b"", plain);
    let reads = b"\nget --prefix foo\ndel nope\n\n\n";
    assert_same(&server, &["txn", "-w", "protobuf"], reads, plain);
}

#[test]
fn leases_in_all_formats() {
    let server = Server::start();
    let granted = server.prepare(&["lease", "grant", "1000"]);
    let lease = granted.split(' ').nth(1).unwrap();
    server.prepare(&["put", "k1", "v", "--lease", lease]);
    for format in FORMATS.into_iter().filter(|format| *format != "protobuf") {
        for line in [
            &["lease", "grant", "500"][..],
            &["lease", "timetolive", lease],
            &["lease", "timetolive", lease, "--keys"],
            &["lease", "timetolive", "1234", "--keys"],
            &["lease", "keep-alive", "--once", lease],
            &["lease", "keep-alive", "--once", "1234"],
            &["lease", "keep-alive", "1234"],
            &["lease", "revoke", "1234"],
            &["get", "--prefix", "k"],
        ] {
            assert_same(
                &server,
                &[line, &["-w", format]].concat(),
                b"",
                without_lease,
            );
            let hex = [line, &["-w", format, "--hex"]].concat();
            assert_same(&server, &hex, b"", without_lease);
        }
        assert_same(&server, &["lease", "list", "-w", format], b"", plain);
    }
    // Of leases, the protobuf format is the header alone; the listing shows that byte for byte.
    assert_same(&server, &["lease", "list", "-w", "protobuf"], b"", plain);
    for format in ["simple", "json", "fields"] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let granted = server.prepare(&["lease", "grant", "1000"]);
            let lease = granted.split(' ').nth(1).unwrap();
            let put = server.prepare(&["put", "leased", "v", "--lease", lease]);
            assert_eq!(put, "OK\n");
            let ran = server.run(tool, &["lease", "revoke", lease, "-w", format], b"");
            assert_eq!(server.prepare(&["get", "leased"]), "");
            (ran.code, without_lease(&ran.stdout), ran.stderr)
        });
        assert_eq!(ours, real, "{format}");
    }
}

/// Command lines that are wrong, unusual, or cut short.
const WRONG_LINES: &str = "
help
options
get
--hex
-- get a
get a -w
get -x
get --nope
get --prefix a b
get --prefix --from-key a
get --keys-only --count-only a
get a --order x
get a --sort-by x
get a --consistency q
get a --min-mod-rev 5 --max-mod-rev 3
get a --min-create-rev 5 --max-create-rev 3
get a --limit x
get a --limit
get a --limit 99999999999999999999
get a -wjson
get a -w=json
get a --hex=false
get a --hex=maybe
get a --command-timeout 5
get a --command-timeout x
get a --=x
get a ---x
get a -
get -- -x
get a --cert=
nope
pux
de
d
lease nope
lea li
mem lis
put
put k --ignore-value v
put k v --lease zz
put k v --lease 1234
put k v --lease 99999999999999999
put nope --ignore-value
put nope v --ignore-lease
put k -v
put k -- -v
del
del a b c
del zz0 zz1
del --prefix --from-key a
del --prefix a b
compaction
compaction x
compaction 99999
lease grant
lease grant x
lease grant 99999999999
lease revoke
lease revoke zz
lease timetolive
lease timetolive zz
lease keep-alive
lease keep-alive zz
lock
elect
elect a
elect a b -l
elect a b c
member remove
member remove zz
member remove 1
member update 1
member add
member add a
member add a http://b
member promote 1
move-leader
move-leader zz
move-leader 1
alarm list x
alarm disarm x
alarm disarm
watch
watch a --
watch b a
watch a b --prefix
watch --nope
txn x
downgrade validate
downgrade validate 3.5
downgrade cancel
auth enable x
auth status
user list
user add
user add :x
user delete x
user get x
role get x
role delete x
role grant-permission
role grant-permission a b c
role grant-permission r read k --prefix --from-key
role revoke-permission r
role revoke-permission r k
user grant-role a
user grant-role a b
user revoke-role a b
completion
completion x
help nope x
help lease grant";

#[test]
fn wrong_command_lines() {
    let server = filled();
    for line in WRONG_LINES.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_same(&server, &words, b"", plain);
    }
    for words in [
        &["put", "", "v"][..],
        &["get", ""],
        &["del", ""],
        &["--endpoints=", "get", "a"],
    ] {
        assert_same(&server, words, b"", plain);
    }
}

#[test]
fn wrong_transactions() {
    let server = filled();
    for input in [
        "",
        "\n",
        "\n\n",
        "nonsense\n",
        "mod(\"a\")=\"0\"\n",
        "mod(\"a\") = 0\n",
        "mod(a) = \"0\"\n",
        "mod(\"a\") = \"x\"\n",
        "foo(\"a\") = \"1\"\n",
        "\nget a --nope\n",
        "\nget a --limit x\n",
        "\nnope a\n",
        "\nget\n",
        "\nput q\n",
        "\nput q \"\\q\"\n",
        "\ndel a b c\n",
        "\nput a 1\nput a 2\n\n\n",
        "\ng 'a'\n\n\n",
        "version(\"a\") < \"5\"\ncreate(\"nope\") = \"0\"\n\n\
         put 'x y' \"\\x41\\n\"\nget \"x y\"\n\n\n",
    ] {
        assert_same(&server, &["txn"], input.as_bytes(), without_revisions);
    }
    assert_eq!(server.prepare(&["get", "x y"]), "x y\nA\n\n");
}

/// Commands whose help is etcdctl's in every letter.
const HELPFUL: &str = "\
get
del
watch
lease
lease grant
lease revoke
lease timetolive
lease keep-alive
lease list
lock
elect
member
member add
member remove
member update
endpoint
endpoint health
endpoint hashkv
compaction
version
defrag
move-leader
alarm
alarm list
alarm disarm
options
help
auth
auth enable
auth disable
auth status
user
user add
user delete
user get
user list
user passwd
user grant-role
user revoke-role
role
role add
role delete
role get
role list
role grant-permission
role revoke-permission
make-mirror
check
downgrade
downgrade validate
downgrade enable
downgrade cancel";

#[test]
fn help_of_every_command() {
    for words in HELPFUL.lines() {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let mut command = tool.command();
            command.args(words.split(' ')).arg("--help");
            finish(command, b"")
        });
        assert_eq!(ours, real, "{words}");
    }
    // What these say in sentences is our own; usage, commands and flags are not.
    for words in [
        "put",
        "txn",
        "member list",
        "member promote",
        "endpoint status",
        "snapshot",
        "snapshot save",
        "completion",
    ] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let mut command = tool.command();
            command.args(words.split(' ')).arg("-h");
            let ran = finish(command, b"");
            let usage = ran.stdout[ran.stdout.find("Usage:").unwrap()..].to_owned();
            let usage = mask(&usage, "Examples:", "Flags:");
            (ran.code, usage, ran.stderr)
        });
        assert_eq!(ours, real, "{words}");
    }
}

#[test]
fn the_environment_fills_flags_that_are_not_given() {
    let server = filled();
    for (name, value) in [
        ("ETCDCTL_API", "3"),
        ("ETCDCTL_ENDPOINTS", "127.0.0.1:1"),
        ("ETCDCTL_CERT", ""),
        ("ETCDCTL_WRITE_OUT", "json"),
        ("ETCDCTL_HEX", "true"),
        ("ETCDCTL_HEX", "nonsense"),
        ("ETCDCTL_CLUSTER", "true"),
        ("ETCDCTL_WATCH_KEY", "foo"),
        ("ETCDCTL_WATCH_RANGE_END", "foo"),
        ("ETCDCTL_MAX_RECV_BYTES", "10000"),
    ] {
        for words in [
            &["get", "foo"][..],
            &["endpoint", "hashkv"],
            &["watch", "b", "a"],
        ] {
            let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
                let mut command = server.command(tool, words);
                command.env(name, value);
                masked(&finish(command, b""))
            });
            assert_eq!(ours, real, "{name}={value} {words:?}");
        }
    }
}

#[test]
fn a_server_that_is_not_there() {
    let server = Server::start();
    let nowhere = "--endpoints=127.0.0.1:1";
    for words in [
        &["get", "a"][..],
        &["put", "a", "b"],
        &["endpoint", "status"],
        &["endpoint", "health"],
        &["lease", "grant", "5"],
        &["endpoint", "health", "--cluster"],
    ] {
        let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
            let mut command = tool.command();
            command
                .args([nowhere, "--command-timeout=500ms"])
                .args(words);
            masked(&finish(command, b""))
        });
        assert_eq!(ours, real, "{words:?}");
    }
    // One of two is enough.
    let both = format!("--endpoints=127.0.0.1:1,{}", server.endpoint);
    for tool in [Tool::Real, Tool::Ours] {
        let mut command = tool.command();
        command.args([&both, "put", "k", "v"]);
        assert_eq!(finish(command, b"").stdout, "OK\n");
    }
}

#[test]
fn what_is_too_large() {
    let server = Server::start();
    for bytes in [3 << 20, 1_800_000, 1 << 20] {
        let value = vec![b'x'; bytes];
        assert_same(&server, &["put", "large"], &value, plain);
    }
    for line in [
        &["get", "large", "--max-recv-bytes", "1000"][..],
        &["get", "large", "--stream", "--max-recv-bytes", "1000"],
        &["put", "k", "value", "--max-request-bytes", "5"],
    ] {
        // The size of an answer depends on its revisions.
        let masked = |text: &str| mask(text, "(1048", " ");
        assert_same(&server, line, b"", masked);
    }
}

#[test]
fn a_full_store_raises_an_alarm() {
    let server = Server::start_with(&["--quota-backend-bytes", "100000"]);
    let value = vec![b'x'; 1 << 20];
    assert_same(&server, &["put", "large"], &value, plain);
    for format in FORMATS {
        assert_same(&server, &["alarm", "list", "-w", format], b"", plain);
        assert_same(&server, &["endpoint", "status", "-w", format], b"", plain);
        let health = ["endpoint", "health", "-w", format];
        assert_same(&server, &health, b"", without_durations);
    }
    let ran = server.run(Tool::Ours, &["alarm", "disarm"], b"");
    assert!(ran.stdout.ends_with("alarm:NOSPACE\n"), "{ran:?}");
    assert_same(&server, &["alarm", "list"], b"", plain);
}

/// Users, roles and what they may do, from nothing to a cluster with authentication and back.
const ACCESS_LINES: &str = "user add root:secret
user add alice --new-user-password pw
user add bob --no-password -w json
user add alice:again
role add reader -w fields
role add writer
role grant-permission reader read foo
role grant-permission reader read a z
role grant-permission reader readwrite dir/ --prefix
role grant-permission writer write from --from-key
role grant-permission writer write a --prefix --from-key
role grant-permission writer write a b --prefix
role get reader
role get reader -w json
role get reader -w fields
role get writer -w table
role revoke-permission reader a z
role revoke-permission reader foo
role revoke-permission writer from --from-key
role revoke-permission writer nope
role list
role list -w json
role list -w fields
user grant-role alice reader
user grant-role alice nope
user get alice
user get alice -w json
user get alice -w fields
user get alice --detail
user list
user list -w json
user list -w fields
user revoke-role alice reader -w json
user revoke-role alice reader
user grant-role alice reader
auth status
auth status -w fields
auth enable
put foo bar
--user root:wrong put foo bar
--user root:secret put foo bar
--user alice:pw get foo
--user alice --password pw put dir/x y
--user alice:pw get dir/x
--user root:secret endpoint health
--user alice:pw endpoint health
--user root:secret role get root
--user root:secret role delete writer
--user root:secret user delete bob
--user root:secret auth status
--user root:secret auth disable
get foo";

#[test]
fn users_and_roles() {
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        let server = Server::start();
        server.prepare(&["compaction", "1"]);
        let ran = ACCESS_LINES.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let ran = masked(&server.run(tool, &words, b""));
            let mut out = ran.stdout;
            for (before, end) in [
                ("cluster_id\":", ","),
                ("member_id\":", ","),
                ("ClusterID\" : ", "\n"),
                ("MemberID\" : ", "\n"),
                ("127.0.0.1:", " "),
                ("took = ", "\n"),
            ] {
                out = mask(&out, before, end);
            }
            (line, ran.code, out, mask(&ran.stderr, "127.0.0.1:", " "))
        });
        ran.collect::<Vec<_>>()
    });
    for (ours, real) in ours.iter().zip(&real) {
        assert_eq!(ours, real);
    }
}

#[test]
fn under_its_own_name_it_says_so() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quoratectl"));
    let ran = finish(std::mem::replace(&mut command, Tool::Ours.command()), b"");
    assert!(
        ran.stdout.contains("\n  quoratectl [command]\n"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("etcdctl"), "{}", ran.stdout);
}

#[test]
fn members_and_maintenance() {
    let server = Server::start();
    let add = [
        "member",
        "add",
        "m2",
        "--peer-urls=http://127.0.0.1:1",
        "--learner",
    ];
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        // A server that has just started refuses changes for a while.
        let ran = wait_for("a member may be added", || {
            Some(server.run(tool, &add, b"")).filter(|ran| ran.code == Some(0))
        });
        let id = ran.stdout.split_whitespace().nth(1).unwrap().to_owned();
        let update = ["member", "update", &id, "--peer-urls=http://127.0.0.1:2"];
        let promote = ["member", "promote", &id];
        let rest = [
            server.run(tool, &update, b""),
            masked(&server.run(tool, &promote, b"")),
            server.run(tool, &["member", "list", "-w", "table"], b""),
            server.run(tool, &["member", "remove", &id, "-w", "json"], b""),
        ];
        let texts = [vec![ran], rest.to_vec()].concat();
        let number = u64::from_str_radix(&id, 16).unwrap().to_string();
        texts
            .into_iter()
            .map(|ran| {
                let out = ran.stdout.replace(&id, "ID").replace(&number, "ID");
                // Members are listed in the order of their IDs, and the new one's is made of the
                // time: compare the words in any order.
                let mut words: Vec<String> = out
                    .split([' ', '\n', ',', '"', '│', '{', '}'])
                    .filter(|word| !word.contains('─'))
                    .map(str::to_owned)
                    .collect();
                words.sort();
                (ran.code, words, ran.stderr)
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(ours, real);

    assert_same(&server, &["defrag"], b"", without_durations);
    assert_same(&server, &["defrag", "--cluster"], b"", without_durations);
    server.prepare(&["put", "a", "1"]);
    server.prepare(&["put", "a", "2"]);
    let ran = server.run(Tool::Ours, &["compaction", "3", "--physical"], b"");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "compacted revision 3\n")
    );
    assert_same(&server, &["compaction", "3"], b"", plain);
    assert_same(&server, &["get", "a", "--rev", "2"], b"", plain);
    let id = server.prepare(&["member", "list"]);
    let id = id.split(',').next().unwrap();
    for format in FORMATS {
        assert_same(&server, &["move-leader", id, "-w", format], b"", plain);
    }
}
