//! SQLite files that are kept beside a store and never needed: caches, readable by their owner only.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use crate::error::PipelineError;

/// Opens or makes a file; its tables are the caller's to make.
pub(crate) fn open(path: &Path) -> Result<SqlitePool, PipelineError> {
    create_file(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A power cut may undo the last entries, and nothing else.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    Ok(SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_lazy_with(options))
}

/// Makes the file, readable by its owner only: what stands near a vector can be guessed from it.
fn create_file(path: &Path) -> Result<(), PipelineError> {
    let io = |source| PipelineError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop).map_err(io)
}

/// Makes a file that SQLite made readable by its owner only.
pub(crate) fn make_private(path: &Path) -> Result<(), PipelineError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let io = |source| PipelineError::Io { path: path.to_owned(), source };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    }
    Ok(())
}

/// Hides the caller's span from sqlx, whose worker thread would keep it open (see the store).
pub(crate) async fn unseen<T>(work: impl Future<Output = T>) -> T {
    work.with_subscriber(NoSubscriber::default()).await
}

/// What an action of the file failed by.
pub(crate) fn failed(action: &'static str) -> impl Fn(sqlx::Error) -> PipelineError {
    move |error| PipelineError::Store { action, reason: error.to_string() }
}

/// Longer than any write of ours takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// One writer, and a reader per worker of a usual machine.
const CONNECTIONS_MAX: u32 = 4;
