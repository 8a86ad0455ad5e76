//! The text being edited and its cursor.

/// A text of one or more lines with a cursor between two characters.
#[derive(Debug, Default, Clone)]
pub(crate) struct Buffer {
    text: String,
    /// In bytes; always between characters.
    cursor: usize,
    /// What was killed last, for Ctrl-Y.
    killed: String,
}

impl Buffer {
    /// The text, with the cursor at its end.
    pub(crate) fn new(text: &str) -> Self {
        let mut buffer = Self::default();
        buffer.insert(text);
        buffer
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    pub(crate) fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    pub(crate) fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// Puts another text there, with the cursor at its end.
    pub(crate) fn set(&mut self, text: &str) {
        self.text.clear();
        self.cursor = 0;
        self.insert(text);
    }

    /// Inserts what a terminal can show; a tab becomes blanks, other control characters nothing.
    pub(crate) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\t', "    ");
        let shown: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len());
        if shown.len() <= room {
            self.text.insert_str(self.cursor, &shown);
            self.cursor += shown.len();
        }
    }

    /// Replaces the text from `start` to the cursor.
    pub(crate) fn replace_from(&mut self, start: usize, text: &str) {
        self.remove(start, self.cursor);
        self.insert(text);
    }

    pub(crate) fn backspace(&mut self) {
        self.remove(self.left(), self.cursor);
    }

    pub(crate) fn delete(&mut self) {
        self.remove(self.cursor, self.right());
    }

    pub(crate) fn move_left(&mut self) {
        self.cursor = self.left();
    }

    pub(crate) fn move_right(&mut self) {
        self.cursor = self.right();
    }

    pub(crate) fn move_word_left(&mut self) {
        self.cursor = self.word_left();
    }

    pub(crate) fn move_word_right(&mut self) {
        self.cursor = self.word_right();
    }

    pub(crate) fn move_home(&mut self) {
        self.cursor = self.line_start();
    }

    pub(crate) fn move_end(&mut self) {
        self.cursor = self.line_end();
    }

    /// To the same column of the line above; whether there is one.
    pub(crate) fn move_up(&mut self) -> bool {
        let start = self.line_start();
        let Some(end_above) = start.checked_sub(1) else { return false };
        let column = self.column();
        let start_above = self.text.get(..end_above).unwrap_or_default().rfind('\n');
        self.cursor = self.at_column(start_above.map_or(0, |end| end + 1), column);
        true
    }

    /// To the same column of the line below; whether there is one.
    pub(crate) fn move_down(&mut self) -> bool {
        let end = self.line_end();
        if end == self.text.len() {
            return false;
        }
        self.cursor = self.at_column(end + 1, self.column());
        true
    }

    pub(crate) fn kill_word_left(&mut self) {
        self.kill(self.word_left(), self.cursor);
    }

    pub(crate) fn kill_word_right(&mut self) {
        self.kill(self.cursor, self.word_right());
    }

    pub(crate) fn kill_to_start(&mut self) {
        self.kill(self.line_start(), self.cursor);
    }

    /// To the end of the line; at its end, the line end itself.
    pub(crate) fn kill_to_end(&mut self) {
        let end = self.line_end();
        self.kill(self.cursor, if end == self.cursor { self.right() } else { end });
    }

    pub(crate) fn yank(&mut self) {
        let killed = self.killed.clone();
        self.insert(&killed);
    }

    fn kill(&mut self, from: usize, to: usize) {
        if from < to {
            self.killed = self.text.get(from..to).unwrap_or_default().to_owned();
            self.remove(from, to);
        }
    }

    fn remove(&mut self, from: usize, to: usize) {
        if self.text.get(from..to).is_some() {
            self.text.replace_range(from..to, "");
            self.cursor = from;
        }
    }

    fn left(&self) -> usize {
        self.cursor - self.before().chars().next_back().map_or(0, char::len_utf8)
    }

    fn right(&self) -> usize {
        self.cursor + self.after().chars().next().map_or(0, char::len_utf8)
    }

    fn word_left(&self) -> usize {
        let before = self.before().trim_end_matches(|c| !is_word(c));
        before.trim_end_matches(is_word).len()
    }

    fn word_right(&self) -> usize {
        let rest = self.after().trim_start_matches(|c| !is_word(c));
        self.text.len() - rest.trim_start_matches(is_word).len()
    }

    fn line_start(&self) -> usize {
        self.before().rfind('\n').map_or(0, |end| end + 1)
    }

    fn line_end(&self) -> usize {
        self.after().find('\n').map_or(self.text.len(), |end| self.cursor + end)
    }

    fn column(&self) -> usize {
        self.text.get(self.line_start()..self.cursor).unwrap_or_default().chars().count()
    }

    fn at_column(&self, line_start: usize, column: usize) -> usize {
        let line = self.text.get(line_start..).unwrap_or_default();
        let line = line.split('\n').next().unwrap_or_default();
        line_start + line.chars().take(column).map(char::len_utf8).sum::<usize>()
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Four times what a statement may have, so that a paste that is too long is told so by the
/// engine; and little enough to be painted at every key.
const TEXT_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: moves and removals in a text with characters of several bytes.
    /// Guarantees: the cursor is always between characters.
    #[test]
    fn edits_keep_characters_whole() {
        let mut buffer = Buffer::new("a\u{e4}\u{1f600} where_x = 1");
        buffer.move_word_left();
        buffer.move_word_left();
        assert_eq!(buffer.after(), "where_x = 1");
        buffer.kill_word_right();
        assert_eq!(buffer.text(), "a\u{e4}\u{1f600}  = 1");
        buffer.move_left();
        buffer.backspace();
        assert_eq!(buffer.text(), "a\u{e4}  = 1");
        buffer.yank();
        assert_eq!(buffer.text(), "a\u{e4}where_x  = 1");
        buffer.kill_to_start();
        buffer.kill_to_end();
        assert_eq!(buffer.text(), "");
        buffer.delete();
        buffer.backspace();
        assert_eq!((buffer.text(), buffer.cursor()), ("", 0));
    }

    /// Scenario: lines of different length.
    /// Guarantees: up and down keep the column as far as there is one, and say when there is no line.
    #[test]
    fn up_and_down_go_from_line_to_line() {
        let mut buffer = Buffer::new("select 1,\n2\nfrom runs");
        assert!(buffer.move_up());
        assert_eq!(buffer.after(), "\nfrom runs");
        assert!(buffer.move_up());
        assert_eq!(buffer.before(), "s");
        assert!(!buffer.move_up());
        buffer.move_end();
        assert!(buffer.move_down() && buffer.move_down() && !buffer.move_down());
        assert_eq!(buffer.before(), "select 1,\n2\nf");
    }

    /// Scenario: a paste with escapes in it, and one without end.
    /// Guarantees: P2 - nothing a terminal would act on gets in, and no more than the limit.
    #[test]
    fn what_is_pasted_is_inert_and_bounded() {
        let mut buffer = Buffer::new("a\u{1b}[2Jb\r\nc\td\u{9b}");
        assert_eq!(buffer.text(), "a[2Jb\nc    d");
        buffer.insert(&"x".repeat(1 << 20));
        assert_eq!(buffer.text(), "a[2Jb\nc    d");
    }
}
