//! Help and usage texts in cobra's layout.

use super::flags::Slot;
use super::{Command, Kind, Path, Value};
use crate::go::quote;
use std::fmt::Write as _;

/// The headings of the root's list of commands, in order.
const GROUPS: [&str; 5] = [
    "Key-value commands",
    "Cluster maintenance commands",
    "Concurrency commands",
    "Authentication commands",
    "Utility commands",
];
/// Names in a list of commands are padded to at least this width.
const MIN_NAME_WIDTH: usize = 11;

/// What `--help` prints.
pub fn help_text(path: &Path) -> String {
    let command = path.command();
    let about = if command.long.is_empty() {
        command.short
    } else {
        command.long
    };
    let about = named(path, about.trim_end());
    let mut text = String::new();
    if !about.is_empty() {
        text = format!("{about}\n\n");
    }
    text.push_str(&usage_text(path));
    let program = path.program;
    text + &format!(
        "Use \"{program} options\" for a list of global command-line options \
         (applies to all commands).\n"
    )
}

/// What follows a command line that was not understood.
pub fn usage_text(path: &Path) -> String {
    let command = path.command();
    let names = path.names();
    let mut text = String::from("Usage:");
    if command.run.is_some() {
        push(&mut text, "\n  ", &use_line(path));
    }
    if !command.children.is_empty() {
        push(&mut text, "\n  ", &format!("{names} [command]"));
    }
    if !command.example.is_empty() {
        push(&mut text, "\n\nExamples:\n", &named(path, command.example));
    }
    if !command.children.is_empty() {
        text.push_str(&children_text(path));
    }
    let flags = path.flag_set();
    let shown = |inherited: bool| -> Vec<&Slot> {
        let slots = flags.slots().iter();
        slots
            .filter(|slot| !slot.flag.hidden && slot.inherited == inherited)
            .collect()
    };
    for (heading, slots) in [("Flags", shown(false)), ("Global Flags", shown(true))] {
        if !slots.is_empty() {
            push(
                &mut text,
                &format!("\n\n{heading}:\n"),
                flags_text(&slots).trim_end(),
            );
        }
    }
    if !command.children.is_empty() {
        let hint =
            format!("Use \"{names} [command] --help\" for more information about a command.");
        push(&mut text, "\n\n", &hint);
    }
    text + "\n"
}

/// What the command `options` prints: the flags every command takes.
pub fn options_text(path: &Path) -> String {
    let flags = path.flag_set();
    let inherited: Vec<&Slot> = flags.slots().iter().filter(|slot| slot.inherited).collect();
    format!(
        "The following options can be passed to any command:\n\n{}",
        flags_text(&inherited)
    )
}

fn push(text: &mut String, lead: &str, more: &str) {
    text.push_str(lead);
    text.push_str(more);
}

fn named(path: &Path, text: &str) -> String {
    text.replace("{program}", path.program)
}

fn use_line(path: &Path) -> String {
    let mut parent = path.clone();
    parent.commands.pop();
    let command = path.command();
    let mut line = format!("{} {}", parent.names(), command.usage);
    if command.one_of.is_empty() && !line.contains("[flags]") {
        line.push_str(" [flags]");
    }
    line
}

fn children_text(path: &Path) -> String {
    let mut children = path.command().children.to_vec();
    children.sort_by_key(|child| child.name());
    let longest = children.iter().map(|child| child.name().len()).max();
    let width = longest.unwrap_or_default().max(MIN_NAME_WIDTH);
    let mut text = String::new();
    let mut list = |heading: &str, listed: &dyn Fn(&Command) -> bool| {
        push(&mut text, "\n\n", heading);
        for child in children.iter().filter(|child| listed(child)) {
            let short = named(path, child.short);
            write!(text, "\n  {:width$} {short}", child.name())
                .expect("writing to a string cannot fail");
        }
    };
    if path.parents().is_empty() && !path.program.is_empty() {
        for group in GROUPS {
            list(group, &|child| child.group == group);
        }
    } else {
        list("Available Commands:", &|_| true);
    }
    text
}

/// One line a flag, their descriptions under each other.
fn flags_text(slots: &[&Slot]) -> String {
    let heads: Vec<String> = slots.iter().map(|slot| head(slot)).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default() + 3;
    let mut text = String::new();
    for (head, slot) in heads.iter().zip(slots) {
        let (usage, of) = (slot.flag.usage, slot.flag.usage_of);
        writeln!(text, "{head:width$}{usage}{of}{}", default_text(slot))
            .expect("writing to a string cannot fail");
    }
    text
}

fn head(slot: &Slot) -> String {
    let flag = &slot.flag;
    let names = match flag.letter {
        Some(letter) => format!("  -{letter}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let kind = match flag.kind {
        Kind::Bool => return names,
        Kind::Int => "int",
        Kind::Uint => "uint",
        Kind::Text => "string",
        Kind::Duration => "duration",
        Kind::List => "strings",
    };
    format!("{names} {kind}")
}

fn default_text(slot: &Slot) -> String {
    let default = Value::default_of(&slot.flag);
    if default == Value::zero(slot.flag.kind) {
        return String::new();
    }
    match default {
        Value::Text(text) => format!(" (default {})", quote(&text)),
        other => format!(" (default {})", other.show()),
    }
}
