//! Scalar functions that read sketches.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_binary_array, as_float64_array};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::aggregates::read_sketch;
use super::functions::FunctionDoc;
use crate::stats::{Sketch, sketch_cliffs_delta, sketch_rank_sum};

/// The functions over sketches.
pub const SKETCH_FUNCTIONS: &[FunctionDoc] = &[
    FunctionDoc {
        call: "sketch_quantile(sketch, q)",
        doc: "The quantile `q` (0 to 1) of what a sketch counted.",
        example: "SELECT stage, sketch_quantile(latency_sketch(duration_ns), 0.99) FROM spans GROUP BY stage",
    },
    FunctionDoc {
        call: "sketch_cdf(sketch, x)",
        doc: "Share of the counted values that are at most `x`.",
        example: "SELECT sketch_cdf(latency_sketch(duration_ns), 800e6) FROM trace_summary",
    },
    FunctionDoc {
        call: "sketch_count(sketch)",
        doc: "How many values a sketch counted.",
        example: "SELECT sketch_count(latency_sketch(duration_ns)) FROM spans",
    },
    FunctionDoc {
        call: "mann_whitney(base, candidate)",
        doc: "Two-sided p-value of the rank-sum test between what two sketches counted. Its unit is what \
              was counted: pooled spans of two runs differ more often than not, so count runs.",
        example: "SELECT mann_whitney(latency_sketch(duration_ns) FILTER (WHERE kind = 'llm'), \
                  latency_sketch(duration_ns) FILTER (WHERE kind = 'embedding')) FROM spans",
    },
    FunctionDoc {
        call: "cliffs_delta(base, candidate)",
        doc: "Cliff's delta between what two sketches counted: from -1 (all of the candidate's are \
              smaller) to 1; below 0.147 in size it is called negligible.",
        example: "SELECT cliffs_delta(latency_sketch(duration_ns) FILTER (WHERE kind = 'llm'), \
                  latency_sketch(duration_ns) FILTER (WHERE kind = 'embedding')) FROM spans",
    },
];

/// The functions, ready to register.
pub(crate) fn all() -> Vec<ScalarUDF> {
    vec![
        with_number("sketch_quantile", |sketch, q| sketch.quantile(q)),
        with_number("sketch_cdf", Sketch::cdf),
        create_udf(
            "sketch_count",
            vec![DataType::Binary],
            DataType::Int64,
            Volatility::Immutable,
            Arc::new(counts),
        ),
        of_two("mann_whitney", |a, b| sketch_rank_sum(a, b).map(|test| test.p_two_sided)),
        of_two("cliffs_delta", |a, b| sketch_cliffs_delta(a, b).map(|delta| delta.delta)),
    ]
}

fn with_number(name: &str, ask: fn(&Sketch, f64) -> Option<f64>) -> ScalarUDF {
    let run = move |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let [sketches, numbers] = arrays.as_slice() else {
            return exec_err!("a sketch and a number");
        };
        let (sketches, numbers) = (as_binary_array(sketches)?, as_float64_array(numbers)?);
        let rows = sketches.iter().zip(numbers);
        let found: Result<Float64Array> = rows
            .map(|(sketch, number)| {
                let (Some(sketch), Some(number)) = (sketch, number) else { return Ok(None) };
                Ok(ask(&read_sketch(sketch)?, number))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found?)))
    };
    let types = vec![DataType::Binary, DataType::Float64];
    create_udf(name, types, DataType::Float64, Volatility::Immutable, Arc::new(run))
}

fn of_two(name: &str, ask: fn(&Sketch, &Sketch) -> Option<f64>) -> ScalarUDF {
    let run = move |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let [base, candidate] = arrays.as_slice() else { return exec_err!("two sketches") };
        let rows = as_binary_array(base)?.iter().zip(as_binary_array(candidate)?);
        let found: Result<Float64Array> = rows
            .map(|(base, candidate)| {
                let (Some(base), Some(candidate)) = (base, candidate) else { return Ok(None) };
                Ok(ask(&read_sketch(base)?, &read_sketch(candidate)?))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found?)))
    };
    let types = vec![DataType::Binary, DataType::Binary];
    create_udf(name, types, DataType::Float64, Volatility::Immutable, Arc::new(run))
}

fn counts(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(args)?;
    let [sketches] = arrays.as_slice() else { return exec_err!("a sketch") };
    let sketches = as_binary_array(sketches)?;
    let mut found = Int64Array::builder(sketches.len());
    for bytes in sketches {
        found.append_option(match bytes {
            Some(bytes) => i64::try_from(read_sketch(bytes)?.count()).ok(),
            None => None,
        });
    }
    Ok(ColumnarValue::Array(Arc::new(found.finish())))
}
