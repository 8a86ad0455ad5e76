//! The figures themselves, and the windows they slide over.

use std::collections::{HashMap, VecDeque};

use super::LiveSnapshot;

/// Latencies of one stage over the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageLatency {
    /// The stage.
    pub stage: String,
    /// Spans the quantiles are taken from.
    pub spans: usize,
    /// Half of them took no longer, ns.
    pub p50_ns: i64,
    /// Nineteen of twenty took no longer, ns.
    pub p95_ns: i64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
    pub(super) open_spans: u64,
    spans: u64,
    first_unix_ns: Option<i64>,
    last_unix_ns: i64,
    /// Spans ended, by second; no older than the rate looks back.
    ended: VecDeque<(i64, u64)>,
    /// Ends and durations of spans, by stage.
    stages: HashMap<String, VecDeque<(i64, i64)>>,
}

impl Window {
    /// An event came.
    pub(super) fn seen(&mut self, time_unix_ns: i64) {
        self.first_unix_ns.get_or_insert(time_unix_ns);
        self.last_unix_ns = self.last_unix_ns.max(time_unix_ns);
    }

    pub(super) fn span_ended(&mut self, time_unix_ns: i64) {
        self.spans += 1;
        let second = time_unix_ns.div_euclid(NS_PER_S);
        match self.ended.back_mut() {
            // Imported spans may come in any order; they count for the latest second.
            Some((latest, count)) if *latest >= second => *count += 1,
            _ => self.ended.push_back((second, 1)),
        }
        while self.ended.len() > RATE_SECS as usize + 1 {
            self.ended.pop_front();
        }
    }

    pub(super) fn stage_ended(&mut self, time_unix_ns: i64, stage: String, duration_ns: i64) {
        if self.stages.len() >= STAGES_MAX && !self.stages.contains_key(&stage) {
            let oldest = time_unix_ns.saturating_sub(WINDOW_SECS * NS_PER_S);
            self.stages.retain(|_, spans| spans.back().is_some_and(|(end, _)| *end >= oldest));
            if self.stages.len() >= STAGES_MAX {
                return;
            }
        }
        let spans = self.stages.entry(stage).or_default();
        if spans.len() >= STAGE_SAMPLES_MAX {
            spans.pop_front();
        }
        spans.push_back((time_unix_ns, duration_ns));
    }

    pub(super) fn snapshot(&self, now_unix_ns: i64) -> LiveSnapshot {
        let now_unix_ns = now_unix_ns.max(self.last_unix_ns);
        let oldest = now_unix_ns.saturating_sub(WINDOW_SECS * NS_PER_S);
        let mut stages: Vec<StageLatency> =
            self.stages.iter().filter_map(|(stage, spans)| latency(stage, spans, oldest)).collect();
        stages.sort_by(|a, b| b.p95_ns.cmp(&a.p95_ns).then_with(|| a.stage.cmp(&b.stage)));
        LiveSnapshot {
            spans: self.spans,
            spans_per_s: self.rate(now_unix_ns),
            open_spans: self.open_spans,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            errors: self.errors,
            dropped: self.dropped,
            stages,
        }
    }

    /// Spans that ended in the last seconds, over the time since the first of these seconds or
    /// since the run began.
    fn rate(&self, now_unix_ns: i64) -> f64 {
        let Some(first_unix_ns) = self.first_unix_ns else { return 0.0 };
        let from = (now_unix_ns.div_euclid(NS_PER_S) - RATE_SECS) * NS_PER_S;
        let ended: u64 = self
            .ended
            .iter()
            .filter(|(second, _)| *second >= from.div_euclid(NS_PER_S))
            .map(|(_, count)| count)
            .sum();
        let passed_ns = now_unix_ns.saturating_sub(from.max(first_unix_ns));
        ended as f64 / (passed_ns as f64 / NS_PER_S as f64).max(PASSED_S_MIN)
    }
}

fn latency(stage: &str, spans: &VecDeque<(i64, i64)>, oldest: i64) -> Option<StageLatency> {
    let mut durations: Vec<i64> =
        spans.iter().filter(|(end, _)| *end >= oldest).map(|(_, duration)| *duration).collect();
    durations.sort_unstable();
    Some(StageLatency {
        stage: stage.to_owned(),
        spans: durations.len(),
        p50_ns: nearest_rank(&durations, 50)?,
        p95_ns: nearest_rank(&durations, 95)?,
    })
}

/// The smallest value that so many percent do not exceed.
fn nearest_rank(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

const NS_PER_S: i64 = 1_000_000_000;
/// How far the rate looks back: long enough to be calm, short enough to show a stall.
const RATE_SECS: i64 = 5;
/// A rate over less time than this would only be a large number.
const PASSED_S_MIN: f64 = 0.5;
/// How far the latencies of stages look back, seconds.
pub const WINDOW_SECS: i64 = 30;
/// Spans of a stage the quantiles are taken from at most: enough for a p95, cheap to sort five
/// times a second.
pub const STAGE_SAMPLES_MAX: usize = 512;
/// Stages followed at most. More have no room on any line.
pub const STAGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(nearest_rank(&[], 50), None);
        assert_eq!(nearest_rank(&[7], 95), Some(7));
        let hundred: Vec<i64> = (1..=100).collect();
        assert_eq!((nearest_rank(&hundred, 50), nearest_rank(&hundred, 95)), (Some(50), Some(95)));
    }

    #[test]
    fn the_rate_follows_the_last_seconds_and_falls_to_zero() {
        let mut window = Window::default();
        assert_eq!(window.snapshot(5).spans_per_s, 0.0);
        for n in 0..1000 {
            window.seen(n * NS_PER_S / 100);
            window.span_ended(n * NS_PER_S / 100);
        }
        let rate = |at_s: i64| window.snapshot(at_s * NS_PER_S).spans_per_s;
        assert!((rate(10) - 100.0).abs() < 1.0, "{}", rate(10));
        assert!(rate(13) < 50.0, "{}", rate(13));
        assert_eq!(rate(20), 0.0);
        assert_eq!(window.snapshot(20 * NS_PER_S).spans, 1000);
    }

    #[test]
    fn stages_leave_the_window_and_make_room() {
        let mut window = Window::default();
        for n in 0..STAGES_MAX + 5 {
            window.stage_ended(0, format!("stage {n}"), 10);
        }
        assert_eq!(window.snapshot(0).stages.len(), STAGES_MAX);
        let later = (WINDOW_SECS + 1) * NS_PER_S;
        for n in 0..STAGE_SAMPLES_MAX as i64 + 88 {
            window.stage_ended(later, "new".to_owned(), n);
        }
        let stages = window.snapshot(later).stages;
        assert_eq!(stages.len(), 1);
        // Of 0..600 the last 512 are kept.
        assert_eq!((stages[0].spans, stages[0].p50_ns), (STAGE_SAMPLES_MAX, 88 + 255));
    }
}
