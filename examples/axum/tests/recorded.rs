//! The service, asked without a socket, and the run that came of it.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use retake_axum::app;
use retake_recorder::{RecorderBuilder, Store};
use retake_schemas::event::RunStatus;
use tower::ServiceExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

/// Scenario: three questions at once, one of which finds nothing, and a probe.
/// Guarantees: a root span for each question and none for the probe, the work below them, and
/// nothing dropped.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_recorded_and_probes_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::create(&folder.path().join("store")).expect("a store");
    let recorder = RecorderBuilder::new("test", "support-bot").start(&store).expect("a recorder");
    let subscriber = tracing_subscriber::registry().with(recorder.layer());
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");

    let ask = |question: &str| {
        let body = serde_json::json!({"question": question, "session": "s-1"}).to_string();
        let request = Request::post("/ask")
            .header("content-type", "application/json")
            .header("x-request-id", "r-1")
            .body(Body::from(body))
            .expect("a request");
        app().oneshot(request)
    };
    let (first, second, nothing) =
        tokio::join!(ask("How do I return it?"), ask("Do you ship to Fair Isle?"), ask(" "));
    assert_eq!(first.expect("an answer").status(), StatusCode::OK);
    assert_eq!(second.expect("an answer").status(), StatusCode::OK);
    assert_eq!(nothing.expect("an answer").status(), StatusCode::UNPROCESSABLE_ENTITY);
    let probe = Request::get("/healthz").body(Body::empty()).expect("a request");
    assert_eq!(app().oneshot(probe).await.expect("an answer").status(), StatusCode::OK);

    let summary = recorder.finish(RunStatus::Finished);
    // Two questions of three spans; one that ends after its search.
    assert_eq!((summary.spans, summary.dropped), (8, 0));
}
