//! Options of the verbs that keep a store in order.

use std::time::Duration;

use clap::Args;

use crate::complete;
use crate::quantity::{parse_age, parse_bytes};

/// Options of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The run [default: all]
    #[arg(add = complete::one_run())]
    pub(crate) run: Option<String>,
}

/// Options of `recover`.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The run [default: all]
    #[arg(conflicts_with = "all", add = complete::one_run())]
    pub(crate) run: Option<String>,
    /// All runs, which is also the default
    #[arg(long)]
    pub(crate) all: bool,
}

/// Options of `compact`.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The run [default: all that have ended]
    #[arg(add = complete::one_run())]
    pub(crate) run: Option<String>,
}

/// Options of `gc`.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Remove runs that ended longer ago than this, such as 12h, 30d, 8w
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) older_than: Option<Duration>,
    /// Keep the youngest N of the runs looked at; alone, remove all others
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<usize>,
    /// Remove the oldest runs until all runs together have at most this size, such as 20GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) max_bytes: Option<u64>,
    /// Look only at runs with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Look only at runs of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Look only at runs of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Also empty quarantine folders into which nothing was moved for longer than --older-than
    #[arg(long, requires = "older_than")]
    pub(crate) quarantine: bool,
    /// Also remove baselines, and sources of replays that stay
    #[arg(long)]
    pub(crate) force: bool,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Options of `push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The run (or a set, such as `nightly*5`), and where to: file:///folder, s3://bucket/prefix, gs://…, az://…
    /// [default place: the setting record.upload]
    #[arg(value_names = ["RUN", "URL"], num_args = 0..=2)]
    pub(crate) run_and_url: Vec<String>,
    /// Every run that has ended
    #[arg(long)]
    pub(crate) all: bool,
}

/// Options of `pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Where from: file:///folder, s3://bucket/prefix, gs://…, az://…
    pub(crate) url: String,
    /// The runs there, by a selector or a set such as `baseline:main` [default: all of them]
    #[arg(add = complete::one_run())]
    pub(crate) run: Option<String>,
}
