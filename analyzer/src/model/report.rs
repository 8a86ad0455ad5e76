//! Everything a report draws.

use std::collections::BTreeMap;

use retake_schemas::tables::RunRow;
use serde::Serialize;

use super::{Breakdown, BudgetVerdict, Diff, Flame, KeptText, TraceSummary, TraceTree, Trend};

/// What is odd about a run's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct DataQuality {
    /// Spans named as a parent that never arrived.
    pub lost_spans: u64,
    /// Spans whose parent never arrived.
    pub orphans: u64,
    /// Spans whose end was never seen.
    pub unfinished: u64,
    /// Events the recorder had to drop.
    pub dropped_events: u64,
    /// Rows by flag, for every flag that occurs.
    pub flags: Vec<(String, u64)>,
}

/// Everything a report draws.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportData {
    /// The run.
    pub run: RunRow,
    /// Its breakdown by stage.
    pub breakdown: Breakdown,
    /// Every trace, slowest first.
    pub traces: Vec<TraceSummary>,
    /// Trees of the slowest and of the failed traces.
    pub trees: Vec<TraceTree>,
    /// What the spans of these trees were given and gave back, by digest; empty unless asked for.
    pub texts: BTreeMap<String, KeptText>,
    /// Durations of every span by stage, ns, for histograms; stages in breakdown order.
    pub durations: Vec<(String, Vec<i64>)>,
    /// Gaps between neighbouring arrivals of output tokens, ns.
    pub token_gaps_ns: Vec<i64>,
    /// Every path of stages, by name.
    pub flames: Vec<Flame>,
    /// What retrieval and reranking found; `None` when nothing was retrieved.
    pub retrieval: Option<Retrieval>,
    /// The budgets of the run, as `retake check` decides them; empty without a budget file.
    pub budgets: Vec<BudgetVerdict>,
    /// The 95th percentile of durations by stage over the history of runs like this one; `None`
    /// where there are too few.
    pub trend: Option<Trend>,
    /// The sweep that the run belongs to, if it belongs to one.
    pub sweep: Option<SweepData>,
    /// What is odd about the data.
    pub quality: DataQuality,
    /// The run compared against, with its breakdown and the comparison.
    pub baseline: Option<BaselineData>,
    /// The SQL behind the numbers.
    pub queries: Vec<ReportQuery>,
}

/// One workload under many settings, read back from what `retake sweep` recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepData {
    /// The sweep's own run.
    pub run_id: String,
    /// The run it replayed.
    pub source: String,
    /// What settings are judged by.
    pub objectives: Vec<SweepObjective>,
    /// The settings, in the order of the grid.
    pub settings: Vec<SweepSetting>,
}

/// Something to be good at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepObjective {
    /// Its name, such as `latency_p95`.
    pub name: String,
    /// Unit of its values (UCUM).
    pub unit: String,
    /// Whether more is better.
    pub is_more_better: bool,
}

/// A setting, with values in the order of [`SweepData::objectives`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SweepSetting {
    /// As the grid writes it: `embed.batch_size=16, workers=2`.
    pub label: String,
    /// What was predicted before it was measured, with its 95 % interval: estimate, low, high.
    pub predicted: Vec<Option<[f64; 3]>>,
    /// Each replay.
    pub measured: Vec<SweepMeasurement>,
    /// Whether no other setting is as good in everything and better in something.
    pub is_on_front: bool,
    /// Whether it changes nothing of the run that was replayed.
    pub is_as_recorded: bool,
    /// Whether the run of the report is a replay of it.
    pub is_shown: bool,
}

/// One replay of a setting.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SweepMeasurement {
    /// The replay's run.
    pub run_id: String,
    /// What it came to.
    pub values: Vec<Option<f64>>,
}

impl SweepSetting {
    /// Mean of what was measured of an objective.
    #[must_use]
    pub fn mean(&self, objective: usize) -> Option<f64> {
        let values = self.measured.iter().filter_map(|one| one.values.get(objective).copied()?);
        let values = values.filter(|value| value.is_finite());
        let (mut sum, mut count) = (0.0, 0.0);
        for value in values {
            sum += value;
            count += 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }
}

/// A query that gives the numbers of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportQuery {
    /// The section, as its links name it.
    pub section: &'static str,
    /// What it shows.
    pub title: String,
    /// The query.
    pub sql: String,
}

/// What retrieval and reranking found in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Retrieval {
    /// Retrieving calls.
    pub retrievals: u64,
    /// Those among them that found nothing.
    pub empty: u64,
    /// Scores by rank, for each stage and role with documents; the scale is the stage's own.
    pub ranks: Vec<RankScores>,
    /// What reranking did to the order of documents; `None` when nothing was reranked.
    pub reranking: Option<Reranking>,
    /// Quality by measure, from labels (`recall_at_5` and the like): name, mean and number of
    /// operations that have it.
    pub quality: Vec<(String, f64, u64)>,
    /// Sources by how often a document of theirs was retrieved, most frequent first.
    pub sources: Vec<(String, u64)>,
    /// Sources that were retrieved, all of them.
    pub sources_all: u64,
}

/// Scores at one rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RankScores {
    /// The stage.
    pub stage: String,
    /// `retrieved` or `rerank_output`.
    pub role: String,
    /// Position, from 0.
    pub rank: i64,
    /// Documents that stood there.
    pub documents: u64,
    /// 10th percentile, median and 90th percentile of their scores; `None` where none has one.
    pub scores: Option<[f64; 3]>,
}

/// What reranking did to the order of documents.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Reranking {
    /// Rerankings with input and output.
    pub rerankings: u64,
    /// Those whose first document changed.
    pub first_changed: u64,
    /// Documents given back, by the rank they came from (columns) and the rank they got (rows).
    pub moves: Vec<Vec<u64>>,
    /// Documents given back that moved up, stayed and moved down.
    pub moved: [u64; 3],
    /// Documents that were left out.
    pub dropped: u64,
}

/// The other side of a report with a baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineData {
    /// The run.
    pub run: RunRow,
    /// Its breakdown by stage.
    pub breakdown: Breakdown,
    /// Durations of its traces, ns.
    pub trace_durations_ns: Vec<i64>,
    /// Every path of stages, by name.
    pub flames: Vec<Flame>,
    /// The comparison; base is this run.
    pub diff: Diff,
}
