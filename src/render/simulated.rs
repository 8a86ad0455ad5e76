//! Replays in virtual time.

use std::time::Duration;

use retake_replay::arrival::Arrival;
use retake_replay::simulate::{Quantiles, SimulatedReport};
use retake_replay::workload::Workload;
use retake_schemas::RunId;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::output::{row, table};
use crate::units::{duration, percent};

/// What is shown of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) arrival: Arrival,
    pub(crate) report: &'a SimulatedReport,
    /// Real time it took.
    pub(crate) took: Duration,
    /// The run it is recorded as.
    pub(crate) run_id: Option<&'a RunId>,
}

impl Shown<'_> {
    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        let took_ns = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        let mut json = json!({
            "schema_version": 1,
            "clock": "virtual",
            "run_id": self.run_id,
            "replay_of": self.workload.source_run,
            "workload": self.workload.digest(),
            "arrival": self.arrival,
            "stamp_resolution_ns": self.workload.stamp_resolution_ns,
            "took_ns": took_ns,
            "times_real_time": self.times_real_time(),
            "valid": true,
            "verdict": "VALID",
        });
        let report = serde_json::to_value(self.report).unwrap_or_default();
        if let (Some(json), Value::Object(report)) = (json.as_object_mut(), report) {
            json.extend(report);
        }
        json
    }

    /// For people.
    pub(crate) fn text(&self, format: Format) -> String {
        let report = self.report;
        let SimulatedReport { planned, ok, error, cancelled, refused, .. } = report;
        let header = ["", "mean", "p50", "p90", "p95", "p99", "max", "used"];
        let mut times = table(format, &header, 1);
        row(&mut times, line("latency", &report.latency, None));
        row(&mut times, line("first token", &report.first_token, None));
        for stage in &report.stages {
            let slots = stage.slots.map_or_else(|| "no limit".to_owned(), |n| format!("{n} slots"));
            row(&mut times, line(&format!("{} queue", stage.stage), &stage.queue, None));
            let name = format!("{} service ({slots})", stage.stage);
            row(&mut times, line(&name, &stage.service, stage.utilisation));
        }
        format!(
            "{planned} planned = {ok} ok + {error} failed + {cancelled} cancelled + {refused} refused\n\
             {} of virtual time in {}, {:.0} times real time, {} events; {:.3} operations/s\n{times}\n\
             digest {}\n",
            duration(report.span_ns),
            duration(i64::try_from(self.took.as_nanos()).unwrap_or(i64::MAX)),
            self.times_real_time(),
            report.events,
            report.throughput_per_s,
            report.digest
        )
    }

    fn times_real_time(&self) -> f64 {
        let took_s = self.took.as_secs_f64();
        if took_s > 0.0 { self.report.span_ns as f64 / 1e9 / took_s } else { 0.0 }
    }
}

fn line(name: &str, times: &Quantiles, used: Option<f64>) -> Vec<String> {
    let mean = duration(times.mean_ns as i64);
    let rest = [times.p50_ns, times.p90_ns, times.p95_ns, times.p99_ns, times.max_ns];
    let mut cells = vec![name.to_owned(), mean];
    cells.extend(rest.map(duration));
    cells.push(used.map(percent).unwrap_or_default());
    cells
}
