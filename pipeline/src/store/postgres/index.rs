//! The search index: which one there is, building the one the settings want, and asking it.
//!
//! An index is known by what the database says of it (access method and parameters), not by its
//! name or by what was built once, so one that somebody changed is seen.

use retake_schemas::settings::{VectorIndex, VectorSettings};

use super::statements::ChunksTable;
use super::{PostgresStore, Work, execute, failed, lock, table};
use crate::error::PipelineError;
use crate::store::Wanted;

/// An index as it is, or as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// A graph.
    Hnsw {
        /// Neighbours of a vector.
        m: u32,
        /// Candidates while it is built.
        ef_construction: u32,
    },
    /// Lists around centres.
    IvfFlat {
        /// How many.
        lists: u32,
    },
}

impl Index {
    /// The access method.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Hnsw { .. } => "hnsw",
            Self::IvfFlat { .. } => "ivfflat",
        }
    }

    /// The parameters, as they stand in a statement.
    pub(super) fn parameters(self) -> String {
        match self {
            Self::Hnsw { m, ef_construction } => {
                format!("m = {m}, ef_construction = {ef_construction}")
            }
            Self::IvfFlat { lists } => format!("lists = {lists}"),
        }
    }

    /// What the settings want for so many vectors; nothing for so few that a scan is as fast.
    fn wanted(settings: &VectorSettings, rows: u64) -> Option<Self> {
        if rows < INDEX_ROWS_MIN {
            return None;
        }
        match settings.index {
            VectorIndex::None => None,
            VectorIndex::Hnsw => Some(Self::Hnsw {
                m: settings.hnsw_m,
                ef_construction: settings.hnsw_ef_construction,
            }),
            VectorIndex::Ivfflat => Some(Self::IvfFlat {
                lists: if settings.ivfflat_lists > 0 {
                    settings.ivfflat_lists
                } else {
                    lists_for(rows)
                },
            }),
        }
    }

    /// Whether this index does for what is wanted. The lists of an IVFFlat are laid around the
    /// vectors there were when it was built; if they are to be found by the number of vectors, it is
    /// built anew when there are twice as many, or half.
    fn does_for(self, wanted: Self, settings: &VectorSettings) -> bool {
        match (self, wanted) {
            (Self::IvfFlat { lists }, Self::IvfFlat { lists: wanted })
                if settings.ivfflat_lists == 0 =>
            {
                lists < 2 * wanted && wanted < 2 * lists
            }
            (found, wanted) => found == wanted,
        }
    }

    /// What the database says: access method and parameters, with pgvector's defaults for those
    /// that were not given.
    fn of_catalog(method: &str, parameters: &[String]) -> Option<Self> {
        let number = |name: &str, default: u32| {
            let given = parameters.iter().find_map(|parameter| {
                let (key, value) = parameter.split_once('=')?;
                if key == name { value.parse().ok() } else { None }
            });
            given.unwrap_or(default)
        };
        match method {
            "hnsw" => Some(Self::Hnsw {
                m: number("m", 16),
                ef_construction: number("ef_construction", 64),
            }),
            "ivfflat" => Some(Self::IvfFlat { lists: number("lists", 100) }),
            _ => None,
        }
    }
}

/// The index there is, with its name.
pub(super) async fn find(
    executor: impl sqlx::PgExecutor<'_>,
    table: ChunksTable,
) -> Result<Option<(String, Index)>, sqlx::Error> {
    let rows: Vec<(String, String, Option<Vec<String>>)> = sqlx::query_as(
        "SELECT c.relname::text, am.amname::text, c.reloptions FROM pg_index i
         JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
         WHERE i.indrelid = to_regclass($1) AND i.indisvalid ORDER BY c.relname",
    )
    .bind(table.name())
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().find_map(|(name, method, parameters)| {
        let index = Index::of_catalog(&method, &parameters.unwrap_or_default())?;
        Some((name, index))
    }))
}

/// Builds the index the settings want, unless it is there or the collection is too small to need
/// one. One that is not wanted goes, in the same transaction.
pub(super) async fn build(store: &PostgresStore) -> Result<(), PipelineError> {
    let opened = store.opened(FINISH)?;
    let table = table(FINISH, &opened)?;
    let settings = &store.settings;
    let mut transaction = store.begin(FINISH).await?;
    // The build of a large index outlasts any sensible limit of a query.
    execute(&mut transaction, "SET LOCAL statement_timeout = 0").await?;
    lock(&mut transaction, opened.id).await.map_err(failed(FINISH))?;
    let rows: i64 = sqlx::query_scalar(table.count())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(FINISH))?;
    let found = find(&mut *transaction, table).await.map_err(failed(FINISH))?;
    let rows = crate::store::vector::count(rows);
    let wanted = Index::wanted(settings, rows).filter(|_| table.can_be_indexed());
    let kept = match (&found, wanted) {
        (Some((_, index)), Some(wanted)) if index.does_for(wanted, settings) => Some(*index),
        // Of a collection that became small. It is right, if not needed.
        (Some((_, index)), None) if settings.index != VectorIndex::None => Some(*index),
        _ => None,
    };
    if let (Some((name, _)), None) = (&found, kept) {
        execute(&mut transaction, table.drop_index(name)).await?;
    }
    let index = match (kept, wanted) {
        (None, Some(wanted)) => {
            execute(&mut transaction, table.create_index(wanted)).await?;
            Some(wanted)
        }
        (kept, _) => kept,
    };
    execute(&mut transaction, table.analyze()).await?;
    transaction.commit().await.map_err(failed(FINISH))?;
    *store.index.write() = index;
    Ok(())
}

/// Lets the index find as many rows as are wanted: by default HNSW looks at 40 and IVFFlat at one
/// list, and then they stop.
pub(super) async fn prepare_scan(
    transaction: &mut Work<'_>,
    index: Option<Index>,
    settings: &VectorSettings,
    wanted: Wanted<'_>,
) -> Result<(), sqlx::Error> {
    let statement = match index {
        Some(Index::IvfFlat { .. }) => {
            "SELECT set_config('ivfflat.probes', $1, true),
                    set_config('ivfflat.iterative_scan', 'relaxed_order', true)"
        }
        _ => {
            "SELECT set_config('hnsw.ef_search', $1, true),
                    set_config('hnsw.iterative_scan', 'relaxed_order', true)"
        }
    };
    let effort = match index {
        Some(Index::IvfFlat { .. }) if settings.ivfflat_probes > 0 => settings.ivfflat_probes,
        Some(Index::IvfFlat { lists }) => probes_for(lists),
        _ if settings.hnsw_ef_search > 0 => settings.hnsw_ef_search,
        _ => u32::try_from(wanted.top_k.saturating_mul(2))
            .unwrap_or(EF_SEARCH_MAX)
            .clamp(EF_SEARCH_MIN, EF_SEARCH_MAX),
    };
    sqlx::query(statement).bind(effort.to_string()).execute(&mut **transaction).await.map(drop)
}

/// pgvector's advice: a thousand vectors a list, and beyond a million vectors their root; some lists
/// in any case.
fn lists_for(rows: u64) -> u32 {
    let lists = if rows <= 1_000_000 { rows / 1000 } else { rows.isqrt() };
    u32::try_from(lists).unwrap_or(LISTS_MAX).clamp(LISTS_MIN, LISTS_MAX)
}

/// Twice pgvector's advice, the root: that is where nine neighbours in ten are found also in
/// collections of a few thousand vectors.
fn probes_for(lists: u32) -> u32 {
    (2 * lists.isqrt()).clamp(1, lists)
}

const FINISH: &str = "build search index";
/// Below this an exact scan takes about a millisecond and is always right.
const INDEX_ROWS_MIN: u64 = 1000;
/// pgvector's own default.
const EF_SEARCH_MIN: u32 = 40;
/// The most pgvector allows; an iterative scan goes on beyond it.
const EF_SEARCH_MAX: u32 = 1000;
/// With fewer, the lists are the collection.
const LISTS_MIN: u32 = 10;
/// The most pgvector allows.
const LISTS_MAX: u32 = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_what_the_catalog_says() {
        let of = |method: &str, parameters: &[&str]| {
            let parameters: Vec<String> = parameters.iter().map(|p| (*p).to_owned()).collect();
            Index::of_catalog(method, &parameters)
        };
        let default = Index::Hnsw { m: 16, ef_construction: 64 };
        assert_eq!(of("hnsw", &[]), Some(default));
        assert_eq!(
            of("hnsw", &["ef_construction=99", "m=7"]),
            Some(Index::Hnsw { m: 7, ef_construction: 99 })
        );
        assert_eq!(of("ivfflat", &["lists=12"]), Some(Index::IvfFlat { lists: 12 }));
        assert_eq!(of("btree", &[]), None);
        let settings = VectorSettings::default();
        assert_eq!(Index::wanted(&settings, 999), None);
        assert_eq!(Index::wanted(&settings, 1000), Some(default));
    }

    /// Guarantees: lists grow with the collection, and are laid anew when it is another one; lists
    /// that were asked for are taken as they are.
    #[test]
    fn lists_fit_the_collection() {
        assert_eq!([1000, 58_703, 4_000_000].map(lists_for), [10, 58, 2000]);
        assert_eq!([1, 10, 58, 2000].map(probes_for), [1, 6, 14, 88]);
        let lists = |lists| Index::IvfFlat { lists };
        let mut settings = VectorSettings { index: VectorIndex::Ivfflat, ..Default::default() };
        assert!(lists(58).does_for(lists(100), &settings));
        assert!(!lists(50).does_for(lists(100), &settings));
        assert!(!lists(100).does_for(lists(50), &settings));
        settings.ivfflat_lists = 100;
        assert!(!lists(99).does_for(lists(100), &settings));
        assert_eq!(Index::wanted(&settings, 5000), Some(lists(100)));
    }
}
