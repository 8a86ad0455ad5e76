//! The shift between two groups of rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::stats::two_sample_shift;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HodgesLehmann {
    signature: Signature,
}

impl HodgesLehmann {
    pub(super) fn new() -> Self {
        let types = vec![DataType::Float64, DataType::Boolean];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for HodgesLehmann {
    fn name(&self) -> &'static str {
        "hodges_lehmann"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        let field = |of| Arc::new(Field::new(format!("{}[{of}]", args.name), list.clone(), true));
        Ok(vec![field("base"), field("candidate")])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sides::default()))
    }
}

#[derive(Debug, Default)]
struct Sides {
    base: Vec<f64>,
    candidate: Vec<f64>,
}

impl Accumulator for Sides {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values, sides] = values else {
            return exec_err!("hodges_lehmann takes a value and whether it is the candidate's");
        };
        for (value, side) in values.as_primitive::<Float64Type>().iter().zip(sides.as_boolean()) {
            match (value, side) {
                (Some(value), Some(true)) => self.candidate.push(value),
                (Some(value), Some(false)) => self.base.push(value),
                _ => {}
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [base, candidate] = states else { return exec_err!("hodges_lehmann has two sides") };
        for (list, side) in [(base, &mut self.base), (candidate, &mut self.candidate)] {
            for values in list.as_list::<i32>().iter().flatten() {
                side.extend(values.as_primitive::<Float64Type>().iter().flatten());
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let shift = two_sample_shift(&self.base, &self.candidate, 0.95);
        Ok(ScalarValue::Float64(shift.map(|shift| shift.interval.estimate)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |values: &[f64]| {
            let values: Vec<ScalarValue> = values.iter().map(|v| ScalarValue::from(*v)).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))
        };
        Ok(vec![list(&self.base), list(&self.candidate)])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + (self.base.capacity() + self.candidate.capacity()) * size_of::<f64>()
    }
}
