//! One colour per stage, the same on the whole page.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::facts::is_idle;
use super::text;
use crate::model::BreakdownRow;

/// Classes of the style sheet, one per colour. Seven is as many as stay apart for readers with
/// any of the three colour-vision deficiencies; see the note in `style.css`.
const SLOTS: [&str; 7] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6"];
/// Class of every further stage.
const REST: &str = "sx";

/// Which stage has which colour.
#[derive(Debug)]
pub(super) struct Palette<'a> {
    slots: BTreeMap<&'a str, &'static str>,
}

impl<'a> Palette<'a> {
    /// Gives the colours to the stages that take the most wall time; idleness stays neutral.
    pub(super) fn new(rows: &'a [BreakdownRow]) -> Self {
        let mut slots = BTreeMap::new();
        for row in rows.iter().filter(|row| !is_idle(row)) {
            if let Some(class) = SLOTS.get(slots.len()) {
                slots.entry(row.stage.as_str()).or_insert(*class);
            }
        }
        Self { slots }
    }

    /// The class of a stage.
    pub(super) fn class(&self, stage: &str) -> &'static str {
        self.slots.get(stage).copied().unwrap_or(REST)
    }

    /// The stage's name after a square of its colour.
    pub(super) fn name(&self, stage: &str) -> Markup {
        html! {
            span class="stage" {
                span class={ "sw " (self.class(stage)) } {}
                bdi { (text::label_or_unnamed(stage)) }
            }
        }
    }
}
