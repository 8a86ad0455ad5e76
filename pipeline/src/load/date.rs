//! When a document was last changed.
//!
//! A file's own date is lost when a repository is checked out, so a date that Markdown states in
//! its front matter (YAML between two lines of `---` at the beginning) goes before it.

use std::fs::Metadata;
use std::time::UNIX_EPOCH;

use retake_schemas::date::parse_ms;

/// When the file was changed, ms since 1970.
pub(super) fn of_file(metadata: &Metadata) -> Option<i64> {
    let modified = metadata.modified().ok()?;
    match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        Err(before) => i64::try_from(before.duration().as_millis()).ok().map(|ms| -ms),
    }
}

/// The date in the front matter of Markdown, ms since 1970; the first of [`KEYS`] that is there
/// and can be read.
pub(super) fn of_front_matter(text: &str) -> Option<i64> {
    let mut lines = text.lines();
    if lines.next()?.trim_end() != FENCE {
        return None;
    }
    let block: Vec<&str> =
        lines.take(FRONT_MATTER_LINES_MAX).take_while(|line| line.trim_end() != FENCE).collect();
    KEYS.iter().find_map(|wanted| {
        block.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let is_wanted = key.trim_end().eq_ignore_ascii_case(wanted);
            is_wanted.then(|| parse_ms(value.trim().trim_matches(['"', '\''])))?
        })
    })
}

/// Keys of a date, in the order in which they are looked for: when it was changed says more than
/// when it was first written.
const KEYS: [&str; 6] = ["updated", "lastmod", "last_modified", "modified", "date", "published"];
const FENCE: &str = "---";
/// A longer block is no front matter.
const FRONT_MATTER_LINES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const MS_PER_DAY: i64 = 86_400_000;

    /// Scenario: front matter with several dates, one of them unreadable; a rule that is none.
    /// Guarantees: when it was changed goes before when it was written; text is no front matter.
    #[test]
    fn the_front_matter_says_when_a_document_was_changed() {
        let changed = "---\ntitle: x\ndate: 1970-01-02\nupdated: '1970-01-03'\n---\nText";
        assert_eq!(of_front_matter(changed), Some(2 * MS_PER_DAY));
        let unreadable = "---\nupdated: soon\nDate: 1970-01-02\n---\n";
        assert_eq!(of_front_matter(unreadable), Some(MS_PER_DAY));
        for text in
            ["", "date: 1970-01-02", "---\n---\ndate: 1970-01-02", "a\n---\ndate: 1970-01-02"]
        {
            assert_eq!(of_front_matter(text), None, "{text:?}");
        }
    }
}
