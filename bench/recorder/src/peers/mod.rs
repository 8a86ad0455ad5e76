//! The reference and the peers, each set up as its own documentation recommends.

pub(crate) mod chrome;
pub(crate) mod fastrace;
pub(crate) mod fmt_json;
pub(crate) mod micromegas;
pub(crate) mod otel;
pub(crate) mod reference;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::BenchError;

/// Lines of a peer's file that hold `mark`, and the file's size: what a reader will find, not
/// what the writer believes it wrote.
fn count_lines(path: &Path, mark: &str) -> Result<(u64, u64), BenchError> {
    let file = File::open(path).map_err(BenchError::io("read back", path))?;
    let bytes = file.metadata().map_err(BenchError::io("read size of", path))?.len();
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    let mut lines = 0;
    while reader.read_line(&mut line).map_err(BenchError::io("read back", path))? > 0 {
        lines += u64::from(line.contains(mark));
        line.clear();
    }
    Ok((lines, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a file in which only some lines end a span.
    #[test]
    fn only_lines_with_the_mark_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peer.json");
        std::fs::write(&path, "begin\nend\nend\n").unwrap();
        assert_eq!(count_lines(&path, "end").unwrap(), (2, 14));
    }
}
