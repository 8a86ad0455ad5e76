//! Samples of what a run uses: processor, memory, files, disk and GPU, as `Measured` events.
//!
//! A slow stage is read differently when the machine was busy, swapping, or out of descriptors at
//! that moment. The samples stand in the table `measures`, on the run's clock, beside the spans.
//!
//! What cannot be read on a machine is left out; it is never an error of the program. Names and
//! units are OpenTelemetry's:
//!
//! | name | unit | meaning |
//! |---|---|---|
//! | `process.cpu.utilization` | 1 | CPU time since the last sample by time passed; 1 is one core |
//! | `process.memory.usage` | By | resident memory |
//! | `retake.process.memory.peak` | By | the most it ever was (OpenTelemetry has no name for it) |
//! | `process.thread.count` | {thread} | threads |
//! | `process.open_file_descriptor.count` | {file_descriptor} | open files, sockets, pipes |
//! | `process.context_switches` | {context_switch} | since the process began, by type |
//! | `process.disk.io` | By | since the process began, by direction |
//! | `system.cpu.utilization` | 1 | of the whole machine; 1 is all cores |
//! | `system.memory.usage` | By | used by all programs |
//! | `system.linux.memory.available` | By | what programs can take without swapping |
//! | `hw.gpu.utilization` | 1 | by GPU, when NVIDIA's library answers |
//! | `hw.gpu.memory.usage` | By | by GPU, likewise |
//!
//! OpenTelemetry divides `process.cpu.utilization` by the number of processors. Here 1 is one core
//! busy, because a stage that keeps one core of many busy is a bottleneck that such a quotient
//! hides; the number of processors stands with the run.

mod gpu;
mod host;
mod process;

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use retake_schemas::event::{DropCause, Measured};
use retake_schemas::settings::RecordSettings;
use retake_schemas::{EventBody, Value};

use crate::dispatcher::Dispatcher;
use crate::journal::Offered;

/// How to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerSettings {
    /// Time from one sample to the next, ms; 0 takes none.
    pub sample_ms: u64,
}

impl From<&RecordSettings> for SamplerSettings {
    fn from(settings: &RecordSettings) -> Self {
        Self { sample_ms: settings.sample_ms }
    }
}

/// Samples resources until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    running: Option<Running>,
}

impl Sampler {
    /// Starts sampling into the dispatcher's run: once at the start, then at every interval, and
    /// once more at the end, so that a run shorter than the interval is not left without.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(dispatcher: Dispatcher, settings: SamplerSettings) -> io::Result<Self> {
        if settings.sample_ms == 0 {
            return Ok(Self { running: None });
        }
        let interval = Duration::from_millis(settings.sample_ms);
        Running::start(dispatcher, interval, sources())
            .map(|running| Self { running: Some(running) })
    }

    /// Whether samples are still taken: not with an interval of 0, nor after the run has ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.thread.is_finished())
    }
}

/// A place that samples come from. One that fails adds nothing.
trait Source: Send {
    fn sample(&mut self, samples: &mut Vec<Measured>);
}

fn sources() -> Vec<Box<dyn Source>> {
    vec![
        Box::new(process::Process::default()),
        Box::new(host::Host::default()),
        // Last: the first answer of a GPU driver may take long.
        Box::new(gpu::Gpus::default()),
    ]
}

#[derive(Debug)]
struct Running {
    /// Dropping it tells the thread to stop; nothing is ever sent.
    stop: Option<Sender<()>>,
    /// Disconnects when the thread has stopped.
    stopped: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(
        dispatcher: Dispatcher,
        interval: Duration,
        sources: Vec<Box<dyn Source>>,
    ) -> io::Result<Self> {
        let (stop, stopping) = crossbeam_channel::bounded(0);
        let (alive, stopped) = crossbeam_channel::bounded(0);
        let thread =
            std::thread::Builder::new().name("retake-sampler".to_owned()).spawn(move || {
                let _alive = alive;
                Loop { dispatcher, stopping, sources, samples: Vec::new() }.run(interval);
            })?;
        Ok(Self { stop: Some(stop), stopped, thread })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A driver that hangs must not hang the program: after this wait the thread is left to
        // itself, and takes no further sample when the driver answers.
        let _ = self.stopped.recv_timeout(STOP_WAIT_MAX);
    }
}

/// What the sampler's thread holds.
struct Loop {
    dispatcher: Dispatcher,
    stopping: Receiver<()>,
    sources: Vec<Box<dyn Source>>,
    samples: Vec<Measured>,
}

impl Loop {
    fn run(mut self, interval: Duration) {
        let mut due = Instant::now();
        let mut is_stopping = false;
        loop {
            if self.sample() == Run::Over || is_stopping {
                return;
            }
            // A machine too busy to sample in time is not sampled twice at once to make up.
            due = (due + interval).max(Instant::now());
            is_stopping = self.stopping.recv_deadline(due) == Err(RecvTimeoutError::Disconnected);
        }
    }

    fn sample(&mut self) -> Run {
        for source in &mut self.sources {
            let begun = Instant::now();
            source.sample(&mut self.samples);
            // Whoever stopped the sampler has not waited for this source.
            if begun.elapsed() > STOP_WAIT_MAX
                && self.stopping.try_recv() == Err(TryRecvError::Disconnected)
            {
                return Run::Over;
            }
            for measured in self.samples.drain(..) {
                let offered = self.dispatcher.emit(&EventBody::Measured(measured));
                if offered == Offered::Dropped(DropCause::Finished) {
                    return Run::Over;
                }
            }
        }
        Run::GoesOn
    }
}

/// Whether there is still a run to sample into.
#[derive(PartialEq, Eq)]
enum Run {
    GoesOn,
    Over,
}

fn measured(name: &str, unit: &str, value: f64) -> Measured {
    Measured { name: name.to_owned(), unit: unit.to_owned(), value, attributes: Vec::new() }
}

/// The same with one dimension.
fn measured_by(mut measured: Measured, key: &'static str, value: impl Into<Value>) -> Measured {
    measured.attributes.push((key.into(), value.into()));
    measured
}

/// Far longer than a sample takes, and short enough for a person not to notice.
const STOP_WAIT_MAX: Duration = Duration::from_millis(80);

#[cfg(test)]
mod tests;
