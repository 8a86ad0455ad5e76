//! Connecting to PostgreSQL, and making sure that pgvector and our tables are there.

use std::str::FromStr;
use std::time::Duration;

use retake_schemas::settings::{VectorSettings, without_password};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use super::version::ExtensionVersion;
use super::{LOCK_OF_SCHEMA, failed};
use crate::error::PipelineError;

/// Opens a pool whose every connection has the statement timeout of the settings.
pub(super) async fn connect(url: &str, settings: &VectorSettings) -> Result<PgPool, PipelineError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        // The parser's own message may quote the URL with its password.
        PipelineError::Configuration(format!(
            "read vector store URL: not a PostgreSQL URL: {:?}",
            without_password(url)
        ))
    })?;
    // Each statement would become an event in the trace of the stage that sent it.
    let options = options.application_name(APPLICATION_NAME).disable_statement_logging();
    let timeout_ms = settings.statement_timeout_ms.to_string();
    // A pool tries until its time is up and then says no more than that; one connection says why.
    let first = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
    if let Ok(first) = first {
        let connection = first.map_err(failed("connect to PostgreSQL"))?;
        let _ = connection.close().await;
    }
    PgPoolOptions::new()
        .max_connections(settings.pool_size.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let timeout_ms = timeout_ms.clone();
            Box::pin(async move {
                // Notices would be events in the trace of the stage that caused them.
                sqlx::query(
                    "SELECT set_config('statement_timeout', $1, false),
                            set_config('client_min_messages', 'warning', false)",
                )
                .bind(timeout_ms)
                .execute(connection)
                .await
                .map(drop)
            })
        })
        .connect_with(options)
        .await
        .map_err(failed("connect to PostgreSQL"))
}

/// Checks that a pgvector we can trust is there, and enables it if it is only installed.
pub(super) async fn ensure_extension(pool: &PgPool, url: &str) -> Result<(), PipelineError> {
    let installed = match extension_version(pool).await? {
        Some(version) => Some(version),
        None => {
            enable_extension(pool, url).await?;
            extension_version(pool).await?
        }
    };
    let found = installed.unwrap_or_default();
    if ExtensionVersion::parse(&found).is_some_and(|version| version >= ExtensionVersion::OLDEST) {
        return Ok(());
    }
    Err(PipelineError::Configuration(too_old(&found, url)))
}

pub(super) fn too_old(found: &str, url: &str) -> String {
    format!(
        "use pgvector {found:?}: {} or newer is needed (older ones have a memory-safety fault); \
         install it on the server and run ALTER EXTENSION vector UPDATE, on {}",
        ExtensionVersion::OLDEST,
        without_password(url)
    )
}

async fn extension_version(pool: &PgPool) -> Result<Option<String>, PipelineError> {
    sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        .fetch_optional(pool)
        .await
        .map_err(failed("look up pgvector"))
}

async fn enable_extension(pool: &PgPool, url: &str) -> Result<(), PipelineError> {
    match sqlx::query("CREATE EXTENSION IF NOT EXISTS vector").execute(pool).await {
        Ok(_) => Ok(()),
        // Two processes may enable it at the same moment; one of them gets a unique violation.
        Err(_) if extension_version(pool).await?.is_some() => Ok(()),
        Err(error) => Err(PipelineError::Configuration(format!(
            "enable pgvector: {error}; install pgvector {} or newer on the server and run \
             CREATE EXTENSION vector as a superuser, on {}",
            ExtensionVersion::OLDEST,
            without_password(url)
        ))),
    }
}

/// Makes our schema and its two fixed tables. A role without the right to make them can work when
/// they are there.
pub(super) async fn ensure_tables(pool: &PgPool) -> Result<(), PipelineError> {
    const ACTION: &str = "make tables";
    if are_current(pool).await? {
        return Ok(());
    }
    let mut transaction = pool.begin().await.map_err(failed(ACTION))?;
    // IF NOT EXISTS is not safe against another process doing the same (PostgreSQL's manual).
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK_OF_SCHEMA)
        .execute(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
    for statement in TABLES {
        sqlx::query(statement).execute(&mut *transaction).await.map_err(failed(ACTION))?;
    }
    transaction.commit().await.map_err(failed(ACTION))
}

/// Whether the fixed tables are there as this version makes them; one of an earlier version lacks
/// what was added last.
async fn are_current(pool: &PgPool) -> Result<bool, PipelineError> {
    sqlx::query_scalar(
        "SELECT count(*) = 2 FROM (VALUES ('retake.collections', 'words_revision'),
             ('retake.documents', 'kind')) AS added (of_table, name)
         JOIN pg_attribute ON attrelid = to_regclass(of_table) AND attname = name
             AND NOT attisdropped",
    )
    .fetch_one(pool)
    .await
    .map_err(failed("look up tables"))
}

/// Whether the fixed tables are there.
pub(super) async fn has_tables(pool: &PgPool) -> Result<bool, PipelineError> {
    sqlx::query_scalar("SELECT to_regclass('retake.documents') IS NOT NULL")
        .fetch_one(pool)
        .await
        .map_err(failed("look up tables"))
}

/// What was added last has to be named in [`are_current`].
const TABLES: [&str; 8] = [
    "CREATE SCHEMA IF NOT EXISTS retake",
    "CREATE TABLE IF NOT EXISTS retake.collections (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE,
        model text NOT NULL, dim bigint NOT NULL, chunking text NOT NULL, format bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS retake.documents (
        collection bigint NOT NULL REFERENCES retake.collections (id) ON DELETE CASCADE,
        id text COLLATE \"C\" NOT NULL, digest bytea NOT NULL, path text NOT NULL,
        chunking text NOT NULL, PRIMARY KEY (collection, id))",
    // A volatile default gives every row of an earlier version a revision of its own.
    "ALTER TABLE retake.collections
        ADD COLUMN IF NOT EXISTS revision uuid NOT NULL DEFAULT gen_random_uuid()",
    "ALTER TABLE retake.documents ADD COLUMN IF NOT EXISTS modified_ms bigint",
    "ALTER TABLE retake.collections ADD COLUMN IF NOT EXISTS words_revision uuid",
    "ALTER TABLE retake.documents ADD COLUMN IF NOT EXISTS kind text",
    "CREATE INDEX IF NOT EXISTS documents_by_content ON retake.documents (collection, digest)",
];

/// What `pg_stat_activity` shows.
const APPLICATION_NAME: &str = "retake";
/// A database that gives no connection in this time is down or full; waiting longer hides that.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: V2 - an old pgvector is named together with the version needed.
    #[test]
    fn the_refusal_names_both_versions_and_no_password() {
        let text = too_old("0.8.1", "postgres://u:s3cret@h/d");
        assert!(text.contains("0.8.1") && text.contains("0.8.2"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
