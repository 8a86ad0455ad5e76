//! Completions in real shells: keys in, and what stands on the line then.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::Bench;

/// A store with runs of several names, labels and a baseline.
fn recorded() -> Bench {
    let bench = Bench::with_documents();
    bench.write("q.jsonl", "{\"question\": \"Which keeper lit the lantern?\"}\n");
    for name in ["nightly", "hostile$(touch pwned)`touch pwned`;touch pwned"] {
        let label = ["--label", "suite=smoke"];
        let asked = ["rag", "eval", "q.jsonl", "--quiet", "--run", name];
        bench.retake([asked.as_slice(), &label].concat()).expect_code(0);
    }
    bench.retake(["baseline", "set", "main", "nightly"]).expect_code(0);
    bench
}

/// The words that a shell has on its line after these keys. The line is given to `echo` rather than
/// run. `None` where there is no such shell, or no pseudo terminal.
fn completed(bench: &Bench, shell: &str, typed: &str) -> Option<String> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !has("script") || !has(shell) {
        eprintln!("completions: skipped: there is no {shell}, or no `script`");
        return None;
    }
    let start = match shell {
        "bash" => "bash --norc --noprofile -i",
        "zsh" => "zsh -f -i",
        _ => "fish --no-config -i",
    };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_retake"));
    let folder = program.parent().expect("its folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = bench.program("script");
    command.args(["-qc", start, "/dev/null"]).env("PATH", path).env("TERM", "dumb");
    command.env("HOME", bench.path("home"));
    std::fs::create_dir_all(bench.path("home")).expect("a home");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a shell");
    let mut keys = child.stdin.take().expect("keys");
    let mut press = |text: &str| {
        let _ = keys.write_all(text.as_bytes()).and_then(|()| keys.flush());
        std::thread::sleep(PAUSE);
    };
    std::thread::sleep(PAUSE);
    press(match shell {
        "bash" => "source <(retake completions bash)\n",
        "zsh" => {
            "autoload -U compinit; compinit -u; bindkey -e; source <(retake completions zsh)\n"
        }
        _ => "retake completions fish | source\n",
    });
    press(typed);
    press("\t");
    std::thread::sleep(PAUSE * 2);
    // To the begin of the line, which becomes words to print; then the end of the shell.
    press("\u{1}echo '<<'\u{5} '>>'\n");
    press("exit\n");
    drop(keys);
    // What a shell shows in these few lines fits the pipe: nobody need read it meanwhile.
    let output = child.wait_with_output().expect("a screen");
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = screen.rfind("\n<<").unwrap_or_else(|| panic!("{shell}: {screen:?}"));
    let line = screen.get(begin + 3..)?.lines().next()?;
    let line = line.trim_end().strip_suffix(">>").unwrap_or(line);
    assert!(!bench.path("pwned").exists(), "{shell} ran a part of a name: {screen:?}");
    Some(line.trim().to_owned())
}

/// Long enough for a shell to read its line and to ask the program; a slow machine has more.
const PAUSE: Duration = Duration::from_millis(700);

/// Scenario: the tab key after parts of verbs, options, names, labels and baselines, in each shell.
/// Guarantees: what is there is completed, also beyond `:` and `=`; what is nowhere is left alone.
#[test]
fn shells_complete_what_the_store_holds() {
    let bench = recorded();
    let cases = [
        ("retake breakd", "retake breakdown"),
        ("retake diff baseline:m", "retake diff baseline:main"),
        ("retake breakdown label:su", "retake breakdown label:suite=smoke"),
        ("retake trace --run night", "retake trace --run nightly"),
        ("retake baseline rm ma", "retake baseline rm main"),
        ("retake trace slow", "retake trace slowest"),
        ("retake report nowhere", "retake report nowhere"),
    ];
    for shell in ["bash", "zsh", "fish"] {
        for (typed, wanted) in cases {
            let Some(found) = completed(&bench, shell, typed) else { break };
            assert_eq!(found, wanted, "{shell}");
        }
    }
}

/// Scenario: a run whose name, sent by a stranger, is a command in every shell.
/// Guarantees: P2 - it is put on the line as a word, and nothing runs.
#[test]
fn a_hostile_name_is_a_word() {
    let bench = recorded();
    for shell in ["bash", "zsh", "fish"] {
        let Some(found) = completed(&bench, shell, "retake breakdown hosti") else { continue };
        let wanted = "retake breakdown hostile$(touch pwned)`touch pwned`;touch pwned";
        assert_eq!(found, wanted, "{shell}");
    }
}

/// Scenario: a shell asks directly, in a folder without a store, with one that is named, and with
/// settings that cannot be read.
/// Guarantees: no error reaches the line that is typed; the store of the line is the one asked.
#[test]
fn asking_never_fails() {
    let bench = recorded();
    let ask = |words: &[&str], store: Option<&str>| {
        let mut command = bench.command(["--", "retake"].iter().chain(words));
        command.env("RETAKE_COMPLETE", "zsh").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        if let Some(store) = store {
            command.env("RETAKE_STORE", store);
        }
        let output = command.output().expect("the program starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let found = ask(&["breakdown", ""], None);
    assert!(found.starts_with("last:"), "the youngest first: {found}");
    let id = bench.last_run();
    assert!(found.contains(&id), "{found}");
    let nowhere = ask(&["breakdown", "l"], Some("nowhere"));
    assert!(!nowhere.contains("last"), "{nowhere}");
    assert!(!bench.path("nowhere").exists(), "asking makes no store");
    let store = bench.store().display().to_string();
    let named = ask(&["--store", &store, "breakdown", "l"], Some("nowhere"));
    assert!(named.contains("last~1"), "{named}");
    bench.write("retake.toml", "this is no TOML");
    ask(&["breakdown", "l"], Some("nowhere"));
    let set = ask(&["diff", "nightly,base"], None);
    assert!(set.contains("nightly,baseline\\:main"), "{set}");
}
