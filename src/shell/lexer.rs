//! The parts of an SQL text, as far as colours, completion, and the end of a statement need them.
//!
//! No parser: every text has parts, also one that is half typed. What is wrong with a statement
//! the engine says.

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// A number.
    Number,
    /// A text in single quotes.
    Text,
    /// A name in double quotes or backticks.
    QuotedName,
    /// `-- to the end of the line` or `/* between */`.
    Comment,
    /// Blanks and line ends.
    Space,
    /// One character of anything else.
    Symbol,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    pub(crate) text: &'t str,
    /// Whether a quote or comment has its end.
    pub(crate) is_closed: bool,
}

impl Token<'_> {
    /// Whether it says nothing.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.kind, Kind::Space | Kind::Comment)
    }

    /// Whether it is this word, in any case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// The parts of a text; together they are the text.
pub(crate) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length, is_closed) = next(rest, first);
        let (token, after) = rest.split_at(length);
        tokens.push(Token { kind, start: text.len() - rest.len(), text: token, is_closed });
        rest = after;
    }
    tokens
}

fn next(rest: &str, first: char) -> (Kind, usize, bool) {
    let run = |belongs: fn(char) -> bool| rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    match first {
        '\'' => quoted(rest, first, Kind::Text),
        '"' | '`' => quoted(rest, first, Kind::QuotedName),
        '-' if rest.starts_with("--") => match rest.find('\n') {
            Some(end) => (Kind::Comment, end, true),
            None => (Kind::Comment, rest.len(), true),
        },
        '/' if rest.starts_with("/*") => block_comment(rest),
        c if c.is_whitespace() => (Kind::Space, run(char::is_whitespace), true),
        c if c.is_alphabetic() || c == '_' => {
            (Kind::Word, run(|c| c.is_alphanumeric() || c == '_'), true)
        }
        c if c.is_ascii_digit() => (Kind::Number, run(|c| c.is_alphanumeric() || c == '.'), true),
        c => (Kind::Symbol, c.len_utf8(), true),
    }
}

/// A doubled quote is a quote inside the text.
fn quoted(rest: &str, quote: char, kind: Kind) -> (Kind, usize, bool) {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return (kind, at + quote.len_utf8(), true);
        }
    }
    (kind, rest.len(), false)
}

/// Block comments nest, as the engine's dialect has it.
fn block_comment(rest: &str) -> (Kind, usize, bool) {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if left.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return (Kind::Comment, at, true);
            }
        } else {
            at += left.chars().next().map_or(1, char::len_utf8);
        }
    }
    (Kind::Comment, rest.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let tokens = lex(text);
        let whole: String = tokens.iter().map(|token| token.text).collect();
        assert_eq!(whole, text);
        tokens.iter().filter(|t| t.kind != Kind::Space).map(|t| (t.kind, t.text)).collect()
    }

    /// Scenario: texts with every kind of part.
    /// Guarantees: each part is what the engine takes it for, and nothing is lost.
    #[test]
    fn every_part_has_its_kind() {
        assert_eq!(
            kinds("select a1, 'it''s; -- no' from \"T;\" -- c;\n/* x /* y */ ; */ 1.5;"),
            [
                (Kind::Word, "select"),
                (Kind::Word, "a1"),
                (Kind::Symbol, ","),
                (Kind::Text, "'it''s; -- no'"),
                (Kind::Word, "from"),
                (Kind::QuotedName, "\"T;\""),
                (Kind::Comment, "-- c;"),
                (Kind::Comment, "/* x /* y */ ; */"),
                (Kind::Number, "1.5"),
                (Kind::Symbol, ";"),
            ]
        );
    }

    /// Scenario: texts that stop in the middle, also within a character of several bytes.
    /// Guarantees: the last part says that it is open.
    #[test]
    fn what_is_open_says_so() {
        for open in ["'abc", "'it''", "\"na", "`", "/* x", "/* \u{e4} /* */", "'\u{1f600}"] {
            assert_eq!(lex(open).last().map(|token| token.is_closed), Some(false), "{open}");
        }
        for closed in ["''", "''''", "/**/", "-- x", "a"] {
            assert_eq!(lex(closed).last().map(|token| token.is_closed), Some(true), "{closed}");
        }
    }
}
