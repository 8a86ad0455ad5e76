//! A sweep read back from its run: what was predicted, what was measured, and the front.

use std::collections::BTreeMap;

use retake_analyzer::format::{Format, write_result};
use retake_analyzer::model::{SweepData, SweepMeasurement, SweepObjective, SweepSetting};
use retake_analyzer::{Analyzer, Scope};
use retake_recorder::Store;
use retake_replay::sweep::{Better, Objective, pareto};
use retake_schemas::RunId;
use retake_schemas::convention::SWEEP_LABEL;
use serde_json::Value;

use super::log::SOURCE_LABEL;
use crate::context::Context;
use crate::failure::{Code, Failure};

/// The sweep that a run belongs to: it is the sweep's own run, or one of its replays.
pub(crate) fn sweep_of(store: &Store, run_id: &RunId) -> Result<Option<RunId>, Failure> {
    let labels = store.manifest(run_id)?.facts.labels;
    if labels.contains_key(SOURCE_LABEL) {
        return Ok(Some(run_id.clone()));
    }
    let named = labels.get(SWEEP_LABEL).and_then(|label| label.parse::<RunId>().ok());
    // A replay may outlive its sweep, or have been pulled without it.
    Ok(named.filter(|sweep| store.manifest(sweep).is_ok()))
}

/// The youngest sweep of a run.
fn youngest_on(store: &Store, source: &RunId) -> Result<Option<RunId>, Failure> {
    let is_on = |labels: &BTreeMap<String, String>| {
        labels.get(SOURCE_LABEL).is_some_and(|label| label == source.as_str())
    };
    let runs = store.runs()?.into_iter().rev();
    let found =
        runs.filter(|run| run.manifest.as_ref().is_ok_and(|found| is_on(&found.facts.labels)));
    Ok(found.map(|run| run.run_id).next())
}

/// What a report on a run shows of a sweep: of that which it belongs to, else of the youngest that
/// replayed it.
pub(crate) async fn shown_with(
    context: &Context,
    store: &Store,
    run_id: &RunId,
) -> Result<Option<SweepData>, Failure> {
    let sweep = match sweep_of(store, run_id)? {
        Some(sweep) => Some(sweep),
        None => youngest_on(store, run_id)?,
    };
    match sweep {
        Some(sweep) => read(context, store, &sweep, run_id).await,
        None => Ok(None),
    }
}

/// One line of what the sweep wrote down.
pub(super) struct Line {
    pub(super) is_prediction: bool,
    pub(super) objective: Objective,
    pub(super) setting: String,
    pub(super) replay: String,
    /// Of a measurement, its block, from 0.
    pub(super) block: Option<usize>,
    /// What was measured, or the estimate with its interval.
    pub(super) values: [f64; 3],
}

/// What a sweep wrote down, in that order.
pub(super) async fn lines(
    context: &Context,
    store: &Store,
    sweep: &RunId,
) -> Result<Vec<Line>, Failure> {
    let scope = Scope::Runs(vec![sweep.clone()]);
    let analyzer = Analyzer::open_with(store, scope, &context.analyzer_options())?;
    let mut json = Vec::new();
    write_result(&analyzer.query(LINES).await?, Format::Json, &mut json)?;
    let document: Value = serde_json::from_slice(&json)
        .map_err(|error| Failure::new(Code::Internal, format!("read sweep {sweep}: {error}")))?;
    let rows = document["rows"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(rows.iter().filter_map(line).collect())
}

/// `None` for a sweep that was cut short before it wrote anything down.
async fn read(
    context: &Context,
    store: &Store,
    sweep: &RunId,
    shown: &RunId,
) -> Result<Option<SweepData>, Failure> {
    let facts = store.manifest(sweep)?.facts;
    let lines = lines(context, store, sweep).await?;
    let mut objectives: Vec<Objective> = lines.iter().map(|line| line.objective).collect();
    objectives.sort_unstable();
    objectives.dedup();
    let mut settings = settings(&lines, &objectives, shown);
    if settings.is_empty() {
        return Ok(None);
    }
    mark_front(&mut settings, &objectives);
    for setting in &mut settings {
        setting.is_as_recorded = is_as_recorded(&setting.label, &facts.settings);
    }
    Ok(Some(SweepData {
        run_id: sweep.to_string(),
        source: facts.labels.get(SOURCE_LABEL).cloned().unwrap_or_default(),
        objectives: objectives.into_iter().map(described).collect(),
        settings,
    }))
}

fn line(row: &Value) -> Option<Line> {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
    Some(Line {
        is_prediction: row["name"].as_str()? == "retake.predicted",
        // A later retake may judge by what this one does not know.
        objective: Objective::parse(row["metric"].as_str()?)?,
        setting: text("setting"),
        replay: text("replay"),
        block: row["block"].as_u64().and_then(|block| usize::try_from(block).ok()),
        values: [number("value"), number("low"), number("high")],
    })
}

/// The settings in the order in which they were written down.
fn settings(lines: &[Line], objectives: &[Objective], shown: &RunId) -> Vec<SweepSetting> {
    let mut settings: Vec<SweepSetting> = Vec::new();
    for line in lines {
        let known = settings.iter().position(|setting| setting.label == line.setting);
        let at = known.unwrap_or_else(|| {
            let predicted = vec![None; objectives.len()];
            let label = line.setting.clone();
            settings.push(SweepSetting { label, predicted, ..SweepSetting::default() });
            settings.len() - 1
        });
        let Some(setting) = settings.get_mut(at) else { continue };
        let place = objectives.iter().position(|objective| *objective == line.objective);
        let Some(place) = place else { continue };
        if line.is_prediction {
            if let Some(cell) = setting.predicted.get_mut(place) {
                *cell = Some(line.values);
            }
            continue;
        }
        let replay = setting.measured.iter().position(|one| one.run_id == line.replay);
        let at = replay.unwrap_or_else(|| {
            let values = vec![None; objectives.len()];
            setting.measured.push(SweepMeasurement { run_id: line.replay.clone(), values });
            setting.measured.len() - 1
        });
        let [value, ..] = line.values;
        let cell = setting.measured.get_mut(at).and_then(|one| one.values.get_mut(place));
        if let Some(cell) = cell {
            *cell = Some(value);
        }
        setting.is_shown |= line.replay == shown.as_str();
    }
    settings
}

fn mark_front(settings: &mut [SweepSetting], objectives: &[Objective]) {
    let better: Vec<Better> = objectives.iter().map(|objective| objective.better()).collect();
    let mean = |setting: &SweepSetting, at: usize| setting.mean(at).unwrap_or(f64::NAN);
    let of_setting = |setting: &SweepSetting| -> Vec<f64> {
        (0..objectives.len()).map(|at| mean(setting, at)).collect()
    };
    let values: Vec<Vec<f64>> = settings.iter().map(of_setting).collect();
    for at in pareto::front(&values, &better) {
        if let Some(setting) = settings.get_mut(at) {
            setting.is_on_front = true;
        }
    }
}

/// Whether each assignment of a label is what the replayed run had.
fn is_as_recorded(label: &str, settings: &BTreeMap<String, Value>) -> bool {
    label.split(", ").all(|assignment| {
        assignment.split_once('=').is_some_and(|(name, value)| match settings.get(name) {
            Some(Value::String(text)) => text == value,
            // A number or a truth value, as the grid writes it.
            Some(other) => {
                let written = other.to_string();
                written.as_str() == value
            }
            None => false,
        })
    })
}

fn described(objective: Objective) -> SweepObjective {
    SweepObjective {
        name: objective.as_str().to_owned(),
        unit: objective.unit().to_owned(),
        is_more_better: objective.better() == Better::Higher,
    }
}

const LINES: &str = "SELECT name, value, attr(attributes, 'retake.sweep.setting') AS setting, \
     attr(attributes, 'retake.sweep.metric') AS metric, \
     attr(attributes, 'retake.sweep.replay') AS replay, \
     CAST(attr(attributes, 'retake.sweep.block') AS BIGINT) AS block, \
     CAST(attr(attributes, 'retake.sweep.low') AS DOUBLE) AS low, \
     CAST(attr(attributes, 'retake.sweep.high') AS DOUBLE) AS high \
     FROM measures WHERE name IN ('retake.predicted', 'retake.measured') ORDER BY time_unix_ns";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(objective: Objective, setting: &str, replay: &str, value: f64) -> Line {
        Line {
            is_prediction: replay.is_empty(),
            objective,
            setting: setting.to_owned(),
            replay: replay.to_owned(),
            block: None,
            values: [value, value * 0.9, value * 1.1],
        }
    }

    /// Scenario: two settings, one better in both objectives; a third was predicted and never measured.
    /// Guarantees: means are of replays, the front is of what was measured, the shown run is marked.
    #[test]
    fn a_sweep_is_put_together_again() {
        use Objective::{LatencyP95, Throughput};
        let shown = RunId::generate(0);
        let lines = [
            line(Throughput, "a=1", "", 10.0),
            line(Throughput, "a=2", "", 20.0),
            line(Throughput, "a=3", "", 30.0),
            line(Throughput, "a=1", "r1", 9.0),
            line(LatencyP95, "a=1", "r1", 5.0),
            line(Throughput, "a=2", "r2", 22.0),
            line(LatencyP95, "a=2", "r2", 4.0),
            line(Throughput, "a=1", shown.as_str(), 11.0),
            line(LatencyP95, "a=1", shown.as_str(), 7.0),
        ];
        let objectives = [Throughput, LatencyP95];
        let mut found = settings(&lines, &objectives, &shown);
        mark_front(&mut found, &objectives);
        let labels: Vec<&str> = found.iter().map(|one| one.label.as_str()).collect();
        assert_eq!(labels, ["a=1", "a=2", "a=3"]);
        assert_eq!((found[0].mean(0), found[0].mean(1)), (Some(10.0), Some(6.0)));
        assert_eq!(found[1].predicted, [Some([20.0, 18.0, 22.0]), None]);
        let front: Vec<bool> = found.iter().map(|one| one.is_on_front).collect();
        assert_eq!(front, [false, true, false]);
        assert_eq!(found[2].measured.len(), 0);
        let is_shown: Vec<bool> = found.iter().map(|one| one.is_shown).collect();
        assert_eq!(is_shown, [true, false, false]);
    }

    #[test]
    fn settings_as_recorded_are_known() {
        let settings = BTreeMap::from([
            ("embed.batch_size".to_owned(), Value::from(16)),
            ("embed.provider".to_owned(), Value::from("hashing")),
        ]);
        assert!(is_as_recorded("embed.batch_size=16", &settings));
        assert!(is_as_recorded("embed.batch_size=16, embed.provider=hashing", &settings));
        assert!(!is_as_recorded("embed.batch_size=16, workers=2", &settings));
        assert!(!is_as_recorded("embed.batch_size=4", &settings));
    }
}
