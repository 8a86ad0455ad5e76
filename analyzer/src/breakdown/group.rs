//! By what a breakdown groups.

use std::str::FromStr;

use crate::assemble::{LeanSpan, Text, Texts};

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

/// The group a span belongs to.
pub(super) fn label(span: &LeanSpan, by: &[GroupKey], texts: &Texts) -> String {
    let word = |text: Text| texts.text(text);
    let optional = |text: Option<Text>| text.map_or(NONE, word);
    let words: Vec<&str> = by
        .iter()
        .map(|key| match key {
            GroupKey::Stage => word(span.stage),
            GroupKey::Model => optional(span.model),
            GroupKey::Kind => word(span.kind),
            GroupKey::Name => word(span.name),
            GroupKey::Service => optional(span.service),
            GroupKey::Provider => optional(span.provider),
            GroupKey::Status => word(span.status),
        })
        .collect();
    words.join(" / ")
}

/// Stands where a span has no model, service or provider.
const NONE: &str = "-";
