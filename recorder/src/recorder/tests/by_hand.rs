//! A recording whose writer runs when the test says so, on the test's own thread, at times the
//! test chooses: what happens between any two steps is the same every time.

use std::sync::atomic::{AtomicU64, Ordering};

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::RecordSettings;

use crate::clock::Clock;
use crate::dispatcher::Dispatcher;
use crate::journal::{JournalLimits, Losses};
use crate::recorder::{Prepared, RecorderBuilder, RunSummary};
use crate::store::Store;
use crate::writer::{Background, Writer};

pub(super) struct ByHand {
    pub(super) dispatcher: Dispatcher,
    writer: Writer,
    now: &'static AtomicU64,
}

impl ByHand {
    pub(super) fn start(store: &Store, settings: RecordSettings, limits: JournalLimits) -> Self {
        // Leaked, a word per recording: the clock is copied into whatever reads it.
        let now: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(START_NS)));
        let builder = RecorderBuilder::new("t", "svc")
            .record_settings(RecordSettings { seal_secs: u64::MAX, ..settings })
            .journal_limits(limits);
        let Prepared { dispatcher, writer, .. } =
            builder.prepare(store, Clock::simulated(now), Background::threads).unwrap();
        Self { dispatcher, writer, now }
    }

    pub(super) fn run_id(&self) -> RunId {
        self.dispatcher.run_id().clone()
    }

    /// Lets time pass.
    pub(super) fn pass(&self, ns: u64) {
        self.now.fetch_add(ns, Ordering::Relaxed);
    }

    /// What the writer thread does each time it wakes.
    pub(super) fn tick(&mut self) {
        self.writer.tick();
    }

    /// Waits for the seal that is under way, if there is one.
    pub(super) fn end_seal(&mut self) {
        self.writer.end_seal();
    }

    pub(super) fn losses(&self) -> Losses {
        self.dispatcher.target().journal.losses()
    }

    pub(super) fn finish(self, status: RunStatus) -> RunSummary {
        self.writer.finish(status)
    }
}

/// Some moment in 2026, ns since the Unix epoch.
const START_NS: u64 = 1_795_000_000_000_000_000;
