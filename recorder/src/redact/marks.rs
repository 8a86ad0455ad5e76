//! Marks: putting them into a text, and knowing them again.
//!
//! A mark that is already there is never touched, and a rule cannot reach across one. Each pass
//! that changes a text therefore turns some of its bytes into marks for good, which is why
//! repeating passes ends, and why redacting twice is redacting once.

use std::borrow::Cow;
use std::ops::Range;

use retake_schemas::redaction::{MARK_PREFIX, mark};

/// A place to take out, and who found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding<'n> {
    pub(super) range: Range<usize>,
    pub(super) name: &'n str,
}

/// The names whose marks count. A mark of any other name is text like all other text: a secret
/// cannot hide in `[redacted:<secret>]`.
#[derive(Debug, Clone, Default)]
pub(super) struct MarkNames {
    names: Vec<Cow<'static, str>>,
}

impl MarkNames {
    pub(super) fn add(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if !self.contains(&name) {
            self.names.push(name);
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Whether the text is one mark and nothing else.
    pub(super) fn is_mark(&self, text: &str) -> bool {
        self.ranges(text).first() == Some(&(0..text.len()))
    }

    /// Where marks stand in the text, in order.
    fn ranges(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for (start, _) in text.match_indices(MARK_PREFIX) {
            let name_start = start + MARK_PREFIX.len();
            let rest = text.get(name_start..).unwrap_or_default();
            let Some(len) = rest.bytes().take(NAME_BYTES_MAX).position(|b| b == b']') else {
                continue;
            };
            let name = rest.get(..len).unwrap_or_default();
            if self.contains(name.strip_suffix(FAILED).unwrap_or(name)) {
                ranges.push(start..name_start + len + 1);
            }
        }
        ranges
    }

    /// The text with every finding replaced by its mark; `None` when that changes nothing.
    pub(super) fn put(&self, text: &str, findings: &[Finding<'_>]) -> Option<String> {
        if findings.is_empty() {
            return None;
        }
        let marks = self.ranges(text);
        let mut pieces: Vec<Finding<'_>> =
            findings.iter().flat_map(|finding| outside(&marks, finding)).collect();
        // Stable: of two that begin together the earlier detector gives the name.
        pieces.sort_by_key(|piece| piece.range.start);
        let mut merged: Vec<Finding<'_>> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match merged.last_mut() {
                Some(last) if piece.range.start < last.range.end => {
                    last.range.end = last.range.end.max(piece.range.end);
                }
                _ => merged.push(piece),
            }
        }
        if merged.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut kept_to = 0;
        for Finding { range, name } in merged {
            out.push_str(text.get(kept_to..range.start).unwrap_or_default());
            out.push_str(&mark(name));
            kept_to = range.end;
        }
        out.push_str(text.get(kept_to..).unwrap_or_default());
        Some(out)
    }
}

/// The mark of a rule that failed.
pub(super) fn failed_mark(name: &str) -> String {
    mark(&format!("{name}{FAILED}"))
}

/// The parts of a finding that are not in a mark.
fn outside<'n>(marks: &[Range<usize>], finding: &Finding<'n>) -> Vec<Finding<'n>> {
    let mut pieces = Vec::new();
    let mut start = finding.range.start;
    let end = finding.range.end;
    let first = marks.partition_point(|mark| mark.end <= start);
    for mark in marks.iter().skip(first).take_while(|mark| mark.start < end) {
        if start < mark.start {
            pieces.push(Finding { range: start..mark.start, name: finding.name });
        }
        start = mark.end;
    }
    if start < end {
        pieces.push(Finding { range: start..end, name: finding.name });
    }
    pieces
}

const FAILED: &str = " failed";
/// Longest name of a rule, with room for [`FAILED`].
pub(super) const NAME_BYTES_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, findings: &[(Range<usize>, &'static str)]) -> Option<String> {
        let mut names = MarkNames::default();
        names.add("a");
        names.add("b");
        let findings: Vec<_> =
            findings.iter().map(|(range, name)| Finding { range: range.clone(), name }).collect();
        names.put(text, &findings)
    }

    #[test]
    fn overlapping_findings_become_one_mark_and_neighbours_two() {
        assert_eq!(put("0123456789", &[(2..5, "a"), (4..7, "b")]).unwrap(), "01[redacted:a]789");
        assert_eq!(
            put("0123456789", &[(5..7, "b"), (2..5, "a")]).unwrap(),
            "01[redacted:a][redacted:b]789"
        );
        assert_eq!(put("0123", &[]), None);
    }

    #[test]
    fn known_marks_are_not_touched_and_unknown_ones_are_text() {
        let text = "x[redacted:a]y";
        assert_eq!(put(text, &[(1..13, "b")]), None, "a mark alone");
        assert_eq!(put(text, &[(0..14, "b")]).unwrap(), "[redacted:b][redacted:a][redacted:b]");
        assert_eq!(put("[redacted:a failed]", &[(0..19, "b")]), None);
        assert_eq!(put("[redacted:ghp_x]", &[(10..15, "b")]).unwrap(), "[redacted:[redacted:b]]");
        assert_eq!(put("[redacted:", &[(0..10, "b")]).unwrap(), "[redacted:b]");
    }
}
