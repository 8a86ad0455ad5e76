//! Facts of the machine, the process and the code, for the run's manifest.

use std::path::Path;

use retake_schemas::event::HostFacts;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine and this process.
#[must_use]
pub fn host_facts() -> HostFacts {
    // A machine that hides these facts is still recorded on.
    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    )
    .ok();
    let cpu = system.as_ref().and_then(|s| s.cpus().first()).map(|cpu| cpu.brand().trim());
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    HostFacts {
        name: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_default(),
        cpu: cpu.unwrap_or_default().to_owned(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_bytes: system.as_ref().map_or(0, System::total_memory),
        pid: std::process::id(),
    }
}

/// Commit and branch of the checkout that holds `folder`, read from its files: starting `git`
/// would cost a process at every run and may not be installed.
#[must_use]
pub fn git_facts(folder: &Path) -> (Option<String>, Option<String>) {
    let Some(git) = folder.ancestors().map(|f| f.join(".git")).find(|git| git.is_dir()) else {
        return (None, None);
    };
    let Ok(head) = std::fs::read_to_string(git.join("HEAD")) else { return (None, None) };
    let head = head.trim();
    let Some(reference) = head.strip_prefix("ref: ") else {
        return (commit(head), None);
    };
    let branch = reference.strip_prefix("refs/heads/").map(str::to_owned);
    let loose = std::fs::read_to_string(git.join(reference)).ok();
    let sha = loose.as_deref().and_then(commit).or_else(|| {
        let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
        packed
            .lines()
            .find_map(|line| line.split_once(' ').filter(|(_, name)| *name == reference))
            .and_then(|(sha, _)| commit(sha))
    });
    (sha, branch)
}

fn commit(text: &str) -> Option<String> {
    let text = text.trim();
    let is_sha = text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_sha.then(|| text.to_owned())
}
