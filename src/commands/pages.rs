//! The pages of `retake serve`: the history of runs in a browser, while it grows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use retake_analyzer::report::live;
use retake_analyzer::{Analyzer, Scope};
use retake_recorder::Store;
use retake_schemas::RunId;
use retake_schemas::tables::RunRow;
use retake_server::{Page, PageRequest, Pages};
use tokio::sync::{Mutex, Semaphore};

use super::{budgets, report, sweep, with_repeats};
use crate::context::Context;
use crate::failure::{Code, Failure};

/// Makes pages of a store.
#[derive(Debug)]
pub(super) struct History {
    context: Context,
    store: Store,
    /// Reports are work; a browser that asks for many gets them one after the other.
    turns: Semaphore,
    /// The last report made, by what it is on and its version: several tabs, or one that is
    /// reloaded, cost nothing.
    last: Mutex<Option<(String, Arc<str>)>>,
}

impl History {
    pub(super) fn new(context: &Context, store: &Store) -> Self {
        Self {
            context: context.clone(),
            store: store.clone(),
            turns: Semaphore::new(TURNS),
            last: Mutex::new(None),
        }
    }

    async fn answer(&self, request: &PageRequest) -> Result<Page, Failure> {
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let field = |name: &str| {
            form_urlencoded::parse(request.query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        match parts.as_slice() {
            [""] => self.runs(request).await,
            ["runs", run] => self.run(request, run, None).await,
            ["compare"] => match (field("base"), field("candidate")) {
                (Some(base), Some(run)) => self.run(request, &run, Some(&base)).await,
                _ => Err(Failure::new(Code::Usage, "compare: choose a base and a candidate")),
            },
            ["runs", run, "traces", trace] => self.trace(request, run, trace).await,
            ["sql"] => self.sql(field("q").as_deref()).await,
            _ => Err(Failure::new(Code::NotFound, format!("find page {}", request.path))),
        }
    }

    async fn runs(&self, request: &PageRequest) -> Result<Page, Failure> {
        let rows = self.analyzer(Scope::All)?.runs();
        let version = version(&rows);
        if request.known.as_ref() == Some(&version) {
            return Ok(unchanged(version));
        }
        Ok(html(live::runs(&rows), Some(version)))
    }

    async fn run(
        &self,
        request: &PageRequest,
        run: &str,
        base: Option<&str>,
    ) -> Result<Page, Failure> {
        let run_id = self.store.select(run)?;
        let base = base.map(|base| self.store.select(base)).transpose()?;
        if base.as_ref() == Some(&run_id) {
            return Err(Failure::new(Code::Usage, format!("compare run {run_id} with itself")));
        }
        let bases = base.as_ref().map_or(Ok(Vec::new()), |base| with_repeats(&self.store, base))?;
        let runs = with_repeats(&self.store, &run_id)?;
        let mut shown = [runs.as_slice(), bases.as_slice()].concat();
        // What the sweep measures changes the page of each of its replays.
        shown.extend(sweep::recorded::sweep_of(&self.store, &run_id)?);
        let version = version(&self.analyzer(Scope::Runs(shown))?.runs());
        if request.known.as_ref() == Some(&version) {
            return Ok(unchanged(version));
        }
        let _turn = self.turns.acquire().await;
        let key = format!("{run_id} {} {version}", base.as_ref().map_or("", RunId::as_str));
        if let Some((known, page)) = &*self.last.lock().await
            && *known == key
        {
            return Ok(html(page.to_string(), Some(version)));
        }
        let path = budgets::path(None);
        // A budget file that cannot be read is for `retake check` to say; a page of a run is of use
        // without it.
        let budgets = path.as_deref().and_then(|path| budgets::read(path).ok());
        let asked = report::Asked {
            runs: &runs,
            bases: &bases,
            budgets: budgets.as_ref(),
            with_text: false,
        };
        let data = report::data(&self.context, &self.store, asked, &|_| {}).await?;
        let page: Arc<str> = live::run(&data).into();
        *self.last.lock().await = Some((key, Arc::clone(&page)));
        Ok(html(page.to_string(), Some(version)))
    }

    async fn trace(&self, request: &PageRequest, run: &str, trace: &str) -> Result<Page, Failure> {
        let run_id = self.store.select(run)?;
        let analyzer = self.analyzer(Scope::Runs(vec![run_id.clone()]))?;
        let version = version(&analyzer.runs());
        if request.known.as_ref() == Some(&version) {
            return Ok(unchanged(version));
        }
        let _turn = self.turns.acquire().await;
        let detail = retake_analyzer::trace_detail(&analyzer, &run_id, trace).await?;
        // For the colours that stages have on the page of the run.
        let by = [retake_analyzer::GroupKey::Stage];
        let breakdown = retake_analyzer::breakdown(&analyzer, &run_id, &by).await?;
        Ok(html(live::trace(&detail, &breakdown.rows), Some(version)))
    }

    async fn sql(&self, query: Option<&str>) -> Result<Page, Failure> {
        let query = query.map(str::trim).filter(|query| !query.is_empty());
        let Some(query) = query else { return Ok(html(live::sql("", None), None)) };
        let _turn = self.turns.acquire().await;
        let analyzer = self.analyzer(Scope::All)?;
        let began = Instant::now();
        let answer = match tokio::time::timeout(QUERY_TIME_MAX, analyzer.query(query)).await {
            Ok(Ok(result)) => Ok((result, began.elapsed())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "it took longer than {} seconds and was ended; `retake sql` has no such limit",
                QUERY_TIME_MAX.as_secs()
            )),
        };
        Ok(html(live::sql(query, Some(answer)), None))
    }

    fn analyzer(&self, scope: Scope) -> Result<Analyzer, Failure> {
        Ok(Analyzer::open_with(&self.store, scope, &self.context.analyzer_options())?)
    }
}

impl Pages for History {
    fn entry(&self, problem: Option<&str>) -> Page {
        html(live::entry(problem), None)
    }

    fn page(&self, request: PageRequest) -> BoxFuture<'_, Page> {
        async move {
            self.answer(&request).await.unwrap_or_else(|failure| {
                let status = match failure.code() {
                    Code::NotFound => 404,
                    Code::Usage => 400,
                    _ => 500,
                };
                let title = match status {
                    404 => "Not found",
                    400 => "That cannot be shown",
                    _ => "Something went wrong",
                };
                Page { status, ..html(live::problem(title, failure.message()), None) }
            })
        }
        .boxed()
    }
}

fn html(body: String, version: Option<String>) -> Page {
    Page { status: 200, content_type: "text/html; charset=utf-8", body, version }
}

fn unchanged(version: String) -> Page {
    Page { status: 304, ..html(String::new(), Some(version)) }
}

/// Changes with anything a page about these runs shows.
fn version(rows: &[RunRow]) -> String {
    let mut hasher = blake3::Hasher::new();
    for run in rows {
        let said = format!(
            "{} {} {} {} {}\n",
            run.run_id, run.status, run.spans, run.events_offered, run.duration_ns
        );
        hasher.update(said.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(VERSION_CHARS).collect()
}

/// Pages that are made at once.
const TURNS: usize = 2;
/// A query that takes longer is not for a browser.
const QUERY_TIME_MAX: Duration = Duration::from_secs(30);
/// Enough that two states never have the same version.
const VERSION_CHARS: usize = 24;
