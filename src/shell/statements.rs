//! Where statements end.

use super::lexer::{Token, lex};

/// The statements of a script, without their `;`. One of nothing but blanks and comments is none.
pub(crate) fn split(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let tokens = lex(script);
    for statement in tokens.split(|token| token.text == ";") {
        let Some(first) = statement.iter().find(|token| !token.is_blank()) else { continue };
        let last = statement.last().unwrap_or(first);
        let text = script.get(first.start..last.start + last.text.len());
        statements.extend(text.map(str::trim_end));
    }
    statements
}

/// Whether what was typed is to be run: a statement with its `;`, a command, a word that ends the
/// shell, or nothing.
pub(crate) fn is_complete(typed: &str) -> bool {
    let tokens = lex(typed);
    if tokens.iter().any(|token| !token.is_closed) {
        return is_command(typed);
    }
    let last: Option<&Token<'_>> = tokens.iter().rfind(|token| !token.is_blank());
    last.is_none_or(|last| last.text == ";") || is_command(typed) || is_farewell(typed)
}

/// Whether the last line is a command; what stands above it is the statement it is about.
pub(crate) fn is_command(typed: &str) -> bool {
    last_line(typed).starts_with('\\')
}

/// Whether it ends the shell, as other shells have it.
pub(crate) fn is_farewell(typed: &str) -> bool {
    let typed = typed.trim().trim_end_matches(';').trim_end();
    typed.eq_ignore_ascii_case("exit") || typed.eq_ignore_ascii_case("quit")
}

/// The statement so far, and the command below it.
pub(crate) fn split_command(typed: &str) -> (&str, &str) {
    let command = last_line(typed);
    (typed.get(..typed.trim_end().len() - command.len()).unwrap_or_default(), command)
}

fn last_line(typed: &str) -> &str {
    typed.trim_end().lines().next_back().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: scripts whose quotes and comments hold semicolons.
    /// Guarantees: only a semicolon between statements ends one.
    #[test]
    fn a_script_is_split_between_statements_only() {
        assert_eq!(split("select 1; select 2 ;\n"), ["select 1", "select 2"]);
        assert_eq!(split("select ';' as \"a;b\"; -- end;\n"), ["select ';' as \"a;b\""]);
        assert_eq!(
            split("/* a; b */ select 'it''s;' -- c;\n from t"),
            ["select 'it''s;' -- c;\n from t"]
        );
        assert_eq!(split("select 'open; select 2"), ["select 'open; select 2"]);
        assert_eq!(split(" ;; -- nothing\n; /* ; */"), [] as [&str; 0]);
    }

    /// Scenario: the text so far, as Enter is pressed.
    /// Guarantees: it is run when it is a whole statement or a command, else it goes on.
    #[test]
    fn a_statement_goes_on_until_its_semicolon() {
        for whole in ["", "  ", "select 1;", "select 1; -- done", "\\d", "exit", "QUIT;", "-- x"] {
            assert!(is_complete(whole), "{whole}");
        }
        for part in ["select 1", "select ';", "select 1 /* ;", "select 1 -- ;", "select \";"] {
            assert!(!is_complete(part), "{part}");
        }
        assert!(is_complete("select 'open\n\\e"));
        assert_eq!(split_command("select 1\n  \\e now "), ("select 1\n  ", "\\e now"));
        assert_eq!(split_command("\\d spans\n"), ("", "\\d spans"));
    }
}
