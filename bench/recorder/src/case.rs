//! What is measured: sections for people, cases for child processes.
//!
//! A case is one measure of one variant in one fresh process, because a global subscriber, a
//! warmed allocator or a peer's background thread must not colour the next variant.

use std::fmt;

use clap::ValueEnum;

/// A part of the benchmark that can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Section {
    /// What the instrumented thread pays per span and per event.
    Hot,
    /// What a clock read, a lock, an allocation cost here.
    Limits,
    /// Spans per second into files, nothing dropped.
    E2e,
    /// Latency of requests at a fixed pace.
    Paced,
    /// Bytes a span on disk.
    Bytes,
    /// The price of each sync policy.
    Sync,
}

/// How a case measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measure {
    /// See [`Section::Hot`].
    Hot,
    /// See [`Section::Limits`].
    Limits,
    /// See [`Section::E2e`].
    E2e,
    /// See [`Section::Paced`].
    Paced,
    /// See [`Section::Bytes`].
    Bytes,
}

/// Who records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Variant {
    /// No subscriber at all.
    Nothing,
    /// Registry with a Layer that does nothing: the reference.
    Registry,
    /// retake's Layer on the Registry.
    Layer,
    /// retake's own Subscriber, without the Registry.
    Subscriber,
    /// retake's direct API, without `tracing`.
    Direct,
    /// fastrace with three properties formatted to `String`.
    Fastrace,
    /// fastrace with three properties known at compile time.
    FastraceStatic,
    /// fastrace without properties.
    FastraceBare,
    /// fastrace with one root a request, as a service would have.
    FastraceRoots,
    /// micromegas without properties.
    MicromegasBare,
    /// micromegas with three properties.
    Micromegas,
    /// tracing-opentelemetry, batch processor as it comes.
    Otel,
    /// The same with room for two million spans, so that none is dropped.
    OtelBigQueue,
    /// tracing-chrome to a file.
    Chrome,
    /// fmt JSON through a non-blocking appender.
    FmtJson,
}

/// One measure of one variant, in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// How.
    pub(crate) measure: Measure,
    /// Who.
    pub(crate) variant: Variant,
    /// Threads of the application.
    pub(crate) threads: u32,
    /// `record.sync_ms`; retake's default if `None`.
    pub(crate) sync_ms: Option<u64>,
}

impl Case {
    /// A case with one application thread and default settings.
    pub(crate) const fn new(measure: Measure, variant: Variant) -> Self {
        Self { measure, variant, threads: 1, sync_ms: None }
    }

    /// The same on `threads` threads.
    pub(crate) const fn on_threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    /// The same with another sync policy.
    pub(crate) const fn synced_every_ms(self, sync_ms: u64) -> Self {
        Self { sync_ms: Some(sync_ms), ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", word(&self.measure), word(&self.variant))?;
        if self.threads != 1 {
            write!(f, "/{} threads", self.threads)?;
        }
        if let Some(sync_ms) = self.sync_ms {
            write!(f, "/sync {sync_ms} ms")?;
        }
        Ok(())
    }
}

impl Section {
    /// The cases it consists of. Doors that are not compiled in are left out here and named as
    /// missing in the rows.
    pub(crate) fn cases(self) -> Vec<Case> {
        let of = |measure, variants: &[Variant]| {
            variants.iter().map(|variant| Case::new(measure, *variant)).collect::<Vec<_>>()
        };
        let cases = match self {
            Self::Hot => of(Measure::Hot, &Variant::ALL),
            Self::Limits => of(Measure::Limits, &[Variant::Nothing]),
            Self::E2e => {
                let mut cases = of(Measure::E2e, &Variant::DOORS);
                cases
                    .extend(Variant::DOORS.map(|door| Case::new(Measure::E2e, door).on_threads(2)));
                cases.extend(of(
                    Measure::E2e,
                    &[Variant::Otel, Variant::OtelBigQueue, Variant::Chrome, Variant::FmtJson],
                ));
                cases
            }
            Self::Paced => {
                let mut cases = of(Measure::Paced, &[Variant::Registry]);
                cases.extend(of(Measure::Paced, &Variant::DOORS));
                cases.extend(of(Measure::Paced, &[Variant::Otel, Variant::FmtJson]));
                cases
            }
            Self::Bytes => of(Measure::Bytes, &[Variant::Layer]),
            Self::Sync => [Measure::Hot, Measure::Paced, Measure::E2e]
                .into_iter()
                .flat_map(|measure| {
                    SYNC_MS.map(|ms| Case::new(measure, Variant::Layer).synced_every_ms(ms))
                })
                .collect(),
        };
        cases.into_iter().filter(|case| case.variant.is_built()).collect()
    }

    /// Bytes on disk do not vary with the load of the machine: one round says it all.
    pub(crate) const fn rounds_max(self) -> u32 {
        match self {
            Self::Bytes => 1,
            _ => u32::MAX,
        }
    }
}

impl Variant {
    /// Everyone.
    pub(crate) const ALL: [Self; 15] = [
        Self::Nothing,
        Self::Registry,
        Self::Layer,
        Self::Subscriber,
        Self::Direct,
        Self::Fastrace,
        Self::FastraceStatic,
        Self::FastraceBare,
        Self::FastraceRoots,
        Self::MicromegasBare,
        Self::Micromegas,
        Self::Otel,
        Self::OtelBigQueue,
        Self::Chrome,
        Self::FmtJson,
    ];

    /// retake's own.
    pub(crate) const DOORS: [Self; 3] = [Self::Layer, Self::Subscriber, Self::Direct];

    /// Whether this program was built with it.
    pub(crate) const fn is_built(self) -> bool {
        cfg!(feature = "new-doors") || !matches!(self, Self::Subscriber | Self::Direct)
    }

    /// How tables call it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Nothing => "no subscriber",
            Self::Registry => "Registry + empty Layer",
            Self::Layer => "retake Layer",
            Self::Subscriber => "retake Subscriber",
            Self::Direct => "retake direct API",
            Self::Fastrace => "fastrace, 3 String properties",
            Self::FastraceStatic => "fastrace, 3 static properties",
            Self::FastraceBare => "fastrace, no properties",
            Self::FastraceRoots => "fastrace, a root per 4 spans",
            Self::MicromegasBare => "micromegas, no properties",
            Self::Micromegas => "micromegas, 3 properties",
            Self::Otel => "tracing-opentelemetry, batch",
            Self::OtelBigQueue => "tracing-opentelemetry, 2 M queue",
            Self::Chrome => "tracing-chrome to a file",
            Self::FmtJson => "fmt JSON, non-blocking",
        }
    }
}

/// The word the command line uses for `value`.
pub(crate) fn word<V: ValueEnum>(value: &V) -> String {
    value.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned())
}

/// Sync policies compared: none, the default, ten times as often.
pub(crate) const SYNC_MS: [u64; 3] = [0, 1000, 100];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Scenario: every section is asked for at once.
    #[test]
    fn no_case_is_measured_under_two_meanings() {
        let cases: Vec<Case> = Section::value_variants().iter().flat_map(|s| s.cases()).collect();
        let distinct: BTreeSet<&Case> = cases.iter().collect();
        assert_eq!(distinct.len(), cases.len());
    }

    /// Scenario: a ratio against the reference is wanted in hot and paced.
    #[test]
    fn the_reference_is_part_of_every_section_that_is_read_as_ratios() {
        for section in [Section::Hot, Section::Paced] {
            assert!(section.cases().iter().any(|case| case.variant == Variant::Registry));
        }
    }
}
