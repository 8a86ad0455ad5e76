//! Young documents before old ones.
//!
//! A document's date is when it was last changed, as its front matter or else its file said when it
//! was ingested. Ages are counted from the youngest of the candidates, not from now: the same
//! question to the same documents has the same answer next year, and in a replay. A read changes no
//! date.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query, cosine, sort_by_rerank_score};
use crate::document::Hit;
use crate::error::PipelineError;

/// Keeps the chunks of the youngest documents; those without a date come last.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedRecency;

/// Of chunks that say nearly the same, keeps the one of the youngest document: what a document said
/// before it was changed does not stand beside what it says now.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingRecency {
    /// How similar to a younger chunk one has to be to be left out, -1 to 1.
    pub similarity_min: f64,
}

/// Orders by similarity and age: `(1 - weight) * similarity + weight * 0.5^(age / half life)`. A
/// chunk without a date is as old as can be.
#[derive(Debug, Clone, Copy)]
pub struct TimeWeighted {
    /// What age counts, 0 to 1.
    pub weight: f64,
    /// After how many days a document counts half.
    pub half_life_days: f64,
}

#[async_trait]
impl Postprocessor for FixedRecency {
    fn name(&self) -> &str {
        "fixed_recency"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let mut dated = dated(query, hits).await?;
        youngest_first(&mut dated);
        dated.truncate(query.keep);
        Ok(undated(dated).into())
    }
}

#[async_trait]
impl Postprocessor for EmbeddingRecency {
    fn name(&self) -> &str {
        "embedding_recency"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let ids: Vec<String> = hits.iter().map(|hit| hit.chunk.id.clone()).collect();
        let vectors = query.store.vectors(&ids).await?;
        let dated = dated(query, hits).await?;
        let mut kept = without_outdated(dated, &vectors, self.similarity_min);
        kept.truncate(query.keep);
        Ok(kept.into())
    }
}

#[async_trait]
impl Postprocessor for TimeWeighted {
    fn name(&self) -> &str {
        "time_weighted"
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let mut weighed = self.weighed(dated(query, hits).await?);
        weighed.truncate(query.keep);
        Ok(weighed.into())
    }
}

impl TimeWeighted {
    fn weighed(self, dated: Vec<Dated>) -> Vec<Hit> {
        let youngest = dated.iter().filter_map(|(_, modified)| *modified).max();
        let mut hits: Vec<Hit> = dated
            .into_iter()
            .map(|(hit, modified)| {
                let youth = match (youngest, modified) {
                    (Some(youngest), Some(modified)) => {
                        #[expect(
                            clippy::cast_precision_loss,
                            reason = "ages need no such precision"
                        )]
                        let age_days = youngest.saturating_sub(modified) as f64 / MS_PER_DAY;
                        0.5_f64.powf(age_days / self.half_life_days)
                    }
                    _ => 0.0,
                };
                let score = (1.0 - self.weight) * hit.similarity + self.weight * youth;
                Hit { rerank_score: Some(score), ..hit }
            })
            .collect();
        sort_by_rerank_score(&mut hits);
        hits
    }
}

/// A chunk with the date of its document.
type Dated = (Hit, Option<i64>);

async fn dated(query: &Query<'_>, hits: Vec<Hit>) -> Result<Vec<Dated>, PipelineError> {
    let mut documents: Vec<String> = hits.iter().map(|h| h.chunk.document_id.clone()).collect();
    documents.sort_unstable();
    documents.dedup();
    let dates = query.store.modified_ms(&documents).await?;
    let date = |hit: &Hit| dates.get(&hit.chunk.document_id).copied();
    Ok(hits.into_iter().map(|hit| (date(&hit), hit)).map(|(date, hit)| (hit, date)).collect())
}

fn undated(dated: Vec<Dated>) -> Vec<Hit> {
    dated.into_iter().map(|(hit, _)| hit).collect()
}

/// Stable, so chunks of one age keep the order they came in; no date is older than any.
fn youngest_first(dated: &mut [Dated]) {
    dated.sort_by(|(_, one), (_, other)| other.cmp(one));
}

/// Those that no younger one is similar to, in the order they came in.
fn without_outdated(
    dated: Vec<Dated>,
    vectors: &HashMap<String, Vec<f32>>,
    similarity_min: f64,
) -> Vec<Hit> {
    let outdates = |(younger, its_date): &Dated, (hit, date): &Dated| {
        let vector = |hit: &Hit| vectors.get(&hit.chunk.id);
        let (Some(one), Some(other)) = (vector(younger), vector(hit)) else { return false };
        its_date > date && cosine(one, other) >= similarity_min
    };
    // Youngest first: what is outdated itself does not outdate others, or of a chain of small
    // changes only the last would be left.
    let mut order: Vec<usize> = (0..dated.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(dated.get(*at).and_then(|(_, date)| *date)));
    let mut kept: Vec<usize> = Vec::with_capacity(dated.len());
    for at in order {
        let Some(candidate) = dated.get(at) else { continue };
        let is_outdated =
            kept.iter().filter_map(|at| dated.get(*at)).any(|one| outdates(one, candidate));
        if !is_outdated {
            kept.push(at);
        }
    }
    let is_kept = |(at, _): &(usize, Dated)| kept.contains(at);
    dated.into_iter().enumerate().filter(is_kept).map(|(_, (hit, _))| hit).collect()
}

const MS_PER_DAY: f64 = 86_400_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    const DAY: i64 = 86_400_000;

    fn of(id: &str, similarity: f64, day: Option<i64>) -> Dated {
        (Hit { similarity, ..hit(id, "x") }, day.map(|day| day * DAY))
    }

    fn ids(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
    }

    #[test]
    fn the_youngest_come_first_and_the_undated_last() {
        let mut dated = vec![
            of("a", 0.9, None),
            of("b", 0.8, Some(1)),
            of("c", 0.7, Some(9)),
            of("d", 0.6, Some(9)),
        ];
        youngest_first(&mut dated);
        assert_eq!(ids(&undated(dated)), ["c", "d", "b", "a"]);
    }

    /// Scenario: an old page says nearly what a new one says, an older one something else.
    /// Guarantees: only the old copy goes; chunks of one document never outdate each other; a
    /// chunk without a vector or a date outdates nothing.
    #[test]
    fn an_old_copy_goes_and_what_is_only_old_stays() {
        let dated = vec![
            of("old copy", 0.9, Some(1)),
            of("new", 0.8, Some(5)),
            of("other", 0.7, Some(0)),
            of("same day", 0.6, Some(5)),
            of("undated", 0.5, None),
        ];
        let vectors: HashMap<String, Vec<f32>> = [
            ("old copy", [1.0, 0.1]),
            ("new", [1.0, 0.0]),
            ("other", [0.0, 1.0]),
            ("same day", [1.0, 0.0]),
        ]
        .into_iter()
        .map(|(id, vector)| (id.to_owned(), vector.to_vec()))
        .collect();
        let kept = without_outdated(dated, &vectors, 0.7);
        assert_eq!(ids(&kept), ["new", "other", "same day", "undated"]);
    }

    /// Scenario: three versions, each near the one before, the last far from the first.
    /// Guarantees: what is outdated itself outdates nothing.
    #[test]
    fn a_chain_of_small_changes_is_not_followed() {
        let dated = vec![of("v1", 0.9, Some(1)), of("v2", 0.8, Some(2)), of("v3", 0.7, Some(3))];
        let vectors: HashMap<String, Vec<f32>> =
            [("v1", [1.0, 0.0]), ("v2", [0.8, 0.6]), ("v3", [0.28, 0.96])]
                .into_iter()
                .map(|(id, vector)| (id.to_owned(), vector.to_vec()))
                .collect();
        assert_eq!(ids(&without_outdated(dated, &vectors, 0.75)), ["v1", "v3"]);
    }

    /// Scenario: scores worked out by hand; the youngest of the candidates is years old.
    /// Guarantees: age counts from the youngest candidate, so the answer does not depend on when it
    /// is asked; with weight 0 the search's order stays.
    #[test]
    fn age_counts_from_the_youngest_candidate_and_halves_with_each_half_life() {
        let dated = || vec![of("a", 0.8, Some(0)), of("b", 0.6, Some(60)), of("c", 0.9, None)];
        let hits = TimeWeighted { weight: 0.5, half_life_days: 30.0 }.weighed(dated());
        assert_eq!(ids(&hits), ["b", "a", "c"]);
        let scores: Vec<f64> = hits.iter().filter_map(|hit| hit.rerank_score).collect();
        for (score, expected) in scores.iter().zip([0.3 + 0.5, 0.4 + 0.125, 0.45]) {
            assert!((score - expected).abs() < 1e-12, "{scores:?}");
        }
        assert_eq!(hits[0].similarity, 0.6, "the search's similarity stays");
        let by_similarity = TimeWeighted { weight: 0.0, half_life_days: 30.0 }.weighed(dated());
        assert_eq!(ids(&by_similarity), ["c", "a", "b"]);
    }
}
