//! Limits on the tokens a run may use.
//!
//! A budget counts what the token counter counts: each call once, whoever counted its tokens. It
//! is a limit on work, not on money: prices change, tokens do not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OutOfRange;

/// The section `[record.budget]`: limits over all models, and limits for single ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Input tokens of all calls at most, cached ones included.
    pub input_tokens: Option<u64>,
    /// Output tokens of all calls at most, reasoning ones included.
    pub output_tokens: Option<u64>,
    /// Input and output tokens of all calls together at most.
    pub total_tokens: Option<u64>,
    /// What happens when a limit is crossed: `warn` or `error`.
    pub on_exceeded: OnExceeded,
    /// Limits for one model, by the name it was asked for or answered under.
    pub models: BTreeMap<String, ModelBudgetSettings>,
}

/// The section `[record.budget.models.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct ModelBudgetSettings {
    /// Input tokens of the model's calls at most.
    pub input_tokens: Option<u64>,
    /// Output tokens of the model's calls at most.
    pub output_tokens: Option<u64>,
    /// Input and output tokens of the model's calls together at most.
    pub total_tokens: Option<u64>,
    /// What happens when a limit is crossed; without it, what `[record.budget]` says.
    pub on_exceeded: Option<OnExceeded>,
}

/// What happens when a budget is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnExceeded {
    /// It is said, and work goes on.
    #[default]
    Warn,
    /// It is said, and the program is told to stop.
    Error,
}

/// Which tokens a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetTokens {
    /// Those of the prompts.
    Input,
    /// Those of the answers.
    Output,
    /// Both.
    Total,
}

impl BudgetTokens {
    /// The name of the setting that sets such a limit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input_tokens",
            Self::Output => "output_tokens",
            Self::Total => "total_tokens",
        }
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The model whose calls it limits; `None` for all calls.
    pub model: Option<String>,
    /// Which tokens.
    pub tokens: BudgetTokens,
    /// How many are allowed; one more is a violation.
    pub limit_tokens: u64,
    /// What happens then.
    pub on_exceeded: OnExceeded,
}

impl BudgetSettings {
    /// Every limit that is set: those over all models first, then by model name.
    #[must_use]
    pub fn budgets(&self) -> Vec<Budget> {
        let overall = [self.input_tokens, self.output_tokens, self.total_tokens];
        let mut budgets = limits(None, overall, self.on_exceeded);
        for (model, of_model) in &self.models {
            let limits_of_model =
                [of_model.input_tokens, of_model.output_tokens, of_model.total_tokens];
            let on_exceeded = of_model.on_exceeded.unwrap_or(self.on_exceeded);
            budgets.extend(limits(Some(model), limits_of_model, on_exceeded));
        }
        budgets
    }

    /// Checks what types cannot: a budget without a limit guards nothing, and one of 0 is crossed
    /// by the first call, so both are mistakes.
    ///
    /// # Errors
    /// The first section that is wrong.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let budgets = self.budgets();
        let sets_a_limit =
            |model: &str| budgets.iter().any(|budget| budget.model.as_deref() == Some(model));
        if let Some(model) = self.models.keys().find(|model| !sets_a_limit(model)) {
            return Err(OutOfRange {
                name: "record.budget.models",
                reason: format!("model {model:?} has no limit; {SET_ONE}"),
            });
        }
        if let Some(zero) = budgets.iter().find(|budget| budget.limit_tokens == 0) {
            let of = zero.model.as_ref().map(|model| format!(" of model {model:?}"));
            return Err(OutOfRange {
                name: "record.budget",
                reason: format!(
                    "{}{} must be at least 1",
                    zero.tokens.as_str(),
                    of.unwrap_or_default()
                ),
            });
        }
        if budgets.is_empty() {
            let reason = format!("has no limit; {SET_ONE}");
            return Err(OutOfRange { name: "record.budget", reason });
        }
        Ok(())
    }
}

fn limits(
    model: Option<&String>,
    [input, output, total]: [Option<u64>; 3],
    on_exceeded: OnExceeded,
) -> Vec<Budget> {
    [(BudgetTokens::Input, input), (BudgetTokens::Output, output), (BudgetTokens::Total, total)]
        .into_iter()
        .filter_map(|(tokens, limit)| {
            let limit_tokens = limit?;
            Some(Budget { model: model.cloned(), tokens, limit_tokens, on_exceeded })
        })
        .collect()
}

const SET_ONE: &str = "set input_tokens, output_tokens or total_tokens, or take the section out";

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn read(text: &str) -> Result<BudgetSettings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.record.check().map_err(|error| error.to_string())?;
        Ok(settings.record.budget.unwrap_or_default())
    }

    #[test]
    fn a_model_inherits_what_happens_and_may_say_otherwise() {
        let settings = read(
            "[record.budget]\ntotal_tokens = 1000\non_exceeded = \"error\"\n\
             [record.budget.models.\"gpt-4.1\"]\noutput_tokens = 10\n\
             [record.budget.models.small]\ninput_tokens = 5\non_exceeded = \"warn\"\n",
        )
        .unwrap();
        let budget = |model: Option<&str>, tokens, limit_tokens, on_exceeded| Budget {
            model: model.map(str::to_owned),
            tokens,
            limit_tokens,
            on_exceeded,
        };
        assert_eq!(
            settings.budgets(),
            [
                budget(None, BudgetTokens::Total, 1000, OnExceeded::Error),
                budget(Some("gpt-4.1"), BudgetTokens::Output, 10, OnExceeded::Error),
                budget(Some("small"), BudgetTokens::Input, 5, OnExceeded::Warn),
            ]
        );
    }

    #[test]
    fn a_budget_that_guards_nothing_is_refused_with_what_to_do() {
        for (text, said) in [
            ("[record.budget]\n", "use setting record.budget: has no limit; set input_tokens"),
            ("[record.budget]\ninput_tokens = 0\n", "input_tokens must be at least 1"),
            ("[record.budget]\ninput_tokens = 1\n[record.budget.models.m]\n", "model \"m\" has no"),
            (
                "[record.budget.models.m]\ntotal_tokens = 0\n",
                "total_tokens of model \"m\" must be at least 1",
            ),
            ("[record.budget]\ntokens = 1\n", "unknown field `tokens`"),
            ("[record.budget]\ninput_tokens = -1\n", "invalid value: integer `-1`"),
            ("[record.budget]\ninput_tokens = 1\non_exceeded = \"stop\"\n", "unknown variant"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
