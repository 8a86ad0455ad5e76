//! Everything that a name from outside is parsed into: ids, digests, selectors.

#![no_main]

use retake_recorder::store::Selector;
use retake_schemas::{Digest, RunId, SpanId, TraceId};

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("names"), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(run_id) = text.parse::<RunId>() {
        assert_eq!(run_id.as_str(), text);
        let folder = std::path::Path::new("store").join(run_id.as_str());
        let parts: Vec<_> = folder.components().collect();
        assert_eq!(parts.len(), 2, "a run id is one name: {text:?}");
        assert!(matches!(parts[1], std::path::Component::Normal(_)), "{text:?}");
    }
    if let Ok(id) = text.parse::<SpanId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(id) = text.parse::<TraceId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
    let Ok(_) = text.parse::<Selector>();
});
