//! Random spans against a count that could not be simpler: keep everything, decide at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use retake_schemas::event::{RunStatus, TokensSource};
use retake_schemas::tables::SpanRow;
use retake_schemas::{EventBody, Value};

use super::tests::{attributes, close, event, open, update, usage};
use super::*;
use crate::reader::RunReader;
use crate::recorder::RecorderBuilder;
use crate::store::Store;

/// One random step. Numbers choose among the spans open at that moment.
#[derive(Debug, Clone)]
enum Step {
    OpenRoot,
    OpenBelow(usize),
    State(usize, Fact),
    Use(usize, TokensSource, Option<i64>, Option<i64>),
    Close(usize),
}

#[derive(Debug, Clone)]
enum Fact {
    Input(i64),
    FormerInput(i64),
    OutputAsText(i64),
    Request(u8),
    Response(u8),
    IsEstimate,
}

fn step() -> impl Strategy<Value = Step> {
    let tokens = 0..1000_i64;
    let fact = prop_oneof![
        tokens.clone().prop_map(Fact::Input),
        tokens.clone().prop_map(Fact::FormerInput),
        tokens.clone().prop_map(Fact::OutputAsText),
        (0..5_u8).prop_map(Fact::Request),
        (0..5_u8).prop_map(Fact::Response),
        Just(Fact::IsEstimate),
    ];
    let source = prop_oneof![
        Just(TokensSource::Provider),
        Just(TokensSource::Tokenizer),
        Just(TokensSource::None)
    ];
    let count = proptest::option::of(tokens);
    prop_oneof![
        1 => Just(Step::OpenRoot),
        3 => any::<usize>().prop_map(Step::OpenBelow),
        3 => (any::<usize>(), fact).prop_map(|(n, fact)| Step::State(n, fact)),
        1 => (any::<usize>(), source, count.clone(), count)
            .prop_map(|(n, source, input, output)| Step::Use(n, source, input, output)),
        4 => any::<usize>().prop_map(Step::Close),
    ]
}

/// All that was ever said of a span.
#[derive(Debug, Default, Clone)]
struct Naive {
    parent: Option<usize>,
    input: Option<i64>,
    former_input: Option<i64>,
    output: Option<i64>,
    request: Option<u8>,
    response: Option<u8>,
    is_estimate: bool,
    usage: Option<(TokensSource, Option<i64>, Option<i64>)>,
}

/// Turns steps into events, one each, and into what they say.
fn play(steps: &[Step]) -> (Vec<EventBody>, Vec<Naive>) {
    let mut spans: Vec<Naive> = Vec::new();
    let mut alive: Vec<usize> = Vec::new();
    let mut bodies = Vec::new();
    for step in steps {
        // Without an open span every step opens one.
        let step = if alive.is_empty() { &Step::OpenRoot } else { step };
        match step {
            Step::OpenRoot | Step::OpenBelow(_) => {
                let parent = match step {
                    Step::OpenBelow(n) => Some(alive[n % alive.len()]),
                    _ => None,
                };
                bodies.push(open(spans.len() as u64, parent.map(|n| n as u64), Vec::new()));
                alive.push(spans.len());
                spans.push(Naive { parent, ..Naive::default() });
            }
            Step::State(n, fact) => {
                let n = alive[n % alive.len()];
                bodies.push(update(n as u64, attributes([state(&mut spans[n], fact)])));
            }
            Step::Use(n, source, input, output) => {
                let n = alive[n % alive.len()];
                bodies.push(usage(n as u64, *source, *input, *output));
                spans[n].usage = Some((*source, *input, *output));
            }
            Step::Close(n) => {
                let n = alive.remove(n % alive.len());
                bodies.push(close(n as u64));
            }
        }
    }
    (bodies, spans)
}

fn state(span: &mut Naive, fact: &Fact) -> (&'static str, Value) {
    match fact {
        Fact::Input(n) => {
            span.input = Some(*n);
            ("gen_ai.usage.input_tokens", (*n).into())
        }
        Fact::FormerInput(n) => {
            span.former_input = Some(*n);
            ("llm.usage.prompt_tokens", (*n).into())
        }
        Fact::OutputAsText(n) => {
            span.output = Some(*n);
            ("gen_ai.usage.output_tokens", n.to_string().into())
        }
        Fact::Request(n) => {
            span.request = Some(*n);
            ("gen_ai.request.model", format!("model {n}").into())
        }
        Fact::Response(n) => {
            span.response = Some(*n);
            ("gen_ai.response.model", format!("model {n}").into())
        }
        Fact::IsEstimate => {
            span.is_estimate = true;
            ("retake.tokens.source", "estimate".into())
        }
    }
}

/// Totals of the leaf-most calls: overall, and by model.
fn expected(spans: &[Naive]) -> (BySource, BTreeMap<String, BySource>) {
    let (mut overall, mut models) = (BySource::default(), BTreeMap::<String, BySource>::new());
    let mut has_counted_below = vec![false; spans.len()];
    // A child comes after its parent, so from the end every span knows its children.
    for (index, span) in spans.iter().enumerate().rev() {
        let usage = span.usage.filter(|(source, ..)| *source != TokensSource::None);
        let (mut input, mut output) = (span.input.or(span.former_input), span.output);
        let is_call = usage.is_some() || input.is_some() || output.is_some();
        let mut source =
            if span.is_estimate { TokensSource::Estimate } else { TokensSource::Provider };
        if let Some((counted_by, of_usage_in, of_usage_out)) = usage {
            source = counted_by;
            input = of_usage_in.or(input);
            output = of_usage_out.or(output);
        }
        let counts = Counts {
            calls: 1,
            input: input.unwrap_or(0) as u64,
            output: output.unwrap_or(0) as u64,
            ..Counts::default()
        };
        if is_call && !has_counted_below[index] {
            add(&mut overall, source, &counts);
            if let Some(model) = span.response.or(span.request) {
                add(models.entry(format!("model {model}")).or_default(), source, &counts);
            }
        }
        if let Some(parent) = span.parent {
            has_counted_below[parent] |= is_call || has_counted_below[index];
        }
    }
    (overall, models)
}

fn add(sum: &mut BySource, source: TokensSource, counts: &Counts) {
    match source {
        TokensSource::Tokenizer => sum.tokenizer.add(counts),
        TokensSource::Estimate => sum.estimate.add(counts),
        _ => sum.provider.add(counts),
    }
}

fn add_all(sum: &mut BySource, other: &BySource) {
    sum.provider.add(&other.provider);
    sum.tokenizer.add(&other.tokenizer);
    sum.estimate.add(&other.estimate);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Scenario: 10,000 random events of nested spans, that end in any order, in batches of any
    /// size, with resets in between.
    /// Guarantees: the periods add up to what a naive count of the whole says, to the token.
    #[test]
    fn totals_equal_a_naive_count(
        steps in proptest::collection::vec(step(), 10_000),
        batch in 1..4000_usize,
        reset_every in 1..8_usize,
    ) {
        let (bodies, spans) = play(&steps);
        prop_assert_eq!(bodies.len(), 10_000);
        let events: Vec<Event> = bodies.into_iter().map(event).collect();
        let (mut counter, usage_of_run) = TokenCounter::new(Vec::new(), |_| {});
        let (mut overall, mut models) = (BySource::default(), BTreeMap::<_, BySource>::new());
        let mut collect = |totals: TokenTotals| {
            add_all(&mut overall, &totals.overall);
            for (model, counts) in &totals.models {
                add_all(models.entry(model.clone()).or_default(), counts);
            }
            totals.untracked
        };
        for (batch, n) in events.chunks(batch).zip(1..) {
            counter.handle(batch).unwrap();
            if n % reset_every == 0 {
                prop_assert_eq!(collect(usage_of_run.reset()), Untracked::default());
            }
        }
        counter.finish().unwrap();
        prop_assert_eq!(collect(usage_of_run.reset()), Untracked::default());
        prop_assert_eq!((overall, models), expected(&spans));
    }
}

/// Scenario: the same kind of run, recorded.
/// Guarantees: the live totals equal the sum over the rows with `tokens_counted`.
#[test]
fn totals_equal_the_table_of_the_finished_run() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = proptest::collection::vec(step(), 3000);
    let (bodies, _) = play(&steps.new_tree(&mut runner).unwrap().current());
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let usage_of_run = count_tokens(recorder.dispatcher(), Vec::new(), |_| {}).unwrap();
    for body in &bodies {
        recorder.dispatcher().emit(body);
    }
    let run_id = recorder.run_id().clone();
    assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
    let rows: Vec<SpanRow> = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
    let mut of_table = BySource::default();
    for row in rows.iter().filter(|row| row.tokens_counted) {
        let counts = Counts {
            calls: 1,
            input: row.input_tokens.unwrap_or(0) as u64,
            output: row.output_tokens.unwrap_or(0) as u64,
            ..Counts::default()
        };
        add(&mut of_table, TokensSource::parse(&row.tokens_source).unwrap(), &counts);
    }
    assert!(of_table.total().calls > 100, "{of_table:?}");
    assert_eq!(usage_of_run.snapshot().overall, of_table);
}
