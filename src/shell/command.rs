//! The commands of the shell: `\d`, `\timing`, and so on.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::chart::Shape;
use crate::cli::Format;

/// What a line that begins with `\` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Quit,
    /// Tables and views, or one of them.
    Describe(Option<String>),
    /// Functions, or those whose name holds a text.
    Functions(Option<String>),
    Runs,
    /// On, off, or the other way round.
    Timing(Option<bool>),
    Expanded(Option<bool>),
    Format(Option<Format>),
    Watch(Duration),
    Chart(Option<Shape>),
    /// The next result goes there; without a file, not after all.
    Output(Option<PathBuf>),
    Edit,
    Reopen,
}

/// A command as the help shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static str,
    pub(crate) doc: &'static str,
}

/// Every command, in the order of the help.
pub(crate) const COMMANDS: [Entry; 14] = [
    entry("\\?", "", "this list"),
    entry("\\d", "[NAME]", "tables and views; with a name, its columns"),
    entry("\\df", "[TEXT]", "functions; with a text, those whose name holds it"),
    entry("\\runs", "", "the runs in scope"),
    entry("\\chart", "[bar|line]", "the last result as a picture: label first, then a number"),
    entry("\\watch", "[SECONDS]", "the last query again and again, until Ctrl-C [2]"),
    entry("\\x", "[on|off]", "one line per column instead of one per row"),
    entry("\\format", "[NAME]", "table, csv, json, ndjson, or markdown"),
    entry("\\o", "[FILE]", "the next result into a file, as its ending says"),
    entry("\\timing", "[on|off]", "say how long each query took"),
    entry("\\e", "", "edit the query in $VISUAL or $EDITOR"),
    entry("\\reopen", "", "look for what was recorded since"),
    entry("\\help", "", "the same as \\?"),
    entry("\\q", "", "leave, as Ctrl-D does"),
];

const fn entry(name: &'static str, arguments: &'static str, doc: &'static str) -> Entry {
    Entry { name, arguments, doc }
}

/// Reads a command; the error says what there is instead.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let (name, argument) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let argument = argument.trim().trim_end_matches(';').trim_end();
    let given = (!argument.is_empty()).then(|| argument.to_owned());
    let refuse = |command: Command| match &given {
        Some(given) => Err(format!("{name} takes nothing, got {given:?}")),
        None => Ok(command),
    };
    match name {
        "\\?" | "\\help" | "\\h" => refuse(Command::Help),
        "\\q" => refuse(Command::Quit),
        "\\d" | "\\dt" | "\\dv" => Ok(Command::Describe(given)),
        "\\df" => Ok(Command::Functions(given)),
        "\\runs" => refuse(Command::Runs),
        "\\timing" => switch(name, argument).map(Command::Timing),
        "\\x" => switch(name, argument).map(Command::Expanded),
        "\\format" => format(given.as_deref()).map(Command::Format),
        "\\watch" => seconds(argument).map(Command::Watch),
        "\\chart" => shape(argument).map(Command::Chart),
        "\\o" => Ok(Command::Output(given.map(PathBuf::from))),
        "\\e" => refuse(Command::Edit),
        "\\reopen" => refuse(Command::Reopen),
        unknown => Err(format!(
            "there is no command {unknown:?}; did you mean {}? \\? lists all",
            nearest(unknown)
        )),
    }
}

fn switch(name: &str, argument: &str) -> Result<Option<bool>, String> {
    match argument {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => Err(format!("{name} takes on or off, got {other:?}")),
    }
}

fn format(given: Option<&str>) -> Result<Option<Format>, String> {
    let Some(given) = given else { return Ok(None) };
    match Format::from_str(given, true) {
        Ok(Format::Arrow | Format::Parquet) => {
            Err(format!("{given} is not for a terminal; \\o FILE.{given} writes it"))
        }
        Ok(format) => Ok(Some(format)),
        Err(_) => Err(format!(
            "there is no format {given:?}; there are table, csv, json, ndjson, and markdown"
        )),
    }
}

fn seconds(argument: &str) -> Result<Duration, String> {
    if argument.is_empty() {
        return Ok(WATCH_DEFAULT);
    }
    let seconds = argument.parse::<f64>().ok().filter(|s| (0.1..=WATCH_SECS_MAX).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        format!("\\watch takes seconds from 0.1 to {WATCH_SECS_MAX}, got {argument:?}")
    })
}

fn shape(argument: &str) -> Result<Option<Shape>, String> {
    match argument {
        "" => Ok(None),
        "bar" => Ok(Some(Shape::Bar)),
        "line" => Ok(Some(Shape::Line)),
        other => Err(format!("\\chart takes bar or line, got {other:?}")),
    }
}

/// The known command that takes the fewest changes to become from what was typed.
fn nearest(typed: &str) -> &'static str {
    let by_changes = COMMANDS.iter().min_by_key(|entry| changes(typed, entry.name));
    by_changes.map_or("\\?", |entry| entry.name)
}

/// How many characters to insert, remove, or replace (Levenshtein).
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.chars().take(COMMAND_CHARS_MAX).enumerate() {
        let mut next = vec![index + 1];
        for (pair, b) in row.windows(2).zip(&to) {
            if let (&[above_left, above], Some(&left)) = (pair, next.last()) {
                let replaced = above_left + usize::from(a != *b);
                next.push(replaced.min(above + 1).min(left + 1));
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

const WATCH_DEFAULT: Duration = Duration::from_secs(2);

/// A day: longer is a job for cron.
const WATCH_SECS_MAX: f64 = 86_400.0;

/// Longer than every command; what follows cannot make another one nearer.
const COMMAND_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every command with and without what it takes.
    /// Guarantees: each is understood, and a wrong argument is told what is right.
    #[test]
    fn commands_are_read() {
        assert_eq!(parse("\\d"), Ok(Command::Describe(None)));
        assert_eq!(parse(" \\d  spans; "), Ok(Command::Describe(Some("spans".to_owned()))));
        assert_eq!(parse("\\df percent"), Ok(Command::Functions(Some("percent".to_owned()))));
        assert_eq!(parse("\\timing"), Ok(Command::Timing(None)));
        assert_eq!(parse("\\x off"), Ok(Command::Expanded(Some(false))));
        assert_eq!(parse("\\format csv"), Ok(Command::Format(Some(Format::Csv))));
        assert_eq!(parse("\\watch 0.5"), Ok(Command::Watch(Duration::from_millis(500))));
        assert_eq!(parse("\\chart line"), Ok(Command::Chart(Some(Shape::Line))));
        assert_eq!(parse("\\o a b.csv"), Ok(Command::Output(Some("a b.csv".into()))));
        for (wrong, said) in [
            ("\\x maybe", "on or off"),
            ("\\format parquet", "\\o FILE.parquet"),
            ("\\format xml", "markdown"),
            ("\\watch soon", "seconds"),
            ("\\watch -1", "seconds"),
            ("\\watch NaN", "seconds"),
            ("\\chart pie", "bar or line"),
            ("\\q now", "takes nothing"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        for entry in COMMANDS {
            assert!(parse(entry.name).is_ok(), "{}", entry.name);
        }
    }

    /// Scenario: misspelt commands.
    /// Guarantees: the nearest known one is named.
    #[test]
    fn an_unknown_command_is_told_the_nearest() {
        for (typed, meant) in [
            ("\\tming", "\\timing"),
            ("\\run", "\\runs"),
            ("\\whatch 3", "\\watch"),
            ("\\chrt", "\\chart"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        assert!(parse(&format!("\\{}", "x".repeat(100_000))).is_err());
    }
}
