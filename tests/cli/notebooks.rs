//! The notebooks: executed against a store that the demo recorded, as a reader would.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::corpus::write_lighthouses;
use crate::support::Bench;

/// Name and content of each notebook.
fn notebooks() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("notebooks/")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ipynb"))
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a notebook");
            let content = serde_json::from_str(&text).expect("a notebook is JSON");
            (path, content)
        })
        .collect()
}

/// Scenario: notebooks are read in git.
/// Guarantees: they hold no outputs, which differ with every execution and may hold what was
/// recorded; and the table of the folder names each of them.
#[test]
fn notebooks_are_kept_without_outputs() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/README.md");
    let table = std::fs::read_to_string(table).expect("notebooks/README.md");
    let all = notebooks();
    assert_eq!(all.len(), table.lines().filter(|line| line.starts_with("| [")).count());
    for (path, content) in all {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(table.contains(&format!("]({name})")), "{name} is not in notebooks/README.md");
        let cells = content["cells"].as_array().expect("cells");
        for cell in cells.iter().filter(|cell| cell["cell_type"] == "code") {
            assert_eq!(cell["outputs"], serde_json::json!([]), "{name} has outputs");
            assert!(cell["execution_count"].is_null(), "{name} counts executions");
        }
    }
}

/// Scenario: after the demo, every notebook is executed from its first cell to its last.
/// Guarantees: no cell fails, and each notebook draws a picture.
#[test]
fn notebooks_run_on_what_the_demo_recorded() {
    let Some(python) = std::env::var_os("RETAKE_TEST_NOTEBOOKS_PYTHON") else {
        eprintln!(
            "notebooks_run_on_what_the_demo_recorded: skipped: RETAKE_TEST_NOTEBOOKS_PYTHON names \
             no python with nbconvert, ipykernel, matplotlib, pyarrow, duckdb and polars"
        );
        return;
    };
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    bench.retake(["demo", "--docs", "docs", "--out", "out"]).expect_code(0);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run-notebook");
    for (path, _) in notebooks() {
        let page = bench.path("page.html");
        let mut command = std::process::Command::new(&python);
        command.arg(&script).arg(&path).arg("--in").arg(bench.path(".")).arg("--html").arg(&page);
        command.env("RETAKE_STORE", bench.path("out/store"));
        command.env("RETAKE_BIN", env!("CARGO_BIN_EXE_retake"));
        // Few and small: what is tested is the notebook, not a setting.
        command.env("SIZES", "1,8").env("REPEATS", "2");
        command.env("MPLCONFIGDIR", bench.path("matplotlib"));
        command.env("IPYTHONDIR", bench.path("ipython"));
        if let Some(packages) = std::env::var_os("RETAKE_TEST_NOTEBOOKS_PYTHONPATH") {
            command.env("PYTHONPATH", packages);
        }
        let output = assert_cmd::Command::from_std(command)
            .timeout(std::time::Duration::from_secs(300))
            .output()
            .expect("python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{errors}", path.display());
        let html = std::fs::read_to_string(&page).expect("a page");
        assert!(html.contains("data:image/png;base64,"), "{} draws nothing", path.display());
    }
}
