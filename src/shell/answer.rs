//! A query that Ctrl-C can end, and what is kept of its result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retake_analyzer::{AnalyzeError, Analyzer, QueryResult};

/// The beginning of a result, and how long all of it is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: QueryResult,
    /// Rows there are; those beyond what is kept were counted and dropped.
    pub(crate) rows: usize,
    pub(crate) took: Duration,
}

/// Ends a query when it is done.
pub(crate) type Stop<'s> = Pin<&'s mut (dyn Future<Output = ()> + Send)>;

/// Runs a query and keeps its first rows; nothing when it was stopped.
pub(crate) async fn ask(
    analyzer: &Arc<Analyzer>,
    sql: &str,
    kept_max: usize,
    stop: Stop<'_>,
) -> Option<Result<Answer, AnalyzeError>> {
    let (analyzer, sql) = (Arc::clone(analyzer), sql.to_owned());
    until(stop, async move { collect(&analyzer, &sql, kept_max).await }).await
}

async fn collect(analyzer: &Analyzer, sql: &str, kept_max: usize) -> Result<Answer, AnalyzeError> {
    let began = Instant::now();
    let mut stream = analyzer.query_stream(sql).await?;
    let (mut batches, mut rows) = (Vec::new(), 0_usize);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let wanted = kept_max.saturating_sub(rows).min(batch.num_rows());
        rows += batch.num_rows();
        if wanted > 0 {
            batches.push(batch.slice(0, wanted));
        }
    }
    let result = QueryResult { schema: stream.schema(), batches };
    Ok(Answer { result, rows, took: began.elapsed() })
}

/// The work's outcome, unless `stop` comes first: then the work is dropped, and with it every
/// stream, file, and piece of memory it holds.
///
/// The work has a task of its own: a part of it that computes for long without giving way must
/// not keep Ctrl-C waiting.
async fn until<T: Send + 'static>(
    stop: Stop<'_>,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut task = tokio::spawn(work);
    tokio::select! {
        done = &mut task => match done {
            Ok(outcome) => Some(outcome),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        },
        () = stop => {
            task.abort();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Scenario: Ctrl-C while a query waits.
    /// Guarantees: the wait is over at once, and what the query held is given back.
    #[test]
    fn what_is_stopped_is_dropped() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let is_dropped = Arc::new(AtomicBool::new(false));
        let held = Held(Arc::clone(&is_dropped));
        let outcome = runtime.block_on(async {
            let stop = pin!(tokio::time::sleep(Duration::from_millis(20)));
            let endless = async move {
                let _held = held;
                std::future::pending::<()>().await;
            };
            until(stop, endless).await
        });
        assert_eq!(outcome, None);
        drop(runtime);
        assert!(is_dropped.load(Ordering::SeqCst));
    }

    /// Scenario: a query that ends before anyone stops it.
    /// Guarantees: its outcome.
    #[tokio::test]
    async fn what_is_done_is_kept() {
        let stop = pin!(std::future::pending());
        assert_eq!(until(stop, async { 7 }).await, Some(7));
    }
}
