//! This process: CPU time, memory, threads, open files, context switches, disk.
//!
//! Read from `/proc/self`; where there is none, nothing is said. `sysinfo` is not used here: it
//! knows neither threads, peak memory, nor context switches, so `/proc` would be read besides.
//! `getrusage` would say most of this in one call, but no crate here offers it without `unsafe`
//! or without rebuilding half of the dependencies with other features of `libc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use retake_schemas::event::Measured;

use super::{Source, measured, measured_by};

#[derive(Debug, Default)]
pub(super) struct Process {
    /// When CPU time was last read, and how much it was.
    last_cpu: Option<(Instant, Duration)>,
    switches: Switches,
}

impl Source for Process {
    fn sample(&mut self, samples: &mut Vec<Measured>) {
        if let Some(cpu) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_time)
        {
            samples.extend(self.cpu(cpu));
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            samples.extend(memory_and_threads(&status));
            if number(&status, "Threads:").is_some_and(|threads| threads <= SWITCHES_THREADS_MAX) {
                samples.extend(self.switches.sample());
            }
        }
        samples.extend(open_files());
        // Not readable in some containers.
        if let Ok(io) = fs::read_to_string("/proc/self/io") {
            samples.extend(disk(&io));
        }
    }
}

impl Process {
    /// The share of one core since the last sample; the first one has nothing to compare with.
    fn cpu(&mut self, cpu: Duration) -> Option<Measured> {
        let now = Instant::now();
        let Some((then, cpu_then)) = self.last_cpu else {
            self.last_cpu = Some((now, cpu));
            return None;
        };
        let passed = now.duration_since(then);
        if passed < CPU_INTERVAL_MIN {
            // The next sample covers this time too.
            return None;
        }
        self.last_cpu = Some((now, cpu));
        let share = cpu.saturating_sub(cpu_then).as_secs_f64() / passed.as_secs_f64();
        Some(measured("process.cpu.utilization", "1", share))
    }
}

/// CPU time of all threads, those that have ended included, from `/proc/self/stat`.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program stands in parentheses and may itself hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(USER_TIME_FIELD);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}

/// Context switches since the sampler began, and those of living threads before.
///
/// The kernel tells them by thread, and a thread takes its count along when it ends; what it did
/// after the last sample is then missing.
#[derive(Debug, Default)]
struct Switches {
    /// Counts of the living threads at the last sample: voluntary, involuntary.
    threads: HashMap<u32, [f64; 2]>,
    total: [f64; 2],
}

impl Switches {
    fn sample(&mut self) -> Vec<Measured> {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
        let mut threads = HashMap::new();
        for task in tasks.flatten() {
            let id = task.file_name().to_str().and_then(|id| id.parse().ok());
            // A thread that ends at this moment has no status.
            let status = fs::read_to_string(task.path().join("status")).ok();
            if let (Some(id), Some(counts)) = (id, status.as_deref().and_then(switches)) {
                threads.insert(id, counts);
            }
        }
        self.advance(threads);
        ["voluntary", "involuntary"]
            .into_iter()
            .zip(self.total)
            .map(|(kind, count)| {
                let switches = measured("process.context_switches", "{context_switch}", count);
                measured_by(switches, "process.context_switch.type", kind)
            })
            .collect()
    }

    fn advance(&mut self, threads: HashMap<u32, [f64; 2]>) {
        for (id, counts) in &threads {
            let before = self.threads.get(id).copied().unwrap_or_default();
            for ((total, count), before) in self.total.iter_mut().zip(counts).zip(before) {
                // Lower than before: another thread has taken the number.
                *total += if *count >= before { count - before } else { *count };
            }
        }
        self.threads = threads;
    }
}

fn switches(status: &str) -> Option<[f64; 2]> {
    let voluntary = number(status, "voluntary_ctxt_switches:")?;
    Some([voluntary, number(status, "nonvoluntary_ctxt_switches:")?])
}

fn memory_and_threads(status: &str) -> impl Iterator<Item = Measured> {
    let kib = |name: &str| number(status, name).map(|kib| kib * 1024.0);
    [
        kib("VmRSS:").map(|bytes| measured("process.memory.usage", "By", bytes)),
        kib("VmHWM:").map(|bytes| measured("retake.process.memory.peak", "By", bytes)),
        number(status, "Threads:").map(|n| measured("process.thread.count", "{thread}", n)),
    ]
    .into_iter()
    .flatten()
}

fn disk(io: &str) -> impl Iterator<Item = Measured> {
    [("read", number(io, "read_bytes:")), ("write", number(io, "write_bytes:"))]
        .into_iter()
        .filter_map(|(direction, bytes)| {
            let bytes = measured("process.disk.io", "By", bytes?);
            Some(measured_by(bytes, "disk.io.direction", direction))
        })
}

/// The first number after `name` at the start of a line.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<Measured> {
    // Since Linux 6.2 the size of this folder is its number of entries; listing it costs a
    // microsecond for each open file.
    let counted = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()).filter(|n| *n > 0);
    let listed = || {
        // Listing opens one more.
        let entries = fs::read_dir("/proc/self/fd").ok()?.count();
        Some((entries as u64).saturating_sub(1))
    };
    let count = counted.or_else(listed)?;
    Some(measured("process.open_file_descriptor.count", "{file_descriptor}", count as f64))
}

/// The kernel tells CPU time in ticks of 10 ms; over less than this they would be most of the
/// value.
const CPU_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A constant of Linux towards programs on every architecture Rust has, whatever the kernel's own
/// tick is.
const TICKS_PER_S: u64 = 100;
/// `utime` is the 14th field of `stat` (proc_pid_stat(5)), the 12th after the name.
const USER_TIME_FIELD: usize = 11;
/// Threads whose context switches are read at most: some 20 us each, see `the_cost_of_a_sample`.
const SWITCHES_THREADS_MAX: f64 = 32.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(samples: &'a [Measured], name: &str) -> Vec<&'a Measured> {
        samples.iter().filter(|sample| sample.name == name).collect()
    }

    #[test]
    fn a_busy_thread_shows_as_one_core() {
        let mut process = Process::default();
        let mut samples = Vec::new();
        process.sample(&mut samples);
        assert!(named(&samples, "process.cpu.utilization").is_empty(), "nothing to compare with");
        let spent = |process: &mut Process| {
            let mut samples = Vec::new();
            process.sample(&mut samples);
            named(&samples, "process.cpu.utilization").first().map(|sample| sample.value)
        };
        let since = Instant::now();
        let mut sum = 0_u64;
        while since.elapsed() < Duration::from_millis(150) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let busy = spent(&mut process).unwrap();
        // Other tests run beside this one, and other programs beside the tests.
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(busy > 0.02 && busy < cores * 1.5, "{busy} of {cores}");
        assert_eq!(spent(&mut process), None, "no time has passed");
    }

    #[test]
    fn switches_of_threads_that_end_stay_counted() {
        let mut switches = Switches::default();
        switches.advance(HashMap::from([(1, [10.0, 1.0]), (2, [5.0, 0.0])]));
        switches.advance(HashMap::from([(1, [12.0, 1.0]), (3, [1.0, 1.0])]));
        // The number 3 is another thread's now.
        switches.advance(HashMap::from([(1, [12.0, 2.0]), (3, [0.0, 2.0])]));
        assert_eq!(switches.total, [10.0 + 5.0 + 2.0 + 1.0, 1.0 + 1.0 + 1.0 + 2.0 - 1.0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn waiting_is_a_voluntary_switch() {
        let mut switches = Switches::default();
        let voluntary = |samples: Vec<Measured>| samples.first().map(|sample| sample.value);
        let before = voluntary(switches.sample()).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let after = voluntary(switches.sample()).unwrap();
        assert!(after >= before + 20.0, "{before} to {after}");
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("12 (a) S 1 2"), None);
    }

    #[test]
    fn kernel_texts_are_read_and_what_is_missing_is_left_out() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t7\n";
        let samples: Vec<_> = memory_and_threads(status).collect();
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [1_048_576.0, 2_097_152.0, 7.0]);
        assert_eq!(memory_and_threads("VmRSS:\tmany kB\n").count(), 0);
        let io = "rchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        let samples: Vec<_> = disk(io).collect();
        assert_eq!(samples.iter().map(|s| s.value).collect::<Vec<_>>(), [4096.0, 8192.0]);
        assert_eq!(samples[1].attributes, [("disk.io.direction".into(), "write".into())]);
    }
}
