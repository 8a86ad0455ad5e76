//! What stands before and after a chunk in its document.
//!
//! Small chunks are found well and say little. [`Neighbours`] adds the chunks around each one,
//! [`Window`] makes one passage of them.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;

use super::{Postprocessor, Processed, Query, cosine};
use crate::document::{Chunk, Hit};
use crate::error::PipelineError;
use crate::store::VectorStore;
use crate::tokens;

/// How far to look.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Chunks before each one.
    pub before: u32,
    /// Chunks after each one.
    pub after: u32,
}

impl Reach {
    fn of(self, ordinal: u32) -> std::ops::RangeInclusive<u32> {
        ordinal.saturating_sub(self.before)..=ordinal.saturating_add(self.after)
    }
}

/// Adds the chunks around each one. Each chunk comes once, however many want it; chunks of one
/// place stand in the order of the document, at the place of the best of them. Those added have the
/// similarity they have, not one made up.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours(pub Reach);

/// Puts a passage in the place of each chunk: the chunk with those around it, joined without the
/// text they share. Chunks whose passages meet become one.
#[derive(Debug, Clone, Copy)]
pub struct Window(pub Reach);

#[async_trait]
impl Postprocessor for Neighbours {
    fn name(&self) -> &str {
        "neighbours"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let chunks = around(query.store, &hits, self.0).await?;
        let ids: Vec<String> = chunks.keys().cloned().collect();
        let vectors = query.store.vectors(&ids).await?;
        let added = |chunk: Chunk| {
            let vector = vectors.get(&chunk.id);
            let similarity = vector.map_or(0.0, |vector| cosine(query.vector, vector));
            Hit::new(chunk, similarity)
        };
        Ok(places(hits, chunks, self.0)
            .into_iter()
            .flat_map(|place| place.members)
            .map(|member| match member {
                Member::Found(hit) => hit,
                Member::Around(chunk) => added(chunk),
            })
            .collect::<Vec<Hit>>()
            .into())
    }
}

#[async_trait]
impl Postprocessor for Window {
    fn name(&self) -> &str {
        "window"
    }

    fn is_choosing(&self) -> bool {
        false
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let chunks = around(query.store, &hits, self.0).await?;
        let passages = places(hits, chunks, self.0).into_iter().filter_map(Place::joined);
        Ok(passages.collect::<Vec<Hit>>().into())
    }
}

/// The chunks around the found ones, without these.
async fn around(
    store: &dyn VectorStore,
    hits: &[Hit],
    reach: Reach,
) -> Result<HashMap<String, Chunk>, PipelineError> {
    let found: BTreeSet<&str> = hits.iter().map(|hit| hit.chunk.id.as_str()).collect();
    let wanted: BTreeSet<String> = hits
        .iter()
        .flat_map(|hit| {
            let document = &hit.chunk.document_id;
            reach.of(hit.chunk.ordinal).map(move |ordinal| Chunk::id_of(document, ordinal))
        })
        .filter(|id| !found.contains(id.as_str()))
        .collect();
    store.chunks(&wanted.into_iter().collect::<Vec<String>>()).await
}

/// Chunks of one document that follow each other.
#[derive(Debug)]
struct Place {
    /// In the order of the document.
    members: Vec<Member>,
}

#[derive(Debug, Clone)]
enum Member {
    /// The search found it.
    Found(Hit),
    /// It stands beside one that was found.
    Around(Chunk),
}

impl Member {
    const fn chunk(&self) -> &Chunk {
        match self {
            Self::Found(Hit { chunk, .. }) | Self::Around(chunk) => chunk,
        }
    }
}

/// Sorts found chunks and those around them into places, the place of the best chunk first.
fn places(hits: Vec<Hit>, mut around: HashMap<String, Chunk>, reach: Reach) -> Vec<Place> {
    // The best chunk that a place was made for says where it stands.
    let mut ranked: HashMap<(String, u32), usize> = HashMap::new();
    let mut members: HashMap<(String, u32), Member> = HashMap::new();
    for (rank, hit) in hits.into_iter().enumerate() {
        let document = hit.chunk.document_id.clone();
        for ordinal in reach.of(hit.chunk.ordinal) {
            let id = Chunk::id_of(&document, ordinal);
            let key = (document.clone(), ordinal);
            if let Some(chunk) = around.remove(&id) {
                members.insert(key.clone(), Member::Around(chunk));
            }
            ranked.entry(key).or_insert(rank);
        }
        members.entry((document, hit.chunk.ordinal)).or_insert(Member::Found(hit));
    }
    let mut keys: Vec<(String, u32)> = members.keys().cloned().collect();
    keys.sort_unstable();
    let mut places: Vec<(usize, Place)> = Vec::new();
    let mut last: Option<(String, u32)> = None;
    for key in keys {
        let Some(member) = members.remove(&key) else { continue };
        let rank = ranked.get(&key).copied().unwrap_or(usize::MAX);
        let follows = last.as_ref().is_some_and(|(document, ordinal)| {
            *document == key.0 && ordinal.checked_add(1) == Some(key.1)
        });
        match places.last_mut() {
            Some((best, place)) if follows => {
                *best = rank.min(*best);
                place.members.push(member);
            }
            _ => places.push((rank, Place { members: vec![member] })),
        }
        last = Some(key);
    }
    places.sort_by_key(|(rank, _)| *rank);
    places.into_iter().map(|(_, place)| place).collect()
}

impl Place {
    /// One passage of all its chunks, with the id and the scores of the best one found.
    fn joined(self) -> Option<Hit> {
        let best = self
            .members
            .iter()
            .filter_map(|member| match member {
                Member::Found(hit) => Some(hit),
                Member::Around(_) => None,
            })
            .reduce(|best, hit| if is_better(hit, best) { hit } else { best })?
            .clone();
        let mut members = self.members.iter().map(Member::chunk);
        let first = members.next()?;
        let (mut text, mut end_char) = (first.text.clone(), first.end_char);
        for chunk in members {
            match end_char.checked_sub(chunk.start_char) {
                // Neighbours may share text; what stands already is not written again.
                Some(shared) => {
                    text.extend(chunk.text.chars().skip(usize::try_from(shared).unwrap_or(0)));
                }
                // Between them was white space only, and of what kind is not known.
                None => {
                    text.push('\n');
                    text.push_str(&chunk.text);
                }
            }
            end_char = end_char.max(chunk.end_char);
        }
        let tokens = u32::try_from(tokens::count(&text)).unwrap_or(u32::MAX);
        let start_char = first.start_char;
        Some(Hit { chunk: Chunk { text, start_char, end_char, tokens, ..best.chunk }, ..best })
    }
}

fn is_better(one: &Hit, other: &Hit) -> bool {
    let score = |hit: &Hit| hit.rerank_score.unwrap_or_else(|| hit.search_score());
    score(one) > score(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "alpha beta gamma delta epsilon zeta eta theta iota kappa";

    /// Chunks of 10 characters, of which neighbours share 2.
    fn chunk(document: &str, ordinal: u32) -> Chunk {
        let start = u64::from(ordinal) * 8;
        let text: String = TEXT.chars().skip(start as usize).take(10).collect();
        Chunk {
            id: Chunk::id_of(document, ordinal),
            document_id: document.to_owned(),
            ordinal,
            end_char: start + text.chars().count() as u64,
            text,
            start_char: start,
            tokens: 1,
        }
    }

    fn found(document: &str, ordinal: u32, similarity: f64) -> Hit {
        Hit::new(chunk(document, ordinal), similarity)
    }

    fn placed(hits: Vec<Hit>, reach: Reach) -> Vec<Place> {
        let last = 6;
        let around = hits
            .iter()
            .flat_map(|hit| {
                let document = hit.chunk.document_id.clone();
                reach.of(hit.chunk.ordinal).map(move |ordinal| (document.clone(), ordinal))
            })
            .filter(|(document, ordinal)| {
                let is_found =
                    |hit: &Hit| (&hit.chunk.document_id, hit.chunk.ordinal) == (document, *ordinal);
                *ordinal <= last && !hits.iter().any(is_found)
            })
            .map(|(document, ordinal)| {
                (Chunk::id_of(&document, ordinal), chunk(&document, ordinal))
            })
            .collect();
        places(hits, around, reach)
    }

    fn ids(places: &[Place]) -> Vec<Vec<&str>> {
        places
            .iter()
            .map(|place| place.members.iter().map(|member| member.chunk().id.as_str()).collect())
            .collect()
    }

    /// Scenario: two neighbours found, one far away, one at the beginning and one at the end.
    /// Guarantees: no chunk comes twice, none from beyond either end; chunks of one place stand in
    /// the order of the document, places in the order of the search.
    #[test]
    fn neighbours_come_once_and_in_the_order_of_the_document() {
        let hits =
            vec![found("b", 6, 0.9), found("a", 3, 0.8), found("b", 0, 0.7), found("a", 2, 0.6)];
        let places = placed(hits.clone(), Reach { before: 1, after: 1 });
        assert_eq!(
            ids(&places),
            [vec!["b#5", "b#6"], vec!["a#1", "a#2", "a#3", "a#4"], vec!["b#0", "b#1"]]
        );
        let alone = placed(hits, Reach { before: 0, after: 0 });
        assert_eq!(ids(&alone), [vec!["b#6"], vec!["a#2", "a#3"], vec!["b#0"]]);
    }

    /// Guarantees: a window is the document's own text, what neighbours share stands once; it has
    /// the scores of the best chunk in it; offsets are those of the whole.
    #[test]
    fn a_window_is_the_text_of_the_document_without_doubles() {
        let hits = vec![found("a", 3, 0.5), found("a", 1, 0.9)];
        let places = placed(hits, Reach { before: 1, after: 0 });
        let windows: Vec<Hit> = places.into_iter().filter_map(Place::joined).collect();
        assert_eq!(windows.len(), 1);
        let window = &windows[0];
        assert_eq!((window.chunk.start_char, window.chunk.end_char), (0, 34));
        assert_eq!(window.chunk.text, TEXT[..34]);
        assert_eq!((window.chunk.id.as_str(), window.similarity), ("a#1", 0.9));
        assert_eq!(window.chunk.tokens as usize, tokens::count(&window.chunk.text));
    }

    /// Scenario: the splitter left out the blank between two chunks.
    #[test]
    fn what_was_left_out_between_chunks_is_white_space_again() {
        let mut second = chunk("a", 1);
        second.start_char = 11;
        second.end_char = 21;
        let members = vec![Member::Found(found("a", 0, 0.5)), Member::Around(second.clone())];
        let window = Place { members }.joined().unwrap();
        assert_eq!(window.chunk.text, format!("{}\n{}", chunk("a", 0).text, second.text));
        assert_eq!(window.chunk.end_char, 21);
    }
}
