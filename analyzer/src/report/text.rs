//! Strings of a trace, made harmless to look at.
//!
//! Escaping keeps a string from becoming markup; it does not keep a control character from
//! upsetting a terminal (someone will `cat` the file), nor a text-direction override from
//! showing `exe.pdf` for `fdp.exe`. Both are replaced by something visible.

/// Longest label, characters: a span name longer than this is a prompt by mistake.
pub(super) const LABEL_CHARS_MAX: usize = 96;
/// Longest free text in a table cell, such as an error message, characters.
pub(super) const MESSAGE_CHARS_MAX: usize = 240;
/// Longest block, such as a SQL query, characters.
pub(super) const BLOCK_CHARS_MAX: usize = 6_000;

/// A label: one line, at most [`LABEL_CHARS_MAX`] characters.
pub(super) fn label(raw: &str) -> String {
    one_line(raw, LABEL_CHARS_MAX)
}

/// A label that says so when it is empty, so that no row has a nameless heading.
pub(super) fn label_or_unnamed(raw: &str) -> String {
    named(raw, LABEL_CHARS_MAX)
}

/// The same with another limit.
pub(super) fn named(raw: &str, chars_max: usize) -> String {
    let shown = one_line(raw, chars_max);
    if shown.trim().is_empty() { "(unnamed)".to_owned() } else { shown }
}

/// A message: one line, at most [`MESSAGE_CHARS_MAX`] characters.
pub(super) fn message(raw: &str) -> String {
    one_line(raw, MESSAGE_CHARS_MAX)
}

/// Text on one line of at most `chars_max` characters; line breaks show as symbols.
pub(super) fn one_line(raw: &str, chars_max: usize) -> String {
    cut(raw, chars_max, visible)
}

/// The start of an id, which needs no sign that it was cut.
pub(super) fn id_start(raw: &str, chars_max: usize) -> String {
    raw.chars().take(chars_max).map(visible).collect()
}

/// Text that keeps its lines, at most [`BLOCK_CHARS_MAX`] characters.
pub(super) fn block(raw: &str) -> String {
    cut(raw, BLOCK_CHARS_MAX, |c| if matches!(c, '\n' | '\t') { c } else { visible(c) })
}

/// Applies `shown` to the first `chars_max` characters and marks the cut.
fn cut(raw: &str, chars_max: usize, shown: impl Fn(char) -> char) -> String {
    let mut chars = raw.chars();
    let mut out: String = chars.by_ref().take(chars_max).map(shown).collect();
    if chars.next().is_some() {
        out.push('\u{2026}');
    }
    out
}

/// The character itself, or a visible stand-in for one that acts instead of showing.
fn visible(c: char) -> char {
    match c {
        // U+2400 onwards are pictures of the 32 control characters, in the same order.
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(NEUTRAL),
        '\u{7f}' => '\u{2421}',
        c if acts_unseen(c) => NEUTRAL,
        c => c,
    }
}

/// Whether a character changes how its neighbours are read without being seen itself. The
/// zero-width joiners U+200C and U+200D stay: Persian, Hindi, and emoji need them.
fn acts_unseen(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}'             // C1 controls: terminals obey U+009B
        | '\u{ad}'                      // soft hyphen
        | '\u{61c}'                     // Arabic letter mark
        | '\u{180e}' | '\u{200b}'       // invisible separators
        | '\u{200e}' | '\u{200f}'       // direction marks
        | '\u{2028}'..='\u{202e}'       // line separators, embeddings, and overrides
        | '\u{2060}'..='\u{206f}'       // joiner, invisible operators, isolates
        | '\u{feff}'                    // byte order mark
        | '\u{fff0}'..='\u{fffb}'       // interlinear annotation
        | '\u{e0000}'..='\u{e0fff}'     // tags: whole hidden texts
    ) || (u32::from(c) & 0xfffe) == 0xfffe // noncharacters
}

/// The members of a JSON object as written: names without quotes, values as JSON source.
///
/// Values stay JSON on purpose: their escapes (`\u202e`) are inert as they stand, and the reader
/// sees whether `"64"` is a string. Text that is not an object gives no members.
pub(super) fn object_members(json: &str) -> Vec<(String, String)> {
    let Some(inside) = json.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return Vec::new();
    };
    split_outside(inside, ',')
        .into_iter()
        .filter_map(|member| {
            let mut halves = split_outside(member, ':').into_iter();
            let name = halves.next()?.trim();
            let value_at = name.len() + member.find(name)?;
            let value = member.get(value_at..)?.trim_start().strip_prefix(':')?.trim();
            Some((name.trim_matches('"').to_owned(), value.to_owned()))
        })
        .collect()
}

/// Splits at `separator` where it is outside strings, arrays, and objects.
fn split_outside(json: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut depth, mut is_string, mut is_escaped) = (0_i32, false, false);
    for (at, c) in json.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_string => is_escaped = true,
            '"' => is_string = !is_string,
            _ if is_string => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            c if c == separator && depth == 0 => {
                parts.extend(json.get(start..at));
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(json.get(start..).filter(|rest| !rest.trim().is_empty()));
    parts
}

/// Stands for a character that must not act.
const NEUTRAL: char = '\u{fffd}';

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a name with terminal escapes, direction overrides, and invisible characters.
    /// Guarantees: P2 - none of them reaches the page.
    #[test]
    fn acting_characters_become_visible() {
        assert_eq!(label("a\u{1b}[31mred"), "a\u{241b}[31mred");
        assert_eq!(label("a\nb\u{7f}"), "a\u{240a}b\u{2421}");
        for c in ["\u{202e}", "\u{2066}", "\u{9b}", "\u{200b}", "\u{feff}", "\u{e0041}", "\u{ffff}"]
        {
            assert_eq!(label(c), "\u{fffd}", "{c:?}");
        }
        assert_eq!(
            label("na\u{ef}ve \u{5e9}\u{5dc}\u{5d5}\u{5dd}"),
            "na\u{ef}ve \u{5e9}\u{5dc}\u{5d5}\u{5dd}"
        );
    }

    /// Scenario: a prompt of a megabyte as a span name.
    /// Guarantees: P2 - a label has a limit, and the cut shows.
    #[test]
    fn long_text_is_cut_visibly() {
        let shown = label(&"x".repeat(1 << 20));
        assert_eq!(shown.chars().count(), LABEL_CHARS_MAX + 1);
        assert!(shown.ends_with('\u{2026}'));
        assert_eq!(block("a\n\tb"), "a\n\tb");
    }

    /// Scenario: settings with commas, colons, and braces inside strings and nested values.
    /// Guarantees: each setting is one row, whatever its value holds.
    #[test]
    fn object_members_respect_strings_and_nesting() {
        let members =
            object_members(r#"{"a.b": 1, "c:d": "x,\"y\":{z", "e": {"f": [1,2]}, "g":null}"#);
        let expected =
            [("a.b", "1"), ("c:d", r#""x,\"y\":{z""#), ("e", r#"{"f": [1,2]}"#), ("g", "null")];
        let expected: Vec<_> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        assert_eq!(members, expected);
        for broken in ["", "{", "[]", "{}", "{,}", "nonsense", "{\"a\"}"] {
            assert!(object_members(broken).is_empty(), "{broken}");
        }
    }
}
