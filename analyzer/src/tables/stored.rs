//! From the columns of a file to those of the table, file by file, as the scan asks for them.
//!
//! A segment of spans holds `self_ns` and `attributes` otherwise than the table shows them (see
//! [`retake_schemas::tables::stored`]). Which attributes have columns differs between files, so
//! the expressions of a scan are rewritten for each file when it is opened: what no query asks
//! for is not read, and the entry of one attribute is read without making the others JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::cast::as_string_array;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use retake_schemas::tables::stored::{attributes, filled_own_times, key_of_column, texts};

use crate::sql::functions::{Attr, lookup};

/// Reads the files of spans as their table.
#[derive(Debug)]
pub(super) struct StoredColumns;

impl PhysicalExprAdapterFactory for StoredColumns {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let file = Arc::clone(&physical_file_schema);
        let inner =
            DefaultPhysicalExprAdapterFactory.create(logical_file_schema, physical_file_schema)?;
        Ok(Arc::new(OfFile { inner, file }))
    }
}

/// The rewriting for one file.
#[derive(Debug)]
struct OfFile {
    /// Columns that are older or newer than the file.
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
}

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.inner.rewrite(expr)?;
        expr.transform_down(|expr| self.rewrite_one(expr)).map(|rewritten| rewritten.data)
    }
}

impl OfFile {
    fn rewrite_one(
        &self,
        expr: Arc<dyn PhysicalExpr>,
    ) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
        let rewritten = if let Some((rest, key)) = attribute_asked_for(&*expr) {
            self.attribute(&expr, rest, key)?
        } else if let Some(column) = expr.downcast_ref::<Column>() {
            self.column(column)?
        } else {
            return Ok(Transformed::no(expr));
        };
        // What was put in names columns of the file, which must not be rewritten again.
        Ok(match rewritten {
            Some(rewritten) => Transformed::new(rewritten, true, TreeNodeRecursion::Jump),
            None => Transformed::no(expr),
        })
    }

    /// A column of the table that the file holds otherwise.
    fn column(&self, column: &Column) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let mut arguments = vec![self.named(column.name())];
        let function = match column.name() {
            "attributes" => {
                let names = self.file.fields().iter().map(|field| field.name().as_str());
                let typed = names.filter_map(|name| Some((key_of_column(name)?, self.named(name))));
                let (keys, columns): (Vec<_>, Vec<_>) = typed.unzip();
                if keys.is_empty() {
                    return Ok(None);
                }
                arguments.extend(columns);
                ScalarUDF::from(Merged::new(keys.into_iter().map(str::to_owned).collect()))
            }
            "self_ns" => {
                arguments.push(self.named("duration_ns"));
                ScalarUDF::from(OwnTime::new())
            }
            _ => return Ok(None),
        };
        let Some(arguments) = arguments.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        self.call(function, arguments).map(Some)
    }

    /// One attribute: its column before what the rest says. An attribute without a column can only
    /// be in the rest.
    fn attribute(
        &self,
        asked: &Arc<dyn PhysicalExpr>,
        rest: &Arc<dyn PhysicalExpr>,
        key: &str,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let names = self.file.fields().iter().map(|field| field.name());
        let column =
            names.filter(|name| key_of_column(name) == Some(key)).find_map(|name| self.named(name));
        let Some(column) = column else { return Ok(Some(Arc::clone(asked))) };
        let function = ScalarUDF::from(StoredAttribute::new(key.to_owned()));
        self.call(function, vec![Arc::clone(rest), column]).map(Some)
    }

    fn named(&self, name: &str) -> Option<Arc<dyn PhysicalExpr>> {
        let index = self.file.index_of(name).ok()?;
        Some(Arc::new(Column::new(name, index)))
    }

    fn call(
        &self,
        function: ScalarUDF,
        arguments: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let options = Arc::new(ConfigOptions::default());
        let call = ScalarFunctionExpr::try_new(Arc::new(function), arguments, &self.file, options)?;
        Ok(Arc::new(call))
    }
}

/// The column and the key, if this is `attr(attributes, 'key')`.
fn attribute_asked_for(expr: &dyn PhysicalExpr) -> Option<(&Arc<dyn PhysicalExpr>, &str)> {
    let call = ScalarFunctionExpr::try_downcast_func::<Attr>(expr)?;
    let [attributes, key] = call.args() else { return None };
    attributes.downcast_ref::<Column>().filter(|column| column.name() == "attributes")?;
    let key = key.downcast_ref::<Literal>()?.value().try_as_str().flatten()?;
    Some((attributes, key))
}

/// `attributes` from the file's column of that name and those of single attributes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Merged {
    keys: Vec<String>,
    signature: Signature,
}

impl Merged {
    fn new(keys: Vec<String>) -> Self {
        Self { keys, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Merged {
    fn name(&self) -> &'static str {
        "merged_attributes"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some((rest, columns)) = arrays.split_first() else {
            return exec_err!("attributes are merged from nothing");
        };
        let columns = columns.iter().map(Arc::clone);
        let typed: Vec<_> = self.keys.iter().map(String::as_str).zip(columns).collect();
        Ok(ColumnarValue::Array(Arc::new(attributes(rest, &typed)?)))
    }
}

/// The text of one attribute from the rest and its column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StoredAttribute {
    key: String,
    signature: Signature,
}

impl StoredAttribute {
    fn new(key: String) -> Self {
        Self { key, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn text(&self, rest: &ArrayRef, column: &ArrayRef) -> Result<StringArray> {
        let texts = texts(column)?;
        if rest.null_count() == rest.len() {
            return Ok(texts);
        }
        let rest = as_string_array(rest)?;
        let found = texts.iter().zip(rest).map(|(text, rest)| match text {
            Some(text) => Some(text.to_owned()),
            None => lookup(rest?, &self.key),
        });
        Ok(found.collect())
    }
}

impl ScalarUDFImpl for StoredAttribute {
    fn name(&self) -> &'static str {
        "stored_attribute"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [rest, column] = arrays.as_slice() else {
            return exec_err!("an attribute has a column and a rest");
        };
        Ok(ColumnarValue::Array(Arc::new(self.text(rest, column)?)))
    }
}

/// `self_ns` from the file's column of that name and `duration_ns`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnTime {
    signature: Signature,
}

impl OwnTime {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OwnTime {
    fn name(&self) -> &'static str {
        "own_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [own, duration] = arrays.as_slice() else {
            return exec_err!("a time of one's own is a part of a duration");
        };
        Ok(ColumnarValue::Array(filled_own_times(own, duration)))
    }
}

#[cfg(test)]
mod tests;
