//! `--resume`: the rest of a sweep whose process died or was ended.
//!
//! The new sweep has a run of its own, into which it writes what it takes over, so that it is whole
//! without the other. Blocks are taken over as a whole: a value compares with the others of its block
//! because it was measured among them.

use std::collections::BTreeMap;

use retake_recorder::Store;
use retake_recorder::host::host_facts;
use retake_replay::cost::{Estimate, Unknown};
use retake_replay::sweep::Objective;
use retake_schemas::{Digest, RunId};

use super::Under;
use super::log::{HOW_LABEL, SweepLog};
use super::outcome::{Measurement, Predicted};
use super::recorded::{self, Line, sweep_of};
use crate::cli::Sweep;
use crate::context::Context;
use crate::failure::{Code, Failure};

/// What another sweep had done.
pub(super) struct TakenOver {
    pub(super) run_id: RunId,
    /// By setting and objective.
    predicted: BTreeMap<(String, Objective), Estimate>,
    /// By row, in blocks that are not taken yet.
    measured: Vec<(usize, Measurement)>,
}

/// Digest of the options on which it depends what is measured, and in which order.
pub(super) fn how(args: &Sweep, objectives: &[Objective]) -> Digest {
    let arrival = (args.arrival, args.speed, args.seed);
    let target = (&args.target, &args.target_cmd, args.operations, &args.kind);
    let answers = (args.llm, args.on_miss);
    // More repeats are more blocks of the same, unless settings drop out by the number of blocks.
    let taking_part = (args.confirm, args.halving);
    let how = (&args.set, arrival, target, answers, taking_part, objectives);
    Digest::of(format!("{how:?}").as_bytes())
}

impl TakenOver {
    pub(super) async fn read(
        context: &Context,
        store: &Store,
        under: &Under<'_>,
        selector: &str,
        how: Digest,
    ) -> Result<Self, Failure> {
        let named = context.select(store, selector)?;
        let refuse = |reason: &str| {
            Err(Failure::new(Code::Usage, format!("resume sweep {named}: {reason}")))
        };
        let Some(run_id) = sweep_of(store, &named)? else {
            return refuse("it is no sweep, and no replay of one");
        };
        if store.is_live(&run_id) {
            return refuse("it is still running");
        }
        let facts = store.manifest(&run_id)?.facts;
        if facts.labels.get(super::log::SOURCE_LABEL) != Some(&under.subject.source()) {
            return refuse("it swept another run");
        }
        if facts.labels.get(HOW_LABEL) != Some(&how.to_string()) {
            return refuse("it had other options; give all but --repeat as they were");
        }
        if facts.host.machine_key() != host_facts().machine_key() {
            return refuse("it ran on another machine, whose times do not compare with this one's");
        }
        let mut taken = Self { run_id, predicted: BTreeMap::new(), measured: Vec::new() };
        for line in recorded::lines(context, store, &taken.run_id).await? {
            taken.add(line, under);
        }
        let blocks = taken.measured.iter().map(|(_, one)| one.block + 1).max().unwrap_or(0);
        let replays = taken.measured.len();
        context.say(&format!(
            "going on with sweep {}: {replays} replays in {blocks} blocks",
            taken.run_id
        ));
        Ok(taken)
    }

    fn add(&mut self, line: Line, under: &Under<'_>) {
        let [value, low, high] = line.values;
        if line.is_prediction {
            let estimate = Estimate { estimate: value, low, high };
            self.predicted.insert((line.setting, line.objective), estimate);
            return;
        }
        let row = under.rows.iter().position(|row| row.point.label == line.setting);
        let (Some(row), Some(block), Ok(run_id)) = (row, line.block, line.replay.parse::<RunId>())
        else {
            return;
        };
        let known = self.measured.iter().position(|(_, one)| one.run_id == run_id);
        let at = known.unwrap_or_else(|| {
            self.measured.push((row, Measurement { run_id, block, values: BTreeMap::new() }));
            self.measured.len() - 1
        });
        if let Some((_, measured)) = self.measured.get_mut(at) {
            measured.values.insert(line.objective, value);
        }
    }
}

impl Under<'_> {
    /// Takes predictions over as they were made: what was measured since must not better them. False
    /// when there are none, because nothing is resumed, or something that had not come so far.
    pub(super) fn take_over_predictions(&mut self) -> bool {
        let Some(taken) = &self.taken_over else { return false };
        if taken.predicted.is_empty() && taken.measured.is_empty() {
            return false;
        }
        for row in &mut self.rows {
            for (objective, predicted) in &mut row.predicted {
                let known = taken.predicted.get(&(row.point.label.clone(), *objective));
                *predicted = known.map_or_else(
                    || {
                        let reason = format!("sweep {} did not predict it", taken.run_id);
                        Predicted::Not(Unknown { reason, is_learnable: false })
                    },
                    |estimate| Predicted::As(*estimate),
                );
            }
        }
        true
    }

    /// Takes a block over, if all of it was measured; else what there is of it is left out.
    pub(super) fn take_over(
        &mut self,
        block: usize,
        rows: &[usize],
        log: &SweepLog,
    ) -> Result<bool, Failure> {
        let Some(taken) = &mut self.taken_over else { return Ok(false) };
        let has = |row: usize| taken.measured.iter().any(|(at, m)| *at == row && m.block == block);
        // One follows the other, so this one was over when the next began; what failed in it has no
        // value.
        let is_over = taken.measured.iter().any(|(_, measured)| measured.block > block);
        let is_whole = is_over || (!rows.is_empty() && rows.iter().all(|row| has(*row)));
        let (of_block, rest) = std::mem::take(&mut taken.measured)
            .into_iter()
            .partition(|(_, measured)| measured.block == block);
        taken.measured = rest;
        if !is_whole {
            return Ok(false);
        }
        let of_block: Vec<(usize, Measurement)> = of_block;
        for (at, measured) in of_block {
            let Some(row) = self.rows.get_mut(at) else { continue };
            log.measured(&row.point, &measured)?;
            row.measured.push(measured);
        }
        Ok(true)
    }
}
