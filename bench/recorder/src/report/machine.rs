//! The kind of machine, and how busy it was: absolute figures mean nothing without.

use serde::Serialize;

use crate::doors;

/// Facts for the result file and the head of the tables.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Processor, memory, system; never the machine's name.
    #[serde(flatten)]
    pub(crate) facts: serde_json::Map<String, serde_json::Value>,
    /// What Linux takes its time from.
    pub(crate) clocksource: String,
    /// Runnable processes, mean of the minute before the benchmark: others' work.
    pub(crate) load_before: f64,
}

impl Machine {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        let load = read("/proc/loadavg");
        let load_before = load.split_whitespace().next().and_then(|word| word.parse().ok());
        Self {
            facts: doors::machine(),
            clocksource: read(CLOCKSOURCE),
            load_before: load_before.unwrap_or_default(),
        }
    }
}

/// One line about `machine`.
pub(crate) fn describe(machine: &Machine) -> String {
    let fact = |name: &str| machine.facts.get(name).map(ToString::to_string).unwrap_or_default();
    format!(
        "{} x {}, {} GiB, {}, clock {}, load before {:.2}",
        fact("cpus"),
        fact("cpu").trim_matches('"'),
        fact("memory_bytes").parse::<u64>().unwrap_or_default().div_ceil(1 << 30),
        fact("os").trim_matches('"'),
        machine.clocksource,
        machine.load_before,
    )
}

/// What to know before quoting a figure measured on a busy machine.
pub(crate) fn warning(machine: &Machine) -> Option<&'static str> {
    (machine.load_before > LOAD_MAX).then_some(
        "Others were working on this machine: read the ratios, and measure again when it is idle.",
    )
}

/// Empty where the system does not say.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Above it a neighbour takes part of a processor all the time.
const LOAD_MAX: f64 = 0.5;
const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
