//! What a sweep sweeps: the built-in pipeline, a service, or a program.

use std::collections::BTreeMap;
use std::sync::Arc;

use retake_recorder::Store;
use retake_replay::engine::ReplayReport;
use retake_replay::sweep::Point;
use retake_schemas::RunId;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::outcome::Row;
use crate::cli::{RagArgs, ReplayArgs, Sweep};
use crate::commands::replay::{Lane, Prepared, Source, outside};
use crate::context::Context;
use crate::failure::{Code, Failure};

/// A recorded run, and what replays it.
pub(super) enum Subject {
    /// The pipeline, whose time can be predicted.
    BuiltIn(Arc<Source>),
    /// A service or a program, which is measured only.
    Outside(Box<outside::Prepared>),
}

impl Subject {
    pub(super) fn read(context: &Context, store: &Store, args: &Sweep) -> Result<Self, Failure> {
        let replay = replay_args(args, none(args));
        if args.target.is_none() && args.target_cmd.is_none() {
            let run_id = context.select(store, &args.run)?;
            return Ok(Self::BuiltIn(Arc::new(Source::read(context, store, &run_id, &replay)?)));
        }
        Ok(Self::Outside(Box::new(outside::Prepared::new(context, store, &replay)?)))
    }

    pub(super) fn built_in(&self) -> Option<&Source> {
        match self {
            Self::BuiltIn(source) => Some(source),
            Self::Outside(_) => None,
        }
    }

    /// The run that is replayed, or the workload file.
    pub(super) fn source(&self) -> String {
        match self {
            Self::BuiltIn(source) => source.run_id.to_string(),
            Self::Outside(prepared) => {
                prepared.source().map_or_else(|| "a workload file".to_owned(), RunId::to_string)
            }
        }
    }

    /// Settings of the run that is replayed, as far as a replay can have them too.
    pub(super) fn recorded_settings(&self) -> BTreeMap<String, Json> {
        self.built_in().map(|source| source.observed.settings.clone()).unwrap_or_default()
    }

    /// A setting, if it is possible.
    pub(super) fn row(
        &self,
        context: &Context,
        args: &Sweep,
        point: &Point,
    ) -> Result<Row, Failure> {
        let rag = RagArgs { set: point.assignments.clone(), ..none(args) };
        match self {
            Self::BuiltIn(source) => {
                let prepared = Prepared::of(context, Arc::clone(source), &replay_args(args, rag))?;
                if let Some(reason) = &prepared.plan.refusal {
                    let message = format!("sweep {} with {}: {reason}", source.run_id, point.label);
                    return Err(Failure::new(Code::NotReplayable, message));
                }
                let is_as_recorded = prepared.plan.changes.is_empty();
                Ok(Row::new(point.clone(), prepared.target(), is_as_recorded))
            }
            Self::Outside(prepared) => {
                Ok(Row::new(point.clone(), prepared.with(rag)?.settings(), false))
            }
        }
    }

    /// Replays once with these settings.
    pub(super) async fn replay(
        &self,
        (context, store): (&Context, &Store),
        (args, rag): (&Sweep, RagArgs),
        group: Option<&str>,
        cancel: CancellationToken,
    ) -> Result<(RunId, ReplayReport), Failure> {
        match self {
            Self::BuiltIn(source) => {
                let args = replay_args(args, rag);
                let prepared = Prepared::of(context, Arc::clone(source), &args)?;
                let lane = Lane { args: &args, group, number: 1 };
                let replayed = prepared.execute(context, store, lane, cancel).await?;
                Ok((replayed.run_id, replayed.report))
            }
            Self::Outside(prepared) => {
                let ran = prepared.with(rag)?.execute(context, store, (group, 1), cancel).await?;
                Ok((ran.run_id, ran.report))
            }
        }
    }
}

/// What a replay of a sweep is asked when it changes nothing.
fn none(args: &Sweep) -> RagArgs {
    RagArgs { set: Vec::new(), run: None, label: args.label.clone(), capture: None }
}

fn replay_args(args: &Sweep, rag: RagArgs) -> ReplayArgs {
    let mut replay = ReplayArgs::of(args.run.clone(), rag);
    replay.arrival = Some(args.arrival);
    replay.speed = args.speed;
    replay.seed = args.seed;
    replay.llm = args.llm;
    replay.on_miss = args.on_miss;
    replay.target = args.target.clone();
    replay.target_cmd = args.target_cmd.clone();
    replay.operations = args.operations;
    replay.kind = args.kind.clone();
    replay
}
