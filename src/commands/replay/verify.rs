//! `retake replay verify`: is a run its own replay?

use std::time::Instant;

use retake_recorder::RunReader;
use retake_replay::cassette::{Audit, RunCassette};
use retake_replay::identity::{Identity, Log, check};
use serde_json::json;

use crate::cli::{Format, ReplayVerify};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{inert, print, print_json, unsupported};
use crate::progress::Progress;
use crate::units::{count, duration};

pub(super) fn run(context: &Context, args: &ReplayVerify) -> Result<Code, Failure> {
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let reader = RunReader::open(&store, &run_id)?;
    let recorded = Log::read(&reader)?;
    let answers = RunCassette::audit(&reader)?;
    let progress = Progress::new(context.quiet, "verify", "replays");
    progress.length(u64::from(args.repeat));
    let began = Instant::now();
    let mut last = check(&recorded, usize::from(args.threads));
    let mut same = u64::from(last.holds());
    for number in 1..args.repeat {
        progress.position(u64::from(number));
        let next = check(&recorded, usize::from(args.threads));
        same += u64::from(next.holds());
        // One that differs is what there is to tell of.
        if last.holds() {
            last = next;
        }
    }
    let took = began.elapsed();
    progress.finish();
    let is_identical = same == u64::from(args.repeat) && answers.wrong == 0;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&json!({
            "schema_version": 1,
            "run_id": run_id,
            "identical": is_identical,
            "replays": args.repeat,
            "same": same,
            "threads": args.threads,
            "recorded_digest": last.recorded,
            "replayed_digest": last.replayed,
            "rows": {
                "spans": last.counts.spans, "tokens": last.counts.tokens,
                "events": last.counts.events, "documents": last.counts.documents,
            },
            "span_ns": last.span_ns,
            "difference": last.difference,
            "answers": answers,
        }))?,
        Format::Table | Format::Markdown => print(&words(&last, &answers, same, args.repeat))?,
        other => return Err(unsupported(other, "an identity check")),
    }
    context.say(&format!("{} replays on {} threads in {took:.1?}", args.repeat, args.threads));
    if !is_identical {
        let message = format!("verify {run_id}: its replay is another run");
        return Err(Failure::new(Code::ReplayInvalid, message)
            .help("`retake verify` tells whether its files are as they were sealed"));
    }
    Ok(Code::Ok)
}

fn words(identity: &Identity, answers: &Audit, same: u64, replays: u16) -> String {
    let number = |number: u64| count(i64::try_from(number).unwrap_or(i64::MAX));
    let rows = &identity.counts;
    let mut text = format!(
        "{} spans, {} arrivals of tokens, {} log lines and {} documents over {}\n",
        number(rows.spans),
        number(rows.tokens),
        number(rows.events),
        number(rows.documents),
        duration(identity.span_ns),
    );
    text.push_str(&match &identity.difference {
        None => format!("identical in {same} of {replays} replays: {}\n", identity.recorded),
        Some(difference) => format!(
            "NOT identical: recorded {}, replayed {}\n{}\n",
            identity.recorded,
            identity.replayed,
            inert(difference)
        ),
    });
    text.push_str(&match (answers.calls, answers.kept) {
        (0, _) => "no call of a language model\n".to_owned(),
        (calls, 0) => format!(
            "{calls} calls of language models, whose contents were not kept: they can be replayed \
             in virtual time only (--capture full keeps them)\n"
        ),
        (calls, kept) => {
            let wrong = match answers.wrong {
                0 => String::new(),
                wrong => format!("; {wrong} got ANOTHER answer than recorded"),
            };
            format!("{kept} of {calls} calls of language models are answered from the recording{wrong}\n")
        }
    });
    text
}
