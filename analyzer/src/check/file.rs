//! `budgets.toml`: what a run may cost, and how good it must be.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::measured::Measured;
use super::metric::Metric;
use super::quantity::{Quantity, Unit, ns_per};

/// A budget file that was read and makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Budgets {
    pub(super) budgets: Vec<Budget>,
}

/// One budget.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Budget {
    pub(super) name: String,
    /// Line in the file it begins at, from 1.
    pub(super) line: usize,
    pub(super) severity: Severity,
    pub(super) rule: Rule,
}

/// What happens when a budget is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The check fails.
    #[default]
    Fail,
    /// It is said, and the check passes.
    Warn,
}

/// What a budget asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    /// A metric between limits.
    Limit(Limit),
    /// A metric compared with a baseline.
    Relative(Relative),
    /// A share of good events over a window, and how fast the rest may be used up.
    Slo(Slo),
    /// A number from a query of the user's own.
    Sql { sql: String, limits: Limits },
}

/// A metric between limits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limit {
    pub(super) measured: Measured,
    pub(super) limits: Limits,
    /// With fewer rows nothing is decided.
    pub(super) min_samples: u64,
    /// Where given, the interval must clear the limit, not only the value.
    pub(super) confidence: Option<f64>,
}

/// A metric compared with a baseline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Relative {
    pub(super) measured: Measured,
    /// The set of runs it is compared with, as written.
    pub(super) to: String,
    pub(super) change: Change,
    pub(super) confidence: f64,
}

/// The values a metric may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

/// How far a metric may move from its baseline; relative, above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    Increase(f64),
    Decrease(f64),
}

/// A service level objective.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slo {
    pub(super) good: String,
    pub(super) select: Option<String>,
    pub(super) target: f64,
    pub(super) window_ns: i64,
    pub(super) burn: Vec<Burn>,
}

/// An alert on how fast the allowance for bad events is used up, after Google's SRE workbook,
/// chapter 5: over a long window, and still now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Burn {
    pub(super) long_ns: i64,
    pub(super) short_ns: i64,
    pub(super) rate: f64,
}

/// Why a budget file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read budgets {path}{}: {reason}", .line.map_or_else(String::new, |line| format!(":{line}")))]
pub struct BudgetError {
    /// The file.
    pub path: String,
    /// Line of the budget at fault, from 1.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub reason: String,
}

impl Budgets {
    /// Reads a budget file's text; `path` is for messages.
    ///
    /// # Errors
    /// It is no TOML, has a field nobody knows, or a budget that cannot be checked.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BudgetError> {
        let error = |line: Option<usize>, reason: String| BudgetError {
            path: path.display().to_string(),
            line,
            reason,
        };
        let file: File = toml::from_str(text).map_err(|problem| {
            let line = problem.span().map(|span| line_of(text, span.start));
            error(line, problem.message().to_owned())
        })?;
        if file.version != VERSION {
            let reason = format!("version is {}, this retake reads {VERSION}", file.version);
            return Err(error(None, reason));
        }
        if file.budget.is_empty() {
            return Err(error(None, "it has no [[budget]]".to_owned()));
        }
        let mut budgets: Vec<Budget> = Vec::with_capacity(file.budget.len());
        for entry in file.budget {
            let line = line_of(text, entry.span().start);
            let entry = entry.into_inner();
            let name = entry.name.clone();
            let budget = entry
                .budget(line)
                .map_err(|reason| error(Some(line), format!("budget {name:?}: {reason}")))?;
            if budgets.iter().any(|other| other.name == budget.name) {
                return Err(error(Some(line), format!("two budgets are named {name:?}")));
            }
            budgets.push(budget);
        }
        Ok(Self { budgets })
    }

    /// The baselines it compares with, each once.
    #[must_use]
    pub fn baselines(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for budget in &self.budgets {
            if let Rule::Relative(Relative { to, .. }) = &budget.rule
                && !found.contains(to)
            {
                found.push(to.clone());
            }
        }
        found
    }

    /// Whether it looks at runs before the one checked.
    #[must_use]
    pub fn needs_history(&self) -> bool {
        self.budgets.iter().any(|budget| matches!(budget.rule, Rule::Slo(_)))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    budget: Vec<Spanned<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    severity: Severity,
    metric: Option<String>,
    threshold: Option<String>,
    select: Option<String>,
    per: Option<Names>,
    max: Option<Number>,
    min: Option<Number>,
    min_samples: Option<u64>,
    relative_to: Option<String>,
    max_increase: Option<Number>,
    max_decrease: Option<Number>,
    confidence: Option<f64>,
    slo: Option<SloEntry>,
    sql: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Whole(i64),
    Float(f64),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SloEntry {
    good: String,
    target: f64,
    window: String,
    #[serde(default)]
    burn: Vec<BurnEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BurnEntry {
    long: String,
    short: String,
    rate: f64,
}

impl Number {
    fn quantity(&self) -> Result<Quantity, String> {
        match self {
            Self::Text(text) => Quantity::parse(text),
            Self::Whole(value) => Ok(Quantity { value: *value as f64, unit: None }),
            Self::Float(value) if value.is_finite() => Ok(Quantity { value: *value, unit: None }),
            Self::Float(value) => Err(format!("{value} is no limit")),
        }
    }
}

impl Entry {
    fn budget(mut self, line: usize) -> Result<Budget, String> {
        if self.name.trim().is_empty() {
            return Err("it needs a name".to_owned());
        }
        self.take_threshold()?;
        let kinds = [self.metric.is_some(), self.slo.is_some(), self.sql.is_some()];
        if kinds.iter().filter(|is_there| **is_there).count() != 1 {
            return Err("it needs one of metric, threshold, slo and sql".to_owned());
        }
        if self.confidence.is_some_and(|level| !(0.5..1.0).contains(&level)) {
            return Err("confidence is at least 0.5 and below 1, such as 0.95".to_owned());
        }
        let (name, severity) = (self.name.clone(), self.severity);
        let rule = if let Some(slo) = self.slo.take() {
            self.refuse_limits("an SLO")?;
            Rule::Slo(slo.slo(self.select.take())?)
        } else if let Some(sql) = self.sql.take() {
            if self.select.is_some() || self.per.is_some() || self.relative_to.is_some() {
                return Err("a query says itself what it selects".to_owned());
            }
            Rule::Sql { sql, limits: self.limits(None)? }
        } else {
            self.metric_rule()?
        };
        Ok(Budget { name, line, severity, rule })
    }

    /// `threshold = "p(95)<500"` as k6 writes it; its times are milliseconds.
    fn take_threshold(&mut self) -> Result<(), String> {
        let Some(threshold) = self.threshold.take() else { return Ok(()) };
        if self.metric.is_some() || self.max.is_some() || self.min.is_some() {
            return Err("a threshold is metric and limit in one; write one or the other".to_owned());
        }
        let at = threshold.find(['<', '>']).ok_or_else(|| {
            format!("threshold {threshold:?}: write it as METRIC<LIMIT, such as p(95)<500")
        })?;
        let (metric, rest) = threshold.split_at(at);
        let is_max = rest.starts_with('<');
        let limit = rest.trim_start_matches(['<', '>', '=']).trim();
        let is_time = Metric::parse(metric)?.unit() == Unit::Ns;
        let limit = match limit.parse::<f64>() {
            Ok(_) if is_time => format!("{limit}ms"),
            _ => limit.to_owned(),
        };
        self.metric = Some(metric.trim().to_owned());
        *(if is_max { &mut self.max } else { &mut self.min }) = Some(Number::Text(limit));
        Ok(())
    }

    fn metric_rule(mut self) -> Result<Rule, String> {
        let text = self.metric.take().unwrap_or_default();
        let per = match self.per.take() {
            None => Vec::new(),
            Some(Names::One(names)) => names.split(',').map(|n| n.trim().to_owned()).collect(),
            Some(Names::Many(names)) => names,
        };
        let measured = Measured::parse(&text, self.select.take(), per)?;
        let unit = measured.unit();
        let Some(to) = self.relative_to.take() else {
            if self.max_increase.is_some() || self.max_decrease.is_some() {
                return Err("max_increase and max_decrease need relative_to".to_owned());
            }
            let limits = self.limits(Some(unit))?;
            let min_samples = self.min_samples.unwrap_or(1);
            return Ok(Rule::Limit(Limit {
                measured,
                limits,
                min_samples,
                confidence: self.confidence,
            }));
        };
        if self.max.is_some() || self.min.is_some() {
            return Err("relative_to goes with max_increase or max_decrease, not with max and min"
                .to_owned());
        }
        let change = match (&self.max_increase, &self.max_decrease) {
            (Some(by), None) => Change::Increase(relative(by)?),
            (None, Some(by)) => Change::Decrease(relative(by)?),
            _ => return Err("relative_to needs one of max_increase and max_decrease".to_owned()),
        };
        let confidence = self.confidence.unwrap_or(0.95);
        Ok(Rule::Relative(Relative { measured, to, change, confidence }))
    }

    fn limits(&self, unit: Option<Unit>) -> Result<Limits, String> {
        let limit = |number: &Option<Number>| -> Result<Option<f64>, String> {
            let Some(number) = number else { return Ok(None) };
            let quantity = number.quantity()?;
            match unit {
                Some(unit) => quantity.in_unit(unit).map(Some),
                None => Ok(Some(quantity.value)),
            }
        };
        let limits = Limits { min: limit(&self.min)?, max: limit(&self.max)? };
        match limits {
            Limits { min: None, max: None } => Err("it needs max, min or relative_to".to_owned()),
            Limits { min: Some(min), max: Some(max) } if min > max => {
                Err("min is above max".to_owned())
            }
            limits => Ok(limits),
        }
    }

    fn refuse_limits(&self, of: &str) -> Result<(), String> {
        let given = self.max.is_some()
            || self.min.is_some()
            || self.relative_to.is_some()
            || self.per.is_some();
        if given {
            Err(format!("max, min, per and relative_to do not go with {of}"))
        } else {
            Ok(())
        }
    }
}

impl SloEntry {
    fn slo(self, select: Option<String>) -> Result<Slo, String> {
        if !(self.target > 0.0 && self.target < 1.0) {
            return Err("an SLO's target is between 0 and 1, such as 0.99".to_owned());
        }
        let window_ns = age(&self.window)?;
        let mut burn = Vec::with_capacity(self.burn.len());
        for entry in self.burn {
            let (long_ns, short_ns) = (age(&entry.long)?, age(&entry.short)?);
            if short_ns >= long_ns || long_ns > window_ns {
                return Err("in burn, short is within long and long within the window".to_owned());
            }
            if !(entry.rate.is_finite() && entry.rate > 0.0) {
                return Err("a burn rate is above 0".to_owned());
            }
            burn.push(Burn { long_ns, short_ns, rate: entry.rate });
        }
        Ok(Slo { good: self.good, select, target: self.target, window_ns, burn })
    }
}

fn age(text: &str) -> Result<i64, String> {
    let expected = || format!("{text:?} is no stretch of time; write it as 5m, 6h or 28d");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(expected)?;
    let (amount, unit) = text.split_at(split);
    let amount: f64 = amount.trim().parse().map_err(|_| expected())?;
    let ns = amount * ns_per(unit).ok_or_else(expected)?;
    if ns > 0.0 && ns < i64::MAX as f64 { Ok(ns as i64) } else { Err(expected()) }
}

/// A change as a share of what was there: `8%` or `0.08`.
fn relative(number: &Number) -> Result<f64, String> {
    let value = number.quantity()?.in_unit(Unit::Share)?;
    if value > 0.0 { Ok(value) } else { Err("a change is above 0, such as 8%".to_owned()) }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Version of the file format.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Budgets, String> {
        let whole = format!("version = 1\n{text}");
        Budgets::parse(&whole, Path::new("budgets.toml")).map_err(|error| error.to_string())
    }

    /// Scenario: the file of the documentation, with a budget of every kind.
    #[test]
    fn every_kind_of_budget_is_read() {
        let text = include_str!("example.toml");
        let budgets = Budgets::parse(text, Path::new("budgets.toml")).unwrap();
        assert_eq!(budgets.budgets.len(), 8);
        assert_eq!(budgets.baselines(), ["baseline:main"]);
        assert!(budgets.needs_history());
        let Rule::Limit(Limit { limits, min_samples, .. }) = &budgets.budgets[0].rule else {
            panic!()
        };
        assert_eq!((limits.max, *min_samples), (Some(75e6), 200));
    }

    #[test]
    fn a_threshold_of_k6_is_a_metric_and_a_limit() {
        let budgets = parse("[[budget]]\nname = 'x'\nthreshold = 'p(95)<500'").unwrap();
        let Rule::Limit(Limit { measured, limits, .. }) = &budgets.budgets[0].rule else {
            panic!()
        };
        assert_eq!((measured.text.as_str(), limits.max), ("p(95)", Some(500e6)));
        let budgets = parse("[[budget]]\nname = 'x'\nthreshold = 'error_rate() < 1%'").unwrap();
        let Rule::Limit(Limit { limits, .. }) = &budgets.budgets[0].rule else { panic!() };
        assert_eq!(limits.max, Some(0.01));
    }

    /// Guarantees: what cannot be checked is refused, with its line and what to write instead.
    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, reason) in [
            ("[[budget]]\nname = 'a'", ":2: budget \"a\": it needs one of metric"),
            ("[[budget]]\nname = 'a'\nmetric = 'p95(duration)'", "needs max, min or relative_to"),
            ("[[budget]]\nname = 'a'\nmetric = 'p95(duration)'\nmax = 75", "75ms"),
            ("[[budget]]\nname = 'a'\nmetric = 'p95(duration)'\nmax = '5%'", "in share"),
            ("[[budget]]\nname = 'a'\nmetric = 'fastest(x)'\nmax = 1", "p50 to p99.9"),
            ("[[budget]]\nname = 'a'\nmetrics = 'p95(duration)'", "unknown field `metrics`"),
            ("[[budget]]\nname = 'a'\nmetric = 'count()'\nmin = 5\nmax = 1", "min is above max"),
            (
                "[[budget]]\nname = 'a'\nmetric = 'count()'\nmax = 1\n[[budget]]\nname = 'a'\nmetric = 'count()'\nmax = 1",
                ":6: two budgets are named \"a\"",
            ),
            ("[[budget]]\nname = 'a'\nmetric = 'mean(cost)'\nrelative_to = 'x'", "max_increase"),
            (
                "[[budget]]\nname = 'a'\nslo = { good = 'x', target = 99, window = '1d' }",
                "between 0 and 1",
            ),
            (
                "[[budget]]\nname = 'a'\nslo = { good = 'x', target = 0.9, window = '1d', burn = [{ long = '1m', short = '5m', rate = 2 }] }",
                "short is within long",
            ),
            (
                "[[budget]]\nname = 'a'\nmetric = 'lost_spans()'\nper = 'stage'\nmax = 0",
                "whole run",
            ),
            ("", "no [[budget]]"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{error} lacks {reason}");
            assert!(error.starts_with("read budgets budgets.toml"), "{error}");
        }
        let newer = Budgets::parse("version = 2", Path::new("b.toml")).unwrap_err();
        assert!(newer.to_string().contains("version is 2"), "{newer}");
    }
}
