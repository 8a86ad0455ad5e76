//! First inputs for the targets, made by the real encoders, so that a fuzzer starts behind the
//! magic bytes and checksums and no binary file has to be kept.

use retake_schemas::manifest::Manifest;

use super::events::body;
use super::input::Input;
use super::journal::{durable, ring, stretches};
use crate::journal::encode_body;

/// First inputs of a target; none for one whose inputs are texts.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let make: fn(&[u8]) -> Vec<u8> = match target {
        "ring_file" => |noise| [&[0], ring(&stretches(&mut Input::new(noise))).as_slice()].concat(),
        "durable_file" => {
            |noise| [&[0], durable(&stretches(&mut Input::new(noise))).as_slice()].concat()
        }
        "frame" => |noise| durable(&stretches(&mut Input::new(noise))).split_off(64),
        "body" => one_body,
        "carry_file" => carried,
        "manifest" => manifest,
        "otlp_json" => |_| crate::otlp::fuzzing::json_seed(),
        "otlp_protobuf" => |_| crate::otlp::fuzzing::protobuf_seed(),
        "run_folder" => run_folder,
        "damaged_journal" | "events" | "records" | "attributes" => <[u8]>::to_vec,
        _ => return Vec::new(),
    };
    (0..SEEDS).map(|number| make(&noise(number))).collect()
}

fn one_body(noise: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_body(&body(&mut Input::new(noise)), &mut bytes).expect("an event can be encoded");
    bytes
}

fn carried(noise: &[u8]) -> Vec<u8> {
    let mut fold = super::new_fold();
    let mut input = Input::new(noise);
    for _ in 0..8 {
        fold.apply_body(super::START_UNIX_NS, &body(&mut input));
    }
    let mut bytes = Vec::new();
    for item in fold.carried() {
        let payload = rmp_serde::to_vec_named(&item).expect("what is carried can be encoded");
        crate::journal::write_frame(&mut bytes, retake_schemas::EventSeq(0), 0, &payload);
    }
    bytes
}

fn manifest(noise: &[u8]) -> Vec<u8> {
    let run_id = "20260101t000000-abcd".parse().expect("a run id");
    let mut manifest: Manifest = super::run::manifest(&run_id, &mut Input::new(noise));
    manifest.carry = None;
    [&[1], serde_json::to_vec(&manifest).expect("a manifest").as_slice()].concat()
}

/// Facts of a run by chance, and the two kinds of journal files.
fn run_folder(noise: &[u8]) -> Vec<u8> {
    let file = |kind: u8, file: &[u8]| {
        let len = (file.len() as u64).to_be_bytes();
        [[kind, 0].as_slice(), len.as_slice(), file].concat()
    };
    let stretches = stretches(&mut Input::new(noise));
    // All choices that the manifest makes, made the same way.
    let mut bytes = vec![0; 32];
    bytes.extend(file(0, &ring(&stretches)));
    bytes.extend(file(2, &durable(&stretches)));
    bytes
}

/// Bytes by chance, the same in every process (xorshift, Marsaglia 2003).
fn noise(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..64 << (number % 5)).map(|_| next()).collect()
}

/// First inputs a target gets.
const SEEDS: u64 = 20;
