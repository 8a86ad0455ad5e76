//! Contents by their digest, in a temporary file without a name: a run may hold more text than
//! there is memory, and traces ask in no order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

use retake_schemas::Digest;
use retake_schemas::mapping::CONTENT_REF_PREFIX;
use retake_schemas::tables::{PayloadRow, TableName};

use super::ExportError;
use super::source::Source;

/// The contents of a run.
#[derive(Debug)]
pub(super) struct Texts {
    file: std::fs::File,
    /// Where each begins in the file, and its bytes.
    places: HashMap<Digest, (u64, u32)>,
}

impl Texts {
    /// Reads what the run's capture policy kept.
    pub(super) fn read(source: &Source<'_>) -> Result<Self, ExportError> {
        let file = tempfile::tempfile().map_err(ExportError::Texts)?;
        let mut writer = BufWriter::new(file);
        let mut places = HashMap::new();
        let mut end = 0;
        let mut batches = source.batches(TableName::Payloads, &[]);
        while let Some(rows) = batches.next_rows::<PayloadRow>()? {
            for row in rows {
                let (Some(content), Ok(digest)) = (row.content, row.digest.parse::<Digest>())
                else {
                    continue;
                };
                // Contents are cut far below 4 GiB when they are recorded.
                let Ok(bytes) = u32::try_from(content.len()) else { continue };
                if let Entry::Vacant(place) = places.entry(digest) {
                    place.insert((end, bytes));
                    writer.write_all(content.as_bytes()).map_err(ExportError::Texts)?;
                    end += u64::from(bytes);
                }
            }
        }
        let file = writer.into_inner().map_err(|error| ExportError::Texts(error.into_error()))?;
        Ok(Self { file, places })
    }

    /// The content of a digest in hex; `None` if the run does not hold it.
    pub(super) fn get(&mut self, digest: &str) -> Result<Option<String>, ExportError> {
        let place = digest.parse().ok().and_then(|digest: Digest| self.places.get(&digest));
        let Some((start, bytes)) = place.copied() else { return Ok(None) };
        let mut content = vec![0; bytes as usize];
        self.file.seek(SeekFrom::Start(start)).map_err(ExportError::Texts)?;
        self.file.read_exact(&mut content).map_err(ExportError::Texts)?;
        Ok(String::from_utf8(content).ok())
    }
}

/// The text that an attribute's reference stands for: `Ok(None)` where the value is no reference,
/// or nobody may or can have the text.
pub(super) fn resolve(
    texts: Option<&mut Texts>,
    value: &str,
) -> Result<Option<String>, ExportError> {
    match (texts, value.strip_prefix(CONTENT_REF_PREFIX)) {
        (Some(texts), Some(digest)) => texts.get(digest),
        _ => Ok(None),
    }
}
