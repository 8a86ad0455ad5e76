//! Quantiles by sketch: one small state a group, however many quantiles are asked for.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Float64Builder,
    ListBuilder, RecordBatch, RecordBatchOptions,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, Schema};
use datafusion::common::cast::as_binary_array;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, TypeSignature, Volatility,
};

use crate::stats::Sketch;

/// What is counted, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Values in, quantiles out.
    Quantiles,
    /// Values in, the sketch out.
    Latency,
    /// Sketches in, their sum out.
    Merge,
}

/// One of the functions over sketches.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SketchFunction {
    kind: Kind,
    signature: Signature,
}

impl SketchFunction {
    pub(super) fn quantiles() -> Self {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        let types = [DataType::Int64, list];
        Self::of(Kind::Quantiles, TypeSignature::Coercible(types.iter().map(coercible).collect()))
    }

    pub(super) fn latency() -> Self {
        Self::of(Kind::Latency, TypeSignature::Coercible(vec![coercible(&DataType::Int64)]))
    }

    pub(super) fn merge() -> Self {
        Self::of(Kind::Merge, TypeSignature::Exact(vec![DataType::Binary]))
    }

    fn of(kind: Kind, types: TypeSignature) -> Self {
        Self { kind, signature: Signature::new(types, Volatility::Immutable) }
    }

    /// The quantiles asked for: the second argument, which must not depend on the row.
    fn asked(&self, args: &AccumulatorArgs<'_>) -> Result<Vec<f64>> {
        let Some(list) = args.exprs.get(1) else { return Ok(Vec::new()) };
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let nothing =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
        let list = list
            .evaluate(&nothing)
            .map_err(|_| {
                exec_datafusion_err!("quantiles: the list must be the same for every row")
            })?
            .into_array(1)?;
        let values = match list.data_type() {
            DataType::List(_) => list.as_list::<i32>().value(0),
            other => return plan_err!("quantiles: the second argument is {other}, not a list"),
        };
        let values = arrow::compute::cast(&values, &DataType::Float64)?;
        let asked: Vec<f64> = values.as_primitive::<Float64Type>().iter().flatten().collect();
        match asked.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            Some(q) => exec_err!("quantiles: {q} is not between 0 and 1"),
            None => Ok(asked),
        }
    }

    fn sketches(&self, args: &AccumulatorArgs<'_>) -> Result<Sketches> {
        Ok(Sketches { kind: self.kind, asked: self.asked(args)?, sketches: Vec::new(), bytes: 0 })
    }
}

fn coercible(of: &DataType) -> datafusion::logical_expr::Coercion {
    use datafusion::common::types::{NativeType, logical_int64};
    use datafusion::logical_expr::{Coercion, TypeSignatureClass};
    match of {
        DataType::Int64 => Coercion::new_implicit(
            TypeSignatureClass::Native(logical_int64()),
            vec![TypeSignatureClass::Integer, TypeSignatureClass::Float],
            NativeType::Int64,
        ),
        _ => Coercion::new_exact(TypeSignatureClass::Any),
    }
}

impl AggregateUDFImpl for SketchFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Quantiles => "quantiles",
            Kind::Latency => "latency_sketch",
            Kind::Merge => "merge_sketch",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Quantiles => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
            }
            Kind::Latency | Kind::Merge => DataType::Binary,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sketch]", args.name), DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mut sketches = self.sketches(&args)?;
        sketches.sketches.push(Sketch::new());
        Ok(Box::new(One(sketches)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.sketches(&args)?))
    }
}

/// The sketches of all groups.
#[derive(Debug)]
struct Sketches {
    kind: Kind,
    asked: Vec<f64>,
    sketches: Vec<Sketch>,
    /// What the sketches take, bytes; kept up to date without asking each of them.
    bytes: usize,
}

impl Sketches {
    fn add(&mut self, group: usize, change: impl FnOnce(&mut Sketch) -> Result<()>) -> Result<()> {
        let Some(sketch) = self.sketches.get_mut(group) else { return Ok(()) };
        let before = sketch.memory_bytes();
        change(sketch)?;
        self.bytes = (self.bytes + sketch.memory_bytes()).saturating_sub(before);
        Ok(())
    }

    fn add_values(
        &mut self,
        values: &ArrayRef,
        groups: impl Fn(usize) -> usize,
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let is_wanted = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        if self.kind == Kind::Merge {
            return self.add_sketches(values, groups, is_wanted);
        }
        let values = values.as_primitive::<Int64Type>();
        for (row, value) in values.iter().enumerate() {
            if let (Some(value), true) = (value, is_wanted(row)) {
                self.add(groups(row), |sketch| {
                    sketch.insert(value);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn add_sketches(
        &mut self,
        values: &ArrayRef,
        groups: impl Fn(usize) -> usize,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Result<()> {
        for (row, bytes) in as_binary_array(values)?.iter().enumerate() {
            if let (Some(bytes), true) = (bytes, is_wanted(row)) {
                let other = read(bytes)?;
                self.add(groups(row), |sketch| {
                    sketch.merge(&other);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, groups: usize) {
        if groups > self.sketches.len() {
            self.bytes += (groups - self.sketches.len()) * size_of::<Sketch>();
            self.sketches.resize_with(groups, Sketch::new);
        }
    }

    fn take(&mut self, emit: EmitTo) -> Vec<Sketch> {
        let taken = emit.take_needed(&mut self.sketches);
        self.bytes = self.sketches.iter().map(Sketch::memory_bytes).sum();
        taken
    }

    fn answer(&self, sketches: &[Sketch]) -> ArrayRef {
        if self.kind != Kind::Quantiles {
            return Arc::new(binary(sketches));
        }
        let mut lists = ListBuilder::new(Float64Builder::new());
        for sketch in sketches {
            if sketch.count() == 0 {
                lists.append_null();
                continue;
            }
            for quantile in sketch.quantiles(&self.asked) {
                lists.values().append_option(quantile);
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

/// Reads a sketch that may come from anywhere.
pub(in crate::sql) fn read(bytes: &[u8]) -> Result<Sketch> {
    Sketch::from_bytes(bytes).map_err(|error| exec_datafusion_err!("read sketch: {error}"))
}

fn binary(sketches: &[Sketch]) -> BinaryArray {
    let mut builder = BinaryBuilder::new();
    for sketch in sketches {
        builder.append_value(sketch.to_bytes());
    }
    builder.finish()
}

impl GroupsAccumulator for Sketches {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let Some(values) = values.first() else { return exec_err!("a sketch needs values") };
        let group = |row: usize| group_indices.get(row).copied().unwrap_or(usize::MAX);
        self.add_values(values, group, opt_filter)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let Some(values) = values.first() else { return exec_err!("a sketch needs its state") };
        let group = |row: usize| group_indices.get(row).copied().unwrap_or(usize::MAX);
        self.add_sketches(values, group, |_| true)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sketches = self.take(emit_to);
        Ok(self.answer(&sketches))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sketches = self.take(emit_to);
        Ok(vec![Arc::new(binary(&sketches))])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let Some(values) = values.first() else { return exec_err!("a sketch needs values") };
        let mut single = Self {
            kind: self.kind,
            asked: Vec::new(),
            sketches: vec![Sketch::new(); values.len()],
            bytes: 0,
        };
        single.add_values(values, |row| row, opt_filter)?;
        Ok(vec![Arc::new(binary(&single.sketches))])
    }

    fn size(&self) -> usize {
        self.bytes + size_of::<Self>()
    }
}

/// The same for a query without groups.
#[derive(Debug)]
struct One(Sketches);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("a sketch needs values") };
        self.0.add_values(values, |_| 0, None)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else { return exec_err!("a sketch needs its state") };
        self.0.add_sketches(states, |_| 0, |_| true)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.answer(&self.0.sketches), 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&binary(&self.0.sketches), 0)?])
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.0)
    }
}
