//! Which run this is, and whether its data can be trusted.

use maud::{Markup, html};
use retake_schemas::convention::{CLOCK_LABEL, CLOCK_VIRTUAL};

use super::facts::Facts;
use super::text;
use super::units::{self, count, duration, plural};
use crate::model::ReportData;

/// Name, facts, labels, and settings of the run.
pub(super) fn masthead(data: &ReportData) -> Markup {
    let run = &data.run;
    let name = if run.name.trim().is_empty() { &run.run_id } else { &run.name };
    html! {
        header class="masthead" {
            p class="brand" { "retake" span { "run report" } }
            h1 { bdi { (text::label_or_unnamed(name)) } " " (status(&run.status)) (simulated(&run.labels)) }
            dl class="facts" {
                (fact("Service", html! {
                    bdi { (text::label_or_unnamed(&run.service)) }
                    @if let Some(version) = &run.service_version {
                        " " bdi { (text::label(version)) }
                    }
                }))
                (fact("Started", html! { (units::utc(run.started_unix_ns)) " UTC" }))
                (fact("Duration", html! { (duration(run.duration_ns)) }))
                @if let Some(sha) = &run.git_sha {
                    (fact("Commit", commit(sha, run.git_branch.as_deref())))
                }
                (fact("Machine", machine(data)))
                (fact("Run", html! { span class="mono" { bdi { (text::label(&run.run_id)) } } }))
                @if let Some(source) = &run.replay_of {
                    @let id = html! { span class="mono" { bdi { (text::label(source)) } } };
                    (fact("Replay of", id))
                }
            }
            (settings(data))
        }
    }
}

/// Whether a model stood in for every stage. A prediction must not be taken for what happened.
fn simulated(labels: &str) -> Markup {
    let labels: serde_json::Value = serde_json::from_str(labels).unwrap_or_default();
    html! {
        @if labels[CLOCK_LABEL] == CLOCK_VIRTUAL {
            span class="status" title="A model stood in for every stage: this is a prediction." {
                "\u{25c7} simulated"
            }
        }
    }
}

pub(super) fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// The status as a word after a sign of its own.
pub(super) fn status(status: &str) -> Markup {
    let (class, sign) = match status {
        "finished" => ("ok", "\u{2713}"),
        "recording" => ("open", "\u{25cf}"),
        _ => ("odd", "\u{26a0}"),
    };
    html! {
        span class={ "status " (class) } { (sign) " " bdi { (text::label_or_unnamed(status)) } }
    }
}

fn commit(sha: &str, branch: Option<&str>) -> Markup {
    html! {
        span class="mono" { bdi { (text::id_start(sha, COMMIT_CHARS)) } }
        @if let Some(branch) = branch { " on " bdi { (text::label(branch)) } }
    }
}

fn machine(data: &ReportData) -> Markup {
    let run = &data.run;
    html! {
        bdi { (text::label_or_unnamed(&run.host)) }
        span class="dim" {
            @if !run.cpu.is_empty() { ", " bdi { (text::label(&run.cpu)) } }
            @if run.cpus > 0 { ", " (plural(u64::from(run.cpus.unsigned_abs()), "CPU")) }
            @if run.memory_bytes > 0 { ", " (units::bytes(run.memory_bytes)) }
            @if !run.os.is_empty() { ", " bdi { (text::label(&run.os)) } }
        }
    }
}

fn settings(data: &ReportData) -> Markup {
    let run = &data.run;
    let groups = [
        ("Settings", text::object_members(&run.settings)),
        ("Labels", text::object_members(&run.labels)),
    ];
    let about = [
        ("Content kept", Some(run.capture.clone()).filter(|capture| !capture.is_empty())),
        ("Seed", run.seed.map(|seed| seed.to_string())),
        ("Workload", run.workload.clone()),
        ("Machine key", Some(run.machine_key.clone()).filter(|key| !key.is_empty())),
        ("Recorded by", Some(format!("retake {}", run.recorder_version))),
    ];
    html! {
        details class="fold settings" {
            summary { "Settings and provenance" }
            div class="columns" {
                dl class="pairs" {
                    @for (name, value) in about {
                        @if let Some(value) = value {
                            dt { (name) } dd class="mono" { bdi { (text::label(&value)) } }
                        }
                    }
                }
                @for (title, members) in groups {
                    @if !members.is_empty() {
                        dl class="pairs" {
                            @for (name, value) in members.iter().take(MEMBERS_MAX) {
                                dt { bdi { (text::label(name)) } }
                                dd class="mono" { bdi { (text::label(value)) } }
                            }
                            @if members.len() > MEMBERS_MAX {
                                dt { (title) } dd {
                                    (count((members.len() - MEMBERS_MAX) as u64)) " more"
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is odd about the data: quiet when nothing is, loud when something is.
pub(super) fn quality(facts: &Facts<'_>) -> Markup {
    let oddities = oddities(facts.data);
    html! {
        @if oddities.is_empty() {
            p class="notice" {
                span class="okay" { "\u{2713}" }
                " Complete data: no event was dropped, no span is missing or unfinished."
            }
        } @else {
            section class="notice loud" aria-label="Data quality" {
                p { b { "\u{26a0} Read the figures with care." } }
                ul { @for oddity in &oddities { li { (oddity) } } }
            }
        }
    }
}

fn oddities(data: &ReportData) -> Vec<Markup> {
    let (quality, run) = (&data.quality, &data.run);
    let mut found = Vec::new();
    match run.status.as_str() {
        "finished" => {}
        "recording" => {
            found.push(html! { "The run is still being recorded; this is what had arrived." })
        }
        "interrupted" => found
            .push(html! { "The run was interrupted: the application ended before it said so." }),
        "recovered" => found.push(
            html! { "The run was recovered after a crash; its last moments may be missing." },
        ),
        other => {
            found.push(html! { "The run has an unknown status: " bdi { (text::label(other)) } "." })
        }
    }
    if quality.dropped_events > 0 {
        let offered = units::float(run.events_offered.max(1).unsigned_abs());
        let share = units::float(quality.dropped_events) / offered;
        found.push(html! {
            b { (plural(quality.dropped_events, "event")) " dropped" }
            " by the recorder (" (units::percent_words(share)) " of those offered): "
            "counts and sums are too low."
        });
    }
    if let Some([metrics, spans]) = data.breakdown.disputed_tokens() {
        found.push(html! {
            "The program's own metrics count " (units::signed_count(metrics.input)) " input and "
            (units::signed_count(metrics.output)) " output tokens, its spans " (units::signed_count(spans.input))
            " and " (units::signed_count(spans.output)) ": spans are missing, or calls without counts."
        });
    }
    let counts = [
        (
            quality.lost_spans,
            "span",
            "named as a parent but never recorded, so their own time is missing.",
        ),
        (quality.orphans, "span", "without their parent, which was never recorded."),
        (quality.unfinished, "span", "whose end was never seen; they count up to the last event."),
    ];
    for (number, noun, meaning) in counts {
        if number > 0 {
            found.push(html! { b { (plural(number, noun)) } " " (meaning) });
        }
    }
    let covered = ["orphan", "unfinished"];
    for (flag, rows) in
        quality.flags.iter().filter(|(flag, _)| !covered.contains(&flag.as_str())).take(FLAGS_MAX)
    {
        found.push(html! { b { (plural(*rows, "span")) } " " (flag_meaning(flag)) });
    }
    found
}

fn flag_meaning(flag: &str) -> Markup {
    let known = match flag {
        "duplicate" => "arrived more than once.",
        "clock_skew" => "disagree with their parent about the time, so clocks differ.",
        "end_before_start" => "ended before they started; they count as taking no time.",
        "truncated" => "were cut at a size limit.",
        "stream_extended" => "last until a token that came after they had ended.",
        "bad_time" => "stated a time that cannot be, which is replaced.",
        "bad_tokens" => "stated a token count that is none, which is left out.",
        "tokens_disagree" => "state more tokens than the calls below them.",
        _ => return html! { "flagged " span class="mono" { bdi { (text::label(flag)) } } "." },
    };
    html! { (known) }
}

/// Characters of a commit that are shown; as many as git shows.
const COMMIT_CHARS: usize = 12;
/// Settings shown.
const MEMBERS_MAX: usize = 120;
/// Flags shown.
const FLAGS_MAX: usize = 16;
