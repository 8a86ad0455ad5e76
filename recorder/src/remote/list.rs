//! What runs another place holds.

use futures::StreamExt;
use retake_schemas::RunId;
use retake_schemas::manifest::Manifest;

use super::{Remote, RemoteError};
use crate::store::{ManifestError, RunEntry, StoreError};

/// The runs of a place.
#[derive(Debug, Default)]
pub struct Listing {
    /// Complete copies, oldest first, with their manifest or why it cannot be read.
    pub runs: Vec<(RunId, Result<Manifest, RemoteError>)>,
    /// Runs whose push was cut short; pushing again completes them.
    pub incomplete: Vec<RunId>,
}

impl Remote {
    /// Lists the runs of this place. Reads every manifest, a few at a time.
    ///
    /// # Errors
    /// The place cannot be reached.
    pub async fn runs_there(&self) -> Result<Listing, RemoteError> {
        let runs = self.runs();
        let found = self.objects.list_with_delimiter(Some(&runs)).await;
        let found = found.map_err(|error| RemoteError::objects("list", &runs)(error))?;
        let ids: Vec<RunId> = found
            .common_prefixes
            .iter()
            .filter_map(|folder| folder.filename()?.parse().ok())
            .collect();
        let mut manifests = futures::stream::iter(ids)
            .map(|run_id| async move { (self.manifest(&run_id).await, run_id) })
            .buffer_unordered(MANIFESTS_MAX);
        let mut listing = Listing::default();
        while let Some((manifest, run_id)) = manifests.next().await {
            match manifest {
                Ok(Some((_, manifest))) => listing.runs.push((run_id, Ok(manifest))),
                Ok(None) => listing.incomplete.push(run_id),
                // One damaged run hides no other; a place out of reach is no list at all.
                Err(error @ RemoteError::Damaged { .. }) => listing.runs.push((run_id, Err(error))),
                Err(error) => return Err(error),
            }
        }
        listing.runs.sort_by_cached_key(|(run_id, manifest)| {
            let started = manifest.as_ref().map_or(i64::MIN, |m| m.facts.started_unix_ns);
            (started, run_id.clone())
        });
        listing.incomplete.sort();
        Ok(listing)
    }
}

/// A listing in the shape a local store has, so that selectors work on it.
#[must_use]
pub fn list_entries(listing: &Listing) -> Vec<RunEntry> {
    let damaged = |run_id: &RunId, error: &RemoteError| {
        let (path, reason) = (run_id.as_str().into(), error.to_string());
        StoreError::Manifest(ManifestError::Damaged { path, reason })
    };
    let entry = |(run_id, manifest): &(RunId, Result<Manifest, RemoteError>)| RunEntry {
        run_id: run_id.clone(),
        manifest: match manifest {
            Ok(manifest) => Ok(manifest.clone()),
            Err(error) => Err(damaged(run_id, error)),
        },
    };
    listing.runs.iter().map(entry).collect()
}

/// Manifests read at the same time.
const MANIFESTS_MAX: usize = 8;
