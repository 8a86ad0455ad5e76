//! The plan: what a changed setting makes invalid, said before anything runs.
//!
//! A recorded LLM answer is only good for the same request. Settings that change what is
//! retrieved change the prompt, so they cannot go together with recorded answers; settings that
//! change how vectors are made need the ingest to be part of the workload.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

/// Where a stage's outputs come from in a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageSource {
    /// The stage really runs.
    Live,
    /// Content and timing come from the recording.
    Recorded,
}

/// A setting that differs from the source run's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingChange {
    /// Dotted name.
    pub name: String,
    /// Value in the source run; `null` when it was not recorded.
    pub from: Json,
    /// Value in the replay.
    pub to: Json,
    /// What the change does to the recording.
    pub effect: String,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    /// The stage.
    pub stage: &'static str,
    /// Where its outputs come from.
    pub source: StageSource,
    /// Why.
    pub reason: String,
}

/// What a replay will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// Settings that differ.
    pub changes: Vec<SettingChange>,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
    /// Why the replay cannot be done from this recording, if so.
    pub refusal: Option<String>,
}

/// How far a setting's change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Only timing: every recorded content stays valid.
    Timing,
    /// The answer only: prompt, model or sampling.
    Answer,
    /// What is retrieved, and so the answer.
    Retrieval,
    /// How vectors are made, and so everything after.
    Vectors,
}

/// First match wins; a setting not listed here reaches only timing.
const REACHES: [(&str, Reach); 13] = [
    ("embed.batch_size", Reach::Timing),
    ("embed.max_wait_ms", Reach::Timing),
    ("embed.api_key_env", Reach::Timing),
    ("synthesize.api_key_env", Reach::Timing),
    ("synthesize.timeout_ms", Reach::Timing),
    ("load.", Reach::Vectors),
    ("chunk.", Reach::Vectors),
    ("embed.", Reach::Vectors),
    ("synthesize.", Reach::Answer),
    ("retrieve.", Reach::Retrieval),
    ("rerank.", Reach::Retrieval),
    ("postprocess.", Reach::Retrieval),
    ("query.", Reach::Retrieval),
];

fn reach(name: &str) -> Reach {
    REACHES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(Reach::Timing, |(_, reach)| *reach)
}

/// Plans a replay of `operations` recorded under `source` with the settings `target`.
#[must_use]
pub fn plan(
    operations: BTreeMap<String, u64>,
    source: &BTreeMap<String, Json>,
    target: &BTreeMap<String, Json>,
    llm: StageSource,
) -> Plan {
    let has_ingest = operations.contains_key("ingest");
    let changes: Vec<SettingChange> = target
        .iter()
        .filter(|(name, to)| source.get(*name) != Some(to))
        .filter(|(name, _)| !name.starts_with("vectors."))
        .map(|(name, to)| SettingChange {
            name: name.clone(),
            from: source.get(name).cloned().unwrap_or_default(),
            to: to.clone(),
            effect: effect(name, has_ingest),
        })
        .collect();
    let widest = changes.iter().map(|c| (reach(&c.name), c.name.as_str())).max();
    let refusal = refusal(widest, has_ingest, llm);
    Plan { stages: stages(has_ingest, llm), operations, changes, refusal }
}

fn effect(name: &str, has_ingest: bool) -> String {
    let text = match reach(name) {
        Reach::Timing if name.starts_with("embed.batch") && !has_ingest => {
            "nothing: the workload has no ingest, and a query embeds one text"
        }
        Reach::Timing => "timing only; every recorded content stays valid",
        Reach::Answer => "the answer; retrieval stays valid",
        Reach::Retrieval => "what is retrieved, so the prompt and the answer",
        Reach::Vectors => "vectors, so everything that is retrieved and answered",
    };
    text.to_owned()
}

fn refusal(widest: Option<(Reach, &str)>, has_ingest: bool, llm: StageSource) -> Option<String> {
    let (reach, name) = widest?;
    if reach == Reach::Vectors && !has_ingest {
        return Some(format!(
            "{name} changes the vectors, but the workload has no ingest to make them anew; \
             record a run that ingests and asks, or leave {name} as it was"
        ));
    }
    if reach >= Reach::Answer && llm == StageSource::Recorded {
        return Some(format!(
            "{name} changes the request to the language model, so its recorded answers are not \
             valid; replay with --llm live"
        ));
    }
    None
}

fn stages(has_ingest: bool, llm: StageSource) -> Vec<StagePlan> {
    let live = |stage, reason: &str| StagePlan {
        stage,
        source: StageSource::Live,
        reason: reason.to_owned(),
    };
    let mut stages = Vec::new();
    if has_ingest {
        for stage in ["load", "chunk", "embed", "insert"] {
            stages.push(live(stage, "into a scratch collection; the recorded one is not touched"));
        }
    }
    let from = if has_ingest { "from the scratch collection" } else { "from the recorded run's" };
    stages.push(live("retrieve", from));
    stages.push(live("rerank", "when the settings have one"));
    stages.push(StagePlan {
        stage: "llm",
        source: llm,
        reason: match llm {
            StageSource::Live => "called for every query".to_owned(),
            StageSource::Recorded => "answers and their timing from the recording".to_owned(),
        },
    });
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(kinds: &[&str], name: &str, llm: StageSource) -> Plan {
        let operations = kinds.iter().map(|kind| ((*kind).to_owned(), 1)).collect();
        let source = BTreeMap::from([(name.to_owned(), Json::from(1))]);
        let target = BTreeMap::from([(name.to_owned(), Json::from(2))]);
        plan(operations, &source, &target, llm)
    }

    #[test]
    fn settings_that_change_the_prompt_refuse_recorded_answers() {
        use StageSource::{Live, Recorded};
        for name in [
            "retrieve.top_k",
            "rerank.provider",
            "postprocess.steps",
            "query.transform",
            "synthesize.temperature",
        ] {
            assert!(planned(&["query"], name, Recorded).refusal.is_some(), "{name}");
            assert_eq!(planned(&["query"], name, Live).refusal, None, "{name}");
        }
        for name in [
            "workers",
            "embed.batch_size",
            "embed.max_wait_ms",
            "synthesize.timeout_ms",
            "query_cache.mode",
            "eval.judge_model",
        ] {
            assert_eq!(planned(&["ingest", "query"], name, Recorded).refusal, None, "{name}");
        }
    }

    #[test]
    fn settings_that_change_vectors_need_the_ingest() {
        for name in ["chunk.size", "embed.model", "embed.dim", "load.file_bytes_max"] {
            assert!(planned(&["query"], name, StageSource::Live).refusal.is_some(), "{name}");
            let with_ingest = planned(&["ingest", "query"], name, StageSource::Live);
            assert_eq!(with_ingest.refusal, None, "{name}");
        }
    }

    #[test]
    fn unchanged_settings_are_no_change() {
        let settings = BTreeMap::from([("workers".to_owned(), Json::from(2))]);
        let plan = plan(BTreeMap::new(), &settings, &settings, StageSource::Recorded);
        assert_eq!((plan.changes, plan.refusal), (vec![], None));
    }
}
