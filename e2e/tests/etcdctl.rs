//! The real etcdctl and quoratectl, each against etcd and against Quorate: the same output.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cli::{Case, Cli, How, Output};
use quorate_e2e::cluster::{Cluster, Options};

/// Reading and writing keys.
fn keys() -> Vec<Case> {
    let lines = [
        "put foo bar",
        "put foo2 bar2",
        "put foo1 bar1 --prev-kv",
        "put foo baz --prev-kv",
        "put z last",
        "get foo",
        "get foo --hex",
        "get foo -w json",
        "get foo -w fields",
        "get foo --hex -w json",
        "get --prefix foo",
        "get --prefix foo --limit 2",
        "get --prefix foo --limit 2 -w json",
        "get --prefix foo --keys-only",
        "get --prefix foo --print-value-only",
        "get --prefix foo --count-only",
        "get --prefix foo --count-only -w fields",
        "get --prefix foo --sort-by VALUE --order DESCEND",
        "get --prefix foo --sort-by CREATE --order ASCEND",
        "get --prefix foo --sort-by MODIFY --order DESCEND --keys-only",
        "get --prefix foo --sort-by VERSION --order ASCEND",
        "get foo --rev 2",
        "get foo --rev 999",
        "get foo --consistency s",
        "get a z",
        "get foo1 --from-key",
        "get nothing",
        "get nothing -w json",
        "get --prefix foo --from-key",
        "get --order FOO foo",
        "get",
        "put",
        "put foo --ignore-value",
        "put nothing --ignore-value",
        "put foo x --lease 1234",
        "put foo x -w json",
        "put foo x -w fields --prev-kv",
        "put foo x -w table",
        "get foo -w nonsense",
        "del foo",
        "del foo",
        "del --prefix foo --prev-kv",
        "del z -w json",
        "del z -w fields",
        "del",
    ];
    let mut cases: Vec<Case> = lines.iter().map(|line| Case::new(line)).collect();
    cases.push(Case::new("put input").stdin("from standard input"));
    cases.push(Case::new("get input"));
    cases.push(Case::new("get input -w protobuf").how(How::Range));
    cases
}

fn txns() -> Vec<Case> {
    let txn = |input: &str| Case::new("txn").stdin(input);
    vec![
        Case::new("put key1 value1"),
        txn("mod(\"key1\") > \"0\"\n\nput key1 \"overwrote-key1\"\n\nput key1 \"created\"\n\n"),
        txn("value(\"key1\") = \"nothing\"\n\nget key1\n\nget key1\nput key2 x\ndel key1\n\n"),
        txn("create(\"key1\") = \"0\"\nversion(\"key1\") = \"0\"\n\nput key1 again\n\n\n"),
        txn("value(\"key2\") != \"y\"\n\nget --prefix key\ndel key2 --prev-kv\n\n\n"),
        txn("ver(\"key1\") < \"9\"\n\n\n\n"),
        txn("nonsense\n\n\n\n"),
        txn("mod(\"key1\") > \"0\"\n\nfly away\n\n\n"),
        txn("mod(\"key1\") > \"0\"\n"),
        Case::new("txn -w json").stdin("mod(\"key1\") > \"0\"\n\nget key1\nput key3 3\n\n\n"),
        Case::new("txn -w fields").stdin("mod(\"key1\") > \"0\"\n\nget key1\nput key3 4\n\n\n"),
        Case::new("txn --interactive").stdin("mod(\"key1\") > \"0\"\n\nget key1\n\n\n"),
        Case::new("txn argument"),
    ]
}

fn leases() -> Vec<Case> {
    vec![
        Case::new("lease grant 600"),
        Case::new("put leased value --lease={LEASE}"),
        Case::new("get leased -w json"),
        Case::new("lease timetolive {LEASE} -w json").how(How::JsonNames),
        Case::new("lease timetolive {LEASE} --keys -w json").how(How::JsonNames),
        Case::new("lease timetolive 1234"),
        Case::new("lease list"),
        Case::new("lease list -w json"),
        Case::new("lease keep-alive --once {LEASE}"),
        Case::new("lease keep-alive --once 1234"),
        Case::new("lease keep-alive {LEASE}").lines(1),
        Case::new("lease revoke {LEASE}"),
        Case::new("lease revoke {LEASE}"),
        Case::new("lease timetolive {LEASE}"),
        Case::new("get leased"),
        Case::new("lease grant abc"),
        Case::new("lease grant 9000000001"),
        Case::new("lease grant"),
        Case::new("lease revoke zz"),
    ]
}

fn watches() -> Vec<Case> {
    let two = "watch w1 --rev 1\nwatch --prefix w --rev 1\n";
    vec![
        Case::new("put w1 one"),
        Case::new("put w1 two"),
        Case::new("put w2 three"),
        Case::new("del w1"),
        Case::new("watch w1 --rev 1").lines(9),
        Case::new("watch --prefix w --rev 1").lines(12),
        Case::new("watch --prefix w --rev 1 --prev-kv").lines(16),
        Case::new("watch w1 --rev 1 -w json").lines(1),
        Case::new("watch w1 w3 --rev 1").lines(12),
        Case::new("watch w2 --rev 1 -- env")
            .lines(3)
            .how(How::Lines),
        Case::new("watch -i").stdin(two).lines(21).how(How::Lines),
        Case::new("watch -i").stdin("nonsense\n"),
        Case::new("watch"),
    ]
}

fn cluster_wide() -> Vec<Case> {
    vec![
        Case::new("put c1 1"),
        Case::new("put c1 2"),
        Case::new("put c1 3"),
        Case::new("endpoint hashkv"),
        Case::new("endpoint hashkv --cluster -w json").how(How::JsonNames),
        Case::new("compaction 3"),
        Case::new("compaction 3"),
        Case::new("compaction 999"),
        Case::new("compaction x"),
        Case::new("compaction"),
        Case::new("get c1 --rev 2"),
        Case::new("watch c1 --rev 2"),
        Case::new("endpoint hashkv"),
        Case::new("member list"),
        Case::new("member list -w json"),
        Case::new("member list -w fields"),
        Case::new("member list -w table").how(How::FirstTwoLines),
        Case::new("endpoint health"),
        Case::new("endpoint health --cluster -w json").how(How::JsonNames),
        Case::new("endpoint status --cluster -w table").how(How::FirstTwoLines),
        Case::new("endpoint status --cluster -w json").how(How::JsonNames),
        Case::new("defrag"),
        Case::new("alarm list"),
        Case::new("move-leader 1234"),
        Case::new("nonsense"),
        Case::new("get --nonsense foo"),
    ]
}

/// Changes of the members. On etcd a second voter that is not there would stop the first one.
fn members() -> Vec<Case> {
    let lines = [
        "member add",
        "member add m2",
        "member add m2 http://127.0.0.1:1",
        "member add m2 --peer-urls=nonsense",
        "member add m2 --peer-urls=http://127.0.0.1:1 --learner",
        "member add m3 --peer-urls=http://127.0.0.1:2 --learner",
        "member add m3 --peer-urls=http://127.0.0.1:1",
        "member promote {MEMBER}",
        "member promote zz",
        "member promote",
        "member update {MEMBER} --peer-urls=http://127.0.0.1:3",
        "member update {MEMBER}",
        "member update 1234 --peer-urls=http://127.0.0.1:4",
        "member list",
        "member list --consistency s",
        "member list -w fields",
    ];
    let words = |line: &&str| Case::new(line).how(How::Words);
    let mut cases: Vec<Case> = lines.iter().map(words).collect();
    let add = "member add m3 --peer-urls=http://127.0.0.1:5 --learner -w";
    for line in [
        "member list -w json",
        "member list --hex -w json",
        "member remove {MEMBER} -w json",
        &format!("{add} json"),
    ] {
        cases.push(Case::new(line).how(How::JsonNames));
    }
    for line in [
        "member remove {MEMBER}",
        "member remove",
        "member remove zz",
        "member list -w nonsense",
    ] {
        cases.push(Case::new(line).how(How::Words));
    }
    cases
}

fn locks() -> Vec<Case> {
    vec![
        Case::new("lock name").lines(1),
        Case::new("lock name echo held"),
        Case::new("lock name false"),
        Case::new("elect elect one").lines(2),
        Case::new("get --prefix name"),
    ]
}

async fn run(tool: Kind, server: Kind, size: usize, cases: &[Case]) -> Result<Vec<Output>> {
    let cluster = Cluster::start(&Options::new(server, size)).await?;
    let mut cli = Cli::new(tool, &cluster).await?;
    let mut outputs = Vec::new();
    for case in cases {
        let output = cli
            .run(case)
            .await
            .with_context(|| format!("{} to {}", tool.name(), server.name()))?;
        outputs.push(output);
    }
    Ok(outputs)
}

/// Compares every pair of tool and server with etcdctl on etcd, and shows all that differ.
async fn compare(size: usize, cases: Vec<Case>) -> Result<()> {
    let expected = run(Kind::Etcd, Kind::Etcd, size, &cases).await?;
    let ours = Kind::under_test()?;
    let mut faults = Vec::new();
    for (tool, server) in [(Kind::Etcd, ours), (ours, Kind::Etcd), (ours, ours)] {
        let outputs = run(tool, server, size, &cases).await?;
        for ((case, expected), output) in cases.iter().zip(&expected).zip(outputs) {
            if *expected != output {
                faults.push(format!(
                    "{}'s tool to {}: {:?} {:?}\n  expected {expected:?}\n  found    {output:?}",
                    tool.name(),
                    server.name(),
                    case.args.join(" "),
                    case.stdin,
                ));
            }
        }
    }
    ensure!(
        faults.is_empty(),
        "{} differ:\n{}",
        faults.len(),
        faults.join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn keys_read_the_same() -> Result<()> {
    compare(1, keys()).await
}

#[tokio::test]
async fn transactions_read_the_same() -> Result<()> {
    compare(1, txns()).await
}

#[tokio::test]
async fn leases_read_the_same() -> Result<()> {
    compare(1, leases()).await
}

#[tokio::test]
async fn watches_read_the_same() -> Result<()> {
    compare(1, watches()).await
}

#[tokio::test]
async fn the_cluster_reads_the_same() -> Result<()> {
    compare(1, cluster_wide()).await
}

#[tokio::test]
async fn changes_of_members_read_the_same() -> Result<()> {
    compare(1, members()).await
}

#[tokio::test]
async fn locks_read_the_same() -> Result<()> {
    compare(1, locks()).await
}

/// Keys, transactions, leases and locks once more, on three members.
#[tokio::test]
async fn three_members_read_the_same() -> Result<()> {
    let mut cases = keys();
    cases.extend(txns());
    cases.extend(leases());
    cases.extend(locks());
    compare(3, cases).await
}
