//! `watch`: one watch from the command line, or many from standard input.

use super::child::run_to_end;
use super::group;
use super::setup::Setup;
use super::watch_arguments::{FromEnvironment, WatchArguments, from_command_line, from_line};
use super::watch_stream::{Notice, WatchStream};
use crate::cli::{Call, Command, Flag, FlagSet};
use crate::go::{quote, split_arguments};
use crate::log::write_error;
use crate::outcome::{Exit, code};
use crate::print::{Answer, Display, emit_line, event_name, prefix_end};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::Event;
use std::ffi::{OsStr, OsString};
use std::io::BufRead as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Lines read ahead from standard input.
const LINES_MAX: usize = 16;
/// Answers that wait for a watch's command to end.
const ANSWERS_MAX: usize = 1024;

/// `watch`.
pub static WATCH: Command = Command {
    usage: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Watches events stream on keys or prefixes",
    group: group::KV,
    flags: &FLAGS,
    run: Some(|call| Box::pin(watch(call))),
    ..Command::EMPTY
};

static FLAGS: [Flag; 5] = [
    Flag::off("interactive", "Interactive mode").letter('i'),
    Flag::off("prefix", "Watch on a prefix if prefix is set"),
    Flag::int("rev", "Revision to start watching"),
    Flag::off(
        "prev-kv",
        "get the previous key-value pair before the event happens",
    ),
    Flag::off(
        "progress-notify",
        "get periodic watch progress notification from server",
    ),
];

async fn watch(mut call: Call) -> Result<(), Exit> {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default().into_vec();
    let environment = FromEnvironment {
        key: variable("ETCDCTL_WATCH_KEY"),
        range_end: variable("ETCDCTL_WATCH_RANGE_END"),
    };
    if environment.key.is_empty() && !environment.range_end.is_empty() {
        let end = quote(&environment.range_end);
        let text = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
        return Err(Exit::bad_arguments(text));
    }
    if call.flags.bool("interactive") {
        let setup = Setup::new(&mut call)?;
        return interactive(&setup, &environment).await;
    }
    let typed = [
        &[call.path.program.as_bytes().to_vec()],
        call.typed.as_slice(),
    ]
    .concat();
    let arguments =
        from_command_line(&typed, &call.arguments, &environment).map_err(Exit::bad_arguments)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let create = create_request(&arguments, &call.flags).map_err(Exit::bad_arguments)?;
    let mut stream = WatchStream::new(&rpc, true);
    stream.add(create).await;
    loop {
        match stream.next().await {
            Ok(Notice::Response(_, response, error)) => {
                show(setup.display, &response, error.as_deref())?;
                run_all(&arguments.command, &response).await?;
                if error.is_some() {
                    break;
                }
            }
            Ok(Notice::Closed) => break,
            Err(error) => {
                show(setup.display, &last_response(), Some(&error.to_string()))?;
                break;
            }
        }
    }
    let text = "watch is canceled by the server";
    Err(Exit::new(code::INTERRUPTED, text))
}

/// What etcd's client makes up when the stream breaks.
fn last_response() -> pb::WatchResponse {
    pb::WatchResponse {
        header: Some(pb::ResponseHeader::default()),
        canceled: true,
        ..Default::default()
    }
}

async fn interactive(setup: &Setup, environment: &FromEnvironment) -> Result<(), Exit> {
    let rpc = setup.connect().await?;
    let mut stream = WatchStream::new(&rpc, true);
    let mut lines = read_lines();
    let mut runners = Runners::default();
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else {
                    let text = "error reading watch request line: EOF";
                    return Err(Exit::new(code::INVALID_INPUT, text));
                };
                if let Some((create, command)) = obey(&line, &mut stream, environment).await? {
                    let number = stream.add(create).await;
                    runners.start(number, command, setup.display);
                }
            }
            notice = stream.next(), if !runners.queues.is_empty() => match notice {
                Ok(Notice::Response(number, response, error)) => {
                    runners.hand(number, response, error).await?;
                }
                Ok(Notice::Closed) => {}
                Err(error) => {
                    show(setup.display, &last_response(), Some(&error.to_string()))?;
                    stream = WatchStream::new(&rpc, true);
                    runners.queues.clear();
                }
            },
            Some(ended) = runners.tasks.join_next() => {
                ended.expect("a runner does not panic")?;
            }
        }
    }
}

/// Standard input line by line; the channel ends where it ends.
fn read_lines() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if read.is_err() || line.pop() != Some(b'\n') || sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Does what a line of `watch -i` says; gives back the watch it asks for.
async fn obey(
    line: &[u8],
    stream: &mut WatchStream,
    environment: &FromEnvironment,
) -> Result<Option<(pb::WatchCreateRequest, Vec<Vec<u8>>)>, Exit> {
    let shown = String::from_utf8_lossy(line);
    let words = split_arguments(line).map_err(|text| Exit::new(code::INVALID_INPUT, text))?;
    let complaint = match words.split_first() {
        None => format!("Invalid command: {shown} (watch and progress supported)\n"),
        Some((first, rest)) if first == b"watch" => {
            if rest.is_empty() && environment.key.is_empty() {
                format!("Invalid command {shown} (command type or key is not provided)\n")
            } else {
                let mut flags = FlagSet::new(FLAGS, []);
                let arguments =
                    from_line(rest, &mut flags, environment).map_err(Exit::bad_arguments)?;
                match create_request(&arguments, &flags) {
                    Ok(create) => return Ok(Some((create, arguments.command))),
                    Err(reason) => format!("Invalid command {shown} ({reason})\n"),
                }
            }
        }
        Some((first, _)) if first == b"progress" => {
            stream.request_progress().await;
            return Ok(None);
        }
        Some(_) => format!("Invalid command {shown} (only support watch)\n"),
    };
    write_error(&complaint);
    Ok(None)
}

fn create_request(
    arguments: &WatchArguments,
    flags: &FlagSet,
) -> Result<pb::WatchCreateRequest, String> {
    let Some(first) = arguments.watch.first() else {
        return Err("bad number of arguments".into());
    };
    let prefix = flags.bool("prefix");
    let mut key = Bytes::copy_from_slice(first);
    let mut range_end = Bytes::new();
    if let [_, end] = arguments.watch.as_slice() {
        if prefix {
            return Err("`range_end` and `--prefix` are mutually exclusive".into());
        }
        range_end = Bytes::copy_from_slice(end);
    }
    if prefix {
        range_end = prefix_end(&key);
        if key.is_empty() {
            key = Bytes::from_static(b"\0");
        }
    }
    Ok(pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: flags.int("rev"),
        progress_notify: flags.bool("progress-notify"),
        prev_kv: flags.bool("prev-kv"),
        ..Default::default()
    })
}

fn show(display: Display, response: &pb::WatchResponse, error: Option<&str>) -> Result<(), Exit> {
    if let Some(error) = error {
        write_error(&format!("watch was canceled ({error})\n"));
    }
    let revision = response.header.unwrap_or_default().revision;
    if response.events.is_empty() && error.is_none() && revision != 0 {
        emit_line(&format!("progress notify: {revision}"))?;
    }
    display.show(Answer::Watch(response))
}

/// The watches of `watch -i` that run a command, each in a task of its own.
#[derive(Debug, Default)]
struct Runners {
    queues: Vec<Queue>,
    tasks: JoinSet<Result<(), Exit>>,
}

type Item = (pb::WatchResponse, Option<String>);

#[derive(Debug)]
enum Queue {
    /// No command: printed at once.
    Direct(Display),
    /// To the task.
    Task(mpsc::Sender<Item>),
}

impl Runners {
    fn start(&mut self, number: usize, command: Vec<Vec<u8>>, display: Display) {
        assert_eq!(number, self.queues.len(), "watches are numbered in order");
        if command.is_empty() {
            self.queues.push(Queue::Direct(display));
            return;
        }
        let (sender, mut receiver) = mpsc::channel::<Item>(ANSWERS_MAX);
        self.tasks.spawn(async move {
            while let Some((response, error)) = receiver.recv().await {
                show(display, &response, error.as_deref())?;
                run_all(&command, &response).await?;
            }
            Ok(())
        });
        self.queues.push(Queue::Task(sender));
    }

    async fn hand(
        &mut self,
        number: usize,
        response: pb::WatchResponse,
        error: Option<String>,
    ) -> Result<(), Exit> {
        match &self.queues[number] {
            Queue::Direct(display) => show(*display, &response, error.as_deref()),
            Queue::Task(sender) => {
                // A task that ended has told why; `join_next` hands it on.
                sender.send((response, error)).await.unwrap_or_default();
                Ok(())
            }
        }
    }
}

async fn run_all(command: &[Vec<u8>], response: &pb::WatchResponse) -> Result<(), Exit> {
    if command.is_empty() {
        return Ok(());
    }
    let revision = response.header.unwrap_or_default().revision;
    for event in &response.events {
        if let Err(reason) = run(command, event, revision).await {
            let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
            let words = words.join(" ");
            write_error(&format!("command [{words}] error ({reason})\n"));
            return Err(Exit::silent(code::ERROR));
        }
    }
    Ok(())
}

async fn run(command: &[Vec<u8>], event: &Event, revision: i64) -> Result<(), String> {
    let pair = event.kv.clone().unwrap_or_default();
    let quoted = |bytes: &[u8]| OsString::from(quote(bytes));
    let program = OsStr::from_bytes(&command[0]);
    let mut child = tokio::process::Command::new(program);
    child
        .args(command[1..].iter().map(|word| OsStr::from_bytes(word)))
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env(
            "ETCD_WATCH_EVENT_TYPE",
            quoted(event_name(event.r#type).as_bytes()),
        )
        .env("ETCD_WATCH_KEY", quoted(&pair.key))
        .env("ETCD_WATCH_VALUE", quoted(&pair.value))
        .stdin(std::process::Stdio::null());
    run_to_end(program, child).await
}
