//! SQL against plain Rust, on random runs that were written down in different ways.
//!
//! Each run is recorded twice: once in order and sealed once, read in one part; and once in another
//! order of its spans, sealed in random places and not to its end, read in several parts. What is
//! asked must be the same both times, and what a few lines of Rust make of the spans.

use std::collections::BTreeMap;

use retake_recorder::{Recorder, RecorderBuilder};
use retake_schemas::event::RunStatus;

use crate::fixture::{Fixture, START, Spec, spec};
use crate::session::{Analyzer, AnalyzerOptions, Scope};
use crate::stats::SplitMix64;

const STAGES: [&str; 5] = ["query", "retrieve", "search", "llm", "rerank"];

/// Spans as they may arrive: parallel children, children outside their parents, parents that never
/// came, several roots, no time at all.
fn run(random: &mut SplitMix64) -> Vec<Spec> {
    let mut spans = Vec::new();
    for trace in 0..1 + random.below(4) as u8 {
        for id in 1..=1 + random.below(12) as u64 {
            let parent = match random.below(10) {
                0 => None,
                1 => Some(90 + id),
                _ if id == 1 => None,
                _ => Some(1 + random.below(id as usize - 1) as u64),
            };
            let (start, duration) = (random.below(1_000) as i64, random.below(400) as i64);
            let stage = STAGES[random.below(STAGES.len())];
            let span = spec(trace, id, parent, stage).at(start, duration);
            spans.push(if random.below(8) == 0 { span.failed("Timeout") } else { span });
        }
    }
    spans
}

fn shuffled(mut spans: Vec<Spec>, random: &mut SplitMix64) -> Vec<Spec> {
    for last in (1..spans.len()).rev() {
        spans.swap(last, random.below(last + 1));
    }
    spans
}

/// A row of numbers by its key.
type Rows = BTreeMap<String, Vec<i64>>;

/// What is asked, `{runs}` being the set; the first column is the run's name, and the last so many
/// are numbers.
const ASKED: [(&str, usize); 5] = [
    (
        "SELECT r.name, stage, count(*), sum(s.duration_ns), min(s.duration_ns), max(s.duration_ns), \
         count(*) FILTER (WHERE s.status = 'error') \
         FROM spans s JOIN runs r ON s.run_id = r.run_id GROUP BY 1, 2",
        5,
    ),
    (
        "SELECT r.name, stage, n, p50_ns, p90_ns, p95_ns, p99_ns \
         FROM stage_latency s JOIN runs r ON s.run_id = r.run_id",
        5,
    ),
    (
        "SELECT r.name, trace_id, t.spans, t.duration_ns, t.start_unix_ns \
         FROM trace_summary t JOIN runs r ON t.run_id = r.run_id",
        3,
    ),
    (
        "SELECT r.name, stage, total_ns, self_ns, wall_ns \
         FROM self_time('{runs}') s JOIN runs r ON s.run_id = r.run_id \
         WHERE stage <> '(idle)'",
        3,
    ),
    (
        "SELECT r.name, trace_id, sum(critical_ns) \
         FROM critical_path('{runs}', 'trace') c JOIN runs r ON c.run_id = r.run_id GROUP BY 1, 2",
        1,
    ),
];

async fn answers(analyzer: &Analyzer, sql: &str, numbers: usize) -> Rows {
    let runs: Vec<String> = analyzer.runs().into_iter().map(|run| run.run_id).collect();
    let sql = sql.replace("{runs}", &runs.join(","));
    let result = analyzer.query(&sql).await.unwrap();
    let mut rows = Rows::new();
    for batch in &result.batches {
        let cell = |column: usize, row: usize| {
            arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
        };
        let first = batch.num_columns() - numbers;
        for row in 0..batch.num_rows() {
            let key: Vec<String> = (0..first).map(|column| cell(column, row)).collect();
            let numbers =
                (first..batch.num_columns()).map(|column| cell(column, row).parse().unwrap());
            assert!(
                rows.insert(key.join(" "), numbers.collect()).is_none(),
                "{key:?} twice: {sql}"
            );
        }
    }
    rows
}

/// The same from the spans.
fn expected(asked: usize, name: &str, spans: &[Spec]) -> Rows {
    let mut by_stage: BTreeMap<&str, Vec<&Spec>> = BTreeMap::new();
    let mut by_trace: BTreeMap<u8, Vec<&Spec>> = BTreeMap::new();
    for span in spans {
        by_stage.entry(span.stage).or_default().push(span);
        by_trace.entry(span.trace).or_default().push(span);
    }
    let stages = by_stage.iter().map(|(stage, spans)| {
        let mut durations: Vec<i64> = spans.iter().map(|span| span.duration_ns).collect();
        durations.sort_unstable();
        let n = durations.len();
        let total: i64 = durations.iter().sum();
        let failed = spans.iter().filter(|span| !span.attributes.is_empty()).count() as i64;
        let at = |percent: usize| durations[(n * percent).div_ceil(100).max(1) - 1];
        let numbers = match asked {
            0 => vec![n as i64, total, durations[0], durations[n - 1], failed],
            1 => vec![n as i64, at(50), at(90), at(95), at(99)],
            _ => {
                let own: i64 = spans.iter().map(|span| own_ns(span, &by_trace[&span.trace])).sum();
                vec![total, own, -1]
            }
        };
        (format!("{name} {stage}"), numbers)
    });
    let traces = by_trace.iter().map(|(trace, spans)| {
        let start = spans.iter().map(|span| span.start_ns).min().unwrap();
        let end = spans.iter().map(|span| span.start_ns + span.duration_ns).max().unwrap();
        let key = format!("{name} {}", crate::fixture::trace_id(*trace));
        let numbers = match asked {
            2 => vec![spans.len() as i64, end - start, START + start],
            _ => vec![end - start],
        };
        (key, numbers)
    });
    if asked == 2 || asked == 4 { traces.collect() } else { stages.collect() }
}

/// Time of a span at which none of its children ran, one nanosecond after the other.
fn own_ns(span: &Spec, trace: &[&Spec]) -> i64 {
    let covers = |span: &Spec, t: i64| span.start_ns <= t && t < span.start_ns + span.duration_ns;
    let is_covered =
        |t: &i64| trace.iter().any(|child| child.parent == Some(span.id) && covers(child, *t));
    let own = span.start_ns..span.start_ns + span.duration_ns;
    own.filter(|t| !is_covered(t)).count() as i64
}

/// Attributed wall time of a stage, by dividing each nanosecond, in units of 1/27,720 ns: what all
/// numbers up to twelve divide.
fn wall(spans: &[Spec]) -> BTreeMap<&'static str, i64> {
    let mut by_trace: BTreeMap<u8, Vec<&Spec>> = BTreeMap::new();
    for span in spans {
        by_trace.entry(span.trace).or_default().push(span);
    }
    let mut wall: BTreeMap<&'static str, i64> = BTreeMap::new();
    let covers = |span: &Spec, t: i64| span.start_ns <= t && t < span.start_ns + span.duration_ns;
    for trace in by_trace.values() {
        for t in 0..1_400 {
            let active: Vec<&&Spec> = trace.iter().filter(|span| covers(span, t)).collect();
            let leaves = active
                .iter()
                .filter(|span| !active.iter().any(|child| child.parent == Some(span.id)));
            let leaves: Vec<&&&Spec> = leaves.collect();
            for leaf in &leaves {
                *wall.entry(leaf.stage).or_default() += UNITS / leaves.len() as i64;
            }
        }
    }
    wall
}

const UNITS: i64 = 27_720;
/// Runs of a store: starting one costs more than what it holds.
const RUNS: usize = 25;
const STORES: u64 = 40;

fn record(
    fixture: &Fixture,
    name: &str,
    spans: &[Spec],
    seals: &mut dyn FnMut(&Recorder),
) -> Recorder {
    let recorder = RecorderBuilder::new(name, "app").start(&fixture.store).unwrap();
    for span in spans {
        span.record(&recorder);
        seals(&recorder);
    }
    recorder
}

fn opened(fixture: &Fixture, threads: usize) -> Analyzer {
    let threads = std::num::NonZeroUsize::new(threads);
    let options = AnalyzerOptions { threads, ..AnalyzerOptions::default() };
    Analyzer::open_with(&fixture.store, Scope::All, &options).unwrap()
}

/// Scenario: 1,000 random runs, each recorded in two ways.
/// Guarantees: S3, the same answer each time: whatever the order of the rows, the files they are
/// in, the part that is not sealed, and the parts a scan is divided into; equal to plain Rust.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_do_not_depend_on_how_a_run_is_written_down() {
    for seed in 0..STORES {
        let mut random = SplitMix64::new(seed);
        let runs: Vec<Vec<Spec>> = (0..RUNS).map(|_| run(&mut random)).collect();
        let names: Vec<String> = (0..RUNS).map(|index| format!("run-{index}")).collect();
        let (plain, other) = (Fixture::in_memory(), Fixture::in_memory());
        let mut recording = Vec::new();
        for (name, spans) in names.iter().zip(&runs) {
            let recorder = record(&plain, name, spans, &mut |_| {});
            assert_eq!(recorder.finish(RunStatus::Finished).dropped, 0);
            let spans = shuffled(spans.clone(), &mut random);
            let recorder = record(&other, name, &spans, &mut |recorder| {
                if random.below(spans.len()) == 0 {
                    recorder.seal().unwrap();
                }
            });
            recorder.flush().unwrap();
            recording.push(recorder);
        }
        let analyzers = [opened(&plain, 1), opened(&other, 2 + (seed % 3) as usize)];
        for (asked, (sql, numbers)) in ASKED.into_iter().enumerate() {
            let [one, two] = &analyzers;
            let found = answers(one, sql, numbers).await;
            assert_eq!(answers(two, sql, numbers).await, found, "store {seed}: {sql}");
            let of = names.iter().zip(&runs).flat_map(|(name, spans)| expected(asked, name, spans));
            let mut expected: Rows = of.collect();
            if asked == 3 {
                check_wall(&found, &names, &runs);
                // Checked just now; whole nanoseconds of shares of nanoseconds.
                for (key, numbers) in &mut expected {
                    numbers[2] = found[key][2];
                }
            }
            assert_eq!(found, expected, "store {seed}: {sql}");
        }
        drop(recording);
    }
}

/// Attributed time is whole nanoseconds; rounding may move one for each span and instant at which
/// the set of active spans changes, and their sum is exact.
fn check_wall(found: &Rows, names: &[String], runs: &[Vec<Spec>]) {
    for (name, spans) in names.iter().zip(runs) {
        let expected = wall(spans);
        let slack = spans.len() as i64;
        for (stage, units) in &expected {
            let found = found[&format!("{name} {stage}")][2];
            let off = (found * UNITS - units).abs();
            assert!(off <= slack * UNITS, "{name} {stage}: {found} ns, not {units}/{UNITS}");
        }
        let is_of_run = |key: &&String| key.split(' ').next() == Some(name);
        let sum: i64 = found.keys().filter(is_of_run).map(|key| found[key][2]).sum();
        let total: i64 = expected.values().sum();
        assert_eq!(sum * UNITS, total, "{name}");
    }
}
