//! What tokens cost, for calls whose instrumentation does not say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OutOfRange;

/// The section `[prices]`: a price for each model, by the name it answers or is asked for under.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Prices(pub BTreeMap<String, Price>);

/// The section `[prices."MODEL"]`: US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input tokens that come from no cache.
    pub input: f64,
    /// Output tokens.
    #[serde(default)]
    pub output: f64,
    /// Input tokens read from the provider's cache; without it, as other input.
    pub cache_read: Option<f64>,
    /// Input tokens written to the provider's cache; without it, as other input.
    pub cache_write: Option<f64>,
    /// Output tokens spent on reasoning; without it, as other output.
    pub reasoning: Option<f64>,
}

/// The tokens of a call; parts are contained in their wholes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PricedTokens {
    /// Input tokens, cached ones included.
    pub input: i64,
    /// Output tokens, reasoning ones included.
    pub output: i64,
    /// Part of `input` read from the cache.
    pub cache_read: i64,
    /// Part of `input` written to the cache.
    pub cache_write: i64,
    /// Part of `output` spent on reasoning.
    pub reasoning: i64,
}

impl Prices {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The price of a model: the one of its name, else of its name without a version. A version is
    /// what follows a `-`, `@` or `:` and is made of digits, dashes and dots, or says `latest`:
    /// `gpt-4o-2024-08-06` costs what `gpt-4o` does, `gpt-4o-mini` does not.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&Price> {
        if let Some(price) = self.0.get(model) {
            return Some(price);
        }
        let is_version = |rest: &str| {
            rest.strip_prefix(['-', '@', ':']).is_some_and(|version| {
                let is_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '.');
                version == "latest" || (!version.is_empty() && version.chars().all(is_number))
            })
        };
        self.0
            .iter()
            .filter(|(name, _)| model.strip_prefix(name.as_str()).is_some_and(is_version))
            .max_by_key(|(name, _)| name.len())
            .map(|(_, price)| price)
    }

    /// Checks that every price is a number from zero.
    ///
    /// # Errors
    /// A price is below zero or not finite.
    pub fn check(&self) -> Result<(), OutOfRange> {
        for (model, price) in &self.0 {
            let all = [Some(price.input), Some(price.output), price.cache_read, price.cache_write];
            let wrong = all
                .into_iter()
                .chain([price.reasoning])
                .flatten()
                .find(|usd| !usd.is_finite() || *usd < 0.0);
            if let Some(usd) = wrong {
                let reason =
                    format!("{usd} for {model:?} is no price: US dollars a million tokens, from 0");
                return Err(OutOfRange { name: "prices", reason });
            }
        }
        Ok(())
    }
}

impl Price {
    /// What a call costs, US dollars. Parts that are larger than their whole are cut to it.
    #[must_use]
    pub fn cost_usd(&self, tokens: PricedTokens) -> f64 {
        let input = tokens.input.max(0);
        let cache_read = tokens.cache_read.clamp(0, input);
        let cache_write = tokens.cache_write.clamp(0, input - cache_read);
        let output = tokens.output.max(0);
        let reasoning = tokens.reasoning.clamp(0, output);
        let parts = [
            (input - cache_read - cache_write, self.input),
            (cache_read, self.cache_read.unwrap_or(self.input)),
            (cache_write, self.cache_write.unwrap_or(self.input)),
            (output - reasoning, self.output),
            (reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        parts.iter().map(|(count, usd)| *count as f64 * usd).sum::<f64>() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(input: f64) -> Price {
        Price {
            input,
            output: 10.0,
            cache_read: Some(input / 2.0),
            cache_write: None,
            reasoning: None,
        }
    }

    #[test]
    fn a_version_costs_what_its_model_does_and_another_model_does_not() {
        let named = |name: &str, usd| (name.to_owned(), price(usd));
        let prices = Prices([named("gpt-4o", 2.5), named("gpt-4o-mini", 0.15)].into());
        let input = |model: &str| prices.of(model).map(|price| price.input);
        assert_eq!(input("gpt-4o"), Some(2.5));
        assert_eq!(input("gpt-4o-2024-08-06"), Some(2.5));
        assert_eq!(input("gpt-4o-mini-2024-07-18"), Some(0.15));
        assert_eq!(input("gpt-4o@latest"), Some(2.5));
        for other in ["gpt-4o-audio", "gpt-4", "gpt-4o-", "gpt-4omni"] {
            assert_eq!(input(other), None, "{other}");
        }
    }

    #[test]
    fn parts_are_priced_apart_and_never_beyond_their_whole() {
        let tokens =
            PricedTokens { input: 1_000, output: 100, cache_read: 400, ..PricedTokens::default() };
        let expected = (600.0 * 2.0 + 400.0 * 1.0 + 100.0 * 10.0) / 1e6;
        assert!((price(2.0).cost_usd(tokens) - expected).abs() < 1e-12);
        let odd = PricedTokens { input: 10, cache_read: 50, output: -5, ..PricedTokens::default() };
        assert!((price(2.0).cost_usd(odd) - 10e-6).abs() < 1e-12);
        let negative = Prices([("m".to_owned(), price(-1.0))].into());
        assert!(negative.check().unwrap_err().to_string().contains("\"m\""));
    }
}
