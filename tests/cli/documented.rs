//! Every command that README and docs show, executed as it stands there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::replay_service::{Service, record_through_proxy};
use crate::support::Bench;
use crate::workload::AZURE;

/// A store with the runs that the documentation speaks of, beside the files it names.
struct World {
    bench: Bench,
    service: Service,
}

impl World {
    fn new() -> Self {
        let bench = Bench::with_documents();
        let questions: String = (0..8)
            .map(|n| {
                let question = serde_json::json!({
                    "question": format!("Which keeper lit lantern number {n}?"),
                    "references": [{"document": "skerryvore.md", "start_index": 0, "end_index": 60}],
                });
                format!("{question}\n")
            })
            .collect();
        bench.write("q.jsonl", &questions);
        bench.write("questions.jsonl", questions);
        let budget =
            "version = 1\n[[budget]]\nname = \"e2e\"\nmetric = \"p95(e2e)\"\nmax = \"10s\"\n";
        let price = |model: &str| format!("[prices.{model}]\ninput = 1\noutput = 2\n");
        bench.write("retake.toml", ["extractive-1", "hashing-384", "m-1"].map(price).concat());
        bench.write("budgets.toml", budget);
        bench.write("ci/budgets.toml", budget);
        let span = crate::receive::span(1, None, "LLM");
        bench.write("traces.jsonl", crate::receive::request("shop", &[span]));
        // Programs that the documentation records, whatever they are written in.
        for (program, text) in [("python", "echo hello"), ("node", "echo hello")] {
            let path = bench.write(&format!("bin/{program}"), format!("#!/bin/sh\n{text}\n"));
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("a program");
        }
        bench.write("azure.csv", AZURE);
        let packed = bench.program("gzip").args(["-k", "azure.csv"]).status();
        assert!(packed.expect("gzip").success());
        let (from, to) = ("azure.csv.gz", "AzureLLMInferenceTrace_conv.csv.gz");
        std::fs::rename(bench.path(from), bench.path(to)).expect("a rename");
        let linear = r#"{"base_ns": 3e7, "input_token_ns": 8e4, "output_token_ns": 1.13e7}"#;
        let stage = format!(r#"{{"stage": "llm", "slots": 1, "service": {{"linear": {linear}}}}}"#);
        bench.write("model.json", format!(r#"{{"stages": [{stage}]}}"#));

        let service = Service::start();
        for (name, runs) in [("before", 5), ("after", 5), ("pr-412", 5), ("nightly", 6)] {
            (0..runs).for_each(|_| evaluate(&bench, name));
        }
        bench.retake(["baseline", "set", "main", "nightly*10"]).expect_code(0);
        Self { bench, service }
    }

    /// Changes every document, so that an ingestion has work to do.
    fn edit_documents(&self) {
        for path in crate::support::files_below(&self.bench.path("docs")) {
            let mut text = std::fs::read_to_string(&path).expect("a document");
            text.push_str("\nSeen again.\n");
            std::fs::write(&path, text).expect("a document");
        }
    }

    /// Executes a line in a shell, with what this machine has instead of what the line names.
    fn execute(&self, page: &str, line: &str) {
        if line.starts_with("retake proxy") && line.contains("--run app") {
            // A program asks through it.
            return record_through_proxy(&self.bench, &self.service);
        }
        if line.starts_with("retake rag ingest") {
            self.edit_documents();
        }
        let url = self.service.url();
        let mut shown = line
            .replace("http://127.0.0.1:8000", &url)
            .replace("http://127.0.0.1:8319", &url)
            .replace("https://example.org", &url)
            .replace("--listen 127.0.0.1:8319 ", "");
        let mut packages = String::new();
        if shown.contains(LLAMAINDEX) {
            // An app that runs for real, where what it needs is installed.
            let Some((python, found)) = crate::apps::python() else { return };
            let root = env!("CARGO_MANIFEST_DIR");
            let real = format!("'{python}' {root}/examples/llamaindex/");
            (shown, packages) = (shown.replace(LLAMAINDEX, &real), found);
        }
        let listens = ["serve", "proxy", "fake-server"]
            .iter()
            .find(|verb| line.starts_with(&format!("retake {verb}")));
        if let Some(verb) = listens {
            let (command, _) = shown.split_once(" #").unwrap_or((&shown, ""));
            let grpc = if *verb == "serve" { " --grpc 127.0.0.1:0" } else { "" };
            // It listens until somebody ends it.
            shown = format!(
                "timeout --foreground --preserve-status -s INT 1 {} --listen 127.0.0.1:0{grpc}",
                command.trim()
            );
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_retake"));
        let folder = program.parent().expect("its folder");
        let path = format!(
            "{}:{}:{}",
            self.bench.path("bin").display(),
            folder.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = self.bench.program("bash");
        command.args(["-c", &shown]).env("PATH", path);
        if !packages.is_empty() {
            command.env("PYTHONPATH", packages);
        }
        let output = assert_cmd::Command::from_std(command)
            .timeout(Duration::from_secs(120))
            .output()
            .expect("a shell");
        let code = output.status.code().unwrap_or(-1);
        assert!(
            allowed(line).contains(&code),
            "{page}: {line}\nended with {code}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A run of some questions, reranked.
fn evaluate(bench: &Bench, name: &str) {
    let asked = ["rag", "eval", "questions.jsonl", "--run", name, "--capture", "full"];
    let reranked = ["--set", "rerank.provider=bm25", "--quiet"];
    bench.retake([asked.as_slice(), &reranked].concat()).expect_code(0);
}

/// Exit codes that are answers and no failures.
fn allowed(line: &str) -> &'static [i32] {
    let begins = |verb: &str| line.starts_with(&format!("retake {verb}"));
    match () {
        () if begins("check") => &[0, 10, 11, 12, 20],
        () if line.contains("--fail-on-change") => &[0, 10],
        // Only what was cut short can go on. The timing of a replay is as good as the machine is
        // idle, and so is what a sweep can tell apart.
        () if begins("replay run") && line.contains("--resume") => &[0, 2],
        () if begins("replay run") => &[0, 31],
        () if begins("sweep") => &[0, 31, 32],
        // The proxy's run has fewer calls than say anything.
        () if begins("model fit") => &[0, 30],
        // Nothing need be recorded at this moment.
        () if begins("top") => &[0, 3],
        // What a plan finds impossible is its answer.
        () if begins("replay plan") => &[0, 30],
        // No request need have failed, or waited so long.
        () if begins("bubble-up") && line.contains("--where") => &[0, 3],
        () => &[0],
    }
}

/// The command lines of a page, outside of files of other programs.
fn commands(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page");
    let mut found = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let Some((language, lines)) = block.split_once('\n') else { continue };
        if !matches!(language.trim(), "" | "sh" | "bash") {
            continue;
        }
        let joined = lines.replace("\\\n", " ");
        found.extend(
            joined
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with("retake "))
                .map(str::to_owned),
        );
    }
    found
}

fn execute(pages: &[&str]) {
    let world = World::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut executed = 0;
    for page in pages {
        // Whoever opens a page has a run worth looking at.
        evaluate(&world.bench, "nightly");
        for line in commands(&root.join(page)) {
            world.execute(page, &line);
            executed += 1;
        }
    }
    assert!(executed > 0, "no command in {pages:?}");
}

/// How the documentation starts an app of LlamaIndex.
const LLAMAINDEX: &str = "python examples/llamaindex/";
/// Pages about replay, which take longest.
const OF_REPLAY: [&str; 1] = ["docs/replay.md"];

/// Scenario: a newcomer types what the README shows, from top to bottom.
/// Guarantees: every command works as it stands.
#[test]
fn commands_of_the_readme_work() {
    execute(&["README.md"]);
}

/// Scenario: the same with each page about replay.
#[test]
fn commands_about_replay_work() {
    execute(&OF_REPLAY);
}

/// Scenario: the same with every other page of docs/.
/// Guarantees: no page is left out.
#[test]
fn commands_of_the_pages_work() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages: Vec<String> = std::fs::read_dir(folder)
        .expect("docs/")
        .map(|entry| format!("docs/{}", entry.expect("an entry").file_name().display()))
        .filter(|name| name.ends_with(".md") && !OF_REPLAY.contains(&name.as_str()))
        .collect();
    pages.sort();
    assert!(pages.len() > 15, "{pages:?}");
    execute(&pages.iter().map(String::as_str).collect::<Vec<_>>());
}
