//! The verbs and their options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use retake_schemas::event::Capture;

use crate::complete;
use crate::failure::EXIT_CODES;
use crate::quantity::parse_memory;
use crate::terminal::ColorArg;

mod fake;
mod gate;
mod model;
mod rag;
mod receive;
mod replay;
mod sweep;
mod upkeep;
mod why;
mod workload;

pub(crate) use fake::FakeServer;
pub(crate) use gate::{Baseline, BaselineAction, Check, Doctor, Inconclusive, Trend};
pub(crate) use model::{Model, ModelCheck, ModelFit, Modelled};
pub(crate) use rag::{CacheAction, CachePart, RagFetch, RagFolder};
pub(crate) use receive::{Export, Import, Proxy, Received, Record, Serve, SignalArg};
pub(crate) use replay::{
    ArrivalArg, ClockArg, LlmSource, MissArg, Replay, ReplayArgs, ReplayVerify,
};
pub(crate) use sweep::{HalvingArg, Sweep};
pub(crate) use upkeep::{Compact, Gc, Pull, Push, Recover, Verify};
pub(crate) use why::{BubbleUp, Explain, WhatIf};
pub(crate) use workload::{StampsArg, Workload, WorkloadImport, WorkloadScale};

/// Flight recorder and replay bench for RAG and LLM pipelines.
#[derive(Debug, Parser)]
#[command(name = "retake", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Folder of the store; for `runs` also the URL of copies
    /// [default: $RETAKE_STORE, else a `.retake` found upward, else ./.retake]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Output format [default: table on a terminal]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// When to use colours [default: auto, which heeds NO_COLOR and CLICOLOR_FORCE]
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) color: ColorArg,
    /// Configuration file [default: `retake.toml` found upward]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// No progress, no messages; only results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for more still
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document with a `schema_version`.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values.
    Csv,
    /// A Markdown table.
    Markdown,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// The main job end to end, offline: ingest, ask, record, break down, replay, diff, report
    #[command(after_help = "Example: retake demo --docs docs --out demo-out")]
    Demo(Demo),
    /// The built-in RAG pipeline, always recorded as a run
    #[command(subcommand)]
    Rag(Rag),
    /// Run a program in any language and record what its OpenTelemetry instrumentation sends
    #[command(after_help = "Example: retake record -- python app.py")]
    Record(Record),
    /// Receive OpenTelemetry from many programs and record it, run after run
    #[command(after_help = "Example: retake serve --capture full")]
    Serve(Serve),
    /// Stand between a program and an OpenAI-compatible service, and record the calls that pass
    #[command(after_help = "Example: retake proxy --to https://api.openai.com")]
    Proxy(Proxy),
    /// A model server for tests, demos and load: OpenAI's interface, with latency and failures as set
    #[command(
        after_help = "Example: retake fake-server --ttft-ms 80 --inter-token-ms 5 --jitter 0.3 \
                      --fail-rate 0.05 --fail 503,reset"
    )]
    FakeServer(FakeServer),
    /// Read OTLP files into a run
    #[command(after_help = "Example: retake import traces.jsonl --run yesterday")]
    Import(Import),
    /// The run history
    Runs(Runs),
    /// Where the time, tokens, money and errors of a run went
    #[command(after_help = "Example: retake breakdown last --by stage,model")]
    Breakdown(Breakdown),
    /// A run while it is being recorded: stages, rates and percentiles of the last seconds
    #[command(after_help = "Example: retake top")]
    Top(Top),
    /// One trace as a waterfall in the terminal
    #[command(after_help = "Example: retake trace slowest")]
    Trace(Trace),
    /// Runs compared, stage by stage
    #[command(after_help = "Example: retake diff last~1 last\n         \
                      retake diff baseline:main \'nightly*5\'")]
    Diff(Diff),
    /// Why runs differ: what got worse, the stages it comes from, and what else is not the same
    #[command(after_help = "Example: retake explain baseline:main last")]
    Explain(Explain),
    /// What slow, failed or otherwise odd traces have in common that others have not
    #[command(after_help = "Example: retake bubble-up last --where 'errors > 0'")]
    BubbleUp(BubbleUp),
    /// What traces would take if a stage were faster, and which stage is worth it
    #[command(after_help = "Example: retake what-if last 'llm*0.5'")]
    WhatIf(WhatIf),
    /// The gate: does a run keep to its budgets, and did it get worse than its baseline?
    #[command(after_help = "Example: retake check last --baseline baseline:main --github")]
    Check(Check),
    /// The runs that others are compared with
    #[command(after_help = "Example: retake baseline set main \'nightly*10\'")]
    Baseline(Baseline),
    /// A metric over the history of runs, and where its level changed
    #[command(after_help = "Example: retake trend \"p95(duration)\" --by stage")]
    Trend(Trend),
    /// SQL over the run history
    #[command(
        after_help = "Example: retake sql \"select stage, count(*), approx_percentile_cont(duration_ns, 0.95) \
                      from spans group by stage\""
    )]
    Sql(Sql),
    /// Re-execute the workload of a recorded run with changed settings
    #[command(subcommand)]
    Replay(Replay),
    /// One workload under many settings: predicted, measured in interleaved order, and judged
    #[command(
        after_help = "Example: retake sweep last --set embed.batch_size=1,4,16,64 -o sweep.svg"
    )]
    Sweep(Sweep),
    /// Workloads as files: imported from public traces, cut out of runs, sampled, scaled
    #[command(subcommand)]
    Workload(Workload),
    /// Models of services for virtual time: fitted to a recording, held against one
    #[command(subcommand)]
    Model(Model),
    /// One self-contained HTML file about a run, alone or against another
    #[command(after_help = "Example: retake report last --output report.html")]
    Report(Report),
    /// A run as a file for Perfetto, chrome://tracing or OpenTelemetry tools
    #[command(after_help = "Example: retake export last --to perfetto -o run.pftrace")]
    Export(Export),
    /// Check every file of the store against its digest; nothing is changed
    #[command(after_help = "Example: retake verify last")]
    Verify(Verify),
    /// Repair runs whose process died, and finish what was cut short
    #[command(after_help = "Example: retake recover --format json")]
    Recover(Recover),
    /// Merge the segments of finished runs into few large files
    #[command(after_help = "Example: retake compact last")]
    Compact(Compact),
    /// Remove runs by age, number or size
    #[command(after_help = "Example: retake gc --older-than 30d --keep-last 100 --dry-run")]
    Gc(Gc),
    /// Copy finished runs to another folder or to object storage
    #[command(after_help = "Example: retake push last s3://bucket/retake")]
    Push(Push),
    /// Fetch copies of runs
    #[command(after_help = "Example: retake pull s3://bucket/retake last")]
    Pull(Pull),
    /// Write a commented `retake.toml`, budgets and a CI workflow for the project here
    #[command(after_help = "Example: retake init --dry-run")]
    Init(Init),
    /// Is the store sound, is the machine fit, does the gate cry wolf?
    #[command(after_help = "Example: retake doctor\n         \
                      retake doctor --aa \'nightly*20\'")]
    Doctor(Doctor),
    /// Show the settings in force and where each came from
    Config(Config),
    /// Shell completions
    #[command(
        after_help = "Example: retake completions bash > ~/.local/share/bash-completion/completions/retake"
    )]
    Completions(Completions),
    /// Manual pages, into a folder
    Man(Man),
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Documents to ingest [default: the `docs` folder here, else documents that come with retake]
    #[arg(long, value_name = "PATH")]
    pub(crate) docs: Option<PathBuf>,
    /// Folder for the demo's store and report
    #[arg(long, value_name = "DIR", default_value = "retake-demo")]
    pub(crate) out: PathBuf,
    /// Change a setting of the pipeline, such as `embed.provider=minilm`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Settings of the built-in pipeline, for one command.
#[derive(Debug, Clone, Args)]
pub(crate) struct RagArgs {
    /// Change a setting, such as `embed.batch_size=64`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Name of the run
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Label of the run; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// How much content the run keeps; replays need `full`
    #[arg(long, value_name = "POLICY", value_parser = parse_capture)]
    pub(crate) capture: Option<Capture>,
}

pub(crate) fn parse_capture(text: &str) -> Result<Capture, String> {
    Capture::ALL
        .into_iter()
        .find(|capture| capture.as_str() == text)
        .ok_or_else(|| "expected off, digest, redacted or full".to_owned())
}

/// The built-in pipeline.
#[derive(Debug, Subcommand)]
pub(crate) enum Rag {
    /// Load, chunk, embed and store documents; what is stored unchanged is not done again
    #[command(after_help = "Example: retake rag ingest docs --set embed.batch_size=64")]
    Ingest {
        /// Folders and files: Markdown, HTML, text, and what `load.formats` adds; .gitignore is respected
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        rag: RagArgs,
    },
    /// Answer a question from the ingested documents
    #[command(after_help = "Example: retake rag ask \"What is a run?\" --set retrieve.top_k=8")]
    Ask {
        /// The question
        question: String,
        /// JSON Schema that the answer has to satisfy; it is then JSON
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        #[command(flatten)]
        rag: RagArgs,
    },
    /// Answer many questions and measure retrieval and answers against what is known
    #[command(
        after_help = "Example: retake rag eval questions.jsonl --output results.jsonl\n         \
                      retake rag eval questions.jsonl --vary rerank.provider=none,bm25 --vary retrieve.top_k=2,5"
    )]
    Eval {
        /// JSON lines: `question`, and as far as known `id`, `answers`, `references`; with `response`, only
        /// judged
        questions: PathBuf,
        /// JSON lines with one result each; an existing file is continued. With `--vary`, a folder with a
        /// file for each combination
        #[arg(long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// A setting and its values, such as `rerank.provider=none,bm25`; several make a grid, and every
        /// combination is evaluated and compared in one table
        #[arg(long, value_name = "NAME=V1,V2,...")]
        vary: Vec<String>,
        #[command(flatten)]
        rag: RagArgs,
    },
    /// Fetch pages of the web into a folder, many at a time, each with a result of its own
    #[command(
        after_help = "Example: retake rag fetch https://example.org/a https://example.org/b --output pages"
    )]
    Fetch(RagFetch),
    /// The caches of vectors and of answers: what they hold, cleared, made smaller
    #[command(after_help = "Example: retake rag cache evict --bytes 200MiB")]
    Cache {
        #[command(subcommand)]
        action: Option<CacheAction>,
    },
    /// Save documents, vectors and caches into a folder that is complete or not there
    #[command(after_help = "Example: retake rag save backup-monday")]
    Save(RagFolder),
    /// Put back what `rag save` saved, also into another database
    #[command(
        after_help = "Example: retake rag restore backup-monday --set vectors.url=postgres://user@host/db"
    )]
    Restore(RagFolder),
}

/// Options of `runs`.
#[derive(Debug, Args)]
pub(crate) struct Runs {
    #[command(subcommand)]
    pub(crate) action: Option<RunsAction>,
}

/// What to do with the history.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsAction {
    /// Everything known of one run
    Show {
        /// The run: id, unique prefix, name, `last`, `last~1`, `label:key=value`
        #[arg(add = complete::one_run())]
        run: String,
    },
    /// Add or change labels of a run
    Label {
        /// The run
        #[arg(add = complete::one_run())]
        run: String,
        /// Labels
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Remove a run
    Rm {
        /// The run
        #[arg(add = complete::one_run())]
        run: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Options of `breakdown`.
#[derive(Debug, Args)]
pub(crate) struct Breakdown {
    /// The run
    #[arg(default_value = "last", add = complete::one_run())]
    pub(crate) run: String,
    /// Group by: stage, model, kind, name, service, provider, status; comma-separated
    #[arg(long, value_name = "KEYS", default_value = "stage", add = complete::group_keys())]
    pub(crate) by: String,
    /// Also the share of traces that are good enough, such as "ttft < 800ms and e2e < 2s"
    #[arg(long, value_name = "CONDITION")]
    pub(crate) slo: Option<String>,
}

/// Options of `trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// A trace id or a unique prefix of one, `slowest`, `failed`, or `list`
    #[arg(default_value = "list", add = complete::traces())]
    pub(crate) trace: String,
    /// The run
    #[arg(long, default_value = "last", add = complete::one_run())]
    pub(crate) run: String,
    /// Show at most so many spans, or traces of a list
    #[arg(long, default_value_t = 60)]
    pub(crate) most: usize,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The runs to compare against: a run, `NAME*5` for the five youngest of a name (`label:k=v*5`,
    /// `last*5` too), `baseline:NAME`, or several of these separated by commas
    #[arg(add = complete::some_runs())]
    pub(crate) base: String,
    /// The runs under question
    #[arg(default_value = "last", add = complete::some_runs())]
    pub(crate) candidate: String,
    /// Exit with 10 when the candidate is worse, 20 when the data cannot tell
    #[arg(long)]
    pub(crate) fail_on_regression: bool,
}

/// Options of `sql`.
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// The query; without one, an interactive shell (or queries from standard input)
    pub(crate) query: Option<String>,
    /// Read queries from a file, separated by `;`
    #[arg(long, short, value_name = "FILE", conflicts_with = "query")]
    pub(crate) file: Option<PathBuf>,
    /// Only these runs; may be repeated [default: all]
    #[arg(long, value_name = "RUN", add = complete::one_run())]
    pub(crate) run: Vec<String>,
    /// Memory that queries may take; sorts and aggregations beyond it use temporary files
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = parse_memory)]
    pub(crate) memory: usize,
    /// Say on stderr how long each statement took
    #[arg(long)]
    pub(crate) timing: bool,
    /// List tables, views and functions with their meaning
    #[arg(long, conflicts_with_all = ["query", "file"])]
    pub(crate) reference: bool,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The run
    #[arg(default_value = "last", add = complete::one_run())]
    pub(crate) run: String,
    /// A run to compare it against
    #[arg(add = complete::one_run())]
    pub(crate) base: Option<String>,
    /// Budgets to show [default: `budgets.toml` found upward]
    #[arg(long, value_name = "FILE")]
    pub(crate) budgets: Option<PathBuf>,
    /// Show prompts, answers and other texts that were kept (`--capture full`)
    #[arg(long)]
    pub(crate) with_text: bool,
    /// Where to write
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The run [default: the youngest that is being recorded]
    #[arg(add = complete::one_run())]
    pub(crate) run: Option<String>,
    /// How far back to look, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) window: u32,
    /// How often to look, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) every: u32,
    /// Look once and end
    #[arg(long)]
    pub(crate) once: bool,
}

/// Options of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The project's folder
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the files and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Options of `config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Show where each value came from
    #[arg(long)]
    pub(crate) explain: bool,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder for the pages
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
