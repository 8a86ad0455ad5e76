//! The parent: runs every case once a round, each in a process of its own.
//!
//! The machine drifts (other tenants, clock speed, page cache). Variants that run side by side in
//! a round drift together, so ratios are taken within rounds, and every round has another order
//! so that none always follows the same neighbour.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::arguments::{SharedArguments, child_command_line};
use crate::case::{Case, Section, Variant};
use crate::error::BenchError;
use crate::gathered::Gathered;
use crate::reading::Reading;

/// What to run how often.
#[derive(Debug)]
pub(crate) struct Plan {
    rounds: u32,
    /// Cases, and the number of rounds each takes part in.
    cases: BTreeMap<Case, u32>,
}

impl Plan {
    /// A plan of `sections`; if `only` names variants, of these and the reference.
    pub(crate) fn new(sections: &[Section], rounds: u32, only: &[Variant]) -> Self {
        let wanted = |case: &Case| {
            only.is_empty() || case.variant == Variant::Registry || only.contains(&case.variant)
        };
        let cases = sections
            .iter()
            .flat_map(|section| {
                let times = section.rounds_max().min(rounds);
                section.cases().into_iter().filter(wanted).map(move |case| (case, times))
            })
            .collect();
        Self { rounds, cases }
    }

    /// Runs it. A case that fails is noted and does not end the benchmark.
    pub(crate) fn run(&self, shared: &SharedArguments) -> Gathered {
        let mut gathered = Gathered::default();
        for round in 0..self.rounds {
            let order = self.order(round);
            for (number, case) in order.iter().enumerate() {
                let (done, all) = (number + 1, order.len());
                eprintln!("round {}/{}, {done}/{all}: {case}", round + 1, self.rounds);
                let read = run_child(*case, shared);
                if let Err(error) = &read {
                    eprintln!("  {error}");
                }
                gathered.add(*case, round, read);
            }
        }
        gathered
    }

    fn order(&self, round: u32) -> Vec<Case> {
        let due = self.cases.iter().filter(|(_, times)| round < **times);
        let mut order: Vec<Case> = due.map(|(case, _)| *case).collect();
        fastrand::Rng::with_seed(u64::from(round)).shuffle(&mut order);
        order
    }
}

/// Measures `case` in a child process.
fn run_child(case: Case, shared: &SharedArguments) -> Result<Reading, BenchError> {
    let failed = |detail: String| BenchError::Child { case: case.to_string(), detail };
    let program = std::env::current_exe().map_err(|e| failed(format!("find myself: {e}")))?;
    let mut child = Command::new(program)
        .args(child_command_line(case, shared))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("start: {e}")))?;
    let started = Instant::now();
    // One line fits into the pipe, so the child never waits for us to read it.
    let status = loop {
        match child.try_wait().map_err(|e| failed(format!("wait: {e}")))? {
            Some(status) => break status,
            None if started.elapsed() > CHILD_TIME_MAX => {
                let killed = child.kill().and_then(|()| child.wait());
                let outcome = killed.map_or_else(|e| e.to_string(), |status| status.to_string());
                return Err(failed(format!("no end after {CHILD_TIME_MAX:?}, killed: {outcome}")));
            }
            None => std::thread::sleep(POLL),
        }
    };
    let mut line = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut line).map_err(|e| failed(format!("read: {e}")))?;
    }
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    serde_json::from_str(&line).map_err(|e| failed(format!("it said {line:?}: {e}")))
}

/// A child takes seconds; one that takes minutes hangs.
const CHILD_TIME_MAX: Duration = Duration::from_secs(300);
/// Rare enough that waking up is no load.
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a section measured every round beside one measured once.
    #[test]
    fn every_round_has_every_due_case_in_an_order_of_its_own() {
        let plan = Plan::new(&[Section::Hot, Section::Bytes], 2, &[]);
        let (first, second) = (plan.order(0), plan.order(1));
        assert_eq!(first.len(), second.len() + 1);
        let hot = |order: &[Case]| -> Vec<Case> {
            let is_due = |case: &&Case| second.contains(case);
            order.iter().filter(is_due).copied().collect()
        };
        assert_ne!(hot(&first), second);
    }

    /// Scenario: somebody looks at one peer only.
    #[test]
    fn the_reference_is_measured_with_any_variant() {
        let plan = Plan::new(&[Section::Hot], 1, &[Variant::Otel]);
        let variants: Vec<Variant> = plan.cases.keys().map(|case| case.variant).collect();
        assert_eq!(variants, [Variant::Registry, Variant::Otel]);
    }
}
