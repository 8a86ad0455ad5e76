//! Arrivals as the service sees them: retake's service target and AIPerf send the same trace to a
//! server in this process that notes when the first byte of each request is there and answers at once.
//!
//! AIPerf runs when `BENCH_AIPERF` names its program; it reads the trace as `mooncake_trace`, whose stamps
//! are whole milliseconds, so the schedule is of those. Nobody outside knows when a client meant to
//! begin, so the error of an arrival is its delay over the least delayed one of the run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use retake_replay::engine::{Arrival, ReplayOptions, replay};
use retake_replay::rng::Rng;
use retake_replay::target::{Operation, ServiceSettings, ServiceTarget, Target};
use retake_replay::workload::{Shape, Workload};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::Row;

const RATES: [u32; 2] = [100, 500];

/// Of a run, us.
struct Found {
    p50: f64,
    p99: f64,
    /// Mean difference of a gap between arrivals from the gap in the trace.
    gap: f64,
}

pub(crate) fn rows(rounds: usize, secs: f64) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let aiperf = Aiperf::of_environment();
    let mut rows = Vec::new();
    for rate in RATES {
        let mut found: [Vec<Found>; 2] = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            let schedule = schedule(rate, secs, round as u64);
            for turn in 0..found.len() {
                let variant = (turn + round) % found.len();
                let arrivals = match (variant, &aiperf) {
                    (0, _) => ours(&schedule)?,
                    (_, Some(aiperf)) => aiperf.run(&schedule)?,
                    (_, None) => continue,
                };
                found[variant].push(errors(&schedule, &arrivals)?);
            }
        }
        for (name, found) in ["retake", "AIPerf"].iter().zip(&found) {
            let of = |pick: fn(&Found) -> f64| found.iter().map(pick).collect::<Vec<f64>>();
            let row = |what: &str, values| {
                let mut row = Row::new(
                    format!("{rate}/s as the service sees it, {what}, {name}"),
                    "us",
                    values,
                );
                row.why = (name != &"retake").then(|| "not there: set BENCH_AIPERF".to_owned());
                row
            };
            rows.push(row("arrival error p50", of(|it| it.p50)));
            rows.push(row("arrival error p99", of(|it| it.p99)));
            rows.push(row("gaps off by, mean", of(|it| it.gap)));
        }
    }
    Ok(rows)
}

/// Whole milliseconds after the start, in order.
fn schedule(rate: u32, secs: f64, seed: u64) -> Vec<Duration> {
    let mut rng = Rng::new(seed);
    let mut at_ms = 0.0;
    (0..(f64::from(rate) * secs) as u32)
        .map(|_| {
            at_ms += rng.exponential() * 1e3 / f64::from(rate);
            Duration::from_millis(at_ms as u64)
        })
        .collect()
}

fn errors(schedule: &[Duration], arrivals: &[Instant]) -> Result<Found, String> {
    if arrivals.len() != schedule.len() {
        return Err(format!("{} of {} requests came", arrivals.len(), schedule.len()));
    }
    let mut arrivals = arrivals.to_vec();
    arrivals.sort_unstable();
    let begin = arrivals.first().copied().ok_or("no requests")?;
    let delays: Vec<f64> = arrivals
        .iter()
        .zip(schedule)
        .map(|(at, due)| (at.duration_since(begin).as_secs_f64() - due.as_secs_f64()) * 1e6)
        .collect();
    let least = delays.iter().copied().fold(f64::INFINITY, f64::min);
    let mut errors: Vec<f64> = delays.iter().map(|delay| delay - least).collect();
    let gaps: f64 = delays.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
    errors.sort_by(f64::total_cmp);
    let at = |q: f64| errors.get((q * errors.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    Ok(Found { p50: at(0.50), p99: at(0.99), gap: gaps / (delays.len() - 1).max(1) as f64 })
}

fn runtime(workers: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

fn ours(schedule: &[Duration]) -> Result<Vec<Instant>, Box<dyn std::error::Error>> {
    let sink = Sink::start()?;
    let operation = |(index, due): (usize, &Duration)| Operation {
        index: index as u64,
        kind: "chat".to_owned(),
        due_ns: due.as_nanos() as i64,
        shape: Shape {
            tokens_in: Some(TOKENS_IN),
            tokens_out: Some(1),
            model: Some("m".to_owned()),
            ..Shape::default()
        },
        ..Operation::default()
    };
    let operations = schedule.iter().enumerate().map(operation).collect();
    let workload = Arc::new(Workload { operations, stamp_resolution_ns: 1, ..Workload::default() });
    let settings = ServiceSettings::parse(&["stream=false".to_owned()])?;
    let target: Arc<dyn Target> =
        Arc::new(ServiceTarget::new(&format!("http://{}", sink.address), settings)?);
    let options = ReplayOptions {
        arrival: Arrival::Open { speed: 1.0 },
        cassette: None,
        cancellation: Default::default(),
    };
    let report = runtime(1)?.block_on(replay(&workload, &target, &options, &|_| {}))?;
    if report.ok != schedule.len() as u64 {
        return Err(format!("{:?}", report.failures).into());
    }
    Ok(sink.arrivals())
}

/// NVIDIA's load generator.
struct Aiperf {
    program: PathBuf,
}

impl Aiperf {
    fn of_environment() -> Option<Self> {
        Some(Self { program: std::env::var_os("BENCH_AIPERF")?.into() })
    }

    fn run(&self, schedule: &[Duration]) -> Result<Vec<Instant>, Box<dyn std::error::Error>> {
        let sink = Sink::start()?;
        let folder = std::env::temp_dir().join(format!("replay-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let trace = folder.join("trace.jsonl");
        let line = |due: &Duration| {
            let at = due.as_millis();
            format!("{{\"timestamp\":{at},\"input_length\":{TOKENS_IN},\"output_length\":1}}\n")
        };
        std::fs::write(&trace, schedule.iter().map(line).collect::<String>())?;
        let outcome = self.started(&sink.address, &trace, &folder);
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        std::fs::remove_dir_all(&folder)?;
        if !outcome?.success() {
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            return Err(format!("AIPerf failed:\n{}", end.join("\n")).into());
        }
        Ok(sink.arrivals())
    }

    fn started(
        &self,
        address: &SocketAddr,
        trace: &Path,
        folder: &Path,
    ) -> std::io::Result<std::process::ExitStatus> {
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(["profile", "--model", "m", "--endpoint-type", "chat", "--ui", "none"])
            .args(["--custom-dataset-type", "mooncake_trace", "--fixed-schedule"])
            .arg("--url")
            .arg(format!("http://{address}"))
            .arg("--input-file")
            .arg(trace)
            .arg("--artifact-dir")
            .arg(folder)
            // Nothing but the sink is reached.
            .args(["--tokenizer", "builtin"])
            .env("HF_HUB_OFFLINE", "1")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null());
        command.status()
    }
}

/// A server on a thread of its own. Ends with this.
struct Sink {
    address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    runtime: Option<Runtime>,
}

impl Sink {
    fn start() -> std::io::Result<Self> {
        let runtime = runtime(1)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&arrivals);
        runtime.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    // A client that goes away has nothing more to say.
                    let _ = serve(connection, &noted).await;
                });
            }
        });
        Ok(Self { address, arrivals, runtime: Some(runtime) })
    }

    /// When requests for an answer came.
    fn arrivals(mut self) -> Vec<Instant> {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        self.arrivals.lock().map(|mut arrivals| std::mem::take(&mut *arrivals)).unwrap_or_default()
    }
}

/// As much of HTTP/1.1 as these clients speak.
async fn serve(mut connection: TcpStream, noted: &Mutex<Vec<Instant>>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let mut came = None;
        let (head, length) = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break (end + 4, length(&buffer[..end]));
            }
            if connection.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            came.get_or_insert_with(Instant::now);
        };
        while buffer.len() < head + length {
            if connection.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let is_asked = buffer.starts_with(b"POST ");
        buffer.drain(..head + length);
        if let (true, Ok(mut noted)) = (is_asked, noted.lock()) {
            noted.push(came.unwrap_or_else(Instant::now));
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        connection.write_all(answer.as_bytes()).await?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

const ANSWER: &str = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"ok\"},\
    \"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":64,\"completion_tokens\":1,\
    \"total_tokens\":65}}";
const TOKENS_IN: u64 = 64;
