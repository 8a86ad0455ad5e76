//! First inputs for the targets, made by the encoders themselves, so that the repository needs no
//! binary files.

use std::path::Path;

use retake_schemas::settings::Settings;

/// Writes a target's first inputs and ends the process, if the environment asks for that.
///
/// Each target can do so itself, because a program without libFuzzer could not be linked: all of
/// retake is built with its counters.
///
/// # Panics
/// The folder cannot be written.
pub fn write_seeds(target: &str) {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS_TO") else { return };
    let texts = texts(target).into_iter().map(String::into_bytes);
    let inputs = retake_recorder::fuzzing::seeds(target).into_iter().chain(texts);
    for (number, input) in inputs.enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number:02}"));
        std::fs::write(path, input).expect("write a first input");
    }
    std::process::exit(0);
}

/// First inputs of the targets that take texts.
fn texts(target: &str) -> Vec<String> {
    match target {
        "settings" => vec![
            toml::to_string(&Settings::default()).unwrap_or_default(),
            include_str!("../../schemas/mapping.toml").to_owned(),
            "rag.chunk.size=200\nretrieve.top_k = 5\nvector.url=postgres://u:p@h/d".to_owned(),
        ],
        "names" => vec![
            "20260101t000000-abcd".to_owned(),
            "0123456789abcdef".to_owned(),
            "0123456789abcdef0123456789abcdef".to_owned(),
            "@2".to_owned(),
            "stage=prod".to_owned(),
            "../../x".to_owned(),
            "CON".to_owned(),
        ],
        "redact" => vec![
            "Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789".to_owned(),
            "password=hunter2 mail a@b.example card 4111 1111 1111 1111".to_owned(),
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----".to_owned(),
            "DE89 3704 0044 0532 0130 00 [redacted:key] https://u:p@host/?token=1\0[0-9]{4}"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}
