//! `retake doctor`: what is wrong with an installation or a store, where, and what to type.
//!
//! Everything is looked at as it is. A check that repaired first would hide what is to be found.

mod machine;
mod outside;
mod runs;
mod self_check;
mod store;

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{Doctor, Format, Global};
use crate::config;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, row, table, unsupported};
use crate::terminal::{Look, Tone};

use super::budgets;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Good,
    /// Works, and is worth knowing.
    Note,
    /// Does not work; the code says whose fault it is.
    Bad(Code),
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad(_) => "bad",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Good => Tone::Good,
            Self::Note => Tone::Warn,
            Self::Bad(_) => Tone::Bad,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    found: String,
    /// The file, folder, address or run in question.
    place: Option<String>,
    /// What to type or to do.
    advice: Option<String>,
    level: Level,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, found: found.into(), place: None, advice: None, level: Level::Good }
    }

    fn note(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), level: Level::Note, ..Self::good(check, found) }
    }

    fn bad(
        check: &'static str,
        code: Code,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), level: Level::Bad(code), ..Self::good(check, found) }
    }

    /// What a command would fail with.
    fn failed(check: &'static str, failure: &Failure, advice: &str) -> Self {
        let advice = failure.advice().unwrap_or(advice);
        Self::bad(check, failure.code(), failure.message(), advice)
    }

    fn at(mut self, place: &Path) -> Self {
        self.place = Some(place.display().to_string());
        self
    }

    fn of(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    fn json(&self) -> Value {
        json!({
            "check": self.check,
            "found": self.found,
            "where": self.place,
            "advice": self.advice,
            "level": self.level.word(),
            "ok": !matches!(self.level, Level::Bad(_)),
        })
    }
}

pub(crate) async fn run(global: &Global, args: &Doctor) -> Result<Code, Failure> {
    let (context, settings) = settings(global);
    if let Some(runs) = &args.aa {
        return match settings.level {
            Level::Bad(code) => Err(Failure::new(code, settings.found)),
            _ => self_check::run(&context, runs).await,
        };
    }
    let mut findings = vec![machine::program(), settings];
    findings.extend(machine::variables());
    findings.extend(budgets());
    findings.extend(store::findings(&context));
    if let Ok(store) = context.store_untouched() {
        findings.extend(runs::findings(&store)?);
        findings.extend(outside::prices(&context, &store).await);
    }
    findings.push(machine::clock());
    findings.extend(outside::model(&context));
    findings.extend(outside::postgres(&context).await);
    findings.extend(machine::ports());
    show(&context, &findings)?;
    Ok(code(&findings))
}

/// The settings, and what every other check works with: the defaults where they cannot be read.
fn settings(global: &Global) -> (Context, Finding) {
    match Context::new(global) {
        Ok(context) => {
            let finding = match &context.config.file {
                Some(path) => Finding::good("settings", "read").at(path),
                None => Finding::note(
                    "settings",
                    "no retake.toml here or above: defaults",
                    "`retake init` writes one, `retake config --explain` shows the defaults",
                ),
            };
            (context, finding)
        }
        Err(failure) => {
            // Not what every other command says here: `retake config` would fail as they do.
            let advice = "mend it there; `retake init --dry-run` prints settings that work";
            let finding = Finding::bad("settings", failure.code(), failure.message(), advice);
            let named = global.config.clone().or_else(|| config::found_upward("retake.toml"));
            let finding = match &named {
                Some(path) => finding.at(path),
                None => finding,
            };
            (Context::without_settings(global), finding)
        }
    }
}

fn budgets() -> Option<Finding> {
    let path = budgets::path(None)?;
    let finding = match budgets::read(&path) {
        Ok(_) => Finding::good("budgets", "read"),
        Err(failure) => Finding::failed("budgets", &failure, "`retake check --example`"),
    };
    Some(finding.at(&path))
}

/// Damage first, then what the machine lacks, then what is written wrongly: the order in which
/// people should worry.
fn code(findings: &[Finding]) -> Code {
    let is_there = |code: &Code| findings.iter().any(|finding| finding.level == Level::Bad(*code));
    let order = [Code::Damaged, Code::Environment, Code::Usage, Code::NotFound];
    let any_other = findings.iter().find_map(|finding| match finding.level {
        Level::Bad(code) => Some(code),
        _ => None,
    });
    order.into_iter().find(is_there).or(any_other).unwrap_or(Code::Ok)
}

fn show(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
    match context.format_or(Format::Table) {
        Format::Json => {
            let checks: Vec<Value> = findings.iter().map(Finding::json).collect();
            let is_ok = code(findings) == Code::Ok;
            print_json(&json!({"schema_version": 1, "ok": is_ok, "checks": checks}))
        }
        Format::Table => print(&listed(findings, context.look(Format::Table))),
        Format::Markdown => {
            let header = ["", "check", "found", "where", "what to do"];
            let mut shown = table(Format::Markdown, &header, header.len());
            for finding in findings {
                let texts = [&finding.place, &finding.advice].map(|text| text.clone());
                let [place, advice] = texts.map(Option::unwrap_or_default);
                let (level, check) = (finding.level.word().to_owned(), finding.check.to_owned());
                row(&mut shown, [level, check, finding.found.clone(), place, advice]);
            }
            print(&shown.to_string())
        }
        other => Err(unsupported(other, "the findings")),
    }
}

/// A finding a line, what to do about it below it, and a line that sums up.
fn listed(findings: &[Finding], look: Look) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = look.paint(&format!("{:<5}", finding.level.word()), finding.level.tone());
        let place = finding.place.as_ref().map_or(String::new(), |place| format!(": {place}"));
        let found = inert(&format!("{}{place}", finding.found)).replace('\n', " ");
        text.push_str(&format!("{level} {:<16} {found}\n", finding.check));
        if let Some(advice) = &finding.advice {
            let advice = inert(advice).replace('\n', " ");
            text.push_str(&format!("{:23}-> {}\n", "", look.paint(&advice, Tone::Strong)));
        }
    }
    let count = |is_wanted: fn(Level) -> bool| {
        findings.iter().filter(|finding| is_wanted(finding.level)).count()
    };
    let bad = count(|level| matches!(level, Level::Bad(_)));
    let notes = count(|level| level == Level::Note);
    let verdict = match bad {
        0 => look.paint("sound", Tone::Good),
        bad => look.paint(&format!("{bad} wrong (exit code {})", code(findings) as u8), Tone::Bad),
    };
    text.push_str(&format!("{verdict}, {notes} to know of\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the exit code is that of the worst finding, whatever comes first; notes are none.
    #[test]
    fn the_worst_finding_decides() {
        let note = || Finding::note("a", "b", "c");
        let bad = |code| Finding::bad("a", code, "b", "c");
        assert_eq!(code(&[note(), Finding::good("a", "b")]), Code::Ok);
        assert_eq!(code(&[bad(Code::Usage), note(), bad(Code::Damaged)]), Code::Damaged);
        assert_eq!(code(&[bad(Code::Usage), bad(Code::Environment)]), Code::Environment);
        assert_eq!(code(&[bad(Code::Internal)]), Code::Internal);
    }

    #[test]
    fn a_list_says_what_where_and_what_to_do() {
        let found = Finding::bad("runs", Code::Damaged, "a\u{1b}[31m", "retake verify").of("run x");
        let text = listed(&[found], Look::plain(80));
        let expected = "bad   runs             a\\u{1b}[31m: run x\n                       -> retake verify\n1 wrong (exit code 5), 0 to know of\n";
        assert_eq!(text, expected);
    }
}
