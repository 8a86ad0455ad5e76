//! Precision, recall, average precision and nDCG of a ranking, by document and by character span.
//!
//! *By document*, the ranking is that of the distinct documents of the hits, and a document is
//! relevant when a reference lies in it: the classic measures (Manning, Raghavan and Schütze,
//! "Introduction to Information Retrieval", chapter 8; Järvelin and Kekäläinen, "Cumulated
//! gain-based evaluation of IR techniques", TOIS 2002), with a gain of 1 and a discount of
//! `log2(rank + 1)`.
//!
//! *By span*, the unit is the character of a reference, so labels survive another chunk size. With
//! `new_k` the characters of references that hit `k` covers first, `R` all characters of
//! references, and `P_k` the share of the characters of the first `k` hits that are in a reference,
//! each character counted once:
//!
//! * precision = `P_K`, recall = `sum(new_k) / R`
//! * average precision = `sum(new_k * P_k) / R`
//! * nDCG = `sum(new_k / log2(k + 1))` over the same of a ranking whose hits have these lengths,
//!   the longest first, and hold nothing but references until there are no more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Reference;
use super::score::is_of;
use crate::document::Hit;

/// Measures of one ranking, or their means; all from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Ranking {
    /// Share of what was found that is relevant; 0 when nothing was found.
    pub precision: f64,
    /// Share of what is relevant that was found.
    pub recall: f64,
    /// Average precision.
    pub average_precision: f64,
    /// Normalized discounted cumulative gain.
    pub ndcg: f64,
}

/// Measures by document and by span.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Retrieval {
    /// Documents; nothing when a reference does not name its document.
    pub by_document: Option<Ranking>,
    /// Characters.
    pub by_span: Ranking,
}

/// Measures `hits`, best first; nothing without references.
#[must_use]
pub fn retrieval(references: &[Reference], hits: &[Hit]) -> Option<Retrieval> {
    (!references.is_empty()).then(|| Retrieval {
        by_document: by_document(references, hits),
        by_span: by_span(references, hits),
    })
}

/// The means of several.
#[must_use]
pub fn mean_retrieval(all: &[Retrieval]) -> Option<Retrieval> {
    let by_span: Vec<Ranking> = all.iter().map(|one| one.by_span).collect();
    let by_document: Vec<Ranking> = all.iter().filter_map(|one| one.by_document).collect();
    Some(Retrieval { by_document: mean(&by_document), by_span: mean(&by_span)? })
}

fn mean(all: &[Ranking]) -> Option<Ranking> {
    let count = all.len() as f64;
    let of = |value: fn(&Ranking) -> f64| all.iter().map(value).sum::<f64>() / count;
    (!all.is_empty()).then(|| Ranking {
        precision: of(|one| one.precision),
        recall: of(|one| one.recall),
        average_precision: of(|one| one.average_precision),
        ndcg: of(|one| one.ndcg),
    })
}

fn by_document(references: &[Reference], hits: &[Hit]) -> Option<Ranking> {
    let mut wanted: Vec<&str> =
        references.iter().map(|reference| reference.document.as_deref()).collect::<Option<_>>()?;
    wanted.sort_unstable();
    wanted.dedup();
    let mut seen: Vec<&str> = Vec::new();
    // Which of the wanted documents each ranked one is.
    let mut ranked: Vec<Option<usize>> = Vec::new();
    for hit in hits {
        if seen.contains(&hit.chunk.document_id.as_str()) {
            continue;
        }
        seen.push(&hit.chunk.document_id);
        let which = wanted.iter().position(|name| is_of(Some(name), &hit.chunk));
        // A second file of the same name as a document found before is no second success.
        ranked.push(which.filter(|which| !ranked.contains(&Some(*which))));
    }
    let mut ranking = Ranking::default();
    let (mut found, mut gain) = (0.0, 0.0);
    let relevant = wanted.len() as f64;
    for (position, which) in ranked.iter().enumerate() {
        if which.is_some() {
            found += 1.0;
            ranking.average_precision += found / (position + 1) as f64 / relevant;
            gain += discount(position);
        }
    }
    let ideal: f64 = (0..wanted.len().min(ranked.len())).map(discount).sum();
    ranking.precision = share(found, ranked.len() as f64);
    ranking.recall = share(found, relevant);
    ranking.ndcg = share(gain, ideal);
    Some(ranking)
}

fn by_span(references: &[Reference], hits: &[Hit]) -> Ranking {
    let wanted = Wanted::of(references);
    let mut open = wanted.clone();
    let mut read: BTreeMap<&str, Covered> = BTreeMap::new();
    let mut ranking = Ranking::default();
    let (mut characters, mut relevant, mut gain) = (0_u64, 0_u64, 0.0);
    let mut lengths = Vec::with_capacity(hits.len());
    let all = wanted.length() as f64;
    for (position, hit) in hits.iter().enumerate() {
        let span = (hit.chunk.start_char, hit.chunk.end_char);
        let new = read.entry(&hit.chunk.document_id).or_default().add(span);
        characters += new.iter().map(|span| span.1 - span.0).sum::<u64>();
        relevant += new.iter().map(|span| wanted.within(hit, *span)).sum::<u64>();
        let won = open.take(hit, span) as f64;
        ranking.recall += share(won, all);
        ranking.average_precision += share(won, all) * share(relevant as f64, characters as f64);
        gain += share(won, all) * discount(position);
        lengths.push(span.1.saturating_sub(span.0));
    }
    ranking.precision = share(relevant as f64, characters as f64);
    ranking.ndcg = share(gain, ideal_gain(lengths, wanted.length()));
    ranking
}

/// What the lengths could have won at best.
fn ideal_gain(mut lengths: Vec<u64>, wanted: u64) -> f64 {
    lengths.sort_unstable_by(|one, other| other.cmp(one));
    let mut left = wanted;
    let mut gain = 0.0;
    for (position, length) in lengths.into_iter().enumerate() {
        let won = length.min(left);
        left -= won;
        gain += share(won as f64, wanted as f64) * discount(position);
    }
    gain
}

fn discount(position: usize) -> f64 {
    1.0 / ((position + 2) as f64).log2()
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// Start and end of a piece of text.
type Span = (u64, u64);

/// Pieces of one text that lie apart, in order.
#[derive(Debug, Clone, Default)]
struct Covered(Vec<Span>);

impl Covered {
    /// Adds a piece, and returns what of it is new.
    fn add(&mut self, span: Span) -> Vec<Span> {
        let mut new = Vec::new();
        let mut at = span.0;
        for held in &self.0 {
            if held.1 <= at {
                continue;
            }
            if held.0 >= span.1 {
                break;
            }
            if at < held.0 {
                new.push((at, held.0));
            }
            at = held.1.max(at);
        }
        if at < span.1 {
            new.push((at, span.1));
        }
        self.0.extend(&new);
        self.0.sort_unstable();
        new
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|span| span.1 - span.0).sum()
    }

    fn within(&self, span: Span) -> u64 {
        self.0.iter().map(|held| held.1.min(span.1).saturating_sub(held.0.max(span.0))).sum()
    }

    /// Takes a piece out, and returns how much of it was there.
    fn take(&mut self, span: Span) -> u64 {
        let taken = self.within(span);
        let rest = |held: &Span| {
            [(held.0, held.1.min(span.0)), (held.0.max(span.1), held.1)]
                .into_iter()
                .filter(|(start, end)| start < end)
        };
        if taken > 0 {
            self.0 = self.0.iter().flat_map(rest).collect();
        }
        taken
    }
}

/// The characters of references, each once, by the document they name.
#[derive(Debug, Clone)]
struct Wanted<'r>(BTreeMap<Option<&'r str>, Covered>);

impl<'r> Wanted<'r> {
    fn of(references: &'r [Reference]) -> Self {
        let mut wanted: BTreeMap<Option<&str>, Covered> = BTreeMap::new();
        for reference in references {
            let span = (reference.start_char, reference.end_char);
            wanted.entry(reference.document.as_deref()).or_default().add(span);
        }
        Self(wanted)
    }

    fn length(&self) -> u64 {
        self.0.values().map(Covered::length).sum()
    }

    fn within(&self, hit: &Hit, span: Span) -> u64 {
        let of_document = self.0.iter().filter(|(name, _)| is_of(**name, &hit.chunk));
        // A character that two references mean, by two names of one document, is one character.
        of_document.map(|(_, held)| held.within(span)).max().unwrap_or_default()
    }

    fn take(&mut self, hit: &Hit, span: Span) -> u64 {
        let of_document = self.0.iter_mut().filter(|(name, _)| is_of(**name, &hit.chunk));
        of_document.map(|(_, held)| held.take(span)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::eval::score::tests::{hit, reference as place};

    fn reference(document: &str, start_char: u64, end_char: u64) -> Reference {
        place(Some(document), start_char, end_char)
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-12
    }

    /// Scenario: three relevant documents, found at ranks 1, 3 and not at all; chunks of one
    /// document stand apart. Worked out by hand.
    #[test]
    fn documents_are_ranked_by_their_first_chunk() {
        let references = ["a", "b", "c"].map(|name| reference(name, 0, 10));
        let hits = [
            hit("x/a.md", 0, 5),
            hit("z.md", 0, 5),
            hit("x/a.md", 5, 9),
            hit("b.md", 0, 5),
            hit("y.md", 0, 1),
        ];
        let found = retrieval(&references, &hits).unwrap().by_document.unwrap();
        assert!(close(found.precision, 0.5) && close(found.recall, 2.0 / 3.0), "{found:?}");
        assert!(close(found.average_precision, (1.0 + 2.0 / 3.0) / 3.0), "{found:?}");
        let ideal = 1.0 + 1.0 / 3_f64.log2() + 0.5;
        assert!(close(found.ndcg, (1.0 + 0.5) / ideal), "{found:?}");
    }

    /// Scenario: a reference of 20 characters; the first chunk misses, the second has half of it
    /// and nothing else, the third the other half and as much of something else.
    #[test]
    fn spans_are_ranked_by_their_characters() {
        let references = [reference("a.md", 10, 30)];
        let hits = [hit("a.md", 100, 110), hit("a.md", 10, 20), hit("a.md", 20, 40)];
        let found = retrieval(&references, &hits).unwrap().by_span;
        assert!(close(found.recall, 1.0) && close(found.precision, 0.5), "{found:?}");
        assert!(close(found.average_precision, 0.5 * 0.5 + 0.5 * 0.5), "{found:?}");
        let gain = 0.5 / 3_f64.log2() + 0.5 / 2.0;
        // At best the longest chunk, of 20 characters, would hold the whole reference.
        assert!(close(found.ndcg, gain), "{found:?}");
    }

    #[test]
    fn the_best_ranking_is_one_and_nothing_found_is_zero() {
        let references = [reference("a.md", 0, 30)];
        let best = retrieval(&references, &[hit("a.md", 0, 20), hit("a.md", 20, 30)]).unwrap();
        let one = Ranking { precision: 1.0, recall: 1.0, average_precision: 1.0, ndcg: 1.0 };
        assert_eq!((best.by_span, best.by_document), (one, Some(one)));
        let none = retrieval(&references, &[]).unwrap();
        assert_eq!(
            (none.by_span, none.by_document),
            (Ranking::default(), Some(Ranking::default()))
        );
        assert_eq!(retrieval(&[], &[hit("a.md", 0, 9)]), None);
        let unnamed = [Reference { document: None, start_char: 0, end_char: 9 }];
        assert_eq!(retrieval(&unnamed, &[hit("a.md", 0, 9)]).unwrap().by_document, None);
        assert_eq!(mean_retrieval(&[]), None);
        assert!(close(mean_retrieval(&[best, none]).unwrap().by_span.ndcg, 0.5));
    }

    /// Scenario: random references and chunks, overlapping in every way.
    /// Guarantees: precision, recall and average precision are those of an oracle that counts
    /// characters one by one in sets; nothing leaves 0 to 1.
    #[test]
    fn spans_agree_with_counting_characters_one_by_one() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let mut place = || {
                let (document, start) = (["a", "b"][random(2) as usize], random(60));
                (document, start, start + 1 + random(25))
            };
            let wanted: Vec<_> = (0..3).map(|_| place()).collect();
            let found: Vec<_> = (0..5).map(|_| place()).collect();
            let references: Vec<Reference> =
                wanted.iter().map(|(name, start, end)| reference(name, *start, *end)).collect();
            let hits: Vec<Hit> = found
                .iter()
                .map(|(name, start, end)| hit(&format!("{name}.md"), *start, *end))
                .collect();
            let characters = |place: &(&'static str, u64, u64)| {
                let name = place.0;
                (place.1..place.2).map(move |at| (name, at))
            };
            let relevant: BTreeSet<_> = wanted.iter().flat_map(characters).collect();
            let (mut read, mut average) = (BTreeSet::new(), 0.0);
            for place in &found {
                let before = read.intersection(&relevant).count();
                read.extend(characters(place));
                let now = read.intersection(&relevant).count();
                average += (now - before) as f64 * now as f64 / read.len() as f64;
            }
            let both = read.intersection(&relevant).count() as f64;
            let measured = retrieval(&references, &hits).unwrap().by_span;
            assert!(close(measured.precision, both / read.len() as f64), "{wanted:?} {found:?}");
            assert!(close(measured.recall, both / relevant.len() as f64), "{wanted:?} {found:?}");
            assert!(close(measured.average_precision, average / relevant.len() as f64));
            assert!((0.0..=1.0).contains(&measured.ndcg), "{measured:?}");
        }
    }
}
