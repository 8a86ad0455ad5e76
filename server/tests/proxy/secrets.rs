//! Credentials pass, and are in no file of the run.

use std::path::Path;

use bytes::Bytes;
use retake_schemas::event::Capture;
use serde_json::json;

use super::support::{Recorded, Rows, Seen, Upstream, ask, whole};

/// Unique, and of no shape that a rule knows.
const CANARY: &str = "CANARYQ7ZX90VB";
const PROMPT: &str = "PROMPTQ8ZW17KD";

/// Every place a text is in: files as they are, and every table decoded.
fn places(text: &str, folder: &Path, rows: &Rows) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    assert!(files >= 3, "{files} files");
    let tables = [
        format!("spans {:?}", rows.spans),
        format!("tokens {:?}", rows.tokens),
        format!("documents {:?}", rows.documents),
        format!("payloads {:?}", rows.payloads),
    ];
    found.extend(tables.into_iter().filter(|table| table.contains(text)));
    found
}

/// Scenario: credentials in every header and parameter that services take them in, with an
/// upstream that repeats all of them in its errors; and a canary in the prompt.
/// Guarantees: P1 - no credential is in any file of the run under any policy, not even in the
/// journal while the run goes on; the prompt is there only under `full`.
#[tokio::test]
async fn credentials_are_not_recorded() {
    let upstream = Upstream::start(|seen: Seen| {
        let said: Vec<_> = seen.headers.values().map(|v| v.to_str().unwrap()).collect();
        let message = format!("no access with {} to {}", said.join(", "), seen.line);
        let error = json!({"error": {"message": message, "type": "invalid_api_key"}});
        std::future::ready(whole(401, "application/json", Bytes::from(error.to_string())))
    })
    .await;
    for capture in Capture::ALL {
        let recorded = Recorded::start(upstream.url(), capture);
        let value = |number: usize| format!("{CANARY}{number:02}");
        let named = [
            ("authorization", format!("Bearer {}", value(1))),
            ("api-key", value(2)),
            ("x-api-key", value(3)),
            ("x-goog-api-key", value(4)),
            ("cookie", format!("theme=dark; session={}", value(5))),
            ("openai-organization", value(6)),
            ("proxy-authorization", format!("Basic {}", value(7))),
            ("x-anything", value(8)),
        ];
        let headers: Vec<_> = named.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = json!({"model": "m", "messages": [{"content": PROMPT}], "input": PROMPT,
                          "query": PROMPT, "documents": [PROMPT], "prompt": PROMPT,
                          "user": value(9), "api_key": value(10)});
        for path in ["chat/completions", "completions", "embeddings", "rerank", "responses"] {
            let line = format!("POST /v1/{path}?key={}&token={}&page=2", value(11), value(12));
            let mut answer = ask(recorded.address, &line, &headers, body.to_string()).await;
            let text = answer.text().await.unwrap();
            assert!(answer.status == 401 && text.contains(CANARY));
        }
        // As a killed process would leave it.
        let copy = recorded.folder.path().join("journal-copy");
        std::fs::create_dir(&copy).unwrap();
        for run in std::fs::read_dir(recorded.folder.path().join("runs")).unwrap() {
            for file in std::fs::read_dir(run.unwrap().path().join("journal")).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
        let rows = recorded.end().await;
        assert_eq!(rows.spans.len(), 5);
        let messages = rows.spans.iter().filter_map(|span| span.error_message.as_deref());
        assert!(messages.clone().all(|m| m.starts_with("no access with")), "{:?}", rows.spans);
        assert_eq!(messages.count(), 5);
        assert_eq!(places(CANARY, rows.folder.path(), &rows), Vec::<String>::new(), "{capture:?}");
        let kept = places(PROMPT, rows.folder.path(), &rows);
        assert_eq!(!kept.is_empty(), capture.keeps_text(), "{capture:?}: {kept:?}");
    }
}
