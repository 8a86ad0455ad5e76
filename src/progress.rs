//! Progress on stderr: a bar with an ETA on a terminal, nothing elsewhere or with `--quiet`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use retake_pipeline::eval::{EvalItem, EvalProgress};
use retake_pipeline::ingest::{DocumentOutcome, IngestProgress};
use retake_recorder::remote::TransferProgress;

/// A bar for work of a known (or soon known) size.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(quiet: bool, what: &'static str, unit: &str) -> Self {
        // indicatif draws nothing when stderr is no terminal.
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let template = format!(
            "{{prefix:>10}} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  ETA {{eta}}  {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    pub(crate) fn length(&self, length: u64) {
        self.bar.set_length(length);
        // An ETA from the time before the size was known would mislead.
        self.bar.reset_eta();
    }

    pub(crate) fn position(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Where a push or a pull of one run is.
    pub(crate) fn transfer(&self, step: TransferProgress) {
        self.at(step.bytes_done, step.bytes_total);
    }

    pub(crate) fn at(&self, position: u64, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(position);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl IngestProgress for Progress {
    fn discovered(&self, documents: u64) {
        self.length(documents);
    }

    fn document_done(&self, outcome: &DocumentOutcome<'_>) {
        self.bar.inc(1);
        if let DocumentOutcome::Failed { id, .. } = outcome {
            self.bar.set_message(format!("last failure: {}", crate::output::inert(id)));
        }
    }
}

impl EvalProgress for Progress {
    fn begun(&self, questions: u64, resumed: u64) {
        self.length(questions);
        self.bar.set_position(resumed);
        self.bar.reset_eta();
    }

    fn item_done(&self, _item: &EvalItem) {
        self.bar.inc(1);
    }
}
