//! `user`.

use super::setup::Setup;
use super::{access, group, password};
use crate::cli::{Call, Command, Flag};
use crate::outcome::Exit;
use crate::print::{Answer, emit};
use crate::rpc::{Effect, Rpc, RpcError};
use quorate_proto::authpb::UserAddOptions;
use quorate_proto::etcdserverpb as pb;
use tokio::time::Instant;

/// `user`.
pub static USER: Command = Command {
    usage: "user <subcommand>",
    short: "User related commands. Use `{program} user --help` to see subcommands",
    long: "User related commands",
    group: group::ACCESS,
    children: &[
        &ADD,
        &DELETE,
        &GET,
        &GRANT_ROLE,
        &LIST,
        &PASSWD,
        &REVOKE_ROLE,
    ],
    ..Command::EMPTY
};

static ADD: Command = Command {
    usage: "add <user name or user:password> [options]",
    short: "Adds a new user",
    flags: &[
        Flag::on(
            "interactive",
            "Read password from stdin instead of interactive terminal",
        ),
        Flag::text(
            "new-user-password",
            "",
            "Supply password from the command line flag",
        ),
        Flag::off(
            "no-password",
            "Create a user without password (CN based auth only)",
        ),
    ],
    run: Some(|call| Box::pin(add(call))),
    ..Command::EMPTY
};

static DELETE: Command = Command {
    usage: "delete <user name>",
    short: "Deletes a user",
    run: Some(|call| Box::pin(delete(call))),
    ..Command::EMPTY
};

static GET: Command = Command {
    usage: "get <user name> [options]",
    short: "Gets detailed information of a user",
    flags: &[Flag::off(
        "detail",
        "Show permissions of roles granted to the user",
    )],
    run: Some(|call| Box::pin(get(call))),
    ..Command::EMPTY
};

static LIST: Command = Command {
    usage: "list",
    short: "Lists all users",
    run: Some(|call| Box::pin(list(call))),
    ..Command::EMPTY
};

static PASSWD: Command = Command {
    usage: "passwd <user name> [options]",
    short: "Changes password of user",
    flags: &[Flag::on(
        "interactive",
        "If true, read password from stdin instead of interactive terminal",
    )],
    run: Some(|call| Box::pin(passwd(call))),
    ..Command::EMPTY
};

static GRANT_ROLE: Command = Command {
    usage: "grant-role <user name> <role name>",
    short: "Grants a role to a user",
    run: Some(|call| Box::pin(grant(call))),
    ..Command::EMPTY
};

static REVOKE_ROLE: Command = Command {
    usage: "revoke-role <user name> <role name>",
    short: "Revokes a role from a user",
    run: Some(|call| Box::pin(revoke(call))),
    ..Command::EMPTY
};

fn one_user(call: &Call, command: &str) -> Result<Vec<u8>, Exit> {
    let [user] = call.arguments.as_slice() else {
        let text = format!("user {command} command requires user name as its argument");
        return Err(Exit::bad_arguments(text));
    };
    Ok(user.clone())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The password for `user`, typed twice at the terminal or once on standard input.
fn new_password(call: &Call, user: &str) -> Result<String, Exit> {
    if !call.flags.bool("interactive") {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return Ok(line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned());
    }
    let ask = |prompt: &str| {
        password::ask(prompt)
            .map_err(|reason| Exit::bad_arguments(format!("failed to ask password: {reason}")))
    };
    let first = ask(&format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(Exit::bad_arguments("empty password"));
    }
    let second = ask(&format!("Type password of {user} again for confirmation: "))?;
    if first != second {
        return Err(Exit::bad_arguments("given passwords are different"));
    }
    Ok(first)
}

async fn add(mut call: Call) -> Result<(), Exit> {
    let argument = lossy(&one_user(&call, "add")?);
    let no_password = call.flags.bool("no-password");
    let given = call.flags.text("new-user-password");
    let (name, password) = if no_password {
        (argument, String::new())
    } else if !given.is_empty() {
        (argument, given)
    } else if let Some((name, password)) = argument.split_once(':') {
        if name.is_empty() {
            return Err(Exit::bad_arguments("empty user name is not allowed"));
        }
        (name.to_owned(), password.to_owned())
    } else {
        let password = new_password(&call, &argument)?;
        (argument, password)
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..Default::default()
    };
    let method = "/etcdserverpb.Auth/UserAdd";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().user_add(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup
        .display
        .show(Answer::UserAdd(name.as_bytes(), &response))
}

async fn delete(mut call: Call) -> Result<(), Exit> {
    let user = one_user(&call, "delete")?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/UserDelete";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        pb::AuthUserDeleteRequest { name: lossy(&user) },
        async |client, request| client.auth().user_delete(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::UserDelete(&user, &response))
}

async fn get(mut call: Call) -> Result<(), Exit> {
    let user = one_user(&call, "get")?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/UserGet";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        pb::AuthUserGetRequest { name: lossy(&user) },
        async |client, request| client.auth().user_get(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    if !call.flags.bool("detail") {
        return setup.display.show(Answer::UserGet(&user, &response));
    }
    emit(&[b"User: ", user.as_slice(), b"\n"].concat())?;
    for role in &response.roles {
        emit(b"\n")?;
        let response = access::get_role(&rpc, role).await.map_err(Exit::error)?;
        setup
            .display
            .show(Answer::RoleGet(role.as_bytes(), &response))?;
    }
    Ok(())
}

async fn list(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        return Err(Exit::bad_arguments(
            "user list command requires no arguments",
        ));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Auth/UserList";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        pb::AuthUserListRequest {},
        async |client, request| client.auth().user_list(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::UserList(&response))
}

async fn passwd(mut call: Call) -> Result<(), Exit> {
    let name = lossy(&one_user(&call, "passwd")?);
    let password = new_password(&call, &name)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::AuthUserChangePasswordRequest {
        name,
        password,
        ..Default::default()
    };
    let method = "/etcdserverpb.Auth/UserChangePassword";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().user_change_password(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::UserPassword(&response))
}

/// Gives a user a role.
///
/// # Errors
/// What the server said.
pub async fn grant_role(
    rpc: &Rpc,
    deadline: Option<Instant>,
    user: &str,
    role: &str,
) -> Result<pb::AuthUserGrantRoleResponse, RpcError> {
    let request = pb::AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    };
    let method = "/etcdserverpb.Auth/UserGrantRole";
    rpc.call(
        Effect::Write,
        method,
        deadline,
        request,
        async |client, request| client.auth().user_grant_role(request).await,
    )
    .await
}

async fn grant(mut call: Call) -> Result<(), Exit> {
    let [user, role] = call.arguments.as_slice() else {
        let text = "user grant command requires user name and role name as its argument";
        return Err(Exit::bad_arguments(text));
    };
    let (user, role) = (user.clone(), role.clone());
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = grant_role(&rpc, None, &lossy(&user), &lossy(&role)).await;
    let response = response.map_err(Exit::error)?;
    setup
        .display
        .show(Answer::UserGrantRole(&user, &role, &response))
}

async fn revoke(mut call: Call) -> Result<(), Exit> {
    let [user, role] = call.arguments.as_slice() else {
        let text = "user revoke-role requires user name and role name as its argument";
        return Err(Exit::bad_arguments(text));
    };
    let (user, role) = (user.clone(), role.clone());
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::AuthUserRevokeRoleRequest {
        name: lossy(&user),
        role: lossy(&role),
    };
    let method = "/etcdserverpb.Auth/UserRevokeRole";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.auth().user_revoke_role(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup
        .display
        .show(Answer::UserRevokeRole(&user, &role, &response))
}
