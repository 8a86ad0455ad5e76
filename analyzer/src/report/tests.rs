//! The page as a whole: well formed, inert, small, and sensible when there is little to say.

use super::hostile::hostile;
use super::page::SCRIPT;
use super::render;
use super::sample::{empty, large, rich};

/// Scenario: a small reader of the page splits it into tags and text.
fn tags(page: &str) -> Vec<&str> {
    let body = page.split_once("<!DOCTYPE html>").unwrap().1;
    let (before_style, rest) = body.split_once("<style>").unwrap();
    let after_style = rest.split_once("</style>").unwrap().1;
    let (before_script, rest) = after_style.split_once("<script>").unwrap();
    let after_script = rest.strip_prefix(SCRIPT).expect("the one script of the crate");
    let after_script = after_script.strip_prefix("</script>").unwrap();
    [before_style, before_script, after_script]
        .iter()
        .flat_map(|part| part.split('<').skip(1))
        .map(|piece| piece.split_once('>').expect("a tag ends").0)
        .collect()
}

/// Fails unless every tag and attribute is one that the report uses, and all elements nest.
fn assert_inert(page: &str) {
    let mut open = Vec::new();
    for tag in tags(page) {
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "elements nest");
            continue;
        }
        let name = tag.split([' ', '\n']).next().unwrap();
        assert!(ELEMENTS.contains(&name), "element {name} in <{tag}>");
        for (attribute, value) in attributes(tag.strip_prefix(name).unwrap()) {
            assert!(ATTRIBUTES.contains(&attribute), "attribute {attribute} in <{tag}>");
            assert!(attribute != "href" || value.starts_with('#'), "link to {value}");
        }
        if name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn attributes(mut rest: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        match after.strip_prefix("=\"").map(|quoted| quoted.split_once('"').expect("a value ends"))
        {
            Some((value, after)) => {
                found.push((name, value));
                rest = after;
            }
            None => {
                assert!(!after.starts_with('='), "value without quotes after {name}");
                found.push((name, ""));
                rest = after;
            }
        }
    }
}

const ELEMENTS: &[&str] = &[
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "nav",
    "section",
    "footer",
    "div",
    "p",
    "h1",
    "h2",
    "h3",
    "dl",
    "dt",
    "dd",
    "ul",
    "li",
    "span",
    "b",
    "bdi",
    "a",
    "table",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "figure",
    "figcaption",
    "pre",
    "code",
    "svg",
    "desc",
    "g",
    "rect",
    "line",
    "path",
    "circle",
    "text",
    "tspan",
];
const ATTRIBUTES: &[&str] = &[
    "lang",
    "charset",
    "http-equiv",
    "content",
    "name",
    "class",
    "id",
    "href",
    "aria-label",
    "aria-labelledby",
    "aria-hidden",
    "role",
    "tabindex",
    "open",
    "scope",
    "title",
    "colspan",
    "width",
    "height",
    "x",
    "y",
    "dx",
    "dy",
    "x1",
    "x2",
    "y1",
    "y2",
    "cx",
    "cy",
    "r",
    "d",
    "viewBox",
    "preserveAspectRatio",
    "text-anchor",
    "data-ns",
];

/// Payloads that leave text for markup, for script, for style, or for the terminal.
fn payloads() -> Vec<String> {
    let seeds = [
        "<script>alert(1)</script>",
        "</title><script>alert(1)</script>",
        "</style><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "\"><svg onload=alert(1)>",
        "' onmouseover='alert(1)",
        "\" onfocus=\"alert(1)\" autofocus=\"",
        "<iframe srcdoc='<b>'>",
        "<a href=\"javascript:alert(1)\">x</a>",
        "]]><script>1</script>",
        "<![CDATA[<b>]]>",
        "<!--",
        "--><b>x</b>",
        "<?xml version=\"1.0\"?>",
        "<!DOCTYPE html>",
        "<style>*{display:none}</style>",
        "<base href=//evil>",
        "<meta http-equiv=refresh content=0>",
        "<link rel=stylesheet href=//evil>",
        "<foreignObject><b>",
        "<use href=\"data:image/svg+xml,x\"/>",
        "<set attributeName=href to=javascript:1>",
        "<animate onbegin=1>",
        "</text></svg><b>x",
        "</summary></details><b>",
        "</pre></code><b>",
        "</bdi></td></tr></table><b>",
        "<form action=//evil><input name=q>",
        "<textarea>",
        "<noscript><p title=\"</noscript><b>\">",
        "<math><mtext><table><mglyph><style><b>",
        "<template><b>",
        "<object data=x>",
        "<embed src=x>",
        "&lt;script&gt;",
        "&#60;script&#62;",
        "&\"<>'",
        "`${alert(1)}`",
        "{{7*7}}",
        "<%= 7*7 %>",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{1b}]0;title\u{7}",
        "\u{1b}]8;;http://evil\u{1b}\\x",
        "\u{9b}31m",
        "\u{8}\u{8}\u{8}",
        "\u{0}nul\u{0}",
        "\r\nSet-Cookie: a=b",
        "a\u{202e}fdp.exe",
        "\u{2066}\u{2069}",
        "\u{200f}\u{200e}",
        "\u{feff}<b>",
        "\u{e0001}\u{e0041}",
        "\u{2028}\u{2029}",
        "\u{7f}\u{85}",
        "=cmd|' /C calc'!A0",
        "+1+1",
        "@SUM(1)",
        "-2+3",
    ];
    let mut all: Vec<String> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
    all.extend(seeds.iter().map(|seed| format!("stage {seed}\u{202e}\"'><i>")));
    all.extend(seeds.iter().map(|seed| seed.to_uppercase()));
    all.extend(seeds.iter().map(|seed| format!("<{seed}>{seed}</{seed}>")));
    all.extend(seeds.iter().map(|seed| format!("a\n\r{seed}\u{0}")));
    all.push("<b>".repeat(10_000));
    all.push("\u{1f4a9}\u{301}".repeat(5_000));
    all
}

/// Scenario: each of nearly 300 hostile strings in every string field of a report.
/// Guarantees: P2 - the page holds only tags and attributes of the report itself, links only
/// into itself, and no character that acts on a terminal or on the direction of text.
#[test]
fn hostile_strings_stay_text() {
    let payloads = payloads();
    assert!(payloads.len() > 290, "{}", payloads.len());
    let base = rich();
    for payload in &payloads {
        let page = render(&hostile(&base, payload));
        assert_inert(&page);
        let markup = payload.contains(['<', '"']) && payload.len() > 1;
        assert!(!markup || !body(&page).contains(payload.as_str()), "raw: {payload}");
        for c in page.chars() {
            let acts = (c.is_control() && c != '\n')
                || "\u{202e}\u{2066}\u{200e}\u{200f}\u{feff}\u{e0041}\u{2028}".contains(c);
            assert!(!acts, "{c:?} of {payload:?}");
        }
        assert!(page.len() < 1_000_000, "{} bytes for {payload:.20}", page.len());
    }
}

/// What stands between the head and the script.
fn body(page: &str) -> &str {
    page.split_once("<body>").unwrap().1.split_once("<script>").unwrap().0
}

/// Scenario: the rich, the empty, and the large run.
/// Guarantees: P2 - the page is well formed, asks the network for nothing, and runs nothing but its
/// own script, which its policy knows by its digest and which writes strings as text only.
#[test]
fn pages_are_self_contained() {
    for data in [rich(), empty(), large(2_000)] {
        let page = render(&data);
        assert_inert(&page);
        assert_eq!(page.matches("<script").count(), 1);
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for word in ["http://", "https://", "javascript:", "url(", "@import", "style="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; "));
        assert!(page.contains("script-src 'sha256-"));
    }
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval",
        "Function",
        "fetch",
        "</",
    ] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
}

/// Scenario: 10,000 spans in 200 traces, all of them offered as waterfalls.
/// Guarantees: the page stays below a megabyte and says what it left out.
#[test]
fn ten_thousand_spans_fit_a_megabyte() {
    let page = render(&large(10_000));
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains("more traces"), "what is left out is stated");
}

/// Scenario: a breakdown whose rows sum to the wall time, and one that misses it.
/// Guarantees: the page states the sum, or that it does not hold.
#[test]
fn sums_are_stated_and_checked() {
    let mut data = rich();
    assert!(render(&data).contains("sum to exactly"));
    data.breakdown.wall_ns += 1;
    let page = render(&data);
    assert!(!page.contains("sum to exactly") && page.contains("do not trust these shares"));
}

/// Scenario: a run that was idle most of the time, and a trace with more spans than its tree.
/// Guarantees: idleness is stated but is no bottleneck, and the missing spans are counted.
#[test]
fn idleness_and_cut_trees_are_stated() {
    let mut data = rich();
    data.baseline = None;
    let first = &mut data.breakdown.rows[0];
    (first.stage, first.wall_share) = ("(idle)".to_owned(), 0.57);
    data.traces[0].spans = 2_014;
    let page = render(&data).replace('\u{a0}', " ");
    assert!(page.contains("During 57 % of it no span was active."));
    assert!(!page.contains("<bdi>(idle)</bdi></span></b>"), "idleness is no bottleneck");
    assert!(page.contains("2,000 more spans"));
}

/// Scenario: nothing recorded, no baseline.
/// Guarantees: sentences instead of empty tables, and no section without content.
#[test]
fn an_empty_run_reads_sensibly() {
    let page = render(&empty());
    assert!(page.contains("still being recorded"));
    for section in [
        "id=\"stages\"",
        "id=\"latency\"",
        "id=\"waterfalls\"",
        "id=\"comparison\"",
        "id=\"paths\"",
        "id=\"budgets\"",
        "id=\"trend\"",
        "id=\"sweep\"",
        "id=\"retrieval\"",
        "<nav",
        "NaN",
        "inf",
    ] {
        assert!(!body(&page).contains(section), "{section}");
    }
}

/// Scenario: the same run with and without a baseline.
/// Guarantees: the verdict names the effect and its interval, and the stage that explains it.
#[test]
fn a_baseline_adds_its_verdict() {
    let mut data = rich();
    let page = render(&data).replace('\u{a0}', " ");
    assert!(page.contains("slower: +9.6 %") && page.contains("95 % interval +7.5 % to +11.7 %"));
    assert!(page.contains("accounts for 98 % of the change") && page.contains("id=\"comparison\""));
    data.baseline = None;
    let page = render(&data);
    assert!(!page.contains("id=\"comparison\"") && !page.contains("slower:"));
}

/// Scenario: numbers no clock would give.
/// Guarantees: the page is drawn without panic and without `NaN` on it.
#[test]
fn absurd_numbers_are_drawn() {
    let mut data = rich();
    for (at, tree) in data.trees.iter_mut().enumerate() {
        tree.duration_ns = [0, -1, i64::MAX, i64::MIN, 1].get(at).copied().unwrap_or(7);
        for node in &mut tree.nodes {
            node.span.start_unix_ns = if at % 2 == 0 { i64::MIN } else { i64::MAX };
            (node.self_ns, node.depth) = (i64::MAX, usize::MAX);
        }
    }
    for flame in &mut data.flames {
        (flame.wall_ns, flame.spans) = (i64::MAX, u64::MAX);
    }
    for budget in &mut data.budgets {
        (budget.actual, budget.margin) = (Some(f64::NAN), Some(f64::NEG_INFINITY));
    }
    for point in data.trend.iter_mut().flat_map(|t| &mut t.series).flat_map(|s| &mut s.points) {
        point.value = Some(f64::INFINITY);
    }
    for setting in data.sweep.iter_mut().flat_map(|sweep| &mut sweep.settings) {
        setting.predicted = vec![Some([f64::INFINITY, f64::NAN, f64::MIN]), Some([0.0; 3])];
        for one in &mut setting.measured {
            one.values = vec![Some(f64::MAX), Some(f64::MIN_POSITIVE)];
        }
    }
    for rank in data.retrieval.iter_mut().flat_map(|found| &mut found.ranks) {
        (rank.rank, rank.scores) = (i64::MAX, Some([f64::MIN, 0.0, f64::MAX]));
    }
    for row in &mut data.breakdown.rows {
        (row.wall_ns, row.self_ns, row.p99_ns, row.calls) =
            (i64::MAX, i64::MIN, i64::MAX, u64::MAX);
        (row.wall_share, row.critical_share, row.cost_usd) =
            (f64::NAN, f64::INFINITY, Some(f64::NAN));
    }
    for trace in &mut data.traces {
        (trace.duration_ns, trace.start_unix_ns, trace.ttft_ns) =
            (i64::MIN, i64::MAX, Some(i64::MAX));
    }
    let page = render(&data);
    assert_inert(&page);
    for word in ["NaN", ">inf", "\"inf"] {
        let at = body(&page).find(word);
        assert!(
            at.is_none(),
            "{word}: {:?}",
            at.map(|at| &body(&page)[at.saturating_sub(200)..at + 20])
        );
    }
}

/// Scenario: pages of all kinds, among them one of 10,000 spans; written to the folder
/// `REPORT_SAMPLES`, if it is set, for a person to look at.
/// Guarantees: P2 - each is inert, and none is larger than a megabyte.
#[test]
fn pages_of_all_kinds_are_inert_and_small() {
    let folder = std::env::var_os("REPORT_SAMPLES").map(std::path::PathBuf::from);
    let mut alone = rich();
    alone.baseline = None;
    alone.quality = crate::model::DataQuality::default();
    for (name, data) in [
        ("rich", rich()),
        ("alone", alone),
        ("empty", empty()),
        ("large", large(10_000)),
        ("hostile", hostile(&rich(), &payloads()[1])),
    ] {
        let page = render(&data);
        assert_inert(&page);
        assert!(page.len() < 1_000_000, "{name}: {} bytes", page.len());
        if let Some(folder) = &folder {
            std::fs::write(folder.join(format!("report-{name}.html")), page).unwrap();
        }
    }
}

/// Scenario: a run that a replay in virtual time made, and runs whose labels are others or no JSON.
/// Guarantees: the page says of the first, and only of it, that it is a prediction.
#[test]
fn a_simulated_run_is_said_to_be_one() {
    let mut data = rich();
    for (labels, is_simulated) in [
        (r#"{"retake.clock":"virtual","team":"search"}"#, true),
        (r#"{"retake.clock":"wall"}"#, false),
        (r#"["retake.clock","virtual"]"#, false),
        ("retake.clock: virtual", false),
        ("", false),
    ] {
        data.run.labels = labels.to_owned();
        let page = render(&data);
        assert_eq!(page.contains("\u{25c7} simulated"), is_simulated, "{labels}");
        assert_inert(&page);
    }
}
