//! What results are shown on: how wide it is, whether it has colours, and texts made to fit.
//!
//! Colours say again what words say already, so nothing is lost where there are none: in a pipe,
//! in a CI log, with `NO_COLOR`, or for those who cannot tell them apart.

use std::io::IsTerminal;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects, Style};
use clap::ValueEnum;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ColorArg {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE=1 also elsewhere.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorArg {
    /// Makes this the rule for everything that is printed from here on.
    pub(crate) fn apply(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Better, passed, sound.
    Good,
    /// Worse, failed, damaged.
    Bad,
    /// Worth a look.
    Warn,
    /// What matters most.
    Strong,
    /// What matters least.
    Faint,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().effects(Effects::BOLD),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of a line.
    pub(crate) width: usize,
    /// Whether there are colours.
    pub(crate) is_colored: bool,
}

impl Look {
    /// What Markdown looks like: it has no colours, and no width that matters.
    pub(crate) const MARKDOWN: Self = Self { width: WIDTH_MAX, is_colored: false };

    /// What standard output is.
    pub(crate) fn of_stdout() -> Self {
        let out = std::io::stdout();
        let width = match out.is_terminal() {
            true => rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col)),
            false => None,
        };
        Self::new(width, AutoStream::choice(&out) != ColorChoice::Never)
    }

    /// What standard error is.
    pub(crate) fn of_stderr() -> Self {
        let out = std::io::stderr();
        let width = match out.is_terminal() {
            true => rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col)),
            false => None,
        };
        Self::new(width, AutoStream::choice(&out) != ColorChoice::Never)
    }

    /// `width` as far as a terminal knows its own; `COLUMNS` speaks for pipes and logs.
    fn new(width: Option<usize>, is_colored: bool) -> Self {
        let stated = || std::env::var("COLUMNS").ok()?.trim().parse().ok();
        let width = width.filter(|columns| *columns > 0).or_else(stated).unwrap_or(WIDTH_DEFAULT);
        if is_colored {
            // Decided already; comfy-table's painter would look at NO_COLOR once more.
            crossterm::style::force_color_output(true);
        }
        Self { width: width.clamp(WIDTH_MIN, WIDTH_MAX), is_colored }
    }

    /// A look without colours, so many columns wide.
    #[cfg(test)]
    pub(crate) fn plain(width: usize) -> Self {
        Self { width, is_colored: false }
    }

    /// A text in a tone. It must be inert already: escapes are added here and nowhere else.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        if !self.is_colored || text.is_empty() {
            return text.to_owned();
        }
        let style = tone.style();
        format!("{style}{text}{style:#}")
    }
}

/// The columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// A text of at most `most` columns: what is too much goes out of its middle, because names differ
/// at both ends (`app.chain.retrieve.embed`).
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(1);
    let mut front = taken(text.chars(), room.div_ceil(2));
    let left = room.saturating_sub(columns(&front));
    let mut back: Vec<char> = taken(text.chars().rev(), left).chars().collect();
    // A mark that belongs to a character that was cut off would join the ellipsis.
    while back.last().is_some_and(|last| last.width() == Some(0)) {
        back.pop();
    }
    front.push(ELLIPSIS);
    front.extend(back.into_iter().rev());
    front
}

/// A text of at most `most` columns, cut at its end.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut front = taken(text.chars(), most.saturating_sub(1));
    front.push(ELLIPSIS);
    front
}

/// A text, filled up with spaces to `width` columns; format strings count characters.
pub(crate) fn filled(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

fn taken(characters: impl Iterator<Item = char>, most: usize) -> String {
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= most
    };
    characters.take_while(fits).collect()
}

const ELLIPSIS: char = '\u{2026}';
/// Where nobody says how wide it is: what CI systems show of a line without folding it.
const WIDTH_DEFAULT: usize = 100;
/// Narrower, nothing of use is left.
const WIDTH_MIN: usize = 40;
/// A wider line cannot be read across.
const WIDTH_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: a shortened text takes the columns it was given, whatever its script is.
    #[test]
    fn texts_fit_by_the_columns_they_take() {
        assert_eq!(shortened("retrieve", 8), "retrieve");
        assert_eq!(shortened("app.chain.retrieve.embed", 11), "app.c\u{2026}embed");
        assert_eq!(shortened("\u{691c}\u{7d22}\u{691c}\u{7d22}", 5), "\u{691c}\u{2026}\u{7d22}");
        assert_eq!(cut("retrieve", 4), "ret\u{2026}");
        assert_eq!(filled("\u{691c}", 4), "\u{691c}  ");
        for most in 1..12 {
            for text in ["abcdefghijklmnop", "\u{691c}\u{7d22}e\u{301}\u{301}\u{1f600}x\u{7d22}y"] {
                let (middle, end) = (shortened(text, most), cut(text, most));
                assert!(columns(&middle) <= most, "{middle:?} in {most}");
                assert!(columns(&end) <= most, "{end:?} in {most}");
            }
        }
    }

    #[test]
    fn paint_is_for_those_who_asked() {
        assert_eq!(Look::plain(80).paint("worse", Tone::Bad), "worse");
        let painted = Look { width: 80, is_colored: true }.paint("worse", Tone::Bad);
        assert_eq!(painted, "\u{1b}[1m\u{1b}[31mworse\u{1b}[0m");
    }
}
