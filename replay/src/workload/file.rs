//! A workload in one Parquet file, for DuckDB, polars, and SQL as much as for replays.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `op_id` | u64 | position in the order of due times, from 0 |
//! | `kind` | text | what to do: `ingest`, `query`, `chat`, `embeddings`, ... |
//! | `due_ns` | i64 | ns after the first operation |
//! | `session_id` | text | conversation |
//! | `turn` | u32 | place in the session, from 0 |
//! | `think_ns` | i64 | pure think time before it, ns: from the end of the turn before |
//! | `parent_op` | u64 | `op_id` of the turn before |
//! | `payload_hash` | text | BLAKE3 of `input`, hex; NULL when only the shape is known |
//! | `tokens_in`, `tokens_out` | u64 | lengths, tokens |
//! | `stamp_resolution_ns` | i64 | what the recording's clock could tell apart, ns; equal in all rows |
//! | `src_run_id`, `src_trace_id`, `src_span_id` | text | the recorded operation, if it was one |
//! | `model` | text | model asked |
//! | `duration_ns` | i64 | how long it took when it was recorded, ns; NULL when not known |
//! | `is_barrier` | bool | whether later operations wait for it |
//! | `is_due_derived` | bool | whether `due_ns` is the earliest possible time, not a recorded one |
//! | `input` | text | JSON of the input |
//! | `parts` | list | `role`, `id`, `tokens` of the pieces of the prompt |

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, ListBuilder, RecordBatch,
    StringArray, StringBuilder, StructBuilder, UInt32Array, UInt32Builder, UInt64Array,
    UInt64Builder,
};
use arrow::datatypes::{
    DataType, Field, Fields, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use retake_schemas::Digest;

use super::{Part, PartRole, Shape, Workload};
use crate::target::{Operation, SourceLink};

/// Why a workload file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is no such file.
    #[error("read workload {path}: there is no such file", path = .0.display())]
    NotFound(PathBuf),
    /// The system refused.
    #[error("open workload {path}: {reason}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It is no workload.
    #[error(
        "read workload {path}: {reason}; `retake workload import` and `cut` write such files",
         path = .path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer retake.
    #[error("read workload {path}: its format is {found}, this retake reads {VERSION}",
         path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

impl Workload {
    /// Writes the workload. The file appears whole or not at all.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let io = |reason: String| FileError::Io { path: path.to_owned(), reason };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut temporary = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
            .map_err(|error| io(error.to_string()))?;
        self.write_rows(temporary.as_file_mut()).map_err(|error| io(error.to_string()))?;
        temporary.as_file().sync_all().map_err(|error| io(error.to_string()))?;
        temporary.persist(path).map_err(|error| io(error.to_string()))?;
        Ok(())
    }

    fn write_rows(&self, file: &mut File) -> Result<(), parquet::errors::ParquetError> {
        let facts =
            [("retake.workload.version", VERSION), ("retake.workload.origin", &self.origin)];
        let facts = facts.map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(facts.to_vec()))
            .build();
        let mut writer = ArrowWriter::try_new(file, schema(), Some(properties))?;
        for operations in self.operations.chunks(ROWS_PER_BATCH) {
            writer.write(&self.batch(operations)?)?;
        }
        writer.close().map(drop)
    }

    fn batch(&self, operations: &[Operation]) -> Result<RecordBatch, arrow::error::ArrowError> {
        let texts = |of: &dyn Fn(&Operation) -> Option<String>| -> ArrayRef {
            Arc::new(operations.iter().map(of).collect::<StringArray>())
        };
        let counts = |of: &dyn Fn(&Operation) -> Option<u64>| -> ArrayRef {
            Arc::new(operations.iter().map(of).collect::<UInt64Array>())
        };
        let times = |of: &dyn Fn(&Operation) -> Option<i64>| -> ArrayRef {
            Arc::new(operations.iter().map(of).collect::<Int64Array>())
        };
        let flags = |of: &dyn Fn(&Operation) -> bool| -> ArrayRef {
            Arc::new(operations.iter().map(|o| Some(of(o))).collect::<BooleanArray>())
        };
        let input = |o: &Operation| (!o.input.is_null()).then(|| o.input.to_string());
        let link = |o: &Operation, of: &dyn Fn(&SourceLink) -> String| o.source.as_ref().map(of);
        let turns: UInt32Array = operations.iter().map(|o| Some(o.shape.turn)).collect();
        let columns = vec![
            counts(&|o| Some(o.index)),
            texts(&|o| Some(o.kind.clone())),
            times(&|o| Some(o.due_ns)),
            texts(&|o| o.shape.session.clone()),
            Arc::new(turns) as ArrayRef,
            times(&|o| o.shape.think_ns),
            counts(&|o| o.shape.parent),
            texts(&|o| input(o).map(|text| Digest::of(text.as_bytes()).to_string())),
            counts(&|o| o.shape.tokens_in),
            counts(&|o| o.shape.tokens_out),
            times(&|_| Some(self.stamp_resolution_ns)),
            texts(&|o| link(o, &|source| source.run_id.to_string())),
            texts(&|o| link(o, &|source| source.trace_id.to_string())),
            texts(&|o| link(o, &|source| source.span_id.to_string())),
            texts(&|o| o.shape.model.clone()),
            times(&|o| (o.recorded_duration_ns > 0).then_some(o.recorded_duration_ns)),
            flags(&|o| o.is_barrier),
            flags(&|o| o.shape.is_due_derived),
            texts(&input),
            Arc::new(parts_column(operations)) as ArrayRef,
        ];
        RecordBatch::try_new(schema(), columns)
    }

    /// Reads a workload.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let malformed = |reason: String| FileError::Malformed { path: path.to_owned(), reason };
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FileError::NotFound(path.to_owned()),
            _ => FileError::Io { path: path.to_owned(), reason: error.to_string() },
        })?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|error| malformed(error.to_string()))?;
        let fact = |name: &str| {
            let facts = builder.metadata().file_metadata().key_value_metadata();
            let found = facts.into_iter().flatten().find(|fact| fact.key == name);
            found.and_then(|fact| fact.value.clone())
        };
        match fact("retake.workload.version") {
            Some(version) if version == VERSION => {}
            Some(found) => return Err(FileError::Newer { path: path.to_owned(), found }),
            None => return Err(malformed("it is no workload of retake".to_owned())),
        }
        let origin = fact("retake.workload.origin").unwrap_or_default();
        let mut workload = Self { origin, stamp_resolution_ns: 1, ..Self::default() };
        let reader = builder.build().map_err(|error| malformed(error.to_string()))?;
        for batch in reader {
            let batch = batch.map_err(|error| malformed(error.to_string()))?;
            workload.take(&batch).map_err(malformed)?;
        }
        workload.check().map_err(malformed)?;
        Ok(workload)
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let rows = Rows::of(batch)?;
        for row in 0..batch.num_rows() {
            if let Some(resolution) = rows.time("stamp_resolution_ns", row) {
                self.stamp_resolution_ns = resolution.max(1);
            }
            let operation = rows.operation(row)?;
            self.source_run =
                self.source_run.take().or_else(|| Some(operation.source.as_ref()?.run_id.clone()));
            self.operations.push(operation);
        }
        Ok(())
    }

    /// What everything else relies on: numbered, in order, and parents before their turns.
    fn check(&self) -> Result<(), String> {
        let mut before = 0;
        for (operation, position) in self.operations.iter().zip(0u64..) {
            if operation.index != position {
                return Err(format!("row {position} has op_id {}", operation.index));
            }
            if operation.due_ns < before {
                return Err(format!("row {position} is due before the row above it"));
            }
            if operation.shape.parent.is_some_and(|parent| parent >= position) {
                return Err(format!("row {position} waits for an operation that is not before it"));
            }
            if operation.shape.think_ns.is_some_and(|think| think < 0) {
                return Err(format!("row {position} has a negative think_ns"));
            }
            before = operation.due_ns;
        }
        Ok(())
    }
}

/// Columns of a batch by name.
struct Rows<'b> {
    batch: &'b RecordBatch,
    parts: &'b ListArray,
}

impl<'b> Rows<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, String> {
        let expected = schema();
        for field in expected.fields() {
            let column = batch.column_by_name(field.name());
            let column = column.ok_or_else(|| format!("it has no column {}", field.name()))?;
            if column.data_type() != field.data_type() {
                let (name, found) = (field.name(), column.data_type());
                return Err(format!(
                    "its column {name} is {found}, expected {}",
                    field.data_type()
                ));
            }
        }
        let parts = batch.column_by_name("parts").and_then(|column| column.as_list_opt::<i32>());
        Ok(Self { batch, parts: parts.ok_or("its column parts is no list")? })
    }

    fn column(&self, name: &str, row: usize) -> Option<&'b ArrayRef> {
        self.batch.column_by_name(name).filter(|column| column.is_valid(row))
    }

    fn text(&self, name: &str, row: usize) -> Option<&'b str> {
        Some(self.column(name, row)?.as_string_opt::<i32>()?.value(row))
    }

    fn time(&self, name: &str, row: usize) -> Option<i64> {
        Some(self.column(name, row)?.as_primitive_opt::<Int64Type>()?.value(row))
    }

    fn count(&self, name: &str, row: usize) -> Option<u64> {
        Some(self.column(name, row)?.as_primitive_opt::<UInt64Type>()?.value(row))
    }

    fn flag(&self, name: &str, row: usize) -> bool {
        let column = self.column(name, row).and_then(|column| column.as_boolean_opt());
        column.is_some_and(|column| column.value(row))
    }

    fn operation(&self, row: usize) -> Result<Operation, String> {
        let input = match self.text("input", row) {
            None => serde_json::Value::Null,
            Some(text) => {
                let digest = Digest::of(text.as_bytes()).to_string();
                if self.text("payload_hash", row) != Some(digest.as_str()) {
                    return Err(format!("input of row {row} is not what its payload_hash says"));
                }
                serde_json::from_str(text).map_err(|e| format!("input of row {row}: {e}"))?
            }
        };
        let turn = self.column("turn", row).and_then(|c| c.as_primitive_opt::<UInt32Type>());
        Ok(Operation {
            index: self.count("op_id", row).ok_or("op_id is NULL")?,
            kind: self.text("kind", row).ok_or("kind is NULL")?.to_owned(),
            input,
            due_ns: self.time("due_ns", row).ok_or("due_ns is NULL")?,
            recorded_duration_ns: self.time("duration_ns", row).unwrap_or(0),
            is_barrier: self.flag("is_barrier", row),
            source: self.source(row)?,
            shape: Shape {
                session: self.text("session_id", row).map(str::to_owned),
                turn: turn.map_or(0, |turns| turns.value(row)),
                think_ns: self.time("think_ns", row),
                parent: self.count("parent_op", row),
                is_due_derived: self.flag("is_due_derived", row),
                model: self.text("model", row).map(str::to_owned),
                tokens_in: self.count("tokens_in", row),
                tokens_out: self.count("tokens_out", row),
                parts: self.parts(row)?,
            },
        })
    }

    fn source(&self, row: usize) -> Result<Option<SourceLink>, String> {
        let id = |name| self.text(name, row);
        let (Some(run), Some(trace), Some(span)) =
            (id("src_run_id"), id("src_trace_id"), id("src_span_id"))
        else {
            return Ok(None);
        };
        Ok(Some(SourceLink {
            run_id: run.parse().map_err(|e| format!("{e}"))?,
            trace_id: trace.parse().map_err(|e| format!("{e}"))?,
            span_id: span.parse().map_err(|e| format!("{e}"))?,
        }))
    }

    fn parts(&self, row: usize) -> Result<Vec<Part>, String> {
        if self.parts.is_null(row) {
            return Ok(Vec::new());
        }
        let items = self.parts.value(row);
        let items = items.as_struct_opt().ok_or("parts are no structs")?;
        let column = |name: &str| items.column_by_name(name);
        let roles = column("role").and_then(|c| c.as_string_opt::<i32>()).ok_or("no role")?;
        let ids = column("id").and_then(|c| c.as_primitive_opt::<UInt64Type>()).ok_or("no id")?;
        let tokens = column("tokens").and_then(|c| c.as_primitive_opt::<UInt32Type>());
        let tokens = tokens.ok_or("no tokens")?;
        (0..items.len())
            .map(|at| {
                let role = roles.value(at);
                let known = PartRole::parse(role);
                Ok(Part {
                    role: known.ok_or_else(|| format!("row {row} has a part of role {role:?}"))?,
                    id: ids.is_valid(at).then(|| ids.value(at)),
                    tokens: tokens.is_valid(at).then(|| tokens.value(at)),
                })
            })
            .collect()
    }
}

fn parts_column(operations: &[Operation]) -> ListArray {
    let builders: Vec<Box<dyn arrow::array::ArrayBuilder>> = vec![
        Box::new(StringBuilder::new()),
        Box::new(UInt64Builder::new()),
        Box::new(UInt32Builder::new()),
    ];
    let items = StructBuilder::new(part_fields(), builders);
    let mut list = ListBuilder::new(items).with_field(part_item());
    for operation in operations {
        for part in &operation.shape.parts {
            let item = list.values();
            if let Some(role) = item.field_builder::<StringBuilder>(0) {
                role.append_value(part.role.as_str());
            }
            if let Some(id) = item.field_builder::<UInt64Builder>(1) {
                id.append_option(part.id);
            }
            if let Some(tokens) = item.field_builder::<UInt32Builder>(2) {
                tokens.append_option(part.tokens);
            }
            item.append(true);
        }
        list.append(!operation.shape.parts.is_empty());
    }
    list.finish()
}

fn part_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("id", DataType::UInt64, true),
        Field::new("tokens", DataType::UInt32, true),
    ])
}

fn part_item() -> Field {
    Field::new("item", DataType::Struct(part_fields()), false)
}

fn schema() -> SchemaRef {
    let (text, time, count) = (DataType::Utf8, DataType::Int64, DataType::UInt64);
    let must = |name: &str, kind: &DataType| Field::new(name, kind.clone(), false);
    let may = |name: &str, kind: &DataType| Field::new(name, kind.clone(), true);
    Arc::new(Schema::new(vec![
        must("op_id", &count),
        must("kind", &text),
        must("due_ns", &time),
        may("session_id", &text),
        must("turn", &DataType::UInt32),
        may("think_ns", &time),
        may("parent_op", &count),
        may("payload_hash", &text),
        may("tokens_in", &count),
        may("tokens_out", &count),
        must("stamp_resolution_ns", &time),
        may("src_run_id", &text),
        may("src_trace_id", &text),
        may("src_span_id", &text),
        may("model", &text),
        may("duration_ns", &time),
        must("is_barrier", &DataType::Boolean),
        must("is_due_derived", &DataType::Boolean),
        may("input", &text),
        Field::new("parts", DataType::List(Arc::new(part_item())), true),
    ]))
}

/// Version of the format; a reader refuses any other.
const VERSION: &str = "1";
/// Rows turned into columns at a time.
const ROWS_PER_BATCH: usize = 8192;
