//! Every format of the same result.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::{Format, write_result};
use crate::session::QueryResult;

fn result() -> QueryResult {
    let schema = Arc::new(Schema::new(vec![
        Field::new("stage", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("n", DataType::Float64, true),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(StringArray::from(vec![Some("=1+1"), Some("a|b,\"c\"\n![x](y)"), None])),
            Arc::new(Int64Array::from(vec![Some(-1), Some(2), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(f64::NAN)])),
        ],
    );
    QueryResult { schema, batches: vec![batch.unwrap()] }
}

fn bytes(result: &QueryResult, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    write_result(result, format, &mut out).unwrap();
    out
}

fn text(result: &QueryResult, format: Format) -> String {
    String::from_utf8(bytes(result, format)).unwrap()
}

#[test]
fn json_is_one_document_of_the_promised_shape() {
    let found: serde_json::Value = serde_json::from_str(&text(&result(), Format::Json)).unwrap();
    assert_eq!(found["schema_version"], 1);
    assert_eq!(found["columns"][1], serde_json::json!({"name": "n", "type": "Int64"}));
    assert_eq!(found["columns"][2]["name"], "n_2", "an object holds each name once");
    assert_eq!(found["rows"][0], serde_json::json!({"stage": "=1+1", "n": -1, "n_2": 0.5}));
    assert_eq!(found["rows"][2], serde_json::json!({"stage": null, "n": null, "n_2": null}));
    let empty = QueryResult { batches: Vec::new(), ..result() };
    let found: serde_json::Value = serde_json::from_str(&text(&empty, Format::Json)).unwrap();
    assert_eq!(found["rows"], serde_json::json!([]));
}

#[test]
fn ndjson_is_one_object_a_line() {
    let found = text(&result(), Format::Ndjson);
    let rows: Vec<serde_json::Value> =
        found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1]["stage"], "a|b,\"c\"\n![x](y)");
}

/// Scenario: text that a spreadsheet would execute, and a negative number.
/// Guarantees: P2 - no cell begins like a formula unless it is a number.
#[test]
fn csv_cells_are_no_formulas() {
    let found = text(&result(), Format::Csv);
    assert_eq!(found, "stage,n,n_2\n'=1+1,-1,0.5\n\"a|b,\"\"c\"\"\n![x](y)\",2,\n,,NaN\n");
}

#[test]
fn markdown_cells_are_no_markup() {
    let found = text(&result(), Format::Markdown);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[0], "| stage | n | n\\_2 |");
    assert_eq!(lines[1], "| --- | ---: | ---: |");
    assert_eq!(lines[3], "| a\\|b,\"c\" \\!\\[x\\](y) | 2 |  |");
}

#[test]
fn columnar_formats_read_back() {
    let ipc = bytes(&result(), Format::Arrow);
    let reader = arrow::ipc::reader::StreamReader::try_new(ipc.as_slice(), None).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(batches[0].num_rows(), 3);
    let parquet = bytes(&result(), Format::Parquet);
    assert_eq!(&parquet[..4], b"PAR1");
    assert_eq!(&parquet[parquet.len() - 4..], b"PAR1");
}

#[test]
fn formats_are_found_by_their_word() {
    for format in Format::ALL {
        assert_eq!(format.as_str().parse(), Ok(format));
    }
    assert!("xml".parse::<Format>().unwrap_err().to_string().contains("ndjson"));
}
