//! The runs as the shell sees them, kept up with what is recorded meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use retake_analyzer::AnalyzerOptions;
use retake_analyzer::{AnalyzeError, Analyzer, Scope};
use retake_recorder::Store;
use retake_schemas::RunId;

use super::complete::Names;

/// An analyzer, and what tells whether it is still up to date.
#[derive(Debug)]
pub(crate) struct Opened {
    store: Store,
    scope: Scope,
    options: AnalyzerOptions,
    pub(crate) analyzer: Arc<Analyzer>,
    pub(crate) names: Names,
    seen: Vec<RunState>,
    opening_took: Duration,
}

/// What changes when a run does: its folder, when a manifest or segment takes its place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RunState {
    run_id: RunId,
    changed: Option<SystemTime>,
    is_live: bool,
}

/// What a look at the store led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    Unchanged,
    /// So many runs came and went.
    Reopened {
        came: usize,
        went: usize,
    },
    /// It changed, and opening it takes too long to be done unasked.
    Stale,
}

impl Opened {
    pub(crate) async fn open(
        store: Store,
        scope: Scope,
        options: AnalyzerOptions,
    ) -> Result<Self, AnalyzeError> {
        let seen = states(&store)?;
        let began = Instant::now();
        let analyzer = Arc::new(Analyzer::open_with(&store, scope.clone(), &options)?);
        let names = names(&analyzer).await?;
        let opening_took = began.elapsed();
        Ok(Self { store, scope, options, analyzer, names, seen, opening_took })
    }

    /// Opens the store anew if it changed and that is cheap.
    pub(crate) async fn refresh(&mut self) -> Result<Refresh, AnalyzeError> {
        let now = states(&self.store)?;
        // The journal of a run that is being recorded grows without its folder changing.
        if now == self.seen && !now.iter().any(|run| run.is_live) {
            return Ok(Refresh::Unchanged);
        }
        if self.opening_took > OPENING_MAX {
            return Ok(if now == self.seen { Refresh::Unchanged } else { Refresh::Stale });
        }
        self.reopen().await
    }

    /// Opens the store anew.
    pub(crate) async fn reopen(&mut self) -> Result<Refresh, AnalyzeError> {
        let (store, scope) = (self.store.clone(), self.scope.clone());
        let before = self.analyzer.runs();
        *self = Self::open(store, scope, self.options.clone()).await?;
        let after = self.analyzer.runs();
        let is_in = |runs: &[retake_schemas::tables::RunRow], run_id: &str| {
            runs.iter().any(|run| run.run_id == run_id)
        };
        let came = after.iter().filter(|run| !is_in(&before, &run.run_id)).count();
        let went = before.iter().filter(|run| !is_in(&after, &run.run_id)).count();
        Ok(Refresh::Reopened { came, went })
    }
}

async fn names(analyzer: &Analyzer) -> Result<Names, AnalyzeError> {
    let mut runs = analyzer.runs();
    runs.sort_by_key(|run| std::cmp::Reverse(run.started_unix_ns));
    Ok(Names {
        relations: analyzer.relations().await?,
        functions: analyzer.functions().into_iter().map(|function| function.name).collect(),
        run_ids: runs.into_iter().map(|run| run.run_id).collect(),
    })
}

fn states(store: &Store) -> Result<Vec<RunState>, AnalyzeError> {
    let state = |run_id: RunId| RunState {
        changed: std::fs::metadata(store.run_dir(&run_id)).and_then(|m| m.modified()).ok(),
        is_live: store.is_live(&run_id),
        run_id,
    };
    Ok(store.run_ids()?.into_iter().map(state).collect())
}

/// What a person does not feel between Enter and the answer.
const OPENING_MAX: Duration = Duration::from_millis(300);
