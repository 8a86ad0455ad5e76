//! What is known of an operation when its text is not: lengths, its session, and which parts of its
//! prompt it shares with others.

use serde::{Deserialize, Serialize};

/// The shape of an operation. Everything is optional, because every trace leaves something out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Conversation it belongs to.
    pub session: Option<String>,
    /// Its place in that conversation, from 0.
    pub turn: u32,
    /// *Pure* think time: from the end of the session's previous turn to the start of this one, ns.
    /// `None` when the trace does not say when the previous turn ended, which is most of them: a
    /// gap between starts holds the service time, and would count it twice.
    pub think_ns: Option<i64>,
    /// `index` of the session's previous turn.
    pub parent: Option<u64>,
    /// Whether `due_ns` was recorded. Of a trace of sessions only the first turn's is; later ones
    /// are then the earliest possible, as if every turn before had taken no time.
    pub is_due_derived: bool,
    /// Model asked.
    pub model: Option<String>,
    /// Input, tokens.
    pub tokens_in: Option<u64>,
    /// Output, tokens.
    pub tokens_out: Option<u64>,
    /// What the input is made of, in order, as far as known.
    pub parts: Vec<Part>,
}

/// A piece of a prompt. Two parts with equal role and id have equal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub role: PartRole,
    /// Which text it is; `None` for one that nothing else shares.
    pub id: Option<u64>,
    /// Its length, tokens.
    pub tokens: Option<u32>,
}

/// What a piece of a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartRole {
    /// Instructions.
    System,
    /// A retrieved passage, in order of rank.
    Passage,
    /// Earlier turns.
    History,
    /// A result of a web search.
    WebSearch,
    /// What the user said.
    User,
    /// A block of a prompt whose id stands for it *and everything before it*, so that equal ids
    /// mean an equal prefix (Mooncake's `hash_ids`, 512 tokens a block).
    PrefixBlock,
    /// What the service had seen before in this session (a cached prefix).
    Prefix,
    /// What is new in this turn.
    Fresh,
}

impl PartRole {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::System,
        Self::Passage,
        Self::History,
        Self::WebSearch,
        Self::User,
        Self::PrefixBlock,
        Self::Prefix,
        Self::Fresh,
    ];

    /// The name in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Passage => "passage",
            Self::History => "history",
            Self::WebSearch => "web_search",
            Self::User => "user",
            Self::PrefixBlock => "prefix_block",
            Self::Prefix => "prefix",
            Self::Fresh => "fresh",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl Shape {
    /// Adds the shape to a workload's digest. An empty one adds nothing, so that a workload of
    /// which nothing but inputs is known has the digest it always had.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        if *self == Self::default() {
            return;
        }
        // Numbers with a length of their own; absent ones are told from zeros.
        let number = |hasher: &mut blake3::Hasher, value: Option<u64>| {
            hasher.update(&[u8::from(value.is_some())]);
            hasher.update(&value.unwrap_or(0).to_le_bytes());
        };
        for text in [&self.session, &self.model] {
            number(hasher, text.as_ref().map(|text| text.len() as u64));
            hasher.update(text.as_deref().unwrap_or_default().as_bytes());
        }
        number(hasher, Some(u64::from(self.turn)));
        number(hasher, self.think_ns.map(i64::cast_unsigned));
        number(hasher, self.tokens_in);
        number(hasher, self.tokens_out);
        number(hasher, Some(self.parts.len() as u64));
        for part in &self.parts {
            hasher.update(part.role.as_str().as_bytes());
            number(hasher, part.id);
            number(hasher, part.tokens.map(u64::from));
        }
    }

    /// Tokens of the parts of a role; `None` when there are none, or a length is unknown.
    #[must_use]
    pub fn part_tokens(&self, role: PartRole) -> Option<u64> {
        let mut parts = self.parts.iter().filter(|part| part.role == role).peekable();
        parts.peek()?;
        parts.map(|part| part.tokens.map(u64::from)).sum()
    }
}
