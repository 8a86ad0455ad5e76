//! `make bench-replay`: fire error beside tokio's timers, what a stall looks like in either kind of
//! loop, and the speed of virtual time.
//!
//! Usage: `replay-bench [--rounds N] [--secs S] [--data DIR] [--out FILE] [--only PART,PART]`. Variants run in another
//! order each round; a figure is the median over rounds, the spread its smallest and largest round.

mod fire;
mod served;
mod stall;
mod tokens;
mod virtual_time;

use std::path::PathBuf;

use serde_json::{Value, json};

/// One figure with the goal it is held against.
pub(crate) struct Row {
    pub(crate) goal: String,
    pub(crate) unit: &'static str,
    /// A value a round; empty when it could not be measured.
    pub(crate) values: Vec<f64>,
    pub(crate) peer: Option<(&'static str, f64)>,
    /// The value must not be above (`Err`: not below) this.
    pub(crate) bar: Option<Result<f64, f64>>,
    /// Why there is no value.
    pub(crate) why: Option<String>,
}

impl Row {
    pub(crate) fn new(goal: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { goal: goal.into(), unit, values, peer: None, bar: None, why: None }
    }

    fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    fn holds(&self) -> Option<bool> {
        let value = self.median()?;
        Some(match self.bar? {
            Ok(most) => value <= most,
            Err(least) => value >= least,
        })
    }

    fn json(&self) -> Value {
        let spread = [f64::min, f64::max].map(|pick| self.values.iter().copied().reduce(pick));
        let (peer, peer_value) = self.peer.unzip();
        let ratio = self.median().zip(peer_value).map(|(value, peer)| value / peer);
        let bar = self.bar.map(|bar| bar.unwrap_or_else(|least| least));
        json!({
            "goal": self.goal, "value": self.median(), "unit": self.unit, "peer": peer,
            "peer_value": peer_value, "ratio": ratio, "bar": bar, "holds": self.holds(),
            "spread": spread, "why": self.why,
        })
    }

    fn line(&self) -> String {
        let Some(value) = self.median() else {
            return format!("| {} | - | | {} |", self.goal, self.why.as_deref().unwrap_or(""));
        };
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bar = match self.bar {
            None => String::new(),
            Some(Ok(most)) => format!("at most {}", number(most)),
            Some(Err(least)) => format!("at least {}", number(least)),
        };
        let verdict = match self.holds() {
            None => "",
            Some(true) => ", holds",
            Some(false) => ", **does not hold**",
        };
        let (value, low, high) = (number(value), number(low), number(high));
        format!("| {} | {value} {} | {low}..{high} | {bar}{verdict} |", self.goal, self.unit)
    }
}

/// The middle value, the lower of two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.1}M", value / 1e6),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

struct Options {
    rounds: usize,
    secs: f64,
    data: Option<PathBuf>,
    out: PathBuf,
    only: Option<Vec<String>>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|it| it == part))
    }
}

const PARTS: [&str; 6] = ["fire", "served", "tokens", "stall", "virtual", "window"];

fn options() -> Result<Options, String> {
    let data = std::env::var_os("RETAKE_DATA").map(PathBuf::from);
    let out = "bench/out/replay.json".into();
    let mut options = Options { rounds: 5, secs: 3.0, data, out, only: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let wrong = || format!("{word} {value}: no number");
        match word.as_str() {
            "--rounds" => options.rounds = value.parse().map_err(|_| wrong())?,
            "--secs" => options.secs = value.parse().map_err(|_| wrong())?,
            "--data" => options.data = Some(value.into()),
            "--out" => options.out = value.into(),
            "--only" => {
                let parts: Vec<String> = value.split(',').map(str::to_owned).collect();
                if let Some(wrong) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
                    return Err(format!("--only {wrong}: there are {}", PARTS.join(", ")));
                }
                options.only = Some(parts);
            }
            other => return Err(format!("no option {other}; --rounds --secs --data --out --only")),
        }
    }
    Ok(options)
}

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let load_before = load();
    let mut rows = Vec::new();
    if options.wants("fire") {
        rows.extend(fire::rows(options.rounds, options.secs)?);
    }
    if options.wants("served") {
        rows.extend(served::rows(options.rounds, options.secs)?);
    }
    if options.wants("tokens") {
        rows.extend(tokens::rows(options.rounds, options.secs)?);
    }
    if options.wants("stall") {
        rows.extend(stall::rows()?);
    }
    // Eleven minutes, so only who asks for it gets it.
    if options.only.is_some() && options.wants("window") {
        rows.extend(fire::window_rows(options.data.as_deref())?);
    }
    if options.wants("virtual") {
        rows.extend(virtual_time::rows(options.rounds, options.data.as_deref())?);
    }
    println!("| what | median | spread | goal |\n|---|---:|---:|---|");
    for row in &rows {
        println!("{}", row.line());
    }
    let host = retake_recorder::host::host_facts();
    let document = json!({
        "schema_version": 1,
        "machine": {
            "cpu": host.cpu, "cpus": host.cpus, "memory_bytes": host.memory_bytes,
            "machine_key": host.machine_key(), "load_before": load_before, "load_after": load(),
        },
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    if let Some(folder) = options.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.out, serde_json::to_string_pretty(&document)?)?;
    println!("\nload {load_before:?} before; wrote {}", options.out.display());
    Ok(())
}
