//! Aggregate functions of retake.

mod goodput;
mod hodges_lehmann;
mod sketches;

use datafusion::logical_expr::AggregateUDF;

pub(super) use self::sketches::read as read_sketch;

use super::functions::FunctionDoc;

/// The aggregate functions beyond those of DataFusion.
pub const AGGREGATES: &[FunctionDoc] = &[
    FunctionDoc {
        call: "quantiles(x, [q, …])",
        doc: "Many quantiles of `x` (whole numbers from zero, such as nanoseconds) in one pass, a list \
              of DOUBLE in the order asked for. Exact by nearest rank up to 1,024 values a group, then \
              within 0.5 %. One state of a few kilobytes a group, however many rows and quantiles.",
        example: "SELECT stage, quantiles(duration_ns, [0.5, 0.95, 0.99]) FROM spans GROUP BY stage",
    },
    FunctionDoc {
        call: "latency_sketch(x)",
        doc: "The state behind `quantiles` as BINARY: small enough to keep for years, and mergeable in \
              any order. Read it with `sketch_quantile`, `sketch_cdf`, `sketch_count`.",
        example: "SELECT sketch_quantile(latency_sketch(duration_ns), 0.95) FROM spans",
    },
    FunctionDoc {
        call: "merge_sketch(sketch)",
        doc: "Sketches of many groups as one, as if all their values had been counted together.",
        example: "SELECT sketch_quantile(merge_sketch(s), 0.95) FROM (SELECT run_id, \
                  latency_sketch(duration_ns) AS s FROM spans GROUP BY run_id)",
    },
    FunctionDoc {
        call: "goodput(condition)",
        doc: "Share of rows that satisfy a condition, of those where it is known; NULL of none.",
        example: "SELECT goodput(duration_ns < 800000000) FROM trace_summary",
    },
    FunctionDoc {
        call: "hodges_lehmann(x, is_candidate)",
        doc: "By how much `x` is larger where `is_candidate` than where not: the median of all \
              differences between the two groups, robust against outliers. Of logarithms it is the log of \
              a ratio. Aggregate runs with it, not spans: spans of one run share its luck.",
        example: "SELECT exp(hodges_lehmann(ln(p), name = 'after')) - 1 FROM (SELECT r.name, \
                  approx_percentile_cont(s.duration_ns, 0.95) AS p FROM spans s JOIN runs r ON \
                  s.run_id = r.run_id GROUP BY r.name, r.run_id)",
    },
];

/// The aggregate functions, ready to register.
pub(crate) fn all() -> Vec<AggregateUDF> {
    vec![
        AggregateUDF::from(sketches::SketchFunction::quantiles()),
        AggregateUDF::from(sketches::SketchFunction::latency()),
        AggregateUDF::from(sketches::SketchFunction::merge()),
        AggregateUDF::from(goodput::Goodput::new()),
        AggregateUDF::from(hodges_lehmann::HodgesLehmann::new()),
    ]
}
