//! Retrieval: what was found, how it scored by rank, and what reranking did to the order.

use maud::{Markup, html};

use super::facts::Facts;
use super::scale::{decimal, percent_of};
use super::text;
use super::units::{self, count, float, length, number, plural};
use crate::model::{RankScores, Reranking, Retrieval};

/// The section; empty when nothing was retrieved.
pub(super) fn section(facts: &Facts<'_>) -> Markup {
    let Some(found) = &facts.data.retrieval else { return html! {} };
    html! {
        section id="retrieval" aria-labelledby="retrieval-h" {
            h2 id="retrieval-h" { "Retrieval" (super::tables::sql_link(facts, "retrieval")) }
            dl class="figures" { (figures(found)) }
            @if !found.ranks.is_empty() || found.reranking.is_some() {
                div class="charts" {
                    @for group in groups(&found.ranks).iter().take(GROUPS_MAX) {
                        (scores(facts, group))
                    }
                    @if let Some(reranking) = &found.reranking { (moves(reranking)) }
                }
            }
            (sources(found))
        }
    }
}

fn figures(found: &Retrieval) -> Markup {
    let share = |part: u64, whole: u64| units::percent_words(float(part) / float(whole.max(1)));
    html! {
        @if found.retrievals > 0 {
            (figure("Retrievals", &count(found.retrievals), None))
            (figure(
                "Found nothing",
                &count(found.empty),
                Some(share(found.empty, found.retrievals))
            ))
        }
        @if let Some(reranking) = &found.reranking {
            (figure(
                "Another first after reranking",
                &count(reranking.first_changed),
                Some(format!("{} of {}", share(reranking.first_changed, reranking.rerankings), plural(reranking.rerankings, "reranking")))
            ))
        }
        @for (name, mean, labelled) in &found.quality {
            (figure(&quality_name(name), &format!("{mean:.3}"), Some(format!("of {} labelled", count(*labelled)))))
        }
    }
}

fn figure(name: &str, value: &str, beside: Option<String>) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { (value) @if let Some(beside) = beside { span class="was" { (beside) } } }
        }
    }
}

/// How people write it.
fn quality_name(name: &str) -> String {
    match name {
        "hit" => "Hit rate".to_owned(),
        "recall" => "Recall".to_owned(),
        "precision" => "Precision".to_owned(),
        "mrr" => "MRR".to_owned(),
        "ap" => "Average precision".to_owned(),
        "ndcg" => "nDCG".to_owned(),
        "answer_match" => "Answers that match".to_owned(),
        other => text::label(other),
    }
}

/// The ranks of each stage and role that has scores.
fn groups(ranks: &[RankScores]) -> Vec<&[RankScores]> {
    ranks
        .chunk_by(|a, b| (&a.stage, &a.role) == (&b.stage, &b.role))
        .filter(|group| group.iter().any(|rank| rank.scores.is_some()))
        .collect()
}

/// Scores by rank: the median as a dot, 10th to 90th percentile as a line.
fn scores(facts: &Facts<'_>, group: &[RankScores]) -> Markup {
    let Some(first) = group.first() else { return html! {} };
    let all = || group.iter().filter_map(|rank| rank.scores).flatten();
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| {
        (low.min(score), high.max(score))
    });
    // Equal scores stand in the middle; an axis needs some length.
    let room = ((high - low) * 0.06).max(high.abs().max(low.abs()) * 0.005).max(1e-9);
    let (low, high) = (low - room, high + room);
    let y = |score: f64| TOP + (1.0 - (score - low) / (high - low)) * PLOT;
    let last = group.iter().map(|rank| rank.rank).max().unwrap_or(0).max(1);
    let x = |rank: i64| {
        let share = units::ns_float(rank) / units::ns_float(last);
        percent_of(0.09 + share * 0.88)
    };
    let class = facts.palette.class(&first.stage);
    let said = match first.role.as_str() {
        "rerank_output" => "Scores after reranking",
        _ => "Scores of what was retrieved",
    };
    html! {
        figure {
            figcaption {
                b { (said) } " by rank, " (facts.palette.name(&first.stage))
            }
            svg class="chart" width="100%" height=(decimal(TOP + PLOT + 24.0)) role="img"
                aria-label=(said) {
                title { (said) }
                desc { (description(group)) }
                @for share in [0.0, 0.5, 1.0] {
                    @let score = low + room + share * (high - low - 2.0 * room);
                    line class="grid" x1="7%" x2="100%" y1=(decimal(y(score))) y2=(decimal(y(score))) {}
                    text class="tick" x="0" y=(decimal(y(score) + 4.0)) { (number(score)) }
                }
                @for rank in group {
                    @if let Some([p10, p50, p90]) = rank.scores {
                        line class={ (class) " whisker" } x1=(x(rank.rank)) x2=(x(rank.rank))
                            y1=(decimal(y(p90))) y2=(decimal(y(p10))) {}
                        circle class=(class) cx=(x(rank.rank)) cy=(decimal(y(p50))) r="4" {
                            title {
                                "Rank " (rank.rank.saturating_add(1)) ": median " (number(p50)) ", 10th to 90th percentile "
                                (number(p10)) " to " (number(p90)) ", " (plural(rank.documents, "document"))
                            }
                        }
                    }
                    @if rank.rank == 0 || (rank.rank.saturating_add(1)) % 5 == 0 || group.len() <= 10 {
                        text class="tick" x=(x(rank.rank)) y=(decimal(TOP + PLOT + 18.0))
                            text-anchor="middle" { (rank.rank.saturating_add(1)) }
                    }
                }
            }
        }
    }
}

fn description(group: &[RankScores]) -> String {
    let said: Vec<String> = group
        .iter()
        .filter_map(|rank| Some((rank.rank, rank.scores?)))
        .take(5)
        .map(|(rank, [_, median, _])| {
            format!("rank {}: median {}", rank.saturating_add(1), number(median))
        })
        .collect();
    said.join(", ")
}

/// From which rank to which: rows are ranks after, columns ranks before.
fn moves(reranking: &Reranking) -> Markup {
    let side = reranking.moves.len();
    let most = reranking.moves.iter().flatten().copied().max().unwrap_or(0).max(1);
    let cell = 1.0 / length(side.max(1));
    let height = CELL * length(side);
    let [up, same, down] = reranking.moved;
    html! {
        figure {
            figcaption {
                b { "What reranking did" } " "
                (plural(up, "document")) " moved up, " (count(same)) " stayed, " (count(down)) " moved down, "
                (count(reranking.dropped)) " were left out"
            }
            svg class="chart moves" width="100%" height=(decimal(height + 40.0)) role="img"
                aria-label="Documents by rank before and after reranking" {
                title { "Documents by rank before and after reranking" }
                text class="tick" x="8%" y="11" { "rank before \u{2192}, rank after \u{2193}" }
                svg x="8%" y="34" width="92%" height=(decimal(height)) {
                    @for (after, line) in reranking.moves.iter().enumerate() {
                        @for (before, &documents) in line.iter().enumerate() {
                            rect class={ "heat " (heat(documents, most)) } x=(percent_of(length(before) * cell))
                                y=(decimal(CELL * length(after))) width=(percent_of(cell)) height=(decimal(CELL)) {
                                title {
                                    (plural(documents, "document")) " from rank " (rank_text(before, side))
                                    " to rank " (rank_text(after, side))
                                }
                            }
                        }
                    }
                }
                @for at in 0..side {
                    text class="tick" x=(percent_of(0.08 + 0.92 * (length(at) + 0.5) * cell)) y="28"
                        text-anchor="middle" { (rank_text(at, side)) }
                    text class="tick" x="6.5%" y=(decimal(34.0 + CELL * (length(at) + 0.5) + 4.0))
                        text-anchor="end" { (rank_text(at, side)) }
                }
            }
        }
    }
}

/// A rank as people count; the last of a full matrix stands for all further ones.
fn rank_text(at: usize, side: usize) -> String {
    if at + 1 == side && side == SIDE_MAX { format!("{}+", at + 1) } else { (at + 1).to_string() }
}

fn heat(documents: u64, most: u64) -> &'static str {
    // By the square root: the diagonal would drown everything else.
    match (float(documents) / float(most)).sqrt() {
        _ if documents == 0 => "h0",
        share if share < 0.2 => "h1",
        share if share < 0.4 => "h2",
        share if share < 0.6 => "h3",
        share if share < 0.8 => "h4",
        _ => "h5",
    }
}

fn sources(found: &Retrieval) -> Markup {
    let most = found.sources.first().map_or(1, |(_, documents)| (*documents).max(1));
    html! {
        @if found.sources.len() > 1 {
            details class="fold" {
                summary { "Where documents came from: " (plural(found.sources_all, "source")) }
                div class="scroll" role="region" aria-label="Sources" tabindex="0" {
                    table {
                        thead { tr {
                            th scope="col" { "Source" }
                            th scope="col" class="num" { "Retrieved" }
                            th scope="col" class="wide" {}
                        } }
                        tbody {
                            @for (source, documents) in &found.sources {
                                tr {
                                    th scope="row" { bdi { (text::label_or_unnamed(source)) } }
                                    td class="num" { (count(*documents)) }
                                    td class="wide" {
                                        svg class="share" width="100%" height="14" aria-hidden="true" {
                                            rect class="ink-bar" y="3" height="8"
                                                width=(percent_of(float(*documents) / float(most))) {}
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                @if found.sources_all > found.sources.len() as u64 {
                    p class="hint" {
                        "The most frequent of " (plural(found.sources_all, "source")) "."
                    }
                }
            }
        }
    }
}

/// Stages with a picture of their scores.
const GROUPS_MAX: usize = 4;
/// Side of a full matrix of moves.
const SIDE_MAX: usize = 11;
/// Room above the scores, pixels.
const TOP: f64 = 10.0;
/// Height of the scores, pixels.
const PLOT: f64 = 160.0;
/// Height of a cell, pixels.
const CELL: f64 = 17.0;
