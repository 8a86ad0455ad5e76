//! What keys do to the text: editing, history, search, and completion. No terminal in here.

use super::buffer::Buffer;
use super::keys::Key;
use crate::shell::complete::{Names, complete};
use crate::shell::statements::is_complete;

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Paint, and read on.
    More,
    /// The text is to be run.
    Submit,
    /// The text is given up.
    Interrupt,
    /// Nothing more will come.
    End,
    /// Back to the shell that started us, for a while.
    Suspend,
    ClearScreen,
    /// Show what the word may become.
    Offer(Vec<String>),
}

/// A text being typed.
#[derive(Debug)]
pub(crate) struct Line<'h> {
    pub(crate) buffer: Buffer,
    history: &'h [String],
    names: &'h Names,
    browsing: Option<Browsing>,
    search: Option<Search>,
}

/// Going through the entries that begin as the text does.
#[derive(Debug)]
struct Browsing {
    draft: String,
    at: usize,
}

/// Looking for an entry that holds a text.
#[derive(Debug)]
struct Search {
    draft: String,
    wanted: String,
    at: usize,
}

impl<'h> Line<'h> {
    pub(crate) fn new(text: &str, history: &'h [String], names: &'h Names) -> Self {
        Self { buffer: Buffer::new(text), history, names, browsing: None, search: None }
    }

    /// What is searched for, while something is.
    pub(crate) fn searched(&self) -> Option<&str> {
        self.search.as_ref().map(|search| search.wanted.as_str())
    }

    pub(crate) fn press(&mut self, key: &Key) -> Step {
        if let Some(search) = self.search.take()
            && self.go_on_searching(search, key)
        {
            return Step::More;
        }
        if !matches!(key, Key::Up | Key::Down | Key::Control('p' | 'n')) {
            self.browsing = None;
        }
        match key {
            Key::Enter if is_complete(self.buffer.text()) => return Step::Submit,
            Key::Enter => self.buffer.insert("\n"),
            Key::Tab => return self.complete(),
            Key::Up | Key::Control('p') => self.up(),
            Key::Down | Key::Control('n') => self.down(),
            Key::Control('c') => return Step::Interrupt,
            Key::Control('d') if self.buffer.text().is_empty() => return Step::End,
            Key::Control('z') => return Step::Suspend,
            Key::Control('l') => return Step::ClearScreen,
            Key::Control('r') => {
                let draft = self.buffer.text().to_owned();
                let at = self.history.len();
                self.search = Some(Search { draft, wanted: String::new(), at });
            }
            other => self.edit(other),
        }
        Step::More
    }

    fn edit(&mut self, key: &Key) {
        let buffer = &mut self.buffer;
        match key {
            Key::Char(character) => buffer.insert(character.encode_utf8(&mut [0; 4])),
            Key::Paste(text) => buffer.insert(text),
            Key::Backspace => buffer.backspace(),
            Key::Delete | Key::Control('d') => buffer.delete(),
            Key::Left | Key::Control('b') => buffer.move_left(),
            Key::Right | Key::Control('f') => buffer.move_right(),
            Key::Home | Key::Control('a') => buffer.move_home(),
            Key::End | Key::Control('e') => buffer.move_end(),
            Key::WordLeft => buffer.move_word_left(),
            Key::WordRight => buffer.move_word_right(),
            Key::KillWordLeft | Key::Control('w') => buffer.kill_word_left(),
            Key::KillWordRight => buffer.kill_word_right(),
            Key::Control('u') => buffer.kill_to_start(),
            Key::Control('k') => buffer.kill_to_end(),
            Key::Control('y') => buffer.yank(),
            _ => {}
        }
    }

    fn up(&mut self) {
        if self.browsing.is_none() && self.buffer.move_up() {
            return;
        }
        let browsing = self.browsing.take();
        let (draft, at) = browsing.map_or_else(
            || (self.buffer.text().to_owned(), self.history.len()),
            |b| (b.draft, b.at),
        );
        let older = self.history.get(..at).unwrap_or_default();
        let found = older.iter().rposition(|entry| entry.starts_with(&draft));
        if let Some(entry) = found.and_then(|index| older.get(index)) {
            self.buffer.set(entry);
        }
        self.browsing = Some(Browsing { draft, at: found.unwrap_or(at) });
    }

    fn down(&mut self) {
        let Some(Browsing { draft, at }) = self.browsing.take() else {
            self.buffer.move_down();
            return;
        };
        let newer = self.history.iter().enumerate().skip(at + 1);
        let found = newer.into_iter().find(|(_, entry)| entry.starts_with(&draft));
        match found {
            Some((at, entry)) => {
                self.buffer.set(entry);
                self.browsing = Some(Browsing { draft, at });
            }
            None => self.buffer.set(&draft),
        }
    }

    /// Whether the key was for the search; any other ends it, with what was found, and then does
    /// what it always does.
    fn go_on_searching(&mut self, mut search: Search, key: &Key) -> bool {
        match key {
            Key::Char(character) => {
                search.wanted.push(*character);
                search.at = self.history.len();
            }
            Key::Backspace => {
                search.wanted.pop();
                search.at = self.history.len();
            }
            Key::Control('r') => {}
            Key::Control('c' | 'g') => {
                self.buffer.set(&search.draft);
                return true;
            }
            _ => return false,
        }
        let older = self.history.get(..search.at).unwrap_or_default();
        if let Some(at) = older.iter().rposition(|entry| entry.contains(&search.wanted)) {
            search.at = at;
            self.buffer.set(older.get(at).map_or("", String::as_str));
        }
        self.search = Some(search);
        true
    }

    /// Writes as much as all candidates have in common; shows them when that is nothing new.
    fn complete(&mut self) -> Step {
        let completion = complete(self.names, self.buffer.text(), self.buffer.cursor());
        let Some(first) = completion.candidates.first() else { return Step::More };
        let mut common = first.len();
        for candidate in &completion.candidates {
            let same = first.bytes().zip(candidate.bytes()).take_while(|(a, b)| a == b).count();
            common = common.min(same);
        }
        let common = first.get(..common).unwrap_or_default();
        let typed = self.buffer.cursor() - completion.start;
        if common.len() > typed || completion.candidates.len() == 1 {
            self.buffer.replace_from(completion.start, common);
            return Step::More;
        }
        Step::Offer(completion.candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_into(line: &mut Line<'_>, text: &str) {
        for character in text.chars() {
            let key = if character == '\n' { Key::Enter } else { Key::Char(character) };
            line.press(&key);
        }
    }

    fn entries(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// Scenario: Enter in the middle of a statement and at its end; Ctrl-C and Ctrl-D.
    /// Guarantees: a statement goes on until its semicolon; Ctrl-D leaves only an empty line.
    #[test]
    fn enter_runs_what_is_whole() {
        let names = Names::default();
        let mut line = Line::new("", &[], &names);
        type_into(&mut line, "select ';\n'");
        assert_eq!(line.buffer.text(), "select ';\n'");
        assert_eq!(line.press(&Key::Enter), Step::More);
        type_into(&mut line, ";");
        assert_eq!(line.press(&Key::Enter), Step::Submit);
        assert_eq!(line.press(&Key::Control('d')), Step::More);
        assert_eq!(line.press(&Key::Control('c')), Step::Interrupt);
        assert_eq!(Line::new("", &[], &names).press(&Key::Control('d')), Step::End);
        line.press(&Key::Paste("a;\nb;".to_owned()));
        assert!(line.buffer.text().ends_with("a;\nb;"));
    }

    /// Scenario: Up and Down with and without a text.
    /// Guarantees: entries that begin as the text does, and the text again at the end.
    #[test]
    fn history_is_browsed_by_its_beginning() {
        let history = entries(&["\\d", "select 1;", "\\x", "select 2\n;"]);
        let names = Names::default();
        let mut line = Line::new("", &history, &names);
        type_into(&mut line, "sel");
        let mut after = |key: Key| {
            line.press(&key);
            line.buffer.text().to_owned()
        };
        assert_eq!(after(Key::Up), "select 2\n;");
        assert_eq!(after(Key::Up), "select 1;");
        assert_eq!(after(Key::Up), "select 1;");
        assert_eq!(after(Key::Down), "select 2\n;");
        assert_eq!(after(Key::Down), "sel");
        assert_eq!(after(Key::Down), "sel");
    }

    /// Scenario: Ctrl-R, and what ends it.
    /// Guarantees: the newest entry that holds the text, then older ones; Ctrl-G gives the text back.
    #[test]
    fn history_is_searched() {
        let history = entries(&["select one;", "from one;", "other;"]);
        let names = Names::default();
        let mut line = Line::new("draft", &history, &names);
        line.press(&Key::Control('r'));
        type_into(&mut line, "one");
        assert_eq!((line.buffer.text(), line.searched()), ("from one;", Some("one")));
        line.press(&Key::Control('r'));
        assert_eq!(line.buffer.text(), "select one;");
        assert_eq!(line.press(&Key::Enter), Step::Submit);
        assert_eq!(line.searched(), None);
        line.press(&Key::Control('r'));
        type_into(&mut line, "other");
        line.press(&Key::Control('g'));
        assert_eq!(line.buffer.text(), "select one;");
    }

    /// Scenario: Tab with one, several, and no candidates.
    /// Guarantees: what they have in common is written, then they are shown.
    #[test]
    fn tab_writes_what_is_common() {
        let names = Names { functions: entries(&["sum", "substr", "subst"]), ..Names::default() };
        let mut line = Line::new("select subs", &[], &names);
        assert_eq!(line.press(&Key::Tab), Step::More);
        assert_eq!(line.buffer.text(), "select subst");
        assert_eq!(line.press(&Key::Tab), Step::Offer(entries(&["substr(", "subst("])));
        type_into(&mut line, "r");
        line.press(&Key::Tab);
        assert_eq!(line.buffer.text(), "select substr(");
        type_into(&mut line, "zzz");
        assert_eq!(line.press(&Key::Tab), Step::More);
    }
}
