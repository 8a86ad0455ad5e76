//! A sketch as bytes, to be stored beside a run.
//!
//! ```text
//! version  one byte, 1
//! count    numbers are LEB128: seven bits a byte, lowest first
//! sum      nothing follows a count of zero
//! min
//! max - min
//! -- up to 1,024 values: each value but the first less the one before, ascending
//! -- else: zeros, first bucket, number of buckets, and for each bucket its count, but for a run
//!    of empty buckets a 0 and the length of the run
//! ```

use super::buckets::{Buckets, WINDOW_MAX};
use super::layout::{BUCKETS, bucket};
use super::{Content, EXACT_MAX, Sketch};

/// Why bytes are no sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// Written by a later version.
    #[error("read sketch: its version is {0}, this program reads version 1")]
    UnknownVersion(u8),
    /// The bytes end too early.
    #[error("read sketch: its bytes end too early")]
    Truncated,
    /// A number is larger than any sketch has.
    #[error("read sketch: a number is too large")]
    TooLarge,
    /// Numbers that contradict each other, or bytes after the last of them.
    #[error("read sketch: its numbers contradict each other")]
    Inconsistent,
}

impl Sketch {
    /// The sketch as bytes: the same for the same values, whatever their order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, u128::from(self.count));
        if self.count == 0 {
            return bytes;
        }
        put(&mut bytes, self.sum.unsigned_abs());
        put(&mut bytes, u128::from(self.min.unsigned_abs()));
        put(&mut bytes, u128::from(self.min.abs_diff(self.max)));
        match &self.content {
            Content::Exact(_) => {
                let values = self.sorted();
                for (lower, higher) in values.iter().zip(values.iter().skip(1)) {
                    put(&mut bytes, u128::from(lower.abs_diff(*higher)));
                }
            }
            Content::Counted { zeros, buckets } => {
                put(&mut bytes, u128::from(*zeros));
                put(&mut bytes, buckets.first() as u128);
                put(&mut bytes, buckets.counts().len() as u128);
                put_counts(&mut bytes, buckets);
            }
        }
        bytes
    }

    /// Reads what [`Sketch::to_bytes`] wrote.
    ///
    /// # Errors
    /// Whatever the bytes are, the answer is a sketch or an error, and no more memory is taken
    /// than a sketch can have.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut reader = Reader { rest: bytes };
        match reader.byte()? {
            VERSION => {}
            version => return Err(SketchError::UnknownVersion(version)),
        }
        let count = reader.number(u64::MAX)?;
        let sketch = if count == 0 { Self::new() } else { reader.sketch(count)? };
        if reader.rest.is_empty() { Ok(sketch) } else { Err(SketchError::Inconsistent) }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// What follows a count above zero.
    fn sketch(&mut self, count: u64) -> Result<Sketch, SketchError> {
        let sum = i128::try_from(self.wide()?).map_err(|_| SketchError::TooLarge)?;
        let min = self.value()?;
        let span = self.value()?;
        let max = min.checked_add(span).ok_or(SketchError::TooLarge)?;
        let content =
            if count <= EXACT_MAX as u64 { self.values(count, min)? } else { self.counted()? };
        let sketch = Sketch { count, sum, min, max, content };
        if is_consistent(&sketch) { Ok(sketch) } else { Err(SketchError::Inconsistent) }
    }

    fn values(&mut self, count: u64, min: i64) -> Result<Content, SketchError> {
        let mut value = min;
        let mut values = vec![min];
        for _ in 1..count {
            value = value.checked_add(self.value()?).ok_or(SketchError::TooLarge)?;
            values.push(value);
        }
        Ok(Content::Exact(values))
    }

    fn counted(&mut self) -> Result<Content, SketchError> {
        let zeros = self.number(u64::MAX)?;
        let first = self.length(BUCKETS)?;
        let length = self.length(WINDOW_MAX.min(BUCKETS - first))?;
        let mut counts = Vec::with_capacity(length);
        while counts.len() < length {
            match self.number(u64::MAX)? {
                0 => {
                    let empty = self.length(length - counts.len())?;
                    // A run of none would make other bytes of the same sketch, and no progress.
                    if empty == 0 {
                        return Err(SketchError::Inconsistent);
                    }
                    counts.resize(counts.len() + empty, 0);
                }
                count => counts.push(count),
            }
        }
        Ok(Content::Counted { zeros, buckets: Buckets::of_counts(first, counts) })
    }

    fn byte(&mut self) -> Result<u8, SketchError> {
        let (byte, rest) = self.rest.split_first().ok_or(SketchError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn wide(&mut self) -> Result<u128, SketchError> {
        let mut number = 0_u128;
        // Nineteen bytes hold 133 bits.
        for shift in (0..133).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            let placed = bits << shift;
            if placed >> shift != bits {
                return Err(SketchError::TooLarge);
            }
            number |= placed;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(SketchError::TooLarge)
    }

    fn number(&mut self, most: u64) -> Result<u64, SketchError> {
        let number = u64::try_from(self.wide()?).map_err(|_| SketchError::TooLarge)?;
        if number <= most { Ok(number) } else { Err(SketchError::TooLarge) }
    }

    fn value(&mut self) -> Result<i64, SketchError> {
        i64::try_from(self.wide()?).map_err(|_| SketchError::TooLarge)
    }

    fn length(&mut self, most: usize) -> Result<usize, SketchError> {
        usize::try_from(self.number(most as u64)?).map_err(|_| SketchError::TooLarge)
    }
}

fn is_consistent(sketch: &Sketch) -> bool {
    let between = |low: i64, high: i64| {
        let times = |value: i64| i128::from(value).saturating_mul(i128::from(sketch.count));
        times(low) <= sketch.sum && sketch.sum <= times(high)
    };
    let content_fits = match &sketch.content {
        Content::Exact(values) => {
            let sum: i128 = values.iter().copied().map(i128::from).sum();
            values.last() == Some(&sketch.max) && sum == sketch.sum
        }
        Content::Counted { zeros, buckets } => counts_fit(sketch, *zeros, buckets),
    };
    between(sketch.min, sketch.max) && content_fits
}

fn counts_fit(sketch: &Sketch, zeros: u64, buckets: &Buckets) -> bool {
    let counts = buckets.counts();
    let counted: u128 = counts.iter().copied().map(u128::from).sum();
    let is_complete = counted + u128::from(zeros) == u128::from(sketch.count);
    let has_zero = (zeros > 0) == (sketch.min == 0);
    let (Some(first), Some(last)) = (counts.front(), counts.back()) else {
        return is_complete && has_zero && sketch.max == 0 && buckets.first() == 0;
    };
    let highest = buckets.first() + counts.len() - 1;
    let has_edges = *last > 0 && (*first > 0 || counts.len() == WINDOW_MAX);
    let holds_extremes = sketch.max > 0
        && highest == bucket(sketch.max)
        && (sketch.min == 0 || bucket(sketch.min) <= buckets.first());
    is_complete && has_zero && has_edges && holds_extremes
}

fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_counts(bytes: &mut Vec<u8>, buckets: &Buckets) {
    let counts: Vec<u64> = buckets.counts().iter().copied().collect();
    for run in counts.chunk_by(|a, b| *a == 0 && *b == 0) {
        match run {
            [0, ..] => {
                put(bytes, 0);
                put(bytes, run.len() as u128);
            }
            counts => counts.iter().for_each(|count| put(bytes, u128::from(*count))),
        }
    }
}

const VERSION: u8 = 1;
