//! What every verb shares: the store, the settings, the output format.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use retake_analyzer::AnalyzerOptions;
use retake_recorder::Store;
use retake_recorder::remote::redact;
use retake_recorder::store::StoreError;
use retake_recorder::upkeep;
use retake_schemas::RunId;

use crate::cli::{Format, Global};
use crate::config::{self, Config};
use crate::failure::{Code, Failure};
use crate::output::inert;
use crate::terminal::{Look, Tone};
use crate::units::duration;

/// Shared by all verbs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    format: Option<Format>,
    store_root: PathBuf,
    is_store_named: bool,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        Ok(Self::with(global, config::load(global.config.as_deref())?))
    }

    /// With the defaults, for settings that cannot be read.
    pub(crate) fn without_settings(global: &Global) -> Self {
        Self::with(global, config::defaults())
    }

    fn with(global: &Global, config: Config) -> Self {
        let store_root = global
            .store
            .clone()
            .or_else(|| config.settings.store.clone().map(PathBuf::from))
            .or_else(|| config::found_upward(".retake"))
            .unwrap_or_else(|| PathBuf::from(".retake"));
        Self {
            is_store_named: global.store.is_some() || config.settings.store.is_some(),
            config,
            quiet: global.quiet,
            verbose: global.verbose,
            format: global.format,
            store_root,
        }
    }

    /// The store's folder, whether it is there or not.
    pub(crate) fn store_root(&self) -> &Path {
        &self.store_root
    }

    /// Whether somebody said where the store is.
    pub(crate) fn is_store_named(&self) -> bool {
        self.is_store_named
    }

    /// The same, with another store.
    pub(crate) fn with_store(mut self, root: PathBuf) -> Self {
        self.store_root = root;
        self
    }

    /// The same for one step of something that shows its own progress.
    pub(crate) fn silent(&self) -> Self {
        Self { quiet: true, ..self.clone() }
    }

    /// Opens the store to read from, repairing what dead processes left and saying so.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let store = self.store_untouched()?;
        self.repair(&store)?;
        Ok(store)
    }

    /// Opens the store to look at it as it is, without repairing anything.
    pub(crate) fn store_untouched(&self) -> Result<Store, Failure> {
        self.refuse_url()?;
        Ok(Store::open(&self.store_root)?)
    }

    /// The store, if it is a URL: copies of runs, elsewhere.
    pub(crate) fn store_url(&self) -> Option<&str> {
        self.store_root.to_str().filter(|text| text.contains("://"))
    }

    fn refuse_url(&self) -> Result<(), Failure> {
        let Some(url) = self.store_url() else { return Ok(()) };
        let url = redact(url);
        Err(Failure::new(Code::Usage, format!("open store {url}: it holds copies of runs")).help(
            format!("`retake runs --store {url}` lists them, `retake pull {url}` fetches them"),
        ))
    }

    /// Opens the store to record into, making it if need be.
    pub(crate) fn store_for_writing(&self) -> Result<Store, Failure> {
        self.refuse_url()?;
        let store = Store::create(&self.store_root)?;
        self.repair(&store)?;
        Ok(store)
    }

    fn repair(&self, store: &Store) -> Result<(), StoreError> {
        let outcome = store.recover()?;
        for report in &outcome.repaired {
            self.say(&report.to_string());
        }
        for (run_id, error) in &outcome.failed {
            self.warn(&format!("run {run_id} could not be repaired: {error}"));
        }
        let swept = upkeep::sweep(store)?;
        for failure in &swept.failed {
            self.warn(&format!("what a crash left could not be cleared: {failure}"));
        }
        Ok(())
    }

    /// The run a selector names.
    pub(crate) fn select(&self, store: &Store, selector: &str) -> Result<RunId, Failure> {
        Ok(store.select(selector)?)
    }

    /// Asks before something is lost; without a terminal nobody can answer, which is a no.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, Failure> {
        if !std::io::stdin().is_terminal() {
            return Ok(false);
        }
        write!(std::io::stderr(), "{} [y/N] ", inert(question))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Tells the user something on stderr.
    pub(crate) fn say(&self, message: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", inert(message));
        }
    }

    /// Shows a result on stderr, where stdout is somebody else's; it is inert already.
    pub(crate) fn show(&self, rendered: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", rendered.trim_end());
        }
    }

    /// How a result of this format is shown on stdout: Markdown has no colours.
    pub(crate) fn look(&self, format: Format) -> Look {
        let look = Look::of_stdout();
        Look { is_colored: look.is_colored && format != Format::Markdown, ..look }
    }

    /// Tells the user something that may matter to what they read on stdout.
    pub(crate) fn warn(&self, message: &str) {
        let sign = Look::of_stderr().paint("warning:", Tone::Warn);
        let _ = writeln!(std::io::stderr(), "{sign} {}", inert(message));
    }

    /// Says how long something took, also with `--quiet`: whoever asks for it wants it.
    pub(crate) fn report_time(&self, what: &str, took: Duration) {
        let took = duration(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX));
        let _ = writeln!(std::io::stderr(), "{what}: {took}");
    }

    /// The format asked for, else a table on a terminal and `natural` elsewhere.
    pub(crate) fn format_or(&self, natural: Format) -> Format {
        self.format.unwrap_or(if std::io::stdout().is_terminal() { Format::Table } else { natural })
    }

    /// How runs are opened for analysis: with the prices of the settings, and with the budget files
    /// of the folder where `retake check` finds them.
    pub(crate) fn analyzer_options(&self) -> AnalyzerOptions {
        let budgets = config::found_upward("budgets.toml");
        let beside = budgets.and_then(|path| path.parent().map(PathBuf::from));
        AnalyzerOptions {
            budget_folder: beside.or_else(|| std::env::current_dir().ok()),
            prices: self.config.settings.prices.clone(),
            keeps_history: true,
            ..AnalyzerOptions::default()
        }
    }

    /// The default vector store: a file beside the runs.
    pub(crate) fn default_sqlite(&self) -> PathBuf {
        self.store_root.join("rag.sqlite")
    }
}
