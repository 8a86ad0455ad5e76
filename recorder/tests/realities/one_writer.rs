//! Two processes and one run.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use retake_recorder::Store;
use retake_recorder::store::StoreError;
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::RecordSettings;

use super::support::{Random, child, child_folder, seed, spans, start, store};

/// The child: at each `go` it tries to write to the run, says how that went, and lets go of it
/// at `on`.
fn contend(folder: &Path) {
    let store = Store::open(folder).unwrap();
    let run_id = store.run_ids().unwrap().remove(0);
    let label = format!("pid{}", std::process::id());
    let mut asked = std::io::stdin().lock().lines().map_while(Result::ok);
    let said = || std::io::stderr().lock();
    writeln!(said(), "ready").unwrap();
    while asked.next().is_some_and(|line| line == "go") {
        let written = store.update_manifest(&run_id, |manifest| {
            let count = manifest.facts.labels.entry(label.clone()).or_insert("0".to_owned());
            *count = (count.parse::<u64>().unwrap() + 1).to_string();
            writeln!(said(), "won").unwrap();
            asked.next();
        });
        match written {
            Ok(()) => writeln!(said(), "done").unwrap(),
            Err(StoreError::Busy(busy)) if busy == run_id => writeln!(said(), "busy").unwrap(),
            Err(other) => writeln!(said(), "failed: {other}").unwrap(),
        }
    }
}

struct Contender {
    process: Child,
    ask: ChildStdin,
    said: Receiver<String>,
}

impl Contender {
    fn start(folder: &Path) -> Self {
        let test = "one_writer::of_two_processes_that_race_for_a_run_one_gets_it";
        let mut command = child(test, folder);
        let mut process = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ask = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (say, said) = sync_channel(8);
        let listen = move || {
            for line in lines.map_while(Result::ok) {
                let _ = say.send(line);
            }
        };
        std::thread::Builder::new().spawn(listen).unwrap();
        let contender = Self { process, ask, said };
        assert_eq!(contender.hear(), "ready");
        contender
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.ask, "{word}").unwrap();
    }

    fn hear(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(60)).expect("the other process answers")
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Scenario: two processes are told at the same moment to write to one run, 200 times; every
/// tenth time the one that got it is killed while it holds it.
/// Guarantees: J11 - exactly one gets it, the other a typed error at once; what both wrote is
/// there, none over the other; the lock of a killed process is free.
#[test]
fn of_two_processes_that_race_for_a_run_one_gets_it() {
    if let Some(folder) = child_folder() {
        return contend(&folder);
    }
    let mut random = Random::new(seed());
    let (folder, store) = store();
    let recorder = start(&store, RecordSettings::default());
    let run_id = recorder.run_id().clone();
    assert_eq!(recorder.finish(RunStatus::Finished).unsealed, None);
    let mut contenders = [Contender::start(folder.path()), Contender::start(folder.path())];
    let (mut wins, mut both) = (0, 0);
    for race in 1..=RACES {
        let first = random.below(2) as usize;
        for contender in [first, 1 - first] {
            contenders[contender].tell("go");
        }
        let answers = [contenders[0].hear(), contenders[1].hear()];
        let winner = match [answers[0].as_str(), answers[1].as_str()] {
            ["won", "busy"] => 0,
            ["busy", "won"] => 1,
            other => panic!("race {race}: {other:?}"),
        };
        if race % 10 == 0 {
            assert!(store.is_live(&run_id));
            let successor = Contender::start(folder.path());
            std::mem::replace(&mut contenders[winner], successor).kill();
            assert!(!store.is_live(&run_id), "race {race}: a killed process holds the lock");
            continue;
        }
        contenders[winner].tell("on");
        assert_eq!(contenders[winner].hear(), "done");
        (wins, both) = (wins + 1, both | 1 << winner);
    }
    contenders.into_iter().for_each(Contender::kill);
    let labels = store.manifest(&run_id).unwrap().facts.labels;
    let counted: u64 = labels.values().map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!((counted, both), (wins, 0b11), "{labels:?}");
}

/// The child: adds to its own label, waiting for the run whenever the other one has it.
fn add_labels(folder: &Path) {
    let store = Store::open(folder).unwrap();
    let run_id: RunId = store.run_ids().unwrap().remove(0);
    let label = format!("pid{}", std::process::id());
    for count in 1..=UPDATES {
        let change = |manifest: &mut retake_schemas::manifest::Manifest| {
            manifest.facts.labels.insert(label.clone(), count.to_string());
        };
        while let Err(error) = store.update_manifest(&run_id, change) {
            assert!(matches!(error, StoreError::Busy(_)), "{error}");
            std::thread::yield_now();
        }
    }
}

/// Scenario: two processes change the manifest of one run again and again, as fast as they can.
/// Guarantees: J11 - no change is lost: each is made to what the one before it left.
#[test]
fn changes_of_two_processes_to_a_manifest_are_all_there() {
    if let Some(folder) = child_folder() {
        return add_labels(&folder);
    }
    let (folder, store) = store();
    let recorder = start(&store, RecordSettings::default());
    let run_id = recorder.run_id().clone();
    assert_eq!(recorder.finish(RunStatus::Finished).unsealed, None);
    let before = store.manifest(&run_id).unwrap().revision;
    let test = "one_writer::changes_of_two_processes_to_a_manifest_are_all_there";
    let children = [(); 2].map(|()| child(test, folder.path()).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let manifest = store.manifest(&run_id).unwrap();
    let counts: Vec<&str> = manifest.facts.labels.values().map(String::as_str).collect();
    assert_eq!(counts, [UPDATES.to_string(), UPDATES.to_string()]);
    assert_eq!(manifest.revision - before, 2 * UPDATES, "a change was made to an old manifest");
}

/// The child: records until it is killed.
fn hold(folder: &Path) -> ! {
    let store = Store::open(folder).unwrap();
    let recorder = start(&store, RecordSettings::default());
    tracing::subscriber::with_default(recorder.subscriber(), || {
        drop(tracing::info_span!("work"));
        eprintln!("recording");
        loop {
            std::thread::park();
        }
    })
}

/// Scenario: a process records; others try to change, repair and remove its run, then it is
/// killed.
/// Guarantees: J11 - each is refused or leaves the run alone while it lives; then it is repaired.
#[test]
fn a_run_being_recorded_is_left_alone_until_its_process_is_dead() {
    if let Some(folder) = child_folder() {
        hold(&folder);
    }
    let (folder, store) = store();
    let test = "one_writer::a_run_being_recorded_is_left_alone_until_its_process_is_dead";
    let mut child = child(test, folder.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "recording"));
    let run_id = store.run_ids().unwrap().remove(0);
    let changed = store.update_manifest(&run_id, |_| unreachable!("it is being recorded"));
    assert!(matches!(changed, Err(StoreError::Busy(_))), "{changed:?}");
    assert!(store.recover().unwrap().repaired.is_empty());
    assert!(matches!(store.remove(&run_id), Err(StoreError::Busy(_))));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.recover().unwrap().repaired.len(), 1);
    assert_eq!(spans(&store, &run_id).len(), 1);
    store.update_manifest(&run_id, |_| {}).unwrap();
}

const RACES: u64 = 200;
const UPDATES: u64 = 200;
