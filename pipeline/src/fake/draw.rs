//! What is drawn: the same for the same request, whatever else arrives.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use retake_schemas::Digest;

use super::settings::{FailureKind, FakeSettings, Latency};

/// Draws for requests.
#[derive(Debug)]
pub(super) struct Draws {
    seed: u64,
    /// How often each request came.
    attempts: Mutex<HashMap<u64, u32>>,
}

impl Draws {
    /// Nothing drawn yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, attempts: Mutex::default() }
    }

    /// The draw of a request. The same bytes sent again draw anew.
    pub(super) fn request(&self, path: &str, body: &[u8]) -> Draw {
        let mut key = path.as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(body);
        let digest = Digest::of(&key);
        let key = digest.as_bytes().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
        let mut attempts = self.attempts.lock();
        if attempts.len() >= REQUESTS_KEPT_MAX {
            attempts.clear();
        }
        let attempt = attempts.entry(key).or_default();
        let state = self.seed ^ key ^ u64::from(*attempt).wrapping_mul(GOLDEN_GAMMA);
        *attempt += 1;
        Draw { state }
    }
}

/// A sequence of draws: `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014), which will give the same
/// figures in every version of this program.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    state: u64,
}

impl Draw {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to just below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How the request fails, if it does.
    pub(super) fn failure(&mut self, settings: &FakeSettings) -> Option<FailureKind> {
        let fails = self.uniform() < settings.failure_rate;
        let kind = self.next();
        let count = settings.failures.len() as u64;
        if !fails || count == 0 {
            return None;
        }
        settings.failures.get(usize::try_from(kind % count).unwrap_or_default()).copied()
    }

    /// Time to the first token of an answer to so many input tokens.
    pub(super) fn ttft(&mut self, latency: &Latency, input_tokens: u64) -> Duration {
        let thousands = f64::from(u32::try_from(input_tokens).unwrap_or(u32::MAX)) / 1_000.0;
        let mean = latency.ttft + latency.per_thousand_input.mul_f64(thousands);
        self.spread(mean, latency.jitter)
    }

    /// Time to the next token.
    pub(super) fn inter_token(&mut self, latency: &Latency) -> Duration {
        self.spread(latency.inter_token, latency.jitter)
    }

    /// A log-normal time with this mean.
    fn spread(&mut self, mean: Duration, jitter: f64) -> Duration {
        // Drawn in any case: what comes after must not depend on the settings of what came before.
        let (one, other) = (self.uniform(), self.uniform());
        if jitter <= 0.0 || mean.is_zero() {
            return mean;
        }
        // Box and Muller; 1 - u is never 0.
        let normal = (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos();
        let variance = jitter.mul_add(jitter, 1.0).ln();
        let factor = variance.sqrt().mul_add(normal, -variance / 2.0).exp();
        mean.mul_f64(factor.min(SPREAD_MAX))
    }
}

/// The increment of `SplitMix64`.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
/// Different requests whose number of attempts is known: some 16 MB.
const REQUESTS_KEPT_MAX: usize = 1 << 20;
/// No time is longer than so many times the mean.
const SPREAD_MAX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the same requests in another order, some of them again.
    /// Guarantees: each draws what it drew before; a repeat draws anew; another seed differs.
    #[test]
    fn a_draw_depends_on_the_request_and_not_on_its_neighbours() {
        let settings = FakeSettings { failure_rate: 0.5, ..FakeSettings::default() };
        let bodies: Vec<String> = (0..200).map(|n| format!("request {n}")).collect();
        let fails = |draws: &Draws, body: &str| {
            draws.request("/v1/chat/completions", body.as_bytes()).failure(&settings).is_some()
        };
        let (one, other, third) = (Draws::new(1), Draws::new(1), Draws::new(2));
        let first: Vec<bool> = bodies.iter().map(|body| fails(&one, body)).collect();
        let mut reversed: Vec<bool> = bodies.iter().rev().map(|body| fails(&other, body)).collect();
        reversed.reverse();
        assert_eq!(first, reversed);
        let again: Vec<bool> = bodies.iter().map(|body| fails(&one, body)).collect();
        let seeded: Vec<bool> = bodies.iter().map(|body| fails(&third, body)).collect();
        assert_ne!(first, again);
        assert_ne!(first, seeded);
        let failed = first.iter().filter(|fails| **fails).count();
        assert!((70..130).contains(&failed), "{failed} of 200");
    }

    /// Scenario: times with jitter.
    /// Guarantees: their mean is the one asked for, and they do spread.
    #[test]
    fn jitter_spreads_around_the_mean() {
        let latency = Latency {
            ttft: Duration::from_millis(100),
            inter_token: Duration::from_millis(100),
            jitter: 0.5,
            ..Latency::default()
        };
        let mut draw = Draws::new(7).request("/", b"");
        let times: Vec<f64> =
            (0..4_000).map(|_| draw.inter_token(&latency).as_secs_f64()).collect();
        let mean = times.iter().sum::<f64>() / 4_000.0;
        let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / 4_000.0;
        assert!((0.095..0.105).contains(&mean), "{mean}");
        assert!((0.04..0.06).contains(&variance.sqrt()), "{}", variance.sqrt());
        let exact = Latency { jitter: 0.0, ..latency };
        assert_eq!(draw.ttft(&exact, 0), Duration::from_millis(100));
    }
}
