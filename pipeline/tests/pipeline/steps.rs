//! Steps between search and answer, over real stores.

use std::path::{Path, PathBuf};

use retake_pipeline::ingest::{IngestRequest, Silent, ingest};
use retake_pipeline::query::{Answer, Engine};
use retake_schemas::settings::{PostprocessStep, RagSettings};
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, deps, settings};
use crate::query::{database, options};

/// Documents that say the same on different days, one long one, and one that speaks of a person.
fn write_documents(folder: &Path) {
    let keeper = |date: &str, name: &str| {
        format!("---\ndate: {date}\n---\nThe keeper of the Skerryvore light is {name}.\n")
    };
    let long: Vec<String> = (0..30)
        .map(|n| format!("Paragraph {n} of the long report counts lamps, ropes and barrels.\n\n"))
        .collect();
    for (name, text) in [
        ("keeper-1990.md", keeper("1990-05-01", "Ann Black")),
        ("keeper-2020.md", keeper("2020-05-01", "Ben White")),
        ("keeper-2005.md", keeper("2005-05-01", "Cid Green")),
        ("report.md", long.concat()),
        (
            "contact.md",
            "The office of the Skerryvore light answers at office@example.org.\n".into(),
        ),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

async fn filled(backend: &Backend, settings: &RagSettings) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_documents(folder.path());
    let (deps, _) = deps(backend, settings).await;
    let roots = vec![PathBuf::from(folder.path())];
    let request = IngestRequest { roots, ..IngestRequest::default() };
    ingest(request, &deps, &Silent, CancellationToken::new()).await.unwrap();
    folder
}

async fn ask(
    backend: &Backend,
    settings: &RagSettings,
    steps: &[PostprocessStep],
    question: &str,
    id: &str,
) -> Answer {
    let mut settings = database(backend, settings);
    settings.postprocess.steps = steps.to_vec();
    let engine = Engine::from_settings(&settings, &backend.sqlite_file()).await.unwrap();
    engine.ask(question, options(id), &mut |_| {}).await.unwrap()
}

fn documents(answer: &Answer) -> Vec<&str> {
    answer.hits.iter().map(|hit| hit.chunk.document_id.as_str()).collect()
}

const KEEPER: &str = "Who is the keeper of the Skerryvore light?";

/// Scenario: three versions of one sentence, dated by their front matter.
/// Guarantees: the date of the document decides, on every backend; what an earlier version said
/// does not stand beside the present one; the same question has the same answer later.
#[tokio::test]
async fn the_youngest_version_is_answered_from() {
    use PostprocessStep::{EmbeddingRecency, FixedRecency, TimeWeighted};
    capture::install();
    for backend in Backend::all("recency") {
        let mut settings = settings();
        // A document of two sentences is one chunk.
        settings.chunk.size = 80;
        settings.rerank.candidates = 8;
        let _folder = filled(&backend, &settings).await;
        settings.retrieve.top_k = 8;
        let all = ask(&backend, &settings, &[], KEEPER, "recency-none").await;
        let is_keeper = |name: &&str| name.starts_with("keeper");
        assert_eq!(documents(&all).into_iter().filter(is_keeper).count(), 3);
        // The youngest of those that speak of a keeper; other files are as young as this test.
        settings.retrieve.top_k = 1;
        settings.postprocess.keywords_required = vec!["keeper".to_owned()];
        let steps = [PostprocessStep::Keywords, FixedRecency];
        let fixed = ask(&backend, &settings, &steps, KEEPER, "recency-fixed").await;
        assert_eq!(documents(&fixed), ["keeper-2020.md"], "{}", backend.name);
        assert!(fixed.text.contains("Ben White"), "{}", fixed.text);
        settings.retrieve.top_k = 8;
        settings.postprocess.recency_similarity_min = 0.5;
        let unlike = ask(&backend, &settings, &[EmbeddingRecency], KEEPER, "recency-like").await;
        let kept: Vec<&str> = documents(&unlike).into_iter().filter(is_keeper).collect();
        assert_eq!(kept, ["keeper-2020.md"], "{}", backend.name);
        settings.postprocess.recency_half_life_days = 3_650.0;
        let weighed = ask(&backend, &settings, &[TimeWeighted], KEEPER, "recency-weighed").await;
        let kept: Vec<&str> = documents(&weighed).into_iter().filter(is_keeper).collect();
        assert_eq!(kept, ["keeper-2020.md", "keeper-2005.md", "keeper-1990.md"]);
        let again = ask(&backend, &settings, &[TimeWeighted], KEEPER, "recency-again").await;
        assert_eq!(again.hits, weighed.hits);
        let spans = capture::trace("recency-weighed");
        assert_eq!(named(&spans, "rerank")[0].fields["gen_ai.request.model"], "time_weighted");
    }
}

/// Guarantees: neighbours come from the store with the similarity they have, on every backend; a
/// window is one passage of the document's own text.
#[tokio::test]
async fn a_small_chunk_is_found_and_a_large_one_is_read() {
    use PostprocessStep::{Neighbours, Window};
    capture::install();
    let question = "What does paragraph 12 of the long report count?";
    for backend in Backend::all("neighbours") {
        let mut settings = settings();
        settings.retrieve.top_k = 1;
        let folder = filled(&backend, &settings).await;
        let alone = ask(&backend, &settings, &[], question, "near-none").await;
        let found = &alone.hits[0];
        settings.postprocess.neighbours_after = 2;
        let more = ask(&backend, &settings, &[Neighbours], question, "near-more").await;
        let ordinals: Vec<u32> = more.hits.iter().map(|hit| hit.chunk.ordinal).collect();
        let at = found.chunk.ordinal;
        assert_eq!(ordinals, [at - 1, at, at + 1, at + 2], "{}", backend.name);
        assert_eq!(&more.hits[1], found);
        let others = more.hits.iter().filter(|hit| hit.chunk.ordinal != at);
        assert!(others.map(|hit| hit.similarity).all(|s| s < found.similarity && s > 0.0));
        let window = ask(&backend, &settings, &[Window], question, "near-window").await;
        assert_eq!(window.hits.len(), 1);
        let chunk = &window.hits[0].chunk;
        let text = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
        let (first, last) = (&more.hits[0].chunk, &more.hits[3].chunk);
        assert_eq!((chunk.start_char, chunk.end_char), (first.start_char, last.end_char));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let place = text.chars().skip(chunk.start_char as usize);
        let original: String = place.take((chunk.end_char - chunk.start_char) as usize).collect();
        assert_eq!(words(&chunk.text), words(&original), "{}", backend.name);
    }
}

/// Scenario: chunks that would all be let through, with words to have and not to have, sentences to
/// keep, and an address to take out.
/// Guarantees: each step does its part and only that; a query with all of them is one trace, in
/// which the sentences are embedded under the step that wanted it.
#[tokio::test]
async fn keywords_sentences_and_masks_do_their_part() {
    use PostprocessStep::{Keywords, MaskPii, Sentences};
    capture::install();
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.chunk.size = 120;
    settings.retrieve.top_k = 8;
    let _folder = filled(&backend, &settings).await;
    let question = "How does one reach the office of the light?";
    settings.postprocess.keywords_required = vec!["Skerryvore light".to_owned()];
    settings.postprocess.keywords_excluded = vec!["white".to_owned()];
    let wanted = ask(&backend, &settings, &[Keywords], question, "steps-words").await;
    let mut names = documents(&wanted);
    names.sort_unstable();
    assert_eq!(names, ["contact.md", "keeper-1990.md", "keeper-2005.md"]);

    let masked = ask(&backend, &settings, &[Keywords, MaskPii], question, "steps-mask").await;
    let contact = masked.hits.iter().find(|hit| hit.chunk.document_id == "contact.md").unwrap();
    assert!(contact.chunk.text.contains("[redacted:email]"), "{}", contact.chunk.text);
    let llm =
        named(&capture::trace("steps-mask"), "llm")[0].fields["gen_ai.input.messages"].clone();
    assert!(!llm.contains("office@example.org") && llm.contains("[redacted:email]"));

    let question = "What does paragraph 12 of the long report count?";
    settings.postprocess.sentences_share = 0.2;
    settings.postprocess.sentences_similarity_min = 0.3;
    let whole = ask(&backend, &settings, &[], question, "steps-whole").await;
    let short = ask(&backend, &settings, &[Sentences], question, "steps-short").await;
    let tokens = |answer: &Answer| answer.hits.iter().map(|hit| hit.chunk.tokens).sum::<u32>();
    assert!(tokens(&short) * 2 < tokens(&whole), "{} of {}", tokens(&short), tokens(&whole));
    assert!(short.hits.iter().any(|hit| hit.chunk.text.contains("Paragraph 12 ")));
    assert!(short.text.contains("Paragraph 12"), "{}", short.text);
    let spans = capture::trace("steps-short");
    let step = spans.iter().position(|span| span.name == "postprocess").unwrap();
    assert!(spans.iter().any(|span| span.name == "embed" && span.parent == Some(step)));
    let nothing = RagSettings {
        postprocess: retake_schemas::settings::PostprocessSettings {
            sentences_similarity_min: 1.0,
            ..settings.postprocess.clone()
        },
        ..settings.clone()
    };
    let empty = ask(&backend, &nothing, &[Sentences], question, "steps-empty").await;
    assert!(empty.text.contains("do not know"), "no sentence is no error: {}", empty.text);
}

/// Guarantees: a folder that is no model is told before anything is asked.
#[tokio::test]
async fn a_cross_encoder_without_its_folder_is_refused() {
    let backend = Backend::sqlite();
    let settings = settings();
    let _folder = filled(&backend, &settings).await;
    let mut settings = database(&backend, &settings);
    settings.postprocess.steps = vec![PostprocessStep::CrossEncoder];
    let error = Engine::from_settings(&settings, &backend.sqlite_file()).await.unwrap_err();
    assert_eq!(error.error_type(), "configuration");
    assert!(error.to_string().contains("rerank.model_dir"), "{error}");
    settings.rerank.model_dir = Some(backend.sqlite_file().parent().unwrap().display().to_string());
    let error = Engine::from_settings(&settings, &backend.sqlite_file()).await.unwrap_err();
    assert!(error.to_string().contains("model.safetensors is missing"), "{error}");
}
