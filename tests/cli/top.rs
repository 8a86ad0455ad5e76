//! `retake top`: a run while it is being recorded.

use crate::receive::{JSON, Receiver, request, span};
use crate::support::{Bench, assert_fields, int, text};

/// Scenario: nothing is being recorded; a service sends; its run ends.
/// Guarantees: without a run there is an answer of its own code; a look counts calls once and names
/// the stages, as text and as JSON; a run that has ended is looked at once.
#[test]
fn a_run_is_looked_at_while_it_is_recorded() {
    let bench = Bench::with_documents();
    bench.retake(["top"]).expect_code(3).expect_message(&["retake top last"]);
    let receiver = Receiver::start(&bench, &[]);
    let body = request(
        "shop",
        &[span(1, None, "CHAIN"), span(2, Some(1), "LLM"), span(3, Some(2), "LLM")],
    );
    assert!(receiver.post("/v1/traces", JSON, &body).starts_with("HTTP/1.1 200"));
    let shown = bench.retake(["top", "--once", "--format", "table"]).expect_code(0).stdout;
    assert!(
        shown.contains("shop") && shown.contains("recording") && shown.contains("llm"),
        "{shown}"
    );
    let look = bench.retake(["top", "--once", "--format", "json"]).expect_code(0).json();
    assert_fields(&look, &["run_id", "status", "spans", "window_ns", "rows"]);
    let rows = look["rows"].as_array().expect("rows");
    let llm = rows.iter().find(|row| text(&row["stage"]) == "llm").expect("the stage");
    assert_eq!((int(&llm["calls"]), int(&llm["tokens"])), (1, 12), "a wrapper is no call: {look}");
    assert_eq!(receiver.end("-INT").0, Some(0));
    let ended = bench.retake(["top", "last", "--format", "table"]).expect_code(0).stdout;
    assert!(ended.contains("finished"), "{ended}");
    bench.retake(["top", "--window", "0"]).expect_code(2);
}
