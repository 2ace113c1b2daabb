//! `member list|add|remove|update|promote`.

use super::get::is_serializable;
use super::group;
use super::setup::Setup;
use crate::cli::{Call, Command, Flag};
use crate::go::{self, quote};
use crate::outcome::Exit;
use crate::print::{Answer, Format, emit};
use crate::rpc::{Effect, Rpc, RpcError};
use quorate_proto::etcdserverpb as pb;
use tokio::time::Instant;

/// `member`.
pub static MEMBER: Command = Command {
    usage: "member <subcommand>",
    short: "Membership related commands. Use `{program} member --help` to see subcommands",
    long: "Membership related commands",
    group: group::CLUSTER,
    children: &[&ADD, &LIST, &PROMOTE, &REMOVE, &UPDATE],
    ..Command::EMPTY
};

static ADD: Command = Command {
    usage: "add <memberName> [options]",
    short: "Adds a member into the cluster",
    flags: &[
        Flag::text(
            "peer-urls",
            "",
            "comma separated peer URLs for the new member.",
        ),
        Flag::off("learner", "indicates if the new member is raft learner"),
    ],
    run: Some(|call| Box::pin(add(call))),
    ..Command::EMPTY
};

static REMOVE: Command = Command {
    usage: "remove <memberID>",
    short: "Removes a member from the cluster",
    run: Some(|call| Box::pin(remove(call))),
    ..Command::EMPTY
};

static UPDATE: Command = Command {
    usage: "update <memberID> [options]",
    short: "Updates a member in the cluster",
    flags: &[Flag::text(
        "peer-urls",
        "",
        "comma separated peer URLs for the updated member.",
    )],
    run: Some(|call| Box::pin(update(call))),
    ..Command::EMPTY
};

static LIST: Command = Command {
    usage: "list",
    short: "Lists all members in the cluster",
    long: "In the simple format, every member is one line of values separated by commas: \
           ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.",
    flags: &[Flag::text(
        "consistency",
        "l",
        "Linearizable(l) or Serializable(s)",
    )],
    run: Some(|call| Box::pin(list(call))),
    ..Command::EMPTY
};

static PROMOTE: Command = Command {
    usage: "promote <memberID>",
    short: "Promotes a non-voting member in the cluster",
    long: "Makes a learner, which has no vote, a member that votes.",
    run: Some(|call| Box::pin(promote(call))),
    ..Command::EMPTY
};

async fn list(mut call: Call) -> Result<(), Exit> {
    let linearizable = !is_serializable(&call.flags.text("consistency"))?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = list_members(&rpc, setup.deadline(), linearizable).await;
    setup
        .display
        .show(Answer::MemberList(&response.map_err(Exit::error)?))
}

/// All members.
///
/// # Errors
/// What the server said.
pub async fn list_members(
    rpc: &Rpc,
    deadline: Option<Instant>,
    linearizable: bool,
) -> Result<pb::MemberListResponse, RpcError> {
    let method = "/etcdserverpb.Cluster/MemberList";
    rpc.call(
        Effect::Read,
        method,
        deadline,
        pb::MemberListRequest { linearizable },
        async |client, request| client.cluster().member_list(request).await,
    )
    .await
}

async fn add(mut call: Call) -> Result<(), Exit> {
    let name = match call.arguments.as_slice() {
        [] => return Err(Exit::bad_arguments("member name not provided")),
        [name] => name.clone(),
        many => {
            let mut text = String::from("too many arguments");
            for word in many.iter().map(|word| String::from_utf8_lossy(word)) {
                if word.to_lowercase().starts_with("http") {
                    text += &format!(", did you mean --peer-urls={word}");
                }
            }
            return Err(Exit::bad_arguments(text));
        }
    };
    let request = pb::MemberAddRequest {
        peer_ur_ls: peer_urls(&call)?,
        is_learner: call.flags.bool("learner"),
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberAdd";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        request,
        async |client, request| client.cluster().member_add(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::MemberAdd(&response))?;
    if setup.display.format != Format::Simple {
        return Ok(());
    }
    let added = response.member.clone().unwrap_or_default().id;
    let mut cluster = Vec::new();
    for member in &response.members {
        let member_name = if member.id == added {
            String::from_utf8_lossy(&name).into_owned()
        } else {
            member.name.clone()
        };
        let urls = member.peer_ur_ls.iter();
        cluster.extend(urls.map(|url| format!("{member_name}={url}")));
    }
    let text = format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(&name),
        quote(cluster.join(",").as_bytes()),
        quote(call.flags.bytes("peer-urls")),
    );
    emit(text.as_bytes())
}

fn peer_urls(call: &Call) -> Result<Vec<String>, Exit> {
    let given = call.flags.text("peer-urls");
    if given.is_empty() {
        return Err(Exit::bad_arguments("member peer urls not provided"));
    }
    Ok(given.split(',').map(str::to_owned).collect())
}

fn member_id(call: &Call) -> Result<u64, Exit> {
    let [id] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments("member ID is not provided"));
    };
    go::parse_uint(id, 16).map_err(|reason| {
        Exit::bad_arguments(format!("bad member ID arg ({reason}), expecting ID in Hex"))
    })
}

async fn remove(mut call: Call) -> Result<(), Exit> {
    let id = member_id(&call)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberRemove";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        pb::MemberRemoveRequest { id },
        async |client, request| client.cluster().member_remove(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::MemberRemove(id, &response))
}

async fn update(mut call: Call) -> Result<(), Exit> {
    let id = member_id(&call)?;
    let peer_ur_ls = peer_urls(&call)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberUpdate";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        pb::MemberUpdateRequest { id, peer_ur_ls },
        async |client, request| client.cluster().member_update(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::MemberUpdate(id, &response))
}

async fn promote(mut call: Call) -> Result<(), Exit> {
    let id = member_id(&call)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberPromote";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        pb::MemberPromoteRequest { id },
        async |client, request| client.cluster().member_promote(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::MemberPromote(id, &response))
}
