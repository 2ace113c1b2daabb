//! Commands and flags as data, and cobra's way of reading a command line over them.

mod environment;
mod find;
mod flags;
mod help;
mod values;

pub use environment::{apply_environment, variable};
pub use find::find;
pub use flags::FlagSet;
pub use help::{help_text, options_text, usage_text};
use values::Value;

use crate::outcome::Exit;
use futures::future::LocalBoxFuture;

/// Runs a command that was found and whose flags were read.
pub type Run = fn(Call) -> LocalBoxFuture<'static, Result<(), Exit>>;

/// One command: what it is called, what it says about itself, what it takes and what it does.
///
/// In all texts `{program}` stands for the name of the binary.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// Its name, and what stands behind it on the usage line.
    pub usage: &'static str,
    /// One line for the list of commands.
    pub short: &'static str,
    /// The text over the usage; [`Self::short`] when empty.
    pub long: &'static str,
    /// Example command lines, indented.
    pub example: &'static str,
    /// The heading under which the root lists it.
    pub group: &'static str,
    /// Flags of this command alone.
    pub flags: &'static [Flag],
    /// Flags of this command and of everything below it.
    pub persistent: &'static [Flag],
    /// Commands below this one.
    pub children: &'static [&'static Command],
    /// What it does; nothing for a command that only holds others.
    pub run: Option<Run>,
    /// The arguments of a command that takes exactly one of these; empty for any arguments.
    pub one_of: &'static [&'static str],
    /// Whether it takes exactly one argument, of any kind.
    pub takes_one: bool,
    /// Flags that must be given.
    pub required: &'static [&'static str],
}

impl Command {
    /// A command with nothing in it, to fill in.
    pub const EMPTY: Self = Self {
        usage: "",
        short: "",
        long: "",
        example: "",
        group: "",
        flags: &[],
        persistent: &[],
        children: &[],
        run: None,
        one_of: &[],
        takes_one: false,
        required: &[],
    };

    /// The first word of the usage line.
    pub fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

/// What a flag holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` when given without a value.
    Bool,
    /// A signed number; `int` and `int64` alike.
    Int,
    /// An unsigned number.
    Uint,
    /// Any text.
    Text,
    /// `1m30s`.
    Duration,
    /// A list separated by commas; may be repeated.
    List,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// Its one letter, if it has one.
    pub letter: Option<char>,
    /// What it holds.
    pub kind: Kind,
    /// Its default as one would type it.
    pub default: &'static str,
    /// What it is for.
    pub usage: &'static str,
    /// The command that [`Self::usage`] ends with; only for `--help`.
    pub usage_of: &'static str,
    /// Whether help leaves it out.
    pub hidden: bool,
}

impl Flag {
    const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: &'static str,
    ) -> Self {
        Self {
            name,
            letter: None,
            kind,
            default,
            usage,
            usage_of: "",
            hidden: false,
        }
    }

    /// A flag that is off by default.
    pub const fn off(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", usage)
    }

    /// A flag that is on by default.
    pub const fn on(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "true", usage)
    }

    /// A number that is 0 by default.
    pub const fn int(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Int, "0", usage)
    }

    /// A text.
    pub const fn text(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, default, usage)
    }

    /// A flag of another kind.
    pub const fn of(
        kind: Kind,
        name: &'static str,
        default: &'static str,
        usage: &'static str,
    ) -> Self {
        Self::new(name, kind, default, usage)
    }

    /// The same flag with a letter.
    pub const fn letter(mut self, letter: char) -> Self {
        self.letter = Some(letter);
        self
    }

    /// The same flag, left out by help.
    pub const fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The flag every command has.
    pub const fn help(command: &'static str) -> Self {
        let mut flag = Self::off("help", "help for ").letter('h');
        flag.usage_of = command;
        flag
    }
}

/// The commands from the root to the one that is meant.
#[derive(Debug, Clone)]
pub struct Path {
    /// The name of the binary.
    pub program: &'static str,
    /// The root first; never empty.
    pub commands: Vec<&'static Command>,
}

impl Path {
    /// The command that is meant.
    pub fn command(&self) -> &'static Command {
        self.commands.last().expect("the root is always there")
    }

    /// Everything above it.
    pub fn parents(&self) -> &[&'static Command] {
        &self.commands[..self.commands.len() - 1]
    }

    /// The names from the root down, separated by spaces.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self
            .commands
            .iter()
            .map(|command| self.name_of(command))
            .collect();
        names.join(" ")
    }

    /// The flags that stand on this command: its own, its persistent ones, its parents', and help.
    pub fn flag_set(&self) -> FlagSet {
        let command = self.command();
        let parents = self.parents().iter().flat_map(|parent| parent.persistent);
        let help = Flag::help(self.name_of(command));
        let help = if self.parents().is_empty() {
            help.hide()
        } else {
            help
        };
        FlagSet::new(
            command
                .flags
                .iter()
                .chain(command.persistent)
                .copied()
                .chain([help]),
            parents.copied(),
        )
    }

    fn name_of(&self, command: &'static Command) -> &'static str {
        if command.name() == "{program}" {
            self.program
        } else {
            command.name()
        }
    }
}

/// A command line that was understood.
#[derive(Debug)]
pub struct Call {
    /// Which command it names.
    pub path: Path,
    /// Its flags.
    pub flags: FlagSet,
    /// What is neither a command nor a flag.
    pub arguments: Vec<Vec<u8>>,
    /// Everything behind the name of the binary, as it was typed.
    pub typed: Vec<Vec<u8>>,
}
