//! What was typed before, in a file that only its owner can read.
//!
//! One entry a line; a line end within an entry is `\n` and a backslash is `\\`. Entries are
//! appended one by one, so two shells at once lose nothing. That the history cannot be kept is no
//! reason to stop a shell: it is said once, and goes on without.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Entries, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: Vec<String>,
    file: Option<PathBuf>,
}

impl History {
    /// Reads the history in a file; a file that is not there yet is made with the first entry.
    pub(crate) fn open(file: PathBuf) -> io::Result<Self> {
        let content = match std::fs::read(&file) {
            Ok(content) => String::from_utf8_lossy(&content).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines: Vec<&str> = content.lines().collect();
        let surplus = lines.len().saturating_sub(ENTRIES_MAX);
        let kept = lines.get(surplus..).unwrap_or_default();
        if surplus > 0 {
            rewrite(&file, kept)?;
        }
        let entries = kept.iter().map(|line| unescape(line)).collect();
        Ok(Self { entries, file: Some(file) })
    }

    /// Keeps an entry, unless it begins with a blank (how shells are told not to), is the last
    /// one again, or says nothing.
    pub(crate) fn add(&mut self, entry: &str) -> io::Result<()> {
        let entry = entry.trim_end();
        let is_last = self.entries.last().is_some_and(|last| last == entry);
        if entry.is_empty() || entry.starts_with(' ') || is_last {
            return Ok(());
        }
        self.entries.push(entry.to_owned());
        let Some(file) = &self.file else { return Ok(()) };
        append(file, &escape(entry)).inspect_err(|_| self.file = None)
    }

    pub(crate) fn entries(&self) -> &[String] {
        &self.entries
    }
}

/// Where the history is: in the folder for what programs keep from one time to the next.
pub(crate) fn default_file() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("retake/sql-history"))
}

fn append(file: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut out = OpenOptions::new().append(true).create(true).mode(MODE).open(file)?;
    // A file that an editor or a copy left readable for others.
    if out.metadata()?.permissions().mode() & 0o077 != 0 {
        out.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    }
    out.write_all(format!("{line}\n").as_bytes())
}

/// Puts a shorter history in place of a long one; whoever reads meanwhile sees one of them whole.
fn rewrite(file: &Path, lines: &[&str]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut shorter = tempfile::NamedTempFile::new_in(folder)?;
    for line in lines {
        writeln!(shorter, "{line}")?;
    }
    shorter.persist(file)?;
    Ok(())
}

fn escape(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(line: &str) -> String {
    let mut entry = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        entry.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    entry
}

const MODE: u32 = 0o600;

/// Years of work, and less than a megabyte.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a shell writes its history and another one reads it.
    /// Guarantees: entries of several lines come back; blanks keep a line out; nobody else reads it.
    #[test]
    fn a_history_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/retake/sql-history");
        let mut history = History::open(file.clone()).unwrap();
        for entry in ["select 1\nfrom runs;", " secret;", "\\d a\\nb", "\\d a\\nb", "", "x;\n"] {
            history.add(entry).unwrap();
        }
        let kept = ["select 1\nfrom runs;", "\\d a\\nb", "x;"];
        assert_eq!(history.entries(), kept);
        assert_eq!(History::open(file.clone()).unwrap().entries(), kept);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        history.add("y;").unwrap();
        assert_eq!(mode(&file), 0o600);
    }

    /// Scenario: a file with more entries than are kept.
    /// Guarantees: the newest stay, in the file too.
    #[test]
    fn a_long_history_is_cut_at_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("h");
        let lines: String = (0..ENTRIES_MAX + 5).map(|n| format!("{n}\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let history = History::open(file.clone()).unwrap();
        assert_eq!(history.entries().len(), ENTRIES_MAX);
        assert_eq!(history.entries().first().map(String::as_str), Some("5"));
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), ENTRIES_MAX);
    }
}
