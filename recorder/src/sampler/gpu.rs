//! NVIDIA GPUs, through the driver's own library.
//!
//! The library is loaded when the first sample is taken. A machine without it, or without a GPU,
//! gives no samples, and is not asked again.

use std::ffi::OsString;

use nvml_wrapper::Nvml;
use retake_schemas::event::Measured;

use super::{Source, measured, measured_by};

#[derive(Debug, Default)]
pub(super) struct Gpus {
    state: State,
    /// Where the library is; `None` for where the system has it.
    library: Option<OsString>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    NotAsked,
    Answers(Box<Nvml>),
    Absent,
}

impl Source for Gpus {
    fn sample(&mut self, samples: &mut Vec<Measured>) {
        if matches!(self.state, State::NotAsked) {
            self.state = self.open();
        }
        let State::Answers(library) = &self.state else { return };
        for index in 0..library.device_count().unwrap_or_default().min(GPUS_MAX) {
            samples.extend(gpu(library, index).into_iter().flatten().flatten());
        }
    }
}

impl Gpus {
    fn open(&self) -> State {
        let opened = match &self.library {
            Some(path) => Nvml::builder().lib_path(path).init(),
            None => Nvml::init(),
        };
        opened.map_or(State::Absent, |library| State::Answers(Box::new(library)))
    }
}

fn gpu(library: &Nvml, index: u32) -> Option<[Option<Measured>; 2]> {
    let device = library.device_by_index(index).ok()?;
    let id = device.uuid().unwrap_or_else(|_| index.to_string());
    let name = device.name().unwrap_or_default();
    let of_gpu = |measured| {
        measured_by(measured_by(measured, "hw.id", id.as_str()), "hw.name", name.as_str())
    };
    // One that a card does not report does not take the other with it.
    let utilization = device
        .utilization_rates()
        .ok()
        .map(|rates| of_gpu(measured("hw.gpu.utilization", "1", f64::from(rates.gpu) / 100.0)));
    let memory = device
        .memory_info()
        .ok()
        .map(|memory| of_gpu(measured("hw.gpu.memory.usage", "By", memory.used as f64)));
    Some([utilization, memory])
}

/// The most any machine known to us holds is 16; a driver that says more is not believed.
const GPUS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_there_are_no_samples_and_no_failure() {
        let library = Some("/nonexistent/libnvidia-ml.so.1".into());
        let mut gpus = Gpus { library, ..Gpus::default() };
        let mut samples = Vec::new();
        gpus.sample(&mut samples);
        gpus.sample(&mut samples);
        assert_eq!(samples, []);
        assert!(matches!(gpus.state, State::Absent), "asked once");
    }
}
