//! A tiny made-up model, written by the test. Its weights come from a formula, and the scores it
//! must give were computed from the same formula by 60 lines of Python after the paper, without any
//! library, so candle and this file are checked against something else.

use std::collections::HashMap;

use candle_core::Tensor;
use serde_json::json;

use super::*;
use crate::answer::prompt::tests::hit;

const HIDDEN: usize = 8;
const INNER: usize = 12;
const POSITIONS: usize = 24;
const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "keeps", "the", "light", "ann", "sea", "far", "old",
];
const QUESTION: &str = "who keeps the light";

/// Names and shapes in the order in which the formula counts them.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = [
        ("LayerNorm.bias", vec![HIDDEN]),
        ("LayerNorm.weight", vec![HIDDEN]),
        ("position_embeddings.weight", vec![POSITIONS, HIDDEN]),
        ("token_type_embeddings.weight", vec![2, HIDDEN]),
        ("word_embeddings.weight", vec![WORDS.len(), HIDDEN]),
    ]
    .into_iter()
    .map(|(name, shape)| (format!("bert.embeddings.{name}"), shape))
    .collect();
    for (name, out, into) in [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INNER, HIDDEN),
        ("output.dense", HIDDEN, INNER),
    ] {
        shapes.push((format!("bert.encoder.layer.0.{name}.weight"), vec![out, into]));
        shapes.push((format!("bert.encoder.layer.0.{name}.bias"), vec![out]));
    }
    for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
        shapes.push((format!("bert.encoder.layer.0.{name}.weight"), vec![HIDDEN]));
        shapes.push((format!("bert.encoder.layer.0.{name}.bias"), vec![HIDDEN]));
    }
    shapes.push(("bert.pooler.dense.weight".to_owned(), vec![HIDDEN, HIDDEN]));
    shapes.push(("bert.pooler.dense.bias".to_owned(), vec![HIDDEN]));
    shapes.push(("classifier.weight".to_owned(), vec![1, HIDDEN]));
    shapes.push(("classifier.bias".to_owned(), vec![1]));
    shapes
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a formula")]
fn weight(name: &str, number: usize, position: usize) -> f32 {
    let place = (position + 1) as f64;
    let wave = (number as f64 * 1.9 + place * place * 1.1).sin();
    let size = match name {
        name if name.contains("pooler") => 0.3,
        name if name.contains("classifier") => 4.0,
        name if name.contains("attention") => 2.0,
        _ => 1.0,
    };
    let is_scale = name.ends_with("LayerNorm.weight");
    (if is_scale { 1.0 + 0.1 * wave } else { size * wave }) as f32
}

/// A folder with the model; `classes` outputs, of `model_type`.
fn model(classes: usize, model_type: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let tensors: HashMap<String, Tensor> = shapes()
        .into_iter()
        .enumerate()
        .map(|(number, (name, mut shape))| {
            if name.starts_with("classifier") {
                shape[0] = classes;
            }
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|at| weight(&name, number, at)).collect();
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("tensor");
            (name, tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors"))
        .expect("weights");
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    let piece = |name: &str, of: u32| json!({ "SpecialToken": { "id": name, "type_id": of } });
    let text = |name: &str, of: u32| json!({ "Sequence": { "id": name, "type_id": of } });
    let tokenizer = json!({
        "version": "1.0",
        // As published models have it: it must not decide.
        "truncation": { "max_length": 5, "stride": 0, "strategy": "LongestFirst", "direction": "Right" },
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)],
            "pair": [
                piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1),
            ],
            "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    let config = json!({
        "model_type": model_type, "vocab_size": WORDS.len(), "hidden_size": HIDDEN,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": INNER,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    });
    for (file, content) in [("tokenizer.json", tokenizer), ("config.json", config)] {
        std::fs::write(folder.path().join(file), content.to_string()).expect("file");
    }
    folder
}

/// Guarantees: scores are those of the formula, alone or in a padded batch, in the order given; a
/// passage longer than the model reads is cut, and the question is not.
#[tokio::test]
async fn the_scores_are_those_of_the_paper_whatever_the_batch() {
    let folder = model(1, "bert");
    let encoder = CrossEncoder::load(folder.path()).expect("model");
    let passages = [
        "ann keeps the light",
        "the sea",
        "far old sea the old far light sea far old",
        "",
        "ann",
        "the sea",
    ];
    let expected =
        [0.107_022_871, 0.009_620_020, 0.012_113_376, 0.008_611_549, 0.014_069_876, 0.009_620_020];
    let scores = encoder.scores(QUESTION, &passages).await.expect("scores");
    for ((passage, score), expected) in passages.iter().zip(&scores).zip(expected) {
        assert!((score - expected).abs() < 1e-5, "{passage}: {score}, expected {expected}");
        let alone = encoder.scores(QUESTION, &[passage]).await.expect("score");
        assert!((alone[0] - score).abs() < 1e-6, "{passage}");
    }
    let cut = "far old sea the old far light sea far old ann ann ann ann ann ann ann ann ann ann";
    let long = "far old sea the old far light sea far old ann ann ann ann ann ann ann";
    let both = encoder.scores(QUESTION, &[cut, long]).await.expect("scores");
    assert_eq!(both[0], both[1]);
    assert!(encoder.scores(QUESTION, &[]).await.expect("scores").is_empty());
}

/// Scenario: another question to the same passages.
/// Guarantees: question and passage are read together; no score of a passage is its own.
#[tokio::test]
async fn another_question_gives_another_score() {
    let folder = model(1, "bert");
    let encoder = CrossEncoder::load(folder.path()).expect("model");
    let passage = ["ann keeps the light"];
    let one = encoder.scores(QUESTION, &passage).await.expect("score");
    let other = encoder.scores("ann ann ann", &passage).await.expect("score");
    // By the same formula as the scores above.
    assert!((one[0] - 0.107_022_871).abs() < 1e-5 && (other[0] - 0.011_336_344).abs() < 1e-5);
}

#[test]
fn models_of_another_kind_are_refused_with_words() {
    let message = |folder: &tempfile::TempDir| {
        let error = CrossEncoder::load(folder.path()).expect_err("not a reranker");
        (error.error_type(), error.to_string())
    };
    let (class, text) = message(&model(3, "bert"));
    assert_eq!(class, "model");
    assert!(text.contains("classifier.weight"), "{text}");
    let (class, text) = message(&model(1, "xlm-roberta"));
    assert_eq!(class, "configuration");
    assert!(text.contains("xlm-roberta") && text.contains("rerank.model_dir"), "{text}");
    let (class, text) = message(&tempfile::tempdir().expect("folder"));
    assert_eq!(class, "configuration");
    assert!(text.contains("model.safetensors is missing"), "{text}");
}

/// Guarantees: the similarity of the search stays beside the score; LlamaIndex writes over it.
#[tokio::test]
async fn a_hit_keeps_both_scores() {
    let folder = model(1, "bert");
    let encoder = CrossEncoder::load(folder.path()).expect("model");
    let ranked = encoder
        .ranked(QUESTION, vec![hit("a#0", "the sea"), hit("b#0", "ann keeps the light")], 1)
        .await
        .expect("ranked");
    assert_eq!(ranked.len(), 1);
    assert_eq!((ranked[0].chunk.id.as_str(), ranked[0].similarity), ("b#0", 0.5));
    assert!((ranked[0].rerank_score.expect("score") - 0.107_022_871).abs() < 1e-5);
}
