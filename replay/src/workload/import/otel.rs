//! OTLP/JSON, as exporters and the OpenTelemetry Collector's file exporter write it.
//!
//! The files go through the recorder into a store that lives for the import only, and the workload
//! is cut out of that run: conventions, roll-ups, and repeated spans are understood as everywhere.

use std::fs::File;
use std::path::{Path, PathBuf};

use retake_recorder::otlp::{ImportLimits, Intake, IntakeSettings, Signal};
use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;

use super::{Entry, Gathered, ImportError, Origin, lines};
use crate::workload::{Operations, Workload};

pub(super) fn read(paths: &[PathBuf], gathered: &mut Gathered) -> Result<(), ImportError> {
    let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    let otlp = |path: &Path, reason: String| ImportError::Otlp { path: path.to_owned(), reason };
    let folder = tempfile::tempdir().map_err(|error| lines::read_error(first, &error))?;
    let store = Store::create(folder.path()).map_err(|error| otlp(first, error.to_string()))?;
    let settings = RecordSettings {
        capture: Capture::Full,
        sample_ms: 0,
        seal_idle: false,
        when_full: retake_schemas::settings::WhenFull::Block,
        ..RecordSettings::default()
    };
    let recorder = RecorderBuilder::new("import", "import")
        .record_settings(settings)
        .start(&store)
        .map_err(|error| otlp(first, error.to_string()))?;
    let intake = Intake::new(recorder.dispatcher(), "import", IntakeSettings::default());
    for path in paths {
        let file = File::open(path).map_err(|error| lines::read_error(path, &error))?;
        let limits = ImportLimits::default();
        let imported =
            retake_recorder::otlp::import(file, Signal::Traces, &intake, limits, &mut |_| {})
                .map_err(|error| otlp(path, error.to_string()))?;
        for (line, reason) in imported.bad_lines {
            gathered.bad_line(path, line, reason);
        }
    }
    let run_id = recorder.run_id().clone();
    let _ = recorder.finish(RunStatus::Finished);
    let workload = Workload::cut_shapes(&store, &run_id, Operations::default())
        .map_err(|error| otlp(first, error.to_string()))?;
    let began = workload.first_unix_ns;
    for operation in workload.workload.operations {
        gathered.push(Entry {
            line: operation.index + 1,
            stamp_ns: began + operation.due_ns,
            origin: Origin::Unix,
            kind: operation.kind,
            duration_ns: operation.recorded_duration_ns,
            input: operation.input,
            shape: operation.shape,
            ..Entry::default()
        })?;
    }
    Ok(())
}
