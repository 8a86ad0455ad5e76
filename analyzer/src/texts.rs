//! What spans of a trace were given and gave back: texts and documents, as far as they were kept.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::{col, lit};
use retake_schemas::RunId;
use retake_schemas::tables::{DocumentRow, PayloadRow, Row as _};

use crate::error::AnalyzeError;
use crate::model::{KeptText, TraceDetail, TraceTree};
use crate::session::Analyzer;
use crate::traces::trace_tree;

/// One trace with everything that is known of its spans.
///
/// # Errors
/// As [`trace_tree`].
pub async fn trace_detail(
    analyzer: &Analyzer,
    run_id: &RunId,
    prefix: &str,
) -> Result<TraceDetail, AnalyzeError> {
    let tree = trace_tree(analyzer, run_id, prefix).await?;
    let found = analyzer
        .context()
        .table("documents")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())))?
        .filter(col("trace_id").eq(lit(&tree.trace_id)))?
        .limit(0, Some(DOCUMENTS_MAX))?
        .collect()
        .await?;
    let mut documents: BTreeMap<String, Vec<DocumentRow>> = BTreeMap::new();
    for batch in &found {
        let rows = DocumentRow::from_batch(batch);
        for row in rows.map_err(|error| AnalyzeError::Internal(error.to_string()))? {
            documents.entry(row.span_id.clone()).or_default().push(row);
        }
    }
    for rows in documents.values_mut() {
        rows.sort_by(|a, b| (&a.role, a.rank).cmp(&(&b.role, b.rank)));
    }
    let of_documents = documents.values().flatten().filter_map(|row| row.content_ref.as_deref());
    let digests: BTreeSet<&str> = digests(&tree).chain(of_documents).collect();
    let texts = texts(analyzer, run_id, &digests).await?;
    Ok(TraceDetail { run: analyzer.run(run_id)?, tree, texts, documents })
}

/// Digests of what the spans of a trace were given and gave back.
pub(crate) fn digests(tree: &TraceTree) -> impl Iterator<Item = &str> {
    tree.nodes
        .iter()
        .flat_map(|node| [&node.span.input_ref, &node.span.output_ref])
        .filter_map(|digest| digest.as_deref())
}

/// The texts of these digests that were kept.
pub(crate) async fn texts(
    analyzer: &Analyzer,
    run_id: &RunId,
    digests: &BTreeSet<&str>,
) -> Result<BTreeMap<String, KeptText>, AnalyzeError> {
    let mut texts = BTreeMap::new();
    let wanted: Vec<_> = digests.iter().take(TEXTS_MAX).map(|digest| lit(*digest)).collect();
    if wanted.is_empty() {
        return Ok(texts);
    }
    let found = analyzer
        .context()
        .table("payloads")
        .await?
        .filter(col("run_id").eq(lit(run_id.as_str())))?
        .filter(col("digest").in_list(wanted, false))?
        .collect()
        .await?;
    for batch in &found {
        let rows = PayloadRow::from_batch(batch);
        for row in rows.map_err(|error| AnalyzeError::Internal(error.to_string()))? {
            let Some(content) = row.content else { continue };
            let text = KeptText { content, bytes: row.bytes, is_truncated: row.truncated };
            texts.insert(row.digest, text);
        }
    }
    Ok(texts)
}

/// Texts of one trace; a trace with more is an ingestion, which nobody reads whole.
const TEXTS_MAX: usize = 2_000;
/// Documents of one trace.
const DOCUMENTS_MAX: usize = 5_000;
