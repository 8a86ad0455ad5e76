//! Pages in a real browser: what is wrong there shows in no text.

use std::path::Path;

use crate::corpus::write_lighthouses;
use crate::receive::Receiver;
use crate::support::{Bench, text};

/// Runs the script that looks at pages; `None` where there is no browser.
fn look(test: &str, arguments: &[&str]) -> Option<()> {
    let (Some(browser), Some(python)) =
        (std::env::var_os("RETAKE_TEST_CHROMIUM"), std::env::var_os("RETAKE_TEST_BROWSER_PYTHON"))
    else {
        eprintln!(
            "{test}: skipped: RETAKE_TEST_CHROMIUM names no Chromium, or \
             RETAKE_TEST_BROWSER_PYTHON no python with playwright"
        );
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/look.py");
    let mut command = std::process::Command::new(python);
    command.arg(script).args(arguments).env("RETAKE_TEST_CHROMIUM", browser);
    if let Some(packages) = std::env::var_os("RETAKE_TEST_BROWSER_PYTHONPATH") {
        command.env("PYTHONPATH", packages);
    }
    let output = assert_cmd::Command::from_std(command)
        .timeout(std::time::Duration::from_secs(300))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Scenario: the report of a demo and one whose run has hostile names, each at three widths, light
/// and dark, searched and zoomed by keyboard and mouse.
/// Guarantees: P2 - no message of the browser, no request, nothing wider than the window, every
/// control has a name, search and zoom do what they say, and without scripts the page is whole.
#[test]
fn reports_are_looked_at_in_a_browser() {
    let bench = Bench::new();
    write_lighthouses(&bench.path("docs"));
    bench.retake(["demo", "--docs", "docs", "--out", "out"]).expect_code(0);
    let hostile = "<img src=x onerror=alert(1)>\"'</style><script>alert(1)</script>\u{202e}";
    let body = serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": hostile}}]},
        "scopeSpans": [{"spans": (1..=3).map(|id| serde_json::json!({
            "traceId": crate::receive::TRACE,
            "spanId": format!("00000000000000{id:02x}"),
            "parentSpanId": if id > 1 { "0000000000000001" } else { "" },
            "name": format!("{hostile} {id}"),
            "startTimeUnixNano": "1790000000000000000",
            "endTimeUnixNano": format!("17900000005000000{id:02}"),
            "attributes": [{"key": "openinference.span.kind", "value": {"stringValue": "LLM"}}],
            "status": {"code": 2, "message": hostile},
        })).collect::<Vec<_>>()}],
    }]});
    bench.write("hostile.json", body.to_string());
    bench.retake(["import", "hostile.json", "--run", hostile]).expect_code(0);
    bench.retake(["report", "last", "--output", "hostile.html"]).expect_code(0);
    let (report, hostile) = (bench.path("out/report.html"), bench.path("hostile.html"));
    let paths = [&report, &hostile].map(|path| path.to_str().expect("a path"));
    look("reports_are_looked_at_in_a_browser", &["report", paths[0], paths[1]]);
}

/// Scenario: a listener with a token is opened by its link, then by typing the token in another
/// browser.
/// Guarantees: O4 - both see the runs and follow them, the key is in no address any more, and no
/// script can read the cookie.
#[test]
fn a_token_is_asked_for_in_a_browser() {
    let bench = Bench::with_documents();
    let (receiver, link) = crate::pages::with_token(&bench);
    let arguments = ["entry", receiver.address(), &link, crate::pages::TOKEN];
    look("a_token_is_asked_for_in_a_browser", &arguments);
    assert_eq!(receiver.end("-INT").0, Some(0));
}

/// Scenario: the history of a demo is looked at in a browser while a run with hostile names arrives.
/// Guarantees: the new run is seen without a reload; runs, traces and SQL are shown; no message of
/// the browser.
#[test]
fn the_history_is_followed_in_a_browser() {
    let bench = Bench::with_documents();
    bench.retake(["rag", "ask", "What was the keeper of Skerryvore called?"]).expect_code(0);
    let run_id = bench.last_run();
    let row = bench.rows(&format!("select trace_id from spans where run_id = '{run_id}' limit 1"));
    let trace = text(&row[0]["trace_id"]);
    let receiver = Receiver::start(&bench, &[]);
    let arguments = ["live", receiver.address(), &run_id, &trace];
    look("the_history_is_followed_in_a_browser", &arguments);
    assert_eq!(receiver.end("-INT").0, Some(0));
}
