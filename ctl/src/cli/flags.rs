//! The flags of one command line, read as pflag reads them.

use super::{Flag, Kind, Value};
use crate::go::{quote, quote_char};
use std::time::Duration;

/// Why a command line was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError(pub String);

/// A flag on this command line.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its description.
    pub flag: Flag,
    /// Its value.
    pub value: Value,
    /// Whether it was given, by the command line or the environment.
    pub changed: bool,
    /// Whether it comes from a command further up.
    pub inherited: bool,
}

/// All flags that may stand on a command line, sorted by name.
#[derive(Debug, Clone)]
pub struct FlagSet {
    slots: Vec<Slot>,
}

impl FlagSet {
    /// A set at its defaults.
    pub fn new(
        own: impl IntoIterator<Item = Flag>,
        inherited: impl IntoIterator<Item = Flag>,
    ) -> Self {
        let own = own.into_iter().map(|flag| (flag, false));
        let inherited = inherited.into_iter().map(|flag| (flag, true));
        let mut slots: Vec<Slot> = own
            .chain(inherited)
            .map(|(flag, inherited)| Slot {
                value: Value::default_of(&flag),
                flag,
                changed: false,
                inherited,
            })
            .collect();
        slots.sort_by_key(|slot| slot.flag.name);
        Self { slots }
    }

    /// All flags, sorted by name.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the flag was given.
    pub fn changed(&self, name: &str) -> bool {
        self.slot(name).changed
    }

    /// A flag that is on or off.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.slot(name).value, Value::Bool(true))
    }

    /// A signed number.
    pub fn int(&self, name: &str) -> i64 {
        match &self.slot(name).value {
            Value::Int(value) => *value,
            other => unreachable!("--{name} is not a number but {other:?}"),
        }
    }

    /// An unsigned number.
    pub fn uint(&self, name: &str) -> u64 {
        match &self.slot(name).value {
            Value::Uint(value) => *value,
            other => unreachable!("--{name} is not a number but {other:?}"),
        }
    }

    /// A text as bytes.
    pub fn bytes(&self, name: &str) -> &[u8] {
        match &self.slot(name).value {
            Value::Text(value) => value,
            other => unreachable!("--{name} is not a text but {other:?}"),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Duration {
        match &self.slot(name).value {
            Value::Duration(value) => *value,
            other => unreachable!("--{name} is not a duration but {other:?}"),
        }
    }

    /// A list.
    pub fn list(&self, name: &str) -> &[String] {
        match &self.slot(name).value {
            Value::List(values) => values,
            other => unreachable!("--{name} is not a list but {other:?}"),
        }
    }

    fn slot(&self, name: &str) -> &Slot {
        self.lookup(name)
            .unwrap_or_else(|| unreachable!("--{name} is not a flag of this command"))
    }

    /// The flag of that name, if the command has it.
    pub fn lookup(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.flag.name == name)
    }

    fn lookup_letter(&self, letter: char) -> Option<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.flag.letter == Some(letter))
    }

    /// Whether the word is a flag that takes the next word as its value.
    pub fn takes_next_word(&self, word: &[u8]) -> bool {
        if word.contains(&b'=') {
            return false;
        }
        let slot = match word {
            [b'-', b'-', name @ ..] => str::from_utf8(name).ok().and_then(|name| self.lookup(name)),
            [b'-', letter] => self.lookup_letter(char::from(*letter)),
            _ => return false,
        };
        slot.is_none_or(|slot| slot.flag.kind != Kind::Bool)
    }

    /// Sets a flag from text; a text that cannot be read leaves the zero value behind, as in Go.
    ///
    /// # Errors
    /// pflag's text: `invalid argument "x" for "--limit" flag: …`.
    pub fn set(&mut self, name: &str, text: &[u8]) -> Result<(), ParseError> {
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.flag.name == name)
            .unwrap_or_else(|| unreachable!("--{name} was looked up before"));
        match Value::parse(slot.flag.kind, text) {
            Ok(Value::List(more)) => {
                match &mut slot.value {
                    Value::List(values) if slot.changed => values.extend(more),
                    value => *value = Value::List(more),
                }
                slot.changed = true;
                Ok(())
            }
            Ok(value) => {
                slot.value = value;
                slot.changed = true;
                Ok(())
            }
            Err(reason) => {
                slot.value = Value::zero(slot.flag.kind);
                let name = match slot.flag.letter {
                    Some(letter) => format!("-{letter}, --{name}"),
                    None => format!("--{name}"),
                };
                Err(ParseError(format!(
                    "invalid argument {} for \"{name}\" flag: {reason}",
                    quote(text)
                )))
            }
        }
    }

    /// Reads flags anywhere between arguments, up to `--`; gives back the arguments.
    ///
    /// # Errors
    /// pflag's texts: `unknown flag: --x`, `flag needs an argument: --x`, ...
    pub fn parse(&mut self, words: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ParseError> {
        let mut arguments = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_slice() {
                b"--" => {
                    arguments.extend(words.cloned());
                    break;
                }
                [b'-', b'-', name @ ..] => self.parse_long(name, &mut words)?,
                [b'-', letters @ ..] if !letters.is_empty() => {
                    self.parse_letters(letters, &mut words)?;
                }
                _ => arguments.push(word.clone()),
            }
        }
        Ok(arguments)
    }

    fn parse_long<'a>(
        &mut self,
        text: &[u8],
        words: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), ParseError> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if matches!(text.first(), Some(b'-' | b'=')) {
            return Err(ParseError(format!("bad flag syntax: --{}", lossy(text))));
        }
        let (name, given) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (lossy(&text[..at]), Some(&text[at + 1..])),
            None => (lossy(text), None),
        };
        let Some(slot) = self.lookup(&name) else {
            return Err(ParseError(format!("unknown flag: --{name}")));
        };
        let value = match given {
            Some(value) => value,
            None if slot.flag.kind == Kind::Bool => b"true",
            None => words
                .next()
                .ok_or_else(|| ParseError(format!("flag needs an argument: --{name}")))?,
        };
        self.set(&name, value)
    }

    fn parse_letters<'a>(
        &mut self,
        mut letters: &[u8],
        words: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), ParseError> {
        while let Some((&letter, rest)) = letters.split_first() {
            let letter = char::from(letter);
            let shown = String::from_utf8_lossy(letters);
            let letter_quoted = quote_char(letter);
            let Some(slot) = self.lookup_letter(letter) else {
                return Err(ParseError(format!(
                    "unknown shorthand flag: {letter_quoted} in -{shown}"
                )));
            };
            let name = slot.flag.name;
            let is_bool = slot.flag.kind == Kind::Bool;
            match rest {
                [b'=', value @ ..] if !value.is_empty() => return self.set(name, value),
                rest if is_bool => {
                    self.set(name, b"true")?;
                    letters = rest;
                }
                [] => {
                    let value = words.next().ok_or_else(|| {
                        ParseError(format!(
                            "flag needs an argument: {letter_quoted} in -{shown}"
                        ))
                    })?;
                    return self.set(name, value);
                }
                value => return self.set(name, value),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn set() -> FlagSet {
        FlagSet::new(
            [
                Flag::off("interactive", "").letter('i'),
                Flag::int("limit", ""),
                Flag::text("write-out", "simple", "").letter('w'),
                Flag::of(Kind::List, "endpoints", "a:1", ""),
            ],
            [],
        )
    }

    #[test]
    fn reads_flags_between_arguments() {
        let mut flags = set();
        let line = [
            "a",
            "--limit",
            "0x10",
            "b",
            "-iw=json",
            "--endpoints=x,y",
            "--endpoints",
            "z",
        ];
        let arguments = flags
            .parse(&words(&[&line[..], &["-", "--", "-c"]].concat()))
            .unwrap();
        assert_eq!(arguments, words(&["a", "b", "-", "-c"]));
        assert_eq!(flags.int("limit"), 16);
        assert!(flags.bool("interactive") && flags.changed("interactive"));
        assert_eq!(flags.text("write-out"), "json");
        assert_eq!(flags.list("endpoints"), ["x", "y", "z"]);
    }

    #[test]
    fn refuses_as_pflag_does() {
        for (line, expected) in [
            (&["--nope"][..], "unknown flag: --nope"),
            (&["--=x"], "bad flag syntax: --=x"),
            (&["---x"], "bad flag syntax: ---x"),
            (&["--limit"], "flag needs an argument: --limit"),
            (&["-iz"], "unknown shorthand flag: 'z' in -z"),
            (&["-iw"], "flag needs an argument: 'w' in -w"),
            (
                &["--interactive=x"],
                "invalid argument \"x\" for \"-i, --interactive\" flag: \
                 strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            let refused = set().parse(&words(line)).unwrap_err();
            assert_eq!(refused, ParseError(expected.into()), "{line:?}");
        }
    }
}
