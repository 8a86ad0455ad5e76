//! The plan: what a changed setting makes invalid, said before anything runs.
//!
//! A recorded output is only good for the same request. The plan follows every changed setting
//! through the stages ([`closure`]), says for each stage where its results will come from and why,
//! what that will take going by the recorded run ([`expect`]), and refuses what the recording cannot
//! support, with what was not captured and what to type instead.
//!
//! *Early cutoff*: a stage whose inputs turn out the same re-validates everything below it. Where
//! the recording proves it beforehand (fewer passages than before, out of a list that was shorter
//! anyway), the plan says for how many operations; where only the run can show it, recorded answers
//! with [`OnMiss::Live`] use it.

pub mod closure;
mod expect;

use std::collections::BTreeMap;

use retake_schemas::settings::Prices;
use serde::Serialize;
use serde_json::Value as Json;

pub use self::closure::{Change, Reach, Reached};
pub use self::expect::{Cutoff, Expected};
pub use crate::cassette::OnMiss;
use crate::cost::Observed;

/// Where a stage's outputs come from in a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum StageSource {
    /// The stage really runs.
    #[serde(rename = "live")]
    Live,
    /// Content and timing come from the recording.
    #[serde(rename = "recorded")]
    Recorded,
    /// Content comes from the recording, timing from a model: on the virtual clock.
    #[serde(rename = "recorded+model")]
    RecordedModel,
    /// No content, and timing from a model: on the virtual clock.
    #[serde(rename = "model")]
    Model,
}

impl StageSource {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Live, Self::Recorded, Self::RecordedModel, Self::Model];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Recorded => "recorded",
            Self::RecordedModel => "recorded+model",
            Self::Model => "model",
        }
    }

    /// The source of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    /// The stage.
    pub stage: &'static str,
    /// Where its outputs come from.
    pub source: StageSource,
    /// What else it could be, given this recording and these settings.
    pub choices: Vec<StageSource>,
    /// Why.
    pub reason: String,
    /// Changed settings that make its recorded output invalid.
    pub invalidated_by: Vec<String>,
    /// Recorded calls whose output was kept whole, and may be used.
    pub usable: u64,
    /// Recorded calls.
    pub recorded: u64,
    /// What it will take.
    pub expected: Expected,
    /// Operations that are proven to see the same inputs in spite of the change.
    pub cutoff: Option<Cutoff>,
}

/// Something a replay needs and the recording does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What, with how much of it.
    pub what: String,
    /// What to type to have it, or to do without.
    pub help: String,
}

/// What a replay will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// Settings that differ.
    pub changes: Vec<Change>,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
    /// Sums over the live stages.
    pub expected: Expected,
    /// From the first start to the last end, ns, by the event heap; `None` when it cannot be said.
    pub expected_wall_ns: Option<i64>,
    /// What the recording does not hold.
    pub missing: Vec<Missing>,
    /// Why the replay cannot be done from this recording, if so.
    pub refusal: Option<String>,
}

/// What a plan is made of.
#[derive(Debug)]
pub struct Planned<'a> {
    /// Operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// The recorded run.
    pub observed: &'a Observed,
    /// Settings of the replay.
    pub target: &'a BTreeMap<String, Json>,
    /// Where answers of the language model come from: live or recorded.
    pub llm: StageSource,
    /// What happens to requests the recording does not know.
    pub on_miss: OnMiss,
    /// What calls cost that do not say.
    pub prices: &'a Prices,
    /// What the workload lacks already.
    pub missing: Vec<Missing>,
}

/// Plans a replay.
#[must_use]
pub fn plan(planned: &Planned<'_>) -> Plan {
    let has_ingest = planned.operations.contains_key("ingest");
    let changes = closure::changes(&planned.observed.settings, planned.target, has_ingest);
    let reached = closure::reached(&changes);
    let stages: Vec<StagePlan> = closure::STAGES
        .into_iter()
        .filter(|stage| is_present(stage, planned, has_ingest))
        .map(|stage| stage_plan(stage, planned, &reached))
        .collect();
    let mut expected = Expected::default();
    for stage in stages.iter().filter(|stage| stage.source == StageSource::Live) {
        expected.add(&stage.expected);
    }
    let mut missing = planned.missing.clone();
    missing.extend(missing_documents(planned, has_ingest));
    missing.extend(missing_answers(planned, &stages));
    let refusal = refusal(planned, &changes, &stages, &missing, has_ingest);
    let operations = planned.operations.clone();
    Plan { operations, changes, stages, expected, expected_wall_ns: None, missing, refusal }
}

fn is_present(stage: &str, planned: &Planned<'_>, has_ingest: bool) -> bool {
    let has_queries = planned.operations.keys().any(|kind| kind != "ingest");
    match stage {
        "load" | "chunk" | "embed" | "insert" | "index" => has_ingest,
        "rerank" => has_queries && has_steps(planned.target),
        _ => has_queries,
    }
}

/// Whether anything stands between the search and the prompt.
fn has_steps(settings: &BTreeMap<String, Json>) -> bool {
    let has_reranker = settings.get("rerank.provider").is_some_and(|name| *name != "none");
    let steps = settings.get("postprocess.steps").and_then(Json::as_array);
    // The step `rerank` stands for the reranker of the settings, which may be none.
    let is_other = |step: &Json| step.as_str() != Some("rerank");
    has_reranker || steps.is_some_and(|steps| steps.iter().any(is_other))
}

fn stage_plan(stage: &'static str, planned: &Planned<'_>, reached: &[Reached]) -> StagePlan {
    let calls = planned.observed.stages.get(stage).map_or(&[][..], Vec::as_slice);
    let of_stage: Vec<&Reached> = reached.iter().filter(|found| found.stage == stage).collect();
    let invalid: Vec<&&Reached> =
        of_stage.iter().filter(|found| found.reach == Reach::Content).collect();
    let invalidated_by: Vec<String> = invalid.iter().map(|found| found.setting.clone()).collect();
    let usable = match stage {
        "llm" => calls.iter().filter(|call| call.is_ok && call.has_answer).count(),
        _ => calls.iter().filter(|call| call.is_ok).count(),
    };
    let is_valid = invalid.is_empty();
    let source = if stage == "llm" { planned.llm } else { StageSource::Live };
    let cutoff = (stage == "llm" && !is_valid)
        .then(|| expect::cutoff(planned.observed, planned.target, &invalidated_by))
        .flatten();
    let mut choices = vec![StageSource::Live];
    if stage == "llm" && usable > 0 && (is_valid || planned.on_miss == OnMiss::Live) {
        choices.push(StageSource::Recorded);
    }
    if is_valid && usable > 0 {
        choices.push(StageSource::RecordedModel);
    }
    choices.push(StageSource::Model);
    StagePlan {
        stage,
        source,
        choices,
        reason: reason(stage, planned, &of_stage),
        invalidated_by,
        usable: if is_valid { usable as u64 } else { cutoff.map_or(0, |c| c.revalidated) },
        recorded: calls.len() as u64,
        expected: expect::expected(stage, planned, is_valid),
        cutoff,
    }
}

/// Why a stage is what it is: the settings that reach it, else what holds without any.
fn reason(stage: &'static str, planned: &Planned<'_>, reached: &[&Reached]) -> String {
    let because: Vec<String> = reached.iter().map(|found| found.to_string()).collect();
    let has_ingest = planned.operations.contains_key("ingest");
    let base = match (stage, planned.llm, planned.on_miss) {
        ("llm", StageSource::Recorded, OnMiss::Fail) => "answers and their timing as recorded",
        ("llm", StageSource::Recorded, OnMiss::Live) => {
            "recorded where the request is the same, called where it is not"
        }
        ("llm", ..) => "called for every query",
        ("load", ..) => "documents are read from the disk again",
        ("chunk" | "embed", ..) => "made anew",
        ("insert" | "index", ..) => "into a scratch collection; the recorded one is not touched",
        ("retrieve", ..) if has_ingest => "from the scratch collection",
        ("retrieve", ..) => "from the recorded run's collection",
        _ => "as recorded",
    };
    if because.is_empty() { base.to_owned() } else { format!("{base}; {}", because.join("; ")) }
}

/// A replay reads documents from the disk again: the recording does not hold them.
fn missing_documents(planned: &Planned<'_>, has_ingest: bool) -> Option<Missing> {
    let roots = planned.observed.ingests.iter().flat_map(|ingest| &ingest.roots);
    let gone: Vec<String> = roots
        .filter(|root| has_ingest && !root.exists())
        .map(|root| root.display().to_string())
        .collect();
    (!gone.is_empty()).then(|| Missing {
        what: format!(
            "documents are read from the disk again, and {} is not there",
            gone.join(", ")
        ),
        help: "put them back, or ingest again: retake rag ingest PATH --capture full".to_owned(),
    })
}

fn missing_answers(planned: &Planned<'_>, stages: &[StagePlan]) -> Option<Missing> {
    let is_recorded = planned.llm == StageSource::Recorded;
    let llm = stages.iter().find(|stage| stage.stage == "llm").filter(|_| is_recorded)?;
    let calls = planned.observed.stages.get("llm").map_or(&[][..], Vec::as_slice);
    let lost = calls.iter().filter(|call| call.is_ok && !call.has_answer).count();
    (lost > 0).then(|| Missing {
        what: format!(
            "answers of {lost} of {} calls of the language model were not kept",
            llm.recorded
        ),
        help: "replay with --llm live, or record again with --capture full".to_owned(),
    })
}

fn refusal(
    planned: &Planned<'_>,
    changes: &[Change],
    stages: &[StagePlan],
    missing: &[Missing],
    has_ingest: bool,
) -> Option<String> {
    if let Some(first) = missing.first() {
        return Some(format!("{}; {}", first.what, first.help));
    }
    let of_ingest = changes.iter().find(|change| change.needs_ingest);
    if let Some(Change { name, .. }) = of_ingest.filter(|_| !has_ingest) {
        return Some(format!(
            "{name} changes the vectors, but the workload has no ingest to make them anew; \
             record a run that ingests and asks, or leave {name} as it was"
        ));
    }
    let llm = stages.iter().find(|stage| stage.stage == "llm")?;
    let is_strict = planned.llm == StageSource::Recorded && planned.on_miss == OnMiss::Fail;
    let is_cut_off = llm.cutoff.is_some_and(|cutoff| cutoff.revalidated == cutoff.of);
    let name = llm.invalidated_by.first().filter(|_| is_strict && !is_cut_off)?;
    let proven = llm.cutoff.map_or_else(String::new, |cutoff| {
        format!(" (for {} of {} queries it provably does not)", cutoff.revalidated, cutoff.of)
    });
    Some(format!(
        "{name} changes the request to the language model{proven}, so its recorded answers are not \
         valid; replay with --llm live, or with --on-miss live to call it only where the request \
         did change"
    ))
}

#[cfg(test)]
mod tests;
