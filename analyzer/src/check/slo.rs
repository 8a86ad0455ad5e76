//! Service level objectives: the share of good traces over a window, and how fast the rest of the
//! allowance is used up.

use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::prelude::{col, lit};
use retake_schemas::RunId;

use super::evaluate::{rows, share_of};
use super::file::{Budget, Slo};
use super::metric::predicate;
use super::quantity::Unit;
use super::verdicts::blank;
use crate::assemble::number;
use crate::error::AnalyzeError;
use crate::model::{BudgetVerdict, CheckVerdict};
use crate::session::Analyzer;

/// Looks at the window that ends with the run checked.
pub(super) async fn slo(
    analyzer: &Analyzer,
    runs: &[RunId],
    budget: &Budget,
    slo: &Slo,
) -> Result<BudgetVerdict, AnalyzeError> {
    let mut verdict = blank(budget, &slo.good, Unit::Share);
    verdict.limit = Some(slo.target);
    verdict.is_min = true;
    let mut end_unix_ns = i64::MIN;
    let mut services = Vec::new();
    for run_id in runs {
        let run = analyzer.run(run_id)?;
        end_unix_ns = end_unix_ns.max(run.started_unix_ns.saturating_add(run.duration_ns));
        services.push(run.service);
    }
    let of_service: Vec<RunId> = analyzer
        .runs()
        .into_iter()
        .filter(|run| services.contains(&run.service) && run.started_unix_ns <= end_unix_ns)
        .filter(|run| {
            run.started_unix_ns.saturating_add(run.duration_ns)
                >= end_unix_ns.saturating_sub(slo.window_ns)
        })
        .filter_map(|run| run.run_id.parse().ok())
        .collect();
    let window = Window { analyzer, runs: &of_service, slo, end_unix_ns };
    let whole = window.count(slo.window_ns).await?;
    verdict.samples = whole.events;
    let Some(good) = whole.good_share() else {
        verdict.note = Some("no trace in the window says whether it was good".to_owned());
        return Ok(verdict);
    };
    verdict.actual = Some(good);
    verdict.margin = Some((good - slo.target) / (1.0 - slo.target));
    verdict.verdict = CheckVerdict::Pass;
    let failed = match verdict.severity {
        super::Severity::Fail => CheckVerdict::Fail,
        super::Severity::Warn => CheckVerdict::Warn,
    };
    if good < slo.target {
        verdict.verdict = failed;
        verdict.note = Some(format!(
            "{} of {} were not good; {:.0} were allowed",
            whole.events - whole.good,
            whole.events,
            (1.0 - slo.target) * whole.events as f64
        ));
    }
    for burn in &slo.burn {
        let long = window.count(burn.long_ns).await?.burn_rate(slo.target);
        let short = window.count(burn.short_ns).await?.burn_rate(slo.target);
        if let (Some(long), Some(short)) = (long, short)
            && long >= burn.rate
            && short >= burn.rate
        {
            verdict.verdict = failed;
            verdict.note = Some(format!(
                "the allowance burns at {long:.1} times the rate that lasts the window, and still \
                 at {short:.1}; {} is too fast",
                burn.rate
            ));
            break;
        }
    }
    Ok(verdict)
}

struct Window<'a> {
    analyzer: &'a Analyzer,
    runs: &'a [RunId],
    slo: &'a Slo,
    end_unix_ns: i64,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    events: u64,
    good: u64,
}

impl Window<'_> {
    /// Events of the last `length_ns`, and how many of them were good.
    async fn count(&self, length_ns: i64) -> Result<Counted, AnalyzeError> {
        let of_traces = self.slo.select.is_none();
        let measure = share_of(&predicate(&self.slo.good, of_traces), of_traces);
        let from = self.end_unix_ns.saturating_sub(length_ns);
        let batches = rows(self.analyzer, self.runs, &measure, self.slo.select.as_deref(), &[])
            .await?
            .filter(col("start_unix_ns").gt_eq(lit(from)))?
            .aggregate(
                vec![],
                vec![count(lit(1)).alias("events"), sum(col("value")).alias("good")],
            )?
            .collect()
            .await?;
        let mut counted = Counted { events: 0, good: 0 };
        for batch in &batches {
            let (events, good) =
                (crate::assemble::int(batch, "events")?, crate::assemble::int(batch, "good")?);
            for row in 0..batch.num_rows() {
                let at = |column| number(column, row).map_or(0, i64::cast_unsigned);
                counted.events += at(&events);
                counted.good += at(&good);
            }
        }
        Ok(counted)
    }
}

impl Counted {
    fn good_share(self) -> Option<f64> {
        (self.events > 0).then(|| self.good as f64 / self.events as f64)
    }

    /// How many times faster than allowed bad events come.
    fn burn_rate(self, target: f64) -> Option<f64> {
        Some((1.0 - self.good_share()?) / (1.0 - target))
    }
}
