//! Realistic spans with given times: log-normal durations, a few models and tenants, many
//! documents, questions of random words.
//!
//! Prompts and answers are left out: they would dominate every encoding alike. One tree shape
//! repeats, so names and parents are cheaper than in life, for everybody.

use fastrand::Rng;

/// A span as every encoding gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SyntheticSpan {
    /// Trace id.
    pub(crate) trace: [u8; 16],
    /// Random span id, as OpenTelemetry SDKs make them.
    pub(crate) id: [u8; 8],
    /// Index of the parent.
    pub(crate) parent: Option<usize>,
    /// Name.
    pub(crate) name: &'static str,
    /// Begin, ns since the Unix epoch.
    pub(crate) start_unix_ns: i64,
    /// End, ns since the Unix epoch.
    pub(crate) end_unix_ns: i64,
    /// Attributes.
    pub(crate) fields: Fields,
}

/// Attributes in order.
pub(crate) type Fields = Vec<(&'static str, Field)>;

/// An attribute value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    /// A count.
    Int(i64),
    /// A measure.
    Float(f64),
    /// A text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

/// Twelve spans for each of `requests` requests, 500 requests a second, the same every time.
pub(crate) fn spans(requests: u64) -> Vec<SyntheticSpan> {
    let mut maker =
        Maker { rng: Rng::with_seed(SEED), spans: Vec::new(), now_unix_ns: BEGIN_UNIX_NS };
    for number in 0..requests {
        maker.now_unix_ns += maker.log_normal(2e6, 1.2);
        maker.request(number);
    }
    maker.spans
}

struct Maker {
    rng: Rng,
    spans: Vec<SyntheticSpan>,
    now_unix_ns: i64,
}

impl Maker {
    fn request(&mut self, number: u64) {
        let started = self.now_unix_ns;
        let query = self.query();
        let query_tokens = query.len() as i64 / 5;
        let fields = vec![
            ("run", Field::Text(format!("0190b5f0-7c1e-7d3a-9a55-3f2f6f0c{:04x}", number / 5000))),
            ("tenant", Field::Text(format!("tenant-{}", self.skewed(200)))),
            ("query", Field::Text(query)),
            ("session", Field::Int(self.rng.i64(0..100_000))),
        ];
        let root = self.root(started, fields);
        let mut clock = started + self.log_normal(40e3, 0.5);
        clock = self.retrieve(root, clock, query_tokens);
        clock = self.generate(root, clock);
        let fields = vec![
            ("citations", Field::Int(self.rng.i64(0..5))),
            ("faithful", Field::Float((self.rng.f64() * 1000.0).round() / 1000.0)),
        ];
        let duration_ns = self.log_normal(2e6, 0.4);
        clock = self.child(root, "post.check", (clock, duration_ns), fields);
        if let Some(root) = self.spans.get_mut(root) {
            root.end_unix_ns = clock + 20_000;
        }
    }

    /// Embedding, searching, reranking four documents. Gives the time afterwards, as all stages.
    fn retrieve(&mut self, root: usize, mut clock: i64, query_tokens: i64) -> i64 {
        let fields =
            vec![("model", text("bge-m3")), ("input_tokens", Field::Int(8 + query_tokens))];
        let duration_ns = self.log_normal(8e6, 0.3);
        clock = self.child(root, "rag.embed", (clock, duration_ns), fields);
        let fields = vec![
            ("index", text("docs-v2")),
            ("top_k", Field::Int(8)),
            ("ef", Field::Int(64)),
            ("candidates", Field::Int(40 + self.skewed(200))),
        ];
        let duration_ns = self.log_normal(4e6, 0.5);
        clock = self.child(root, "vector.search", (clock, duration_ns), fields);
        for chunk in 0..4 {
            let fields = vec![
                ("doc", Field::Int(self.skewed(1 << 20))),
                ("score", Field::Float(self.rng.f64())),
                ("chunk", Field::Int(chunk)),
            ];
            let duration_ns = self.log_normal(1.5e6, 0.3);
            clock = self.child(root, "rerank.doc", (clock, duration_ns), fields);
        }
        clock
    }

    /// Building the prompt, the call, its first token and a tool it uses.
    fn generate(&mut self, root: usize, mut clock: i64) -> i64 {
        let input = self.log_normal(900.0, 0.4);
        let output = self.log_normal(220.0, 0.6);
        let fields = vec![
            ("template", text("qa-v3")),
            ("input_tokens", Field::Int(input)),
            ("n_docs", Field::Int(4)),
        ];
        let duration_ns = self.log_normal(90e3, 0.4);
        clock = self.child(root, "prompt.build", (clock, duration_ns), fields);
        let first_token_ns = self.log_normal(180e6, 0.4);
        let duration_ns = first_token_ns + output * self.log_normal(12e6, 0.2);
        let model = if self.rng.u8(0..4) == 0 { "gpt-4o-mini" } else { "llama-3.1-70b" };
        let finish = if self.rng.u8(0..20) == 0 { "length" } else { "stop" };
        let cost = (input as f64 * 0.15 + output as f64 * 0.6) / 1e6;
        let fields = vec![
            ("model", text(model)),
            ("input_tokens", Field::Int(input)),
            ("output_tokens", Field::Int(output)),
            ("temperature", Field::Float(0.2)),
            ("finish", text(finish)),
            ("cost", Field::Float(cost)),
        ];
        let call = self.spans.len();
        let after = self.child(root, "llm.generate", (clock, duration_ns), fields);
        let fields = vec![("ttft_us", Field::Int(first_token_ns / 1000))];
        self.child(call, "llm.first_token", (clock, first_token_ns), fields);
        let tool = ["sql", "search", "calc"].get(self.rng.usize(0..3)).copied();
        let fields = vec![
            ("tool", text(tool.unwrap_or("sql"))),
            ("args_len", Field::Int(40 + self.skewed(400))),
            ("ok", Field::Flag(self.rng.u8(0..50) != 0)),
        ];
        let duration_ns = self.log_normal(20e6, 0.8).min(duration_ns - first_token_ns);
        self.child(call, "tool.call", (clock + first_token_ns, duration_ns), fields);
        after
    }

    fn root(&mut self, start_unix_ns: i64, fields: Fields) -> usize {
        let span = SyntheticSpan {
            trace: self.rng.u128(1..).to_le_bytes(),
            id: self.rng.u64(1..).to_le_bytes(),
            parent: None,
            name: "rag.request",
            start_unix_ns,
            end_unix_ns: start_unix_ns,
            fields,
        };
        self.spans.push(span);
        self.spans.len() - 1
    }

    /// A span below `parent` at `(start, duration)`; gives the time at which the next may begin.
    fn child(
        &mut self,
        parent: usize,
        name: &'static str,
        (start_unix_ns, duration_ns): (i64, i64),
        fields: Fields,
    ) -> i64 {
        let end_unix_ns = start_unix_ns + duration_ns;
        let span = SyntheticSpan {
            trace: self.spans.get(parent).map_or([0; 16], |parent| parent.trace),
            id: self.rng.u64(1..).to_le_bytes(),
            parent: Some(parent),
            name,
            start_unix_ns,
            end_unix_ns,
            fields,
        };
        self.spans.push(span);
        end_unix_ns + self.rng.i64(500..8000)
    }

    /// Box and Muller's transform.
    fn log_normal(&mut self, median: f64, sigma: f64) -> i64 {
        let radius = (-2.0 * self.rng.f64().max(1e-12).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.rng.f64();
        (median * (sigma * radius * angle.cos()).exp()) as i64
    }

    /// Below `limit`, small values much more often (about Zipf).
    fn skewed(&mut self, limit: u32) -> i64 {
        (f64::from(limit).powf(self.rng.f64()) - 1.0) as i64
    }

    fn query(&mut self) -> String {
        let words = self.rng.usize(8..16);
        let picked = (0..words).filter_map(|_| self.rng.choice(WORDS));
        picked.collect::<Vec<_>>().join(" ")
    }
}

fn text(value: &str) -> Field {
    Field::Text(value.to_owned())
}

/// Instrumentation scope of all spans.
pub(crate) const TARGET: &str = "rag::pipeline";
const SEED: u64 = 0x5eed;
const BEGIN_UNIX_NS: i64 = 1_790_000_000_000_000_000;
const WORDS: [&str; 50] = [
    "tenant",
    "key",
    "rotate",
    "policy",
    "refund",
    "enterprise",
    "index",
    "recall",
    "filter",
    "vector",
    "latency",
    "incident",
    "report",
    "retention",
    "job",
    "approve",
    "rate",
    "limiter",
    "schema",
    "contract",
    "invoice",
    "region",
    "backup",
    "token",
    "prompt",
    "model",
    "cache",
    "shard",
    "replica",
    "timeout",
    "how",
    "do",
    "I",
    "the",
    "a",
    "for",
    "what",
    "is",
    "when",
    "does",
    "explain",
    "list",
    "of",
    "in",
    "with",
    "and",
    "to",
    "why",
    "which",
    "between",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two runs of the generator are compared by a reader of two result files.
    #[test]
    fn the_workload_is_the_same_every_time_and_its_trees_are_sound() {
        let spans = spans(50);
        assert_eq!(spans, super::spans(50));
        assert_eq!(spans.len(), 50 * 12);
        for span in &spans {
            assert!(span.end_unix_ns >= span.start_unix_ns, "{span:?}");
            if let Some(parent) = span.parent.and_then(|at| spans.get(at)) {
                assert_eq!(parent.trace, span.trace);
                assert!(parent.start_unix_ns <= span.start_unix_ns, "{span:?}");
                assert!(parent.end_unix_ns >= span.end_unix_ns, "{span:?}");
            }
        }
    }
}
