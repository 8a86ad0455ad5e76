//! Running totals, and the budgets that are measured against them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use retake_schemas::event::TokensSource;
use retake_schemas::settings::{Budget, BudgetTokens};

use super::calls::Call;

/// Counts of some calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Output tokens, reasoning ones included.
    pub output: u64,
    /// Input tokens read from the provider's cache; part of `input`.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache; part of `input`.
    pub cache_write: u64,
    /// Output tokens spent on reasoning; part of `output`.
    pub reasoning: u64,
}

impl Counts {
    /// Adds other calls.
    pub fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.calls, other.calls),
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.reasoning, other.reasoning),
        ];
        for (sum, count) in sums {
            *sum = sum.saturating_add(count);
        }
    }

    /// Input and output.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Counts by who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BySource {
    /// Reported by the model's provider.
    pub provider: Counts,
    /// Counted by the model's own tokenizer.
    pub tokenizer: Counts,
    /// Counted by another tokenizer, or by a rule of thumb.
    pub estimate: Counts,
}

impl BySource {
    /// All of them, whoever counted.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = self.provider;
        total.add(&self.tokenizer);
        total.add(&self.estimate);
        total
    }

    fn of_mut(&mut self, source: TokensSource) -> &mut Counts {
        match source {
            TokensSource::Provider | TokensSource::None => &mut self.provider,
            TokensSource::Tokenizer => &mut self.tokenizer,
            TokensSource::Estimate => &mut self.estimate,
        }
    }
}

/// What was counted since the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenTotals {
    /// All calls.
    pub overall: BySource,
    /// By the model that answered, or, when the answer does not name one, that was asked. Calls
    /// that name none stand only in `overall`.
    pub models: BTreeMap<String, BySource>,
    /// Budgets that were crossed, in that order.
    pub violations: Vec<Violation>,
    /// What could not be counted. The totals are lower bounds unless this is zero.
    pub untracked: Untracked,
}

/// What could not be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Untracked {
    /// Spans that stated tokens and were given up because too many others were open.
    pub spans: u64,
    /// Statements of tokens for spans that had ended, or whose begin was never seen.
    pub statements: u64,
}

/// A budget that is crossed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The budget.
    pub budget: Budget,
    /// Tokens used when it was found to be crossed.
    pub used_tokens: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.budget.tokens {
            BudgetTokens::Input => "input tokens",
            BudgetTokens::Output => "output tokens",
            BudgetTokens::Total => "tokens",
        };
        write!(f, "{} {what} used", self.used_tokens)?;
        if let Some(model) = &self.budget.model {
            write!(f, " by model {model}")?;
        }
        write!(f, ", the budget allows {}", self.budget.limit_tokens)
    }
}

/// Totals and budgets.
#[derive(Debug)]
pub(super) struct Ledger {
    totals: TokenTotals,
    meters: Vec<Meter>,
    /// Meters of all calls.
    overall: Vec<usize>,
    /// Meters of a model's calls, by the model's name.
    by_model: HashMap<String, Vec<usize>>,
}

/// A budget and what was used of it.
#[derive(Debug)]
struct Meter {
    budget: Budget,
    used_tokens: u64,
    is_crossed: bool,
}

impl Ledger {
    pub(super) fn new(budgets: Vec<Budget>) -> Self {
        let mut overall = Vec::new();
        let mut by_model: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, budget) in budgets.iter().enumerate() {
            match &budget.model {
                Some(model) => by_model.entry(model.clone()).or_default().push(index),
                None => overall.push(index),
            }
        }
        let meters = budgets
            .into_iter()
            .map(|budget| Meter { budget, used_tokens: 0, is_crossed: false })
            .collect();
        Self { totals: TokenTotals::default(), meters, overall, by_model }
    }

    pub(super) fn totals(&self) -> &TokenTotals {
        &self.totals
    }

    /// Adds a call; budgets it crosses go to `violations`.
    pub(super) fn post(&mut self, call: &Call, violations: &mut Vec<Violation>) {
        self.totals.overall.of_mut(call.source).add(&call.counts);
        let response = call.model_response.as_deref();
        let request = call.model_request.as_deref();
        if let Some(model) = response.or(request) {
            self.model(model).of_mut(call.source).add(&call.counts);
        }
        let crossed_from = violations.len();
        for index in &self.overall {
            measure(self.meters.get_mut(*index), &call.counts, violations);
        }
        // Who sets a budget knows the name they ask for; the answer's is often a dated one.
        let asked = request.filter(|request| Some(*request) != response);
        for model in response.into_iter().chain(asked) {
            for index in self.by_model.get(model).into_iter().flatten() {
                measure(self.meters.get_mut(*index), &call.counts, violations);
            }
        }
        self.totals.violations.extend(violations.iter().skip(crossed_from).cloned());
    }

    pub(super) fn post_untracked(&mut self, more: Untracked) {
        self.totals.untracked.spans += more.spans;
        self.totals.untracked.statements += more.statements;
    }

    pub(super) fn reset(&mut self) -> TokenTotals {
        for meter in &mut self.meters {
            meter.used_tokens = 0;
            meter.is_crossed = false;
        }
        std::mem::take(&mut self.totals)
    }

    /// The counts of a model; names beyond the limit share one entry.
    fn model(&mut self, name: &str) -> &mut BySource {
        let models = &mut self.totals.models;
        let is_full = models.len() >= MODELS_MAX && !models.contains_key(name);
        let name = if is_full { OTHER_MODELS } else { name };
        models.entry(name.to_owned()).or_default()
    }
}

fn measure(meter: Option<&mut Meter>, counts: &Counts, violations: &mut Vec<Violation>) {
    let Some(meter) = meter else { return };
    let used = match meter.budget.tokens {
        BudgetTokens::Input => counts.input,
        BudgetTokens::Output => counts.output,
        BudgetTokens::Total => counts.tokens(),
    };
    meter.used_tokens = meter.used_tokens.saturating_add(used);
    if meter.used_tokens > meter.budget.limit_tokens && !meter.is_crossed {
        meter.is_crossed = true;
        let used_tokens = meter.used_tokens;
        violations.push(Violation { budget: meter.budget.clone(), used_tokens });
    }
}

/// Models told apart. A name comes from the program under record and may be anything.
pub const MODELS_MAX: usize = 256;

/// Where the calls of models beyond [`MODELS_MAX`] are counted together.
pub const OTHER_MODELS: &str = "(other models)";
