//! Personal data out of passages, before a model sees them.

use async_trait::async_trait;
use retake_recorder::redact::Redactor;
use retake_schemas::redaction::{Detector, RedactSettings};

use super::{Postprocessor, Processed, Query};
use crate::document::Hit;
use crate::error::PipelineError;

/// Takes e-mail addresses, card numbers and the like out of passages, so that the service that
/// answers does not get them: `[redacted:email]` stands in their place.
///
/// It finds by shape, by the rules of [`retake_recorder::redact`], and asks no model: LlamaIndex's
/// sends the very text to one. Names of people have no shape and stay. The index, and what the
/// search recorded, keep what they had.
#[derive(Clone)]
pub struct PiiMask {
    redactor: Redactor,
}

impl std::fmt::Debug for PiiMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PiiMask").finish_non_exhaustive()
    }
}

impl PiiMask {
    /// A mask of what these detectors find.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if the rules cannot be used.
    pub fn new(detectors: &[Detector]) -> Result<Self, PipelineError> {
        let settings = RedactSettings { detectors: detectors.to_vec(), rules: Vec::new() };
        let redactor = Redactor::new(&settings)
            .map_err(|error| PipelineError::Configuration(error.to_string()))?;
        Ok(Self { redactor })
    }

    fn masked(&self, mut hit: Hit) -> Hit {
        if let std::borrow::Cow::Owned(text) = self.redactor.redact(&hit.chunk.text) {
            hit.chunk.text = text;
        }
        hit
    }
}

#[async_trait]
impl Postprocessor for PiiMask {
    fn name(&self) -> &str {
        "mask_pii"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, _: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        Ok(hits.into_iter().map(|hit| self.masked(hit)).collect::<Vec<Hit>>().into())
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::settings::PostprocessSettings;

    use super::*;
    use crate::answer::prompt::tests::hit;

    /// Guarantees: what has the shape of personal data is gone, everything else is as it was.
    #[test]
    fn an_address_and_a_card_do_not_reach_the_model() {
        let mask = PiiMask::new(&PostprocessSettings::default().mask).unwrap();
        let text = "Write to ann@example.org, card 4111 1111 1111 1111, phone +44 20 7946 0958.";
        let masked = mask.masked(hit("a#0", text));
        assert_eq!(
            masked.chunk.text,
            "Write to [redacted:email], card [redacted:card], phone [redacted:phone]."
        );
        let plain = hit("a#0", "The keeper lives at the lighthouse, since 1844.");
        assert_eq!(mask.masked(plain.clone()), plain);
        let only = PiiMask::new(&[Detector::Cards]).unwrap();
        assert!(only.masked(hit("a#0", text)).chunk.text.contains("ann@example.org"));
    }
}
