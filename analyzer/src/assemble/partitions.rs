//! The rows of runs, by partition of the scan.

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::prelude::{col, lit};
use futures::StreamExt;
use retake_schemas::RunId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::AnalyzeError;
use crate::session::Analyzer;

type Batch = Result<RecordBatch, DataFusionError>;

/// The batches of the spans of runs. Every partition is decoded on a task of its own, in the order of
/// its files; batches are handed out in turn, so that their order is the same each time.
#[derive(Debug)]
pub(super) struct Partitions {
    batches: Vec<Option<mpsc::Receiver<Batch>>>,
    turn: usize,
    // Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Partitions {
    pub(super) async fn read(
        analyzer: &Analyzer,
        runs: &[RunId],
        columns: &[&str],
    ) -> Result<Self, AnalyzeError> {
        let streams = analyzer
            .context()
            .table("spans")
            .await?
            .filter(
                col("run_id").in_list(runs.iter().map(|run| lit(run.as_str())).collect(), false),
            )?
            .select_columns(columns)?
            .execute_stream_partitioned()
            .await?;
        let mut tasks = JoinSet::new();
        let batches = streams
            .into_iter()
            .map(|mut stream| {
                let (send, batches) = mpsc::channel(AHEAD);
                tasks.spawn(async move {
                    while let Some(batch) = stream.next().await {
                        if send.send(batch).await.is_err() {
                            return;
                        }
                    }
                });
                Some(batches)
            })
            .collect();
        Ok(Self { batches, turn: 0, _tasks: tasks })
    }

    /// How many partitions there are.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// The next batch and its partition; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<(usize, Batch)> {
        let mut ended = 0;
        while ended < self.batches.len() {
            let partition = self.turn;
            self.turn = (self.turn + 1) % self.batches.len();
            let place = self.batches.get_mut(partition)?;
            match place {
                Some(batches) => match batches.recv().await {
                    Some(batch) => return Some((partition, batch)),
                    None => *place = None,
                },
                None => ended += 1,
            }
        }
        None
    }
}

/// Batches decoded ahead of whoever asks, of each partition.
const AHEAD: usize = 4;
