//! The files of the caches, copied by SQLite itself, so that a cache in use is copied as of one
//! moment and replaced in one transaction.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _};

use crate::error::PipelineError;
use crate::sqlite_file::{self, failed, unseen};

/// Copies the cache in `file`, if there is one, to `copy`, which must not be there.
pub(super) async fn save(file: &Path, copy: &Path) -> Result<(), PipelineError> {
    if !file.exists() {
        return Ok(());
    }
    unseen(async {
        let pool = sqlite_file::open(file)?;
        sqlx::query("VACUUM INTO ?")
            .bind(copy.to_string_lossy().into_owned())
            .execute(&pool)
            .await
            .map_err(failed("save cache"))?;
        pool.close().await;
        sqlite_file::make_private(copy)
    })
    .await
}

/// Puts the tables that `saved` holds in the place of those of `target`.
pub(super) async fn restore(saved: &Path, target: &Path) -> Result<(), PipelineError> {
    const ACTION: &str = "restore cache";
    unseen(async {
        let pool = sqlite_file::open(target)?;
        let mut connection = pool.acquire().await.map_err(failed(ACTION))?;
        sqlx::query("ATTACH ? AS saved")
            .bind(saved.to_string_lossy().into_owned())
            .execute(&mut *connection)
            .await
            .map_err(failed(ACTION))?;
        let mut transaction =
            connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(ACTION))?;
        // Tables before the triggers on them: a reload is no change that they should count.
        let parts: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT type, name, sql FROM saved.sqlite_schema
             WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY type = 'table' DESC, rowid",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(ACTION))?;
        // Only a file whose digest is that of a save of ours gets here; its statements are ours.
        let mut statements = Vec::new();
        for (kind, name, sql) in parts {
            let name = name.replace('"', "\"\"");
            if kind == "table" {
                statements.push(format!("DROP TABLE IF EXISTS main.\"{name}\""));
                statements.push(sql);
                statements
                    .push(format!("INSERT INTO main.\"{name}\" SELECT * FROM saved.\"{name}\""));
            } else {
                statements.push(sql);
            }
        }
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await
                .map_err(failed(ACTION))?;
        }
        transaction.commit().await.map_err(failed(ACTION))?;
        sqlx::query("DETACH saved").execute(&mut *connection).await.map_err(failed(ACTION))?;
        drop(connection);
        pool.close().await;
        Ok(())
    })
    .await
}
