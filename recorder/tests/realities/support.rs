//! What the tests share: children, seeds, and a truth that outlives its process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use retake_recorder::recorder::RunSummary;
use retake_recorder::{Recorder, RecorderBuilder, RunReader, Store};
use retake_schemas::RunId;
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::SpanRow;

/// A store in a folder that goes away with the first of the pair; in memory where the system has
/// such a folder, because these tests make thousands of runs.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = scratch();
    let store = Store::create(folder.path()).unwrap();
    (folder, store)
}

pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub(crate) fn start(store: &Store, settings: RecordSettings) -> Recorder {
    RecorderBuilder::new("t", "svc").record_settings(settings).start(store).unwrap()
}

pub(crate) fn spans(store: &Store, run_id: &RunId) -> Vec<SpanRow> {
    RunReader::open(store, run_id).unwrap().rows().unwrap()
}

/// A number that a span or an event was recorded with.
pub(crate) fn number(attributes: Option<&str>, key: &str) -> Option<u64> {
    let object: serde_json::Value = serde_json::from_str(attributes?).ok()?;
    object.get(key)?.as_u64()
}

/// Both identities of the accounting, and that nothing is left unsealed.
pub(crate) fn assert_accounts(summary: &RunSummary) {
    assert_eq!(summary.unsealed, None);
    assert_eq!(summary.offered, summary.accepted + summary.dropped);
    assert_eq!(summary.dropped, summary.losses.values().sum::<u64>());
    assert_eq!(summary.spans_opened, summary.spans + summary.spans_dropped);
}

/// This program, to run one test of its own as a child: `module::name_of_the_test`.
pub(crate) fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null());
    command
}

/// The folder this program was given as a child; `None` in the program that starts children.
pub(crate) fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD_FOLDER).map(PathBuf::from)
}

/// Waits for a child that must end by itself. One that hangs is killed, which fails the test.
pub(crate) fn wait_within(mut child: Child, at_most: Duration) -> ExitStatus {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where randomness starts: `SEED` if it is set. Printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | clock_ns() >> 10);
    eprintln!("SEED={seed}");
    seed
}

fn clock_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos())
}

/// A size that a longer run may raise by an environment variable.
pub(crate) fn size(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |size| size.parse().expect("a number"))
}

/// Small, fast and repeatable: the generator of SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// Numbers in a file that its process maps and shares: they say what the process did even when it
/// was killed right after.
pub(crate) struct Truth {
    _map: MmapMut,
    words: *mut u64,
}

// SAFETY: the words are only used as atomics.
unsafe impl Send for Truth {}
// SAFETY: as above.
unsafe impl Sync for Truth {}

impl Truth {
    pub(crate) fn open(path: &Path) -> Self {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        file.set_len(WORDS as u64 * 8).unwrap();
        // SAFETY: the file is this test's own, and nobody makes it shorter.
        let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
        let words = map.as_mut_ptr().cast();
        Self { _map: map, words }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        // SAFETY: inside the map, aligned, and only ever used as an atomic.
        unsafe { AtomicU64::from_ptr(self.words.add(index)) }
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    /// Stores a short text in 8 words.
    pub(crate) fn set_text(&self, index: usize, text: &str) {
        assert!(text.len() <= 64);
        for (place, bytes) in text.as_bytes().chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.set(index + place, u64::from_le_bytes(word));
        }
    }

    pub(crate) fn text(&self, index: usize) -> String {
        let bytes: Vec<u8> = (index..index + 8)
            .flat_map(|word| self.get(word).to_le_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8(bytes).unwrap()
    }
}

/// Resident memory of this process, bytes.
pub(crate) fn resident_bytes() -> u64 {
    bytes_in_status("VmRSS:")
}

/// The most it ever was.
pub(crate) fn peak_bytes() -> u64 {
    bytes_in_status("VmHWM:")
}

fn bytes_in_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A child that takes longer hangs: each takes some seconds on an idle machine.
pub(crate) const HANGS: Duration = Duration::from_secs(300);
const CHILD_FOLDER: &str = "RETAKE_TEST_REALITIES_FOLDER";
const WORDS: usize = 512;
