//! Two lists of found chunks become one.
//!
//! *Reciprocal rank fusion* (Cormack, Clarke, and Buettcher, SIGIR 2009) looks at ranks only, so that
//! a cosine and a BM25 score need no common scale. *Relative score* stretches the scores of each list
//! to 0..1, so that a lead counts for what it is; it believes scores, and one outlier moves all.
//!
//! What one list does not have counts nothing there. Equal scores stand in order of id.

use std::collections::HashMap;

use retake_schemas::settings::{Fusion, RetrieveSettings};

use crate::document::{Hit, Place};

/// The best `top_k` of both lists together. Each list is in its order; its hits have their place.
pub(super) fn fuse(
    dense: Vec<Hit>,
    text: Vec<Hit>,
    settings: &RetrieveSettings,
    top_k: usize,
) -> Vec<Hit> {
    let scores_of = |hits: &[Hit], place: fn(&Hit) -> Option<Place>| match settings.fusion {
        Fusion::Rrf => reciprocal_ranks(hits.len(), settings.rrf_k),
        Fusion::RelativeScore => {
            relative(hits.iter().filter_map(place).map(|place| place.score).collect())
        }
    };
    let dense_scores = scores_of(&dense, |hit| hit.found.dense);
    let text_scores = scores_of(&text, |hit| hit.found.text);
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut fused: Vec<Hit> = Vec::with_capacity(dense.len() + text.len());
    let weighted = dense
        .into_iter()
        .zip(dense_scores.into_iter().map(|score| score * settings.dense_weight))
        .chain(
            text.into_iter()
                .zip(text_scores.into_iter().map(|score| score * (1.0 - settings.dense_weight))),
        );
    for (hit, score) in weighted {
        let place = *places.entry(hit.chunk.id.clone()).or_insert(fused.len());
        match fused.get_mut(place) {
            Some(known) => {
                known.found.text = known.found.text.or(hit.found.text);
                known.found.fused = Some(known.found.fused.unwrap_or_default() + score);
            }
            None => {
                let mut hit = hit;
                hit.found.fused = Some(score);
                fused.push(hit);
            }
        }
    }
    let score = |hit: &Hit| hit.found.fused.unwrap_or_default();
    fused.sort_by(|one, other| {
        score(other).total_cmp(&score(one)).then_with(|| one.chunk.id.cmp(&other.chunk.id))
    });
    fused.truncate(top_k);
    fused
}

fn reciprocal_ranks(count: usize, k: f64) -> Vec<f64> {
    (1..=count).map(|rank| 1.0 / (k + rank as f64)).collect()
}

/// The scores from 0, the least, to 1, the greatest. Where all are the same, none is less than the
/// greatest.
fn relative(scores: Vec<f64>) -> Vec<f64> {
    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let span = greatest - least;
    let one = |score: f64| if span > 0.0 { (score - least) / span } else { 1.0 };
    scores.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::prompt::tests::hit;

    fn list(of: &[(&str, f64)], is_dense: bool) -> Vec<Hit> {
        let placed = |(rank, (id, score)): (usize, &(&str, f64))| {
            let mut hit = hit(id, "x");
            let place = Some(Place { rank: rank as u32, score: *score });
            if is_dense {
                hit.found.dense = place;
            } else {
                hit.found.text = place;
            }
            hit
        };
        of.iter().enumerate().map(placed).collect()
    }

    fn ids(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
    }

    fn by(fusion: Fusion, dense_weight: f64) -> RetrieveSettings {
        RetrieveSettings { fusion, dense_weight, ..RetrieveSettings::default() }
    }

    const DENSE: [(&str, f64); 4] = [("a", 0.9), ("b", 0.89), ("c", 0.88), ("d", 0.1)];
    const TEXT: [(&str, f64); 3] = [("e", 9.0), ("c", 3.0), ("a", 1.0)];

    /// Guarantees: what both lists have comes before what one has at the same rank, the score is the
    /// sum of 1 / (k + rank), and every hit says where each list had it.
    #[test]
    fn ranks_of_both_lists_add_up() {
        let hits = fuse(list(&DENSE, true), list(&TEXT, false), &by(Fusion::Rrf, 0.5), 9);
        assert_eq!(ids(&hits), ["a", "c", "e", "b", "d"]);
        let expected = 0.5 / 61.0 + 0.5 / 63.0;
        assert!((hits[0].found.fused.unwrap() - expected).abs() < 1e-12);
        assert_eq!(hits[1].found.dense.map(|place| place.rank), Some(2));
        assert_eq!(hits[1].found.text.map(|place| (place.rank, place.score)), Some((1, 3.0)));
        assert_eq!(hits[2].found.dense, None);
        assert_eq!(hits[0].search_score(), expected);
    }

    /// Guarantees: a clear lead in one list counts; the last of a list counts nothing.
    #[test]
    fn scores_count_for_what_they_are() {
        let settings = by(Fusion::RelativeScore, 0.5);
        let hits = fuse(list(&DENSE, true), list(&TEXT, false), &settings, 9);
        assert_eq!(ids(&hits), ["c", "a", "e", "b", "d"]);
        let of_c = 0.5 * (0.78 / 0.8) + 0.5 * 0.25;
        assert!((hits[0].found.fused.unwrap() - of_c).abs() < 1e-12);
        assert_eq!(hits[4].found.fused, Some(0.0));
        let same = fuse(list(&[("y", 2.0), ("x", 2.0)], true), vec![], &settings, 9);
        assert_eq!(ids(&same), ["x", "y"], "equals count the same, and stand by id");
    }

    /// Guarantees: with all the weight on one list its order stays, and an empty list changes none.
    #[test]
    fn one_list_alone_keeps_its_order() {
        for fusion in [Fusion::Rrf, Fusion::RelativeScore] {
            let dense = || list(&DENSE, true);
            let text = || list(&TEXT, false);
            assert_eq!(ids(&fuse(dense(), text(), &by(fusion, 1.0), 3)), ["a", "b", "c"]);
            assert_eq!(ids(&fuse(dense(), text(), &by(fusion, 0.0), 2)), ["e", "c"]);
            let alone = fuse(dense(), vec![], &by(fusion, 0.5), 9);
            assert_eq!(ids(&alone), ["a", "b", "c", "d"]);
            assert_eq!(ids(&fuse(vec![], text(), &by(fusion, 0.5), 9)), ["e", "c", "a"]);
            assert!(fuse(vec![], vec![], &by(fusion, 0.5), 9).is_empty());
        }
    }
}
