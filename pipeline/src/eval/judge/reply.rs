//! Reads what a judge says.
//!
//! A score is a number on a line of its own, by name or alone on the first line; a verdict is the
//! word yes or no. "Eyes" holds no yes, "10" is no 1, and two scores are none: what cannot be read
//! is invalid, never a guess.

/// A reply that was read: its value, and the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    /// What it says.
    pub value: T,
    /// Why.
    pub feedback: String,
}

/// Reads `Score: 4.5` from a reply, a number from `least` to `most`.
///
/// # Errors
/// What is wrong with the reply.
pub fn read_score(reply: &str, least: f64, most: f64) -> Result<Read<f64>, String> {
    let (text, feedback) = named(reply, "score").ok_or("there is no line \"Score: N\"")?;
    let text = text.trim_end_matches('.');
    // `4.5/5`, but not `4/10` of 5.
    let text = match text.split_once('/') {
        Some((number, whole)) if whole.trim().parse() == Ok(most) => number.trim(),
        Some(_) => return Err(format!("its score is not out of {most}")),
        None => text,
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let score: f64 = text
        .parse()
        .ok()
        .filter(|_| is_plain)
        .ok_or_else(|| "its score is no number".to_owned())?;
    if !(least..=most).contains(&score) {
        return Err(format!("its score is not from {least} to {most}"));
    }
    Ok(Read { value: score, feedback })
}

/// Reads `Verdict: YES` or `NO` from a reply.
///
/// # Errors
/// What is wrong with the reply.
pub fn read_verdict(reply: &str) -> Result<Read<bool>, String> {
    let (text, feedback) = named(reply, "verdict").ok_or("there is no line \"Verdict: YES\"")?;
    let word = text.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    match word.as_str() {
        "yes" => Ok(Read { value: true, feedback }),
        "no" => Ok(Read { value: false, feedback }),
        _ => Err("its verdict is neither yes nor no".to_owned()),
    }
}

/// The value of a line `Name: value`, and all other lines; without such a line, the first line
/// alone. Nothing if the name stands twice with different values.
pub(super) fn named<'r>(reply: &'r str, name: &str) -> Option<(&'r str, String)> {
    let lines: Vec<&str> = reply.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let value = |line: &'r str| -> Option<&'r str> {
        let (before, value) = line.split_once(':')?;
        let before = before.trim_matches(|c: char| !c.is_alphanumeric());
        before.eq_ignore_ascii_case(name).then(|| bare(value))
    };
    let values: Vec<&str> = lines.iter().filter_map(|line| value(line)).collect();
    let (chosen, is_first) = match values.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => (*first, false),
        Some(_) => return None,
        None => (bare(lines.first()?), true),
    };
    let is_rest = |(position, line): &(usize, &&'r str)| match is_first {
        true => *position > 0,
        false => value(line).is_none(),
    };
    let rest: Vec<&str> =
        lines.iter().enumerate().filter(is_rest).map(|(_, line)| unnamed(line)).collect();
    Some((chosen, rest.join("\n")))
}

/// Without the marks that models put around what matters.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '*' || c == '`' || c == '"')
}

/// `Reason: because` is `because`.
fn unnamed(line: &str) -> &str {
    match line.split_once(':') {
        Some((name, reason)) if name.trim().eq_ignore_ascii_case("reason") => reason.trim(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_in_the_forms_models_use() {
        for (reply, expected) in [
            ("Score: 4.5\nReason: nearly all of it.", 4.5),
            ("**Score:** 4.5\n\nnearly all of it.", 4.5),
            ("4.5\nnearly all of it.", 4.5),
            ("Reason: nearly all of it.\nScore: 4.5/5", 4.5),
            ("score: 4.5.\nnearly all of it.", 4.5),
        ] {
            let read = read_score(reply, 1.0, 5.0).expect(reply);
            assert_eq!((read.value, read.feedback.as_str()), (expected, "nearly all of it."));
        }
    }

    /// Scenario: replies whose score one can only guess.
    /// Guarantees: they are invalid; none becomes a 0 or another number.
    #[test]
    fn a_score_that_cannot_be_read_is_invalid_and_no_zero() {
        for reply in [
            "",
            "Good answer, I would say 4.",
            "Score: four",
            "Score: 6",
            "Score: 0",
            "Score: -2",
            "Score: 4\nScore: 2",
            "Score: 4/10",
            "Score: NaN",
            "Score: 1e0",
            "Score:",
        ] {
            assert!(read_score(reply, 1.0, 5.0).is_err(), "{reply}");
        }
        assert_eq!(read_score("Score: 4\nScore: 4", 1.0, 5.0).expect("one score").value, 4.0);
    }

    /// Scenario: words that hold "yes" and "no", which LlamaIndex takes for a yes.
    #[test]
    fn eyes_hold_no_yes() {
        for (reply, expected) in [
            ("YES", Ok(true)),
            ("Verdict: **No**.\nReason: yesterday's news", Ok(false)),
            ("verdict: yes", Ok(true)),
            ("It has eyes.", Err(())),
            ("Verdict: yes and no", Err(())),
            ("Verdict: YES\nVerdict: NO", Err(())),
            ("", Err(())),
        ] {
            let read = read_verdict(reply).map(|read| read.value).map_err(drop);
            assert_eq!(read, expected, "{reply}");
        }
    }
}
