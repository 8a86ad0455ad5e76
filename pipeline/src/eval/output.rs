//! The output file: one JSON line per finished item.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::EvalItem;
use crate::error::PipelineError;

/// The file, open for more lines.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Opens or makes the file, and reads what earlier runs left. A last line that a crash has
    /// torn is cut off.
    ///
    /// # Errors
    /// The file cannot be used, or a line that is not the last is none of ours.
    pub(super) fn open(path: &Path) -> Result<(Self, HashMap<String, EvalItem>), PipelineError> {
        let io = |source| PipelineError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (items, whole_bytes) = parse(path, &bytes)?;
        file.set_len(whole_bytes).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok((Self { path: path.to_owned(), file }, items))
    }

    /// Appends a line, in one write.
    ///
    /// # Errors
    /// The disk refused it.
    pub(super) fn append(&mut self, item: &EvalItem) -> Result<(), PipelineError> {
        let io = |source| PipelineError::Io { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(item).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(io)
    }
}

/// The items, and how many bytes they take; what comes after is torn.
fn parse(path: &Path, bytes: &[u8]) -> Result<(HashMap<String, EvalItem>, u64), PipelineError> {
    let mut items = HashMap::new();
    let mut whole_bytes = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // Only a line that ends was written to its end.
        let Some(text) = line.strip_suffix(b"\n") else { break };
        if !text.is_empty() {
            let item: EvalItem = serde_json::from_slice(text).map_err(|error| {
                let place = format!("continue {} line {}", path.display(), index + 1);
                PipelineError::Configuration(format!("{place}: {error}; use another output file"))
            })?;
            items.insert(item.id.clone(), item);
        }
        whole_bytes += line.len() as u64;
    }
    Ok((items, whole_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str) -> EvalItem {
        EvalItem { id: id.to_owned(), ok: true, ..EvalItem::default() }
    }

    /// Scenario: a crash tore the last line, at any byte.
    /// Guarantees: whole items stay, the torn one is gone, new lines follow cleanly.
    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (mut output, _) = Output::open(&path).unwrap();
        output.append(&item("a")).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        output.append(&item("b")).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in usize::try_from(whole).unwrap()..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let (mut output, items) = Output::open(&path).unwrap();
            assert_eq!(items.keys().collect::<Vec<_>>(), ["a"], "cut at {length}");
            output.append(&item("c")).unwrap();
            let (_, items) = Output::open(&path).unwrap();
            assert_eq!(items.len(), 2);
        }
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "my notes\nand more").unwrap();
        let error = Output::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes\nand more");
    }
}
