//! Options of `model`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::replay::OperationsArg;
use crate::complete;

/// Models of services for virtual time.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Fit a model to what was recorded, for `replay run --clock virtual --model`
    #[command(after_help = "Example: retake model fit app --kind chat -o model.json")]
    Fit(ModelFit),
    /// Hold a model against a recording: latencies as they were, and as it has them
    #[command(after_help = "Example: retake model check app --kind chat --model model.json")]
    Check(ModelCheck),
}

/// The operations of a run that a model is of.
#[derive(Debug, Args)]
pub(crate) struct Modelled {
    /// A run, or a workload file
    #[arg(add = complete::one_run())]
    pub(crate) source: String,
    /// What of a run recorded from outside: its calls of models, or what it was asked
    /// [default: calls]
    #[arg(long, value_enum)]
    pub(crate) operations: Option<OperationsArg>,
    /// Only operations of these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<String>,
}

/// Options of `model fit`.
#[derive(Debug, Args)]
pub(crate) struct ModelFit {
    #[command(flatten)]
    pub(crate) of: Modelled,
    /// Name of the stage
    #[arg(long, value_name = "NAME", default_value = "llm")]
    pub(crate) stage: String,
    /// Operations that the service serves at the same time [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// Where to write the model
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Options of `model check`.
#[derive(Debug, Args)]
pub(crate) struct ModelCheck {
    #[command(flatten)]
    pub(crate) of: Modelled,
    /// The model
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
}
