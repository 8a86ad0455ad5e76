//! The interactive shell of `retake sql`.
//!
//! ```text
//! editor (keys) -> statements -> answer (a query that Ctrl-C ends) -> deliver (screen, file)
//!                      `-------> command -> describe, chart
//! ```
//!
//! Nothing that goes wrong ends the shell, except that the terminal goes away.

mod answer;
mod chart;
mod command;
mod complete;
mod deliver;
mod describe;
mod editor;
mod lexer;
mod opened;
mod statements;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::Command as Process;
use std::time::Duration;

use retake_analyzer::AnalyzerOptions;
use retake_analyzer::Scope;
use retake_recorder::Store;

use crate::cli::Format;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;
use crate::render;
use crate::units::duration;
use answer::{Answer, Stop, ask};
use command::Command;
use deliver::Look;
use editor::{Editor, History, Input};
use opened::{Opened, Refresh};
pub(crate) use statements::split;

/// How the shell begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) store: Store,
    pub(crate) scope: Scope,
    pub(crate) options: AnalyzerOptions,
    pub(crate) is_timed: bool,
}

/// What the shell knows from one statement to the next.
struct Shell<'c> {
    context: &'c Context,
    opened: Opened,
    look: Look,
    is_timed: bool,
    /// Where the next result goes instead of onto the screen.
    output: Option<PathBuf>,
    last_query: Option<String>,
    last_answer: Option<Answer>,
    /// What stands at the next prompt.
    draft: String,
}

/// Whether the shell goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Prompt,
    Leave,
}

/// Reads and answers until the user leaves.
pub(crate) async fn run(context: &Context, start: Start) -> Result<(), Failure> {
    let opened = Opened::open(start.store, start.scope, start.options).await?;
    opened.analyzer.warnings().iter().for_each(|warning| context.warn(warning));
    let runs = opened.analyzer.runs().len();
    context.say(&format!("SQL over {runs} runs. \\? lists commands, \\d tables, \\q ends."));
    let mut editor = editor(context);
    let look = Look { format: context.format_or(Format::Table), is_expanded: false };
    let mut shell = Shell {
        context,
        opened,
        look,
        is_timed: start.is_timed,
        output: None,
        last_query: None,
        last_answer: None,
        draft: String::new(),
    };
    loop {
        let draft = std::mem::take(&mut shell.draft);
        let text = match editor.read(&draft, &shell.opened.names)? {
            Input::End => return Ok(()),
            Input::Interrupt => continue,
            Input::Text(text) => text,
        };
        if let Err(error) = editor.history.add(&text) {
            context.warn(&format!("the history is no longer kept: {error}"));
        }
        match shell.take(&text).await {
            Ok(Next::Leave) => return Ok(()),
            Ok(Next::Prompt) => {}
            Err(failure) => {
                let _ = failure.report();
            }
        }
    }
}

fn editor(context: &Context) -> Editor {
    let history = match editor::default_file().map(History::open) {
        Some(Ok(history)) => history,
        Some(Err(error)) => {
            context.warn(&format!("the history is not kept: {error}"));
            History::default()
        }
        None => History::default(),
    };
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Editor::new(history, !context.quiet && !no_colour)
}

impl Shell<'_> {
    /// Does what was typed.
    async fn take(&mut self, text: &str) -> Result<Next, Failure> {
        if statements::is_farewell(text) {
            return Ok(Next::Leave);
        }
        if !statements::is_command(text) {
            self.answer_all(text).await?;
            return Ok(Next::Prompt);
        }
        let (above, command) = statements::split_command(text);
        let command = command::parse(command);
        // What stands above a command is not lost by it, whatever the command says.
        if !matches!(command, Ok(Command::Edit | Command::Watch(_) | Command::Chart(_))) {
            above.trim_end().clone_into(&mut self.draft);
        }
        let command = command
            .map_err(|message| Failure::new(Code::Usage, format!("read the command: {message}")))?;
        self.obey(command, above).await
    }

    async fn obey(&mut self, command: Command, above: &str) -> Result<Next, Failure> {
        match command {
            Command::Quit => return Ok(Next::Leave),
            Command::Help => print(&describe::help())?,
            Command::Describe(name) => self.describe(name.as_deref())?,
            Command::Functions(wanted) => {
                let functions = self.opened.analyzer.functions();
                let width = editor::screen().0;
                print(&describe::functions(&functions, wanted.as_deref(), width))?;
            }
            Command::Runs => {
                self.refresh().await;
                let look = self.context.look(Format::Table);
                print(&render::runs(&self.opened.analyzer.runs(), Format::Table, look))?;
            }
            Command::Timing(wanted) => {
                self.is_timed = wanted.unwrap_or(!self.is_timed);
                self.say_switch("timing", self.is_timed);
            }
            Command::Expanded(wanted) => {
                self.look.is_expanded = wanted.unwrap_or(!self.look.is_expanded);
                self.say_switch("expanded rows", self.look.is_expanded);
            }
            Command::Format(wanted) => {
                self.look.format = wanted.unwrap_or(self.look.format);
                let format = clap::ValueEnum::to_possible_value(&self.look.format);
                let name = format.as_ref().map_or("", |format| format.get_name());
                self.context.say(&format!("format is {name}"));
            }
            Command::Output(file) => {
                self.context.say(&match &file {
                    Some(file) => format!("the next result goes to {}", file.display()),
                    None => "the next result goes to the screen".to_owned(),
                });
                self.output = file;
            }
            Command::Watch(pause) => self.watch(above, pause).await?,
            Command::Chart(shape) => {
                self.answer_above(above).await?;
                let answer = self.last_answer.as_ref().ok_or_else(nothing_yet)?;
                let width = editor::screen().0;
                match chart::draw(&answer.result, answer.rows, shape, width) {
                    Ok(picture) => print(&picture)?,
                    Err(reason) => {
                        return Err(Failure::new(Code::Usage, format!("draw: {reason}")));
                    }
                }
            }
            Command::Edit => {
                let query = match above.trim() {
                    "" => self.last_query.as_deref().unwrap_or_default(),
                    above => above,
                };
                self.draft = edited(query)?;
            }
            Command::Reopen => self.reopen().await?,
        }
        Ok(Next::Prompt)
    }

    fn describe(&self, name: Option<&str>) -> Result<(), Failure> {
        let relations = &self.opened.names.relations;
        let Some(name) = name else { return print(&describe::relations(relations)) };
        let found = relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(name));
        let relation = found.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("find table {name:?}")).help("\\d lists all")
        })?;
        print(&describe::relation(relation))
    }

    fn say_switch(&self, what: &str, is_on: bool) {
        self.context.say(&format!("{what} is {}", if is_on { "on" } else { "off" }));
    }

    /// Answers every statement, until one fails or is stopped.
    async fn answer_all(&mut self, text: &str) -> Result<(), Failure> {
        self.refresh().await;
        for statement in split(text) {
            let stop = pin!(interrupt());
            if !self.answer(statement, stop).await? {
                self.context.say("stopped");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers what stands above a command; nothing, if nothing does.
    async fn answer_above(&mut self, above: &str) -> Result<(), Failure> {
        if above.trim().is_empty() { Ok(()) } else { self.answer_all(above).await }
    }

    /// Answers a statement; whether it came to its end.
    async fn answer(&mut self, statement: &str, stop: Stop<'_>) -> Result<bool, Failure> {
        self.last_query = Some(format!("{statement};"));
        let is_cut = self.output.is_none() && std::io::stdout().is_terminal();
        let kept_max = if is_cut { ROWS_MAX } else { usize::MAX };
        let Some(answer) = ask(&self.opened.analyzer, statement, kept_max, stop).await else {
            return Ok(false);
        };
        let answer = answer?;
        match self.output.take() {
            Some(file) => self.context.say(&deliver::write_file(&answer, &file, self.look)?),
            None => deliver::show(&answer, self.look)?,
        }
        if self.is_timed {
            self.context.report_time("time", answer.took);
        }
        self.last_answer = Some(answer);
        Ok(true)
    }

    /// The last query again and again, until Ctrl-C.
    async fn watch(&mut self, above: &str, pause: Duration) -> Result<(), Failure> {
        let query = match split(above).last() {
            Some(above) => (*above).to_owned(),
            None => self.last_query.clone().ok_or_else(nothing_yet)?,
        };
        let query = query.trim_end_matches(';');
        let every = duration(i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX));
        self.context.say(&format!("every {every}; Ctrl-C ends"));
        let mut stop = pin!(interrupt());
        loop {
            self.refresh().await;
            if !self.answer(query, stop.as_mut()).await? {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.as_mut() => return Ok(()),
            }
        }
    }

    /// Looks for runs recorded meanwhile. That it fails must not keep the answer back.
    async fn refresh(&mut self) {
        match self.opened.refresh().await {
            Ok(refresh) => self.say_refresh(refresh),
            Err(error) => self.context.warn(&format!(
                "the store changed and cannot be opened anew, this is as it was: {error}"
            )),
        }
    }

    async fn reopen(&mut self) -> Result<(), Failure> {
        let refresh = self.opened.reopen().await?;
        self.opened.analyzer.warnings().iter().for_each(|warning| self.context.warn(warning));
        self.say_refresh(refresh);
        self.context.say(&format!("{} runs in scope", self.opened.analyzer.runs().len()));
        Ok(())
    }

    fn say_refresh(&self, refresh: Refresh) {
        match refresh {
            Refresh::Unchanged | Refresh::Reopened { came: 0, went: 0 } => {}
            Refresh::Reopened { came, went } => {
                let runs = self.opened.analyzer.runs().len();
                let went = if went > 0 { format!(", {went} went") } else { String::new() };
                self.context
                    .say(&format!("the store changed: {came} runs came{went}; {runs} in scope"));
            }
            Refresh::Stale => self.context.say("the store changed; \\reopen shows it as it is now"),
        }
    }
}

fn nothing_yet() -> Failure {
    Failure::new(Code::Usage, "find a result: no query was answered yet")
}

/// Comes with Ctrl-C. Where it cannot be listened for, it never comes, and Ctrl-C ends the shell.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A query after the user's editor had it.
fn edited(query: &str) -> Result<String, Failure> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    let editor = named.into_iter().find(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let mut file = tempfile::Builder::new().prefix("retake-").suffix(".sql").tempfile()?;
    writeln!(file, "{query}")?;
    file.flush()?;
    let failed = |reason: String| {
        Failure::new(Code::Environment, format!("edit with {program}: {reason}"))
            .help("$VISUAL or $EDITOR names the editor")
    };
    let status = Process::new(program).args(words).arg(file.path()).status();
    let status = status.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    // Editors put a new file in place of the old one: only its path is sure to lead there.
    let text = std::fs::read_to_string(file.path())?;
    Ok(text.trim_end().to_owned())
}

/// Nobody reads more on a screen; `\o` writes all.
const ROWS_MAX: usize = 1000;
