//! By what a breakdown groups.

use std::str::FromStr;

use crate::assemble::{LeanSpan, Text, Texts, Wanted};

/// A column a breakdown can group by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupKey {
    /// Named pipeline step.
    Stage,
    /// Model that answered, else the one asked for.
    Model,
    /// What it is in RAG terms.
    Kind,
    /// Span name.
    Name,
    /// Service.
    Service,
    /// Provider of the model.
    Provider,
    /// How it ended.
    Status,
}

impl GroupKey {
    /// Every key.
    pub const ALL: [Self; 7] = [
        Self::Stage,
        Self::Model,
        Self::Kind,
        Self::Name,
        Self::Service,
        Self::Provider,
        Self::Status,
    ];

    /// The word used on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Model => "model",
            Self::Kind => "kind",
            Self::Name => "name",
            Self::Service => "service",
            Self::Provider => "provider",
            Self::Status => "status",
        }
    }
}

/// A word that names no [`GroupKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group by {0:?}: choose from stage, model, kind, name, service, provider, status")]
pub struct UnknownGroupKey(String);

impl FromStr for GroupKey {
    type Err = UnknownGroupKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|key| key.as_str() == text);
        found.ok_or_else(|| UnknownGroupKey(text.to_owned()))
    }
}

impl GroupKey {
    /// The column of the spans it is read from besides those that every breakdown reads.
    fn is_in_breakdown(self) -> bool {
        matches!(self, Self::Stage | Self::Kind | Self::Status)
    }

    fn of(self, span: &LeanSpan) -> Option<Text> {
        match self {
            Self::Stage => Some(span.stage),
            Self::Model => span.model,
            Self::Kind => Some(span.kind),
            Self::Name => Some(span.name),
            Self::Service => span.service,
            Self::Provider => span.provider,
            Self::Status => Some(span.status),
        }
    }
}

/// The columns that a breakdown by `by` reads.
pub(super) fn wanted(by: &[GroupKey]) -> Wanted {
    match by.iter().all(|key| key.is_in_breakdown()) {
        true => Wanted::BREAKDOWN,
        false => Wanted::ALL,
    }
}

/// What tells groups apart; as short as that, because every span asks for it.
pub(super) type Words = [Option<Text>; GroupKey::ALL.len()];

/// The words by which a span is grouped. More keys than there are say nothing new.
pub(super) fn words(span: &LeanSpan, by: &[GroupKey]) -> Words {
    let mut words = Words::default();
    for (word, key) in words.iter_mut().zip(by) {
        *word = key.of(span);
    }
    words
}

/// How a group is called.
pub(super) fn label(words: &Words, by: &[GroupKey], texts: &Texts) -> String {
    let shown = words.iter().zip(by).map(|(word, _)| word.map_or(NONE, |text| texts.text(text)));
    shown.collect::<Vec<_>>().join(" / ")
}

/// Stands where a span has no model, service or provider.
const NONE: &str = "-";
