//! What calls cost, by the prices of the settings.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_int64_array, as_string_array};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use retake_schemas::settings::{PricedTokens, Prices};
use retake_schemas::tables::{Row, SpanRow};

use super::functions::FunctionDoc;

/// The function, as documented.
pub const PRICE_FUNCTION: FunctionDoc = FunctionDoc {
    call: "cost_usd(model, input_tokens, output_tokens[, cache_read[, cache_write[, reasoning]]])",
    doc: "What a call costs by `[prices]` of `retake.toml`, US dollars; NULL for a model without a \
          price. Where prices are set, `spans.cost_usd` is this for calls whose instrumentation does \
          not say, and every view, breakdown and budget counts it.",
    example: "SELECT cost_usd('gpt-4o', 1000, 100, 400)",
};

/// The function, ready to register.
pub(crate) fn function(prices: &Arc<Prices>) -> ScalarUDF {
    ScalarUDF::from(CostUsd::new(Arc::clone(prices)))
}

/// The spans with costs filled in, over the table of what was recorded.
pub(crate) fn priced_spans(recorded: &str) -> String {
    let columns: Vec<String> = SpanRow::columns()
        .into_iter()
        .map(|column| match column.name {
            "cost_usd" => "coalesce(cost_usd, CASE WHEN tokens_source <> 'none' THEN \
                           coalesce(cost_usd(model_response, input_tokens, output_tokens, \
                           cache_read_tokens, cache_write_tokens, reasoning_tokens), \
                           cost_usd(model_request, input_tokens, output_tokens, cache_read_tokens, \
                           cache_write_tokens, reasoning_tokens)) END) AS cost_usd"
                .to_owned(),
            name => name.to_owned(),
        })
        .collect();
    format!("SELECT {} FROM {recorded}", columns.join(", "))
}

#[derive(Debug)]
struct CostUsd {
    signature: Signature,
    prices: Arc<Prices>,
}

impl CostUsd {
    fn new(prices: Arc<Prices>) -> Self {
        let of = |counts: usize| {
            let mut types = vec![DataType::Utf8];
            types.extend(vec![DataType::Int64; counts]);
            TypeSignature::Exact(types)
        };
        let signature = Signature::one_of((2..=5).map(of).collect(), Volatility::Immutable);
        Self { signature, prices }
    }
}

// One context has one table of prices.
impl PartialEq for CostUsd {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.prices, &other.prices)
    }
}

impl Eq for CostUsd {}

impl Hash for CostUsd {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for CostUsd {
    fn name(&self) -> &'static str {
        "cost_usd"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [models, counts @ ..] = arrays.as_slice() else {
            return exec_err!("cost_usd needs a model");
        };
        let models = as_string_array(models)?;
        let counts =
            counts.iter().map(|array| as_int64_array(array)).collect::<Result<Vec<_>>>()?;
        let count = |at: usize, row: usize| {
            let column = counts.get(at).filter(|column| column.is_valid(row));
            column.map(|column| column.value(row))
        };
        // Neighbouring calls are mostly of one model.
        let mut last = (None, None);
        let costs: Float64Array = models
            .iter()
            .enumerate()
            .map(|(row, model)| {
                let model = model?;
                if last.0 != Some(model) {
                    last = (Some(model), self.prices.of(model));
                }
                let price = last.1?;
                // A call that states neither is one nobody can price.
                if count(0, row).is_none() && count(1, row).is_none() {
                    return None;
                }
                let at = |at| count(at, row).unwrap_or(0);
                Some(price.cost_usd(PricedTokens {
                    input: at(0),
                    output: at(1),
                    cache_read: at(2),
                    cache_write: at(3),
                    reasoning: at(4),
                }))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(costs)))
    }
}
