//! `retake sql` as a script, and as a shell on a pseudo terminal.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::Bench;

/// Runs a script from standard input.
fn piped(bench: &Bench, arguments: &[&str], script: &str) -> (Option<i32>, String, String) {
    let arguments = ["sql"].iter().chain(arguments);
    let output = assert_cmd::Command::from_std(bench.command(arguments))
        .write_stdin(script)
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Scenario: a script whose texts and comments hold semicolons.
/// Guarantees: every statement is answered, in order, and timed on stderr if wanted.
#[test]
fn a_script_is_answered_statement_by_statement() {
    let bench = Bench::with_documents();
    let script = "select 'a;b' as x; -- not ; here\nselect count(*) as n from runs;\n";
    let (code, stdout, stderr) = piped(&bench, &["--format", "csv"], script);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "x\na;b\nn\n1\n", ""));
    bench.write("script.sql", script);
    let timed = bench
        .retake(["sql", "--file", "script.sql", "--format", "csv", "--timing", "--quiet"])
        .expect_code(0)
        .expect_message(&["statement 1: ", "statement 2: "]);
    assert_eq!(timed.stdout, "x\na;b\nn\n1\n");
    assert_eq!(timed.stderr.lines().count(), 2, "{}", timed.stderr);
}

/// Scenario: a script with a mistake, one without a statement, and one for a binary file.
/// Guarantees: the first mistake ends it; nothing is no query; two results are no Parquet file.
#[test]
fn a_script_ends_at_its_first_mistake() {
    let bench = Bench::with_documents();
    let script = "select 1 as a; selekt; select 2 as b;";
    let (code, stdout, stderr) = piped(&bench, &["--format", "csv"], script);
    assert_eq!((code, stdout.as_str()), (Some(2), "a\n1\n"));
    assert!(stderr.contains("selekt"), "{stderr}");
    assert_eq!(piped(&bench, &[], " -- nothing\n;").0, Some(2));
    let (code, stdout, stderr) = piped(&bench, &["--format", "parquet"], "select 1; select 2");
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("one statement, or a text format"), "{stderr}");
}

/// A million rows of text, out of nothing that is recorded.
const MILLION: &str = "with d as (select column1 as x from \
    (values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))), \
    t as (select concat(a.x, b.x, c.x, d.x, e.x, f.x, '-padding-padding-padding') as k \
          from d a, d b, d c, d, d e, d f)";

/// Scenario: a join that needs more memory than it may take.
/// Guarantees: exit 4 and what to do; the same query with more memory is answered.
#[test]
fn a_used_up_memory_says_what_to_do() {
    let bench = Bench::with_documents();
    let sql = format!("{MILLION} select count(*) as n from t l join t r on l.k = r.k");
    bench
        .retake(["sql", &sql, "--memory", "16MiB"])
        .expect_code(4)
        .expect_message(&["out of its memory", "--memory"]);
    let enough = bench.retake(["sql", &sql, "--format", "csv"]).expect_code(0);
    assert_eq!(enough.stdout, "n\n1000000\n");
    bench.retake(["sql", "select 1", "--memory", "12"]).expect_code(2).expect_message(&["16MiB"]);
}

/// Scenario: a sort of more than the memory it may take.
/// Guarantees: it goes to temporary files and is answered.
#[test]
fn a_sort_beyond_its_memory_uses_temporary_files() {
    let bench = Bench::with_documents();
    let sql = format!(
        "{MILLION} select max(r) as n from (select row_number() over (order by k desc) as r from t)"
    );
    let sorted = bench.retake(["sql", &sql, "--memory", "32MiB", "--format", "csv"]);
    assert_eq!(sorted.expect_code(0).stdout, "n\n1000000\n");
}

/// The shell on a pseudo terminal, which `script` of util-linux makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
    seen: usize,
}

impl Terminal {
    /// None without `script`: then nothing can be tested here, which is said.
    fn open(bench: &Bench, arguments: &str) -> Option<Self> {
        let has_script = Command::new("script")
            .arg("--version")
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"));
        if !has_script {
            eprintln!("skipped: there is no `script` of util-linux to make a terminal with");
            return None;
        }
        let retake = bench.command::<[&str; 0]>([]);
        let mut command = Command::new("script");
        command
            .args([
                "-qec",
                &format!("stty cols 100 rows 30; \"$PROGRAM\" sql {arguments}"),
                "/dev/null",
            ])
            .current_dir(bench.path(""))
            .env("PROGRAM", retake.get_program())
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("XDG_STATE_HOME", bench.path("state"))
            .env("RETAKE_STORE", bench.store())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("script starts");
        let keys = child.stdin.take().expect("keys");
        let mut stdout = child.stdout.take().expect("a screen");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&screen);
        std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                    let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
                    shared.lock().expect("the screen").push_str(&text);
                }
            })
            .expect("a thread");
        Some(Self { child, keys, screen, seen: 0 })
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
        self.keys.flush().expect("keys");
    }

    /// Waits until the screen shows a text that was not looked for before.
    fn expect(&mut self, wanted: &str) {
        let began = Instant::now();
        loop {
            let screen = self.screen.lock().expect("the screen").clone();
            let new = screen.get(self.seen..).unwrap_or_default();
            if let Some(at) = new.find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            assert!(began.elapsed() < SCREEN_SECS_MAX, "{wanted:?} did not come:\n{new}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a line at a prompt, and waits for what it leads to.
    fn ask(&mut self, line: &str, wanted: &str) {
        self.press(line);
        self.press("\r");
        self.expect(wanted);
        self.expect("\u{1b}[?2004h");
    }

    fn leave(mut self) {
        self.press("\u{4}");
        let began = Instant::now();
        while self.child.try_wait().expect("the shell").is_none() {
            assert!(began.elapsed() < SCREEN_SECS_MAX, "Ctrl-D does not leave");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Scenario: a session with a statement over two lines, completion, a mistake, a chart, a file,
/// and another process that records meanwhile.
/// Guarantees: each is answered, and the shell goes on until Ctrl-D.
#[test]
fn a_session_on_a_terminal() {
    let bench = Bench::with_documents();
    let Some(mut shell) = Terminal::open(&bench, "") else { return };
    shell.expect("SQL over 1 runs.");
    shell.expect("\u{1b}[?2004h");
    shell.press("select count(*) as\r");
    shell.ask("n, 'two' || ' lines' as t from payl\t where true;", "two lines");
    shell.ask("selekt;", "error: failed to run query");
    shell.ask("\\tming", "did you mean \\timing?");
    shell.ask("\\d payloads", "content");
    shell.ask("\\d nothing", "\\d lists all");
    shell.ask("select 'bar' as k, 3 as v;", "1 rows");
    shell.ask("\\chart", "bar |###");
    shell.ask("\\x", "expanded rows is on");
    shell.ask("select 7 as seven;", "seven | 7");
    shell.ask("\\o out.csv", "the next result goes to out.csv");
    shell.ask("select * from (values (1), (2)) as t(a);", "2 rows as csv in out.csv");
    assert_eq!(std::fs::read_to_string(bench.path("out.csv")).expect("written"), "a\n1\n2\n");
    bench.retake(["rag", "ask", "Who guards Esha?"]).expect_code(0);
    shell.ask("select count(*) + 40 as n from runs;", "1 runs came; 2 in scope");
    shell.ask("\\runs", "ask");
    shell.ask(" select 'unkept';", "unkept");
    shell.leave();
    let history = bench.path("state/retake/sql-history");
    let mode = std::fs::metadata(&history).expect("a history").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let history = std::fs::read_to_string(history).expect("a history");
    assert!(history.starts_with("select count(*) as\\nn, 'two'"), "{history}");
    assert!(history.contains("from payloads where true;\n") || history.contains("\nselekt;\n"));
    assert!(!history.contains("unkept"), "{history}");
}

/// Scenario: Ctrl-C during a query that would take hours, during `\watch`, and at the prompt.
/// Guarantees: each is over at once, and the next query is answered.
#[test]
fn ctrl_c_ends_a_query_and_keeps_the_shell() {
    let bench = Bench::with_documents();
    let Some(mut shell) = Terminal::open(&bench, "--quiet") else { return };
    shell.expect("\u{1b}[?2004h");
    let digits = "(values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    shell.press(&format!("with d as (select column1 as x from {digits}) select sum(sin(a.x+b.x+c.x+d.x+e.x+f.x+g.x+h.x+i.x+j.x+k.x)) from d a, d b, d c, d, d e, d f, d g, d h, d i, d j, d k;\r"));
    shell.expect("\u{1b}[?2004l");
    std::thread::sleep(Duration::from_millis(500));
    shell.press("\u{3}");
    shell.expect("\u{1b}[?2004h");
    shell.ask("select 'still ' || 'here' as x;", "still here");
    shell.press("\\watch 0.1\r");
    shell.expect("still here");
    shell.expect("still here");
    shell.press("\u{3}");
    shell.expect("\u{1b}[?2004h");
    shell.press("select 'never\u{3}");
    shell.expect("\u{1b}[?2004h");
    shell.ask("select 'at ' || 'last' as x;", "at last");
    let long =
        format!("with d as (select column1 as x from {digits}) select a.x from d a, d b, d c, d;");
    shell.ask(&long, "the first 1000 shown, 9000 left out; \\o FILE.csv");
    shell.leave();
}

/// Far more than any answer takes on a busy machine.
const SCREEN_SECS_MAX: Duration = Duration::from_secs(60);
