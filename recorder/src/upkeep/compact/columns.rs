//! The columns of a merged file: those of the table, and the attributes' that its pieces have.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use retake_schemas::tables::stored::{attributes, key_of_column};

/// The columns of a merged file.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    schema: SchemaRef,
}

/// Whether two files hold the same columns of their table, so that they can become one.
pub(super) fn are_of_one_table(a: &Schema, b: &Schema) -> bool {
    table_fields(a).eq(table_fields(b))
}

fn table_fields(schema: &Schema) -> impl Iterator<Item = &FieldRef> {
    schema.fields().iter().filter(|field| !is_typed(field))
}

fn is_typed(field: &Field) -> bool {
    key_of_column(field.name()).is_some()
}

impl Columns {
    /// The columns of files of one table. An attribute whose type differs between them has the
    /// column of the first.
    pub(super) fn of_all<'a>(schemas: impl Iterator<Item = &'a SchemaRef> + Clone) -> Self {
        let mut typed: Vec<FieldRef> = Vec::new();
        for field in schemas.clone().flat_map(|schema| schema.fields()) {
            let is_known = |known: &FieldRef| known.name().eq_ignore_ascii_case(field.name());
            if is_typed(field) && typed.len() < TYPED_MAX && !typed.iter().any(is_known) {
                typed.push(Arc::clone(field));
            }
        }
        typed.sort_by(|a, b| a.name().cmp(b.name()));
        let table = schemas.take(1).flat_map(|schema| table_fields(schema)).cloned();
        Self { schema: Arc::new(Schema::new(table.chain(typed).collect::<Vec<_>>())) }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a column of a piece is one of the merged file, with the same type.
    pub(super) fn keep(&self, field: &Field) -> bool {
        self.schema.field_with_name(field.name()).is_ok_and(|kept| kept == field)
    }

    /// The rows of a piece in these columns. Attributes whose column is not kept go back into the
    /// JSON of `attributes`.
    pub(super) fn take(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let given = || batch.schema_ref().fields().iter().zip(batch.columns());
        let dropped: Vec<(&str, ArrayRef)> = given()
            .filter(|(field, _)| !self.keep(field))
            .filter_map(|(field, array)| Some((key_of_column(field.name())?, Arc::clone(array))))
            .collect();
        let columns = self.schema.fields().iter().map(|field| {
            let found = given().find(|(given, _)| *given == field).map(|(_, array)| array);
            let Some(array) = found else {
                return Ok(new_null_array(field.data_type(), batch.num_rows()));
            };
            if field.name() == "attributes" && !dropped.is_empty() {
                return Ok(Arc::new(attributes(array, &dropped)?) as ArrayRef);
            }
            Ok(Arc::clone(array))
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// Columns of attributes in a merged file. Seals of one program hardly differ in them; a footer of
/// more would take longer to read than the columns save.
const TYPED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Int64Array, StringArray};
    use retake_schemas::tables::stored::logical;

    use super::*;

    fn piece(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap()
    }

    fn texts(values: [Option<&str>; 2]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn ints(values: [Option<i64>; 2]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    /// Scenario: three seals whose attributes have columns of other names, other types, and names
    /// that differ only in case.
    /// Guarantees: J4 - merged, every row shows the attributes it showed before.
    #[test]
    fn seals_with_different_attributes_become_one() {
        let pieces = [
            piece(vec![
                ("name", texts([Some("a"), Some("b")])),
                ("attributes", texts([Some(r#"{"y":[1],"zz":1}"#), None])),
                ("attributes.m", ints([Some(1), None])),
                ("attributes.x", ints([Some(2), Some(3)])),
            ]),
            piece(vec![
                ("name", texts([Some("c"), None])),
                ("attributes", texts([Some(r#"{"y":null}"#), None])),
                ("attributes.x", texts([Some("two"), Some("\"three\"")])),
                ("attributes.z", Arc::new(BooleanArray::from(vec![None, Some(true)]))),
            ]),
            piece(vec![
                ("name", texts([None, Some("d")])),
                ("attributes", texts([None, None])),
                ("attributes.M", ints([Some(4), Some(5)])),
                ("attributes.x", ints([None, Some(6)])),
            ]),
        ];
        let schemas: Vec<SchemaRef> = pieces.iter().map(RecordBatch::schema).collect();
        assert!(are_of_one_table(&schemas[0], &schemas[1]));
        let columns = Columns::of_all(schemas.iter());
        let names: Vec<_> = columns.schema().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["name", "attributes", "attributes.m", "attributes.x", "attributes.z"]);
        for piece in pieces {
            let merged = columns.take(&piece).unwrap();
            assert_eq!(merged.schema_ref(), columns.schema());
            assert_eq!(logical(merged).unwrap(), logical(piece).unwrap());
        }
    }

    #[test]
    fn another_column_of_the_table_keeps_files_apart() {
        let a = piece(vec![("name", texts([None, None]))]);
        let b = piece(vec![("name", ints([None, None]))]);
        assert!(!are_of_one_table(&a.schema(), &b.schema()));
    }
}
