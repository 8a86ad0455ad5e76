//! The runs of a store: who records, who died, what cannot be read, what was set aside.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use retake_recorder::Store;
use retake_recorder::store::{ManifestError, StoreError};
use retake_recorder::upkeep::gc::old_quarantines;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;

use super::Finding;
use crate::failure::{Code, Failure};
use crate::units::bytes;

pub(super) fn findings(store: &Store) -> Result<Vec<Finding>, Failure> {
    let mut finished = 0;
    let mut findings = Vec::new();
    let (mut live, mut dead, mut newer, mut unreadable) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut youngest_unix_ns = i64::MIN;
    for run in store.runs()? {
        match run.manifest {
            Ok(manifest) => {
                youngest_unix_ns = youngest_unix_ns.max(manifest.facts.started_unix_ns);
                match manifest.status {
                    RunStatus::Recording if store.is_live(&run.run_id) => live.push(run.run_id),
                    RunStatus::Recording => dead.push(run.run_id),
                    _ => finished += 1,
                }
            }
            Err(StoreError::Manifest(ManifestError::Version(error))) => {
                newer.push((run.run_id, error.to_string()));
            }
            Err(error) => unreadable.push((run.run_id, error.to_string())),
        }
    }
    findings.push(Finding::good("runs", format!("{finished} that have ended")));
    findings.extend(live.iter().map(|run_id| recording(store, run_id)));
    findings.extend(died(store, &dead));
    for (run_id, error) in newer {
        let advice = "install the newest retake, or move the run's folder to another store";
        let place = store.run_dir(&run_id);
        findings.push(Finding::bad("newer run", Code::Environment, error, advice).at(&place));
    }
    for (run_id, error) in unreadable {
        let advice = format!(
            "`retake verify {run_id}` says more, `retake recover {run_id}` mends what can be mended"
        );
        let place = store.run_dir(&run_id);
        findings.push(Finding::bad("unreadable run", Code::Damaged, error, advice).at(&place));
    }
    findings.extend(set_aside(store)?);
    findings.extend(future(youngest_unix_ns));
    Ok(findings)
}

/// A run that somebody writes, and who that is.
fn recording(store: &Store, run_id: &RunId) -> Finding {
    let folder = store.run_dir(run_id);
    let writer = holder(&folder.join(LOCK_FILE));
    let (who, advice) = match &writer {
        Some((pid, name)) => {
            (format!("process {pid} ({name})"), format!("`kill -INT {pid}` would end it"))
        }
        None => ("a process that cannot be seen from here".to_owned(), String::new()),
    };
    let mut finding = Finding::good("recording", format!("{run_id} by {who}")).at(&folder);
    finding.advice =
        (!advice.is_empty()).then(|| format!("`retake top {run_id}` shows it; {advice}"));
    finding
}

/// Which process holds the lock on a file, as the kernel lists it.
fn holder(lock: &Path) -> Option<(u32, String)> {
    let found = std::fs::metadata(lock).ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let of_file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF`; a lock that is waited for has `->`.
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(5) == Some(&of_file.as_str()))?;
    // 0 and less: of another container.
    let pid = line.get(4)?.parse().ok().filter(|pid| *pid > 0)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim().to_owned()))
}

/// Runs whose process ended without a word, and what their journals hold.
fn died(store: &Store, dead: &[RunId]) -> Option<Finding> {
    let first = dead.first()?;
    let journals: u64 = dead.iter().map(|run| size(&store.run_dir(run).join("journal"))).sum();
    let found = format!(
        "{} whose process died, with {} of journal not sealed yet",
        dead.len(),
        bytes(journals)
    );
    let advice = "nothing is lost: the next command repairs them, or `retake recover` now";
    let place = match dead.len() {
        1 => first.to_string(),
        more => format!("{first} and {} more", more - 1),
    };
    Some(Finding::note("unfinished runs", found, advice).of(place))
}

fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// What recovery moved out of the way.
fn set_aside(store: &Store) -> Result<Option<Finding>, Failure> {
    // Of now, so that what was moved this second is found too.
    let now = SystemTime::now() + Duration::from_secs(1);
    let found = old_quarantines(store, Duration::ZERO, now)?;
    let Some(oldest) = found.iter().max_by_key(|one| one.age) else { return Ok(None) };
    let held: u64 = found.iter().map(|one| one.bytes).sum();
    let text = format!(
        "{} of {} runs, the oldest for {} days",
        bytes(held),
        found.len(),
        oldest.age.as_secs() / 86_400
    );
    let advice = "look at it, then `retake gc --older-than 30d --quarantine --dry-run`";
    let place = store.run_dir(&oldest.run_id).join("quarantine");
    Ok(Some(Finding::note("quarantine", text, advice).at(&place)))
}

/// Runs sort by the time at which they began: a clock that was wrong puts one above all others.
fn future(youngest_unix_ns: i64) -> Option<Finding> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ahead = i128::from(youngest_unix_ns) - i128::try_from(now.as_nanos()).ok()?;
    (ahead > AHEAD_NS_MAX).then(|| {
        let found = format!("a run began {} minutes from now", ahead / 60_000_000_000);
        let advice = "`date`: the clock is, or was, wrong; until then `last` is that run";
        Finding::note("time of day", found, advice)
    })
}

/// See docs/store.md.
const LOCK_FILE: &str = "writer.lock";
/// Clocks of machines that share a store differ by seconds.
const AHEAD_NS_MAX: i128 = 120_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the process that holds a lock is named, and a free lock has no holder.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_holder_of_a_lock_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK_FILE);
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert_eq!(holder(&path).map(|(pid, _)| pid), Some(std::process::id()));
    }

    #[test]
    fn a_run_of_tomorrow_is_told() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_nanos()).unwrap();
        assert!(future(now).is_none() && future(i64::MIN).is_none());
        assert!(future(now + 86_400_000_000_000).is_some());
    }
}
