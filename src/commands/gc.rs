//! `retake gc`.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use retake_recorder::Store;
use retake_recorder::upkeep::gc::{
    Criteria, Decision, Filter, Quarantine, StoredRun, carry_out, old_quarantines, plan,
    remove_quarantine, survey,
};
use retake_schemas::RunId;
use retake_schemas::id::utc_text;
use serde_json::{Value, json};

use crate::cli::{Format, Gc};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::progress::Progress;
use crate::units::bytes;

pub(crate) fn run(context: &Context, args: &Gc) -> Result<Code, Failure> {
    let criteria = criteria(args)?;
    let format = context.format_or(Format::Table);
    if !matches!(format, Format::Json | Format::Table | Format::Markdown) {
        return Err(unsupported(format, "a garbage collection"));
    }
    let store = context.store()?;
    let mut collection = Collection::prepare(&store, args, &criteria)?;
    if !args.dry_run && !collection.is_empty() {
        let question = format!("remove {}?", collection.total());
        if !args.yes && !context.confirm(&question)? {
            return Err(Failure::new(
                Code::Usage,
                format!("remove {}: not confirmed", collection.total()),
            )
            .help("answer y, or give --yes; --dry-run lists what would go"));
        }
        collection.carry_out(context, &store);
    }
    if format == Format::Json {
        print_json(&collection.as_json(args.dry_run))?;
    } else {
        collection.show(context, args, format)?;
    }
    for failure in &collection.failed {
        context.warn(failure);
    }
    Ok(if collection.failed.is_empty() { Code::Ok } else { Code::Environment })
}

fn criteria(args: &Gc) -> Result<Criteria, Failure> {
    let filter = Filter {
        labels: super::rag::labels(&args.label)?,
        name: args.name.clone(),
        service: args.service.clone(),
    };
    let criteria = Criteria {
        filter,
        older_than: args.older_than,
        keep_last: args.keep_last,
        bytes_max: args.max_bytes,
        is_forced: args.force,
    };
    if criteria.has_limit() {
        return Ok(criteria);
    }
    Err(Failure::new(Code::Usage, "collect garbage: no limit is given".to_owned()).help(
        "give --older-than, --keep-last or --max-bytes; `--keep-last 0` takes every run that \
         --label, --name and --service leave",
    ))
}

/// What goes, decided before anything does.
struct Collection {
    runs: HashMap<RunId, StoredRun>,
    plan: Vec<Decision>,
    quarantines: Vec<Quarantine>,
    failed: Vec<String>,
}

impl Collection {
    fn prepare(store: &Store, args: &Gc, criteria: &Criteria) -> Result<Self, Failure> {
        let now = SystemTime::now();
        let now_unix_ns = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let runs = survey(store)?;
        let plan = plan(&runs, criteria, i64::try_from(now_unix_ns).unwrap_or(i64::MAX));
        let mut quarantines = match args.older_than {
            Some(older_than) if args.quarantine => old_quarantines(store, older_than, now)?,
            _ => Vec::new(),
        };
        // A run that goes takes its quarantine along.
        quarantines.retain(|q| plan.iter().all(|d| d.run_id != q.run_id || !d.removes()));
        let runs = runs.into_iter().map(|run| (run.run_id.clone(), run)).collect();
        Ok(Self { runs, plan, quarantines, failed: Vec::new() })
    }

    fn going(&self) -> impl Iterator<Item = &Decision> {
        self.plan.iter().filter(|decision| decision.removes())
    }

    fn is_empty(&self) -> bool {
        self.going().next().is_none() && self.quarantines.is_empty()
    }

    fn bytes_going(&self) -> u64 {
        let runs: u64 = self.going().map(|decision| decision.bytes).sum();
        runs + self.quarantines.iter().map(|quarantine| quarantine.bytes).sum::<u64>()
    }

    fn bytes_before(&self) -> u64 {
        self.plan.iter().map(|decision| decision.bytes).sum()
    }

    fn total(&self) -> String {
        let mut parts = vec![format!("{} runs", self.going().count())];
        if !self.quarantines.is_empty() {
            parts.push(format!("{} quarantine folders", self.quarantines.len()));
        }
        format!("{} with {}", parts.join(" and "), bytes(self.bytes_going()))
    }

    fn carry_out(&mut self, context: &Context, store: &Store) {
        let progress = Progress::new(context.quiet, "remove", "runs");
        let (mut done, total) = (0, self.going().count() as u64);
        let removals = carry_out(store, &self.plan, |_| {
            done += 1;
            progress.at(done, total);
        });
        progress.finish();
        for removal in removals {
            if let Err(error) = removal.outcome {
                self.failed.push(format!("run {} is still there: {error}", removal.run_id));
            }
        }
        for quarantine in &self.quarantines {
            if let Err(error) = remove_quarantine(store, &quarantine.run_id) {
                self.failed.push(format!("run {}: failed to {error}", quarantine.run_id));
            }
        }
    }

    fn as_json(&self, is_dry_run: bool) -> Value {
        let runs: Vec<Value> = self
            .plan
            .iter()
            .map(|decision| {
                json!({
                    "run_id": decision.run_id,
                    "bytes": decision.bytes,
                    "action": if decision.removes() { "remove" } else { "keep" },
                    "reason": decision.verdict.code(),
                    "message": decision.verdict.to_string(),
                })
            })
            .collect();
        let quarantines: Vec<Value> = self
            .quarantines
            .iter()
            .map(|q| json!({"run_id": q.run_id, "bytes": q.bytes, "age_secs": q.age.as_secs()}))
            .collect();
        json!({
            "schema_version": 1,
            "dry_run": is_dry_run,
            "bytes_before": self.bytes_before(),
            "bytes_removed": self.bytes_going(),
            "runs": runs,
            "quarantines": quarantines,
            "failed": self.failed,
        })
    }

    fn show(&self, context: &Context, args: &Gc, format: Format) -> Result<(), Failure> {
        if self.is_empty() {
            print(&format!("nothing to remove: {} runs", self.plan.len()))?;
        } else {
            print(&self.table(format))?;
            let verb = if args.dry_run { "would remove" } else { "removed" };
            print(&format!("{verb} {}", self.total()))?;
        }
        let left = self.bytes_before() - self.going().map(|decision| decision.bytes).sum::<u64>();
        if args.max_bytes.is_some_and(|bytes_max| left > bytes_max) {
            context.say(&format!("{} stay; `--format json` says why for every run", bytes(left)));
        }
        if args.dry_run && !self.is_empty() {
            context.say("next: the same with --yes instead of --dry-run");
        }
        Ok(())
    }

    fn table(&self, format: Format) -> String {
        let mut shown = table(format, &["run", "name", "started (UTC)", "why", "size"], 4);
        for decision in self.going() {
            let run = self.runs.get(&decision.run_id);
            row(
                &mut shown,
                [
                    decision.run_id.to_string(),
                    run.map_or_else(String::new, |run| run.name.clone()),
                    run.map_or_else(String::new, |run| utc_text(run.started_unix_ns)),
                    decision.verdict.to_string(),
                    bytes(decision.bytes),
                ],
            );
        }
        for quarantine in &self.quarantines {
            let days = quarantine.age.as_secs() / 86_400;
            let why = format!("quarantine only, of {days} days ago");
            let (run_id, size) = (quarantine.run_id.to_string(), bytes(quarantine.bytes));
            row(&mut shown, [run_id, String::new(), String::new(), why, size]);
        }
        shown.to_string()
    }
}
