//! What may come next: keywords, tables, views, columns, functions, runs, and commands.

use retake_analyzer::sql::Relation;

use super::command::COMMANDS;
use super::lexer::{Kind, Token, lex};

/// The names there are.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) relations: Vec<Relation>,
    pub(crate) functions: Vec<String>,
    /// Newest first, as they are wanted.
    pub(crate) run_ids: Vec<String>,
}

/// What the text from `start` to the cursor may become.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) start: usize,
    pub(crate) candidates: Vec<String>,
}

/// What may stand at the cursor, the most likely first.
pub(crate) fn complete(names: &Names, text: &str, cursor: usize) -> Completion {
    let (Some(before), Some(after)) = (text.get(..cursor), text.get(cursor..)) else {
        return Completion::default();
    };
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.get(line_start..).unwrap_or_default();
    if line.starts_with('\\') {
        return command(names, line, cursor);
    }
    let tokens = lex(before);
    let open = tokens.rsplit(|token| token.text == ";").next().unwrap_or_default();
    let (last, earlier) = match open.split_last() {
        Some((last, earlier)) if last.kind == Kind::Word => (Some(last), earlier),
        Some((last, earlier)) if !last.is_closed => {
            return if last.kind == Kind::Text {
                run(names, last, earlier, after)
            } else {
                none(cursor)
            };
        }
        Some((last, _)) if last.kind == Kind::Comment && !before.ends_with('\n') => {
            return none(cursor);
        }
        _ => (None, open),
    };
    let typed = last.map_or("", |last| last.text);
    let start = last.map_or(cursor, |last| last.start);
    let ahead = lex(after);
    let ahead = ahead.split(|token| token.text == ";").next().unwrap_or_default();
    let statement: Vec<&Token<'_>> =
        open.iter().chain(ahead).filter(|token| !token.is_blank()).collect();
    let candidates = candidates(names, earlier, &statement, typed);
    Completion { start, candidates: beginning_with(candidates, typed) }
}

fn none(cursor: usize) -> Completion {
    Completion { start: cursor, candidates: Vec::new() }
}

fn candidates(
    names: &Names,
    earlier: &[Token<'_>],
    statement: &[&Token<'_>],
    typed: &str,
) -> Vec<String> {
    let mut before = earlier.iter().rev().filter(|token| !token.is_blank());
    let (previous, one_more) = (before.next(), before.next());
    if let (Some(dot), Some(owner)) = (previous, one_more)
        && dot.text == "."
    {
        return owned_columns(names, statement, owner.text);
    }
    let Some(previous) = previous else { return cased(&BEGINNINGS, typed) };
    let relations = names.relations.iter().map(|relation| relation.name.to_owned());
    if ["from", "join", "describe", "desc"].iter().any(|word| previous.is_word(word)) {
        return relations.collect();
    }
    let named = names.relations.iter().filter(|relation| {
        statement.iter().any(|token| token.text.eq_ignore_ascii_case(relation.name))
    });
    let mut found: Vec<String> =
        named.flat_map(|relation| &relation.columns).map(|column| column.name.clone()).collect();
    if !typed.is_empty() {
        found.extend(relations);
        found.extend(names.functions.iter().map(|name| format!("{name}(")));
        found.extend(cased(&KEYWORDS, typed));
    }
    found
}

/// Columns of a table, view, or the alias of one.
fn owned_columns(names: &Names, statement: &[&Token<'_>], owner: &str) -> Vec<String> {
    let relation = |name: &str| names.relations.iter().find(|r| r.name.eq_ignore_ascii_case(name));
    let words: Vec<&&Token<'_>> = statement.iter().filter(|token| !token.is_word("as")).collect();
    let aliased = words.windows(2).find_map(|pair| match pair {
        [name, alias] if alias.text.eq_ignore_ascii_case(owner) => relation(name.text),
        _ => None,
    });
    let found = relation(owner).or(aliased);
    found.map_or_else(Vec::new, |r| r.columns.iter().map(|column| column.name.clone()).collect())
}

/// Runs, where a text is compared with the id of one.
fn run(names: &Names, open: &Token<'_>, earlier: &[Token<'_>], after: &str) -> Completion {
    let compared = earlier.iter().rev().find(|token| {
        token.kind == Kind::Word && !["in", "not", "like"].iter().any(|word| token.is_word(word))
    });
    let start = open.start + 1;
    let is_run = compared.is_some_and(|column| {
        ["run_id", "source_run_id", "replay_of"].iter().any(|name| column.is_word(name))
    });
    if !is_run {
        return Completion { start, candidates: Vec::new() };
    }
    let typed = open.text.get(1..).unwrap_or_default();
    let end = if after.starts_with('\'') { "" } else { "'" };
    let ids = names.run_ids.iter().map(|id| format!("{id}{end}")).collect();
    Completion { start, candidates: beginning_with(ids, typed) }
}

fn command(names: &Names, line: &str, cursor: usize) -> Completion {
    let Some((name, _)) = line.split_once(' ') else {
        let known = COMMANDS.iter().map(|entry| entry.name.to_owned()).collect();
        let start = cursor - line.len();
        return Completion { start, candidates: beginning_with(known, line) };
    };
    let typed = line.rsplit(' ').next().unwrap_or_default();
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let candidates = match name {
        "\\d" => names.relations.iter().map(|relation| relation.name.to_owned()).collect(),
        "\\df" => names.functions.clone(),
        "\\x" | "\\timing" => of(&["on", "off"]),
        "\\format" => of(&["table", "csv", "json", "ndjson", "markdown"]),
        "\\chart" => of(&["bar", "line"]),
        _ => Vec::new(),
    };
    Completion { start: cursor - typed.len(), candidates: beginning_with(candidates, typed) }
}

fn beginning_with(candidates: Vec<String>, typed: &str) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for candidate in candidates {
        let head = candidate.get(..typed.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(typed)) && !kept.contains(&candidate) {
            kept.push(candidate);
        }
    }
    kept
}

/// Keywords as they are being typed: capitals after a capital.
fn cased(words: &[&str], typed: &str) -> Vec<String> {
    let is_upper = typed.starts_with(|first: char| first.is_ascii_uppercase());
    let cased = |word: &&str| if is_upper { word.to_ascii_uppercase() } else { (*word).to_owned() };
    words.iter().map(cased).collect()
}

/// Whether a word is one of SQL's own, for colours.
pub(crate) fn is_keyword(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    KEYWORDS.contains(&word.as_str()) || BEGINNINGS.contains(&word.as_str())
}

/// What a statement may begin with.
const BEGINNINGS: [&str; 6] = ["select", "with", "explain", "show", "describe", "values"];

/// The words of queries; those of statements that are refused are of no use here.
const KEYWORDS: [&str; 62] = [
    "all",
    "analyze",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "current",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "filter",
    "first",
    "following",
    "from",
    "full",
    "group",
    "having",
    "ilike",
    "in",
    "inner",
    "intersect",
    "interval",
    "is",
    "join",
    "last",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "null",
    "nulls",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "preceding",
    "range",
    "recursive",
    "right",
    "rows",
    "select",
    "then",
    "true",
    "unbounded",
    "union",
    "using",
    "when",
    "where",
    "within",
];

#[cfg(test)]
mod tests {
    use super::*;
    use retake_analyzer::sql::RelationColumn;

    fn relation(name: &'static str, columns: &[&str]) -> Relation {
        let column = |name: &&str| RelationColumn {
            name: (*name).to_owned(),
            type_name: "Utf8".to_owned(),
            doc: None,
        };
        let columns = columns.iter().map(column).collect();
        Relation { name, doc: "One row.", view_sql: None, columns }
    }

    fn names() -> Names {
        Names {
            relations: vec![
                relation("runs", &["run_id", "status"]),
                relation("spans", &["run_id", "stage", "duration_ns"]),
                relation("stage_latency", &["stage", "p95_ns"]),
            ],
            functions: vec!["attr".to_owned(), "sum".to_owned()],
            run_ids: vec!["20260102-b".to_owned(), "20260101-a".to_owned()],
        }
    }

    /// `|` is the cursor.
    fn at(marked: &str) -> Vec<String> {
        let cursor = marked.find('|').unwrap();
        complete(&names(), &marked.replace('|', ""), cursor).candidates
    }

    /// Scenario: Tab at every kind of place in a statement.
    /// Guarantees: what is offered is what may stand there.
    #[test]
    fn names_fit_their_place() {
        assert_eq!(at("sel|"), ["select"]);
        assert_eq!(at("SEL|"), ["SELECT"]);
        assert_eq!(at("select * from s|"), ["spans", "stage_latency"]);
        assert_eq!(at("select * from |"), ["runs", "spans", "stage_latency"]);
        assert_eq!(at("select st| from runs"), ["status", "stage_latency"]);
        assert_eq!(at("select dur| from spans"), ["duration_ns"]);
        assert_eq!(at("select dur| from runs"), [] as [&str; 0]);
        assert_eq!(at("select su| from runs"), ["sum("]);
        assert_eq!(at("select | from stage_latency"), ["stage", "p95_ns"]);
        assert_eq!(at("select a.s| from spans as a, runs b"), ["stage"]);
        assert_eq!(at("select b.| from spans a join runs b on true"), ["run_id", "status"]);
        assert_eq!(at("select spans.d| from spans"), ["duration_ns"]);
    }

    /// Scenario: two statements in one text.
    /// Guarantees: columns come from the tables of the one the cursor is in.
    #[test]
    fn the_other_statement_is_not_asked() {
        assert_eq!(at("select 1 from spans; select dur| from runs"), [] as [&str; 0]);
        assert_eq!(at("select dur| from spans; select 1 from runs"), ["duration_ns"]);
        assert_eq!(at("select 1; sel|"), ["select"]);
    }

    /// Scenario: a text is compared with the id of a run.
    /// Guarantees: runs are offered there and in no other text or comment.
    #[test]
    fn runs_are_offered_where_one_is_meant() {
        assert_eq!(at("select 1 from runs where run_id = '|"), ["20260102-b'", "20260101-a'"]);
        assert_eq!(at("select 1 from runs where run_id = '20260101|"), ["20260101-a'"]);
        assert_eq!(at("select 1 from runs where run_id in ('x', '20260101|'"), ["20260101-a"]);
        assert_eq!(at("select 1 from runs where status = '2|"), [] as [&str; 0]);
        assert_eq!(at("select 1 -- run_id = '2|"), [] as [&str; 0]);
        assert_eq!(at("select /* sel|"), [] as [&str; 0]);
    }

    /// Scenario: Tab in a command.
    /// Guarantees: commands, and what each takes.
    #[test]
    fn commands_are_completed() {
        assert_eq!(at("\\ti|"), ["\\timing"]);
        assert_eq!(at("\\d|"), ["\\d", "\\df"]);
        assert_eq!(at("\\d st|"), ["stage_latency"]);
        assert_eq!(at("\\format m|"), ["markdown"]);
        assert_eq!(at("select 1\n\\ch|"), ["\\chart"]);
        assert_eq!(complete(&names(), "\\x o", 4).start, 3);
    }
}
