//! The macro that turns one declaration into a row struct, its schema and its conversions.

/// Declares a table. The doc comment of a field is the documentation of the column.
macro_rules! table {
    (
        $(#[doc = $table_doc:literal])*
        $row:ident in $table:ident {
            $( $(#[doc = $doc:literal])+ $field:ident : $cell:ty, )+
        }
    ) => {
        $(#[doc = $table_doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $row {
            $( $(#[doc = $doc])+ pub $field: $cell, )+
        }

        impl $crate::tables::Row for $row {
            const TABLE: $crate::tables::TableName = $crate::tables::TableName::$table;

            fn columns() -> Vec<$crate::tables::Column> {
                vec![$(
                    $crate::tables::Column {
                        name: stringify!($field),
                        data_type: <$cell as $crate::tables::Cell>::TYPE,
                        nullable: <$cell as $crate::tables::Cell>::NULLABLE,
                        doc: [$($doc),+].concat().trim().to_owned(),
                    },
                )+]
            }

            fn cells(&self) -> Vec<Option<$crate::tables::CellRef<'_>>> {
                vec![$( $crate::tables::Cell::value(&self.$field), )+]
            }

            fn to_batch(rows: &[Self]) -> arrow::array::RecordBatch {
                let columns: Vec<arrow::array::ArrayRef> = vec![
                    $( <$cell as $crate::tables::Cell>::write(rows.iter().map(|r| &r.$field)), )+
                ];
                // The declaration above gives schema and columns alike, so they cannot disagree.
                match arrow::array::RecordBatch::try_new(Self::schema(), columns) {
                    Ok(batch) => batch,
                    Err(error) => unreachable!("{}: {error}", stringify!($row)),
                }
            }

            fn from_batch(
                batch: &arrow::array::RecordBatch,
            ) -> Result<Vec<Self>, arrow::error::ArrowError> {
                let batch = $crate::tables::stored::logical(batch.clone())?;
                let mut rows = vec![Self::default(); batch.num_rows()];
                $(
                    match batch.column_by_name(stringify!($field)) {
                        Some(column) => {
                            let cells = <$cell as $crate::tables::Cell>::read(column)?;
                            for (row, cell) in rows.iter_mut().zip(cells) {
                                row.$field = cell;
                            }
                        }
                        None if <$cell as $crate::tables::Cell>::NULLABLE => {}
                        None => {
                            return Err(arrow::error::ArrowError::SchemaError(format!(
                                "table {} lacks column {}",
                                <Self as $crate::tables::Row>::TABLE, stringify!($field),
                            )));
                        }
                    }
                )+
                Ok(rows)
            }
        }
    };
}

pub(crate) use table;
