//! The search index: building it, and asking it.

use super::{PostgresStore, SearchMode, Work, execute, failed, lock, table};
use crate::error::PipelineError;

/// Builds the search index, unless the collection is too small to need one.
pub(super) async fn build(store: &PostgresStore) -> Result<(), PipelineError> {
    let opened = store.opened(FINISH)?;
    let table = table(FINISH, &opened)?;
    let mut transaction = store.begin(FINISH).await?;
    // The build of a large index outlasts any sensible limit of a query.
    execute(&mut transaction, "SET LOCAL statement_timeout = 0").await?;
    lock(&mut transaction, opened.id).await.map_err(failed(FINISH))?;
    let rows: i64 = sqlx::query_scalar(table.count())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(FINISH))?;
    let mode = if rows >= INDEX_ROWS_MIN && table.can_be_indexed() {
        execute(&mut transaction, table.create_index()).await?;
        SearchMode::Indexed
    } else {
        store.search_mode()
    };
    execute(&mut transaction, table.analyze()).await?;
    transaction.commit().await.map_err(failed(FINISH))?;
    *store.search.write() = mode;
    Ok(())
}

/// Lets the index find `top_k` rows: by default it looks at 40 and then stops.
pub(super) async fn prepare_scan(
    transaction: &mut Work<'_>,
    top_k: usize,
) -> Result<(), sqlx::Error> {
    let candidates = top_k.saturating_mul(2).clamp(EF_SEARCH_MIN, EF_SEARCH_MAX);
    sqlx::query(
        "SELECT set_config('hnsw.ef_search', $1, true),
                set_config('hnsw.iterative_scan', 'relaxed_order', true)",
    )
    .bind(candidates.to_string())
    .execute(&mut **transaction)
    .await
    .map(drop)
}

const FINISH: &str = "build search index";
/// Below this an exact scan takes about a millisecond and is always right.
const INDEX_ROWS_MIN: i64 = 1000;
/// pgvector's own default.
const EF_SEARCH_MIN: usize = 40;
/// The most pgvector allows; an iterative scan goes on beyond it.
const EF_SEARCH_MAX: usize = 1000;
