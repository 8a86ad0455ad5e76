//! Totals, budgets and resets, by hand-made events; `oracle` has the random ones.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use retake_schemas::event::{Annotated, Level, RunStatus, SpanClosed, SpanOpened, Status};
use retake_schemas::event::{SpanUpdated, TokensSource, Usage};
use retake_schemas::settings::BudgetTokens;
use retake_schemas::{Attributes, EventBody, EventSeq, SpanId, SpanKey, TraceId, Value};

use super::*;
use crate::recorder::RecorderBuilder;
use crate::store::Store;

pub(super) fn key(n: u64) -> SpanKey {
    SpanKey { trace_id: TraceId::from_bytes([7; 16]), span_id: SpanId::from_u64(n) }
}

pub(super) fn event(body: EventBody) -> Event {
    Event { seq: EventSeq(0), time_unix_ns: 0, body }
}

pub(super) fn attributes<const N: usize>(pairs: [(&'static str, Value); N]) -> Attributes {
    pairs.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

pub(super) fn open(n: u64, parent: Option<u64>, attributes: Attributes) -> EventBody {
    EventBody::SpanOpened(Box::new(SpanOpened {
        span: key(n),
        parent: parent.map(SpanId::from_u64),
        name: "s".to_owned(),
        target: "app".to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes,
    }))
}

pub(super) fn update(n: u64, attributes: Attributes) -> EventBody {
    EventBody::SpanUpdated(SpanUpdated { span: key(n), attributes })
}

pub(super) fn usage(
    n: u64,
    source: TokensSource,
    input: Option<i64>,
    output: Option<i64>,
) -> EventBody {
    let span = key(n);
    let (cache_read, cache_write, reasoning) = (None, None, None);
    EventBody::Usage(Usage { span, source, input, output, cache_read, cache_write, reasoning })
}

pub(super) fn close(n: u64) -> EventBody {
    let status = Status::Ok;
    EventBody::SpanClosed(SpanClosed { span: key(n), busy_ns: None, status, message: None })
}

fn log(span: Option<u64>, attributes: Attributes) -> EventBody {
    EventBody::Annotated(Annotated {
        span: span.map(key),
        level: Level::Info,
        name: "log".to_owned(),
        target: "app".to_owned(),
        message: None,
        attributes,
    })
}

/// A whole call of a model: input and output tokens, as its provider reports them.
fn call(n: u64, parent: Option<u64>, model: &'static str, tokens: (i64, i64)) -> [EventBody; 3] {
    let (input, output) = tokens;
    let source = TokensSource::Provider;
    let asked = attributes([("gen_ai.request.model", model.into())]);
    [open(n, parent, asked), usage(n, source, Some(input), Some(output)), close(n)]
}

fn give(counter: &mut TokenCounter, bodies: impl IntoIterator<Item = EventBody>) {
    let events: Vec<Event> = bodies.into_iter().map(event).collect();
    counter.handle(&events).unwrap();
}

fn counter() -> (TokenCounter, TokenUsage) {
    TokenCounter::new(Vec::new(), |violation| panic!("no budget is set: {violation}"))
}

/// Calls, input and output of all sources.
fn sums(totals: &TokenTotals) -> (u64, u64, u64) {
    let total = totals.overall.total();
    (total.calls, total.input, total.output)
}

#[test]
fn every_spelling_is_one_call_and_sources_stay_apart() {
    let (mut counter, usage_of_run) = counter();
    let spellings = [
        attributes([
            ("gen_ai.usage.input_tokens", 10_i64.into()),
            ("gen_ai.usage.output_tokens", "2".into()),
            ("gen_ai.usage.cache_read_input_tokens", 4_i64.into()),
            ("gen_ai.request.model", "small".into()),
            ("gen_ai.response.model", "small-2026".into()),
        ]),
        attributes([
            ("llm.token_count.prompt", 20_i64.into()),
            ("llm.token_count.completion", 3_i64.into()),
            ("llm.token_count.completion_details.reasoning", 1_i64.into()),
            ("llm.model_name", "small".into()),
            ("retake.tokens.source", "tokenizer".into()),
        ]),
    ];
    for (attributes, n) in spellings.into_iter().zip(1..) {
        // Stated at the begin, again later, and once more in a log line: still one call.
        let stated = attributes.clone();
        let again = [open(n, None, attributes), update(n, stated.clone()), log(Some(n), stated)];
        give(&mut counter, again.into_iter().chain([close(n)]));
    }
    let estimated = usage(3, TokensSource::Estimate, Some(30), None);
    give(&mut counter, [open(3, None, Vec::new()), estimated, close(3)]);
    let totals = usage_of_run.snapshot();
    let counts = |calls, input, output| Counts { calls, input, output, ..Counts::default() };
    let provider = Counts { cache_read: 4, ..counts(1, 10, 2) };
    let tokenizer = Counts { reasoning: 1, ..counts(1, 20, 3) };
    let estimate = counts(1, 30, 0);
    assert_eq!(totals.overall, BySource { provider, tokenizer, estimate });
    let of_model = |name: &str| totals.models.get(name).unwrap().total();
    assert_eq!((of_model("small-2026"), of_model("small")), (provider, tokenizer));
    assert_eq!((totals.models.len(), totals.untracked), (2, Untracked::default()));
}

#[test]
fn a_true_zero_is_a_call_and_a_negative_count_is_none() {
    let (mut counter, usage_of_run) = counter();
    let zero = attributes([("gen_ai.usage.input_tokens", 0_i64.into())]);
    let negative = attributes([("gen_ai.usage.input_tokens", (-5_i64).into())]);
    let cached_only = attributes([("gen_ai.usage.cache_read_input_tokens", 5_i64.into())]);
    give(&mut counter, [open(1, None, zero), close(1)]);
    give(&mut counter, [open(2, None, negative), close(2)]);
    give(&mut counter, [open(3, None, cached_only), close(3)]);
    assert_eq!(sums(&usage_of_run.snapshot()), (1, 0, 0));
}

/// Scenario: an agent's span repeats the sum of its calls, and its root repeats it once more.
/// Guarantees: tokens are counted once, also when a parent ends before its last child.
#[test]
fn spans_that_repeat_the_sum_of_their_children_do_not_count() {
    let (mut counter, usage_of_run) = counter();
    let sum = || attributes([("gen_ai.usage.input_tokens", 30_i64.into())]);
    give(&mut counter, [open(1, None, sum()), open(2, Some(1), sum())]);
    give(&mut counter, call(3, Some(2), "m", (10, 1)));
    give(&mut counter, [open(4, Some(2), Vec::new()), close(2), close(1)]);
    assert_eq!(sums(&usage_of_run.snapshot()), (1, 10, 1), "parents wait for their last child");
    give(&mut counter, [usage(4, TokensSource::Provider, Some(20), Some(2)), close(4)]);
    assert_eq!(sums(&usage_of_run.snapshot()), (2, 30, 3));
    // A call below which nothing counts is itself the leaf.
    give(&mut counter, [open(5, None, sum()), open(6, Some(5), Vec::new()), close(6), close(5)]);
    assert_eq!(sums(&usage_of_run.snapshot()), (3, 60, 3));
    let mut left = Vec::new();
    counter.calls.end_all(&mut left);
    assert_eq!(left, []);
}

#[test]
fn spans_open_across_a_reset_count_once() {
    let (mut counter, usage_of_run) = counter();
    let sum = attributes([("gen_ai.usage.input_tokens", 10_i64.into())]);
    give(&mut counter, [open(1, None, sum)]);
    give(&mut counter, call(2, Some(1), "m", (10, 1)));
    give(&mut counter, [open(3, None, Vec::new())]);
    assert_eq!(sums(&usage_of_run.reset()), (1, 10, 1));
    let late = usage(3, TokensSource::Provider, Some(5), None);
    give(&mut counter, [close(1), late, close(3)]);
    let totals = usage_of_run.reset();
    assert_eq!(sums(&totals), (1, 5, 0), "the parent remembers; the open call is in this period");
    assert_eq!(usage_of_run.snapshot(), TokenTotals::default());
}

#[test]
fn what_cannot_be_attributed_is_reported() {
    let (mut counter, usage_of_run) = counter();
    let stated = || attributes([("gen_ai.usage.output_tokens", 5_i64.into())]);
    let source = TokensSource::Provider;
    give(&mut counter, call(1, None, "m", (1, 1)));
    give(&mut counter, [usage(1, source, Some(9), None), update(1, stated())]);
    give(&mut counter, [update(8, attributes([("app.x", 1_i64.into())])), close(9)]);
    assert_eq!(usage_of_run.snapshot().untracked, Untracked { spans: 0, statements: 2 });
    give(&mut counter, [log(None, stated()), log(None, Vec::new())]);
    assert_eq!(sums(&usage_of_run.snapshot()), (2, 1, 6), "a log line outside any span is a call");
}

/// Scenario: more spans are open than are followed, as after a lag that swallowed their ends.
/// Guarantees: memory is bounded, the oldest give way and are reported, the rest stays exact.
#[test]
fn the_oldest_spans_give_way_and_are_reported() {
    let mut calls = Calls::new(3);
    let mut ended = Vec::new();
    let stated = || attributes([("gen_ai.usage.input_tokens", 5_i64.into())]);
    calls.apply(&open(1, None, stated()), &mut ended);
    calls.apply(&open(2, None, Vec::new()), &mut ended);
    // Has ended, and waits for a child whose end is lost.
    calls.apply(&open(3, None, stated()), &mut ended);
    calls.apply(&open(4, Some(3), Vec::new()), &mut ended);
    calls.apply(&close(3), &mut ended);
    assert_eq!(ended, []);
    calls.apply(&open(5, None, stated()), &mut ended);
    calls.apply(&open(6, None, stated()), &mut ended);
    assert_eq!(ended.len(), 1, "decided without its child");
    calls.apply(&close(5), &mut ended);
    calls.apply(&close(6), &mut ended);
    assert_eq!(ended.len(), 3);
    assert_eq!(calls.take_untracked(), Untracked { spans: 1, statements: 0 });
}

#[test]
fn a_cycle_of_parents_ends() {
    let (mut counter, usage_of_run) = counter();
    let stated = || attributes([("gen_ai.usage.input_tokens", 5_i64.into())]);
    give(&mut counter, [open(1, Some(2), stated()), open(2, Some(1), stated())]);
    give(&mut counter, [open(3, Some(3), stated()), close(3), close(2), close(1)]);
    counter.finish().unwrap();
    let (calls, _, _) = sums(&usage_of_run.snapshot());
    assert_eq!(calls, 2, "one of the cycle, and the span that is its own parent");
}

#[test]
fn names_of_models_are_bounded() {
    let (mut counter, usage_of_run) = counter();
    for n in 0..(MODELS_MAX as u64 + 50) {
        let stated = attributes([
            ("gen_ai.usage.input_tokens", 1_i64.into()),
            ("gen_ai.response.model", format!("model {n}").into()),
        ]);
        give(&mut counter, [open(n, None, stated), close(n)]);
    }
    let totals = usage_of_run.snapshot();
    assert_eq!(totals.models.len(), MODELS_MAX + 1);
    assert_eq!(totals.models.get(OTHER_MODELS).unwrap().total().calls, 50);
}

fn budget(model: Option<&str>, tokens: BudgetTokens, limit_tokens: u64) -> Budget {
    let on_exceeded = if model.is_some() { OnExceeded::Error } else { OnExceeded::Warn };
    Budget { model: model.map(str::to_owned), tokens, limit_tokens, on_exceeded }
}

/// Scenario: calls use up a budget over all models that warns, and one of a model that is an error.
/// Guarantees: each crossing is told once until the reset, and only an error raises the flag.
#[test]
fn a_crossed_budget_is_told_once_until_the_reset() {
    let budgets = vec![
        budget(None, BudgetTokens::Total, 20),
        budget(Some("big"), BudgetTokens::Output, 3),
        budget(Some("unused"), BudgetTokens::Input, 1),
    ];
    let (tell, told) = mpsc::sync_channel(16);
    let on_violation = move |violation: &Violation| tell.send(violation.to_string()).unwrap();
    let (mut counter, usage_of_run) = TokenCounter::new(budgets, on_violation);
    let told = || told.try_iter().collect::<Vec<_>>();

    give(&mut counter, call(1, None, "small", (15, 5)));
    assert_eq!(told(), Vec::<String>::new(), "at the limit is within it");
    give(&mut counter, call(2, None, "small", (1, 0)));
    give(&mut counter, call(3, None, "small", (1, 0)));
    assert_eq!(told(), ["21 tokens used, the budget allows 20"]);
    assert!(!usage_of_run.is_exceeded(), "a warning stops nobody");

    // The model answers under another name than it was asked for.
    let answered = attributes([("gen_ai.response.model", "big-2026-01".into())]);
    let [open, usage_event, close] = call(4, None, "big", (0, 4));
    give(&mut counter, [open, update(4, answered), usage_event, close]);
    assert_eq!(told(), ["4 output tokens used by model big, the budget allows 3"]);
    assert!(usage_of_run.is_exceeded());
    assert_eq!(usage_of_run.snapshot().violations.len(), 2);

    let totals = usage_of_run.reset();
    assert_eq!(totals.violations.len(), 2);
    assert!(!usage_of_run.is_exceeded() && usage_of_run.snapshot().violations.is_empty());
    give(&mut counter, call(5, None, "big", (0, 4)));
    assert_eq!(told().len(), 1, "budgets start anew");
}

/// Scenario: one thread counts, one reads, one resets.
/// Guarantees: every call is in exactly one period, and no reader sees half a call.
#[test]
fn resets_and_reads_beside_counting_lose_nothing() {
    const CALLS: u64 = 20_000;
    let (mut counter, usage_of_run) = counter();
    let is_done = Arc::new(AtomicBool::new(false));
    let reader = thread::scope(|scope| {
        let resets = scope.spawn(|| {
            let mut sum = Counts::default();
            while !is_done.load(Ordering::Acquire) {
                sum.add(&usage_of_run.reset().overall.total());
                thread::yield_now();
            }
            sum.add(&usage_of_run.reset().overall.total());
            sum
        });
        let reads = scope.spawn(|| {
            let mut reads = 0_u64;
            while !is_done.load(Ordering::Acquire) {
                let totals = usage_of_run.snapshot();
                let total = totals.overall.total();
                assert_eq!((total.input, total.output), (3 * total.calls, total.calls));
                let of_model = totals.models.get("m").copied().unwrap_or_default();
                assert_eq!(of_model.total(), total);
                reads += 1;
                thread::yield_now();
            }
            reads
        });
        for n in 0..CALLS {
            give(&mut counter, call(n, None, "m", (3, 1)));
        }
        is_done.store(true, Ordering::Release);
        let counted = resets.join().unwrap();
        assert_eq!((counted.calls, counted.input, counted.output), (CALLS, 3 * CALLS, CALLS));
        reads.join().unwrap()
    });
    assert!(reader > 0);
}

/// Scenario: the callback blocks, so the handler falls behind until its queue is full.
/// Guarantees: the run goes on, the loss is reported, and what was delivered is counted exactly.
#[test]
fn a_handler_that_lags_reports_it_and_stays_exact_about_the_rest() {
    const CALLS: u64 = 320;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let (release, released) = mpsc::sync_channel::<()>(1);
    let block = move |_: &Violation| released.recv_timeout(Duration::from_secs(60)).unwrap();
    let budgets = vec![budget(None, BudgetTokens::Input, 1)];
    let usage_of_run = count_tokens(recorder.dispatcher(), budgets, block).unwrap();
    for n in 0..CALLS {
        for body in call(n, None, "m", (2, 1)) {
            recorder.dispatcher().emit(&body);
        }
        // One batch each: the queue has room for 256.
        recorder.flush().unwrap();
    }
    release.send(()).unwrap();
    let summary = recorder.finish(RunStatus::Finished);
    let report = summary.handlers.iter().find(|report| report.name == "tokens").unwrap();
    assert!(report.lagged > 0, "{report:?}");
    assert_eq!((report.delivered + report.lagged, report.failures), (3 * CALLS, 0));
    let totals = usage_of_run.snapshot();
    assert_eq!(3 * totals.overall.total().calls, report.delivered);
    assert_eq!(summary.dropped, 0);
}
