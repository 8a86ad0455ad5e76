//! What retake works with besides its store: a database, a model, prices.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use retake_analyzer::format::{Format, write_result};
use retake_analyzer::{Analyzer, Scope};
use retake_pipeline::store::postgres::PostgresStore;
use retake_recorder::Store;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{EmbedProvider, VectorSettings, without_password};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::Finding;
use crate::context::Context;
use crate::failure::{Code, Failure};

/// The files of the local model, where it is what embeds.
pub(super) fn model(context: &Context) -> Option<Finding> {
    let embed = &context.config.settings.rag.embed;
    let folder = embed
        .model_dir
        .clone()
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("RETAKE_MODEL_DIR").map(PathBuf::from));
    let is_needed = embed.provider == EmbedProvider::Minilm;
    let advice =
        "a folder with the files of all-MiniLM-L6-v2, in `rag.embed.model_dir` or RETAKE_MODEL_DIR";
    let Some(folder) = folder else {
        let found = "embed.provider is minilm, and no folder has its files";
        return is_needed.then(|| Finding::bad("model", Code::Usage, found, advice));
    };
    let missing: Vec<&str> =
        MODEL_FILES.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    let finding = match (missing.is_empty(), is_needed) {
        (true, true) => Finding::good("model", "its files are there"),
        (true, false) => Finding::good("model", "there, for --set embed.provider=minilm"),
        (false, true) => {
            let found = format!("without {}", missing.join(", "));
            Finding::bad("model", Code::Environment, found, advice)
        }
        (false, false) => Finding::note("model", format!("without {}", missing.join(", ")), advice),
    };
    Some(finding.at(&folder))
}

/// Whether the database of the settings answers, with a pgvector that may be used.
pub(super) async fn postgres(context: &Context) -> Option<Finding> {
    let settings = &context.config.settings.rag.vectors;
    let url = settings.url.as_deref().filter(|url| url.starts_with("postgres"))?;
    let finding = match tokio::time::timeout(DATABASE_WAIT_MAX, database(url, settings)).await {
        Ok(finding) => finding,
        Err(_) => {
            let found = format!("no answer within {} s", DATABASE_WAIT_MAX.as_secs());
            let advice = "is the address right, and is a firewall between? `rag.vectors.url`";
            Finding::bad("PostgreSQL", Code::Environment, found, advice)
        }
    };
    Some(finding.of(without_password(url)))
}

/// Asks without changing anything: a store would enable pgvector where it is only installed.
async fn database(url: &str, settings: &VectorSettings) -> Finding {
    let advice = "start the server, or mend `rag.vectors.url` (RETAKE_RAG__VECTORS__URL)";
    let Ok(options) = PgConnectOptions::from_str(url) else {
        // What the parser says may quote the URL with its password.
        return Finding::bad("PostgreSQL", Code::Usage, "this is no PostgreSQL URL", advice);
    };
    let asked = async {
        let mut connection =
            PgConnection::connect_with(&options.disable_statement_logging()).await?;
        let row: (String, Option<String>, Option<String>) =
            sqlx::query_as(VERSIONS).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(row)
    };
    let (server, enabled, installed) = match asked.await {
        Ok(row) => row,
        Err(error) => {
            return Finding::bad("PostgreSQL", Code::Environment, error.to_string(), advice);
        }
    };
    match (enabled, installed) {
        (Some(version), _) => match PostgresStore::connect(url, settings).await {
            Ok(_) => Finding::good("PostgreSQL", format!("{server} with pgvector {version}")),
            Err(error) => Finding::failed("PostgreSQL", &Failure::from(error), advice),
        },
        (None, Some(version)) => Finding::note(
            "PostgreSQL",
            format!("{server}; pgvector {version} is installed, and not enabled in this database"),
            "`CREATE EXTENSION vector`; the first ingest does it, if its role may",
        ),
        (None, None) => Finding::bad(
            "PostgreSQL",
            Code::Environment,
            format!("{server} without pgvector"),
            "install pgvector on the server (PostgreSQL's packages call it postgresql-NN-pgvector)",
        ),
    }
}

/// Models that were called and have no price: their calls count as free in every sum.
pub(super) async fn prices(context: &Context, store: &Store) -> Option<Finding> {
    let ended = store.runs().ok()?.into_iter().rev().filter(|run| {
        run.manifest.as_ref().is_ok_and(|manifest| manifest.status == RunStatus::Finished)
    });
    let runs: Vec<_> = ended.map(|run| run.run_id).take(RUNS_MAX).collect();
    if runs.is_empty() {
        return None;
    }
    let looked = async {
        let options = context.analyzer_options();
        let analyzer = Analyzer::open_with(store, Scope::Runs(runs), &options).ok()?;
        let result = analyzer.query(UNPRICED).await.ok()?;
        let mut csv = Vec::new();
        write_result(&result, Format::Csv, &mut csv).ok()?;
        String::from_utf8(csv).ok()
    };
    let text = looked.await?;
    let models: Vec<&str> = text.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let Some(first) = models.first() else {
        return Some(Finding::good("prices", "no call of a model without a price"));
    };
    let advice = format!(
        "[prices.\"{first}\"] with input and output, US$ per million tokens, in retake.toml"
    );
    let found = "calls that cost nothing in any sum, of models without a price";
    Some(Finding::note("prices", found, advice).of(models.join(", ")))
}

const VERSIONS: &str = "SELECT current_setting('server_version'), \
     (SELECT extversion FROM pg_extension WHERE extname = 'vector'), \
     (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')";
/// The built-in models cost nothing.
const UNPRICED: &str = "SELECT coalesce(model_response, model_request) AS model FROM spans \
     WHERE cost_usd IS NULL AND coalesce(model_response, model_request) IS NOT NULL \
     AND coalesce(input_tokens, output_tokens) IS NOT NULL AND coalesce(provider, '') <> 'retake' \
     GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 5";
const MODEL_FILES: [&str; 3] = ["model.safetensors", "tokenizer.json", "config.json"];
/// A server of this machine answers within milliseconds.
const DATABASE_WAIT_MAX: Duration = Duration::from_secs(5);
/// The models in use now are those of the youngest runs.
const RUNS_MAX: usize = 20;
