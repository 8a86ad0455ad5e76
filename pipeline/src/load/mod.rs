//! Files to documents: finding them, and reading each as text.
//!
//! Finding is one cheap walk over names; reading is per file, so the caller keeps as many
//! documents in memory as it works on. A file that cannot be read is an error of that file alone.
//!
//! Which formats are looked for in folders is a setting; a file that is named itself is read in any
//! case.
//!
//! Ignore files inside the ingested folders are honoured, those above and the user's own are not:
//! the same folder gives the same documents on every machine.

mod date;
mod html;
mod jsonl;
#[cfg(feature = "pdf")]
mod pdf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use retake_schemas::Digest;
use retake_schemas::settings::LoadSettings;

use crate::document::{Document, Format};
use crate::error::PipelineError;

/// A file that can be read as a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Stable id: the path relative to its root with `/` between parts. With several roots, the
    /// root's last component stands before it.
    pub id: String,
    /// Path to open it by.
    pub path: PathBuf,
    /// Format by its name.
    pub format: Format,
}

/// Why a file that the walk met is not among the found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Its name is not that of a known format.
    UnknownFormat,
    /// Its format is not among `load.formats`.
    UnwantedFormat,
    /// It is a symbolic link: links may lead outside, or in circles.
    SymbolicLink,
    /// It is a pipe, a socket or a device.
    NotAFile,
    /// Its name is not UTF-8, so it can have no stable id.
    NameNotUtf8,
}

impl Skip {
    /// The word used in summaries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFormat => "unknown_format",
            Self::UnwantedFormat => "unwanted_format",
            Self::SymbolicLink => "symbolic_link",
            Self::NotAFile => "not_a_file",
            Self::NameNotUtf8 => "name_not_utf8",
        }
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Files to read, sorted by id.
    pub found: Vec<Found>,
    /// Files met and left out, by reason. Ignored and hidden ones are not met.
    pub skipped: BTreeMap<Skip, u64>,
    /// Folders that could not be listed.
    pub failures: Vec<PipelineError>,
}

/// Finds the documents under `roots`, each a folder or a single file.
///
/// # Errors
/// A root is missing or may not be looked at. What goes wrong below a root is in
/// [`Discovery::failures`].
pub fn discover(roots: &[PathBuf], settings: &LoadSettings) -> Result<Discovery, PipelineError> {
    let mut discovery = Discovery::default();
    for (root, prefix) in roots.iter().zip(prefixes(roots)) {
        let kind = fs::metadata(root).map_err(|source| io_error(root, source))?;
        if kind.is_dir() {
            walk(root, &prefix, settings, &mut discovery);
        } else if kind.is_file() {
            discovery.found.push(named_file(root, &prefix)?);
        } else {
            return Err(not_text(root, "it is neither a file nor a folder".to_owned()));
        }
    }
    discovery.found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(discovery)
}

/// Reads a found file.
///
/// # Errors
/// [`PipelineError::NotText`] for one that is too large, binary, not UTF-8, or not readable as
/// its format; [`PipelineError::NotFound`] and [`PipelineError::Io`] for the disk.
pub fn read(found: &Found, settings: &LoadSettings) -> Result<Document, PipelineError> {
    let bytes = read_bytes(&found.path, settings.file_bytes_max)?;
    to_document(found, bytes, settings)
}

/// A file, compared with what is known of it.
#[derive(Debug)]
pub enum Compared {
    /// Its bytes have the digest that is known; how they would be read does not matter.
    Same {
        /// It.
        digest: Digest,
        /// How many bytes there are.
        bytes: u64,
    },
    /// Something else.
    Other(Document),
}

/// Reads a found file, unless its bytes have the digest `known`.
///
/// # Errors
/// As [`read`].
pub fn read_other(
    found: &Found,
    settings: &LoadSettings,
    known: Option<&Digest>,
) -> Result<Compared, PipelineError> {
    let read = read_bytes(&found.path, settings.file_bytes_max)?;
    if known == Some(&read.digest) {
        return Ok(Compared::Same { digest: read.digest, bytes: read.bytes.len() as u64 });
    }
    to_document(found, read, settings).map(Compared::Other)
}

fn to_document(
    found: &Found,
    read: Read,
    settings: &LoadSettings,
) -> Result<Document, PipelineError> {
    let size_bytes = read.bytes.len() as u64;
    let text = to_text(read.bytes, found.format, settings)
        .map_err(|reason| not_text(&found.path, reason))?;
    let stated = (found.format == Format::Markdown).then(|| date::of_front_matter(&text)).flatten();
    Ok(Document {
        id: found.id.clone(),
        path: found.path.clone(),
        format: found.format,
        text,
        digest: read.digest,
        bytes: size_bytes,
        modified_ms: stated.or(read.modified_ms),
    })
}

fn to_text(bytes: Vec<u8>, format: Format, settings: &LoadSettings) -> Result<String, String> {
    match format {
        Format::Text | Format::Markdown | Format::Code => decode(bytes),
        Format::Html => html::to_text(&decode(bytes)?),
        Format::Jsonl => jsonl::to_text(&decode(bytes)?, &settings.jsonl_fields),
        #[cfg(feature = "pdf")]
        Format::Pdf => pdf::to_text(&bytes),
        #[cfg(not(feature = "pdf"))]
        Format::Pdf => {
            Err("this retake was built without PDF; build it with --features pdf".to_owned())
        }
    }
}

/// What stands before the ids of each root: nothing for one root, a unique name for several.
fn prefixes(roots: &[PathBuf]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut prefixes = Vec::with_capacity(roots.len());
    for root in roots {
        if roots.len() == 1 {
            prefixes.push(String::new());
            continue;
        }
        let name = last_component(root);
        // Two roots called `docs` are `docs` and `docs~2`, in the order given.
        let unique = std::iter::once(name.clone())
            .chain((2..=roots.len()).map(|n| format!("{name}~{n}")))
            .find(|candidate| !taken.contains(candidate))
            .unwrap_or(name);
        taken.insert(unique.clone());
        prefixes.push(unique);
    }
    prefixes
}

fn last_component(root: &Path) -> String {
    let named = root.file_name().map(ToOwned::to_owned);
    // `.` and `..` have no name of their own, the folder they mean has.
    let resolved = || fs::canonicalize(root).ok()?.file_name().map(ToOwned::to_owned);
    named
        .or_else(resolved)
        .map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn walk(root: &Path, prefix: &str, settings: &LoadSettings, discovery: &mut Discovery) {
    let walk = WalkBuilder::new(root)
        .require_git(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .follow_links(false)
        .sort_by_file_name(Ord::cmp)
        .build();
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                discovery.failures.push(walk_error(root, error));
                continue;
            }
        };
        let is_folder = entry.file_type().is_none_or(|kind| kind.is_dir());
        if is_folder || entry.depth() == 0 {
            continue;
        }
        match classify(root, prefix, &entry) {
            Ok(found) if !settings.formats.contains(&found.format.setting()) => {
                *discovery.skipped.entry(Skip::UnwantedFormat).or_default() += 1;
            }
            Ok(found) => discovery.found.push(found),
            Err(skip) => *discovery.skipped.entry(skip).or_default() += 1,
        }
    }
}

fn classify(root: &Path, prefix: &str, entry: &ignore::DirEntry) -> Result<Found, Skip> {
    let kind = entry.file_type().ok_or(Skip::NotAFile)?;
    if kind.is_symlink() {
        return Err(Skip::SymbolicLink);
    }
    if !kind.is_file() {
        return Err(Skip::NotAFile);
    }
    let format = format_of(entry.path()).ok_or(Skip::UnknownFormat)?;
    let relative = entry.path().strip_prefix(root).map_err(|_| Skip::NotAFile)?;
    let id = id_of(prefix, relative).ok_or(Skip::NameNotUtf8)?;
    Ok(Found { id, path: entry.path().to_owned(), format })
}

/// A file the user named: it is read as text even if its name does not say so.
fn named_file(root: &Path, prefix: &str) -> Result<Found, PipelineError> {
    let name = root.file_name().map(Path::new);
    // The name stands in the id already; the folder it lies in says nothing about it.
    let id = name
        .and_then(|name| if prefix.is_empty() { id_of("", name) } else { Some(prefix.to_owned()) })
        .ok_or_else(|| not_text(root, "its name is not UTF-8".to_owned()))?;
    let format = format_of(root).unwrap_or(Format::Text);
    Ok(Found { id, path: root.to_owned(), format })
}

fn id_of(prefix: &str, relative: &Path) -> Option<String> {
    let mut parts = Vec::new();
    if !prefix.is_empty() {
        parts.push(prefix);
    }
    for component in relative.components() {
        parts.push(component.as_os_str().to_str()?);
    }
    Some(parts.join("/"))
}

fn format_of(path: &Path) -> Option<Format> {
    let Some(extension) = path.extension() else {
        let is_readme = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("readme"));
        return is_readme.then_some(Format::Text);
    };
    let extension = extension.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "md" | "markdown" => Some(Format::Markdown),
        "html" | "htm" | "xhtml" => Some(Format::Html),
        "txt" | "rst" | "text" => Some(Format::Text),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "pdf" => Some(Format::Pdf),
        extension if CODE.contains(&extension) => Some(Format::Code),
        _ => None,
    }
}

/// A file as it was read.
struct Read {
    bytes: Vec<u8>,
    digest: Digest,
    /// When it was changed, ms since 1970, where the file system knows.
    modified_ms: Option<i64>,
}

/// Reads at most `bytes_max` bytes, whatever the folder entry says: a file may still grow.
fn read_bytes(path: &Path, bytes_max: u64) -> Result<Read, PipelineError> {
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let modified_ms = file.metadata().ok().and_then(|metadata| date::of_file(&metadata));
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it is larger than load.file_bytes_max ({bytes_max} bytes)");
        return Err(not_text(path, reason));
    }
    Ok(Read { digest: Digest::of(&bytes), bytes, modified_ms })
}

fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err("it is UTF-16; convert it to UTF-8".to_owned());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!("it is binary (NUL byte at offset {at})"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        format!("it is not UTF-8 (invalid byte at offset {})", error.utf8_error().valid_up_to())
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

fn io_error(path: &Path, source: std::io::Error) -> PipelineError {
    if source.kind() == std::io::ErrorKind::NotFound {
        PipelineError::NotFound(path.to_owned())
    } else {
        PipelineError::Io { path: path.to_owned(), source }
    }
}

fn walk_error(root: &Path, error: ignore::Error) -> PipelineError {
    let path = path_of(&error).unwrap_or(root).to_owned();
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    PipelineError::Io { path, source }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        _ => None,
    }
}

fn not_text(path: &Path, reason: String) -> PipelineError {
    PipelineError::NotText { path: path.to_owned(), reason }
}

/// Endings of source code.
const CODE: &[&str] = &[
    "bash", "c", "cc", "clj", "cpp", "cs", "css", "cu", "dart", "ex", "exs", "f90", "go", "h",
    "hpp", "hs", "java", "jl", "js", "jsx", "kt", "kts", "lua", "m", "ml", "mm", "php", "pl",
    "proto", "ps1", "py", "r", "rb", "rs", "scala", "sh", "sql", "svelte", "swift", "tf", "ts",
    "tsx", "vue", "zig",
];

/// Names how files become text; it changes whenever the same file would give other text.
pub const EXTRACTION: &str = "html/1";

/// Some editors begin a UTF-8 file with it; it is not part of the text.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

#[cfg(test)]
mod tests;
