//! A bench for one test: a scratch folder with a store of its own, and the program to run in it.
//!
//! Every command runs with the scratch folder as its working directory and without any `RETAKE_*`
//! variable of the machine, so that nothing from outside reaches a test. A command that hangs is
//! ended and fails its test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

/// A scratch folder with a store.
#[derive(Debug)]
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    command: String,
    code: Option<i32>,
    bytes: Vec<u8>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    /// An empty scratch folder; the store is made by the first command that records.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("retake-cli-").tempdir().expect("scratch");
        Self { folder, variables: Vec::new() }
    }

    /// The same, with an environment variable for every command.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A bench whose store holds the lighthouse documents.
    pub(crate) fn with_documents() -> Self {
        let bench = Self::new();
        crate::corpus::write_lighthouses(&bench.path("docs"));
        bench.retake(["rag", "ingest", "docs"]).expect_code(0);
        bench
    }

    /// A path in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The folder of a run.
    pub(crate) fn run_folder(&self, run_id: &str) -> PathBuf {
        self.store().join("runs").join(run_id)
    }

    /// Writes a file of the scratch folder, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    /// Runs a command to its end.
    pub(crate) fn retake<I>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.retake_within(arguments, COMMAND_SECS_MAX)
    }

    /// Runs a command to its end, which may take this long.
    pub(crate) fn retake_within<I>(&self, arguments: I, patience: Duration) -> Outcome
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let plain = self.command(arguments);
        let mut shown = String::from("retake");
        for argument in plain.get_args() {
            shown.push_str(&format!(" {}", argument.display()));
        }
        let output = assert_cmd::Command::from_std(plain)
            .timeout(patience)
            .output()
            .expect("the program starts");
        Outcome {
            command: shown,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }

    /// Starts a command and leaves it running, silent.
    pub(crate) fn start<I>(&self, arguments: I) -> Child
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = self.command(arguments);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.stdin(std::process::Stdio::null()).spawn().expect("the program starts")
    }

    /// A command that is not started yet.
    pub(crate) fn command<I>(&self, arguments: I) -> std::process::Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = self.program(env!("CARGO_BIN_EXE_retake"));
        command.args(arguments);
        command
    }

    /// Any program, in the scratch folder and with the same environment.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RETAKE_") {
                command.env_remove(name);
            }
        }
        command.env("RETAKE_STORE", self.store());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path());
        command
    }

    /// The rows a query gives.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Value> {
        let mut document = self.retake(["sql", sql, "--format", "json"]).expect_code(0).json();
        match document["rows"].take() {
            Value::Array(rows) => rows,
            other => panic!("{sql}: rows are {other}"),
        }
    }

    /// The one number a query gives.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql);
        let only = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        only.and_then(Value::as_i64).unwrap_or_else(|| panic!("{sql}: gave {rows:?}"))
    }

    /// All runs, oldest first, as the JSON contract has them.
    pub(crate) fn runs(&self) -> Vec<Value> {
        let mut document = self.retake(["runs", "--format", "json"]).expect_code(0).json();
        match document["runs"].take() {
            Value::Array(runs) => runs,
            other => panic!("runs are {other}"),
        }
    }

    /// The id of the newest run.
    pub(crate) fn last_run(&self) -> String {
        text(&self.runs().last().expect("a run")["run_id"])
    }
}

impl Outcome {
    /// Fails the test unless the command ended with this code.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{} ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless the message on stderr says all of these.
    pub(crate) fn expect_message(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{}: {part:?} is not on stderr\n{}",
                self.command,
                self.stderr
            );
        }
        self
    }

    /// The exit code; a command that was ended by a signal has none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.code
    }

    /// Standard output as it came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Standard output as one JSON document of this schema version.
    pub(crate) fn json(&self) -> Value {
        let document: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.command, self.stdout));
        assert_eq!(document["schema_version"], 1, "{}: {document}", self.command);
        document
    }
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text expected, got {value}")).to_owned()
}

/// A JSON whole number.
pub(crate) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("whole number expected, got {value}"))
}

/// Every file below a folder, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Fails the test unless the JSON object has all of these fields.
pub(crate) fn assert_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "field {field} is missing in {object}");
    }
}

/// No command of a test takes longer unless it hangs.
const COMMAND_SECS_MAX: Duration = Duration::from_secs(120);
