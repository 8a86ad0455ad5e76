//! What retrieval and reranking found: scores by rank, empty results, and how the order changed.

use retake_schemas::RunId;

use crate::answers::rows;
use crate::error::AnalyzeError;
use crate::model::{RankScores, Reranking, Retrieval};
use crate::session::Analyzer;

/// What was retrieved in a run; `None` when nothing was asked for.
///
/// # Errors
/// The run is not in scope, or a file is damaged.
pub(crate) async fn retrieval(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Option<Retrieval>, AnalyzeError> {
    let asked = rows(
        analyzer,
        &format!(
            "SELECT count(*) AS calls, count(*) FILTER (WHERE document_count = 0) AS empty \
             FROM spans WHERE run_id = '{run_id}' AND kind = 'retriever' AND coalesce(is_call, true)"
        ),
    )
    .await?;
    let [retrievals, empty] =
        ["calls", "empty"].map(|name| asked.first().map_or(0, |row| row.count(name)));
    let ranks = ranks(analyzer, run_id).await?;
    if retrievals == 0 && ranks.is_empty() {
        return Ok(None);
    }
    let (sources, sources_all) = sources(analyzer, run_id).await?;
    Ok(Some(Retrieval {
        retrievals,
        empty,
        ranks,
        reranking: reranking(analyzer, run_id).await?,
        quality: quality(analyzer, run_id).await?,
        sources,
        sources_all,
    }))
}

async fn ranks(analyzer: &Analyzer, run_id: &RunId) -> Result<Vec<RankScores>, AnalyzeError> {
    let found = rows(
        analyzer,
        &format!(
            "SELECT s.stage AS stage, d.role AS role, d.rank AS rank, count(*) AS documents, \
                    approx_percentile_cont(d.score, 0.1) AS low, \
                    approx_percentile_cont(d.score, 0.5) AS mid, \
                    approx_percentile_cont(d.score, 0.9) AS high \
             FROM documents d JOIN spans s \
               ON s.run_id = d.run_id AND s.trace_id = d.trace_id AND s.span_id = d.span_id \
             WHERE d.run_id = '{run_id}' AND s.run_id = '{run_id}' AND d.rank < {RANKS_MAX} \
               AND d.role IN ('retrieved', 'rerank_output') AND coalesce(s.is_call, true) \
             GROUP BY 1, 2, 3 ORDER BY role DESC, stage, rank"
        ),
    )
    .await?;
    Ok(found
        .iter()
        .map(|row| RankScores {
            stage: row.text("stage"),
            role: row.text("role"),
            rank: row.whole("rank").unwrap_or(0),
            documents: row.count("documents"),
            scores: match ["low", "mid", "high"].map(|name| row.number(name)) {
                [Some(low), Some(mid), Some(high)] => Some([low, mid, high]),
                _ => None,
            },
        })
        .collect())
}

/// Documents that went into and came out of the same call, by their ranks.
async fn reranking(analyzer: &Analyzer, run_id: &RunId) -> Result<Option<Reranking>, AnalyzeError> {
    let of_role = |role: &str| {
        format!(
            "SELECT trace_id, span_id, document_id, min(rank) AS rank FROM documents \
             WHERE run_id = '{run_id}' AND role = '{role}' GROUP BY 1, 2, 3"
        )
    };
    let (before, after) = (of_role("rerank_input"), of_role("rerank_output"));
    let both = format!(
        "FROM ({before}) b JOIN ({after}) a \
         ON a.trace_id = b.trace_id AND a.span_id = b.span_id AND a.document_id = b.document_id"
    );
    let last = MOVES_MAX - 1;
    let moves = rows(
        analyzer,
        &format!(
            "SELECT least(a.rank, {last}) AS after, least(b.rank, {last}) AS before, count(*) AS documents, \
                    count(*) FILTER (WHERE a.rank < b.rank) AS up, \
                    count(*) FILTER (WHERE a.rank = b.rank) AS same, \
                    count(*) FILTER (WHERE a.rank > b.rank) AS down, \
                    count(*) FILTER (WHERE a.rank = 0) AS firsts, \
                    count(*) FILTER (WHERE a.rank = 0 AND b.rank > 0) AS firsts_changed \
             {both} GROUP BY 1, 2"
        ),
    )
    .await?;
    if moves.is_empty() {
        return Ok(None);
    }
    let given = rows(analyzer, &format!("SELECT count(*) AS documents FROM ({before})")).await?;
    let side = moves
        .iter()
        .flat_map(|row| [row.count("after"), row.count("before")])
        .max()
        .map_or(1, |rank| rank as usize + 1);
    let mut found = Reranking { moves: vec![vec![0; side]; side], ..Reranking::default() };
    let mut kept = 0;
    for row in &moves {
        let (after, before) = (row.count("after") as usize, row.count("before") as usize);
        let documents = row.count("documents");
        kept += documents;
        if let Some(cell) = found.moves.get_mut(after).and_then(|line| line.get_mut(before)) {
            *cell += documents;
        }
        for (sum, name) in found.moved.iter_mut().zip(["up", "same", "down"]) {
            *sum += row.count(name);
        }
        found.rerankings += row.count("firsts");
        found.first_changed += row.count("firsts_changed");
    }
    found.dropped = given.first().map_or(0, |row| row.count("documents")).saturating_sub(kept);
    Ok(Some(found))
}

/// Means of what labels say of operations.
async fn quality(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<Vec<(String, f64, u64)>, AnalyzeError> {
    // A hit is true or false, the others are numbers.
    let values: Vec<String> = MEASURES
        .iter()
        .map(|name| {
            let text = format!("attr(attributes, 'retake.quality.{name}')");
            let number = format!(
                "CASE {text} WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 ELSE TRY_CAST({text} AS DOUBLE) END"
            );
            format!("avg({number}) AS {name}, count({number}) AS {name}_n")
        })
        .collect();
    let sql = format!("SELECT {} FROM spans WHERE run_id = '{run_id}'", values.join(", "));
    let found = rows(analyzer, &sql).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let measured = |name: &&str| {
        let mean = row.number(name)?;
        Some(((*name).to_owned(), mean, row.count(&format!("{name}_n"))))
    };
    Ok(MEASURES.iter().filter_map(measured).collect())
}

async fn sources(
    analyzer: &Analyzer,
    run_id: &RunId,
) -> Result<(Vec<(String, u64)>, u64), AnalyzeError> {
    let of_run = format!(
        "SELECT coalesce(source, document_id) AS source, count(*) AS documents FROM documents \
         WHERE run_id = '{run_id}' AND role = 'retrieved' GROUP BY 1"
    );
    let all = rows(analyzer, &format!("SELECT count(*) AS sources FROM ({of_run})")).await?;
    let most = format!("{of_run} ORDER BY documents DESC, source LIMIT {SOURCES_MAX}");
    let most = rows(analyzer, &most).await?;
    Ok((
        most.iter().map(|row| (row.text("source"), row.count("documents"))).collect(),
        all.first().map_or(0, |row| row.count("sources")),
    ))
}

/// What the built-in pipeline measures against labels, and others may record under the same names.
const MEASURES: [&str; 7] = ["hit", "recall", "precision", "mrr", "ap", "ndcg", "answer_match"];
/// Ranks shown: no reader looks further down.
const RANKS_MAX: usize = 20;
/// Ranks told apart in what reranking did; the last stands for all further ones.
const MOVES_MAX: usize = 11;
/// Sources named.
const SOURCES_MAX: usize = 12;
