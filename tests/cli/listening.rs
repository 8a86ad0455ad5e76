//! What listens to a run while it is recorded: resource samples and token budgets.

use crate::support::{Bench, text};

/// Scenario: documents are ingested with the settings as they are, then without samples.
/// Guarantees: the run has samples of its begin and its end, with plausible values; 0 means none.
#[test]
fn a_run_says_what_it_used() {
    let bench = Bench::with_documents();
    let samples = |what: &str| bench.number(&format!("select count(*) from measures where {what}"));
    for name in ["process.memory.usage", "process.thread.count"] {
        assert!(samples(&format!("name = '{name}' and value >= 1")) >= 2, "{name}");
    }
    assert!(samples("name = 'process.open_file_descriptor.count' and value >= 3") >= 2);
    assert_eq!(samples("value < 0"), 0);

    bench.write("retake.toml", "[record]\nsample_ms = 0\n");
    bench.retake(["rag", "ask", "Who?"]).expect_code(0);
    let run_id = bench.last_run();
    assert_eq!(samples(&format!("run_id = '{run_id}' and name like 'process.%'")), 0);
}

/// Scenario: a question under a budget of one token that warns, then under one that is an error.
/// Guarantees: the answer is given and recorded both times; a warning changes no exit code, an
/// error gives 11; both name the budget.
#[test]
fn a_crossed_budget_warns_or_ends_with_its_own_code() {
    let bench = Bench::with_documents();
    let ask = ["rag", "ask", "What was the keeper of Skerryvore called?"];
    bench.write("retake.toml", "[record.budget]\ntotal_tokens = 1000000\n");
    let outcome = bench.retake(ask).expect_code(0);
    assert!(!outcome.stderr.contains("budget"), "{}", outcome.stderr);

    bench.write("retake.toml", "[record.budget]\ntotal_tokens = 1\n");
    let said = ["token budget crossed", "the budget allows 1"];
    bench.retake(ask).expect_code(0).expect_message(&said);

    bench.write("retake.toml", "[record.budget]\ntotal_tokens = 1\non_exceeded = \"error\"\n");
    bench.retake(ask).expect_code(11).expect_message(&said);
    assert!(bench.runs().iter().all(|run| text(&run["status"]) != "recording"));
}
