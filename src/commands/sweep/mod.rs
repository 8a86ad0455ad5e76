//! `retake sweep`: one workload under many settings.

mod log;
mod outcome;
mod predicting;
pub(crate) mod recorded;
mod resume;
mod subject;

use std::collections::BTreeMap;
use std::path::Path;

use retake_pipeline::eval::read_questions;
use retake_recorder::{RunReader, Store};
use retake_replay::cost::Observed;
use retake_replay::sweep::halving::{self, HALVED_FROM};
use retake_replay::sweep::objective::{Known, Relevant};
use retake_replay::sweep::{Axis, Objective, Point, grid, measure, schedule};
use retake_schemas::RunId;
use retake_schemas::convention::SWEEP_LABEL;
use retake_schemas::event::RunStatus;
use tokio_util::sync::CancellationToken;

use self::log::SweepLog;
use self::outcome::Measurement;
pub(crate) use self::outcome::{Compared, Outcome, Predicted, Row};
use self::resume::TakenOver;
use self::subject::Subject;
use crate::cli::{Format, HalvingArg, RagArgs, Sweep};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::progress::Progress;
use crate::recording::cancel_on_signal;
use crate::render;

pub(crate) async fn run(context: &Context, args: &Sweep) -> Result<Code, Failure> {
    // What can be wrong without looking at anything, first.
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a sweep"));
    }
    render::sweep::picture_format(args.output.as_deref())?;
    let axes: Vec<Axis> =
        args.set.iter().map(|text| Axis::parse(text)).collect::<Result<_, _>>()?;
    let points = grid(&axes)?;
    let store = context.store_for_writing()?;
    let mut sweep = Under::new(context, args, &store, &points)?;
    let cancel = cancel_on_signal()?;
    let how = resume::how(args, &sweep.objectives);
    if let Some(selector) = &args.resume {
        sweep.taken_over = Some(TakenOver::read(context, &store, &sweep, selector, how).await?);
    }
    let resumes = sweep.taken_over.as_ref().map(|taken| &taken.run_id);
    let log = SweepLog::start(context, &store, args, &sweep.subject, (how, resumes))?;
    let run_id = log.run_id().clone();
    let outcome = sweep.all(&log, cancel.clone()).await;
    let is_cut_short = outcome.is_err() || cancel.is_cancelled();
    log.finish(context, if is_cut_short { RunStatus::Interrupted } else { RunStatus::Finished });
    outcome?;
    let outcome = sweep.outcome(run_id.clone());
    if let Some(path) = &args.output {
        std::fs::write(path, render::sweep::picture(&outcome, path)?)?;
    }
    match format {
        Format::Json => print_json(&render::sweep::json(&outcome))?,
        format => print(&render::sweep::text(&outcome, format, context.look(format)))?,
    }
    if let Some(path) = &args.output {
        context.say(&format!("wrote {}", path.display()));
    }
    if cancel.is_cancelled() {
        context.say(&format!("go on with it: the same command with --resume {run_id}"));
    }
    context.say(&format!(
        "recorded as run {run_id}; next: retake sql \"select * from prediction_log\""
    ));
    Ok(if cancel.is_cancelled() { Code::Interrupted } else { outcome.code() })
}

/// A sweep under way.
struct Under<'a> {
    context: &'a Context,
    args: &'a Sweep,
    store: &'a Store,
    subject: Subject,
    known: Known,
    objectives: Vec<Objective>,
    rows: Vec<Row>,
    /// The row that is as recorded, else the first.
    base: usize,
    /// Runs that were only made to learn from.
    learnt: Vec<Observed>,
    calibrations: Vec<RunId>,
    /// A replay with the settings as recorded: how long requests take here and now.
    warm: Option<Observed>,
    fits: Vec<(String, retake_replay::cost::CallFit)>,
    calibration: f64,
    blocks: usize,
    /// What the sweep that this one resumes had done.
    taken_over: Option<TakenOver>,
}

impl<'a> Under<'a> {
    fn new(
        context: &'a Context,
        args: &'a Sweep,
        store: &'a Store,
        points: &[Point],
    ) -> Result<Self, Failure> {
        let subject = Subject::read(context, store, args)?;
        let mut known = subject.built_in().map(|s| Known::of(&s.observed)).unwrap_or_default();
        if let Some(path) = &args.questions {
            known.relevant = relevant(path)?;
        }
        let objectives = objectives(args, &subject, &known)?;
        // Every setting must be possible before the first is measured.
        let rows = points.iter().map(|point| subject.row(context, args, point));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let base = rows.iter().position(|row| row.is_as_recorded).unwrap_or(0);
        Ok(Self {
            context,
            args,
            store,
            subject,
            known,
            objectives,
            rows,
            base,
            learnt: Vec::new(),
            calibrations: Vec::new(),
            warm: None,
            fits: Vec::new(),
            calibration: 1.0,
            blocks: 0,
            taken_over: None,
        })
    }

    /// Predicts, and measures.
    async fn all(&mut self, log: &SweepLog, cancel: CancellationToken) -> Result<(), Failure> {
        self.predict();
        let mut is_warm = true;
        if self.take_over_predictions() {
            is_warm = false;
        } else if !self.args.predict_only {
            self.warm_up(log, &cancel).await?;
        }
        log.predicted(&self.rows)?;
        self.tell_predictions();
        if self.args.predict_only {
            return Ok(());
        }
        let taking_part = self.taking_part();
        let is_halved = match self.args.halving {
            HalvingArg::Auto => taking_part.len() >= HALVED_FROM,
            HalvingArg::On => true,
            HalvingArg::Off => false,
        };
        let repeats = usize::from(self.args.repeat).next_multiple_of(2);
        let rounds = if is_halved {
            halving::rounds(taking_part.len(), repeats)
        } else {
            vec![taking_part.len(); repeats / 2]
        };
        let replays: usize = rounds.iter().map(|size| 2 * size).sum();
        let progress = Progress::new(self.context.quiet, "sweep", "replays");
        progress.length(replays as u64);
        let mut left = taking_part;
        let mut done = 0;
        for size in rounds {
            left = self.survivors(left, size);
            for block in [self.blocks, self.blocks + 1] {
                if self.take_over(block, &left, log)? {
                    done += left.len() as u64;
                    progress.position(done);
                    continue;
                }
                if !is_warm {
                    self.warm_again(log, &cancel).await?;
                    is_warm = true;
                }
                for place in schedule::block(left.len(), block, self.args.seed) {
                    if cancel.is_cancelled() {
                        progress.finish();
                        return Ok(());
                    }
                    let Some(&row) = left.get(place) else { continue };
                    progress.message(&self.rows.get(row).map_or(String::new(), Row::label));
                    self.measure(row, block, log, &cancel).await?;
                    done += 1;
                    progress.position(done);
                }
            }
            self.blocks += 2;
        }
        progress.finish();
        Ok(())
    }

    /// The rows that are measured: all, or the best predicted and the one as recorded.
    fn taking_part(&self) -> Vec<usize> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let Some(confirm) = self.args.confirm else { return all };
        let values: Vec<Vec<f64>> =
            self.rows.iter().map(|row| row.predicted_values(&self.objectives)).collect();
        let mut best = halving::survivors(&values, &better(&self.objectives), usize::from(confirm));
        if !best.contains(&self.base) {
            best.push(self.base);
            best.sort_unstable();
        }
        best
    }

    /// The best `keep` of these rows, going by what was measured so far; the base stays.
    fn survivors(&self, rows: Vec<usize>, keep: usize) -> Vec<usize> {
        if keep >= rows.len() {
            return rows;
        }
        let values: Vec<Vec<f64>> = rows
            .iter()
            .filter_map(|row| self.rows.get(*row))
            .map(|row| row.measured_values(&self.objectives))
            .collect();
        let of_rows = |keep| -> Vec<usize> {
            let kept = halving::survivors(&values, &better(&self.objectives), keep);
            kept.into_iter().filter_map(|at| rows.get(at).copied()).collect()
        };
        let kept = of_rows(keep);
        if !rows.contains(&self.base) || kept.contains(&self.base) {
            return kept;
        }
        // The base takes the place of the last of them.
        let mut kept = of_rows(keep - 1);
        kept.push(self.base);
        kept.sort_unstable();
        kept
    }

    async fn measure(
        &mut self,
        row: usize,
        block: usize,
        log: &SweepLog,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(point) = self.rows.get(row).map(|row| row.point.clone()) else { return Ok(()) };
        let (run_id, observed, objection) = self.replay(&point, Some(block), log, cancel).await?;
        if cancel.is_cancelled() {
            // Half a replay measures nothing; it is in the store.
            return Ok(());
        }
        let values: BTreeMap<Objective, f64> = self
            .objectives
            .iter()
            .filter_map(|objective| {
                Some((*objective, measure(*objective, &observed, &self.known)?))
            })
            .collect();
        let Some(row) = self.rows.get_mut(row) else { return Ok(()) };
        match objection {
            None => {
                let measurement = Measurement { run_id, block, values };
                log.measured(&point, &measurement)?;
                row.measured.push(measurement);
            }
            Some(reason) => {
                self.context.warn(&format!("{} is left out, run {run_id}: {reason}", point.label));
                row.failures.push((run_id, reason));
            }
        }
        Ok(())
    }

    /// Replays the workload with the settings of a point; says why it may not be used, if so.
    async fn replay(
        &self,
        point: &Point,
        block: Option<usize>,
        log: &SweepLog,
        cancel: &CancellationToken,
    ) -> Result<(RunId, Observed, Option<String>), Failure> {
        let what = block.map_or_else(|| "warm-up".to_owned(), |block| format!("#{}", block + 1));
        let mut label = self.args.label.clone();
        label.push(format!("{SWEEP_LABEL}={}", log.run_id()));
        let group = block.map(|_| format!("{} {}", log.run_id(), point.label));
        let rag = RagArgs {
            set: point.assignments.clone(),
            run: Some(format!("sweep {} {what}", point.label)),
            label,
            capture: None,
        };
        let silent = self.context.silent();
        let (run_id, report) = self
            .subject
            .replay((&silent, self.store), (self.args, rag), group.as_deref(), cancel.clone())
            .await?;
        let failed = report.error + report.refused;
        let objection = report.objection.clone().or_else(|| {
            let (index, message) = report.failures.first()?;
            Some(format!(
                "{failed} of {} operations failed; operation {index}: {message}",
                report.planned
            ))
        });
        let reader = RunReader::open(self.store, &run_id)?;
        let observed = Observed::of(&reader, &self.context.config.settings.prices)?;
        Ok((run_id, observed, objection))
    }

    fn outcome(self, run_id: RunId) -> Outcome {
        Outcome::of(outcome::Found {
            run_id,
            source: self.subject.source(),
            objectives: self.objectives,
            rows: self.rows,
            base: self.base,
            calibrations: self.calibrations,
            fits: self.fits,
            calibration: self.calibration,
        })
    }
}

fn better(objectives: &[Objective]) -> Vec<retake_replay::sweep::Better> {
    objectives.iter().map(|objective| objective.better()).collect()
}

/// What the sweep is judged by; an objective that nothing can be said about is refused.
fn objectives(args: &Sweep, subject: &Subject, known: &Known) -> Result<Vec<Objective>, Failure> {
    let Subject::BuiltIn(source) = subject else {
        return Ok(if args.objective.is_empty() {
            vec![Objective::LatencyP50, Objective::LatencyP95, Objective::Cost]
        } else {
            args.objective.clone()
        });
    };
    let source = &source.observed;
    if args.objective.is_empty() {
        let mut found = Objective::of_run(source);
        if !known.relevant.is_empty() {
            found.push(Objective::Recall);
        }
        return Ok(found);
    }
    let mut found: Vec<Objective> = Vec::new();
    for objective in &args.objective {
        if measure(*objective, source, known).is_none() {
            let help = match objective {
                Objective::Cost => "give its models a price in [prices] of retake.toml",
                Objective::Recall => {
                    "give --questions FILE with the questions and their references"
                }
                Objective::Agreement => "the recorded run retrieved nothing",
                _ => "the recorded run has no such operations",
            };
            let message = format!("sweep by {objective}: the recorded run says nothing about it");
            return Err(Failure::new(Code::NotReplayable, message).help(help));
        }
        if !found.contains(objective) {
            found.push(*objective);
        }
    }
    Ok(found)
}

/// What is relevant to each question of a file.
fn relevant(path: &Path) -> Result<BTreeMap<String, Vec<Relevant>>, Failure> {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let questions = read_questions(path)?.into_iter().filter(|q| !q.references.is_empty());
    Ok(questions
        .map(|question| {
            let places = question.references.into_iter().map(|reference| Relevant {
                document: reference.document,
                start_char: whole(reference.start_char),
                end_char: whole(reference.end_char),
            });
            (question.question, places.collect())
        })
        .collect())
}
