//! A text with its prompt as rows of the screen.

use unicode_width::UnicodeWidthChar;

use crate::shell::complete::is_keyword;
use crate::shell::lexer::{Kind, lex};

/// Rows of the screen, and where the cursor is among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) rows: Vec<String>,
    pub(crate) cursor_row: usize,
    pub(crate) cursor_column: usize,
}

/// What is painted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'t> {
    pub(crate) prompt: &'t str,
    /// Before every line but the first.
    pub(crate) prompt_more: &'t str,
    pub(crate) text: &'t str,
    /// In bytes of the text.
    pub(crate) cursor: usize,
    pub(crate) is_coloured: bool,
}

impl Picture {
    /// Breaks the text into rows of a screen so wide.
    pub(crate) fn of(scene: Scene<'_>, width: usize) -> Self {
        // The last column stays free: terminals differ in what a character there does.
        let room = width.saturating_sub(1).max(scene.prompt.len() + 2);
        let mut picture = Self::default();
        let (mut row, mut column) = (scene.prompt.to_owned(), scene.prompt.len());
        let mut colour = "";
        let mut at = 0;
        for (length, wanted) in colours(scene) {
            let end = at + length;
            for character in scene.text.get(at..end).unwrap_or_default().chars() {
                let columns = character.width().unwrap_or(0);
                if character != '\n' && column + columns > room {
                    picture.end_row(&mut row, colour);
                    (column, colour) = (0, "");
                }
                if at == scene.cursor {
                    (picture.cursor_row, picture.cursor_column) = (picture.rows.len(), column);
                }
                at += character.len_utf8();
                if character == '\n' {
                    picture.end_row(&mut row, colour);
                    row.push_str(scene.prompt_more);
                    (column, colour) = (scene.prompt_more.len(), "");
                    continue;
                }
                let wanted = if scene.is_coloured { wanted } else { "" };
                if wanted != colour {
                    row.push_str(if colour.is_empty() { "" } else { PLAIN });
                    row.push_str(wanted);
                    colour = wanted;
                }
                row.push(character);
                column += columns;
            }
            at = end;
        }
        if at == scene.cursor {
            (picture.cursor_row, picture.cursor_column) = (picture.rows.len(), column);
        }
        picture.end_row(&mut row, colour);
        picture
    }

    /// At most so many rows, the cursor's among them.
    pub(crate) fn within(mut self, height: usize) -> Self {
        let height = height.max(1);
        let first = (self.cursor_row + 1).saturating_sub(height);
        self.rows.drain(..first);
        self.rows.truncate(height);
        self.cursor_row -= first;
        self
    }

    fn end_row(&mut self, row: &mut String, colour: &str) {
        if !colour.is_empty() {
            row.push_str(PLAIN);
        }
        self.rows.push(std::mem::take(row));
    }
}

/// Lengths of the parts of the text, each with its colour.
fn colours(scene: Scene<'_>) -> Vec<(usize, &'static str)> {
    if scene.text.starts_with('\\') {
        let end = scene.text.find(char::is_whitespace).unwrap_or(scene.text.len());
        return vec![(end, COMMAND), (scene.text.len() - end, "")];
    }
    let colour = |kind: Kind, text: &str| match kind {
        Kind::Word if is_keyword(text) => KEYWORD,
        Kind::Text => TEXT,
        Kind::Comment => COMMENT,
        _ => "",
    };
    lex(scene.text).iter().map(|token| (token.text.len(), colour(token.kind, token.text))).collect()
}

const KEYWORD: &str = "\u{1b}[1;34m";
const TEXT: &str = "\u{1b}[32m";
const COMMENT: &str = "\u{1b}[2m";
const COMMAND: &str = "\u{1b}[35m";
const PLAIN: &str = "\u{1b}[0m";

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(text: &str, cursor: usize) -> Scene<'_> {
        Scene { prompt: "r> ", prompt_more: " > ", text, cursor, is_coloured: false }
    }

    /// Scenario: texts of several lines and of lines longer than the screen is wide.
    /// Guarantees: no row is too wide, and the cursor stands where the text goes on.
    #[test]
    fn texts_are_broken_into_rows() {
        let picture = Picture::of(scene("ab\ncd", 4), 80);
        assert_eq!(picture.rows, ["r> ab", " > cd"]);
        assert_eq!((picture.cursor_row, picture.cursor_column), (1, 4));
        let picture = Picture::of(scene("abcdefghij", 10), 10);
        assert_eq!(picture.rows, ["r> abcdef", "ghij"]);
        assert_eq!((picture.cursor_row, picture.cursor_column), (1, 4));
        // Each of these takes two columns.
        let picture = Picture::of(scene("\u{4e2d}\u{6587}\u{4e2d}\u{6587}", 3), 10);
        assert_eq!(picture.rows, ["r> \u{4e2d}\u{6587}\u{4e2d}", "\u{6587}"]);
        assert_eq!((picture.cursor_row, picture.cursor_column), (0, 5));
    }

    /// Scenario: a text higher than the screen.
    /// Guarantees: the rows around the cursor are painted.
    #[test]
    fn the_cursor_is_always_in_the_picture() {
        let picture = Picture::of(scene("a\nb\nc\nd", 7), 80).within(2);
        assert_eq!((picture.rows.len(), picture.cursor_row), (2, 1));
        assert_eq!(picture.rows.last().map(String::as_str), Some(" > d"));
        let picture = Picture::of(scene("a\nb\nc\nd", 0), 80).within(2);
        assert_eq!(picture.rows, ["r> a", " > b"]);
    }

    /// Scenario: a statement with a keyword, a text, and a comment over two rows.
    /// Guarantees: each has its colour, and every row ends without one; without colours there is none.
    #[test]
    fn parts_have_their_colours() {
        let text = "select 'a\nb' --c";
        let picture = Picture::of(Scene { is_coloured: true, ..scene(text, 0) }, 80);
        assert_eq!(
            picture.rows,
            [
                "r> \u{1b}[1;34mselect\u{1b}[0m \u{1b}[32m'a\u{1b}[0m",
                " > \u{1b}[32mb'\u{1b}[0m \u{1b}[2m--c\u{1b}[0m"
            ]
        );
        assert!(!Picture::of(scene(text, 0), 80).rows.concat().contains('\u{1b}'));
    }
}
