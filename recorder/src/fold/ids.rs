//! Ids of spans that were recorded without any: worked out from the place of their opening in the
//! journal, so that a reader of the live journal and the sealer give a span the same id, and an
//! instrumented thread draws no random number.

use retake_schemas::{Digest, RunId, SpanId, TraceId};

use crate::journal::{LANE_OF_NO_THREAD, RecordPlace};

/// Gives the ids of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    /// High bits of every span id: of the run, so that processes of one trace do not collide.
    base: u64,
    salt: [u64; 2],
}

impl Ids {
    pub(crate) fn new(run_id: &RunId) -> Self {
        let digest = Digest::of(run_id.as_str().as_bytes());
        let bytes = digest.as_bytes();
        let word = |at: usize| {
            bytes.iter().skip(at).take(8).fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        // Never zero: OpenTelemetry reads an all-zero span id as "no id".
        let base = (word(0) | 1) << (64 - BASE_BITS);
        Self { base, salt: [word(8), word(16)] }
    }

    /// The id of the span opened at `place`. Spans of one lane count up, which compresses well.
    pub(crate) fn span_id(&self, place: RecordPlace) -> SpanId {
        let lane = u64::from(place.lane) << COUNT_BITS;
        SpanId::from_u64(self.base.wrapping_add(lane).wrapping_add(place.opens))
    }

    /// The id of the trace whose root is `root`. Distinct for distinct roots of a run, because
    /// every step of [`mix`] can be undone.
    pub(crate) fn trace_id(&self, root: SpanId) -> TraceId {
        let root = u64::from_be_bytes(*root.as_bytes());
        let (high, low) = (mix(root ^ self.salt[0]), mix(root.wrapping_add(self.salt[1])));
        TraceId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The high part that ids given out by a counter share: a lane that no thread can have.
    pub(crate) fn counter_base(&self) -> u64 {
        self.base.wrapping_add(u64::from(LANE_OF_NO_THREAD) << COUNT_BITS)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bits of the run, of the lane, and of the count of spans in it: 17 billion spans a lane. Lanes
/// that ten bits do not hold go into the bits of the run, which stay distinct inside it.
const BASE_BITS: u32 = 20;
const COUNT_BITS: u32 = 34;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_and_the_same_for_whoever_asks() {
        let run: RunId = "20260101t000000-abcd".parse().unwrap();
        let (ids, again) = (Ids::new(&run), Ids::new(&run));
        let mut seen = std::collections::HashSet::new();
        for lane in [0, 1, 7, 1022] {
            for opens in [0, 1, 2, 1 << 33] {
                let place = RecordPlace { lane, seq: 0, opens };
                let span = ids.span_id(place);
                assert_eq!(span, again.span_id(place));
                assert!(seen.insert((span, ids.trace_id(span))));
                assert!(!span.is_zero());
            }
        }
        let other = Ids::new(&"20260101t000000-abce".parse().unwrap());
        let place = RecordPlace { lane: 0, seq: 0, opens: 0 };
        assert_ne!(ids.span_id(place), other.span_id(place));
    }
}
