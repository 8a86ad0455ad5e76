//! The metrics of budgets: what is measured, and how it becomes one number.

use super::quantity::Unit;

/// A metric as it is written: `p95(duration)`, `mean(cost_usd)`, `share(critical_path, 'llm')`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Metric {
    /// A statistic of a measure.
    Statistic {
        /// How many values become one.
        by: Statistic,
        /// Of what.
        measure: Measure,
    },
    /// A stage's share of the run's wall time.
    Share {
        /// Of the time on critical paths, rather than of attributed wall time.
        is_critical: bool,
        /// The stage.
        stage: String,
    },
    /// Share of spans (traces, without a filter) that failed where the failure began.
    ErrorRate,
    /// Share of traces that satisfy a predicate.
    Goodput(String),
    /// Number of spans.
    Count,
    /// Spans that are named as parents and never arrived.
    LostSpans,
    /// Events the recorder had to drop.
    DroppedEvents,
}

/// How values become one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Statistic {
    /// A percentile by nearest rank, above 0 and up to 100.
    Percentile(f64),
    Mean,
    Min,
    Max,
    Sum,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measure {
    /// An SQL expression over the rows.
    pub(super) sql: String,
    /// Whether rows are traces; else they are spans.
    pub(super) of_traces: bool,
    pub(super) unit: Unit,
    /// Which rows have it at all, beyond those where it is not NULL.
    pub(super) only: Option<&'static str>,
}

impl Metric {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("metric {text:?}: {why}");
        let (name, rest) = text
            .trim()
            .split_once('(')
            .ok_or_else(|| bad("write it as a function, such as p95(duration)"))?;
        let inner = rest.strip_suffix(')').ok_or_else(|| bad("its bracket is not closed"))?.trim();
        match name.trim() {
            "share" => share(inner).ok_or_else(|| {
                bad("write it as share(critical_path, 'STAGE') or share(wall, 'STAGE')")
            }),
            "goodput" if !inner.is_empty() => Ok(Self::Goodput(inner.to_owned())),
            "goodput" => Err(bad("it needs a condition, such as goodput(ttft < 800ms)")),
            "error_rate" if inner.is_empty() => Ok(Self::ErrorRate),
            "count" if inner.is_empty() => Ok(Self::Count),
            "lost_spans" if inner.is_empty() => Ok(Self::LostSpans),
            "dropped_events" if inner.is_empty() => Ok(Self::DroppedEvents),
            // As k6 writes it: p(95). Then the measure is a request's duration.
            "p" => {
                let by =
                    percentile(inner).ok_or_else(|| bad("a percentile is above 0, up to 100"))?;
                Ok(Self::Statistic { by, measure: Measure::named("e2e") })
            }
            name => {
                let by = Statistic::named(name).ok_or_else(|| bad(KNOWN))?;
                if inner.is_empty() {
                    return Err(bad("it needs something to measure, such as duration"));
                }
                Ok(Self::Statistic { by, measure: Measure::named(inner) })
            }
        }
    }

    /// What its values count.
    pub(super) fn unit(&self) -> Unit {
        match self {
            Self::Statistic { measure, .. } => measure.unit,
            Self::Share { .. } | Self::ErrorRate | Self::Goodput(_) => Unit::Share,
            Self::Count | Self::LostSpans | Self::DroppedEvents => Unit::Number,
        }
    }
}

impl Statistic {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "mean" | "avg" => Self::Mean,
            "median" | "med" => Self::Percentile(50.0),
            "min" => Self::Min,
            "max" => Self::Max,
            "sum" => Self::Sum,
            name => return percentile(name.strip_prefix('p')?),
        })
    }

    /// One number from ascending values; `None` of nothing.
    pub(super) fn of(self, sorted: &[f64]) -> Option<f64> {
        let (first, last) = (sorted.first()?, sorted.last()?);
        let sum = || sorted.iter().sum::<f64>();
        Some(match self {
            Self::Percentile(percent) => {
                // Rounded first: 99.9 % of 1,000 is the 999th, not one more for a bit in the last
                // place of a float.
                let rank = (sorted.len() as f64 * percent / 100.0 - 1e-9).ceil().max(1.0);
                *sorted.get(rank as usize - 1).unwrap_or(last)
            }
            Self::Mean => sum() / sorted.len() as f64,
            Self::Min => *first,
            Self::Max => *last,
            Self::Sum => sum(),
        })
    }
}

fn percentile(text: &str) -> Option<Statistic> {
    let percent: f64 = text.trim().parse().ok()?;
    (percent > 0.0 && percent <= 100.0).then_some(Statistic::Percentile(percent))
}

fn share(inner: &str) -> Option<Metric> {
    let (of, stage) = inner.split_once(',')?;
    let is_critical = match of.trim() {
        "critical_path" | "critical" => true,
        "wall" => false,
        _ => return None,
    };
    let stage = stage.trim();
    let stage = stage.strip_prefix('\'').and_then(|s| s.strip_suffix('\'')).unwrap_or(stage);
    (!stage.is_empty()).then(|| Metric::Share { is_critical, stage: stage.to_owned() })
}

impl Measure {
    /// A measure by its short name, or any SQL expression over the columns of `spans`.
    pub(super) fn named(name: &str) -> Self {
        let spans =
            |sql: &str, unit, only| Self { sql: sql.to_owned(), of_traces: false, unit, only };
        let traces =
            |sql: &str, unit| Self { sql: sql.to_owned(), of_traces: true, unit, only: None };
        let call = Some("coalesce(is_call, true)");
        let counted = Some("tokens_counted");
        let priced = Some("(tokens_counted OR tokens_source = 'none')");
        match name {
            "duration" => spans("duration_ns", Unit::Ns, None),
            "self" => spans("self_ns", Unit::Ns, None),
            "queue" => spans("queue_ns", Unit::Ns, None),
            "ttft" => spans("ttft_ns", Unit::Ns, call),
            "tpot" => spans(
                "CASE WHEN output_tokens > 1 THEN (duration_ns - ttft_ns) / (output_tokens - 1) END",
                Unit::Ns,
                call,
            ),
            "cost_usd" | "cost" => spans("cost_usd", Unit::Usd, priced),
            "input_tokens" | "output_tokens" | "cache_read_tokens" | "reasoning_tokens" => {
                spans(name, Unit::Number, counted)
            }
            "tokens" => spans(
                "coalesce(input_tokens, 0) + coalesce(output_tokens, 0)",
                Unit::Number,
                counted,
            ),
            "recall" | "mrr" | "hit" | "answer_match" => spans(&quality(name), Unit::Share, None),
            "e2e" => traces("duration_ns", Unit::Ns),
            "trace.ttft" => traces("ttft_ns", Unit::Ns),
            "trace.cost_usd" | "trace.cost" => traces("cost_usd", Unit::Usd),
            "trace.tokens" => {
                traces("coalesce(input_tokens, 0) + coalesce(output_tokens, 0)", Unit::Number)
            }
            "trace.spans" => traces("spans", Unit::Number),
            "trace.retries" => traces("retries", Unit::Number),
            name => match name.strip_prefix("recall_at_").filter(|k| k.parse::<u32>().is_ok()) {
                // What was asked for is known of the retrieval below, not of the question.
                Some(_) => spans(&quality("recall"), Unit::Share, None),
                None => spans(name, unit_of(name), None),
            },
        }
    }
}

fn quality(name: &str) -> String {
    let text = format!("attr(attributes, 'retake.quality.{name}')");
    // A hit is true or false, the others are numbers.
    format!(
        "CASE {text} WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 ELSE TRY_CAST({text} AS DOUBLE) END"
    )
}

/// Columns say their unit in their name.
fn unit_of(name: &str) -> Unit {
    if name.ends_with("_ns") {
        Unit::Ns
    } else if name.ends_with("_usd") {
        Unit::Usd
    } else {
        Unit::Number
    }
}

const KNOWN: &str = "there are p50 to p99.9, mean, min, max, sum, share, goodput, error_rate, \
                     count, lost_spans and dropped_events";

/// Turns quantities with units of time in a predicate (`ttft < 800ms`) into nanoseconds, and short
/// names into columns. Text in quotes stays as it is.
pub(super) fn predicate(text: &str, of_traces: bool) -> String {
    let mut sql = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if next == '\'' || next == '"' {
            let end = rest.get(1..).and_then(|r| r.find(next)).map_or(rest.len(), |at| at + 2);
            let (quoted, after) = rest.split_at(end);
            sql.push_str(quoted);
            rest = after;
        } else if next.is_ascii_alphanumeric() || next == '_' {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            sql.push_str(&translated(word, of_traces));
            rest = after;
        } else {
            sql.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
    }
    sql
}

fn translated(word: &str, of_traces: bool) -> String {
    let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (amount, unit) = word.split_at(split);
    if let (Ok(amount), Some(ns)) = (amount.parse::<f64>(), super::quantity::ns_per(unit)) {
        return format!("{}", (amount * ns).round() as i64);
    }
    match word {
        "duration" | "ttft" | "self" | "queue" => format!("{word}_ns"),
        "e2e" if of_traces => "duration_ns".to_owned(),
        "cost" => "cost_usd".to_owned(),
        word => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_they_are_written() {
        let metric = Metric::parse("p95(duration)").unwrap();
        assert_eq!(metric.unit(), Unit::Ns);
        let Metric::Statistic { by, measure } = metric else { panic!("{metric:?}") };
        assert_eq!((by, measure.sql.as_str()), (Statistic::Percentile(95.0), "duration_ns"));
        assert_eq!(Metric::parse("mean(cost_usd)").unwrap().unit(), Unit::Usd);
        assert_eq!(
            Metric::parse("share(critical_path, 'retrieve')"),
            Ok(Metric::Share { is_critical: true, stage: "retrieve".to_owned() })
        );
        assert!(matches!(
            Metric::parse("p(95)").unwrap(),
            Metric::Statistic { by: Statistic::Percentile(p), measure } if p == 95.0 && measure.of_traces
        ));
        for bad in
            ["duration", "p95(duration", "p0(duration)", "p101(duration)", "best(x)", "p95()"]
        {
            assert!(Metric::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (percent, value) in [(50.0, 500.0), (95.0, 950.0), (99.9, 999.0), (100.0, 1000.0)] {
            assert_eq!(Statistic::Percentile(percent).of(&values), Some(value));
        }
        assert_eq!(Statistic::Percentile(50.0).of(&[7.0, 8.0]), Some(7.0));
        assert_eq!(Statistic::Mean.of(&[]), None);
    }

    #[test]
    fn predicates_read_times_with_units() {
        assert_eq!(predicate("ttft < 800ms", true), "ttft_ns < 800000000");
        assert_eq!(
            predicate("e2e<=1.5s and name = 'up to 5s'", true),
            "duration_ns<=1500000000 and name = 'up to 5s'"
        );
        assert_eq!(predicate("stage = 'a''b' and x2 > 5", false), "stage = 'a''b' and x2 > 5");
        assert_eq!(predicate("é > 'open", false), "é > 'open");
    }
}
