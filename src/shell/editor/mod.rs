//! A line editor for the SQL shell: keys in, pictures out.
//!
//! Our own, because the editors there are switch on features of crates far below (`libc`, `mio`),
//! and the whole engine would compile anew. `keys` decodes what a terminal sends, `line` decides
//! what a key does, `paint` lays out the text; this module alone touches the terminal. Everything
//! is painted on stderr, so that stdout holds results only.

mod buffer;
mod history;
mod keys;
mod line;
mod paint;

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

pub(crate) use history::{History, default_file};
use keys::{Decoder, Key};
use line::{Line, Step};
use paint::{Picture, Scene};

use super::complete::Names;
use super::statements::is_complete;

/// What came from the prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A statement, or several, or a command.
    Text(String),
    /// Ctrl-C: what was typed is given up.
    Interrupt,
    /// Ctrl-D, or the end of the input.
    End,
}

/// Reads statements from the terminal.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    pub(crate) history: History,
    is_coloured: bool,
    decoder: Decoder,
    /// Bytes that came with earlier ones: text pasted into a terminal that does not mark it.
    ahead: VecDeque<u8>,
}

impl Editor {
    pub(crate) fn new(history: History, is_coloured: bool) -> Self {
        Self { history, is_coloured, ..Self::default() }
    }

    /// Reads a statement or a command; `initial` is there already.
    pub(crate) fn read(&mut self, initial: &str, names: &Names) -> io::Result<Input> {
        if !can_paint() {
            return read_plain(initial);
        }
        let history = std::mem::take(&mut self.history);
        let read = self.read_keys(initial, &history, names);
        self.history = history;
        read
    }

    fn read_keys(&mut self, initial: &str, history: &History, names: &Names) -> io::Result<Input> {
        let mut raw = Raw::enter()?;
        let mut line = Line::new(initial, history.entries(), names);
        let mut canvas = Canvas::default();
        loop {
            if self.ahead.is_empty() {
                canvas.paint(self.scene(&line))?;
            }
            let Some(key) = self.next_key()? else { return Ok(Input::End) };
            match line.press(&key) {
                Step::More => {}
                Step::Submit => {
                    canvas.leave(self.scene(&line))?;
                    return Ok(Input::Text(line.buffer.text().to_owned()));
                }
                Step::Interrupt => {
                    canvas.leave(self.scene(&line))?;
                    return Ok(Input::Interrupt);
                }
                Step::End => {
                    canvas.leave(self.scene(&line))?;
                    return Ok(Input::End);
                }
                Step::ClearScreen => canvas.clear()?,
                Step::Offer(candidates) => {
                    canvas.leave(self.scene(&line))?;
                    write!(io::stderr(), "{}", in_columns(&candidates, screen().0))?;
                }
                Step::Suspend => {
                    canvas.leave(self.scene(&line))?;
                    drop(raw);
                    rustix::process::kill_process(
                        rustix::process::getpid(),
                        rustix::process::Signal::TSTP,
                    )?;
                    raw = Raw::enter()?;
                }
            }
        }
    }

    fn scene<'l>(&self, line: &'l Line<'_>) -> Scene<'l> {
        let prompt = if line.searched().is_some() { PROMPT_SEARCH } else { PROMPT };
        Scene {
            prompt,
            prompt_more: PROMPT_MORE,
            text: line.buffer.text(),
            cursor: line.buffer.cursor(),
            is_coloured: self.is_coloured,
        }
    }

    /// The next key; nothing when the terminal has gone.
    fn next_key(&mut self) -> io::Result<Option<Key>> {
        loop {
            while let Some(byte) = self.ahead.pop_front() {
                if let Some(key) = self.decoder.push(byte) {
                    return Ok(Some(key));
                }
            }
            let mut bytes = [0; READ_BYTES];
            let count = match rustix::io::read(io::stdin(), &mut bytes) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                return Ok(None);
            }
            self.ahead.extend(bytes.iter().take(count));
        }
    }
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Canvas {
    cursor_row: usize,
}

impl Canvas {
    fn paint(&mut self, scene: Scene<'_>) -> io::Result<()> {
        let (width, height) = screen();
        let picture = Picture::of(scene, width).within(height);
        let mut out = self.back_to_start();
        out.push_str(&picture.rows.join("\r\n"));
        let below = picture.rows.len().saturating_sub(picture.cursor_row + 1);
        if below > 0 {
            out.push_str(&format!("\u{1b}[{below}A"));
        }
        out.push_str(&format!("\r\u{1b}[{}C", picture.cursor_column));
        self.cursor_row = picture.cursor_row;
        io::stderr().write_all(out.as_bytes())
    }

    /// Leaves the whole text where it is, and goes to the line below it.
    fn leave(&mut self, scene: Scene<'_>) -> io::Result<()> {
        let whole = Picture::of(scene, screen().0);
        let mut out = self.back_to_start();
        out.push_str(&whole.rows.join("\r\n"));
        out.push_str("\r\n");
        self.cursor_row = 0;
        io::stderr().write_all(out.as_bytes())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.cursor_row = 0;
        io::stderr().write_all(b"\x1b[H\x1b[2J")
    }

    fn back_to_start(&self) -> String {
        match self.cursor_row {
            0 => "\r\u{1b}[J".to_owned(),
            rows => format!("\u{1b}[{rows}A\r\u{1b}[J"),
        }
    }
}

/// Single keys, without echo, until dropped. Output is as always, so a message that comes
/// meanwhile is not a staircase.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let raw = Self { before };
        // Ask for marks around what is pasted.
        io::stderr().write_all(b"\x1b[?2004h")?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = io::stderr().write_all(b"\x1b[?2004l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether keys can be had one by one, and the text painted over.
fn can_paint() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdin().is_terminal() && io::stderr().is_terminal() && !is_dumb
}

/// Lines as the terminal gives them, for those that cannot do more.
fn read_plain(initial: &str) -> io::Result<Input> {
    let mut text = initial.to_owned();
    if !text.is_empty() {
        writeln!(io::stderr(), "{text}")?;
    }
    loop {
        let prompt = if text.is_empty() { PROMPT } else { PROMPT_MORE };
        write!(io::stderr(), "{prompt}")?;
        if io::stdin().lock().read_line(&mut text)? == 0 {
            writeln!(io::stderr())?;
            return Ok(Input::End);
        }
        if is_complete(&text) {
            return Ok(Input::Text(text));
        }
    }
}

/// Columns and rows of the screen.
pub(crate) fn screen() -> (usize, usize) {
    let size = tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(SCREEN_DEFAULT, |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Words side by side, as many as fit.
pub(crate) fn in_columns(words: &[String], width: usize) -> String {
    let shown = words.get(..OFFERED_MAX.min(words.len())).unwrap_or_default();
    let widest = shown.iter().map(String::len).max().unwrap_or(0) + 2;
    let in_row = (width / widest).max(1);
    let mut text = String::new();
    for row in shown.chunks(in_row) {
        let row: String = row.iter().map(|word| format!("{word:<widest$}")).collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    if words.len() > shown.len() {
        text.push_str(&format!("and {} more\n", words.len() - shown.len()));
    }
    text
}

const PROMPT: &str = "retake> ";
const PROMPT_MORE: &str = "   ...> ";
const PROMPT_SEARCH: &str = "search> ";

/// Where the terminal does not say.
const SCREEN_DEFAULT: (usize, usize) = (80, 24);

/// A screenful; whoever wants fewer types another letter.
const OFFERED_MAX: usize = 100;

/// A key is a few bytes; a paste comes in pieces.
const READ_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::in_columns;

    #[test]
    fn words_stand_in_columns() {
        let words: Vec<String> = ["aa", "b", "ccc"].map(str::to_owned).to_vec();
        assert_eq!(in_columns(&words, 10), "aa   b\nccc\n");
        assert_eq!(in_columns(&words, 1), "aa\nb\nccc\n");
        let many: Vec<String> = (0..150).map(|n| n.to_string()).collect();
        assert!(in_columns(&many, 80).ends_with("and 50 more\n"));
    }
}
