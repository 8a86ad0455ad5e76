//! What fuzzing found, and a few random inputs, on any toolchain.

use std::path::Path;

use proptest::prelude::*;

use super::*;

type Target = fn(&[u8]);

/// Every target that needs no folder.
const TARGETS: [(&str, Target); 12] = [
    ("attributes", attributes),
    ("body", body),
    ("carry_file", carry_file),
    ("damaged_journal", damaged_journal),
    ("durable_file", durable_file),
    ("events", events),
    ("frame", frame),
    ("manifest", manifest),
    ("otlp_json", otlp_json),
    ("otlp_protobuf", otlp_protobuf),
    ("records", records),
    ("ring_file", ring_file),
];

/// Scenario: inputs that once broke something, as `scripts/fuzz` left them.
/// Guarantees: F1 - they do not break it again.
#[test]
fn what_was_found_once_stays_mended() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzzing/found");
    let mut replayed = 0;
    for folder in std::fs::read_dir(found).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            match TARGETS.iter().find(|(target, _)| *target == name) {
                Some((_, target)) => target(&bytes),
                None => in_a_folder(&name, &bytes),
            }
            replayed += 1;
        }
    }
    assert!(replayed > 0, "no fixture was found");
}

fn in_a_folder(name: &str, bytes: &[u8]) {
    assert_eq!(name, "run_folder", "no such target");
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Guarantees: F1 - no bytes panic a decoder, and what they decode to adds up.
    #[test]
    fn no_bytes_break_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }

    /// Guarantees: J5, F1 - a flipped bit of a journal is reported, and what it cost is counted.
    #[test]
    fn a_flipped_bit_is_never_silent(
        is_ring in any::<bool>(),
        place in any::<[u8; 8]>(),
        rest in prop::collection::vec(any::<u8>(), 100..600),
    ) {
        let mut bytes = vec![u8::from(is_ring), 0];
        bytes.extend(place);
        bytes.extend(rest);
        damaged_journal(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Guarantees: F1, J3 - a run of arbitrary files is recovered or refused, and then at rest.
    #[test]
    fn no_folder_breaks_recovery(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        in_a_folder("run_folder", &bytes);
    }
}
