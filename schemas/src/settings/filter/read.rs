//! Text to conditions, by recursive descent: `or` binds least, then `and`, then a comparison or
//! parentheses.

use super::super::load::LoadFormat;
use super::{Comparison, Condition, FieldType, FilterError, FilterField, FilterValue, kinds};
use crate::date::parse_ms;

/// Reads a whole filter.
pub(super) fn read(text: &str) -> Result<Condition, FilterError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(FilterError::TooLarge("64 KiB"));
    }
    let mut reader =
        Reader { tokens: tokens(text)?, next: 0, depth: 0, end: text.chars().count() + 1 };
    let condition = reader.any()?;
    match reader.peek() {
        None => Ok(condition),
        Some(_) => Err(reader.unexpected("`and`, `or`, or the end")),
    }
}

/// A piece of the text, with the character it begins at.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name, a number, a date, or a word of the language.
    Word(String),
    /// A text in quotes.
    Quoted(String),
    /// A sign.
    Sign(&'static str),
}

struct Reader {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    end: usize,
}

impl Reader {
    fn any(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.all()?];
        while self.takes_word("or") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.one()?];
        while self.takes_word("and") {
            parts.push(self.one()?);
        }
        Ok(one_or(parts, Condition::All))
    }

    fn one(&mut self) -> Result<Condition, FilterError> {
        if !self.takes_sign("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(FilterError::TooLarge("32 parentheses in each other"));
        }
        let inside = self.any()?;
        self.depth -= 1;
        self.expect_sign(")")?;
        Ok(inside)
    }

    fn comparison(&mut self) -> Result<Condition, FilterError> {
        let field = self.field()?;
        let is_negated = self.takes_word("not");
        if self.takes_word("in") {
            return self.list(field, is_negated);
        }
        if is_negated {
            return Err(self.unexpected("`in`"));
        }
        if self.takes_word("starts") {
            if !self.takes_word("with") {
                return Err(self.unexpected("`with`"));
            }
            return self.start(field);
        }
        let comparison = self.sign()?;
        if field.field_type() == FieldType::Kind
            && !matches!(comparison, Comparison::Equal | Comparison::NotEqual)
        {
            let reason = "kinds have no order; use =, != or in".to_owned();
            return Err(FilterError::Type { field, reason });
        }
        let value = self.value(field)?;
        Ok(Condition::Compare { field, comparison, value })
    }

    fn list(&mut self, field: FilterField, is_negated: bool) -> Result<Condition, FilterError> {
        self.expect_sign("(")?;
        let mut values = vec![self.value(field)?];
        while self.takes_sign(",") {
            values.push(self.value(field)?);
        }
        self.expect_sign(")")?;
        Ok(Condition::In { field, values, is_negated })
    }

    fn start(&mut self, field: FilterField) -> Result<Condition, FilterError> {
        if field.field_type() != FieldType::Text {
            let reason = "`starts with` is for texts".to_owned();
            return Err(FilterError::Type { field, reason });
        }
        match self.value(field)? {
            FilterValue::Text(start) => Ok(Condition::StartsWith { field, start }),
            _ => Err(self.unexpected("a text in quotes")),
        }
    }

    fn field(&mut self) -> Result<FilterField, FilterError> {
        let Some(Token::Word(name)) = self.peek() else {
            return Err(self.unexpected("a field"));
        };
        let found = FilterField::ALL.into_iter().find(|field| field.as_str() == name);
        let field = found.ok_or_else(|| FilterError::UnknownField { name: name.clone() })?;
        self.next += 1;
        Ok(field)
    }

    fn sign(&mut self) -> Result<Comparison, FilterError> {
        let comparison = match self.peek() {
            Some(Token::Sign("=" | "==")) => Comparison::Equal,
            Some(Token::Sign("!=" | "<>")) => Comparison::NotEqual,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::AtMost,
            Some(Token::Sign(">")) => Comparison::More,
            Some(Token::Sign(">=")) => Comparison::AtLeast,
            _ => {
                return Err(self.unexpected("=, !=, <, <=, >, >=, `in`, `not in` or `starts with`"));
            }
        };
        self.next += 1;
        Ok(comparison)
    }

    /// A value of the type of `field`.
    fn value(&mut self, field: FilterField) -> Result<FilterValue, FilterError> {
        let (text, is_quoted) = match self.peek() {
            Some(Token::Quoted(text)) => (text.clone(), true),
            Some(Token::Word(word)) => (word.clone(), false),
            _ => return Err(self.unexpected("a value")),
        };
        let wrong = |reason: String| FilterError::Type { field, reason };
        let value = match field.field_type() {
            FieldType::Text if is_quoted => FilterValue::Text(text),
            FieldType::Text => return Err(self.unexpected("a text in quotes")),
            FieldType::Kind => {
                let kind = LoadFormat::parse(&text).ok_or_else(|| {
                    wrong(format!("there is no kind {text:?}; kinds are {}", kinds()))
                })?;
                FilterValue::Text(kind.as_str().to_owned())
            }
            FieldType::Whole => {
                let number = text.parse().ok().filter(|_| !is_quoted);
                FilterValue::Whole(
                    number.ok_or_else(|| wrong(format!("{text:?} is no whole number")))?,
                )
            }
            FieldType::Date => date(&text).ok_or_else(|| {
                wrong(format!("{text:?} is no date; write 2026-01-31, or '2026-01-31T10:00:00Z'"))
            })?,
        };
        self.next += 1;
        Ok(value)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next =
            matches!(self.peek(), Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        self.next += usize::from(is_next);
        is_next
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect_sign(&mut self, sign: &'static str) -> Result<(), FilterError> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn unexpected(&self, expected: &'static str) -> FilterError {
        let (at, found) = match self.tokens.get(self.next) {
            None => (self.end, "the end".to_owned()),
            Some((at, Token::Word(word))) => (*at, format!("{word:?}")),
            Some((at, Token::Quoted(text))) => (*at, format!("the text {text:?}")),
            Some((at, Token::Sign(sign))) => (*at, format!("{sign:?}")),
        };
        FilterError::Syntax { at, expected, found }
    }
}

/// A day, if no time is given; else the second.
fn date(text: &str) -> Option<FilterValue> {
    let from_ms = parse_ms(text)?;
    let length_ms = if text.len() == "YYYY-MM-DD".len() { MS_PER_DAY } else { 1_000 };
    Some(FilterValue::Date { text: text.to_owned(), from_ms, until_ms: from_ms + length_ms })
}

fn one_or(mut parts: Vec<Condition>, of: fn(Vec<Condition>) -> Condition) -> Condition {
    if parts.len() > 1 {
        return of(parts);
    }
    parts.pop().unwrap_or(Condition::All(Vec::new()))
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut found = Vec::new();
    let mut rest = text.chars().enumerate().peekable();
    while let Some((place, c)) = rest.next() {
        let at = place + 1;
        let token = match c {
            c if c.is_whitespace() => continue,
            '\'' | '"' => Token::Quoted(quoted(&mut rest, c, at)?),
            c if is_of_word(c) => {
                let mut word = String::from(c);
                while let Some((_, c)) = rest.next_if(|(_, c)| is_of_word(*c)) {
                    word.push(c);
                }
                Token::Word(word)
            }
            _ => {
                let next = rest.peek().map(|(_, next)| *next);
                let sign = SIGNS.into_iter().find(|sign| {
                    let mut of_sign = sign.chars();
                    let is_first = of_sign.next() == Some(c);
                    is_first && of_sign.next().is_none_or(|second| Some(second) == next)
                });
                let Some(sign) = sign else {
                    let expected = "a field, a value or a sign";
                    return Err(FilterError::Syntax { at, expected, found: format!("{c:?}") });
                };
                if sign.len() == 2 {
                    rest.next();
                }
                Token::Sign(sign)
            }
        };
        found.push((at, token));
        if found.len() > TOKENS_MAX {
            return Err(FilterError::TooLarge("2048 words and signs"));
        }
    }
    Ok(found)
}

/// The text until the closing quote; a doubled quote is one of the text.
fn quoted(
    rest: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)>>,
    quote: char,
    at: usize,
) -> Result<String, FilterError> {
    let mut text = String::new();
    while let Some((place, c)) = rest.next() {
        if c == '\0' {
            // No database has a text with it.
            let expected = "text without NUL";
            return Err(FilterError::Syntax { at: place + 1, expected, found: "NUL".to_owned() });
        }
        if c != quote {
            text.push(c);
        } else if rest.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Ok(text);
        }
    }
    Err(FilterError::Syntax { at, expected: "a closing quote", found: "none".to_owned() })
}

/// Names, numbers and dates.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | ':' | '.')
}

/// Longer ones first.
const SIGNS: [&str; 11] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];
/// A list of a thousand paths fits.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Of so many at most five hundred are comparisons; SQLite joins a thousand.
const TOKENS_MAX: usize = 2048;
/// SQLite and PostgreSQL read more, the stack of a thread does too.
const DEPTH_MAX: usize = 32;
const MS_PER_DAY: i64 = 86_400_000;
