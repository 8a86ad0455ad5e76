//! How long a stage takes: what a replay in virtual time uses instead of the real thing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::StageSource;
use crate::target::Operation;

/// The stages of every operation, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Version of the format.
    #[serde(default = "version")]
    pub schema_version: u32,
    /// The stages, in the order in which an operation passes them.
    pub stages: Vec<StageModel>,
}

/// One stage: so many servers with one queue before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageModel {
    /// Name, such as `llm`.
    pub stage: String,
    /// Operations served at the same time; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Operations that may wait; one that finds the queue full is refused. `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// How long an operation is served.
    pub service: Service,
}

/// Service time of one operation, without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Service {
    /// As long as the operation took when it was recorded.
    Recorded,
    /// `base_ns + input_token_ns * tokens_in`, and `output_token_ns` for each output token after
    /// the first. The first one comes when the first two terms are over.
    Linear {
        /// Of every operation, ns.
        #[serde(default)]
        base_ns: f64,
        /// Of an input token, ns.
        #[serde(default)]
        input_token_ns: f64,
        /// Of an output token after the first, ns.
        #[serde(default)]
        output_token_ns: f64,
    },
}

/// A service time taken apart: until the first token, and then a step for each other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) first_ns: i64,
    pub(super) step_ns: i64,
    /// Output tokens after the first.
    pub(super) steps: u32,
}

impl Demand {
    pub(super) fn total_ns(self) -> i64 {
        self.first_ns + self.step_ns * i64::from(self.steps)
    }
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be read.
    #[error("read model {path}: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It says something that cannot be.
    #[error("use model: {0}")]
    Wrong(String),
}

impl Model {
    /// Its numbers by name, as settings of the run that it makes.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        let mut settings = BTreeMap::new();
        for stage in &self.stages {
            let mut set = |name: &str, value: serde_json::Value| {
                settings.insert(format!("model.{}.{name}", stage.stage), value);
            };
            set("slots", stage.slots.into());
            set("queue_max", stage.queue_max.into());
            match stage.service {
                Service::Recorded => set("service", "recorded".into()),
                Service::Linear { base_ns, input_token_ns, output_token_ns } => {
                    set("base_ns", base_ns.into());
                    set("input_token_ns", input_token_ns.into());
                    set("output_token_ns", output_token_ns.into());
                }
            }
        }
        settings
    }

    /// One stage without a limit, in which every operation takes as long as it did.
    #[must_use]
    pub fn recorded() -> Self {
        let stage = StageModel {
            stage: "recorded".to_owned(),
            slots: None,
            queue_max: None,
            service: Service::Recorded,
        };
        Self { schema_version: version(), stages: vec![stage] }
    }

    /// Reads a model from JSON.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|error| ModelError::Read {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let model: Self =
            serde_json::from_str(&text).map_err(|error| ModelError::Wrong(error.to_string()))?;
        model.check()?;
        Ok(model)
    }

    /// Whether the model can be used.
    ///
    /// # Errors
    /// [`ModelError::Wrong`], with the stage and the number.
    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |text: String| Err(ModelError::Wrong(text));
        if self.schema_version != version() {
            return wrong(format!(
                "its schema_version is {}, not {}",
                self.schema_version,
                version()
            ));
        }
        if self.stages.is_empty() || self.stages.len() > STAGES_MAX {
            return wrong(format!(
                "it has {} stages, expected 1 to {STAGES_MAX}",
                self.stages.len()
            ));
        }
        for (position, stage) in self.stages.iter().enumerate() {
            let name = &stage.stage;
            if self.stages.iter().take(position).any(|other| other.stage == *name) {
                return wrong(format!("stage {name} is there twice"));
            }
            if stage.slots == Some(0) {
                return wrong(format!("stage {name} has 0 slots; leave `slots` out for no limit"));
            }
            let Service::Linear { base_ns, input_token_ns, output_token_ns } = stage.service else {
                continue;
            };
            let terms = [base_ns, input_token_ns, output_token_ns];
            if terms.iter().any(|term| !(0.0..=TERM_NS_MAX).contains(term)) {
                return wrong(format!("stage {name} has a time that is negative or above an hour"));
            }
        }
        Ok(())
    }
}

impl Service {
    /// What it stands for: the recording, or a model of an operation whose content is there or not.
    #[must_use]
    pub const fn source(self, has_content: bool) -> StageSource {
        match self {
            Self::Recorded if has_content => StageSource::Recorded,
            Self::Linear { .. } if has_content => StageSource::RecordedModel,
            Self::Recorded | Self::Linear { .. } => StageSource::Model,
        }
    }

    /// The demand of an operation; `None` when the operation lacks what the model needs.
    pub(super) fn demand(self, operation: &Operation) -> Option<Demand> {
        match self {
            Self::Recorded => (operation.recorded_duration_ns > 0).then_some(Demand {
                first_ns: operation.recorded_duration_ns,
                step_ns: 0,
                steps: 0,
            }),
            Self::Linear { base_ns, input_token_ns, output_token_ns } => {
                let tokens = |count: Option<u64>, needed: bool| match count {
                    None if needed => None,
                    count => Some(count.unwrap_or(0)),
                };
                let input = tokens(operation.shape.tokens_in, input_token_ns > 0.0)?;
                let output = tokens(operation.shape.tokens_out, output_token_ns > 0.0)?;
                let streams = output_token_ns > 0.0;
                Some(Demand {
                    first_ns: (base_ns + input_token_ns * input as f64).round() as i64,
                    step_ns: output_token_ns.round() as i64,
                    steps: if streams { u32::try_from(output.saturating_sub(1)).ok()? } else { 0 },
                })
            }
        }
    }
}

const fn version() -> u32 {
    1
}

/// More is no pipeline.
const STAGES_MAX: usize = 16;
/// No coefficient is larger: a product with the longest input still fits 64 bits.
const TERM_NS_MAX: f64 = 3.6e12;
