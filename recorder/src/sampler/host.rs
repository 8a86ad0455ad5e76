//! The whole machine: how busy its processors are, and how much memory is left.
//!
//! `sysinfo` is used here: it knows the systems, and one refresh of both is cheap (measured in
//! `the_cost_of_a_sample`).

use std::time::Instant;

use retake_schemas::event::Measured;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use super::{Source, measured, measured_by};

#[derive(Debug, Default)]
pub(super) struct Host {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    system: System,
    /// When processor times were last compared with earlier ones.
    cpu_read: Instant,
}

impl Source for Host {
    fn sample(&mut self, samples: &mut Vec<Measured>) {
        match &mut self.known {
            Some(known) => samples.extend(known.cpu()),
            None => self.known = Known::new(),
        }
        if let Some(known) = &mut self.known {
            samples.extend(known.memory());
        }
    }
}

impl Known {
    fn new() -> Option<Self> {
        let mut system = System::new().ok()?;
        system.refresh_cpu_usage();
        Some(Self { system, cpu_read: Instant::now() })
    }

    fn cpu(&mut self) -> Option<Measured> {
        // More often than this, the system has nothing new to say.
        if self.cpu_read.elapsed() < MINIMUM_CPU_UPDATE_INTERVAL {
            return None;
        }
        self.cpu_read = Instant::now();
        self.system.refresh_cpu_usage();
        let percent = f64::from(self.system.global_cpu_usage());
        Some(measured("system.cpu.utilization", "1", percent / 100.0))
    }

    fn memory(&mut self) -> impl Iterator<Item = Measured> + use<> {
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let used = measured("system.memory.usage", "By", self.system.used_memory() as f64);
        let available =
            measured("system.linux.memory.available", "By", self.system.available_memory() as f64);
        [
            Some(measured_by(used, "system.memory.state", "used")),
            // Elsewhere the figure means something else, and the name would be wrong.
            cfg!(target_os = "linux").then_some(available),
        ]
        .into_iter()
        .flatten()
        // A system that hides its memory says 0.
        .filter(|sample| sample.value > 0.0)
    }
}
