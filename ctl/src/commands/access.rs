//! `auth` and `role`.

use super::group;
use super::setup::Setup;
use crate::cli::{Call, Command, Flag};
use crate::outcome::Exit;
use crate::print::{Answer, emit_line, prefix_end};
use crate::rpc::{Effect, Rpc, RpcError};
use bytes::Bytes;
use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type as PermissionType;
use quorate_proto::etcdserverpb as pb;
use tokio::time::Instant;

/// The user and the role that may do all.
const ROOT: &str = "root";

/// `auth`.
pub static AUTH: Command = Command {
    usage: "auth <enable or disable>",
    short: "Enable or disable authentication. Use `{program} auth --help` to see subcommands",
    long: "Enable or disable authentication",
    group: group::ACCESS,
    children: &[&AUTH_DISABLE, &AUTH_ENABLE, &AUTH_STATUS],
    ..Command::EMPTY
};

static AUTH_ENABLE: Command = Command {
    usage: "enable",
    short: "Enables authentication",
    run: Some(|call| Box::pin(auth_enable(call))),
    ..Command::EMPTY
};

static AUTH_DISABLE: Command = Command {
    usage: "disable",
    short: "Disables authentication",
    run: Some(|call| Box::pin(auth_disable(call))),
    ..Command::EMPTY
};

static AUTH_STATUS: Command = Command {
    usage: "status",
    short: "Returns authentication status",
    run: Some(|call| Box::pin(auth_status(call))),
    ..Command::EMPTY
};

/// `role`.
pub static ROLE: Command = Command {
    usage: "role <subcommand>",
    short: "Role related commands. Use `{program} role --help` to see subcommands",
    long: "Role related commands",
    group: group::ACCESS,
    children: &[
        &ROLE_ADD,
        &ROLE_DELETE,
        &ROLE_GET,
        &ROLE_GRANT,
        &ROLE_LIST,
        &ROLE_REVOKE,
    ],
    ..Command::EMPTY
};

static ROLE_ADD: Command = Command {
    usage: "add <role name>",
    short: "Adds a new role",
    run: Some(|call| Box::pin(role_add(call))),
    ..Command::EMPTY
};

static ROLE_DELETE: Command = Command {
    usage: "delete <role name>",
    short: "Deletes a role",
    run: Some(|call| Box::pin(role_delete(call))),
    ..Command::EMPTY
};

static ROLE_GET: Command = Command {
    usage: "get <role name>",
    short: "Gets detailed information of a role",
    run: Some(|call| Box::pin(role_get(call))),
    ..Command::EMPTY
};

static ROLE_LIST: Command = Command {
    usage: "list",
    short: "Lists all roles",
    run: Some(|call| Box::pin(role_list(call))),
    ..Command::EMPTY
};

static ROLE_GRANT: Command = Command {
    usage: "grant-permission [options] <role name> <permission type> <key> [endkey]",
    short: "Grants a key to a role",
    flags: &[
        Flag::off("prefix", "grant a prefix permission"),
        Flag::off(
            "from-key",
            "grant a permission of keys that are greater than or equal to the given key using \
             byte compare",
        ),
    ],
    run: Some(|call| Box::pin(role_grant(call))),
    ..Command::EMPTY
};

static ROLE_REVOKE: Command = Command {
    usage: "revoke-permission <role name> <key> [endkey]",
    short: "Revokes a key from a role",
    flags: &[
        Flag::off("prefix", "revoke a prefix permission"),
        Flag::off(
            "from-key",
            "revoke a permission of keys that are greater than or equal to the given key using \
             byte compare",
        ),
    ],
    run: Some(|call| Box::pin(role_revoke(call))),
    ..Command::EMPTY
};

async fn auth_enable(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        let text = "auth enable command does not accept any arguments";
        return Err(Exit::bad_arguments(text));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let deadline = setup.deadline();
    let enabled = match enable(&rpc, deadline).await {
        // The first time: give root the role it lacks.
        Err(error) if error.text() == "etcdserver: root user does not have root role" => {
            add_role(&rpc, deadline, ROOT).await.map_err(Exit::error)?;
            super::user::grant_role(&rpc, deadline, ROOT, ROOT)
                .await
                .map_err(Exit::error)?;
            enable(&rpc, deadline).await
        }
        other => other,
    };
    enabled.map_err(Exit::error)?;
    emit_line("Authentication Enabled")
}

async fn enable(rpc: &Rpc, deadline: Option<Instant>) -> Result<pb::AuthEnableResponse, RpcError> {
    let method = "/etcdserverpb.Auth/AuthEnable";
    rpc.call(
        Effect::Write,
        method,
        deadline,
        pb::AuthEnableRequest {},
        async |client, request| client.auth().auth_enable(request).await,
    )
    .await
}

async fn auth_disable(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        let text = "auth disable command does not accept any arguments";
        return Err(Exit::bad_arguments(text));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/AuthDisable";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        pb::AuthDisableRequest {},
        async |client, request| client.auth().auth_disable(request).await,
    );
    answer.await.map_err(Exit::error)?;
    emit_line("Authentication Disabled")
}

async fn auth_status(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        let text = "auth status command does not accept any arguments";
        return Err(Exit::bad_arguments(text));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/AuthStatus";
    let answer = rpc.call(
        Effect::Read,
        method,
        setup.deadline(),
        pb::AuthStatusRequest {},
        async |client, request| client.auth().auth_status(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::AuthStatus(&response))
}

fn one_role(call: &Call, command: &str) -> Result<Vec<u8>, Exit> {
    let [role] = call.arguments.as_slice() else {
        let text = format!("role {command} command requires role name as its argument");
        return Err(Exit::bad_arguments(text));
    };
    Ok(role.clone())
}

async fn add_role(
    rpc: &Rpc,
    deadline: Option<Instant>,
    role: &str,
) -> Result<pb::AuthRoleAddResponse, RpcError> {
    let request = pb::AuthRoleAddRequest { name: role.into() };
    let method = "/etcdserverpb.Auth/RoleAdd";
    rpc.call(
        Effect::Write,
        method,
        deadline,
        request,
        async |client, request| client.auth().role_add(request).await,
    )
    .await
}

async fn role_add(mut call: Call) -> Result<(), Exit> {
    let role = one_role(&call, "add")?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let name = String::from_utf8_lossy(&role);
    let response = add_role(&rpc, None, &name).await.map_err(Exit::error)?;
    setup.display.show(Answer::RoleAdd(&role, &response))
}

async fn role_delete(mut call: Call) -> Result<(), Exit> {
    let role = one_role(&call, "delete")?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::AuthRoleDeleteRequest {
        role: String::from_utf8_lossy(&role).into_owned(),
    };
    let method = "/etcdserverpb.Auth/RoleDelete";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().role_delete(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::RoleDelete(&role, &response))
}

/// What a role may do.
///
/// # Errors
/// What the server said.
pub async fn get_role(rpc: &Rpc, role: &str) -> Result<pb::AuthRoleGetResponse, RpcError> {
    let request = pb::AuthRoleGetRequest { role: role.into() };
    let method = "/etcdserverpb.Auth/RoleGet";
    rpc.call(
        Effect::Read,
        method,
        None,
        request,
        async |client, request| client.auth().role_get(request).await,
    )
    .await
}

async fn role_get(mut call: Call) -> Result<(), Exit> {
    let role = one_role(&call, "get")?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = get_role(&rpc, &String::from_utf8_lossy(&role)).await;
    setup
        .display
        .show(Answer::RoleGet(&role, &response.map_err(Exit::error)?))
}

async fn role_list(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        return Err(Exit::bad_arguments(
            "role list command requires no arguments",
        ));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/RoleList";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        pb::AuthRoleListRequest {},
        async |client, request| client.auth().role_list(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::RoleList(&response))
}

async fn role_grant(mut call: Call) -> Result<(), Exit> {
    let [role, kind, range @ ..] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments(GRANT_ARGUMENTS));
    };
    if range.is_empty() {
        return Err(Exit::bad_arguments(GRANT_ARGUMENTS));
    }
    let kind = String::from_utf8_lossy(kind);
    let perm_type = PermissionType::from_str_name(&kind.to_uppercase())
        .ok_or_else(|| Exit::bad_arguments(format!("invalid permission type: {kind}")))?;
    let (key, range_end) = permission_range(&call, range)?;
    let role = role.clone();
    let request = pb::AuthRoleGrantPermissionRequest {
        name: String::from_utf8_lossy(&role).into_owned(),
        perm: Some(Permission {
            perm_type: perm_type.into(),
            key,
            range_end,
        }),
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/RoleGrantPermission";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().role_grant_permission(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::RoleGrant(&role, &response))
}

const GRANT_ARGUMENTS: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

async fn role_revoke(mut call: Call) -> Result<(), Exit> {
    let [role, range @ ..] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments(REVOKE_ARGUMENTS));
    };
    let Some(given) = range.first() else {
        return Err(Exit::bad_arguments(REVOKE_ARGUMENTS));
    };
    let (key, range_end) = permission_range(&call, range)?;
    let (role, given) = (role.clone(), given.clone());
    let request = pb::AuthRoleRevokePermissionRequest {
        role: String::from_utf8_lossy(&role).into_owned(),
        key,
        range_end: range_end.clone(),
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/RoleRevokePermission";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().role_revoke_permission(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    let answer = Answer::RoleRevoke(&role, &given, &range_end, &response);
    setup.display.show(answer)
}

const REVOKE_ARGUMENTS: &str =
    "role revoke-permission command requires role name and key [endkey] as its argument";

/// The range of keys that arguments and flags mean.
fn permission_range(call: &Call, range: &[Vec<u8>]) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (call.flags.bool("prefix"), call.flags.bool("from-key"));
    let key = &range[0];
    let open = Bytes::from_static(b"\0");
    if prefix && from_key && (key.is_empty() || range.len() == 1) {
        let text = "--from-key and --prefix flags are mutually exclusive";
        return Err(Exit::bad_arguments(text));
    }
    if key.is_empty() {
        let end = if prefix || from_key {
            open.clone()
        } else {
            Bytes::new()
        };
        return Ok((open, end));
    }
    let end = match range.get(1) {
        None if prefix => prefix_end(key),
        None if from_key => open,
        None => Bytes::new(),
        Some(_) if prefix || from_key => {
            let flag = if prefix { "prefix" } else { "from-key" };
            let text = format!("unexpected endkey argument with --{flag} flag");
            return Err(Exit::bad_arguments(text));
        }
        Some(end) => Bytes::copy_from_slice(end),
    };
    Ok((Bytes::copy_from_slice(key), end))
}
