//! What a run would take with other settings, before anyone runs it.
//!
//! Calls are fitted ([`super::fit()`]), queueing comes from the event heap ([`super::ingest`]), and
//! what the model leaves out (the program's own work, processors that are shared) is one factor:
//! how much longer recorded ingests took than the model says of their own settings.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::fit::{CallFit, Estimate, Range, Unpredictable, fit};
use super::ingest::{IngestSettings, IngestTimes, SimulatedIngest, simulate_ingest};
use super::observed::{DocumentWork, IngestRecord, Observed};
use crate::plan::closure::{self, Reach};
use crate::quantile::nearest_rank;

/// Predicts ingests of one workload from runs of it.
#[derive(Debug, Clone)]
pub struct Predictor {
    base: Observed,
    embed: Option<CallFit>,
    insert: Option<CallFit>,
    /// Logarithms of batch sizes seen, and of how much longer ingests of that size took than the
    /// model says, in order.
    calibration: Vec<(f64, f64)>,
    run_sd: f64,
    runs: usize,
    range: Range,
}

/// Why something cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unknown {
    /// Why.
    pub reason: String,
    /// Whether runs with other batch sizes would tell.
    pub is_learnable: bool,
}

impl Unknown {
    /// Something the model knows nothing of, whatever is recorded.
    pub(crate) fn never(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_learnable: false }
    }
}

impl From<Unpredictable> for Unknown {
    fn from(error: Unpredictable) -> Self {
        Self { reason: error.to_string(), is_learnable: true }
    }
}

impl Predictor {
    /// Fits the calls of `base`, whose workload is predicted, and of replays of it.
    #[must_use]
    pub fn new(base: &Observed, others: &[&Observed], range: Range, seed: u64) -> Self {
        // Replays are better evidence than what they repeat: that ran at another time, beside other
        // work. It counts where they do not tell enough.
        let of_others: Vec<(f64, f64)> =
            others.iter().flat_map(|run| run.points("embed")).collect();
        let is_enough = fit(&of_others, seed).is_some_and(|fit| fit.is_identified);
        let first = (!is_enough).then_some(base);
        let all = || first.into_iter().chain(others.iter().copied());
        let points =
            |stage| -> Vec<(f64, f64)> { all().flat_map(|run| run.points(stage)).collect() };
        let mut predictor = Self {
            base: Observed { ingests: typical(base, all()), ..base.clone() },
            embed: fit(&points("embed"), seed),
            insert: fit(&points("insert"), seed),
            calibration: Vec::new(),
            run_sd: RUN_SD,
            runs: all().count(),
            range,
        };
        // Of each batch size seen, what the model leaves out of ingests of that size.
        let mut ratios: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for run in all() {
            let size = ingest_settings(&run.settings).batch_size;
            ratios.entry(size).or_default().extend(predictor.own_ratios(run));
        }
        ratios.retain(|_, found| !found.is_empty());
        let mean = |found: &[f64]| found.iter().sum::<f64>() / found.len() as f64;
        let squares: f64 = ratios
            .values()
            .map(|found| found.iter().map(|ratio| (ratio - mean(found)).powi(2)).sum::<f64>())
            .sum();
        // What is known of the machine, shrunk towards what is usual: Smyth 2004, section 3.
        let freedom: f64 = ratios.values().map(|found| found.len() as f64 - 1.0).sum();
        let variance = (squares + RUN_SD_WEIGHT * RUN_SD * RUN_SD) / (freedom + RUN_SD_WEIGHT);
        predictor.run_sd = variance.sqrt();
        predictor.calibration =
            ratios.iter().map(|(size, found)| ((*size as f64).ln(), mean(found))).collect();
        predictor
    }

    /// The fitted calls, by stage.
    #[must_use]
    pub fn fits(&self) -> BTreeMap<&'static str, &CallFit> {
        let stages = [("embed", &self.embed), ("insert", &self.insert)];
        stages.into_iter().filter_map(|(stage, fit)| Some((stage, fit.as_ref()?))).collect()
    }

    /// How much longer ingests of this batch size take than the model says: as those that were seen
    /// did, and between two sizes in between, on logarithms.
    #[must_use]
    pub fn calibration(&self, batch_size: usize) -> f64 {
        let at = (batch_size.max(1) as f64).ln();
        let above = self.calibration.iter().position(|(size, _)| *size >= at);
        let seen = |place: usize| self.calibration.get(place).copied();
        let ratio = match above {
            Some(0) => seen(0).map(|(_, ratio)| ratio),
            Some(place) => seen(place - 1)
                .zip(seen(place))
                .map(|((x0, y0), (x1, y1))| y0 + (y1 - y0) * (at - x0) / (x1 - x0)),
            None => self.calibration.last().map(|(_, ratio)| *ratio),
        };
        ratio.unwrap_or(0.0).exp()
    }

    /// The same, with the batch size that was recorded.
    #[must_use]
    pub fn recorded_calibration(&self) -> f64 {
        self.calibration(ingest_settings(&self.base.settings).batch_size)
    }

    /// Runs it is fitted from.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Logarithms of how much longer each ingest of a run took than the model says.
    fn own_ratios(&self, run: &Observed) -> Vec<f64> {
        let Some(embed) = &self.embed else { return Vec::new() };
        let settings = ingest_settings(&run.settings);
        let ratio = |ingest: &IngestRecord| {
            let took = ingest.duration_ns - ingest.before_ns - ingest.after_ns;
            let found = self.simulate(ingest, settings, embed, 1.0);
            (found.makespan_ns > 0 && took > 0)
                .then(|| (took as f64 / found.makespan_ns as f64).ln())
        };
        run.ingests.iter().filter(|ingest| is_usable(ingest)).filter_map(ratio).collect()
    }

    fn simulate(
        &self,
        ingest: &IngestRecord,
        settings: IngestSettings,
        embed: &CallFit,
        factor: f64,
    ) -> SimulatedIngest {
        let at = |fit: &CallFit, size: usize| fit.base_ns + fit.per_item_ns * size as f64;
        let times = IngestTimes {
            embed: &|size| (factor * at(embed, size)).round() as i64,
            insert: &|rows| self.insert.as_ref().map_or(0, |fit| at(fit, rows).round() as i64),
        };
        simulate_ingest(&ingest.documents, settings, &times)
    }

    /// How long each ingest of the workload would take, ns, with a 95 % interval that holds what
    /// the coefficients leave open and the chance between runs.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn ingests(&self, target: &BTreeMap<String, Json>) -> Result<Vec<Estimate>, Unknown> {
        self.check(target)?;
        let settings = ingest_settings(target);
        self.base.ingests.iter().map(|ingest| self.ingest(ingest, settings)).collect()
    }

    /// Calls that embed the chunks of all ingests.
    ///
    /// # Errors
    /// As of [`Predictor::ingests`].
    pub fn embed_calls(&self, target: &BTreeMap<String, Json>) -> Result<u64, Unknown> {
        self.check(target)?;
        let settings = ingest_settings(target);
        let embed = self.embed.as_ref().ok_or(Unpredictable::NoCalls { stage: "embed" })?;
        let calls = |ingest| self.simulate(ingest, settings, embed, 1.0).calls;
        Ok(self.base.ingests.iter().map(calls).sum())
    }

    fn ingest(&self, ingest: &IngestRecord, settings: IngestSettings) -> Result<Estimate, Unknown> {
        if !is_usable(ingest) {
            return Err(Unknown::never(
                "the recorded ingest did not make every vector anew, so the rest of its work was not \
                 seen",
            ));
        }
        let embed = self.embed.as_ref().ok_or(Unpredictable::NoCalls { stage: "embed" })?;
        let call = embed.predict("embed", settings.batch_size as f64, self.range)?;
        let around = (ingest.before_ns + ingest.after_ns) as f64;
        let took = |factor: f64| {
            let found = self.simulate(ingest, settings, embed, factor);
            around + self.calibration(settings.batch_size) * found.makespan_ns as f64
        };
        let chance = (Z_975 * self.run_sd).exp();
        let (low, high) = (call.low / call.estimate, call.high / call.estimate);
        Ok(Estimate { estimate: took(1.0), low: took(low) / chance, high: took(high) * chance })
    }

    /// Whether the model knows what the changed settings do.
    fn check(&self, target: &BTreeMap<String, Json>) -> Result<(), Unknown> {
        for change in closure::changes(&self.base.settings, target, true) {
            let name = change.name.as_str();
            let reach = ["load", "chunk", "embed", "insert"]
                .into_iter()
                .filter_map(|stage| closure::reach_of(name, stage))
                .max();
            match reach {
                Some(Reach::Content) => {
                    return Err(Unknown::never(format!(
                        "{name} changes the work itself, which was not seen"
                    )));
                }
                Some(Reach::Timing) if !MODELLED.contains(&name) => {
                    return Err(Unknown::never(format!(
                        "what {name} does to the time is not modelled"
                    )));
                }
                _ => {}
            }
        }
        match target.get("embed.adaptive").and_then(Json::as_bool) {
            Some(true) => {
                Err(Unknown::never("with embed.adaptive the batch size is not a setting"))
            }
            _ => Ok(()),
        }
    }
}

/// The ingests of a run, with the times of everything but calls as they usually are: medians over
/// runs of the same documents.
fn typical<'a>(
    base: &Observed,
    runs: impl Iterator<Item = &'a Observed> + Clone,
) -> Vec<IngestRecord> {
    let chunks = |ingest: &IngestRecord| -> Vec<Option<u32>> {
        by_chunks(ingest).into_iter().map(|document| document.chunks).collect()
    };
    let one = |(place, ingest): (usize, &IngestRecord)| {
        let wanted = chunks(ingest);
        let alike: Vec<&IngestRecord> = runs
            .clone()
            .filter_map(|run| run.ingests.get(place))
            .filter(|other| is_usable(other) && chunks(other) == wanted)
            .collect();
        if alike.is_empty() {
            return ingest.clone();
        }
        let median = |of: &dyn Fn(&IngestRecord) -> i64| {
            let mut times: Vec<i64> = alike.iter().map(|other| of(other)).collect();
            times.sort_unstable();
            nearest_rank(&times, 0.5).unwrap_or(0)
        };
        let mut typical = ingest.clone();
        typical.before_ns = median(&|other| other.before_ns);
        typical.after_ns = median(&|other| other.after_ns);
        let mut documents: Vec<&mut DocumentWork> = typical.documents.iter_mut().collect();
        documents.sort_by_key(|document| document.chunks);
        for (place, document) in documents.into_iter().enumerate() {
            let prepare_ns = |other: &IngestRecord| {
                by_chunks(other).get(place).map_or(0, |document| document.prepare_ns)
            };
            document.prepare_ns = median(&prepare_ns);
        }
        typical
    };
    base.ingests.iter().enumerate().map(one).collect()
}

/// Documents by their size: several are loaded at a time, so the order in which they were differs from
/// run to run.
fn by_chunks(ingest: &IngestRecord) -> Vec<DocumentWork> {
    let mut documents = ingest.documents.clone();
    documents.sort_by_key(|document| document.chunks);
    documents
}

fn ingest_settings(settings: &BTreeMap<String, Json>) -> IngestSettings {
    let number =
        |name: &str, default: u64| settings.get(name).and_then(Json::as_u64).unwrap_or(default);
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    let wait_ms = i64::try_from(number("embed.max_wait_ms", 20)).unwrap_or(i64::MAX / MS);
    IngestSettings {
        workers: whole(number("workers", 2)),
        batch_size: whole(number("embed.batch_size", 32)),
        max_wait_ns: wait_ms.saturating_mul(MS),
    }
}

/// Whether all of an ingest's work can be seen: everything was cut up, and every chunk embedded.
fn is_usable(ingest: &IngestRecord) -> bool {
    let chunks: i64 = ingest.documents.iter().map(|d| i64::from(d.chunks.unwrap_or(0))).sum();
    ingest.is_ok && chunks > 0 && ingest.embedded == chunks
}

/// Settings whose effect on the time of an ingest the model knows.
const MODELLED: [&str; 3] = ["embed.batch_size", "embed.max_wait_ms", "workers"];
/// Usual standard deviation of a run's logarithm, as in `retake diff`: 15 % (mui-public #1712), with the
/// weight of half a degree of freedom.
const RUN_SD: f64 = 0.15;
const RUN_SD_WEIGHT: f64 = 0.5;
const Z_975: f64 = 1.96;
const MS: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use retake_schemas::settings::RagSettings;

    use super::*;
    use crate::cost::Call;

    /// A run of 40 documents with 8 chunks, calls of 20 ms + 0.2 ms a chunk, and a tenth more time
    /// than the model knows of.
    fn run(batch: usize, workers: usize) -> Observed {
        let mut settings = RagSettings::default();
        (settings.embed.batch_size, settings.workers) = (batch, workers);
        let documents = vec![DocumentWork { prepare_ns: 100_000, chunks: Some(8) }; 40];
        let ms = |size: usize| 20 * MS + i64::try_from(size).unwrap() * MS / 5;
        let times = IngestTimes { embed: &ms, insert: &|_| MS };
        let flow = IngestSettings { workers, batch_size: batch, max_wait_ns: 20 * MS };
        let found = simulate_ingest(&documents, flow, &times);
        let call =
            |items: i64, duration_ns| Call { items, duration_ns, is_ok: true, ..Call::default() };
        let calls = vec![call(batch as i64, ms(batch)); 320 / batch];
        let inserts = (1..=30).map(|documents| call(8 * documents, MS)).collect();
        Observed {
            settings: settings.recordable(),
            ingests: vec![IngestRecord {
                is_ok: true,
                duration_ns: 7 * MS + found.makespan_ns * 11 / 10,
                before_ns: 5 * MS,
                after_ns: 2 * MS,
                documents,
                embedded: 320,
                ..IngestRecord::default()
            }],
            stages: [("embed", calls), ("insert", inserts)].into(),
            ..Observed::default()
        }
    }

    fn changed(base: &Observed, set: &[&str]) -> BTreeMap<String, Json> {
        let mut settings = RagSettings::from_recorded(&base.settings);
        set.iter().for_each(|change| settings.set(change).unwrap());
        settings.recordable()
    }

    /// Scenario: two documents of which now one and now the other is loaded first; the recorded run was
    /// the first of its process, and slow to begin.
    /// Guarantees: what is typical is told from all runs, whichever document came first.
    #[test]
    fn the_order_of_documents_makes_no_other_ingest() {
        let documents = |turned: bool, slower: i64| {
            let work = |chunks, ms: i64| DocumentWork {
                prepare_ns: ms * slower * MS,
                chunks: Some(chunks),
            };
            let mut both = vec![work(3, 1), work(9, 4)];
            if turned {
                both.reverse();
            }
            both
        };
        let of = |turned: bool, slower: i64| {
            let mut found = run(4, 1);
            found.ingests[0].documents = documents(turned, slower);
            (found.ingests[0].embedded, found.ingests[0].before_ns) = (12, 5 * slower * MS);
            found
        };
        let (base, again, once_more) = (of(false, 10), of(true, 1), of(true, 1));
        let typical = typical(&base, [&base, &again, &once_more].into_iter());
        assert_eq!((typical[0].before_ns, &typical[0].documents), (5 * MS, &documents(false, 1)));
    }

    /// Scenario: with small batches the model leaves out a tenth, with large ones it takes in too much.
    /// Guarantees: each size is predicted as it was seen, sizes in between in between, and sizes beyond
    /// as the nearest.
    #[test]
    fn what_the_model_leaves_out_goes_by_the_size() {
        let (small, mut large) = (run(4, 1), run(64, 1));
        for ingest in &mut large.ingests {
            ingest.duration_ns = 7 * MS + (ingest.duration_ns - 7 * MS) * 7 / 11;
        }
        let predictor = Predictor::new(&small, &[&large], Range::Seen, 1);
        let near = |size: usize, factor: f64| {
            let found = predictor.calibration(size);
            assert!((found / factor - 1.0).abs() < 0.01, "{found} for {size}");
        };
        near(4, 1.1);
        near(64, 0.7);
        near(16, (1.1_f64 * 0.7).sqrt());
        near(1, 1.1);
        near(500, 0.7);
        assert!((predictor.recorded_calibration() / 1.1 - 1.0).abs() < 0.01);
    }

    /// Scenario: runs with batches of 4 and 64 and one worker; others in between, and two workers.
    /// Guarantees: predicted within 1 % of what those would have taken, inside the interval.
    #[test]
    fn other_batch_sizes_are_predicted() {
        let (small, large) = (run(4, 1), run(64, 1));
        let predictor = Predictor::new(&small, &[&large], Range::Seen, 1);
        for size in [1, 4, 16, 64, 256] {
            let factor = predictor.calibration(size);
            assert!((factor - 1.1).abs() < 0.01, "{factor} for {size}");
        }
        for (batch, workers) in [(4, 1), (8, 1), (16, 2), (32, 1), (64, 2)] {
            let set = [format!("embed.batch_size={batch}"), format!("workers={workers}")];
            let target = changed(&small, &set.each_ref().map(String::as_str));
            let predicted = predictor.ingests(&target).unwrap()[0];
            let truth = run(batch, workers).ingests[0].duration_ns as f64;
            assert!(
                (predicted.estimate / truth - 1.0).abs() < 0.01,
                "{batch}: {predicted:?} {truth}"
            );
            assert!(predicted.low < truth && truth < predicted.high);
            assert_eq!(predictor.embed_calls(&target).unwrap(), 320 / batch as u64);
        }
    }

    /// Scenario: one batch size seen, and settings that the model knows nothing of.
    /// Guarantees: refused with the reason; the size that was seen is not.
    #[test]
    fn what_was_not_seen_is_refused() {
        let base = run(32, 1);
        let predictor = Predictor::new(&base, &[], Range::Seen, 1);
        for (set, says) in [
            ("embed.batch_size=64", "too alike"),
            ("chunk.size=64", "changes the work itself"),
            ("limits.requests_per_minute=6", "not modelled"),
            ("embed.adaptive=true", "not modelled"),
        ] {
            let error = predictor.ingests(&changed(&base, &[set])).unwrap_err().to_string();
            assert!(error.contains(says), "{set}: {error}");
        }
        let same = predictor.ingests(&changed(&base, &["synthesize.max_tokens=9"])).unwrap()[0];
        assert!((same.estimate / base.ingests[0].duration_ns as f64 - 1.0).abs() < 0.001);
        let far = Predictor::new(&base, &[&run(16, 1)], Range::Seen, 1);
        let error =
            far.ingests(&changed(&base, &["embed.batch_size=256"])).unwrap_err().to_string();
        assert!(error.contains("outside"), "{error}");
    }
}
