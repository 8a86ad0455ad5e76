//! Completions that know the store: runs by id, name and label, baselines, traces.
//!
//! A shell asks the program itself (`RETAKE_COMPLETE=SHELL retake -- WORDS`), so what is offered is
//! what is there. Nothing is repaired or written while somebody presses a key, and whatever goes
//! wrong offers nothing: an error in the middle of a line that is being typed helps nobody.

mod bash;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use retake_recorder::Store;
use retake_recorder::store::RunEntry;
use retake_recorder::upkeep::gc::BASELINE_LABEL;
use retake_schemas::id::utc_text;

use crate::cli::Cli;
use crate::config;
use crate::output::inert;
use bash::Bash;

/// Answers a shell that asks for completions, and says whether one did.
pub(crate) fn answered() -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .shells(SHELLS)
        .try_complete(std::env::args_os(), here.as_deref())
}

/// The script that makes a shell ask.
///
/// # Errors
/// The name is no shell's, or writing fails.
pub(crate) fn script(shell: &str) -> std::io::Result<Vec<u8>> {
    let unknown = || std::io::Error::other(format!("no completions for {shell}"));
    let mut script = Vec::new();
    let adapter = SHELLS.completer(shell).ok_or_else(unknown)?;
    // The program is found on the path when it is asked, so an update is asked too.
    adapter.write_registration(VARIABLE, "retake", "retake", "retake", &mut script)?;
    Ok(script)
}

/// One run.
pub(crate) fn one_run() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offered(typed, selectors))
}

/// A set of runs: several selectors with commas between them, or a baseline.
pub(crate) fn some_runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let Some(typed) = typed.to_str() else { return Vec::new() };
        let before = typed.rfind(',').map_or(0, |comma| comma + 1);
        let (head, last) = typed.split_at(before);
        let prefixed = |candidate: CompletionCandidate| candidate.add_prefix(head);
        offered(OsStr::new(last), sets).into_iter().map(prefixed).collect()
    })
}

/// A baseline by its name.
pub(crate) fn baselines() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offered(typed, |runs| labelled(runs, BASELINE_LABEL, ""))
    })
}

/// What `retake trace` takes besides ids.
pub(crate) fn traces() -> ArgValueCompleter {
    words(&["slowest", "failed", "list"])
}

/// What `retake breakdown` groups by.
pub(crate) fn group_keys() -> ArgValueCompleter {
    words(&["stage", "model", "kind", "name", "service", "provider", "status"])
}

fn words(words: &'static [&'static str]) -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_str().unwrap_or_default();
        let fits = words.iter().filter(|word| word.starts_with(typed));
        fits.map(CompletionCandidate::new).collect::<Vec<_>>()
    })
}

/// Something to write, and what it stands for.
struct Offer {
    text: String,
    help: String,
}

impl Offer {
    fn new(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { text: text.into(), help: help.into() }
    }

    /// Names come from strangers: one with control characters is not put on a command line.
    fn is_harmless(&self) -> bool {
        !self.text.is_empty() && !self.text.contains(['\n', '\t']) && inert(&self.text) == self.text
    }
}

/// What of `make` begins with what is typed. Runs are those of the store that the line names.
fn offered(typed: &OsStr, make: impl Fn(&[RunEntry]) -> Vec<Offer>) -> Vec<CompletionCandidate> {
    let (Some(typed), Some(runs)) = (typed.to_str(), runs()) else { return Vec::new() };
    let mut seen: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for offer in make(&runs) {
        if offer.text.starts_with(typed) && offer.is_harmless() && !seen.contains(&offer.text) {
            let help = inert(&offer.help).replace(['\n', '\t'], " ");
            found.push(CompletionCandidate::new(offer.text.clone()).help(Some(help.into())));
            seen.push(offer.text);
        }
        if found.len() == OFFERED_MAX {
            break;
        }
    }
    found
}

/// The youngest runs of the store, youngest first.
fn runs() -> Option<Vec<RunEntry>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let loaded = || config::load(option(&words, "--config").as_deref());
    let configured = || loaded().unwrap_or_else(|_| config::defaults()).settings.store;
    let root = option(&words, "--store")
        .or_else(|| configured().map(PathBuf::from))
        .or_else(|| config::found_upward(".retake"))
        .unwrap_or_else(|| PathBuf::from(".retake"));
    let store = Store::open(&root).ok()?;
    let ids = store.run_ids().ok()?;
    let youngest = ids.into_iter().rev().take(RUNS_MAX);
    let entry = |run_id| RunEntry { manifest: store.manifest(&run_id), run_id };
    Some(youngest.map(entry).collect())
}

/// The value of an option on the line that is being typed.
fn option(words: &[OsString], name: &str) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_str()?;
        if text == name {
            return words.next().map(PathBuf::from);
        }
        if let Some(value) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(PathBuf::from(value));
        }
    }
    None
}

/// Whatever names one run.
fn selectors(runs: &[RunEntry]) -> Vec<Offer> {
    let told = |run: &RunEntry| match &run.manifest {
        Ok(manifest) => {
            let facts = &manifest.facts;
            format!(
                "{} {} {}",
                facts.name,
                utc_text(facts.started_unix_ns),
                manifest.status.as_str()
            )
        }
        Err(_) => "unreadable".to_owned(),
    };
    let mut offers = Vec::new();
    for (text, run) in ["last", "last~1"].into_iter().zip(runs) {
        offers.push(Offer::new(text, format!("{} {}", run.run_id, told(run))));
    }
    for manifest in runs.iter().filter_map(|run| run.manifest.as_ref().ok()) {
        offers.push(Offer::new(manifest.facts.name.clone(), "the youngest run of this name"));
    }
    offers.extend(runs.iter().map(|run| Offer::new(run.run_id.as_str(), told(run))));
    for manifest in runs.iter().filter_map(|run| run.manifest.as_ref().ok()) {
        let labels = manifest.facts.labels.iter().filter(|(key, _)| *key != BASELINE_LABEL);
        let offer = |(key, value): (&String, &String)| {
            Offer::new(format!("label:{key}={value}"), "the youngest run with this label")
        };
        offers.extend(labels.map(offer));
    }
    offers
}

/// Whatever names several runs.
fn sets(runs: &[RunEntry]) -> Vec<Offer> {
    let mut offers = labelled(runs, BASELINE_LABEL, "baseline:");
    offers.extend(selectors(runs));
    offers
}

/// The values of a label.
fn labelled(runs: &[RunEntry], label: &str, prefix: &str) -> Vec<Offer> {
    let manifests = runs.iter().filter_map(|run| run.manifest.as_ref().ok());
    let values = manifests.filter_map(|manifest| manifest.facts.labels.get(label));
    values.map(|value| Offer::new(format!("{prefix}{value}"), "a baseline")).collect()
}

/// What a shell sets to ask; `COMPLETE`, as other programs have it, may be set for one of them.
const VARIABLE: &str = "RETAKE_COMPLETE";
const SHELLS: Shells<'static> = Shells(ADAPTERS);
const ADAPTERS: &[&dyn EnvCompleter] = &[&Bash, &Elvish, &Fish, &Powershell, &Zsh];
/// Manifests read for one key press: well below a tenth of a second.
const RUNS_MAX: usize = 200;
/// More is a list to scroll, not to choose from.
const OFFERED_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn options_are_found_wherever_they_stand() {
        let found = |line: &str| option(&words(line), "--store");
        assert_eq!(found("retake diff --store a/b last"), Some(PathBuf::from("a/b")));
        assert_eq!(found("retake --store=c diff"), Some(PathBuf::from("c")));
        assert_eq!(found("retake diff --stores x"), None);
        assert_eq!(found("retake diff --store"), None);
    }

    /// Guarantees: P2 - a run named by a stranger puts no control character on a command line.
    #[test]
    fn hostile_names_are_not_offered() {
        assert!(Offer::new("nightly build", "").is_harmless());
        for name in ["", "a\nb", "a\tb", "a\u{1b}[31m", "a\u{202e}b"] {
            assert!(!Offer::new(name, "").is_harmless(), "{name:?}");
        }
    }
}
