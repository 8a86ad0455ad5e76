//! How true streams of tokens are to their recording: retake's timer, and tokio's in both manners, by
//! absolute times and by a new sleep for every token, which is how most mock servers do it.
//!
//! Each stream is a task that waits for its tokens in turn, as a played back answer does. Gaps are
//! lognormal around 11.3 ms, seeded, the same for all.

use std::time::{Duration, Instant};

use retake_replay::rng::Rng;
use retake_replay::timer;

use crate::Row;

const STREAMS: [u32; 3] = [16, 128, 1_024];
const VARIANTS: [&str; 3] = ["retake", "tokio: sleep_until", "tokio: sleep for every gap"];
/// Mean gap between tokens, ms, as measured of a 7B model (REPLAY's toy).
const GAP_MS: f64 = 11.3;
const SPREAD: f64 = 0.3;

struct Found {
    /// Last token, told minus due, us: median and p99 over the streams.
    p50: f64,
    p99: f64,
    /// How much longer all streams took than recorded, %.
    inflation: f64,
    cores: f64,
}

pub(crate) fn rows(rounds: usize, secs: f64) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for streams in STREAMS {
        let mut found: Vec<Vec<Found>> = VARIANTS.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            let schedules = schedules(streams, secs, round as u64);
            for turn in 0..VARIANTS.len() {
                let variant = (turn + round) % VARIANTS.len();
                found[variant].push(run(variant, &schedules)?);
            }
        }
        for (name, found) in VARIANTS.iter().zip(&found) {
            let of = |pick: fn(&Found) -> f64| found.iter().map(pick).collect::<Vec<f64>>();
            let row = |what: &str, unit, values| {
                Row::new(format!("{streams} streams, {what}, {name}"), unit, values)
            };
            let p50 = row("last token late p50", "us", of(|it| it.p50));
            let mut p99 = row("last token late p99", "us", of(|it| it.p99));
            let mut inflation = row("gaps longer by", "%", of(|it| it.inflation));
            if *name == "retake" {
                (p99.bar, inflation.bar) = (Some(Ok(200.0)), Some(Ok(0.1)));
            }
            rows.extend([p50, p99, inflation, row("cores", "cores", of(|it| it.cores))]);
        }
    }
    Ok(rows)
}

/// Offsets of the tokens of each stream from its start, and when that is.
fn schedules(streams: u32, secs: f64, seed: u64) -> Vec<(Duration, Vec<Duration>)> {
    let mut rng = Rng::new(seed);
    // A normal value is near enough the sum of twelve uniform ones.
    let mut normal = move || (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
    let tokens = (secs * 1e3 / GAP_MS) as usize;
    let mean = GAP_MS.ln() - SPREAD * SPREAD / 2.0;
    (0..streams)
        .map(|_| {
            let start = Duration::from_secs_f64(GAP_MS / 1e3 * (normal() + 6.0) / 12.0);
            let mut at = 0.0;
            let offsets = (0..tokens)
                .map(|_| {
                    at += (mean + SPREAD * normal()).exp() / 1e3;
                    Duration::from_secs_f64(at)
                })
                .collect();
            (start, offsets)
        })
        .collect()
}

fn run(
    variant: usize,
    schedules: &[(Duration, Vec<Duration>)],
) -> Result<Found, Box<dyn std::error::Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (busy_before, began) = (crate::fire::cpu_seconds(), Instant::now());
    let origin = Instant::now() + LEAD;
    let streams: Vec<_> = schedules
        .iter()
        .cloned()
        .map(|(start, offsets)| runtime.spawn(stream(variant, origin + start, offsets)))
        .collect();
    let (mut late, mut took, mut recorded) = (Vec::new(), 0.0, 0.0);
    for (stream, (_, offsets)) in streams.into_iter().zip(schedules) {
        let (last_late, whole) = runtime.block_on(stream)?;
        late.push(last_late.as_secs_f64() * 1e6);
        took += whole.as_secs_f64();
        recorded += offsets.last().map_or(0.0, Duration::as_secs_f64);
    }
    let cores = (crate::fire::cpu_seconds() - busy_before) / began.elapsed().as_secs_f64();
    late.sort_by(f64::total_cmp);
    let at = |q: f64| late.get((q * late.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    let inflation = (took / recorded - 1.0) * 100.0;
    Ok(Found { p50: at(0.50), p99: at(0.99), inflation, cores })
}

/// How late the last token came, and how long it all took from the start.
async fn stream(variant: usize, start: Instant, offsets: Vec<Duration>) -> (Duration, Duration) {
    let mut before = Duration::ZERO;
    timer::sleep_until(start).await;
    for offset in offsets {
        match variant {
            0 => timer::sleep_until(start + offset).await,
            1 => tokio::time::sleep_until((start + offset).into()).await,
            _ => tokio::time::sleep(offset - before).await,
        }
        before = offset;
    }
    (Instant::now().saturating_duration_since(start + before), start.elapsed())
}

/// So that starting does not count as being late.
const LEAD: Duration = Duration::from_millis(20);
