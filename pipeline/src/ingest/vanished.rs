//! Documents that are in the collection and no longer on the disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tracing::{Instrument as _, Span, field};

use super::IngestDeps;
use super::report::{DocumentOutcome, IngestProgress};
use crate::error::PipelineError;
use crate::load::Discovery;
use crate::trace::{Stage, stage_span};

/// What was looked at, and what was there.
#[derive(Debug)]
pub(super) struct Vanished {
    roots: Vec<PathBuf>,
    there: HashSet<PathBuf>,
    /// Folders that could not be listed: what lies in them may well be there.
    unknown: Vec<PathBuf>,
}

impl Vanished {
    /// What a walk over `roots` saw.
    pub(super) fn new(roots: &[PathBuf], discovery: &Discovery) -> Self {
        let unknown = discovery.failures.iter().map(|failure| match failure {
            PipelineError::Io { path, .. } | PipelineError::NotFound(path) => path.clone(),
            // Nobody knows where: then everywhere.
            _ => PathBuf::from("/"),
        });
        Self {
            roots: roots.to_vec(),
            there: discovery.found.iter().map(|found| found.path.clone()).collect(),
            unknown: unknown.collect(),
        }
    }

    /// Deletes them with their vectors, in one transaction. Documents of other roots stay.
    ///
    /// # Errors
    /// The database failed; then nothing is deleted.
    pub(super) async fn delete(
        &self,
        deps: &IngestDeps,
        progress: &dyn IngestProgress,
        root: &Span,
    ) -> Result<u64, PipelineError> {
        let stage = Stage::new(stage_span!(
            parent: root, "delete",
            "retake.stage" = "delete",
            "db.system.name" = deps.store.system(),
            "db.operation.name" = "delete",
            "retake.document.count" = field::Empty,
        ));
        let span = stage.span().clone();
        let work = async {
            let held = deps.store.documents().await?;
            let gone: Vec<String> = held
                .into_iter()
                .filter(|held| self.is_gone(Path::new(&held.path)))
                .map(|held| held.id)
                .collect();
            deps.store.delete_documents(&gone).await?;
            Ok(gone)
        };
        let gone = stage.end(work.instrument(span.clone()).await)?;
        span.record("retake.document.count", gone.len());
        for id in &gone {
            progress.document_done(&DocumentOutcome::Deleted { id });
        }
        Ok(gone.len() as u64)
    }

    fn is_gone(&self, path: &Path) -> bool {
        let under = |folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
        under(&self.roots) && !self.there.contains(path) && !under(&self.unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Format;
    use crate::load::Found;

    /// Scenario: a collection of two roots, of which one is ingested, with a folder in it that
    /// cannot be listed.
    /// Guarantees: only what surely is no longer there is gone.
    #[test]
    fn only_what_surely_vanished_is_gone() {
        let found =
            |path: &str| Found { id: path.to_owned(), path: path.into(), format: Format::Text };
        let discovery = Discovery {
            found: vec![found("/docs/a.md")],
            failures: vec![PipelineError::NotFound("/docs/locked".into())],
            ..Discovery::default()
        };
        let vanished = Vanished::new(&["/docs".into()], &discovery);
        for (path, is_gone) in [
            ("/docs/a.md", false),
            ("/docs/b.md", true),
            ("/docs/locked/c.md", false),
            ("/docs2/d.md", false),
            ("/other/e.md", false),
        ] {
            assert_eq!(vanished.is_gone(Path::new(path)), is_gone, "{path}");
        }
    }
}
