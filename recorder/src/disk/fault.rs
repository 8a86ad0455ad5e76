//! A disk for tests that keeps what was written apart from what was flushed, and fails when told.
//!
//! Names and bytes are separate, as on a real disk: a file's bytes survive a power cut once the
//! file is flushed, its name once the folder is. [`History`] gives what a cut at any moment leaves.

mod history;
mod image;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use history::{History, Moment, Standing};
use history::{Logged, Op};
pub(crate) use image::Image;
use image::{Change, NodeId};

use super::{Disk, DiskFile, Entry, Kind, Present};
use crate::store::RunLock;
use crate::writer::Progress;

/// A disk in memory. Copies are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct FaultDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    start: Image,
    live: Image,
    ops: Vec<Logged>,
    /// Operations tried, failed ones included.
    tried: usize,
    fault: Option<Fault>,
    /// Files of which a flush failed, and how often another was tried.
    failed_syncs: HashSet<NodeId>,
    resyncs: usize,
    next_node: NodeId,
    watched: Option<Watched>,
    /// Folders are made on the machine's disk too, so that lanes can be mapped there.
    has_shadow: bool,
}

/// A recording whose standing is noted with each operation.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) progress: Arc<Progress>,
    /// Events recorded so far.
    pub(crate) recorded: Arc<AtomicU64>,
    /// The file of its mapped lanes.
    pub(crate) lanes: Option<PathBuf>,
}

impl Watched {
    fn standing(&self) -> Standing {
        Standing {
            acknowledged: self.progress.durable_below.load(Ordering::Acquire),
            recorded: self.recorded.load(Ordering::Acquire),
            lanes: self.lanes.as_ref().and_then(|path| std::fs::read(path).ok()).map(Arc::new),
        }
    }
}

/// What is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// From this operation on, counted from 0.
    pub(crate) from_op: usize,
    pub(crate) failure: Failure,
    /// How many operations of those that can fail so.
    pub(crate) times: usize,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Whatever needs room gets ENOSPC.
    NoSpace,
    /// Anything gets EIO.
    Io,
    /// A write is done by half.
    ShortWrite,
    /// A flush of a file fails, and what it was to flush is lost.
    Sync,
}

/// Kinds of operations, as far as failures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Makes or names something.
    Name,
    Write,
    SyncFile,
    SyncFolder,
    Remove,
}

impl Failure {
    fn concerns(self, step: Step) -> bool {
        match self {
            Self::NoSpace => step != Step::Remove,
            Self::Io => true,
            Self::ShortWrite => step == Step::Write,
            Self::Sync => step == Step::SyncFile,
        }
    }

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::NoSpace | Self::ShortWrite => libc::ENOSPC,
            Self::Io | Self::Sync => libc::EIO,
        })
    }
}

impl FaultDisk {
    /// A disk as a power cut left it.
    pub(crate) fn new(image: Image) -> Self {
        let state = State {
            next_node: image.next_node(),
            live: image.clone(),
            start: image,
            ops: Vec::new(),
            tried: 0,
            fault: None,
            failed_syncs: HashSet::new(),
            resyncs: 0,
            watched: None,
            has_shadow: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Also makes folders on the machine's disk.
    pub(crate) fn with_shadow(self) -> Self {
        self.state.lock().has_shadow = true;
        self
    }

    /// Notes from now on, with each operation, how far the recording is.
    pub(crate) fn watch(&self, watched: Watched) {
        self.state.lock().watched = Some(watched);
    }

    /// Lets operations fail.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// Whether the failure ordered last is over.
    pub(crate) fn is_well(&self) -> bool {
        self.state.lock().fault.is_none()
    }

    /// Operations tried so far.
    pub(crate) fn tried(&self) -> usize {
        self.state.lock().tried
    }

    /// How often a file was flushed although a flush of it had failed.
    pub(crate) fn resyncs(&self) -> usize {
        self.state.lock().resyncs
    }

    /// What the disk looks like to a process now.
    pub(crate) fn live(&self) -> Image {
        self.state.lock().live.clone()
    }

    /// Everything done so far.
    pub(crate) fn history(&self) -> History {
        let state = self.state.lock();
        History { start: state.start.clone(), ops: state.ops.clone(), end: state.standing() }
    }
}

impl State {
    fn standing(&self) -> Standing {
        self.watched.as_ref().map(Watched::standing).unwrap_or_default()
    }

    /// Counts an operation; `Some` says how it fails.
    fn begin(&mut self, step: Step) -> Option<Failure> {
        let number = self.tried;
        self.tried += 1;
        let fault = self.fault.as_mut()?;
        if number < fault.from_op || !fault.failure.concerns(step) {
            return None;
        }
        let failure = fault.failure;
        fault.times -= 1;
        if fault.times == 0 {
            self.fault = None;
        }
        Some(failure)
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        self.begin(step).map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn log(&mut self, op: Op) {
        if let Op::Change(change) = &op {
            self.live.apply(change);
        }
        self.ops.push(Logged { op, before: self.standing() });
    }

    fn node(&self, path: &Path) -> io::Result<NodeId> {
        self.live.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The folder of a path, and the last part of its name.
    fn place(&self, path: &Path) -> io::Result<(NodeId, std::ffi::OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.node(path.parent().unwrap_or(Path::new("/")))?, name.to_owned()))
    }

    fn make(&mut self, path: &Path, kind: Kind) -> io::Result<NodeId> {
        let (folder, name) = self.place(path)?;
        let node = self.next_node;
        self.next_node += 1;
        self.log(Op::Change(Change::Make { folder, name, node, kind }));
        Ok(node)
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path, present: Present) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step(Step::Name)?;
        let file = match state.live.find(path) {
            None => state.make(path, Kind::File)?,
            Some(_) if present == Present::Refuse => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Some(file) => {
                state.log(Op::Change(Change::Truncate { file }));
                file
            }
        };
        Ok(Box::new(FaultFile { disk: self.clone(), file, written: Mutex::new(0) }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let bytes = state.live.bytes(state.node(path)?).ok_or(io::ErrorKind::IsADirectory)?;
        Ok(bytes.to_owned())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Step::Name)?;
        let node = state.node(from)?;
        if state.has_shadow && state.live.kind(node) == Kind::Folder {
            std::fs::rename(from, to)?;
        }
        let change = Change::Rename { from: state.place(from)?, to: state.place(to)?, node };
        state.log(Op::Change(change));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Step::Remove)?;
        state.node(path)?;
        let (folder, name) = state.place(path)?;
        state.log(Op::Change(Change::Remove { folder, name }));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.has_shadow {
            std::fs::create_dir_all(path)?;
        }
        let mut missing: Vec<&Path> =
            path.ancestors().take_while(|folder| state.live.find(folder).is_none()).collect();
        while let Some(folder) = missing.pop() {
            state.step(Step::Name)?;
            state.make(folder, Kind::Folder)?;
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let node = self.state.lock().node(path)?;
        let names = self.state.lock().live.names(node).cloned().unwrap_or_default();
        for (name, child) in names {
            let child_path = path.join(name);
            let kind = self.state.lock().live.kind(child);
            match kind {
                Kind::Folder => self.remove_dir(&child_path)?,
                _ => self.remove(&child_path)?,
            }
        }
        self.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step(Step::SyncFolder)?;
        let folder = state.node(path)?;
        state.log(Op::SyncFolder(folder));
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state.lock();
        let names = state.live.names(state.node(folder)?).ok_or(io::ErrorKind::NotADirectory)?;
        let entry = |(name, node): (&std::ffi::OsString, &NodeId)| Entry {
            name: name.clone(),
            kind: state.live.kind(*node),
        };
        Ok(names.iter().map(entry).collect())
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let state = self.state.lock();
        state.live.find(path).map(|node| state.live.kind(node))
    }

    fn lock(&self, _folder: &Path) -> io::Result<Option<RunLock>> {
        RunLock::of_nothing().map(Some)
    }
}

/// A file open for writing.
#[derive(Debug)]
struct FaultFile {
    disk: FaultDisk,
    file: NodeId,
    written: Mutex<usize>,
}

impl DiskFile for FaultFile {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let failure = state.begin(Step::Write);
        let done = match failure {
            None => bytes,
            Some(Failure::ShortWrite) => &bytes[..bytes.len() / 2],
            Some(_) => &[],
        };
        if !done.is_empty() {
            let mut written = self.written.lock();
            let (file, offset) = (self.file, *written);
            state.log(Op::Change(Change::Write { file, offset, bytes: done.into() }));
            *written += done.len();
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.failed_syncs.contains(&self.file) {
            state.resyncs += 1;
        }
        if let Some(failure) = state.begin(Step::SyncFile) {
            state.failed_syncs.insert(self.file);
            state.log(Op::FailedSync(self.file));
            return Err(failure.error());
        }
        // After a failed flush this is a lie about what was written before: see `Op::FailedSync`.
        state.log(Op::SyncFile(self.file));
        Ok(())
    }
}
