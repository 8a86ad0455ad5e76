//! Markdown for a step's summary or a comment on a pull request.

use super::words::{
    actual, change, finding_sentence, headline, limit, name, one_line, shown, verdict,
};
use crate::model::{BudgetVerdict, CheckReport, CheckVerdict, Diff};

/// The check as Markdown of at most `bytes_max` bytes: what is left out is counted.
#[must_use]
pub fn markdown(report: &CheckReport, bytes_max: usize) -> String {
    let mark = match report.verdict {
        CheckVerdict::Pass => "✅",
        CheckVerdict::Warn => "⚠️",
        CheckVerdict::Fail => "❌",
        CheckVerdict::Inconclusive => "❔",
    };
    let mut page = Page { text: String::new(), bytes_max, left_out: 0 };
    page.add(&format!("## {mark} retake check: {}\n\n", headline(report)));
    page.add(&format!("Run `{}`", report.run_id));
    match report.baseline.as_slice() {
        [] => page.add(".\n"),
        [one] => page.add(&format!(" against `{one}`.\n")),
        several => page.add(&format!(" against {} runs.\n", several.len())),
    }
    for finding in &report.regressions {
        page.add(&format!("\n### {}\n\n", text(&finding_sentence(finding))));
        if !finding.contributions.is_empty() {
            page.add("| stage | adds to the mean | share |\n|---|---:|---:|\n");
            for part in &finding.contributions {
                page.add(&format!(
                    "| {} | {} | {} |\n",
                    cell(&part.stage),
                    shown(part.change_ns, "ns"),
                    change(part.share)
                ));
            }
        }
        for example in &finding.examples {
            page.add(&format!(
                "\n- trace `{}` of `{}`: {} there, {} in all",
                example.trace_id,
                example.run_id,
                shown(example.stage_ns as f64, "ns"),
                shown(example.duration_ns as f64, "ns")
            ));
        }
        page.add("\n");
    }
    budgets(&mut page, &report.budgets);
    if let Some(diff) = &report.comparison {
        comparison(&mut page, diff);
    }
    for warning in &report.warnings {
        page.add(&format!("\n> {}\n", text(warning)));
    }
    page.finish()
}

fn budgets(page: &mut Page, budgets: &[BudgetVerdict]) {
    if budgets.is_empty() {
        return;
    }
    page.add("\n### Budgets\n\n| budget | metric | found | allowed | samples | verdict |\n|---|---|---:|---:|---:|---|\n");
    let mut ordered: Vec<&BudgetVerdict> = budgets.iter().collect();
    ordered.sort_by_key(|budget| match budget.verdict {
        CheckVerdict::Fail => 0,
        CheckVerdict::Warn => 1,
        CheckVerdict::Inconclusive => 2,
        CheckVerdict::Pass => 3,
    });
    for budget in ordered {
        let mut said = verdict(budget.verdict).to_owned();
        if let Some(note) = &budget.note {
            said.push_str(&format!(": {note}"));
        }
        if let Some(run) = &budget.first_bad_run {
            said.push_str(&format!(" since run {run}"));
        }
        page.add(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            cell(&name(budget)),
            cell(&one_line(&budget.metric)),
            actual(budget),
            limit(budget),
            budget.samples,
            cell(&said)
        ));
    }
}

fn comparison(page: &mut Page, diff: &Diff) {
    page.add("\n<details><summary>Stage by stage</summary>\n\n");
    page.add("| stage | metric | base | candidate | change | 95 % interval | p | verdict |\n");
    page.add("|---|---|---:|---:|---:|---:|---:|---|\n");
    for row in &diff.rows {
        let verdict = row.verdict.as_str();
        let [low, high] = row.effect_ci;
        page.add(&format!(
            "| {} | {} | {} | {} | {} | {} to {} | {} | {verdict} |\n",
            cell(&row.stage),
            row.metric,
            shown(row.base, &row.unit),
            shown(row.candidate, &row.unit),
            change(row.effect),
            change(low),
            change(high),
            row.p_adjusted.map_or("-".to_owned(), |p| format!("{p:.4}")),
        ));
    }
    page.add(&format!("\n{}\n\n</details>\n", text(&diff.note)));
}

/// Markdown up to a size.
struct Page {
    text: String,
    bytes_max: usize,
    left_out: usize,
}

impl Page {
    /// Adds a whole line or table row, or counts it as left out.
    fn add(&mut self, part: &str) {
        if self.left_out > 0 || self.text.len() + part.len() + RESERVED > self.bytes_max {
            self.left_out += part.lines().count();
        } else {
            self.text.push_str(part);
        }
    }

    fn finish(mut self) -> String {
        if self.left_out > 0 {
            self.text.push_str(&format!(
                "\n… {} more lines (`retake check --format json`)\n",
                self.left_out
            ));
        }
        self.text
    }
}

/// Text from a trace must not become markup: what means something in Markdown or HTML is escaped.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // A mention would call somebody.
            '@' => out.push_str("&#64;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The same on one line, such as in a table.
#[must_use]
pub fn cell(raw: &str) -> String {
    text(&one_line(raw))
}

/// Kept for the line that counts what is left out.
const RESERVED: usize = 100;
