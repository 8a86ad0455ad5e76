//! `[rag.eval]`: who judges answers, and what is good enough.

use serde::{Deserialize, Serialize};

/// An evaluator of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluatorName {
    /// How right the answer is, by a right one: 1 to 5.
    Correctness,
    /// Whether what the answer says follows from the passages.
    Faithfulness,
    /// Whether the answer, with its passages, is what the question asks for.
    Relevancy,
    /// Whether the answer speaks to the question, whatever the passages: 0 to 1.
    AnswerRelevancy,
    /// Whether the passages speak to the question: 0 to 1.
    ContextRelevancy,
    /// Whether the answer keeps to `guidelines`.
    Guideline,
    /// Cosine similarity of the answer's vector to that of a right one.
    SemanticSimilarity,
    /// Whether the answer is better than another one, asked in both orders.
    Pairwise,
}

/// Settings of evaluating.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSettings {
    /// The evaluators; without any, only what needs no judge is measured.
    pub evaluators: Vec<EvaluatorName>,
    /// Model that judges, or empty for the one that answers.
    pub judge_model: String,
    /// Base URL of the service that judges; without it, the one that answers.
    pub judge_url: Option<String>,
    /// What `guideline` judges by.
    pub guidelines: Vec<String>,
    /// Least correctness that passes, 1 to 5.
    pub correctness_min: f64,
    /// Least semantic similarity that passes, -1 to 1.
    pub similarity_min: f64,
}

impl Default for EvalSettings {
    fn default() -> Self {
        Self {
            evaluators: Vec::new(),
            judge_model: String::new(),
            judge_url: None,
            guidelines: vec![
                "It answers the question fully.".to_owned(),
                "It is not vague or ambiguous.".to_owned(),
                "It is concrete, with figures and facts where the question asks for them."
                    .to_owned(),
            ],
            correctness_min: 4.0,
            similarity_min: 0.8,
        }
    }
}
