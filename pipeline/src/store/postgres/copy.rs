//! Rows in PostgreSQL's binary COPY format.
//!
//! COPY loads about ten times the rows per second of single inserts. The format is described in
//! <https://www.postgresql.org/docs/current/sql-copy.html>, the vector in pgvector's `vector_send`.

use crate::document::Chunk;
use crate::error::PipelineError;
use crate::store::text::IndexedText;

/// A buffer of rows of one table.
#[derive(Debug)]
pub(super) struct CopyBuffer {
    bytes: Vec<u8>,
}

/// The columns of a chunks table, as they stand in a COPY statement.
pub(super) const COLUMNS: &str =
    "id, document_id, ordinal, start_char, end_char, tokens, embedding, text";

impl CopyBuffer {
    /// A buffer that starts a COPY.
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        bytes.extend_from_slice(SIGNATURE);
        // No flags, no header extension.
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// Appends a row of a chunks table, in the order of [`COLUMNS`].
    ///
    /// # Errors
    /// A field is longer than PostgreSQL's 1 GiB, or a vector wider than 65,535.
    pub(super) fn row(
        &mut self,
        document_id: &str,
        chunk: &Chunk,
        vector: &[f32],
    ) -> Result<(), PipelineError> {
        self.bytes.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
        self.field(chunk.id.as_bytes())?;
        self.field(document_id.as_bytes())?;
        for number in [
            i64::from(chunk.ordinal),
            super::column(chunk.start_char),
            super::column(chunk.end_char),
            i64::from(chunk.tokens),
        ] {
            self.field(&number.to_be_bytes())?;
        }
        self.vector(vector)?;
        self.field(chunk.text.as_bytes())
    }

    /// Appends a row of a words table: id of the chunk, number of words, and the words. Of the
    /// positions of a word only the number is wanted, so they are counted from 1.
    ///
    /// # Errors
    /// The words are longer than PostgreSQL's 1 GiB.
    pub(super) fn words_row(
        &mut self,
        chunk_id: &str,
        text: &IndexedText,
    ) -> Result<(), PipelineError> {
        self.bytes.extend_from_slice(&WORDS_COLUMN_COUNT.to_be_bytes());
        self.field(chunk_id.as_bytes())?;
        self.field(&super::column(text.len() as u64).to_be_bytes())?;
        let counts = text.counts();
        let mut words = i32::try_from(counts.len()).unwrap_or(i32::MAX).to_be_bytes().to_vec();
        for (word, count) in counts {
            words.extend_from_slice(word.as_bytes());
            words.push(0);
            let positions = u16::try_from(count).unwrap_or(u16::MAX).min(POSITIONS_MAX);
            words.extend_from_slice(&positions.to_be_bytes());
            words.extend((1..=positions).flat_map(u16::to_be_bytes));
        }
        self.field(&words)
    }

    /// Appends the end mark.
    pub(super) fn finish(&mut self) {
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    }

    /// Whether there is enough to send.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_BYTES
    }

    /// The bytes since the last [`CopyBuffer::clear`].
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was sent.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    fn field(&mut self, value: &[u8]) -> Result<(), PipelineError> {
        self.length(value.len())?;
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    fn vector(&mut self, vector: &[f32]) -> Result<(), PipelineError> {
        let width = u16::try_from(vector.len()).map_err(|_| too_long(vector.len()))?;
        self.length(4 + 4 * vector.len())?;
        self.bytes.extend_from_slice(&width.to_be_bytes());
        // Reserved by pgvector.
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend(vector.iter().flat_map(|value| value.to_be_bytes()));
        Ok(())
    }

    fn length(&mut self, bytes: usize) -> Result<(), PipelineError> {
        let length = i32::try_from(bytes)
            .ok()
            .filter(|length| *length <= FIELD_BYTES_MAX)
            .ok_or_else(|| too_long(bytes))?;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn too_long(length: usize) -> PipelineError {
    PipelineError::Store {
        action: super::COMMIT,
        reason: format!("a field of length {length} is longer than PostgreSQL can hold"),
    }
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const COLUMN_COUNT: i16 = 8;
const WORDS_COLUMN_COUNT: i16 = 3;
/// The most positions of one word that a `tsvector` takes, less one.
pub(super) const POSITIONS_MAX: u16 = 255;
/// Large enough that a send costs little beside its bytes, small enough to stay in the cache.
const PIECE_BYTES: usize = 256 << 10;
/// PostgreSQL's limit of one field, a little below 1 GiB.
const FIELD_BYTES_MAX: i32 = (1 << 30) - 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_laid_out_as_postgresql_reads_it() {
        let chunk = Chunk {
            id: "d#0".to_owned(),
            document_id: "d".to_owned(),
            ordinal: 0,
            text: "hi".to_owned(),
            start_char: 0,
            end_char: 2,
            tokens: 1,
        };
        let mut buffer = CopyBuffer::new();
        buffer.row("d", &chunk, &[1.0, -2.0]).unwrap();
        buffer.finish();
        let bytes = buffer.bytes();
        assert_eq!(&bytes[..11], SIGNATURE);
        assert_eq!(&bytes[19..21], [0, 8]);
        assert_eq!(&bytes[21..28], b"\0\0\0\x03d#0");
        let vector = [0, 0, 0, 12, 0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0];
        assert!(bytes.windows(vector.len()).any(|window| window == vector));
        assert!(bytes.ends_with(b"\0\0\0\x02hi\xff\xff"));
    }
}
