//! From what was found to whether a budget is kept.

use std::collections::BTreeMap;

use super::evaluate::{Found, Groups};
use super::file::{Budget, Change, Limit, Limits, Relative, Severity};
use super::quantity::Unit;
use crate::diff::DiffOptions;
use crate::diff::sets::{Judge, Measure};
use crate::model::{BudgetVerdict, CheckVerdict, DiffRow, Verdict};

/// A verdict about nothing yet.
pub(super) fn blank(budget: &Budget, metric: &str, unit: Unit) -> BudgetVerdict {
    BudgetVerdict {
        budget: budget.name.clone(),
        group: None,
        metric: metric.to_owned(),
        unit: unit.as_str().to_owned(),
        limit: None,
        is_min: false,
        is_relative: false,
        actual: None,
        margin: None,
        interval: None,
        samples: 0,
        severity: budget.severity,
        verdict: CheckVerdict::Inconclusive,
        evidence: Vec::new(),
        first_bad_run: None,
        line: budget.line as u64,
        note: None,
    }
}

/// Fails or warns, as the budget says.
fn crossed(severity: Severity) -> CheckVerdict {
    match severity {
        Severity::Fail => CheckVerdict::Fail,
        Severity::Warn => CheckVerdict::Warn,
    }
}

/// The limit a value is held against, and whether it crosses it. Of two limits the crossed one,
/// else the nearer one.
pub(super) fn against(limits: Limits, value: f64) -> (f64, bool, bool) {
    let max = limits.max.map(|max| (max, false, value > max, max - value));
    let min = limits.min.map(|min| (min, true, value < min, value - min));
    match (min, max) {
        (Some(min), Some(max)) if min.3 < max.3 => (min.0, min.1, min.2),
        (_, Some(max)) => (max.0, max.1, max.2),
        (Some(min), None) => (min.0, min.1, min.2),
        (None, None) => (f64::INFINITY, false, false),
    }
}

/// Holds one number against limits.
pub(super) fn held(verdict: &mut BudgetVerdict, limits: Limits, value: f64) -> bool {
    let (limit, is_min, is_crossed) = against(limits, value);
    let room = if is_min { value - limit } else { limit - value };
    verdict.limit = Some(limit);
    verdict.is_min = is_min;
    verdict.actual = Some(value);
    verdict.margin = (limit != 0.0).then(|| room / limit.abs());
    verdict.verdict = if is_crossed { crossed(verdict.severity) } else { CheckVerdict::Pass };
    is_crossed
}

/// Holds what was found in several runs against limits: of each group the median run counts.
pub(super) fn limit(budget: &Budget, rule: &Limit, runs: &[Groups]) -> Vec<BudgetVerdict> {
    let Limit { measured, limits, .. } = rule;
    let mut verdicts: Vec<BudgetVerdict> = by_group(runs)
        .into_iter()
        .map(|(group, found)| {
            let mut verdict = blank(budget, &measured.text, measured.metric.unit());
            verdict.group = (!group.is_empty()).then(|| group.clone());
            one_limit(&mut verdict, &found, rule);
            verdict
        })
        .collect();
    if verdicts.is_empty() {
        let mut verdict = blank(budget, &measured.text, measured.metric.unit());
        verdict.note = Some(match &measured.select {
            Some(select) => format!("no rows with a value where {select}"),
            None => "no rows have a value for it".to_owned(),
        });
        (verdict.limit, verdict.is_min) = (limits.max.or(limits.min), limits.max.is_none());
        verdicts.push(verdict);
    }
    shortened(verdicts)
}

fn by_group(runs: &[Groups]) -> BTreeMap<&String, Vec<&Found>> {
    let mut groups: BTreeMap<&String, Vec<&Found>> = BTreeMap::new();
    for run in runs {
        for (group, found) in run {
            groups.entry(group).or_default().push(found);
        }
    }
    groups
}

fn one_limit(verdict: &mut BudgetVerdict, found: &[&Found], rule: &Limit) {
    let (limits, min_samples) = (rule.limits, rule.min_samples);
    let mut ordered = found.to_vec();
    ordered.sort_by(|a, b| a.value.total_cmp(&b.value));
    let Some(middle) = ordered.get(ordered.len() / 2) else { return };
    let is_crossed = held(verdict, limits, middle.value);
    verdict.samples = found.iter().map(|found| found.samples).sum();
    verdict.interval = middle.interval.map(|interval| [interval.low, interval.high]);
    if verdict.samples < min_samples {
        verdict.verdict = CheckVerdict::Inconclusive;
        verdict.note =
            Some(format!("{} rows, {min_samples} are needed (min_samples)", verdict.samples));
    } else if is_crossed {
        let evidence = if verdict.is_min { &middle.smallest } else { &middle.largest };
        verdict.evidence.clone_from(evidence);
        let near = verdict.interval.map(|[low, high]| if verdict.is_min { high } else { low });
        let is_clear = near.is_some_and(|near| against(limits, near).2);
        if rule.confidence.is_some() && !is_clear {
            verdict.verdict = CheckVerdict::Inconclusive;
            verdict.note =
                Some("the interval does not clear the limit; more requests would".to_owned());
        }
    }
}

/// Compares groups of runs with those of a baseline.
pub(super) fn relative(
    budget: &Budget,
    rule: &Relative,
    runs: &[Groups],
    base: &[Groups],
    is_same_machine: bool,
) -> Vec<BudgetVerdict> {
    let (measured, confidence) = (&rule.measured, rule.confidence);
    let (allowed, is_min) = match rule.change {
        Change::Increase(by) => (by, false),
        Change::Decrease(by) => (by, true),
    };
    let options =
        DiffOptions { effect_min: allowed, change_ns_min: 0, false_reports_max: 1.0 - confidence };
    let judge = Judge { options, is_same_machine, level: confidence };
    let unit = measured.metric.unit();
    let measure = Measure { name: &measured.text, unit: unit.as_str(), is_ratio: true };
    let values = |found: Option<&Vec<&Found>>| -> Vec<f64> {
        // What must not fall is compared by its reciprocal: then more is worse, as for the others.
        let of = |found: &&Found| if is_min { 1.0 / found.value } else { found.value };
        found.map_or(Vec::new(), |found| found.iter().map(of).collect())
    };
    let (after, before) = (by_group(runs), by_group(base));
    let judged = after
        .iter()
        .map(|(group, found)| {
            let before = values(before.get(*group));
            judge.compare(group, measure, &before, &values(Some(found)))
        })
        .collect();
    let rows: Vec<DiffRow> = judge.decide(judged);
    let mut verdicts: Vec<BudgetVerdict> = rows
        .into_iter()
        .zip(after.values())
        .map(|(row, found)| {
            let mut verdict = blank(budget, &measured.text, unit);
            verdict.group = (!row.stage.is_empty()).then(|| row.stage.clone());
            // From the reciprocal's change back to the metric's own.
            let own = |effect: f64| if is_min { 1.0 - 1.0 / (1.0 + effect) } else { effect };
            verdict.limit = Some(allowed);
            verdict.is_min = is_min;
            verdict.is_relative = true;
            verdict.actual = Some(own(row.effect)).filter(|effect| effect.is_finite());
            verdict.margin = verdict.actual.map(|actual| (allowed - actual) / allowed);
            let [low, high] = row.effect_ci.map(own);
            verdict.interval = (low.is_finite() && high.is_finite()).then_some([low, high]);
            verdict.samples = row.n_base + row.n_candidate;
            verdict.note = row.note;
            verdict.verdict = match row.verdict {
                Verdict::Worse => crossed(budget.severity),
                Verdict::Inconclusive => CheckVerdict::Inconclusive,
                Verdict::Better | Verdict::Same => CheckVerdict::Pass,
            };
            if row.verdict == Verdict::Worse {
                let middle = found.get(found.len() / 2);
                let evidence = middle.map(|f| if is_min { &f.smallest } else { &f.largest });
                verdict.evidence = evidence.cloned().unwrap_or_default();
            }
            verdict
        })
        .collect();
    if verdicts.is_empty() {
        let mut verdict = blank(budget, &measured.text, unit);
        verdict.note = Some("no rows have a value for it".to_owned());
        verdicts.push(verdict);
    }
    shortened(verdicts)
}

/// Of many groups, those that cross the limit, and one line about each other kind.
fn shortened(verdicts: Vec<BudgetVerdict>) -> Vec<BudgetVerdict> {
    if verdicts.len() <= GROUPS_SHOWN {
        return verdicts;
    }
    let mut shown = Vec::new();
    for kind in
        [CheckVerdict::Fail, CheckVerdict::Warn, CheckVerdict::Inconclusive, CheckVerdict::Pass]
    {
        let mut of_kind: Vec<BudgetVerdict> =
            verdicts.iter().filter(|verdict| verdict.verdict == kind).cloned().collect();
        let room = |verdict: &BudgetVerdict| verdict.margin.unwrap_or(f64::INFINITY);
        of_kind.sort_by(|a, b| room(a).total_cmp(&room(b)));
        let most = match kind {
            CheckVerdict::Fail | CheckVerdict::Warn => GROUPS_SHOWN,
            CheckVerdict::Inconclusive | CheckVerdict::Pass => 1,
        };
        let hidden = of_kind.len().saturating_sub(most);
        of_kind.truncate(most);
        if let Some(last) = of_kind.last_mut().filter(|_| hidden > 0) {
            let more = format!("and {hidden} more groups like it");
            last.note = Some(match last.note.take() {
                Some(note) => format!("{note}; {more}"),
                None => more,
            });
        }
        shown.extend(of_kind);
    }
    shown
}

/// Groups of a budget listed one by one.
const GROUPS_SHOWN: usize = 20;
