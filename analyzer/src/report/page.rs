//! The page: head, order of sections, and foot.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::facts::Facts;
use super::{breakdown, compare, header, latency, tables, text, verdict, waterfall};
use crate::model::ReportData;

/// The report as one HTML document.
#[must_use]
pub fn render(data: &ReportData) -> String {
    let facts = Facts::new(data);
    let waterfalls = waterfall::section(&facts);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(data))
            body {
                a class="skip" href="#main" { "Skip to the summary" }
                div class="page" {
                    (header::masthead(data))
                    (contents(data))
                    main id="main" {
                        (verdict::section(&facts))
                        (header::quality(&facts))
                        (breakdown::section(&facts))
                        (compare::section(&facts))
                        (latency::section(&facts))
                        (waterfalls.markup)
                        (tables::slowest(&facts, &waterfalls.drawn))
                        (tables::errors(&facts, &waterfalls.drawn))
                        (tables::tokens(&facts))
                        (tables::queries(&facts))
                    }
                    (foot(data))
                }
            }
        }
    }
    .into_string()
}

fn head(data: &ReportData) -> Markup {
    let name = if data.run.name.trim().is_empty() { &data.run.run_id } else { &data.run.name };
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="referrer" content="no-referrer";
            meta name="robots" content="noindex";
            meta name="color-scheme" content="light dark";
            title { (text::label_or_unnamed(name)) " \u{b7} retake run report" }
            // A constant of this crate; nothing from a trace is ever let through unescaped.
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// Links to the sections that exist.
fn contents(data: &ReportData) -> Markup {
    let sections = [
        ("stages", "Stages", !data.breakdown.rows.is_empty()),
        ("comparison", "Comparison", data.baseline.is_some()),
        ("latency", "Latency", !data.traces.is_empty()),
        ("waterfalls", "Waterfalls", !data.trees.is_empty()),
        ("slowest", "Slowest", !data.traces.is_empty()),
        ("errors", "Failures", !data.breakdown.errors.is_empty()),
        ("tokens", "Tokens", has_tokens_or_cost(data)),
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
                "One self-contained file: no script, no network. Times are UTC. "
                "Percentiles are values that occurred (nearest rank). Recorded by retake "
                bdi { (text::label(&data.run.recorder_version)) } "."
            }
        }
    }
}

/// Nothing may load or run; the one style sheet is in the page. `base-uri` and `form-action` do
/// not fall back to `default-src`.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// The style sheet.
const STYLE: &str = include_str!("style.css");
