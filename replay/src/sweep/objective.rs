//! What a sweep is judged by: latency, throughput, cost, and quality.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Serialize, Serializer};

use crate::cost::{Observed, Passage, QueryRecord};
use crate::quantile::nearest_rank;

/// One thing to be good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Objective {
    /// Chunks embedded and stored per second of ingest; without an ingest, requests per second.
    Throughput,
    /// Median latency of requests, from the time they were due.
    LatencyP50,
    /// 95th percentile of it.
    LatencyP95,
    /// 99th percentile of it.
    LatencyP99,
    /// From the first operation's start to the last one's end.
    Wall,
    /// Cost of all calls.
    Cost,
    /// Share of the passages the recorded run retrieved that were retrieved again, by characters, so
    /// that other chunk sizes can be compared.
    Agreement,
    /// Share of the characters known to be relevant that were retrieved.
    Recall,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Self; 8] = [
        Self::Throughput,
        Self::LatencyP50,
        Self::LatencyP95,
        Self::LatencyP99,
        Self::Wall,
        Self::Cost,
        Self::Agreement,
        Self::Recall,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::Wall => "wall",
            Self::Cost => "cost",
            Self::Agreement => "agreement",
            Self::Recall => "recall",
        }
    }

    /// The objective of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|objective| objective.as_str() == name)
    }

    /// Which way is better.
    #[must_use]
    pub const fn better(self) -> Better {
        match self {
            Self::Throughput | Self::Agreement | Self::Recall => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// Unit of its values (UCUM).
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "1/s",
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 | Self::Wall => "ns",
            Self::Cost => "USD",
            Self::Agreement | Self::Recall => "1",
        }
    }

    /// Those that say something about a run, the most telling first: throughput and time where there
    /// is an ingest, latency where there are requests, cost where prices are known, agreement where
    /// passages were recorded.
    #[must_use]
    pub fn of_run(observed: &Observed) -> Vec<Self> {
        let mut found = Vec::new();
        if !observed.ingests.is_empty() {
            found.push(Self::Throughput);
        }
        if !observed.queries.is_empty() {
            found.extend([Self::LatencyP50, Self::LatencyP95]);
        }
        if cost(observed).is_some() {
            found.push(Self::Cost);
        }
        if observed.queries.iter().any(|query| !query.passages.is_empty()) {
            found.push(Self::Agreement);
        }
        found
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A place in a document that is known to answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relevant {
    /// The document's id, file name, or file name without its ending; `None` for any.
    pub document: Option<String>,
    /// Where it begins, in characters.
    pub start_char: i64,
    /// Where it ends.
    pub end_char: i64,
}

/// What measurements are compared with.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Passages that the recorded run gave the model, by the operation.
    pub recorded: HashMap<String, Vec<Passage>>,
    /// What is relevant to a question.
    pub relevant: BTreeMap<String, Vec<Relevant>>,
}

impl Known {
    /// What the recorded run retrieved.
    #[must_use]
    pub fn of(source: &Observed) -> Self {
        let of = |query: &QueryRecord| (query.key.clone(), query.passages.clone());
        Self { recorded: source.queries.iter().map(of).collect(), relevant: BTreeMap::new() }
    }
}

/// Measures a run; `None` where it says nothing about the objective.
#[must_use]
pub fn measure(objective: Objective, run: &Observed, known: &Known) -> Option<f64> {
    let latency = |q: f64| {
        let mut times: Vec<i64> =
            run.queries.iter().filter(|query| query.is_ok).map(|query| query.from_due_ns).collect();
        times.sort_unstable();
        nearest_rank(&times, q).map(|ns| ns as f64)
    };
    match objective {
        Objective::Throughput => throughput(run),
        Objective::LatencyP50 => latency(0.50),
        Objective::LatencyP95 => latency(0.95),
        Objective::LatencyP99 => latency(0.99),
        Objective::Wall => (run.wall_ns > 0).then_some(run.wall_ns as f64),
        Objective::Cost => cost(run),
        Objective::Agreement => mean(run.queries.iter().filter_map(|query| {
            let wanted = known.recorded.get(&query.key).filter(|wanted| !wanted.is_empty())?;
            let wanted: Vec<Relevant> = wanted
                .iter()
                .map(|passage| Relevant {
                    document: Some(passage.document.clone()),
                    start_char: passage.start_char,
                    end_char: passage.end_char,
                })
                .collect();
            Some(coverage(&wanted, &query.passages))
        })),
        Objective::Recall => mean(run.queries.iter().filter_map(|query| {
            let wanted = known.relevant.get(query.question.as_ref()?)?;
            Some(coverage(wanted, &query.passages))
        })),
    }
}

fn throughput(run: &Observed) -> Option<f64> {
    let ingests: Vec<_> = run.ingests.iter().filter(|ingest| ingest.is_ok).collect();
    let (count, ns) = if ingests.is_empty() {
        (run.queries.iter().filter(|query| query.is_ok).count() as f64, run.wall_ns)
    } else {
        let embedded: i64 = ingests.iter().map(|ingest| ingest.embedded).sum();
        (embedded as f64, ingests.iter().map(|ingest| ingest.duration_ns).sum())
    };
    (count > 0.0 && ns > 0).then(|| count / (ns as f64 / 1e9))
}

/// What all calls cost; `None` when no call has a cost.
fn cost(run: &Observed) -> Option<f64> {
    let costs: Vec<f64> = run.stages.values().flatten().filter_map(|call| call.cost_usd).collect();
    (!costs.is_empty()).then(|| costs.iter().sum())
}

/// Share of the wanted characters that passages cover, each character counted once.
fn coverage(wanted: &[Relevant], found: &[Passage]) -> f64 {
    let (mut covered, mut all) = (0, 0);
    let mut documents: Vec<&Option<String>> = wanted.iter().map(|place| &place.document).collect();
    documents.sort();
    documents.dedup();
    for document in documents {
        let places = wanted.iter().filter(|place| &place.document == document);
        let places = merged(places.map(|place| (place.start_char, place.end_char)).collect());
        let passages = found.iter().filter(|passage| is_of(document.as_deref(), &passage.document));
        let passages =
            merged(passages.map(|passage| (passage.start_char, passage.end_char)).collect());
        for (start, end) in places {
            all += end - start;
            covered += passages
                .iter()
                .map(|(from, to)| (end.min(*to) - start.max(*from)).max(0))
                .sum::<i64>();
        }
    }
    if all > 0 { covered as f64 / all as f64 } else { 0.0 }
}

/// Whether a document is the one that is meant: data sets name documents by file, by stem, or whole.
fn is_of(meant: Option<&str>, document: &str) -> bool {
    let Some(meant) = meant else { return true };
    let path = std::path::Path::new(document);
    let is = |name: Option<&std::ffi::OsStr>| name.is_some_and(|name| name == meant);
    document == meant || is(path.file_name()) || is(path.file_stem())
}

fn merged(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => merged.push(span),
        }
    }
    merged
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{Call, IngestRecord};

    fn passage(document: &str, start_char: i64, end_char: i64) -> Passage {
        let document = document.to_owned();
        Passage { document, start_char, end_char, ..Passage::default() }
    }

    /// Scenario: two queries, an ingest of 500 chunks in 2 s, calls that cost and calls that do not.
    #[test]
    fn objectives_are_measured_as_they_are_defined() {
        let query = |key: &str, ms: i64, passages: Vec<Passage>| QueryRecord {
            key: key.to_owned(),
            is_ok: true,
            from_due_ns: ms * 1_000_000,
            question: Some(format!("{key}?")),
            passages,
            ..QueryRecord::default()
        };
        let mut run = Observed {
            queries: vec![
                query("a", 10, vec![passage("x/d.md", 0, 100), passage("x/d.md", 150, 250)]),
                query("b", 30, vec![passage("e", 0, 10)]),
            ],
            wall_ns: 4_000_000_000,
            ..Observed::default()
        };
        let mut known = Known::default();
        let wanted = vec![passage("x/d.md", 50, 200), passage("x/d.md", 60, 90)];
        known.recorded.insert("a".to_owned(), wanted);
        let relevant = |document: &str| Relevant {
            document: Some(document.to_owned()),
            start_char: 0,
            end_char: 20,
        };
        known.relevant.insert("a?".to_owned(), vec![relevant("d")]);
        known.relevant.insert("b?".to_owned(), vec![relevant("e"), relevant("other")]);
        let of = |objective, run: &Observed| measure(objective, run, &known);
        assert_eq!(of(Objective::LatencyP50, &run), Some(10e6));
        assert_eq!(of(Objective::LatencyP99, &run), Some(30e6));
        assert_eq!(of(Objective::Throughput, &run), Some(0.5), "requests, without an ingest");
        // 50..200 is 150 characters; 50..100 and 150..200 are covered.
        assert!((of(Objective::Agreement, &run).unwrap() - 100.0 / 150.0).abs() < 1e-12);
        // a: all of 0..20; b: 10 of 40.
        assert!((of(Objective::Recall, &run).unwrap() - (1.0 + 0.25) / 2.0).abs() < 1e-12);
        assert_eq!(of(Objective::Cost, &run), None);
        let (is_ok, embedded, duration_ns) = (true, 500, 2_000_000_000);
        run.ingests.push(IngestRecord { is_ok, embedded, duration_ns, ..IngestRecord::default() });
        let call = |cost_usd| Call { cost_usd, ..Call::default() };
        run.stages.insert("embed", vec![call(Some(0.5)), call(None), call(Some(0.25))]);
        assert_eq!(of(Objective::Throughput, &run), Some(250.0));
        assert_eq!(of(Objective::Cost, &run), Some(0.75));
        assert_eq!(
            Objective::of_run(&run),
            [
                Objective::Throughput,
                Objective::LatencyP50,
                Objective::LatencyP95,
                Objective::Cost,
                Objective::Agreement
            ]
        );
        for objective in Objective::ALL {
            assert_eq!(Objective::parse(objective.as_str()), Some(objective));
        }
    }
}
