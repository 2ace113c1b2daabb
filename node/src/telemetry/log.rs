//! Logs in the forms of etcd's zap logger: one JSON object a line, or a console line.
//!
//! etcd: client/pkg/logutil/zap.go.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Log;

/// The target of events that end the process: they are logged at zap's level `fatal`.
pub const FATAL: &str = "fatal";
/// Filters finer than `--log-level`, in the syntax of `RUST_LOG`.
const FILTER_VARIABLE: &str = "QUORATE_LOG";
/// Libraries whose chatter helps nobody who has not asked for it.
const QUIET: &str = "openraft=error,hyper=warn,h2=warn,tonic=warn,tower=warn,rustls=warn";

/// Sets up logs for the process.
///
/// # Errors
/// A file cannot be opened, a filter is not understood, or logs are set up already.
pub fn init(log: &Log) -> Result<(), String> {
    let outputs = Outputs::open(&log.outputs)?;
    let on_terminal = outputs.only_terminal();
    let level = match log.level.as_str() {
        "panic" | "fatal" => "error",
        level => level,
    };
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter,
        Ok(_) | Err(_) => format!("{level},{QUIET}"),
    };
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| format!("{FILTER_VARIABLE}={filter:?}: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(outputs)
        .with_ansi(false)
        .event_format(ZapFormat {
            console: log.console || (on_terminal && !log.format_is_given),
        })
        .try_init()
        .map_err(|error| error.to_string())
}

/// Where lines go.
#[derive(Clone)]
struct Outputs(Arc<Vec<Output>>);

enum Output {
    Stdout,
    Stderr,
    /// The lock keeps lines whole: a line is one write.
    File(Mutex<std::fs::File>),
}

impl Outputs {
    fn open(names: &[String]) -> Result<Self, String> {
        let mut outputs = Vec::new();
        for name in names {
            outputs.push(match name.as_str() {
                "default" | "stderr" => Output::Stderr,
                "stdout" => Output::Stdout,
                "systemd/journal" => {
                    return Err(
                        "--log-outputs: the journal is not supported; log to stderr, \
                                which systemd passes on to it"
                            .to_owned(),
                    );
                }
                path => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    Output::File(Mutex::new(
                        file.map_err(|error| format!("{path}: {error}"))?,
                    ))
                }
            });
        }
        Ok(Self(Arc::new(outputs)))
    }

    fn only_terminal(&self) -> bool {
        self.0.iter().all(|output| match output {
            Output::Stdout => io::stdout().is_terminal(),
            Output::Stderr => io::stderr().is_terminal(),
            Output::File(_) => false,
        })
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in self.0.iter() {
            match output {
                Output::Stdout => io::stdout().write_all(line)?,
                Output::Stderr => io::stderr().write_all(line)?,
                Output::File(file) => file.lock().write_all(line)?,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Writes an event as zap does.
struct ZapFormat {
    console: bool,
}

impl<S, N> FormatEvent<S, N> for ZapFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            _ if metadata.target() == FATAL => "fatal",
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let spans = spans(context);
        if !spans.is_empty() {
            fields.text("span", &spans);
        }
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
        let caller = caller(metadata.file().unwrap_or(""), metadata.line().unwrap_or(0));
        let JsonFields { message, rest } = fields;
        if self.console {
            let rest = match rest.strip_prefix(',') {
                Some(rest) => format!("\t{{{rest}}}"),
                None => String::new(),
            };
            return writeln!(writer, "{time}\t{level}\t{caller}\t{message}{rest}");
        }
        let message = quoted(&message);
        writeln!(
            writer,
            "{{\"level\":\"{level}\",\"ts\":\"{time}\",\"caller\":\"{caller}\",\
             \"msg\":{message}{rest}}}"
        )
    }
}

/// The spans around an event with their fields, outermost first.
fn spans<S, N>(context: &FmtContext<'_, S, N>) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut text = String::new();
    for span in context
        .event_scope()
        .into_iter()
        .flat_map(|scope| scope.from_root())
    {
        if !text.is_empty() {
            text.push(':');
        }
        text.push_str(span.name());
        if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
            && !fields.fields.is_empty()
        {
            text.push('{');
            text.push_str(&fields.fields);
            text.push('}');
        }
    }
    text
}

/// zap's short caller: the file with the folder it lies in, and the line.
fn caller(file: &str, line: u32) -> String {
    let short = file
        .match_indices('/')
        .rev()
        .nth(1)
        .map_or(file, |(slash, _)| &file[slash + 1..]);
    format!("{short}:{line}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Collects the fields of an event as `,"name":value…`, the message apart.
#[derive(Default)]
struct JsonFields {
    message: String,
    rest: String,
}

impl JsonFields {
    fn raw(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.rest, ",{}:{value}", quoted(name)).expect("a String takes all");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, quoted(value));
    }
}

impl Visit for JsonFields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.text(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.text(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        if value.is_finite() {
            self.raw(field.name(), value);
        } else {
            self.text(field.name(), &value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(console: bool, event: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(ZapFormat { console })
            .finish();
        tracing::subscriber::with_default(subscriber, event);
        String::from_utf8(kept.0.lock().clone()).expect("logs are UTF-8")
    }

    #[test]
    fn a_line_is_one_json_object_in_the_order_of_zap() {
        let line = logged(false, || {
            let span = tracing::info_span!("rpc", method = "Put");
            let _entered = span.enter();
            tracing::warn!(
                bytes = 7,
                ok = true,
                text = "a \"b\"\n",
                "slow {}",
                "request"
            );
        });
        let object: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(object["level"], "warn");
        assert_eq!(object["msg"], "slow request");
        assert_eq!(object["bytes"], 7);
        assert_eq!(object["ok"], true);
        assert_eq!(object["text"], "a \"b\"\n");
        assert_eq!(object["span"], "rpc{method=\"Put\"}");
        assert!(
            object["caller"]
                .as_str()
                .is_some_and(|c| c.starts_with("telemetry/log.rs:"))
        );
        let time = object["ts"].as_str().expect("a time");
        assert_eq!(time.len(), "2026-01-02T03:04:05.000006Z".len(), "{time}");
        assert!(line.starts_with("{\"level\":\"warn\",\"ts\":\"") && line.ends_with("}\n"));
    }

    #[test]
    fn what_ends_the_process_is_fatal() {
        let line = logged(false, || tracing::error!(target: FATAL, "the end"));
        assert!(line.starts_with("{\"level\":\"fatal\""), "{line}");
    }

    #[test]
    fn the_console_gets_columns() {
        let line = logged(true, || tracing::info!(port = 1, "ready"));
        let columns: Vec<&str> = line.trim_end().split('\t').collect();
        assert_eq!(&columns[1..2], ["info"]);
        assert_eq!(&columns[3..], ["ready", "{\"port\":1}"]);
    }
}
