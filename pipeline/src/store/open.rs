//! Chooses a store by the URL in the settings.

use std::path::Path;
use std::sync::Arc;

use retake_schemas::settings::{VectorSettings, without_password};

use super::VectorStore;
use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use crate::error::PipelineError;

/// Opens the store of the settings; without a URL, the SQLite file `default_sqlite`.
///
/// # Errors
/// An unknown scheme, or a database that cannot be reached.
pub async fn open(
    settings: &VectorSettings,
    default_sqlite: &Path,
) -> Result<Arc<dyn VectorStore>, PipelineError> {
    let Some(url) = &settings.url else {
        return Ok(Arc::new(SqliteStore::new(default_sqlite)?));
    };
    match url.split_once(':') {
        Some(("sqlite", file)) => Ok(Arc::new(SqliteStore::new(sqlite_file(file)?)?)),
        Some(("postgres" | "postgresql", _)) => {
            Ok(Arc::new(PostgresStore::connect(url, settings).await?))
        }
        _ => Err(PipelineError::Configuration(format!(
            "open vector store: expected sqlite:FILE or postgres://..., got {:?}",
            without_password(url)
        ))),
    }
}

fn sqlite_file(file: &str) -> Result<&Path, PipelineError> {
    let file = file.strip_prefix("//").unwrap_or(file);
    // Every connection of a pool would have a memory database of its own.
    if file.is_empty() || file.contains(":memory:") {
        return Err(PipelineError::Configuration(
            "open vector store: sqlite: needs a file, such as sqlite:rag.sqlite".to_owned(),
        ));
    }
    Ok(Path::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: P1 - a password in a refused URL does not reach the message.
    #[tokio::test]
    async fn an_unknown_scheme_is_refused_without_its_password() {
        for url in ["mysql://u:s3cret@h/d", "rag.sqlite", "sqlite::memory:", "sqlite:"] {
            let settings = VectorSettings { url: Some(url.to_owned()), ..Default::default() };
            let error = open(&settings, Path::new("x")).await.map(drop).unwrap_err();
            assert_eq!(error.error_type(), "configuration", "{url}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
