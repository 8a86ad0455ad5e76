//! The share of rows that are good.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Goodput {
    signature: Signature,
}

impl Goodput {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Boolean], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Goodput {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field =
            |of| Arc::new(Field::new(format!("{}[{of}]", args.name), DataType::Int64, true));
        Ok(vec![field("known"), field("good")])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts::default()))
    }
}

#[derive(Debug, Default)]
struct Counts {
    known: i64,
    good: i64,
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("goodput needs a condition") };
        let values = values.as_boolean();
        self.known += (values.len() - values.null_count()) as i64;
        self.good += values.true_count() as i64;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [known, good] = states else { return exec_err!("goodput has two counts") };
        let sum =
            |counts: &ArrayRef| counts.as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        self.known += sum(known);
        self.good += sum(good);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64((self.known > 0).then(|| self.good as f64 / self.known as f64)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(Some(self.known)), ScalarValue::Int64(Some(self.good))])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
