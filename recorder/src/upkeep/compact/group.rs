//! Which segments are merged into one.

use std::fs::File;
use std::path::Path;

use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::TableName;

use super::columns::{Columns, are_of_one_table};
use super::{CompactError, Merged, next_number};
use crate::sealed_file::check_segment;
use crate::store::StoreError;

/// Segments of one table, one after the other, that become one file.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) table: TableName,
    /// Name of the file to come.
    pub(super) file: String,
    pub(super) pieces: Vec<Piece>,
}

/// A segment whose digest was checked, with what its footer says.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) segment: Segment,
    pub(super) footer: ArrowReaderMetadata,
}

impl Group {
    pub(super) fn old_files(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().map(|piece| piece.segment.file.as_str())
    }

    /// The columns of the file to come.
    pub(super) fn columns(&self) -> Columns {
        Columns::of_all(self.pieces.iter().map(|piece| piece.footer.schema()))
    }

    pub(super) fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.segment.rows).sum()
    }

    pub(super) fn merged(&self, segment: &Segment) -> Merged {
        Merged {
            table: self.table,
            file: segment.file.clone(),
            files_before: self.pieces.len(),
            rows: segment.rows,
            bytes_before: self.pieces.iter().map(|piece| piece.segment.bytes).sum(),
            bytes_after: segment.bytes,
        }
    }
}

/// The groups of a run that have something to merge.
pub(super) fn groups(
    folder: &Path,
    manifest: &Manifest,
    bytes_max: u64,
) -> Result<Vec<Group>, CompactError> {
    let number = next_number(folder, manifest);
    let mut groups: Vec<Group> = Vec::new();
    for table in TableName::SEALED {
        let segments: Vec<_> = manifest.segments.iter().filter(|s| s.table == table).collect();
        for part in packed(&segments, bytes_max).into_iter().filter(|part| part.len() > 1) {
            let mut pieces: Vec<Piece> = Vec::new();
            for segment in part {
                let piece = open(folder, manifest, segment)?;
                // A later build may have added a column within one run's life: such files stay
                // apart, because a merged file has one set of columns.
                if pieces.first().is_some_and(|first| !are_alike(first, &piece)) {
                    push(&mut groups, table, number, std::mem::take(&mut pieces));
                }
                pieces.push(piece);
            }
            push(&mut groups, table, number, pieces);
        }
    }
    Ok(groups)
}

fn push(groups: &mut Vec<Group>, table: TableName, number: u64, pieces: Vec<Piece>) {
    if pieces.len() > 1 {
        let number = number + groups.iter().filter(|group| group.table == table).count() as u64;
        groups.push(Group { table, file: format!("{table}-{number:06}.parquet"), pieces });
    }
}

fn are_alike(a: &Piece, b: &Piece) -> bool {
    are_of_one_table(a.footer.schema(), b.footer.schema())
}

/// Neighbours together, as many as fit; the order stays.
fn packed<'a>(segments: &[&'a Segment], bytes_max: u64) -> Vec<Vec<&'a Segment>> {
    let mut parts: Vec<Vec<&Segment>> = Vec::new();
    let mut bytes = 0;
    for segment in segments {
        match parts.last_mut() {
            Some(part) if bytes + segment.bytes <= bytes_max => part.push(segment),
            _ => {
                parts.push(vec![segment]);
                bytes = 0;
            }
        }
        bytes += segment.bytes;
    }
    parts
}

fn open(folder: &Path, manifest: &Manifest, segment: &Segment) -> Result<Piece, CompactError> {
    let path = folder.join(&segment.file);
    let damaged = |reason: String| CompactError::Damaged {
        run_id: manifest.run_id.clone(),
        file: segment.file.clone(),
        reason,
    };
    check_segment(&path, segment).map_err(damaged)?;
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let footer = ArrowReaderMetadata::load(&file, Default::default())
        .map_err(|error| damaged(error.to_string()))?;
    Ok(Piece { segment: segment.clone(), footer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use retake_schemas::Digest;

    /// Guarantees: neighbours fill a file up to the limit, the order stays, and a file that is
    /// larger than the limit stands alone.
    #[test]
    fn neighbours_are_packed_in_order() {
        let segment = |bytes| Segment {
            table: TableName::Spans,
            file: format!("spans-{bytes}.parquet"),
            bytes,
            blake3: Digest::of(b""),
            rows: 1,
            min_unix_ns: 0,
            max_unix_ns: 0,
        };
        for (sizes, expected) in [
            (vec![], vec![]),
            (vec![5], vec![vec![5]]),
            (vec![5, 4, 1, 1], vec![vec![5, 4, 1], vec![1]]),
            (vec![11, 1, 2], vec![vec![11], vec![1, 2]]),
            (vec![1, 11, 2], vec![vec![1], vec![11], vec![2]]),
            (vec![10, 10], vec![vec![10], vec![10]]),
        ] {
            let segments: Vec<_> = sizes.iter().copied().map(segment).collect();
            let packed = packed(&segments.iter().collect::<Vec<_>>(), 10);
            let found: Vec<Vec<u64>> =
                packed.iter().map(|part| part.iter().map(|s| s.bytes).collect()).collect();
            assert_eq!(found, expected, "{sizes:?}");
        }
    }
}
