//! Which command a line names: by name or by a prefix that fits one alone, flags in between.

use super::{Command, Path};
use crate::go::quote;

/// The outcome of a search.
#[derive(Debug)]
pub struct Found {
    /// The command.
    pub path: Path,
    /// The words that remain when the names of commands are taken out.
    pub rest: Vec<Vec<u8>>,
    /// Why the line is refused all the same, if it is.
    pub error: Option<String>,
}

/// Finds the command that `words` name.
pub fn find(program: &'static str, root: &'static Command, words: &[Vec<u8>]) -> Found {
    let mut path = Path {
        program,
        commands: vec![root],
    };
    let mut rest = words.to_vec();
    loop {
        let Some(at) = first_name(&path, &rest) else {
            return Found {
                path,
                rest,
                error: None,
            };
        };
        let Some(next) = child(path.command(), &rest[at]) else {
            let error = unknown(&path, &rest[at]);
            return Found { path, rest, error };
        };
        path.commands.push(next);
        rest.remove(at);
    }
}

/// Where the first word stands that is neither a flag nor the value of one.
fn first_name(path: &Path, words: &[Vec<u8>]) -> Option<usize> {
    let flags = path.flag_set();
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_slice();
        if word == b"--" {
            return None;
        }
        if flags.takes_next_word(word) {
            at += 2;
            continue;
        }
        if !word.is_empty() && !word.starts_with(b"-") {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn child(command: &'static Command, word: &[u8]) -> Option<&'static Command> {
    let by_name = |child: &&&'static Command| child.name().as_bytes() == word;
    if let Some(child) = command.children.iter().find(by_name) {
        return Some(child);
    }
    let mut by_prefix = command
        .children
        .iter()
        .filter(|child| child.name().as_bytes().starts_with(word));
    match (by_prefix.next(), by_prefix.next()) {
        (Some(child), None) => Some(child),
        _ => None,
    }
}

/// The refusal of a name the root does not know; other commands take what they do not know as
/// arguments.
fn unknown(path: &Path, word: &[u8]) -> Option<String> {
    let root = path.command();
    if !path.parents().is_empty() || root.children.is_empty() {
        return None;
    }
    let mut text = format!("unknown command {} for \"{}\"", quote(word), path.names());
    let typed = String::from_utf8_lossy(word).to_lowercase();
    let similar: Vec<&str> = root
        .children
        .iter()
        .map(|child| child.name())
        .filter(|name| *name != "help")
        .filter(|name| name.starts_with(&typed) || distance(&typed, name) <= 2)
        .collect();
    if !similar.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        for name in similar {
            text.push_str(&format!("\t{name}\n"));
        }
    }
    Some(text)
}

/// Levenshtein's distance.
fn distance(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ROOT;

    fn found(line: &str) -> Found {
        let words: Vec<Vec<u8>> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        find("etcdctl", &ROOT, &words)
    }

    #[test]
    fn finds_by_name_and_prefix_between_flags() {
        let found = found("-w json mem --hex lis x --consistency s");
        assert_eq!(found.path.names(), "etcdctl member list");
        let rest: Vec<&[u8]> = found.rest.iter().map(Vec::as_slice).collect();
        let expected: [&[u8]; 6] = [b"-w", b"json", b"--hex", b"x", b"--consistency", b"s"];
        assert_eq!(rest, expected);
        assert!(found.error.is_none());
    }

    #[test]
    fn an_ambiguous_prefix_and_a_stranger_are_refused() {
        let error = found("de").error.unwrap();
        assert_eq!(
            error,
            "unknown command \"de\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\tdel\n\tdefrag\n"
        );
        let error = found("nope").error.unwrap();
        assert!(error.ends_with("Did you mean this?\n\trole\n"), "{error}");
        assert!(found("lease nope").error.is_none());
        assert_eq!(found("compact 5").path.names(), "etcdctl compaction");
    }
}
