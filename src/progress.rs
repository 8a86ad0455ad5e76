//! Progress on stderr: a bar with an ETA and a line of live figures on a terminal, nothing
//! elsewhere or with `--quiet`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use retake_pipeline::eval::{EvalItem, EvalProgress};
use retake_pipeline::ingest::{DocumentOutcome, IngestProgress};
use retake_recorder::Dispatcher;
use retake_recorder::handlers::progress::{LiveSnapshot, LiveStats};
use retake_recorder::remote::TransferProgress;

use crate::output::inert;
use crate::units::{count, duration};

/// Whether anyone would see progress. Following a run for nobody would be work for nothing.
pub(crate) fn is_shown(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// What a run is doing at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) stats: LiveStats,
    /// Has the clock of the run.
    pub(crate) dispatcher: Dispatcher,
}

/// A bar for work of a known (or soon known) size, or a spinner.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    template: String,
}

impl Progress {
    pub(crate) fn new(quiet: bool, what: &'static str, unit: &str) -> Self {
        let template = format!(
            "{{prefix:>10}} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  ETA {{eta}}  {{msg}}"
        );
        // indicatif draws nothing when stderr is no terminal.
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        Self::start(bar, what, template)
    }

    /// For work whose size is not known.
    pub(crate) fn spinner(quiet: bool, what: &'static str) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        Self::start(bar, what, "{prefix:>10} {spinner} {elapsed}  {msg}".to_owned())
    }

    fn start(bar: ProgressBar, what: &'static str, template: String) -> Self {
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, template }
    }

    /// Adds a line of live figures of the run, if it is followed.
    pub(crate) fn with_live(self, live: Option<&Live>) -> Self {
        let Some(live) = live.cloned() else { return self };
        let template = format!("{}\n           {{live}}", self.template);
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let line = move |_: &ProgressState, out: &mut dyn Write| {
                let live = live.stats.snapshot(live.dispatcher.now_unix_ns());
                let _ = out.write_str(&live_line(&live));
            };
            self.bar.set_style(style.progress_chars("=> ").with_key("live", line));
        }
        self
    }

    /// Says what it is at, behind the bar.
    pub(crate) fn message(&self, message: &str) {
        self.bar.set_message(inert(message));
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

    /// Takes the picture away. May be called again: only the first time touches the terminal,
    /// which by then shows something else.
    pub(crate) fn finish(&self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

impl IngestProgress for Progress {
    fn discovered(&self, documents: u64) {
        self.length(documents);
    }

    fn document_done(&self, outcome: &DocumentOutcome<'_>) {
        // Those that vanished are none of the documents that were found.
        if !matches!(outcome, DocumentOutcome::Deleted { .. }) {
            self.bar.inc(1);
        }
        if let DocumentOutcome::Failed { id, .. } = outcome {
            self.bar.set_message(format!("last failure: {}", inert(id)));
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

/// The figures as one line. What is zero and would be bad is not mentioned.
fn live_line(live: &LiveSnapshot) -> String {
    let shown = |n: u64| count(i64::try_from(n).unwrap_or(i64::MAX));
    let mut parts = vec![
        format!("{:.0} spans/s", live.spans_per_s),
        format!("{} open", shown(live.open_spans)),
    ];
    if live.input_tokens + live.output_tokens > 0 {
        let (input, output) = (shown(live.input_tokens), shown(live.output_tokens));
        parts.push(format!("tokens {input} in, {output} out"));
    }
    if live.errors > 0 {
        parts.push(format!("{} errors", shown(live.errors)));
    }
    if live.dropped > 0 {
        parts.push(format!("{} events dropped", shown(live.dropped)));
    }
    if let Some(slowest) = live.stages.first() {
        let (p50, p95) = (duration(slowest.p50_ns), duration(slowest.p95_ns));
        parts.push(format!("slowest: {} p50 {p50}, p95 {p95}", inert(&slowest.stage)));
    }
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use retake_recorder::handlers::progress::StageLatency;

    use super::*;

    #[test]
    fn the_line_mentions_what_matters() {
        let calm = LiveSnapshot { spans_per_s: 12.4, open_spans: 3, ..LiveSnapshot::default() };
        assert_eq!(live_line(&calm), "12 spans/s | 3 open");
        let stage = |stage: &str, p95_ns| StageLatency {
            stage: stage.to_owned(),
            spans: 9,
            p50_ns: 1_000_000,
            p95_ns,
        };
        let busy = LiveSnapshot {
            input_tokens: 12_345,
            output_tokens: 67,
            errors: 2,
            dropped: 1,
            stages: vec![stage("llm\u{1b}[2J", 40_000_000), stage("search", 2_000_000)],
            ..calm
        };
        assert_eq!(
            live_line(&busy),
            "12 spans/s | 3 open | tokens 12 345 in, 67 out | 2 errors | 1 events dropped | \
             slowest: llm\\u{1b}[2J p50 1.00 ms, p95 40.0 ms"
        );
    }
}
