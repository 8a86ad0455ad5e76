//! `retake doctor`.

use std::path::Path;

use retake_analyzer::diff::self_check;
use retake_analyzer::{Analyzer, DiffOptions, Scope};
use retake_recorder::Store;
use retake_schemas::event::RunStatus;
use serde_json::json;

use crate::cli::{Doctor, Format};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::units::{bytes, percent};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    found: String,
    /// What to do, where something should be done.
    advice: Option<String>,
    is_bad: bool,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), advice: None, is_bad: false }
    }

    fn advice(what: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { what, found: found.into(), advice: Some(advice.to_owned()), is_bad: false }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { what, found: found.into(), advice: Some(advice.to_owned()), is_bad: true }
    }
}

pub(crate) async fn run(context: &Context, args: &Doctor) -> Result<Code, Failure> {
    if let Some(runs) = &args.aa {
        return false_alarms(context, runs).await;
    }
    // Looked at as it is: repairing first would hide what is to be found.
    let store = context.store_untouched()?;
    let mut findings = vec![place(&store), space(store.root())];
    findings.extend(runs(&store)?);
    findings.push(clock());
    findings.push(config(context));
    let is_bad = findings.iter().any(|finding| finding.is_bad);
    match context.format_or(Format::Table) {
        Format::Json => {
            let checks: Vec<_> = findings
                .iter()
                .map(|f| json!({"check": f.what, "found": f.found, "advice": f.advice, "ok": !f.is_bad}))
                .collect();
            print_json(&json!({"schema_version": 1, "ok": !is_bad, "checks": checks}))?;
        }
        format @ (Format::Table | Format::Markdown) => {
            let mut shown = table(format, &["check", "found", "what to do"], 3);
            for finding in findings {
                let advice = finding.advice.unwrap_or_default();
                row(&mut shown, [finding.what.to_owned(), finding.found, advice]);
            }
            print(&shown.to_string())?;
        }
        other => return Err(unsupported(other, "the findings")),
    }
    Ok(if is_bad { Code::Damaged } else { Code::Ok })
}

fn place(store: &Store) -> Finding {
    Finding::good("store", store.root().display().to_string())
}

fn space(root: &Path) -> Finding {
    match rustix::fs::statvfs(root) {
        Ok(facts) => {
            let free = facts.f_bavail.saturating_mul(facts.f_frsize);
            match free < SPACE_MIN {
                true => Finding::advice(
                    "free space",
                    bytes(free),
                    "`retake gc --dry-run` shows what could go",
                ),
                false => Finding::good("free space", bytes(free)),
            }
        }
        Err(error) => Finding::advice("free space", format!("unknown: {error}"), ""),
    }
}

fn runs(store: &Store) -> Result<Vec<Finding>, Failure> {
    let (mut readable, mut live, mut dead, mut unreadable) = (0, 0, 0, Vec::new());
    for run in store.runs()? {
        match run.manifest {
            Ok(manifest) if manifest.status == RunStatus::Recording => {
                match store.is_live(&run.run_id) {
                    true => live += 1,
                    false => dead += 1,
                }
            }
            Ok(_) => readable += 1,
            Err(error) => unreadable.push(format!("{}: {error}", run.run_id)),
        }
    }
    let mut findings =
        vec![Finding::good("runs", format!("{readable} finished, {live} being recorded"))];
    if dead > 0 {
        let found = format!("{dead} whose process died");
        findings.push(Finding::advice(
            "unfinished runs",
            found,
            "the next command repairs them, or `retake recover`",
        ));
    }
    if !unreadable.is_empty() {
        findings.push(Finding::bad(
            "unreadable runs",
            unreadable.join("; "),
            "`retake verify` says more, `retake recover` mends what can be mended",
        ));
    }
    Ok(findings)
}

fn clock() -> Finding {
    let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
    match source.trim() {
        "tsc" => Finding::good("clock", "tsc: a time stamp costs about 10 ns"),
        "" => Finding::good("clock", "the system's monotonic clock"),
        other => Finding::advice(
            "clock",
            format!("{other}: a time stamp is a call"),
            "spans cost more here; the kernel trusts no cheaper clock on this machine",
        ),
    }
}

fn config(context: &Context) -> Finding {
    match &context.config.file {
        Some(path) => Finding::good("configuration", path.display().to_string()),
        None => {
            Finding::advice("configuration", "defaults", "`retake config --explain` shows them")
        }
    }
}

/// How often the gate finds something between runs of a program that did not change.
async fn false_alarms(context: &Context, set: &str) -> Result<Code, Failure> {
    let store = context.store()?;
    let runs = match set {
        // Runs of other names are other programs, and differ for a reason.
        "" => {
            let name = store.manifest(&store.select("last")?)?.facts.name;
            store.select_set(&format!("{name}*40"))?
        }
        set => store.select_set(set)?,
    };
    if runs.len() < 5 {
        let message = format!("measure false alarms on {} runs: at least 5 are needed", runs.len());
        return Err(Failure::new(Code::Inconclusive, message)
            .help("record the same program more often, then name its runs, such as 'nightly*20'"));
    }
    let analyzer =
        Analyzer::open_with(&store, Scope::Runs(runs.clone()), &context.analyzer_options())?;
    let found = self_check(&analyzer, &runs, &DiffOptions::default()).await?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&found)?,
        format @ (Format::Table | Format::Markdown) => {
            let header = ["compared", "comparisons", "false alarms", "rate", "mostly"];
            let mut shown = table(format, &header, 1);
            for shape in &found.shapes {
                row(
                    &mut shown,
                    [
                        format!("{} runs with {}", shape.base, shape.candidate),
                        shape.comparisons.to_string(),
                        shape.false_alarms.to_string(),
                        percent(shape.rate),
                        shape
                            .mostly
                            .as_ref()
                            .map_or("-".to_owned(), |(what, count)| format!("{what} ({count})")),
                    ],
                );
            }
            print(&shown.to_string())?;
            context.say("these runs are taken for runs of one program; if it changed between them, alarms may be right");
            context.say("next: retake trend 'p95(e2e)' · retake check last");
        }
        other => return Err(unsupported(other, "false alarms")),
    }
    Ok(Code::Ok)
}

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Less free space than this is worth a word.
const SPACE_MIN: u64 = 1 << 30;
