//! Reading filters, and printing them.

use super::*;

fn read(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Filter>().map(|filter| filter.to_string()).expect_err(text).to_string()
}

/// Guarantees: what is written is what is meant, and a filter that is printed is read as itself.
#[test]
fn filters_are_read_as_they_are_written() {
    for (text, printed) in [
        ("kind = markdown", "kind = 'markdown'"),
        ("kind != \"code\"", "kind <> 'code'"),
        ("tokens>=100 and tokens<=-3", "tokens >= 100 and tokens <= -3"),
        ("document = 'it''s \"x\"'", "document = 'it''s \"x\"'"),
        ("document = \"a\"\"b'c\"", "document = 'a\"b''c'"),
        ("path STARTS With 'docs/'", "path starts with 'docs/'"),
        ("modified > 2026-01-31", "modified > '2026-01-31'"),
        ("modified = 2026-01-31T10:00:00Z", "modified = '2026-01-31T10:00:00Z'"),
        ("ordinal in (1,2, 3)", "ordinal in (1, 2, 3)"),
        ("path not in ('a', '')", "path not in ('a', '')"),
        (
            "kind = text or kind = code and tokens > 1",
            "kind = 'text' or (kind = 'code' and tokens > 1)",
        ),
        (
            "(kind = text or kind = code) and ((tokens > 1))",
            "(kind = 'text' or kind = 'code') and tokens > 1",
        ),
    ] {
        let filter = read(text);
        assert_eq!(filter.to_string(), printed);
        assert_eq!(read(printed), filter);
        let json = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    }
}

/// Guarantees: a day is the whole of it, and a time the second of it.
#[test]
fn dates_have_a_beginning_and_an_end() {
    let value = |text: &str| match read(text).condition() {
        Condition::Compare { value: FilterValue::Date { from_ms, until_ms, .. }, .. } => {
            (*from_ms, *until_ms)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(value("modified < 1970-01-02"), (86_400_000, 172_800_000));
    assert_eq!(value("modified < '1970-01-02 00:00:01'"), (86_401_000, 86_402_000));
}

/// Guarantees: the message says what is wrong, where, and what there is instead.
#[test]
fn what_is_no_filter_is_told_why() {
    assert_eq!(
        error("author = 'x'"),
        "there is no field \"author\"; fields are document, path, kind, modified, ordinal, tokens"
    );
    for (text, said) in [
        ("", "character 1: expected a field, found the end"),
        ("  ", "expected a field, found the end"),
        ("kind", "character 5: expected =, !=, <"),
        ("kind = ", "expected a value, found the end"),
        ("kind = gif", "kind: there is no kind \"gif\"; kinds are text, markdown"),
        ("kind > text", "kind: kinds have no order"),
        ("path = docs", "character 8: expected a text in quotes, found \"docs\""),
        ("path = 'docs", "character 8: expected a closing quote"),
        ("tokens = '7'", "tokens: \"7\" is no whole number"),
        ("tokens = 7.5", "tokens: \"7.5\" is no whole number"),
        ("tokens = 99999999999999999999", "no whole number"),
        ("modified > yesterday", "modified: \"yesterday\" is no date; write 2026-01-31"),
        ("modified starts with '2026'", "modified: `starts with` is for texts"),
        ("path starts 'x'", "expected `with`"),
        ("path not 'x'", "expected `in`"),
        ("path in 'x'", "expected (, found the text \"x\""),
        ("path in ()", "expected a value"),
        ("path in ('x'", "expected ), found the end"),
        ("(tokens > 1", "expected ), found the end"),
        ("tokens > 1)", "character 11: expected `and`, `or`, or the end, found \")\""),
        ("tokens > 1 tokens < 2", "expected `and`"),
        ("tokens > 1; drop table chunks", "found ';'"),
        ("tokens & 1", "found '&'"),
        ("path = 'a\0'", "character 10: expected text without NUL"),
        ("= 1", "expected a field, found \"=\""),
    ] {
        let found = error(text);
        assert!(found.contains(said), "{text:?}: {found}");
    }
    let deep = format!("{}tokens > 1{}", "(".repeat(40), ")".repeat(40));
    assert!(error(&deep).contains("32 parentheses"));
    assert!(error(&"x".repeat(70_000)).contains("64 KiB"));
    assert!(error(&"(".repeat(5000)).contains("2048"));
}
