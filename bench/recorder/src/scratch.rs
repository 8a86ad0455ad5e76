//! Where stores and peers' files go: a real disk, removed afterwards.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::BenchError;

/// A folder of one child's own below `root`, gone when dropped.
///
/// # Errors
/// `root` cannot be made, or is memory: a journal in memory would make every figure too good.
pub(crate) fn make(root: &Path) -> Result<TempDir, BenchError> {
    std::fs::create_dir_all(root).map_err(BenchError::io("create scratch folder", root))?;
    let kind = rustix::fs::statfs(root)
        .map_err(|errno| BenchError::io("look at scratch folder", root)(errno.into()))?;
    if kind.f_type == TMPFS_MAGIC {
        return Err(BenchError::ScratchInMemory(PathBuf::from(root)));
    }
    TempDir::with_prefix_in("case-", root).map_err(BenchError::io("create folder in", root))
}

/// `TMPFS_MAGIC` of Linux' `magic.h`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: somebody points the benchmark at `/dev/shm`.
    #[test]
    fn memory_is_refused_as_scratch() {
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            assert!(matches!(make(shm), Err(BenchError::ScratchInMemory(_))));
        }
    }
}
