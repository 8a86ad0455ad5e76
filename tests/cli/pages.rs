//! The history in a browser: the pages of `retake serve`.

use crate::receive::{JSON, Receiver, TRACE, request, span};
use crate::support::Bench;

/// The version a page says it has.
fn version(answer: &str) -> String {
    let line = answer.lines().find(|line| line.to_lowercase().starts_with("etag:"));
    let (_, version) = line.expect("a version").split_once(':').expect("a header");
    version.trim().to_owned()
}

/// Scenario: a service sends while the history is looked at, before and after.
/// Guarantees: the history names the run as being recorded, its report and its trace have pages, and
/// a page that did not change is not sent again while one that did is.
#[test]
fn the_history_is_looked_at_while_it_grows() {
    let bench = Bench::new();
    let receiver = Receiver::start(&bench, &["--capture", "full"]);
    let empty = receiver.get("/", "");
    assert!(
        empty.starts_with("HTTP/1.1 200") && empty.contains("Nothing is recorded yet"),
        "{empty}"
    );

    let body = request("shop", &[span(1, None, "CHAIN"), span(2, Some(1), "LLM")]);
    assert!(receiver.post("/v1/traces", JSON, &body).starts_with("HTTP/1.1 200"));
    let history = receiver.get("/", "");
    assert!(history.contains("shop") && history.contains("being recorded now"), "{history}");
    let (_, rest) = history.split_once("href=\"/runs/").expect("a run");
    let run_id = rest.split('"').next().expect("its id").to_owned();

    let run = receiver.get(&format!("/runs/{run_id}"), "");
    assert!(run.starts_with("HTTP/1.1 200") && run.contains("id=\"stages\""), "{run}");
    assert!(run.contains(&format!("href=\"/runs/{run_id}/traces/{TRACE}\"")), "{run}");
    let trace = receiver.get(&format!("/runs/last/traces/{TRACE}"), "");
    assert!(trace.contains("step 2") && trace.contains("app.colour"), "{trace}");

    let known = format!("If-None-Match: {}\r\n", version(&run));
    let again = receiver.get(&format!("/runs/{run_id}"), &known);
    assert!(again.starts_with("HTTP/1.1 304") && !again.contains("<html"), "{again}");
    let more = request("shop", &[span(3, Some(1), "RETRIEVER")]);
    assert!(receiver.post("/v1/traces", JSON, &more).starts_with("HTTP/1.1 200"));
    let grown = receiver.get(&format!("/runs/{run_id}"), &known);
    assert!(grown.starts_with("HTTP/1.1 200") && grown.contains("retrieve"), "{grown}");
    assert_eq!(receiver.end("-INT").0, Some(0));
}

/// Scenario: two runs are compared, SQL is asked, and what does not exist is asked for.
/// Guarantees: the comparison and the rows are shown; nothing can be written by SQL; what is wrong is
/// said on a page with its own status; other sites get nothing.
#[test]
fn pages_answer_what_they_are_asked() {
    let bench = Bench::with_documents();
    for _ in 0..2 {
        bench.retake(["rag", "ask", "What was the keeper of Skerryvore called?"]).expect_code(0);
    }
    let receiver = Receiver::start(&bench, &[]);
    let compared = receiver.get("/compare?base=last~1&candidate=last", "");
    assert!(compared.contains("id=\"comparison\""), "{compared}");
    let rows = receiver
        .get("/sql?q=select+count%28*%29+as+spans+from+spans+where+stage+%3D+%27retrieve%27", "");
    assert!(rows.contains("<bdi>spans</bdi>") && rows.contains("1\u{a0}row"), "{rows}");
    let refused = receiver.get("/sql?q=drop+table+spans", "");
    assert!(refused.starts_with("HTTP/1.1 200") && refused.contains("role=\"alert\""), "{refused}");
    let hostile = receiver.get("/sql?q=select+%27%3Cscript%3Ealert%281%29%3C%2Fscript%3E%27", "");
    assert!(!hostile.contains("<script>alert"), "{hostile}");

    for (path, status) in [
        ("/runs/no-such-run", "404"),
        ("/nowhere", "404"),
        ("/compare?base=last", "400"),
        ("/compare?base=last&candidate=last", "400"),
        ("/runs/last/traces/zzzz", "404"),
        ("/runs/%3Cscript%3Ealert(1)%3C/script%3E", "404"),
    ] {
        let answer = receiver.get(path, "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(!answer.contains("<script>alert"), "{path}: {answer}");
    }
    let framed = receiver.get("/", "Sec-Fetch-Site: cross-site\r\n");
    assert!(framed.starts_with("HTTP/1.1 403"), "{framed}");
    assert!(receiver.get("/", "Origin: http://evil.example\r\n").starts_with("HTTP/1.1 403"));
    let posted =
        receiver.post("/sql", "Content-Type: application/x-www-form-urlencoded\r\n", "q=select+1");
    assert!(!posted.starts_with("HTTP/1.1 200"), "{posted}");
    let page = receiver.get("/", "");
    for guard in
        ["x-frame-options: DENY", "x-content-type-options: nosniff", "cache-control: no-store"]
    {
        assert!(page.contains(guard), "{guard}: {page}");
    }
    assert!(!receiver.address().is_empty());
    assert_eq!(receiver.end("-INT").0, Some(0));
}

/// The token, and a bench whose receiver has it.
pub(crate) fn with_token(bench: &Bench) -> (Receiver, String) {
    bench.write("token", format!("{TOKEN}\n"));
    let mut receiver = Receiver::start(bench, &["--token-file", "token"]);
    let line = receiver.line();
    let (_, link) = line.split_once("/in?key=").unwrap_or_else(|| panic!("no link in {line}"));
    let key = link.split(';').next().expect("a key").to_owned();
    (receiver, format!("/in?key={key}"))
}

pub(crate) const TOKEN: &str = "correct-horse-battery";

/// Scenario: a listener with a token, asked by a program, by a browser with nothing, with the link,
/// with the link once more, with the form, and from a page of another site.
/// Guarantees: O4, P1 - a link lets in once, the token does always, and what then lets in is a cookie
/// that scripts cannot read, other sites cannot send, and programs' paths do not take. The token
/// stands in no answer and in no message.
#[test]
fn a_browser_is_let_in_by_a_link_or_by_the_token() {
    let bench = Bench::with_documents();
    let (receiver, link) = with_token(&bench);
    let html = "Accept: text/html,application/xhtml+xml\r\n";
    let mut answers = Vec::new();
    let mut expect = |answer: String, status: &str, part: &str| {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
        assert!(answer.contains(part), "{part}: {answer}");
        answers.push(answer.clone());
        answer
    };
    expect(receiver.get("/", html), "401", "type=\"password\"");
    let bare = expect(receiver.get("/", ""), "401", "a token is needed");
    assert!(!bare.contains("<html"), "{bare}");
    expect(receiver.get(&link, "Sec-Purpose: prefetch\r\n"), "401", "<html");
    let wrong = format!("{}0", &link[..link.len() - 1]);
    expect(
        receiver.get(if wrong == link { "/in?key=0" } else { &wrong }, html),
        "401",
        "used before",
    );

    let cross = "Sec-Fetch-Site: cross-site\r\n";
    expect(receiver.get(&link, cross), "403", "other sites");
    let let_in = expect(receiver.get(&link, "Sec-Fetch-Site: none\r\n"), "303", "location: /\r\n");
    assert!(let_in.contains("; HttpOnly; SameSite=Strict; Max-Age="), "{let_in}");
    expect(receiver.get(&link, html), "401", "used before");

    let (_, rest) = let_in.split_once("set-cookie: ").expect("a cookie");
    let pair = rest.split(';').next().expect("a pair");
    let cookie = format!("Cookie: theme=dark; {pair}\r\n");
    expect(receiver.get("/", &cookie), "200", "<h1>Runs</h1>");
    expect(receiver.get("/runs/last", &cookie), "200", "id=\"stages\"");
    expect(receiver.get("/metrics", &cookie), "401", "a token is needed");
    expect(receiver.post("/v1/traces", &format!("{JSON}{cookie}"), "{}"), "401", "a token");
    expect(receiver.get("/", &format!("{cookie}{cross}")), "403", "other sites");
    expect(receiver.get("/", &format!("Cookie: {pair}0\r\n")), "401", "a token is needed");

    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let own = format!("{form}Origin: http://{}\r\n", receiver.address());
    let token = format!("token={TOKEN}%0A");
    let by_form = expect(receiver.post("/in", &own, &token), "303", "set-cookie: ");
    assert!(!by_form.contains(pair), "each browser has a cookie of its own");
    expect(receiver.post("/in", &own, "token=correct-horse-batterz"), "401", "not the token");
    expect(receiver.post("/in", &own, &"token=".repeat(2000)), "401", "not the token");
    expect(receiver.post("/in", JSON, "{\"token\": \"correct-horse-battery\"}"), "401", "not the");
    let foreign = format!("{form}Origin: http://evil.example\r\n");
    expect(receiver.post("/in", &foreign, &token), "403", "other sites");

    let (code, said) = receiver.end("-INT");
    assert_eq!(code, Some(0));
    answers.push(said);
    assert!(answers.iter().all(|text| !text.contains(TOKEN)), "the token is shown: {answers:?}");
}

/// Scenario: the same paths on a listener without a token.
/// Guarantees: nobody is asked for what is not needed, and there is no link.
#[test]
fn without_a_token_there_is_no_entry() {
    let bench = Bench::with_documents();
    let mut receiver = Receiver::start(&bench, &[]);
    let line = receiver.line();
    assert!(line.contains("in a browser: http://") && !line.contains("key="), "{line}");
    assert!(receiver.get("/in?key=0", "Accept: text/html\r\n").starts_with("HTTP/1.1 404"));
    assert!(receiver.get("/", "").starts_with("HTTP/1.1 200"));
    assert_eq!(receiver.end("-INT").0, Some(0));
}
