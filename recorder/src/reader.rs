//! Reading a run: sealed segments, whose digests are checked first, and the part that is not
//! sealed yet, so that there is no invisible second between recording and asking.

use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::file::metadata::ParquetMetaDataReader;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::{Manifest, Segment};
use retake_schemas::tables::stored::logical;
use retake_schemas::tables::{Row, RunRow, TableName};
use retake_schemas::version::UnreadableVersion;
use retake_schemas::{EventSeq, RunId, SpanKey};

use crate::clock::{Clock, Timeline};
use crate::disk::Disk;
use crate::fold::{Fold, FoldedRows, OpenSpans};
use crate::journal::{DeadJournal, LanePositions, read_journal};
use crate::seal::read_carry;
use crate::sealed_file::SealedFile;
use crate::store::{Store, StoreError, read_manifest_on};

/// Why a run's data cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store or the run cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sealed file is not what was sealed.
    #[error(
        "read {file} of run {run_id}: {reason}; nothing of this file was used \
         (`retake verify` lists every damaged file)"
    )]
    Damaged {
        /// The run.
        run_id: RunId,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds other columns than its table.
    #[error("read table {table}: {source}")]
    Table {
        /// The table.
        table: TableName,
        /// What is wrong.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// A Parquet file cannot be decoded although its digest is right.
    #[error("read {file}: {source}")]
    Parquet {
        /// The file.
        file: String,
        /// What is wrong.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A file's tables are of a version that only a newer retake may read.
    #[error(transparent)]
    Newer(#[from] UnreadableVersion),
}

/// One run, as of now.
#[derive(Debug)]
pub struct RunReader {
    run_id: RunId,
    folder: PathBuf,
    manifest: Manifest,
    tail: FoldedRows,
    tail_traces: u64,
    tail_last_unix_ns: Option<i64>,
    damage: Vec<String>,
}

impl RunReader {
    /// Opens a run as it is now. Nothing is changed or repaired.
    ///
    /// # Errors
    /// There is no such run, or its manifest cannot be read.
    pub fn open(store: &Store, run_id: &RunId) -> Result<Self, ReadError> {
        let folder = store.run_dir(run_id);
        let mut manifest = store.manifest(run_id)?;
        // A live writer may seal between our reading of the manifest and of the journal; then the
        // journal we saw belongs to another revision, and we look again.
        for _ in 0..OPEN_TRIES {
            if manifest.status != RunStatus::Recording {
                break;
            }
            // Ticks of another boot may lie ahead of ours: of a dead process everything counts.
            let writer = if store.is_live(run_id) { Writer::Alive } else { Writer::Dead };
            let loaded = load_tail(&**store.disk(), &folder, &manifest, writer)?;
            let now = read_manifest_on(&**store.disk(), &folder).map_err(StoreError::from)?;
            if now.revision == manifest.revision {
                let mut fold = loaded.fold;
                let tail_last_unix_ns = fold.last_unix_ns();
                let tail_traces = fold.traces();
                let tail = fold.take(OpenSpans::Finish);
                let run_id = run_id.clone();
                let damage = loaded.damage;
                return Ok(Self {
                    run_id,
                    folder,
                    manifest,
                    tail,
                    tail_traces,
                    tail_last_unix_ns,
                    damage,
                });
            }
            manifest = now;
        }
        Ok(Self {
            run_id: run_id.clone(),
            folder,
            manifest,
            tail: FoldedRows::default(),
            tail_traces: 0,
            tail_last_unix_ns: None,
            damage: Vec::new(),
        })
    }

    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What could not be read of the unsealed part.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// The sealed segments of a table, digests not checked yet.
    pub fn segments(&self, table: TableName) -> impl Iterator<Item = &Segment> {
        self.manifest.segments.iter().filter(move |segment| segment.table == table)
    }

    /// The sealed files of a table, each checked against its digest before it is handed out.
    ///
    /// They hold spans as [`retake_schemas::tables::stored`] says, and not as the table shows them.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for the first file that is missing or differs, [`ReadError::Newer`]
    /// for one that this retake may not read.
    pub fn checked_files(&self, table: TableName) -> Result<Vec<PathBuf>, ReadError> {
        let checked = self.sealed_files(table).map(|sealed| {
            let mut file = sealed.open()?;
            sealed.check(&mut file)?;
            let footer =
                ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|source| {
                    ReadError::Parquet { file: sealed.path().display().to_string(), source }
                })?;
            sealed.check_footer(&footer)?;
            Ok(sealed.path().to_owned())
        });
        checked.collect()
    }

    /// The sealed files of a table, to be opened and checked one by one.
    pub fn sealed_files(&self, table: TableName) -> impl Iterator<Item = SealedFile> {
        self.segments(table).map(|segment| SealedFile::new(&self.run_id, &self.folder, segment))
    }

    /// The rows of a table that are not sealed yet; open spans appear as `unfinished`.
    #[must_use]
    pub fn tail(&self, table: TableName) -> RecordBatch {
        self.tail.batch(table)
    }

    /// All rows of a table, sealed and not.
    ///
    /// # Errors
    /// A file is damaged or holds other columns.
    pub fn rows<R: Row>(&self) -> Result<Vec<R>, ReadError> {
        let table = R::TABLE;
        let decode = |batch: &RecordBatch| {
            R::from_batch(batch).map_err(|source| ReadError::Table { table, source })
        };
        let mut rows = Vec::new();
        for path in self.checked_files(table)? {
            for batch in read_parquet(&path)? {
                rows.extend(decode(&batch)?);
            }
        }
        rows.extend(decode(&self.tail(table))?);
        Ok(rows)
    }

    /// The ids of its last sealed spans, at most `max`.
    ///
    /// # Errors
    /// A segment is damaged, or cannot be read.
    pub(crate) fn span_keys(&self, max: usize) -> Result<Vec<SpanKey>, ReadError> {
        let mut keys = Vec::new();
        let mut files = self.checked_files(TableName::Spans)?;
        while keys.len() < max
            && let Some(file) = files.pop()
        {
            for batch in read_columns(&file, Some(&["trace_id", "span_id"]))? {
                let column = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
                let ids = column("trace_id").zip(column("span_id"));
                for (trace_id, span_id) in ids.into_iter().flat_map(|(t, s)| t.iter().zip(s)) {
                    keys.extend(trace_id.zip(span_id).and_then(|(trace_id, span_id)| {
                        let (trace_id, span_id) = (trace_id.parse().ok()?, span_id.parse().ok()?);
                        Some(SpanKey { trace_id, span_id })
                    }));
                }
            }
        }
        keys.truncate(max);
        Ok(keys)
    }

    /// The run's row of the table `runs`.
    #[must_use]
    pub fn run_row(&self) -> RunRow {
        let mut row = run_row(&self.manifest);
        let tail_spans = i64::try_from(self.tail.span_count()).unwrap_or(i64::MAX);
        row.spans = row.spans.saturating_add(tail_spans);
        if let Some(last) = self.tail_last_unix_ns {
            row.duration_ns = row.duration_ns.max(last.saturating_sub(row.started_unix_ns));
        }
        if row.traces.is_none() && self.manifest.segments.is_empty() {
            row.traces = i64::try_from(self.tail_traces).ok();
        }
        row
    }
}

/// The row of the table `runs` that a manifest alone gives; what is not sealed is missing in it.
#[must_use]
pub fn run_row(manifest: &Manifest) -> RunRow {
    let facts = &manifest.facts;
    let accounting = &manifest.accounting;
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    RunRow {
        run_id: manifest.run_id.to_string(),
        name: facts.name.clone(),
        service: facts.service.clone(),
        service_version: facts.service_version.clone(),
        status: manifest.status.as_str().to_owned(),
        started_unix_ns: facts.started_unix_ns,
        duration_ns: manifest.last_unix_ns.saturating_sub(facts.started_unix_ns).max(0),
        spans: signed(manifest.rows(TableName::Spans)),
        traces: manifest.traces.map(signed),
        git_sha: facts.git_sha.clone(),
        git_branch: facts.git_branch.clone(),
        replay_of: facts.replay_of.as_ref().map(ToString::to_string),
        workload: facts.workload.map(|digest| digest.to_string()),
        seed: facts.seed.map(signed),
        labels: serde_json::to_string(&facts.labels).unwrap_or_default(),
        settings: serde_json::to_string(&facts.settings).unwrap_or_default(),
        capture: facts.capture.as_str().to_owned(),
        host: facts.host.name.clone(),
        os: facts.host.os.clone(),
        cpu: facts.host.cpu.clone(),
        cpus: i32::try_from(facts.host.cpus).unwrap_or(i32::MAX),
        memory_bytes: signed(facts.host.memory_bytes),
        machine_key: facts.host.machine_key(),
        events_offered: signed(accounting.offered),
        events_accepted: signed(accounting.accepted),
        events_dropped: signed(accounting.dropped_total()),
        recorder_version: facts.recorder_version.clone(),
    }
}

/// Reads a Parquet file whose digest was checked, as the table shows it.
///
/// # Errors
/// It cannot be decoded.
pub fn read_parquet(path: &Path) -> Result<Vec<RecordBatch>, ReadError> {
    let batches = read_columns(path, None)?.into_iter().map(logical).collect::<Result<_, _>>();
    let name = path.display().to_string();
    batches.map_err(|source| ReadError::Parquet { file: name, source: source.into() })
}

/// Some columns, or all, as they are stored.
fn read_columns(path: &Path, names: Option<&[&str]>) -> Result<Vec<RecordBatch>, ReadError> {
    let name = path.display().to_string();
    let parquet = |source| ReadError::Parquet { file: name.clone(), source };
    let file = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| {
            let builder = match names {
                Some(names) => {
                    let schema = builder.parquet_schema();
                    let mask = ProjectionMask::columns(schema, names.iter().copied());
                    builder.with_projection(mask)
                }
                None => builder,
            };
            builder.with_batch_size(READ_BATCH_ROWS).build()
        })
        .map_err(parquet)?;
    reader
        .collect::<Result<_, _>>()
        .map_err(|source| ReadError::Parquet { file: name.clone(), source: source.into() })
}

/// The unsealed part of a run.
#[derive(Debug)]
pub(crate) struct LoadedTail {
    /// Everything after the last seal, applied.
    pub(crate) fold: Fold,
    /// How far each lane was read.
    pub(crate) positions: LanePositions,
    /// Events read.
    pub(crate) events: u64,
    /// Records known to be missing or unreadable.
    pub(crate) records_lost: u64,
    /// Part of the journal is of a format that only a newer retake may read.
    pub(crate) newer: Option<UnreadableVersion>,
    /// What could not be read.
    pub(crate) damage: Vec<String>,
}

/// Which part of a journal to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// It is being written: only what is older than this moment has all its causes in it.
    Alive,
    /// Its process is gone, and everything is there.
    Dead,
}

/// Folds the carry file and the journal behind a manifest. Damage is reported, and everything
/// before it is used.
pub(crate) fn load_tail(
    disk: &dyn Disk,
    folder: &Path,
    manifest: &Manifest,
    writer: Writer,
) -> Result<LoadedTail, StoreError> {
    let before = match writer {
        Writer::Alive => Clock::start().ticks(),
        Writer::Dead => u64::MAX,
    };
    let journal_dir = folder.join(JOURNAL_DIR);
    let mut journal =
        read_journal(disk, &journal_dir).map_err(StoreError::io("read journal", &journal_dir))?;
    let (start, ticks_per_ns) = journal.clock(manifest.facts.started_unix_ns);
    let from = EventSeq(manifest.sealed_below);
    let timeline = Timeline::new(start, ticks_per_ns);
    let mut fold = Fold::new(&manifest.run_id, &manifest.facts.service, from, timeline);
    fold.resume(&manifest.accounting, manifest.last_unix_ns);
    let mut damage = Vec::new();
    match manifest.carry.as_ref().map(|entry| read_carry(disk, folder, entry)) {
        Some(Ok(carried)) => fold.take_over(carried),
        Some(Err(reason)) => damage.push(format!("spans open at the last seal: {reason}")),
        None => {}
    }
    let (positions, events) =
        journal.replay(&manifest.lanes, before, |place, record| fold.record(place, record, None));
    damage.append(&mut journal.damage);
    let DeadJournal { records_lost, newer, .. } = journal;
    Ok(LoadedTail { fold, positions, events, records_lost, newer, damage })
}

/// The fact in a segment's footer that says how its columns are to be read.
pub(crate) const TABLES_VERSION: &str = "retake.tables";
/// Folder of a run's journal, inside the run's folder.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// A writer seals at most a few times a second; more collisions than this mean something else.
const OPEN_TRIES: usize = 8;
/// Rows decoded at a time.
const READ_BATCH_ROWS: usize = 8192;
