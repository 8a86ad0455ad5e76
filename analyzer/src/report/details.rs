//! Spans one by one, for who wants to read them: what each was, was given and gave back.

use std::collections::BTreeMap;

use maud::{Markup, html};
use retake_schemas::tables::{DocumentRow, SpanRow};

use super::palette::Palette;
use super::text;
use super::units::{self, duration, signed_count};
use crate::model::{KeptText, TraceNode, TraceTree};

/// What is known of a trace's spans besides their rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Texts by digest.
    pub(super) texts: &'a BTreeMap<String, KeptText>,
    /// Documents by span.
    pub(super) documents: &'a BTreeMap<String, Vec<DocumentRow>>,
}

/// How much of each span is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Only spans with texts or documents, and only these.
    Texts,
    /// Every span, with everything recorded of it.
    Everything,
}

/// A fold per span, in the order of the tree; `bytes_left` is what may still be written.
pub(super) fn spans(
    palette: &Palette<'_>,
    tree: &TraceTree,
    known: Known<'_>,
    extent: Extent,
    bytes_left: &mut usize,
) -> Markup {
    let mut folds = Vec::new();
    let mut left_out = 0_u64;
    for node in &tree.nodes {
        if extent == Extent::Texts && !has_texts(&node.span, known) {
            continue;
        }
        if *bytes_left == 0 || folds.len() >= SPANS_MAX {
            left_out += 1;
            continue;
        }
        let fold = fold(palette, node, known, extent);
        *bytes_left = bytes_left.saturating_sub(fold.0.len());
        folds.push(fold);
    }
    html! {
        @for fold in &folds { (fold) }
        @if left_out > 0 {
            p class="hint" { (units::plural(left_out, "more span")) " not shown here." }
        }
    }
}

fn has_texts(span: &SpanRow, known: Known<'_>) -> bool {
    let has = |digest: &Option<String>| {
        digest.as_deref().is_some_and(|digest| known.texts.contains_key(digest))
    };
    has(&span.input_ref) || has(&span.output_ref) || known.documents.contains_key(&span.span_id)
}

fn fold(palette: &Palette<'_>, node: &TraceNode, known: Known<'_>, extent: Extent) -> Markup {
    let span = &node.span;
    html! {
        details class="fold span" {
            summary {
                (palette.name(&span.stage))
                @if span.name != span.stage {
                    span class="dim" { bdi { (text::label_or_unnamed(&span.name)) } }
                }
                span class="num" { (duration(span.duration_ns)) }
                @if span.output_tokens.is_some() || span.input_tokens.is_some() {
                    span class="dim" {
                        (units::count_or_absent(span.input_tokens)) " \u{2192} "
                        (units::count_or_absent(span.output_tokens)) " tokens"
                    }
                }
                @if span.status != "ok" { span class="bad" { "\u{2715} " (text::label(&span.status)) } }
            }
            @if extent == Extent::Everything { (facts(node)) }
            @if let Some(message) = &span.error_message {
                h4 { "Error" }
                pre tabindex="0" { code { (text::block(message)) } }
            }
            (kept("Given", span.input_ref.as_deref(), known))
            (kept("Gave back", span.output_ref.as_deref(), known))
            @if let Some(documents) = known.documents.get(&span.span_id) {
                (found(documents, known))
            }
            @if extent == Extent::Everything { (attributes(span)) }
        }
    }
}

/// What has a column of its own, where it says something.
fn facts(node: &TraceNode) -> Markup {
    let span = &node.span;
    let whole = |value: Option<i64>| value.map(signed_count);
    let rows: [(&str, Option<String>); 24] = [
        ("Kind", Some(span.kind.clone())),
        ("Own work", Some(duration(node.self_ns))),
        ("On the critical path", node.is_critical.then(|| "yes".to_owned())),
        ("Started", Some(format!("{} UTC", units::utc(span.start_unix_ns)))),
        ("Waited before", span.queue_ns.map(duration)),
        ("First token after", span.ttft_ns.map(duration)),
        ("Model asked for", span.model_request.clone()),
        ("Model that answered", span.model_response.clone()),
        ("Provider", span.provider.clone()),
        ("Input tokens", whole(span.input_tokens)),
        ("Output tokens", whole(span.output_tokens)),
        ("Read from the provider's cache", whole(span.cache_read_tokens)),
        ("Spent on reasoning", whole(span.reasoning_tokens)),
        ("Counted by", span.input_tokens.map(|_| span.tokens_source.clone())),
        ("Cost", span.cost_usd.map(units::usd)),
        ("Temperature", span.temperature.map(units::number)),
        ("Stopped because", span.finish_reason.clone()),
        ("Batch", whole(span.batch_size)),
        ("Documents", whole(span.document_count)),
        ("Retries", whole(span.retries)),
        ("Tool", span.tool_name.clone()),
        ("Request", span.request_id.clone()),
        ("Session", span.session_id.clone()),
        ("Error class", span.error_type.clone()),
    ];
    let more = [
        ("Odd", span.flags.clone()),
        ("Thread", span.thread.clone()),
        ("Instrumented at", source(span)),
        ("Span", Some(span.span_id.clone())),
    ];
    html! {
        dl class="pairs" {
            @for (name, value) in rows.into_iter().chain(more) {
                @if let Some(value) = value.filter(|value| !value.is_empty()) {
                    dt { (name) } dd { bdi { (text::label(&value)) } }
                }
            }
        }
    }
}

fn source(span: &SpanRow) -> Option<String> {
    let file = span.source_file.as_deref()?;
    Some(span.source_line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
}

fn kept(title: &str, digest: Option<&str>, known: Known<'_>) -> Markup {
    let kept = digest.and_then(|digest| known.texts.get(digest));
    html! {
        @if let Some(kept) = kept {
            h4 { (title) " " span class="dim" { (units::bytes(kept.bytes)) } }
            pre class="said" tabindex="0" { code { (text::block(&kept.content)) } }
            @if kept.is_truncated {
                p class="hint" { "The recorder kept the beginning only." }
            }
        }
    }
}

fn found(documents: &[DocumentRow], known: Known<'_>) -> Markup {
    html! {
        div class="scroll" role="region" aria-label="Documents" tabindex="0" {
            table class="plain" {
                thead { tr {
                    th scope="col" { "Document" }
                    th scope="col" { "Role" }
                    th scope="col" class="num" { "Rank" }
                    th scope="col" class="num" { "Score" }
                    th scope="col" { "Source" }
                    th scope="col" { "Text" }
                } }
                tbody {
                    @for row in documents.iter().take(DOCUMENTS_MAX) {
                        tr {
                            th scope="row" class="mono" { bdi { (text::one_line(&row.document_id, ID_CHARS)) } }
                            td { (text::label(&row.role)) }
                            td class="num" { (row.rank.saturating_add(1)) }
                            td class="num" {
                                (row.score.map_or_else(|| units::ABSENT.to_owned(), units::number))
                            }
                            td { bdi { (text::label(row.source.as_deref().unwrap_or_default())) } }
                            td class="message" {
                                @if let Some(kept) =
                                    row.content_ref.as_deref().and_then(|digest| known.texts.get(digest)) {
                                    bdi { (text::message(&kept.content)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if documents.len() > DOCUMENTS_MAX {
            p class="hint" {
                (units::plural((documents.len() - DOCUMENTS_MAX) as u64, "more document")) " not shown."
            }
        }
    }
}

fn attributes(span: &SpanRow) -> Markup {
    let members = text::object_members(span.attributes.as_deref().unwrap_or_default());
    html! {
        @if !members.is_empty() {
            h4 { "Attributes" }
            dl class="pairs" {
                @for (name, value) in members.iter().take(ATTRIBUTES_MAX) {
                    dt { bdi { (text::label(name)) } }
                    dd class="mono" { bdi { (text::message(value)) } }
                }
            }
        }
    }
}

/// Spans shown one by one.
const SPANS_MAX: usize = 400;
/// Documents shown of a span.
const DOCUMENTS_MAX: usize = 40;
/// Attributes shown of a span.
const ATTRIBUTES_MAX: usize = 60;
/// Characters of a document's id.
const ID_CHARS: usize = 24;
