//! A real PostgreSQL with pgvector for tests, started and stopped by them.
//!
//! `RETAKE_TEST_PG_BIN` names a folder with `initdb`, `pg_ctl` and `postgres`; without it tests
//! that need a database skip and say so. PostgreSQL refuses to run as root, so under root the
//! server is dropped to `nobody`; every folder above the binaries must then be passable by others.
//! A server stops with the last test that holds it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

/// A running server.
#[derive(Debug)]
pub(crate) struct TestPostgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    drops_root: bool,
}

impl TestPostgres {
    /// The server that the tests of this process share, or `None`, said on stderr, when
    /// `RETAKE_TEST_PG_BIN` is not set.
    pub(crate) fn shared(test: &str) -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
        let Some(bin) = std::env::var_os("RETAKE_TEST_PG_BIN") else {
            eprintln!("{test}: skipped: RETAKE_TEST_PG_BIN names no folder with initdb");
            return None;
        };
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start(Path::new(&bin)));
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    /// URL of the database `postgres`, as a superuser who needs no password.
    pub(crate) fn url(&self) -> String {
        format!("postgres://rag@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    fn start(bin: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("retake-pg-").tempdir().expect("scratch");
        let drops_root = drop_ownership(folder.path());
        let port = free_port();
        let server = Self { bin: bin.to_owned(), folder, port, drops_root };
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-U", "rag", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync"],
        );
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={} -c fsync=off",
            server.folder.path().display()
        );
        let log = server.folder.path().join("log").display().to_string();
        server.run("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "-o", &options, "start"]);
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program, arguments).status().expect("PostgreSQL program starts");
        assert!(status.success(), "{program} failed: {status}");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if self.drops_root {
            let mut command = Command::new("setpriv");
            command.args([
                &format!("--reuid={NOBODY}"),
                &format!("--regid={NOBODY}"),
                "--clear-groups",
                "--reset-env",
                "--",
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        // A server that inherited our pipes would keep whoever reads them waiting for ever.
        command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        command
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        // Its own data folder names the server, so no other can be hit.
        let data = self.data();
        let _ = self.command("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]).status();
    }
}

/// Gives the folder to `nobody` when we are root; says whether we are.
fn drop_ownership(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // A fresh folder belongs to the effective user.
    let is_root = std::fs::metadata(folder).is_ok_and(|metadata| metadata.uid() == 0);
    if is_root {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown scratch");
    }
    is_root
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// User and group `nobody` on every Linux we know.
const NOBODY: u32 = 65_534;
