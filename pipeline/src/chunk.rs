//! Documents to chunks: pieces of at most so many tokens, cut where the text allows it.
//!
//! Markdown is cut along its structure, other text along paragraphs, sentences, and words. Every
//! chunk is a literal part of its document, so its offsets can be shown and checked.
//!
//! A long document is worked on in windows. The splitter looks at all that is left of its text
//! for every chunk, which makes it quadratic; a window bounds that, and the next window starts at
//! the last chunk of this one, so that no seam is left.

use std::panic::{AssertUnwindSafe, catch_unwind};

use retake_schemas::settings::ChunkSettings;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use crate::document::{Chunk, Document, Format};
use crate::error::PipelineError;
use crate::load::EXTRACTION;
use crate::tokens;

/// Cuts documents into chunks. Pure: the same document and settings give the same chunks.
pub struct Chunker {
    settings: ChunkSettings,
    text: TextSplitter<Sizer>,
    markdown: MarkdownSplitter<Sizer>,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker with these settings.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] if the size is 0, or the overlap is not less than it.
    pub fn new(settings: &ChunkSettings) -> Result<Self, PipelineError> {
        let refused = |reason: String| PipelineError::Configuration(reason);
        if settings.size == 0 {
            return Err(refused("use setting chunk.size: must be at least 1".to_owned()));
        }
        // Beyond the chunk size only "too much" matters, but one character must be told exactly.
        let sizer = Sizer { tokens_max: settings.size.max(CHARACTER_TOKENS_MAX) };
        let config = || {
            ChunkConfig::new(settings.size)
                .with_sizer(sizer)
                .with_overlap(settings.overlap)
                .map_err(|_| {
                    refused(format!(
                        "use setting chunk.overlap: must be less than chunk.size ({})",
                        settings.size
                    ))
                })
        };
        Ok(Self {
            settings: settings.clone(),
            text: TextSplitter::new(config()?),
            markdown: MarkdownSplitter::new(config()?),
        })
    }

    /// Names everything chunks depend on besides the document. Equal fingerprints and equal
    /// documents give equal chunks.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let ChunkSettings { size, overlap } = self.settings;
        format!("{VERSION} {EXTRACTION} size={size} overlap={overlap}")
    }

    /// Cuts `document`. An empty document has no chunks.
    ///
    /// No chunk has more than `chunk.size` tokens, except that a single character is never cut.
    ///
    /// # Errors
    /// [`PipelineError::NotText`] if the splitter gives up on the text; other documents are not
    /// affected.
    pub fn chunk(&self, document: &Document) -> Result<Vec<Chunk>, PipelineError> {
        // The splitter states some of its assumptions with `expect`. A hostile document that
        // finds one must not end the run.
        catch_unwind(AssertUnwindSafe(|| self.cut(document))).map_err(|_| PipelineError::NotText {
            path: document.path.clone(),
            reason: "the text splitter gave up on it".to_owned(),
        })
    }

    fn cut(&self, document: &Document) -> Vec<Chunk> {
        let text = document.text.as_str();
        let window_bytes_min = WINDOW_BYTES_MIN.max(self.settings.size.saturating_mul(32));
        let mut window_bytes = window_bytes_min;
        let mut chunks = Collector::new(document);
        let mut base = 0;
        while let Some(rest) = text.get(base..).filter(|rest| !rest.is_empty()) {
            let window = rest.get(..window_end(rest, window_bytes)).unwrap_or(rest);
            let mut parts = self.split(window, document.format);
            if window.len() < rest.len() {
                // The window's end cut the last chunk short: it is made again by the next window.
                let Some((next, _)) = parts.pop().filter(|(next, _)| *next > 0) else {
                    window_bytes = window_bytes.saturating_mul(2);
                    continue;
                };
                chunks.extend(base, &parts);
                base += next;
                window_bytes = window_bytes_min;
            } else {
                chunks.extend(base, &parts);
                break;
            }
        }
        chunks.done
    }

    fn split<'t>(&self, window: &'t str, format: Format) -> Vec<(usize, &'t str)> {
        match format {
            Format::Markdown => self.markdown.chunk_indices(window).collect(),
            // Cutting code by its syntax would take a parser for each language.
            Format::Text | Format::Html | Format::Jsonl | Format::Code | Format::Pdf => {
                self.text.chunk_indices(window).collect()
            }
        }
    }
}

/// Gives parts of a document their ids and character offsets.
struct Collector<'d> {
    document: &'d Document,
    /// Byte and character offset of the same place, moved forward from part to part.
    place: (usize, u64),
    done: Vec<Chunk>,
}

impl<'d> Collector<'d> {
    fn new(document: &'d Document) -> Self {
        Self { document, place: (0, 0), done: Vec::new() }
    }

    fn extend(&mut self, base: usize, parts: &[(usize, &str)]) {
        for (offset, part) in parts {
            let start_byte = base + offset;
            let between = self.document.text.get(self.place.0..start_byte).unwrap_or_default();
            let start_char = self.place.1 + chars(between);
            self.place = (start_byte, start_char);
            let ordinal = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
            self.done.push(Chunk {
                id: Chunk::id_of(&self.document.id, ordinal),
                document_id: self.document.id.clone(),
                ordinal,
                text: (*part).to_owned(),
                start_char,
                end_char: start_char + chars(part),
                tokens: u32::try_from(tokens::count(part)).unwrap_or(u32::MAX),
            });
        }
    }
}

fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Measures text in tokens, exactly as long as it may still fit.
#[derive(Debug, Clone, Copy)]
struct Sizer {
    tokens_max: usize,
}

impl ChunkSizer for Sizer {
    fn size(&self, chunk: &str) -> usize {
        tokens::count_up_to(chunk, self.tokens_max)
    }
}

/// Where to end a window of at most `bytes_max`: after a line if there is one in its second half,
/// else between two characters.
fn window_end(text: &str, bytes_max: usize) -> usize {
    if text.len() <= bytes_max {
        return text.len();
    }
    let end = text.floor_char_boundary(bytes_max);
    let line = text.get(..end).and_then(|head| head.rfind('\n')).map(|at| at + 1);
    line.filter(|at| *at > bytes_max / 2).unwrap_or(end)
}

/// Changes whenever equal settings would cut differently.
const VERSION: &str = "text-splitter-0.33/cl100k/1";
/// Most tokens of one character: one per byte.
const CHARACTER_TOKENS_MAX: usize = 4;
/// Text the splitter sees at once, bytes: some 60 chunks of the default size, small enough that
/// looking at all of it for each of them is cheap.
const WINDOW_BYTES_MIN: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use retake_schemas::Digest;

    use super::*;

    fn document(text: &str, format: Format) -> Document {
        Document {
            id: "a.md".to_owned(),
            path: "a.md".into(),
            format,
            text: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
            modified_ms: None,
        }
    }

    fn chunk(text: &str, format: Format, size: usize, overlap: usize) -> Vec<Chunk> {
        let chunker = Chunker::new(&ChunkSettings { size, overlap }).expect("valid settings");
        chunker.chunk(&document(text, format)).expect("chunks")
    }

    /// Deterministic text with everything that offsets could trip over.
    fn mixed_text(seed: u64, words: usize) -> String {
        const WORDS: &[&str] = &[
            "retry",
            "naïve",
            "🦀",
            "東京",
            "the",
            "\n\n",
            "\r\n",
            "# Heading\n",
            "- item\n",
            "e\u{301}",
            "🏳️‍🌈",
            "```\ncode\n```\n",
            "| a | b |\n",
            "don't",
            "12345",
            "  ",
            "\t",
            ". ",
            "\u{200d}",
        ];
        let mut state = seed;
        let mut text = String::new();
        for _ in 0..words {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
            text.push(' ');
        }
        text
    }

    fn check(text: &str, chunks: &[Chunk], size: usize, overlap: usize) {
        let chars: Vec<char> = text.chars().collect();
        let mut covered = 0;
        for (ordinal, chunk) in chunks.iter().enumerate() {
            let (start, end) = (chunk.start_char as usize, chunk.end_char as usize);
            assert_eq!(chars[start..end].iter().collect::<String>(), chunk.text);
            assert_eq!(chunk.id, format!("a.md#{ordinal}"));
            assert_eq!(chunk.tokens as usize, tokens::count(&chunk.text));
            assert!(chunk.tokens as usize <= size, "{} tokens of {size}", chunk.tokens);
            assert!(start >= covered || overlap > 0, "overlap where none was asked for");
            let lost: String = chars[covered.min(start)..start].iter().collect();
            assert!(lost.trim().is_empty(), "lost {lost:?}");
            covered = covered.max(end);
        }
        let lost: String = chars[covered..].iter().collect();
        assert!(lost.trim().is_empty(), "lost at the end {lost:?}");
    }

    /// Scenario: texts of all scripts and shapes, both splitters, sizes from tiny to default.
    /// Guarantees: a chunk is its document's text at its offsets, within its size; nothing is lost.
    #[test]
    fn chunks_are_literal_parts_of_their_document_within_the_size() {
        for seed in 0..12 {
            let text = mixed_text(seed, 400);
            for (size, overlap) in [(16, 0), (64, 10), (256, 20)] {
                for format in [Format::Markdown, Format::Text] {
                    let chunks = chunk(&text, format, size, overlap);
                    check(&text, &chunks, size, overlap);
                }
            }
        }
    }

    /// Scenario: a document of several windows.
    /// Guarantees: windows leave no seam: nothing lost, nothing doubled but the overlap.
    #[test]
    fn a_document_of_several_windows_is_covered_once() {
        let text = mixed_text(7, 40_000);
        assert!(text.len() > 3 * WINDOW_BYTES_MIN);
        for overlap in [0, 20] {
            let chunks = chunk(&text, Format::Text, 256, overlap);
            check(&text, &chunks, 256, overlap);
        }
    }

    #[test]
    fn neighbours_share_text_when_overlap_is_asked_for() {
        let text = "one two three four five six seven eight nine ten. ".repeat(40);
        let chunks = chunk(&text, Format::Text, 64, 16);
        assert!(chunks.windows(2).all(|pair| pair[1].start_char < pair[0].end_char));
    }

    #[test]
    fn documents_without_text_have_no_chunks() {
        assert!(chunk("", Format::Markdown, 256, 20).is_empty());
        assert!(chunk(" \n\t\n", Format::Text, 256, 20).is_empty());
    }

    /// Scenario: a megabyte without a place to cut, as in minified files.
    /// Guarantees: it is cut anyway, in time.
    #[test]
    fn a_megabyte_without_blanks_is_cut() {
        let text = "a1b2".repeat(1 << 18);
        let chunks = chunk(&text, Format::Text, 256, 20);
        check(&text, &chunks, 256, 20);
    }

    #[test]
    fn the_fingerprint_follows_the_settings() {
        let fingerprint = |size, overlap| {
            Chunker::new(&ChunkSettings { size, overlap }).expect("valid settings").fingerprint()
        };
        assert_eq!(fingerprint(256, 20), "text-splitter-0.33/cl100k/1 html/1 size=256 overlap=20");
        assert_ne!(fingerprint(256, 20), fingerprint(256, 21));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(Chunker::new(&ChunkSettings { size: 0, overlap: 0 }).is_err());
        assert!(Chunker::new(&ChunkSettings { size: 8, overlap: 8 }).is_err());
    }
}
