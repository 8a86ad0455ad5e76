//! The rows of runs, by partition of the scan.

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::prelude::{DataFrame, col, lit};
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
        let frame = analyzer
            .context()
            .table("spans")
            .await?
            .filter(
                col("run_id").in_list(runs.iter().map(|run| lit(run.as_str())).collect(), false),
            )?
            .select_columns(columns)?;
        let (mut state, plan) = frame.into_parts();
        // A partition that is idle would take files of another, this time so and next time otherwise;
        // traces that are spread over files are told apart by where their rows stand, in two readings.
        state.config_mut().options_mut().execution.enable_file_stream_work_stealing = false;
        let streams = DataFrame::new(state, plan).execute_stream_partitioned().await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use crate::assemble::{text, value};
    use crate::fixture::{Fixture, question};

    /// Scenario: a run of many small files is read again and again, on as many partitions as there are.
    /// Guarantees: each reading gives the same rows to the same partitions in the same order.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_reading_is_the_same() {
        let fixture = Fixture::new();
        let run_id = fixture.run("r", |recorder| {
            for trace in 0..24 {
                question(recorder, trace, 0, 1_000);
                recorder.flush().unwrap();
                recorder.seal().unwrap();
            }
        });
        let analyzer = Analyzer::open(&fixture.store, Scope::All).unwrap();
        let mut first: Option<Vec<(usize, String)>> = None;
        for _ in 0..20 {
            let runs = std::slice::from_ref(&run_id);
            let mut batches = Partitions::read(&analyzer, runs, &["trace_id"]).await.unwrap();
            assert!(batches.len() > 1, "there is nothing to take from another partition");
            let mut rows = Vec::new();
            while let Some((partition, batch)) = batches.next().await {
                let batch = batch.unwrap();
                let ids = text(&batch, "trace_id").unwrap();
                let of_row = |row| (partition, value(&ids, row).unwrap().to_owned());
                rows.extend((0..batch.num_rows()).map(of_row));
            }
            // Which partition is heard first does not matter, only what each of them says.
            rows.sort_by_key(|(partition, _)| *partition);
            assert_eq!(first.get_or_insert_with(|| rows.clone()), &rows);
        }
    }
}
