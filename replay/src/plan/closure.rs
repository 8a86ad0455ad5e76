//! What a setting reaches: the stages whose recorded output it makes invalid, or only slower.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

/// The stages of the built-in pipeline, in order. `embed` makes vectors of chunks, `embed_query` of
/// questions.
pub const STAGES: [&str; 9] =
    ["load", "chunk", "embed", "insert", "index", "embed_query", "retrieve", "rerank", "llm"];

/// A setting that differs from the source run's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Dotted name.
    pub name: String,
    /// Value in the source run; `null` when it was not recorded.
    pub from: Json,
    /// Value in the replay.
    pub to: Json,
    /// What the change does to the recording.
    pub effect: String,
    /// Whether it only makes sense when documents are ingested anew.
    #[serde(skip)]
    pub(super) needs_ingest: bool,
    #[serde(skip)]
    rule: &'static Rule,
}

/// How a setting reaches a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Its recorded output stays valid; how long it takes does not.
    Timing,
    /// Its recorded output is not valid.
    Content,
}

/// A stage that a changed setting reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The stage.
    pub stage: &'static str,
    /// The setting.
    pub setting: String,
    /// How.
    pub reach: Reach,
    /// The stage through which it gets there; itself where the setting is of this stage.
    pub through: &'static str,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, setting, reach, through } = self;
        match reach {
            Reach::Timing => write!(f, "{setting} changes its timing"),
            Reach::Content if stage == through => write!(f, "{setting} changes it"),
            Reach::Content => write!(f, "{setting} changes {through}, which comes before it"),
        }
    }
}

/// What settings of a name do.
#[derive(Debug, PartialEq)]
struct Rule {
    /// Of settings that begin so; the first rule that fits counts.
    prefix: &'static str,
    /// Stages whose own work it changes.
    roots: &'static [&'static str],
    reach: Reach,
    /// For people.
    effect: &'static str,
}

const fn rule(
    prefix: &'static str,
    roots: &'static [&'static str],
    reach: Reach,
    effect: &'static str,
) -> Rule {
    Rule { prefix, roots, reach, effect }
}

/// A test holds that every setting of the pipeline has a rule of its own.
const RULES: &[Rule] = &[
    rule("embed.batch_size", &["embed"], Reach::Timing, TIMING),
    rule("embed.max_wait_ms", &["embed"], Reach::Timing, TIMING),
    rule("embed.adaptive", &["embed"], Reach::Timing, TIMING),
    rule("embed.latency_target_ms", &["embed"], Reach::Timing, TIMING),
    rule("embed.api_key_env", &[], Reach::Timing, NOTHING),
    rule("embed.", &["embed", "embed_query"], Reach::Content, VECTORS),
    rule("workers", &["load", "chunk", "embed"], Reach::Timing, TIMING),
    rule("limits.", &["embed", "embed_query", "llm"], Reach::Timing, TIMING),
    rule("load.", &["load"], Reach::Content, VECTORS),
    rule("chunk.", &["chunk"], Reach::Content, VECTORS),
    rule("ingest.", &["insert"], Reach::Content, VECTORS),
    rule("cache.", &[], Reach::Timing, "nothing: a replay makes every vector itself"),
    rule("vectors.pool_size", &["insert", "retrieve"], Reach::Timing, TIMING),
    rule("vectors.statement_timeout_ms", &[], Reach::Timing, NOTHING),
    rule("vectors.collection", &["retrieve"], Reach::Content, RETRIEVAL),
    rule("vectors.", &["insert", "retrieve"], Reach::Content, RETRIEVAL),
    rule("retrieve.", &["retrieve"], Reach::Content, RETRIEVAL),
    rule("rerank.candidates", &["retrieve", "rerank"], Reach::Content, RETRIEVAL),
    rule("rerank.", &["rerank"], Reach::Content, RETRIEVAL),
    rule("postprocess.", &["rerank"], Reach::Content, RETRIEVAL),
    rule("query.", &["embed_query", "retrieve"], Reach::Content, RETRIEVAL),
    rule("query_cache.", &[], Reach::Timing, "nothing: a replay asks every question anew"),
    rule("eval.", &[], Reach::Timing, NOTHING),
    rule("synthesize.api_key_env", &[], Reach::Timing, NOTHING),
    rule("synthesize.timeout_ms", &[], Reach::Timing, NOTHING),
    rule("synthesize.url", &["llm"], Reach::Content, ANSWER),
    rule("synthesize.", &["llm"], Reach::Content, ANSWER),
    rule("seed", &["llm"], Reach::Content, ANSWER),
];

/// A setting without a rule is one of another program's; nothing is known of it.
static UNKNOWN: Rule = rule("", &[], Reach::Timing, TIMING);

const TIMING: &str = "timing only; every recorded content stays valid";
const NOTHING: &str = "nothing that was recorded";
const ANSWER: &str = "the answer; retrieval stays valid";
const RETRIEVAL: &str = "what is retrieved, so the prompt and the answer";
const VECTORS: &str = "vectors, so everything that is retrieved and answered";

/// Stages right after a stage.
const fn next(stage: &str) -> &'static [&'static str] {
    match stage.as_bytes() {
        b"load" => &["chunk"],
        b"chunk" => &["embed"],
        b"embed" => &["insert"],
        b"insert" => &["index"],
        b"index" | b"embed_query" => &["retrieve"],
        b"retrieve" => &["rerank", "llm"],
        b"rerank" => &["llm"],
        _ => &[],
    }
}

fn rule_of(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| name.starts_with(rule.prefix)).unwrap_or(&UNKNOWN)
}

/// Settings of `target` that differ from `source`.
pub(crate) fn changes(
    source: &BTreeMap<String, Json>,
    target: &BTreeMap<String, Json>,
    has_ingest: bool,
) -> Vec<Change> {
    target
        .iter()
        .filter(|(name, to)| source.get(*name) != Some(to))
        // Where the vectors are is not a choice of a replay's, unless the recording says otherwise.
        .filter(|(name, to)| {
            source.contains_key(*name) || !(name.starts_with("vectors.") || to.is_null())
        })
        .map(|(name, to)| {
            let rule = rule_of(name);
            let is_of_ingest = rule
                .roots
                .iter()
                .any(|root| matches!(*root, "load" | "chunk" | "embed" | "insert"));
            let needs_ingest = is_of_ingest
                && rule.reach == Reach::Content
                && !name.starts_with("vectors.")
                && !name.starts_with("embed.url");
            let effect = if rule.roots == ["embed"] && !has_ingest {
                "nothing: the workload has no ingest, and a query embeds one text"
            } else {
                rule.effect
            };
            Change {
                name: name.clone(),
                from: source.get(name).cloned().unwrap_or_default(),
                to: to.clone(),
                effect: effect.to_owned(),
                needs_ingest,
                rule,
            }
        })
        .collect()
}

/// The closure: every stage that a change reaches, itself or through another stage.
pub(super) fn reached(changes: &[Change]) -> Vec<Reached> {
    let mut found: Vec<Reached> = Vec::new();
    for change in changes {
        for &root in change.rule.roots {
            let mut open = vec![root];
            while let Some(stage) = open.pop() {
                let known = |at: &Reached| at.stage == stage && at.setting == change.name;
                if found.iter().any(known) {
                    continue;
                }
                let reach = change.rule.reach;
                found.push(Reached { stage, setting: change.name.clone(), reach, through: root });
                if reach == Reach::Content {
                    open.extend(next(stage));
                }
            }
        }
    }
    found
}

/// Whether a setting reaches a stage, and how; for those who predict.
#[must_use]
pub fn reach_of(setting: &str, stage: &str) -> Option<Reach> {
    let rule = rule_of(setting);
    let change = Change {
        name: setting.to_owned(),
        from: Json::Null,
        to: Json::Null,
        effect: String::new(),
        needs_ingest: false,
        rule,
    };
    reached(&[change]).into_iter().find(|found| found.stage == stage).map(|found| found.reach)
}

#[cfg(test)]
mod tests {
    use retake_schemas::settings::RagSettings;

    use super::*;

    /// Scenario: every setting that the built-in pipeline has.
    /// Guarantees: each has a rule, so that a new one cannot silently count as harmless.
    #[test]
    fn every_setting_has_a_rule() {
        for name in RagSettings::default().flat().keys() {
            assert!(!std::ptr::eq(rule_of(name), &raw const UNKNOWN), "{name} has no rule");
        }
    }

    /// Scenario: one setting of each row of the table in docs/replay.md.
    /// Guarantees: the stages whose recorded output is invalid are exactly those.
    #[test]
    fn the_closure_is_the_documented_table() {
        for (setting, invalid) in [
            ("embed.batch_size", &[][..]),
            ("workers", &[]),
            ("limits.concurrency", &[]),
            ("cache.enabled", &[]),
            ("chunk.size", &["chunk", "embed", "insert", "index", "retrieve", "rerank", "llm"]),
            (
                "embed.model",
                &["embed", "insert", "index", "embed_query", "retrieve", "rerank", "llm"],
            ),
            ("retrieve.top_k", &["retrieve", "rerank", "llm"]),
            ("rerank.provider", &["rerank", "llm"]),
            ("postprocess.steps", &["rerank", "llm"]),
            ("query.transform", &["embed_query", "retrieve", "rerank", "llm"]),
            ("query_cache.mode", &[]),
            ("eval.judge_model", &[]),
            ("synthesize.temperature", &["llm"]),
            ("seed", &["llm"]),
        ] {
            let found: Vec<&str> = STAGES
                .into_iter()
                .filter(|stage| reach_of(setting, stage) == Some(Reach::Content))
                .collect();
            assert_eq!(found, invalid, "{setting}");
        }
        assert_eq!(reach_of("embed.batch_size", "embed"), Some(Reach::Timing));
        assert_eq!(reach_of("embed.batch_size", "llm"), None);
    }
}
