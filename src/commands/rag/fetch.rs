//! `retake rag fetch`: pages of the web as files that `rag ingest` reads.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use retake_pipeline::work::fetch::{FetchOptions, Fetched, fetch_all};
use retake_pipeline::work::retry::RetryPolicy;
use retake_recorder::RecorderBuilder;
use retake_schemas::Digest;
use serde::Serialize;

use super::{labels, status};
use crate::cli::{Format, RagFetch};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::progress::Progress;
use crate::recording::{Recording, cancel_on_signal};
use crate::units::{bytes, duration};

/// What became of one address.
#[derive(Debug, Serialize)]
struct Page {
    url: String,
    /// Where it lies, if it was fetched.
    file: Option<PathBuf>,
    final_url: Option<String>,
    content_type: Option<String>,
    bytes: Option<u64>,
    retries: Option<u32>,
    took_ms: Option<f64>,
    error_type: Option<&'static str>,
    error: Option<String>,
}

/// Fetches all of them.
pub(super) async fn run(context: &Context, args: &RagFetch) -> Result<Code, Failure> {
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "fetched pages"));
    }
    let urls = urls(args)?;
    std::fs::create_dir_all(&args.output).map_err(|error| {
        Failure::new(Code::Environment, format!("make folder {}: {error}", args.output.display()))
    })?;
    let options = FetchOptions {
        workers: usize::from(args.workers),
        timeout: Duration::from_millis(args.timeout_ms),
        body_bytes_max: usize::try_from(args.bytes_max).unwrap_or(usize::MAX),
        retry: RetryPolicy { retries_max: usize::from(args.retries), ..RetryPolicy::default() },
        ..FetchOptions::default()
    };
    let store = context.store_for_writing()?;
    let cancel = cancel_on_signal()?;
    let builder = RecorderBuilder::new(args.run.as_deref().unwrap_or("fetch"), "retake-rag")
        .service_version(env!("CARGO_PKG_VERSION"))
        .record_settings(context.config.settings.record.clone())
        .labels(labels(&args.label)?);
    let recording = Recording::start(context, builder, &store, &cancel)?;
    let run_id = recording.run_id().clone();
    let progress = Progress::spinner(context.quiet, "fetch").with_live(recording.live());
    let mut pages: Vec<Option<Page>> = urls.iter().map(|_| None).collect();
    let outcomes = fetch_all(urls.clone(), options, cancel.clone())
        .map_err(|error| Failure::new(Code::Environment, error.to_string()))?;
    let mut outcomes = std::pin::pin!(outcomes);
    while let Some(outcome) = outcomes.next().await {
        let place = usize::try_from(outcome.index).unwrap_or(usize::MAX);
        let (Some(url), Some(slot)) = (urls.get(place), pages.get_mut(place)) else { continue };
        *slot = Some(match outcome.result {
            Ok(Ok(fetched)) => kept(&args.output, fetched),
            Ok(Err(error)) => failed(url, error.error_type(), error.to_string()),
            Err(lost) => failed(url, "lost", lost.to_string()),
        });
    }
    progress.finish();
    recording.finish(context, status(cancel.is_cancelled())).await;
    let pages: Vec<Page> = pages
        .into_iter()
        .zip(&urls)
        .map(|(page, url)| page.unwrap_or_else(|| failed(url, "cancelled", "cancelled".to_owned())))
        .collect();
    match format {
        Format::Json => print_json(&serde_json::json!({
            "schema_version": 1, "run_id": run_id, "pages": pages,
        }))?,
        format => print(&shown(&pages, format))?,
    }
    for page in &pages {
        if let Some(error) = &page.error {
            context.warn(error);
        }
    }
    context.say(&format!(
        "recorded as run {run_id}; next: retake rag ingest {}",
        args.output.display()
    ));
    let has_failed = pages.iter().any(|page| page.error.is_some());
    Ok(match (cancel.is_cancelled(), has_failed) {
        (true, _) => Code::Interrupted,
        (false, true) => Code::Environment,
        (false, false) => Code::Ok,
    })
}

/// The addresses, each once.
fn urls(args: &RagFetch) -> Result<Vec<String>, Failure> {
    let mut urls = args.urls.clone();
    if let Some(path) = &args.from {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => Code::NotFound,
                _ => Code::Usage,
            };
            Failure::new(code, format!("read addresses {}: {error}", path.display()))
        })?;
        let lines = text.lines().map(str::trim);
        let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        urls.extend(named.map(str::to_owned));
    }
    let mut seen = std::collections::HashSet::new();
    urls.retain(|url| seen.insert(url.clone()));
    if urls.is_empty() {
        return Err(Failure::new(Code::Usage, "fetch: there is no address".to_owned())
            .help("name addresses, or a file of them with --from"));
    }
    Ok(urls)
}

/// Writes a page; a file under its final name is whole.
fn kept(folder: &Path, fetched: Fetched) -> Page {
    let name = file_name(&fetched);
    let path = folder.join(&name);
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(&fetched.body)?;
        file.persist(&path).map_err(|error| error.error)
    });
    if let Err(error) = written {
        return failed(&fetched.url, "io", format!("write {}: {error}", path.display()));
    }
    Page {
        file: Some(path),
        final_url: Some(fetched.final_url),
        content_type: fetched.content_type,
        bytes: Some(fetched.body.len() as u64),
        retries: Some(fetched.retries),
        took_ms: Some(fetched.took.as_secs_f64() * 1e3),
        error_type: None,
        error: None,
        url: fetched.url,
    }
}

fn failed(url: &str, error_type: &'static str, error: String) -> Page {
    Page {
        url: url.to_owned(),
        file: None,
        final_url: None,
        content_type: None,
        bytes: None,
        retries: None,
        took_ms: None,
        error_type: Some(error_type),
        error: Some(error),
    }
}

/// A name that says where the page is from, the same for the same address, with the ending by which
/// an ingest knows what it is.
fn file_name(fetched: &Fetched) -> String {
    let address = fetched.url.split_once("://").map_or(fetched.url.as_str(), |(_, rest)| rest);
    let place = address.split(['?', '#']).next().unwrap_or(address);
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    // Before an `@` stand a name and a password.
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let readable: String = host
        .chars()
        .chain(path.chars())
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
        .take(NAME_CHARS_MAX)
        .collect();
    let media = fetched.content_type.as_deref().unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = ENDINGS.iter().find(|(of, _)| *of == media).map(|(_, ending)| *ending);
    let own = Path::new(place).extension().and_then(|own| own.to_str());
    let plain = |own: &&str| own.len() <= 8 && own.bytes().all(|b| b.is_ascii_alphanumeric());
    // A server that calls everything plain text knows less than the address does.
    let ending = match known {
        Some("txt") | None => own.filter(plain).or(known).unwrap_or("txt"),
        Some(known) => known,
    };
    let digest: String = Digest::of(fetched.url.as_bytes()).to_string().chars().take(8).collect();
    format!("{}-{digest}.{ending}", readable.trim_matches(['.', '_', '-']))
}

fn shown(pages: &[Page], format: Format) -> String {
    let mut shown = table(format, &["address", "result", "size", "retries", "took"], 2);
    let dash = || "-".to_owned();
    for page in pages {
        let address = page.url.split(['?', '#']).next().unwrap_or_default().to_owned();
        let result = page.error_type.map_or_else(
            || page.file.as_ref().map_or_else(dash, |file| file.display().to_string()),
            ToOwned::to_owned,
        );
        let took = page.took_ms.map_or_else(dash, |ms| duration((ms * 1e6) as i64));
        let retries = page.retries.map_or_else(dash, |n| n.to_string());
        row(&mut shown, [address, result, page.bytes.map_or_else(dash, bytes), retries, took]);
    }
    shown.to_string()
}

/// Endings by media type.
const ENDINGS: [(&str, &str); 7] = [
    ("text/html", "html"),
    ("application/xhtml+xml", "html"),
    ("text/markdown", "md"),
    ("text/plain", "txt"),
    ("application/pdf", "pdf"),
    ("application/jsonl", "jsonl"),
    ("application/x-ndjson", "jsonl"),
];
/// Longest readable part of a name.
const NAME_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str, content_type: Option<&str>) -> String {
        file_name(&Fetched {
            url: url.to_owned(),
            final_url: url.to_owned(),
            content_type: content_type.map(ToOwned::to_owned),
            body: Vec::new(),
            retries: 0,
            took: Duration::ZERO,
        })
    }

    /// Guarantees: a name stays in its folder and shows no secret of its address; two addresses have
    /// two names; the ending is one that an ingest knows.
    #[test]
    fn a_page_has_a_name_of_its_own_without_secrets() {
        let page = name(
            "https://u:pw@example.org/docs/a.php?key=secret#x",
            Some("text/html; charset=utf-8"),
        );
        assert!(page.starts_with("example.org_docs_a.php-") && page.ends_with(".html"), "{page}");
        assert_ne!(name("http://h/a?x=1", None), name("http://h/a?x=2", None));
        for url in ["http://h/../../etc/passwd", "http://h/", "http://h/a b/\u{e9}"] {
            let name = name(url, None);
            assert!(!name.contains(['/', ' ']) && !name.starts_with('.'), "{name}");
        }
        for (url, media, ending) in [
            ("http://h/readme.md", Some("text/plain"), "md"),
            ("http://h/readme", Some("text/plain"), "txt"),
            ("http://h/x.bin", Some("application/pdf"), "pdf"),
            ("http://h/x", None, "txt"),
        ] {
            assert!(name(url, media).ends_with(&format!(".{ending}")), "{url}");
        }
    }
}
