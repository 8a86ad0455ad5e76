//! Decisions as a table, and what must hold for any history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::upkeep::gc::Filter;

const DAY_NS: i64 = 86_400_000_000_000;
const NOW: i64 = 20_000 * DAY_NS;

/// A closed run of 10 bytes that began and ended `days` ago.
fn run(name: &str, days: i64) -> StoredRun {
    StoredRun {
        run_id: name.parse().unwrap(),
        name: name.to_owned(),
        service: "svc".to_owned(),
        labels: BTreeMap::new(),
        started_unix_ns: NOW - days * DAY_NS,
        ended_unix_ns: NOW - days * DAY_NS,
        bytes: 10,
        replay_of: None,
        state: RunState::Closed,
    }
}

fn replaying(name: &str, days: i64, source: &str) -> StoredRun {
    StoredRun { replay_of: Some(source.parse().unwrap()), ..run(name, days) }
}

fn labelled(name: &str, days: i64, key: &str) -> StoredRun {
    StoredRun { labels: BTreeMap::from([(key.to_owned(), "x".to_owned())]), ..run(name, days) }
}

fn days(days: u64) -> Criteria {
    Criteria { older_than: Some(Duration::from_secs(days * 86_400)), ..Criteria::default() }
}

fn last(keep_last: usize) -> Criteria {
    Criteria { keep_last: Some(keep_last), ..Criteria::default() }
}

fn size(bytes_max: u64) -> Criteria {
    Criteria { bytes_max: Some(bytes_max), ..Criteria::default() }
}

/// The names of the runs that go, oldest first.
fn removed(runs: &[StoredRun], criteria: &Criteria) -> String {
    let plan = plan(runs, criteria, NOW);
    let names: Vec<_> =
        plan.iter().filter(|d| d.removes()).map(|decision| decision.run_id.to_string()).collect();
    names.join(" ")
}

fn reason(runs: &[StoredRun], criteria: &Criteria, name: &str) -> String {
    let plan = plan(runs, criteria, NOW);
    plan.iter().find(|d| d.run_id.as_str() == name).unwrap().verdict.to_string()
}

/// Scenario: each criterion alone, and together, over the same five runs.
/// Guarantees: age and size remove, number and filter protect; without a limit nothing goes.
#[test]
fn criteria_decide_as_documented() {
    let runs: Vec<_> =
        [("a", 50), ("b", 40), ("c", 30), ("d", 20), ("e", 0)].map(|(n, d)| run(n, d)).into();
    for (criteria, expected) in [
        (Criteria::default(), ""),
        (days(30), "a b"),
        (days(100), ""),
        (last(2), "a b c"),
        (last(0), "a b c d e"),
        (last(9), ""),
        (size(50), ""),
        (size(49), "a"),
        (size(20), "a b c"),
        (size(0), "a b c d e"),
        (Criteria { keep_last: Some(4), ..days(30) }, "a"),
        (Criteria { keep_last: Some(4), ..size(0) }, "a"),
        (Criteria { bytes_max: Some(10), ..days(30) }, "a b c d"),
        (Criteria { filter: named("c"), ..last(0) }, "c"),
        (Criteria { filter: named("c"), ..size(0) }, "c"),
        (Criteria { filter: named("e"), ..days(30) }, ""),
    ] {
        assert_eq!(removed(&runs, &criteria), expected, "{criteria:?}");
    }
}

fn named(name: &str) -> Filter {
    Filter { name: Some(name.to_owned()), ..Filter::default() }
}

#[test]
fn filters_must_all_fit() {
    let runs = [labelled("a", 9, "ci"), labelled("b", 8, "other"), run("c", 7)];
    let labels = BTreeMap::from([("ci".to_owned(), "x".to_owned())]);
    let ci = Filter { labels: labels.clone(), ..Filter::default() };
    assert_eq!(removed(&runs, &Criteria { filter: ci, ..last(0) }), "a");
    let ci_b = Filter { labels, name: Some("b".to_owned()), service: None };
    assert_eq!(removed(&runs, &Criteria { filter: ci_b, ..last(0) }), "");
    let service = Filter { service: Some("svc".to_owned()), ..Filter::default() };
    assert_eq!(removed(&runs, &Criteria { filter: service, ..last(1) }), "a b");
}

/// Scenario: runs that are being recorded, not repaired, or not readable, with every limit at 0.
/// Guarantees: J11 - none of them goes, not even by force.
#[test]
fn what_is_not_closed_stays_even_by_force() {
    for state in [RunState::Recording, RunState::Unfinished, RunState::Unreadable] {
        let runs = [StoredRun { state, ..run("a", 900) }];
        for limits in [days(0), last(0), size(0)] {
            let criteria = Criteria { is_forced: true, ..limits };
            assert_eq!(removed(&runs, &criteria), "", "{state:?} {criteria:?}");
        }
    }
}

/// Scenario: a baseline, and a chain of replays of which the youngest stays.
/// Guarantees: neither goes without force, and the reason names what needs it.
#[test]
fn baselines_and_sources_of_replays_stay_unless_forced() {
    let runs = [labelled("base", 90, BASELINE_LABEL), run("a", 80), replaying("b", 70, "a")];
    let chain = [runs.as_slice(), &[replaying("c", 1, "b")]].concat();
    assert_eq!(removed(&runs, &days(30)), "a b");
    assert_eq!(removed(&chain, &days(30)), "");
    assert_eq!(reason(&chain, &days(30), "a"), "is replayed by run b, which stays");
    assert_eq!(reason(&chain, &days(30), "base"), "is the baseline \"x\"");
    assert_eq!(removed(&chain, &Criteria { is_forced: true, ..days(30) }), "base a b");
}

/// Scenario: the size takes the last replay of a run, whose own age had condemned it before.
/// Guarantees: the run goes with it, for its own reason; no more goes than the size needs.
#[test]
fn a_source_goes_after_its_last_replay() {
    let runs = [run("a", 80), replaying("b", 70, "a"), replaying("c", 20, "b"), run("d", 1)];
    assert_eq!(removed(&runs, &size(30)), "c");
    assert_eq!(removed(&runs, &size(20)), "b c");
    assert_eq!(removed(&runs, &size(0)), "a b c d");
    let both = Criteria { bytes_max: Some(39), ..days(30) };
    assert_eq!(removed(&runs, &both), "a b c");
    assert_eq!(reason(&runs, &both, "a"), "ended 80 days ago");
}

/// Scenario: manifests that claim to replay each other, or themselves.
/// Guarantees: planning ends.
#[test]
fn circles_of_replays_end() {
    let runs = [replaying("a", 9, "b"), replaying("b", 8, "a"), replaying("c", 7, "c")];
    assert_eq!(removed(&runs, &days(1)), "a b c");
    assert_eq!(removed(&runs, &size(0)), "c");
    assert_eq!(reason(&runs, &size(0), "a"), "is replayed by run b, which stays");
}

fn any_run() -> impl Strategy<Value = (i64, u64, Option<usize>, u8, bool, bool)> {
    let replay_of = proptest::option::of(0..12_usize);
    (0..60_i64, 0..100_u64, replay_of, 0..12_u8, any::<bool>(), any::<bool>())
}

fn any_history() -> impl Strategy<Value = Vec<StoredRun>> {
    proptest::collection::vec(any_run(), 0..12).prop_map(|facts| {
        let count = facts.len();
        let build = |(index, (age, bytes, source, state, is_baseline, is_other))| {
            let source: Option<usize> = source;
            let key = if is_baseline && state > 8 { BASELINE_LABEL } else { "other" };
            let state = match state {
                0 => RunState::Recording,
                1 => RunState::Unfinished,
                2 => RunState::Unreadable,
                _ => RunState::Closed,
            };
            StoredRun {
                bytes,
                state,
                service: if is_other { "other" } else { "svc" }.to_owned(),
                replay_of: source.map(|n| format!("r{}", n % count).parse().unwrap()),
                ..labelled(&format!("r{index}"), age, key)
            }
        };
        facts.into_iter().enumerate().map(build).collect()
    })
}

fn any_criteria() -> impl Strategy<Value = Criteria> {
    let older_than =
        proptest::option::of((0..60_u64).prop_map(|d| Duration::from_secs(d * 86_400)));
    let keep_last = proptest::option::of(0..6_usize);
    let bytes_max = proptest::option::of(0..500_u64);
    let service = proptest::option::of(Just("svc".to_owned()));
    (older_than, keep_last, bytes_max, service, any::<bool>()).prop_map(
        |(older_than, keep_last, bytes_max, service, is_forced)| Criteria {
            filter: Filter { service, ..Filter::default() },
            older_than,
            keep_last,
            bytes_max,
            is_forced,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Guarantees: every run is decided once; what is protected stays; the last runs stay; what
    /// goes for its age is old enough.
    #[test]
    fn nothing_protected_ever_goes(runs in any_history(), criteria in any_criteria()) {
        let plan = plan(&runs, &criteria, NOW);
        let ids: BTreeSet<_> = plan.iter().map(|d| &d.run_id).collect();
        prop_assert_eq!((plan.len(), ids.len()), (runs.len(), runs.len()));
        let find = |id: &RunId| runs.iter().find(|run| run.run_id == *id).unwrap();
        let gone: BTreeSet<_> = plan.iter().filter(|d| d.removes()).map(|d| &d.run_id).collect();
        for id in &gone {
            let run = find(id);
            prop_assert_eq!(run.state, RunState::Closed);
            prop_assert!(criteria.filter.fits(run));
            prop_assert!(criteria.has_limit());
            if !criteria.is_forced {
                prop_assert!(!run.labels.contains_key(BASELINE_LABEL));
                let replays = |other: &&StoredRun| other.replay_of.as_ref() == Some(*id) && other.run_id != **id;
                prop_assert!(runs.iter().filter(replays).all(|other| gone.contains(&other.run_id)));
            }
        }
        let mut fitting: Vec<_> =
            runs.iter().filter(|r| r.state != RunState::Unreadable && criteria.filter.fits(r)).collect();
        fitting.sort_by_key(|run| (std::cmp::Reverse(run.started_unix_ns), std::cmp::Reverse(&run.run_id)));
        for run in fitting.iter().take(criteria.keep_last.unwrap_or(0)) {
            prop_assert!(!gone.contains(&run.run_id));
        }
        for decision in &plan {
            if let Verdict::Remove(RemoveReason::TooOld { age }) = decision.verdict {
                prop_assert!(Some(age) > criteria.older_than);
            }
        }
    }

    /// Guarantees: the size never takes a run that it need not take, and stops only when all fits
    /// or nothing more may go.
    #[test]
    fn the_size_takes_no_more_than_needed(runs in any_history(), bytes_max in 0..500_u64, is_forced: bool) {
        let criteria = Criteria { is_forced, ..size(bytes_max) };
        let plan = plan(&runs, &criteria, NOW);
        let left: u64 = plan.iter().filter(|d| !d.removes()).map(|d| d.bytes).sum();
        let mut before: Vec<(u64, u64)> = plan
            .iter()
            .filter_map(|d| match d.verdict {
                Verdict::Remove(RemoveReason::TooLarge { bytes_before }) => Some((bytes_before, d.bytes)),
                _ => None,
            })
            .collect();
        // A run of no bytes frees nothing, so it stands beside another one: larger first.
        before.sort_by_key(|(before, bytes)| (*before, std::cmp::Reverse(*bytes)));
        prop_assert!(before.iter().all(|(before, _)| *before > bytes_max));
        if let Some((before, _)) = before.first() {
            let last = before - left;
            prop_assert!(left + last > bytes_max, "putting the last one back would be too much");
        }
        if left > bytes_max {
            prop_assert!(plan.iter().all(|d| d.verdict != Verdict::Keep(KeepReason::WithinLimits)));
        }
    }

    /// Guarantees: what one collection left, the next leaves too.
    #[test]
    fn doing_it_twice_removes_nothing_more(mut runs in any_history(), criteria in any_criteria()) {
        // A run replays one that was there before it, so no two replay each other.
        let started: Vec<_> = runs.iter().map(|r| (r.run_id.clone(), r.started_unix_ns)).collect();
        for run in &mut runs {
            let is_earlier = |id: &RunId| {
                started.iter().any(|(other, at)| other == id && *at < run.started_unix_ns)
            };
            run.replay_of = run.replay_of.take().filter(is_earlier);
        }
        let first = plan(&runs, &criteria, NOW);
        let gone: BTreeSet<_> = first.iter().filter(|d| d.removes()).map(|d| &d.run_id).collect();
        let rest: Vec<_> = runs.iter().filter(|r| !gone.contains(&r.run_id)).cloned().collect();
        let second = plan(&rest, &criteria, NOW);
        let again: Vec<_> = second.iter().filter(|d| d.removes()).collect();
        prop_assert!(again.is_empty(), "{again:?}");
    }
}
