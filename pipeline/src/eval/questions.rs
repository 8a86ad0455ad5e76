//! Reading questions.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use retake_schemas::Digest;
use serde::Deserialize;

use crate::error::PipelineError;

/// A question with what is known to be right.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Question {
    /// Its id in the output: the one given, or one made of its text.
    pub id: String,
    /// The question.
    pub question: String,
    /// Accepted answers; none when none are known.
    pub answers: Vec<String>,
    /// Where the answer stands; none when it is not known.
    pub references: Vec<Reference>,
    /// An answer that is only to be judged; without it the question is asked.
    pub response: Option<String>,
    /// The passages of that answer, if they are known.
    pub contexts: Option<Vec<String>>,
    /// Another answer to compare with.
    pub other_response: Option<String>,
    /// What people say of the answer, by evaluator.
    pub labels: BTreeMap<String, f64>,
}

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The document: its id, or its file name without extension. Any document when not given.
    pub document: Option<String>,
    /// First character, Unicode code points.
    pub start_char: u64,
    /// One past the last character, Unicode code points.
    pub end_char: u64,
}

/// A line as it is written.
#[derive(Deserialize)]
struct Line {
    question: String,
    #[serde(default)]
    id: Option<serde_json::Value>,
    #[serde(default)]
    answer: Option<serde_json::Value>,
    #[serde(default)]
    answers: Option<serde_json::Value>,
    #[serde(default)]
    references: Vec<ReferenceLine>,
    #[serde(default, alias = "corpus_id")]
    document: Option<String>,
    #[serde(default)]
    response: Option<String>,
    #[serde(default)]
    contexts: Option<Vec<String>>,
    #[serde(default)]
    other_response: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct ReferenceLine {
    #[serde(default, alias = "corpus_id")]
    document: Option<String>,
    start_index: u64,
    end_index: u64,
}

/// Reads a file of JSON lines. Empty lines are left out; ids are unique.
///
/// # Errors
/// The file cannot be read, or a line is no question; the message names the line.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, PipelineError> {
    let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => PipelineError::NotFound(path.to_owned()),
        _ => PipelineError::Io { path: path.to_owned(), source },
    })?;
    let mut ids = HashSet::new();
    let mut questions = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let question = parse(line, &mut ids).map_err(|reason| {
            let place = format!("read {} line {}", path.display(), index + 1);
            PipelineError::Configuration(format!("{place}: {reason}"))
        })?;
        questions.push(question);
    }
    Ok(questions)
}

fn parse(text: &str, ids: &mut HashSet<String>) -> Result<Question, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if line.question.trim().is_empty() {
        return Err("the question is empty".to_owned());
    }
    let id = match &line.id {
        Some(serde_json::Value::String(id)) => given(id.clone(), ids)?,
        Some(serde_json::Value::Number(id)) => given(id.to_string(), ids)?,
        Some(other) => return Err(format!("id must be text or a number, got {other}")),
        None => made(&line.question, ids),
    };
    let mut answers = texts("answer", line.answer)?;
    answers.extend(texts("answers", line.answers)?);
    let references = line
        .references
        .into_iter()
        .map(|reference| place(reference, line.document.as_ref()))
        .collect::<Result<_, _>>()?;
    if line.contexts.is_some() && line.response.is_none() {
        return Err("contexts belong to a response, and there is none".to_owned());
    }
    Ok(Question {
        id,
        question: line.question,
        answers,
        references,
        response: line.response,
        contexts: line.contexts,
        other_response: line.other_response,
        labels: line.labels,
    })
}

fn given(id: String, ids: &mut HashSet<String>) -> Result<String, String> {
    if ids.insert(id.clone()) { Ok(id) } else { Err(format!("id {id:?} stands twice")) }
}

/// An id of the question's text, so that it does not change when lines are added above it.
fn made(question: &str, ids: &mut HashSet<String>) -> String {
    let digest = Digest::of(question.as_bytes()).to_string();
    let stem: String = digest.chars().take(ID_CHARS).collect();
    let mut id = format!("q-{stem}");
    let mut occurrence = 1;
    while !ids.insert(id.clone()) {
        occurrence += 1;
        id = format!("q-{stem}-{occurrence}");
    }
    id
}

fn texts(name: &str, value: Option<serde_json::Value>) -> Result<Vec<String>, String> {
    use serde_json::Value;
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    let text = |item| match item {
        Value::String(text) => Ok(text),
        other => Err(format!("{name} must be text or a list of texts, got {other}")),
    };
    items.into_iter().map(text).collect()
}

fn place(line: ReferenceLine, document: Option<&String>) -> Result<Reference, String> {
    if line.start_index >= line.end_index {
        return Err(format!(
            "a reference from {} to {} is empty",
            line.start_index, line.end_index
        ));
    }
    Ok(Reference {
        document: line.document.or_else(|| document.cloned()),
        start_char: line.start_index,
        end_char: line.end_index,
    })
}

/// 64 bits: no two questions of one file share them.
const ID_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Question>, PipelineError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_questions(file.path())
    }

    #[test]
    fn all_forms_of_a_line_are_read() {
        let questions = read(concat!(
            "{\"question\":\"a?\"}\n\n",
            "{\"question\":\"a?\",\"id\":7,\"answer\":\"x\",\"answers\":[\"y\"]}\n",
            "{\"question\":\"b?\",\"corpus_id\":\"c\",\"references\":[",
            "{\"content\":\"z\",\"start_index\":1,\"end_index\":4},",
            "{\"document\":\"d.md\",\"start_index\":0,\"end_index\":2}]}\n",
            "{\"question\":\"a?\"}",
        ))
        .unwrap();
        assert_eq!(questions[1].id, "7");
        assert_eq!(questions[1].answers, ["x", "y"]);
        let documents: Vec<_> =
            questions[2].references.iter().map(|r| r.document.as_deref()).collect();
        assert_eq!(documents, [Some("c"), Some("d.md")]);
        assert_eq!(questions[3].id, format!("{}-2", questions[0].id));
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in [
            "{\"question\":\"a?\"}\n{\"q\":1}",
            "\n{",
            "\n{\"question\":\" \"}",
            "\n{\"question\":\"a?\",\"references\":[{\"start_index\":4,\"end_index\":4}]}",
            "\n{\"question\":\"a?\",\"answer\":3}",
            "{\"question\":\"a?\",\"id\":\"1\"}\n{\"question\":\"b?\",\"id\":1}",
            "\n{\"question\":\"a?\",\"contexts\":[\"x\"]}",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }
}
