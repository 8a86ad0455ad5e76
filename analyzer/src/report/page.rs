//! The page: head, order of sections, and foot.

use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::facts::Facts;
use super::{
    breakdown, budgets, compare, flames, header, latency, retrieval, sweep, tables, text, trend,
    verdict, waterfall,
};
use crate::model::ReportData;

/// The report as one HTML document.
#[must_use]
pub fn render(data: &ReportData) -> String {
    let name = if data.run.name.trim().is_empty() { &data.run.run_id } else { &data.run.name };
    let title = format!("{} \u{b7} retake run report", text::label_or_unnamed(name));
    document(&title, &policy(), html! { div class="page" { (content(&Facts::new(data))) } })
}

/// Everything on the page but its frame.
pub(super) fn content(facts: &Facts<'_>) -> Markup {
    let data = facts.data;
    let waterfalls = waterfall::section(facts);
    html! {
        (header::masthead(data))
        (contents(data))
        main id="main" {
            (verdict::section(facts))
            (header::quality(facts))
            (budgets::section(facts, &waterfalls.drawn))
            (breakdown::section(facts))
            (flames::section(facts))
            (compare::section(facts))
            (sweep::section(facts))
            (latency::section(facts))
            (retrieval::section(facts))
            (waterfalls.markup)
            (tables::slowest(facts, &waterfalls.drawn))
            (tables::errors(facts, &waterfalls.drawn))
            (tables::tokens(facts))
            (trend::section(facts))
            (tables::queries(facts))
        }
        (foot(data))
    }
}

/// A document whose only style and scripts are constants of this crate. Whoever is linked to learns
/// nothing of where the link was.
pub(super) fn document(title: &str, policy: &str, body: Markup) -> String {
    document_with(title, policy, "no-referrer", body)
}

/// The same with a referrer policy: a browser that may not say where it was says that a form comes
/// from nowhere, which no listener should take.
pub(super) fn document_with(title: &str, policy: &str, referrer: &str, body: Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content=(referrer);
                meta name="robots" content="noindex";
                meta name="color-scheme" content="light dark";
                title { (title) }
                // Constants of this crate; nothing from a trace is ever let through unescaped.
                style { (PreEscaped(STYLE)) }
            }
            body {
                a class="skip" href="#main" { "Skip to the summary" }
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// Links to the sections that exist.
fn contents(data: &ReportData) -> Markup {
    let sections = [
        ("budgets", "Budgets", !data.budgets.is_empty()),
        ("stages", "Stages", !data.breakdown.rows.is_empty()),
        ("paths", "Paths", flames::has_paths(data)),
        ("comparison", "Comparison", data.baseline.is_some()),
        ("sweep", "Settings", data.sweep.is_some()),
        ("latency", "Latency", !data.traces.is_empty()),
        ("retrieval", "Retrieval", data.retrieval.is_some()),
        ("waterfalls", "Waterfalls", !data.trees.is_empty()),
        ("slowest", "Slowest", !data.traces.is_empty()),
        ("errors", "Failures", !data.breakdown.errors.is_empty()),
        ("tokens", "Tokens", has_tokens_or_cost(data)),
        ("trend", "Trend", trend::has_lines(data)),
        ("sql", "SQL", !data.queries.is_empty()),
    ];
    html! {
        @if sections.iter().any(|(_, _, exists)| *exists) {
            nav aria-label="Sections" {
                @for (id, name, exists) in sections {
                    @if exists { a href={ "#" (id) } { (name) } }
                }
            }
        }
    }
}

fn has_tokens_or_cost(data: &ReportData) -> bool {
    data.breakdown.rows.iter().any(tables::has_tokens_or_cost)
}

fn foot(data: &ReportData) -> Markup {
    html! {
        footer {
            p {
                "One self-contained file that asks no network for anything. Times are UTC. "
                "Percentiles are values that occurred (nearest rank). Recorded by retake "
                bdi { (text::label(&data.run.recorder_version)) } "."
            }
        }
    }
}

/// Nothing may load, and nothing run but the one script, known by its digest; the one style sheet
/// is in the page. `base-uri` and `form-action` do not fall back to `default-src`.
fn policy() -> String {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; \
         base-uri 'none'; form-action 'none'"
    )
}

/// What search and zoom need; the page says everything without it.
pub(super) const SCRIPT: &str = include_str!("page.js");
/// The style sheet.
const STYLE: &str = include_str!("style.css");
