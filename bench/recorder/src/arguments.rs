//! The command line, for people and for the parent that starts children.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::case::{Case, Measure, Section, Variant, word};
use crate::measures::Effort;

/// Measures retake's recorder and its peers, interleaved, and judges the goals.
#[derive(Debug, Parser)]
#[command(name = "recorder-bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// What a child process is asked for; people leave it out.
    #[command(subcommand)]
    pub(crate) child: Option<Child>,
    /// What to run.
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

/// What people ask for.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Sections to run; all if none is named.
    #[arg(value_enum)]
    pub(crate) sections: Vec<Section>,
    /// Rounds; each runs every case once, in an order of its own.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Only these variants, and the reference.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Variant>,
    /// Where the result file goes.
    #[arg(long, default_value = "bench/out/recorder.json")]
    pub(crate) out: PathBuf,
    /// Print Markdown instead of tables for the terminal.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// How, for children too.
    #[command(flatten)]
    pub(crate) shared: SharedArguments,
}

/// What children are told as well.
#[derive(Debug, Clone, Args)]
pub(crate) struct SharedArguments {
    /// Short runs, to see that everything works; do not write these figures down.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Folder on a disk for stores and peers' files; they are removed afterwards.
    #[arg(long, default_value = "bench/out/scratch")]
    pub(crate) scratch: PathBuf,
}

/// Commands of the parent.
#[derive(Debug, Subcommand)]
pub(crate) enum Child {
    /// Measures one case in this process and prints one JSON line.
    #[command(hide = true)]
    Child(CaseArguments),
}

/// One case.
#[derive(Debug, Args)]
pub(crate) struct CaseArguments {
    /// How.
    #[arg(value_enum)]
    measure: Measure,
    /// Who.
    #[arg(value_enum)]
    variant: Variant,
    /// Application threads.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// retake's `record.sync_ms`.
    #[arg(long)]
    sync_ms: Option<u64>,
    /// The rest.
    #[command(flatten)]
    pub(crate) shared: SharedArguments,
}

impl CaseArguments {
    /// The case they name.
    pub(crate) const fn case(&self) -> Case {
        Case {
            measure: self.measure,
            variant: self.variant,
            threads: self.threads,
            sync_ms: self.sync_ms,
        }
    }
}

impl SharedArguments {
    /// How much to measure.
    pub(crate) const fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }
}

/// The command line of a child that measures `case`.
pub(crate) fn child_command_line(case: Case, shared: &SharedArguments) -> Vec<String> {
    let mut line = vec![
        "child".to_owned(),
        word(&case.measure),
        word(&case.variant),
        format!("--threads={}", case.threads),
        format!("--scratch={}", shared.scratch.display()),
    ];
    line.extend(case.sync_ms.map(|sync_ms| format!("--sync-ms={sync_ms}")));
    line.extend(shared.quick.then(|| "--quick".to_owned()));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the parent starts a child for every case there is.
    #[test]
    fn a_child_understands_the_case_its_parent_means() {
        let shared = SharedArguments { quick: true, scratch: PathBuf::from("a folder") };
        for section in [Section::Hot, Section::E2e, Section::Sync] {
            for case in section.cases() {
                let line = child_command_line(case, &shared);
                let words = std::iter::once("recorder-bench".to_owned()).chain(line);
                let parsed = Arguments::try_parse_from(words).unwrap();
                let Some(Child::Child(arguments)) = parsed.child else { panic!("no child") };
                assert_eq!(arguments.case(), case);
                assert!(arguments.shared.quick);
                assert_eq!(arguments.shared.scratch, PathBuf::from("a folder"));
            }
        }
    }
}
