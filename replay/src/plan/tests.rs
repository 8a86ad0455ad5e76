//! Plans of runs whose facts are written out.

use retake_schemas::settings::{Price, RagSettings};

use super::*;
use crate::cost::{Call, DocumentWork, IngestRecord, Passage, QueryRecord};

/// One ingest of 10 documents with 10 chunks each, embedded in batches of these sizes with calls of
/// 10 ms + 1 ms a chunk, and queries with lists of these lengths.
fn observed(batches: &[i64], lists: &[usize]) -> Observed {
    let mut settings = RagSettings::default().recordable();
    let batch = batches.first().copied().unwrap_or(32);
    settings.insert("embed.batch_size".to_owned(), batch.into());
    let call = |items: i64, ms: i64| Call {
        items,
        duration_ns: ms * 1_000_000,
        is_ok: true,
        input_tokens: Some(items * 50),
        has_answer: true,
        ..Call::default()
    };
    let mut observed = Observed { settings, ..Observed::default() };
    if !batches.is_empty() {
        observed.ingests.push(IngestRecord {
            is_ok: true,
            documents: vec![DocumentWork { prepare_ns: 1000, chunks: Some(10) }; 10],
            ..IngestRecord::default()
        });
        let calls = batches.iter().map(|items| call(*items, 10 + items));
        observed.stages.insert("embed", calls.collect());
    }
    for (number, length) in lists.iter().enumerate() {
        let passage =
            |n: usize| Passage { id: format!("d#{n}"), bytes: Some(400), ..Passage::default() };
        observed.queries.push(QueryRecord {
            key: number.to_string(),
            is_ok: true,
            passages: (0..*length).map(passage).collect(),
            prompt_bytes: Some(400 + 400 * *length as i64),
            ..QueryRecord::default()
        });
    }
    let llm = lists.iter().map(|length| Call {
        input_tokens: Some(100 + 100 * *length as i64),
        output_tokens: Some(50),
        model: Some("m".to_owned()),
        ..call(1, 500)
    });
    observed.stages.insert("llm", llm.collect());
    observed
}

fn planned(observed: &Observed, set: &[&str], llm: StageSource, on_miss: OnMiss) -> Plan {
    let mut target = RagSettings::from_recorded(&observed.settings);
    for change in set {
        target.set(change).unwrap();
    }
    let price =
        Price { input: 1.0, output: 2.0, cache_read: None, cache_write: None, reasoning: None };
    let prices = Prices([("m".to_owned(), price)].into());
    let mut operations = BTreeMap::new();
    if !observed.ingests.is_empty() {
        operations.insert("ingest".to_owned(), observed.ingests.len() as u64);
    }
    if !observed.queries.is_empty() {
        operations.insert("query".to_owned(), observed.queries.len() as u64);
    }
    plan(&Planned {
        operations,
        observed,
        target: &target.recordable(),
        llm,
        on_miss,
        prices: &prices,
        missing: Vec::new(),
    })
}

fn stage<'a>(plan: &'a Plan, name: &str) -> &'a StagePlan {
    plan.stages.iter().find(|stage| stage.stage == name).unwrap()
}

use OnMiss::{Fail, Live as CallLive};
use StageSource::{Live, Model, Recorded, RecordedModel};

#[test]
fn settings_that_change_the_prompt_refuse_recorded_answers() {
    let run = observed(&[], &[4, 4]);
    for change in
        ["retrieve.top_k=2", "rerank.provider=bm25", "synthesize.temperature=0.5", "seed=1"]
    {
        let refusal = planned(&run, &[change], Recorded, Fail).refusal.unwrap();
        assert!(refusal.contains(change.split('=').next().unwrap()), "{refusal}");
        assert!(refusal.contains("--llm live") && refusal.contains("--on-miss live"), "{refusal}");
        assert_eq!(planned(&run, &[change], Live, Fail).refusal, None, "{change}");
        assert_eq!(planned(&run, &[change], Recorded, CallLive).refusal, None, "{change}");
    }
    let both = observed(&[32, 32, 32, 4], &[4]);
    for change in
        ["workers=3", "embed.batch_size=8", "embed.max_wait_ms=9", "synthesize.timeout_ms=7"]
    {
        assert_eq!(planned(&both, &[change], Recorded, Fail).refusal, None, "{change}");
    }
}

#[test]
fn settings_that_change_vectors_need_the_ingest() {
    for change in ["chunk.size=64", "embed.model=x", "embed.dim=8", "load.file_bytes_max=9"] {
        let alone = planned(&observed(&[], &[4]), &[change], Live, Fail);
        assert!(alone.refusal.unwrap().contains("record a run that ingests"), "{change}");
        assert_eq!(
            planned(&observed(&[32], &[4]), &[change], Live, Fail).refusal,
            None,
            "{change}"
        );
    }
}

#[test]
fn unchanged_settings_are_no_change() {
    let plan = planned(&observed(&[32], &[4]), &[], Recorded, Fail);
    assert_eq!((plan.changes, plan.refusal), (vec![], None));
    assert!(plan.stages.iter().all(|stage| stage.invalidated_by.is_empty()));
}

/// Scenario: 100 chunks, recorded in batches of 8 and 32; another size, and one far outside.
/// Guarantees: calls and tokens by arithmetic; the time by the fit, and not at all where the calls
/// do not carry it.
#[test]
fn a_batch_size_is_expected_to_take_what_its_calls_take() {
    let mut batches = vec![32; 20];
    batches.extend([8; 20]);
    let plan = planned(&observed(&batches, &[]), &["embed.batch_size=16"], Live, Fail);
    let embed = stage(&plan, "embed");
    // 7 calls of 10 ms, and 100 chunks of 1 ms.
    assert_eq!(embed.expected.calls, 7);
    let ms = embed.expected.busy_ns.unwrap() as f64 / 1e6;
    assert!((ms - 170.0).abs() < 1.0, "{:?}", embed.expected);
    assert!(embed.invalidated_by.is_empty(), "vectors stay what they were");
    assert!(embed.reason.contains("embed.batch_size changes its timing"), "{}", embed.reason);
    assert_eq!(embed.choices, [Live, RecordedModel, Model]);

    let one = planned(&observed(&[32; 3], &[]), &["embed.batch_size=64"], Live, Fail);
    let expected = &stage(&one, "embed").expected;
    assert_eq!((expected.calls, expected.busy_ns), (2, None));
    assert!(expected.basis.contains("retake sweep"), "{}", expected.basis);
}

/// Scenario: fewer passages; lists of 4, 4, 2 and 1.
/// Guarantees: early cutoff is counted where the recording proves it, and nowhere else; input tokens
/// follow the bytes of the passages, and the price the tokens.
#[test]
fn fewer_passages_leave_short_lists_alone() {
    let run = observed(&[], &[4, 4, 2, 1]);
    let plan = planned(&run, &["retrieve.top_k=2"], Live, Fail);
    let llm = stage(&plan, "llm");
    assert_eq!(llm.cutoff, Some(Cutoff { revalidated: 2, of: 4 }));
    assert_eq!(llm.invalidated_by, ["retrieve.top_k"]);
    // 500 + 500 + 300 + 200 tokens; 4 of 15 parts of 400 bytes go.
    assert_eq!(llm.expected.input_tokens, Some(1100));
    let usd = (1100.0 + 2.0 * 200.0) / 1e6;
    assert!((llm.expected.cost_usd.unwrap() - usd).abs() < 1e-12);
    assert_eq!(plan.expected.cost_usd, llm.expected.cost_usd);
    let refused = planned(&run, &["retrieve.top_k=2"], Recorded, Fail).refusal.unwrap();
    assert!(refused.contains("2 of 4"), "{refused}");

    // Every list was shorter than asked for: asking for more, or for a little less, changes none.
    let short = observed(&[], &[2, 1]);
    for change in ["retrieve.top_k=8", "retrieve.top_k=3"] {
        let plan = planned(&short, &[change], Recorded, Fail);
        assert_eq!(stage(&plan, "llm").cutoff, Some(Cutoff { revalidated: 2, of: 2 }));
        assert_eq!(plan.refusal, None, "{change}");
    }
    let mixed = planned(&short, &["retrieve.top_k=8", "synthesize.max_tokens=5"], Live, Fail);
    assert_eq!(stage(&mixed, "llm").cutoff, Some(Cutoff { revalidated: 0, of: 2 }));
    let unknown = planned(&short, &["rerank.provider=bm25"], Live, Fail);
    assert_eq!(stage(&unknown, "llm").cutoff, None, "only the run can tell");
}

/// Scenario: an answer that was not kept; documents that are gone; recorded answers that are used.
/// Guarantees: what is missing is named, with what to type; a played back answer costs nothing.
#[test]
fn what_was_not_captured_is_named() {
    let mut run = observed(&[32], &[4, 4]);
    let plan = planned(&run, &[], Recorded, Fail);
    let llm = stage(&plan, "llm");
    assert_eq!((llm.usable, llm.recorded, llm.expected.calls), (2, 2, 0));
    assert_eq!((llm.expected.cost_usd, llm.source), (Some(0.0), Recorded));
    run.stages.get_mut("llm").unwrap()[0].has_answer = false;
    let plan = planned(&run, &[], Recorded, Fail);
    assert_eq!(plan.missing.len(), 1);
    let refusal = plan.refusal.unwrap();
    assert!(refusal.contains("1 of 2") && refusal.contains("--capture full"), "{refusal}");
    run.ingests[0].roots.push("/nowhere/at/all".into());
    let refusal = planned(&run, &[], Live, Fail).refusal.unwrap();
    assert!(refusal.contains("/nowhere/at/all"), "{refusal}");
}
