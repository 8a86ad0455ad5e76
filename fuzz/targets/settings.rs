//! `retake.toml`, assignments of single settings, settings as a run recorded them, and mapping
//! files.

#![no_main]

use retake_schemas::mapping::Mapping;
use retake_schemas::settings::{RagSettings, Settings};

libfuzzer_sys::fuzz_target!(init: retake_fuzz::write_seeds("settings"), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Mapping::parse(text);
    let mut settings = match toml::from_str::<Settings>(text) {
        Ok(settings) => {
            let flat = settings.rag.recordable();
            let again = RagSettings::from_recorded(&flat).recordable();
            assert_eq!(again, flat, "recorded and read back");
            settings.rag
        }
        Err(_) => RagSettings::default(),
    };
    let _ = settings.check();
    for line in text.lines().take(4) {
        let _ = settings.set(line);
    }
    let _ = settings.flat();
});
