//! The app under retake's Layer: what its run says, against what its service and rig say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_rig::service::{ANSWER, Counted, Service};
use retake_rig::{CANARY, EMBEDDING_MODEL, FAILING_MODEL, MODEL, Outcome, Said, run};
use retake_schemas::event::RunStatus;
use retake_schemas::tables::{EventRow, SpanRow};
use serde_json::Value;
use tokio::runtime::Runtime;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

struct Recorded {
    said: Said,
    counted: Counted,
    spans: Vec<SpanRow>,
    lines: Vec<EventRow>,
    folder: tempfile::TempDir,
}

/// A process has one global subscriber, so the app runs once.
static RECORDED: LazyLock<Recorded> = LazyLock::new(|| record().expect("the app is recorded"));

fn record() -> Outcome<Recorded> {
    let service = Service::start()?;
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let app = || runtime.block_on(run(service.base_url()));
    // As in docs/recording.md:
    let store = Store::create(folder.path())?;
    let recorder = RecorderBuilder::new("evening", "guide").start(&store)?;
    let layer = recorder.layer().with_filter(LevelFilter::INFO);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    let run_id = recorder.run_id().clone();
    let said = app()?;
    let summary = recorder.finish(RunStatus::Finished);
    // To here.
    assert_eq!((summary.dropped, summary.unsealed), (0, None));
    assert!(store.verify(&run_id)?.is_sound());
    let reader = RunReader::open(&store, &run_id)?;
    let (spans, lines) = (reader.rows()?, reader.rows()?);
    Ok(Recorded { said, counted: service.counted(), spans, lines, folder })
}

impl Recorded {
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a SpanRow> {
        self.spans.iter().filter(move |span| span.kind == kind)
    }

    /// The sum of what the spans of a kind count.
    fn sum(&self, kind: &str, tokens: impl Fn(&SpanRow) -> Option<i64>) -> i64 {
        self.of_kind(kind).filter(|span| span.tokens_counted).filter_map(tokens).sum()
    }

    /// Each trace as the names of its spans, those of children in brackets.
    fn trees(&self) -> Vec<String> {
        let mut children: BTreeMap<_, Vec<&SpanRow>> = BTreeMap::new();
        for span in &self.spans {
            children.entry((&span.trace_id, &span.parent_span_id)).or_default().push(span);
        }
        for siblings in children.values_mut() {
            siblings.sort_by_key(|span| span.start_unix_ns);
        }
        let mut roots: Vec<_> =
            children.iter().filter(|((_, parent), _)| parent.is_none()).collect();
        roots.sort_by_key(|(_, spans)| spans.first().map(|span| span.start_unix_ns));
        roots.into_iter().map(|(_, spans)| tree(spans, &children)).collect()
    }
}

type Children<'a> = BTreeMap<(&'a String, &'a Option<String>), Vec<&'a SpanRow>>;

fn tree(siblings: &[&SpanRow], children: &Children<'_>) -> String {
    let told: Vec<String> = siblings
        .iter()
        .map(|span| match children.get(&(&span.trace_id, &Some(span.span_id.clone()))) {
            Some(below) => format!("{}({})", span.name, tree(below, children)),
            None => span.name.clone(),
        })
        .collect();
    told.join(" ")
}

/// Scenario: an index, questions with and without a span of the app's own around them, a tool that
/// works and fails, a stream, and two failures.
/// Guarantees: one tree a prompt; the search, the model and the tool stand below the agent.
#[test]
fn a_prompt_is_one_tree() {
    let trees = [
        "embeddings",
        "invoke_agent(embeddings chat)",
        "request(embeddings chat)",
        "invoke_agent(chat execute_tool chat)",
        "invoke_agent(chat execute_tool chat)",
        "invoke_agent(embeddings chat)",
        "invoke_agent(chat)",
        "ask_telling(chat)",
    ];
    assert_eq!(RECORDED.trees(), trees);
    let odd: Vec<_> = RECORDED.spans.iter().filter(|span| span.flags.is_some()).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// Guarantees: names of rig become columns.
#[test]
fn kinds_models_and_names_are_what_rig_says() {
    let kinds: BTreeSet<_> =
        RECORDED.spans.iter().map(|span| (span.name.as_str(), span.kind.as_str())).collect();
    let expected = [
        ("ask_telling", "span"),
        ("chat", "llm"),
        ("embeddings", "embedding"),
        ("execute_tool", "tool"),
        ("invoke_agent", "agent"),
        ("request", "span"),
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
    for span in RECORDED.of_kind("llm").filter(|span| span.tokens_counted) {
        assert_eq!(span.model_request.as_deref(), Some(MODEL));
        assert_eq!(span.model_response.as_deref(), Some(format!("{MODEL}-2026").as_str()));
        assert!(span.agent_name.is_some(), "{span:?}");
    }
    for span in RECORDED.of_kind("embedding") {
        assert_eq!(span.model_request.as_deref(), Some(EMBEDDING_MODEL));
    }
    let models = RECORDED.spans.iter().filter(|span| span.model_request.is_some());
    assert!(models.into_iter().all(|span| span.provider.as_deref() == Some("openai")));
    assert!(RECORDED.of_kind("tool").all(|span| span.tool_name.as_deref() == Some("lights_of")));
}

/// Scenario: agents repeat the sums of their calls, one answer is streamed, a part of each prompt
/// is cached.
/// Guarantees: the tokens are those that the service counted and rig states, each counted once.
#[test]
fn tokens_are_those_of_the_service_and_of_rig() {
    let (counted, said) = (RECORDED.counted, &RECORDED.said);
    let llm = |tokens: fn(&SpanRow) -> Option<i64>| RECORDED.sum("llm", tokens);
    let recorded = [
        llm(|span| span.input_tokens),
        llm(|span| span.output_tokens),
        llm(|span| span.cache_read_tokens),
        llm(|span| span.reasoning_tokens),
    ];
    eprintln!("input, output, cached, reasoning: {recorded:?}; embedded: {}", counted.embedded);
    assert_eq!(recorded, [counted.input, counted.output, counted.cached, counted.reasoning]);
    let stated = said.prompts.iter().fold([0; 4], |sum, usage| {
        let usage = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.reasoning_tokens,
        ];
        std::array::from_fn(|at| sum[at] + usage[at].expect("rig states it"))
    });
    assert_eq!(recorded.map(i64::cast_unsigned), stated);
    assert_eq!(RECORDED.sum("embedding", |span| span.input_tokens), counted.embedded);
    assert!(RECORDED.of_kind("agent").all(|span| !span.tokens_counted), "agents repeat sums");
    let calls = |kind| RECORDED.of_kind(kind).filter(|span| span.is_call == Some(true)).count();
    assert_eq!(calls("llm") as i64, counted.calls + counted.refused);
    assert_eq!(calls("embedding") as i64, counted.embedding_calls);
}

/// Guarantees: a streamed call is known as one, and has its tokens.
#[test]
fn a_streamed_call_has_its_tokens() {
    let streamed: Vec<_> =
        RECORDED.of_kind("llm").filter(|span| span.stream == Some(true)).collect();
    let [span] = streamed.as_slice() else { panic!("{streamed:?}") };
    let usage = RECORDED.said.prompts.last().expect("the streamed one");
    assert_eq!(span.input_tokens.map(i64::cast_unsigned), usage.input_tokens);
    assert_eq!(span.output_tokens.map(i64::cast_unsigned), usage.output_tokens);
    assert_eq!(span.tokens_source, "provider");
    assert_eq!(span.ttft_ns, None, "rig does not say when the first token came");
    assert_eq!(RECORDED.said.answers.last().map(String::as_str), Some(ANSWER));
}

/// Scenario: the service answers with 503. rig leaves the status of its spans unset and logs
/// nothing; the second time the app's own span says so (`#[instrument(err)]`).
/// Guarantees: nothing is made up. A failed call is one without a response; whoever wants an error
/// says so, and then there is one.
#[test]
fn a_failure_is_an_error_where_somebody_says_so() {
    assert_eq!((RECORDED.counted.refused, RECORDED.said.failures.len()), (2, 2));
    assert!(RECORDED.said.failures.iter().all(|failure| failure.contains("503")));
    let failed: Vec<_> = RECORDED
        .of_kind("llm")
        .filter(|span| span.model_request.as_deref() == Some(FAILING_MODEL))
        .collect();
    assert_eq!(failed.len(), 2);
    for span in failed {
        assert_eq!((span.status.as_str(), span.error_type.as_deref()), ("ok", None));
        assert_eq!((span.model_response.as_deref(), span.tokens_counted), (None, false));
        assert_eq!((span.tokens_source.as_str(), span.output_tokens), ("none", None));
    }
    let failed = |span: &&SpanRow| span.status != "ok" && span.kind != "tool";
    let errors: Vec<_> = RECORDED.spans.iter().filter(failed).collect();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((error.name.as_str(), error.status.as_str()), ("ask_telling", "error"));
    assert!(error.is_error_origin);
    assert!(error.error_message.as_deref().is_some_and(|text| text.contains("503")), "{error:?}");
}

/// Scenario: a tool works, then fails; rig tells the model, and says so in attributes of its own.
/// Guarantees: the second failed, by the type that rig gives, and is no failure of the prompt's.
#[test]
fn a_tool_that_fails_is_an_error_by_rigs_own_word() {
    let outcomes: Vec<_> = RECORDED
        .of_kind("tool")
        .map(|span| (span.status.as_str(), span.error_type.as_deref(), span.is_error_origin))
        .collect();
    assert_eq!(outcomes, [("ok", None, false), ("error", Some("other"), true)]);
}

/// Guarantees: what the index found is in the log lines of its prompt.
#[test]
fn what_the_index_found_is_told() {
    let found: Vec<_> = RECORDED
        .lines
        .iter()
        .filter(|line| line.message.as_deref().is_some_and(|m| m.starts_with("Selected documents")))
        .collect();
    assert_eq!(found.len(), 3, "{:?}", RECORDED.lines);
    assert!(found.iter().all(|line| line.span_id.is_some()));
}

/// Guarantees: P1 - no question, document, or answer is in any file of the run.
#[test]
fn contents_stay_out() {
    let mut files = Vec::new();
    files_below(RECORDED.folder.path(), &mut files);
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        for text in [CANARY, ANSWER] {
            let stands = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!stands, "{text} in {}", file.display());
        }
    }
    // Files are compressed, so once more as a reader sees them.
    let rows = format!("{:?}{:?}", RECORDED.spans, RECORDED.lines);
    assert!(!rows.contains(CANARY) && !rows.contains(ANSWER));
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

/// Guarantees: attributes without a column are kept.
#[test]
fn nothing_else_is_lost() {
    for span in RECORDED.of_kind("llm").filter(|span| span.tokens_counted) {
        let attributes = attributes_of(span);
        assert!(attributes["gen_ai.response.id"].is_string(), "{attributes}");
        assert_eq!(attributes["rig.provider_request_id"], "req-1");
    }
}

fn attributes_of(span: &SpanRow) -> Value {
    serde_json::from_str(span.attributes.as_deref().expect("attributes")).expect("JSON")
}

/// Guarantees: the lines that the documentation shows are those that ran here.
#[test]
fn the_documented_lines_are_those_that_ran() {
    let own = include_str!("recorded.rs");
    let (_, rest) = own.split_once("// As in docs/recording.md:\n").expect("their start");
    let (lines, _) = rest.split_once("    // To here.").expect("their end");
    let lines: String = lines.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let documented = include_str!("../../../docs/recording.md");
    assert!(documented.contains(&lines), "docs/recording.md does not have\n{lines}");
}
