//! A bounded number of tasks over a stream of items.

use std::collections::HashMap;
use std::pin::pin;

use futures::stream::{self, Stream, StreamExt as _};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<T> {
    /// Place of the item in the stream it came from, from 0.
    pub index: u64,
    /// What the work returned, or why it returned nothing.
    pub result: Result<T, Lost>,
    /// Items that have an outcome now, this one included.
    pub finished: u64,
    /// Items still being worked on.
    pub under_way: usize,
}

/// Why an item has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The work panicked; no other item is affected.
    #[error("work on an item: it panicked: {0}")]
    Panicked(String),
    /// It was begun and then cancelled. Items that were not begun have no outcome at all.
    #[error("cancelled")]
    Cancelled,
}

/// Works on `items`, at most `workers` at the same time, and gives outcomes as they are ready.
///
/// Nothing is taken from `items` that cannot be begun at once, so a slow consumer of the outcomes
/// slows the source down and no queue grows. After `cancel` nothing is begun, and what is under way
/// is dropped at its next await. Dropping the stream drops the work. Work runs in the span in which
/// the pool was made.
pub fn run<S, W, F, T>(
    items: S,
    workers: usize,
    cancel: CancellationToken,
    work: W,
) -> impl Stream<Item = Outcome<T>> + Send
where
    S: Stream + Send,
    S::Item: Send,
    W: FnMut(S::Item) -> F + Send,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let pool = Pool {
        items: Box::pin(items),
        work,
        cancel,
        workers: workers.max(1),
        tasks: JoinSet::new(),
        indices: HashMap::new(),
        next_index: 0,
        finished: 0,
        is_supplied: true,
        is_cancelled: false,
        span: Span::current(),
    };
    stream::unfold(pool, |mut pool| async move { pool.next().await.map(|next| (next, pool)) })
}

/// Drives a pool to its end; outcomes in the order of the items.
pub async fn collect<T>(outcomes: impl Stream<Item = Outcome<T>>) -> Vec<Outcome<T>> {
    let mut outcomes: Vec<Outcome<T>> = pin!(outcomes).collect().await;
    outcomes.sort_by_key(|outcome| outcome.index);
    outcomes
}

struct Pool<S, W, T> {
    items: std::pin::Pin<Box<S>>,
    work: W,
    cancel: CancellationToken,
    workers: usize,
    tasks: JoinSet<T>,
    /// Place of the item each task works on.
    indices: HashMap<Id, u64>,
    next_index: u64,
    finished: u64,
    is_supplied: bool,
    is_cancelled: bool,
    span: Span,
}

impl<S, W, F, T> Pool<S, W, T>
where
    S: Stream + Send,
    W: FnMut(S::Item) -> F + Send,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    async fn next(&mut self) -> Option<Outcome<T>> {
        loop {
            if self.tasks.is_empty() && !self.is_supplied {
                return None;
            }
            let takes = self.is_supplied && self.tasks.len() < self.workers;
            tokio::select! {
                biased;
                () = self.cancel.cancelled(), if !self.is_cancelled => {
                    self.is_cancelled = true;
                    self.is_supplied = false;
                    self.tasks.abort_all();
                }
                Some(joined) = self.tasks.join_next_with_id() => return Some(self.outcome(joined)),
                item = self.items.next(), if takes => match item {
                    Some(item) => self.begin(item),
                    None => self.is_supplied = false,
                },
            }
        }
    }

    fn begin(&mut self, item: S::Item) {
        let task = self.tasks.spawn((self.work)(item).instrument(self.span.clone()));
        self.indices.insert(task.id(), self.next_index);
        self.next_index += 1;
    }

    fn outcome(&mut self, joined: Result<(Id, T), JoinError>) -> Outcome<T> {
        let (id, result) = match joined {
            Ok((id, value)) => (id, Ok(value)),
            Err(error) => (error.id(), Err(lost(error))),
        };
        self.finished += 1;
        Outcome {
            index: self.indices.remove(&id).unwrap_or_default(),
            result,
            finished: self.finished,
            under_way: self.tasks.len(),
        }
    }
}

fn lost(error: JoinError) -> Lost {
    let Ok(panic) = error.try_into_panic() else { return Lost::Cancelled };
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    Lost::Panicked(text.unwrap_or_else(|| "it gave no reason".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    fn numbers(count: u64) -> impl Stream<Item = u64> + Send {
        stream::iter(0..count)
    }

    /// Scenario: the first of many items does not end before all the others have.
    /// Guarantees: the others do not wait for it (chunks of ten with a barrier would, for ever).
    #[tokio::test]
    async fn a_slow_item_holds_up_nobody() {
        let others = Arc::new(Semaphore::new(0));
        let work = |n: u64| {
            let others = Arc::clone(&others);
            async move {
                if n == 0 {
                    drop(others.acquire_many(99).await);
                } else {
                    others.add_permits(1);
                }
            }
        };
        let outcomes = run(numbers(100), 2, CancellationToken::new(), work);
        let order: Vec<u64> = outcomes.map(|outcome| outcome.index).collect().await;
        assert_eq!(order.len(), 100);
        assert_eq!(order.last(), Some(&0));
    }

    /// Scenario: more items than workers.
    /// Guarantees: never more under way than allowed; every item has its own result, in order when
    /// collected; progress counts up to the end.
    #[tokio::test]
    async fn no_more_than_the_workers_are_under_way() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |n: u64| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..97 * n % 31 {
                    yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                n * 2
            }
        };
        let outcomes = collect(run(numbers(50), 7, CancellationToken::new(), work)).await;
        assert_eq!(most.load(Ordering::SeqCst), 7);
        let values: Vec<u64> = outcomes.iter().map(|o| *o.result.as_ref().unwrap()).collect();
        assert_eq!(values, (0..50).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(outcomes.iter().map(|outcome| outcome.finished).max(), Some(50));
    }

    /// Scenario: one item of twenty panics, one returns nothing.
    /// Guarantees: it fails alone, and an empty result is a result (`batch_gather` drops it).
    #[tokio::test]
    async fn a_panic_costs_its_item_only() {
        let work = |n: u64| async move {
            assert_ne!(n, 7, "seven");
            (n != 8).then_some(n)
        };
        let outcomes = collect(run(numbers(20), 3, CancellationToken::new(), work)).await;
        assert_eq!(outcomes.len(), 20);
        let failed: Vec<u64> =
            outcomes.iter().filter(|o| o.result.is_err()).map(|o| o.index).collect();
        assert_eq!(failed, [7]);
        assert!(matches!(&outcomes[7].result, Err(Lost::Panicked(why)) if why.contains("seven")));
        assert_eq!(outcomes[8].result, Ok(None));
    }

    /// Scenario: cancelled while items are under way and an endless source has more.
    /// Guarantees: nothing new is begun, what was begun is reported, the pool ends.
    #[tokio::test]
    async fn a_cancelled_pool_begins_nothing_and_ends() {
        let cancel = CancellationToken::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let work = |n: u64| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move {
                if n >= 4 {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut outcomes = pin!(run(stream::iter(0..), 4, cancel.clone(), work));
        for _ in 0..4 {
            assert!(outcomes.next().await.unwrap().result.is_ok());
        }
        assert!(futures::poll!(outcomes.next()).is_pending());
        cancel.cancel();
        let rest: Vec<_> = outcomes.collect().await;
        assert!(rest.iter().all(|outcome| outcome.result == Err(Lost::Cancelled)));
        assert_eq!(rest.len() + 4, begun.load(Ordering::SeqCst));
    }

    /// Scenario: nobody takes the outcomes.
    /// Guarantees: the source is not drained into memory.
    #[tokio::test]
    async fn an_unread_pool_takes_no_more_than_it_can_begin() {
        let taken = Arc::new(AtomicUsize::new(0));
        let source = stream::iter(0..1_000_u64).inspect(|_| {
            taken.fetch_add(1, Ordering::SeqCst);
        });
        let mut outcomes = pin!(run(source, 3, CancellationToken::new(), |n| async move { n }));
        assert!(outcomes.next().await.is_some());
        assert!(taken.load(Ordering::SeqCst) <= 4);
    }
}
