//! What the receiver did, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::ingest::{Accepted, Signal};
use crate::net::listen::Counts;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Answers by signal, protocol, and code. Codes are few, so it cannot grow without end.
    answers: Mutex<BTreeMap<(Signal, Protocol, u16), u64>>,
    /// Refusals by cause; causes are words of this crate.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    items: [ItemCounts; Signal::ALL.len()],
    received_bytes: AtomicU64,
    decompressed_bytes: AtomicU64,
    in_progress: AtomicUsize,
    abandoned: AtomicU64,
    ack: Histogram,
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

#[derive(Debug, Default)]
struct ItemCounts {
    accepted: AtomicU64,
    rejected: AtomicU64,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; ACK_SECS.len()],
    count: AtomicU64,
    sum_ns: AtomicU64,
}

/// A request in progress. One that is dropped before its answer was abandoned by its client.
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    metrics: &'a Metrics,
    is_answered: bool,
}

impl Metrics {
    pub(crate) fn begin(&self) -> Counted<'_> {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        Counted { metrics: self, is_answered: false }
    }

    pub(crate) fn answered(&self, signal: Signal, protocol: Protocol, code: u16) {
        *self.answers.lock().entry((signal, protocol, code)).or_default() += 1;
    }

    pub(crate) fn refused(&self, cause: &'static str) {
        *self.refused.lock().entry(cause).or_default() += 1;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn decompressed(&self, bytes: usize) {
        self.decompressed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn acknowledged(&self, signal: Signal, accepted: &Accepted, after: Duration) {
        if let Some(items) = self.items.get(signal as usize) {
            items.accepted.fetch_add(accepted.accepted, Ordering::Relaxed);
            items.rejected.fetch_add(accepted.rejected, Ordering::Relaxed);
        }
        self.ack.observe(after);
    }

    pub(crate) fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.lock().values().sum()
    }

    /// Bodies taken so far.
    pub(crate) fn acknowledgements(&self) -> u64 {
        self.ack.count.load(Ordering::Relaxed)
    }

    /// Requests refused for this cause.
    pub(crate) fn refused_for(&self, cause: &str) -> u64 {
        self.refused.lock().get(cause).copied().unwrap_or_default()
    }

    /// Everything, as text.
    pub(crate) fn text(&self, connections: &Counts, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = Text::default();
        text.family("retake_requests_total", "counter", "OTLP requests answered");
        for ((signal, protocol, code), count) in &*self.answers.lock() {
            let protocol = match protocol {
                Protocol::Http => "http",
                Protocol::Grpc => "grpc",
            };
            let signal = signal.as_str();
            let labels = format!("signal=\"{signal}\",protocol=\"{protocol}\",code=\"{code}\"");
            text.sample("retake_requests_total", &labels, count);
        }
        text.family("retake_items_total", "counter", "Spans, log records and data points");
        for (signal, items) in Signal::ALL.iter().zip(&self.items) {
            for (result, count) in [("accepted", &items.accepted), ("rejected", &items.rejected)] {
                let labels = format!("signal=\"{}\",result=\"{result}\"", signal.as_str());
                text.sample("retake_items_total", &labels, count.load(Ordering::Relaxed));
            }
        }
        text.family("retake_refused_total", "counter", "Requests refused, by cause");
        for (cause, count) in &*self.refused.lock() {
            text.sample("retake_refused_total", &format!("cause=\"{cause}\""), count);
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("retake_received_bytes_total", "Bytes of bodies, as sent", load(&self.received_bytes)),
            (
                "retake_decompressed_bytes_total",
                "Bytes of bodies, decompressed",
                load(&self.decompressed_bytes),
            ),
            (
                "retake_abandoned_total",
                "Requests whose client went away before the answer",
                load(&self.abandoned),
            ),
        ] {
            text.family(name, "counter", help);
            text.sample(name, "", value);
        }
        text.family("retake_connections_total", "counter", "Connections, by what became of them");
        for (fate, count) in [
            ("accepted", &connections.accepted),
            ("refused", &connections.refused),
            ("evicted", &connections.evicted),
            ("head_timeout", &connections.head_timeouts),
            ("idle_timeout", &connections.idle_timeouts),
        ] {
            text.sample("retake_connections_total", &format!("fate=\"{fate}\""), load(count));
        }
        for (name, help, value) in gauges {
            text.family(name, "gauge", help);
            text.sample(name, "", value);
        }
        self.ack.write(&mut text);
        text.0
    }
}

impl Counted<'_> {
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.in_progress.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            self.metrics.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let secs = took.as_secs_f64();
        let bucket = ACK_SECS.iter().zip(&self.buckets).find(|(limit, _)| secs <= **limit);
        if let Some((_, bucket)) = bucket {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, text: &mut Text) {
        let name = "retake_ack_seconds";
        text.family(name, "histogram", "From the head of a request to its acknowledgement");
        let count = self.count.load(Ordering::Relaxed);
        let mut below = 0;
        for (limit, bucket) in ACK_SECS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            text.sample("retake_ack_seconds_bucket", &format!("le=\"{limit}\""), below);
        }
        text.sample("retake_ack_seconds_bucket", "le=\"+Inf\"", count);
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        text.sample("retake_ack_seconds_sum", "", sum);
        text.sample("retake_ack_seconds_count", "", count);
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }
}

/// Upper ends of the buckets, seconds: from a sync of a fast disk to an exporter's patience.
const ACK_SECS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
