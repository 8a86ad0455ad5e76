//! What was done to a disk, and what a power cut after each operation may leave of it.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;

use super::image::{Change, Image, NodeId};

/// An operation on a disk.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Change(Change),
    SyncFile(NodeId),
    /// Said to have failed: what was written since the last flush may be gone.
    FailedSync(NodeId),
    SyncFolder(NodeId),
}

/// How far a recording is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Events promised to survive.
    pub(crate) acknowledged: u64,
    /// Events recorded.
    pub(crate) recorded: u64,
    /// The mapped lanes.
    pub(crate) lanes: Option<Arc<Vec<u8>>>,
}

/// An operation, and how far the recording was when it began.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) op: Op,
    pub(super) before: Standing,
}

/// All operations since a disk was as `start`.
#[derive(Debug)]
pub(crate) struct History {
    pub(super) start: Image,
    pub(super) ops: Vec<Logged>,
    pub(super) end: Standing,
}

/// A moment between two operations.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// Operations before it.
    pub(crate) ops: usize,
    /// How far the recording is, just before the next one.
    pub(crate) standing: Standing,
    /// What survives for certain.
    durable: Image,
    /// What may survive.
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// Folders to be flushed for it.
    folders: Vec<NodeId>,
    /// A flush of its file failed, so a later one does not include it.
    is_dropped: bool,
}

impl History {
    /// The moment after each operation, and the one before the first.
    pub(crate) fn moments(&self) -> impl Iterator<Item = Moment> + '_ {
        let mut moment = Moment {
            ops: 0,
            standing: Standing::default(),
            durable: self.start.clone(),
            pending: Vec::new(),
        };
        (0..=self.ops.len()).map(move |ops| {
            if let Some(logged) = ops.checked_sub(1).map(|last| &self.ops[last]) {
                moment.step(&logged.op);
            }
            moment.ops = ops;
            moment.standing = self.ops.get(ops).map_or(&self.end, |next| &next.before).clone();
            moment.clone()
        })
    }

    /// How many operations there were.
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }
}

impl Moment {
    fn step(&mut self, op: &Op) {
        match op {
            Op::Change(change) => self.pending.push(Pending {
                folders: change.folders(),
                change: change.clone(),
                is_dropped: false,
            }),
            Op::SyncFile(file) => {
                self.settle(|pending| !pending.is_dropped && pending.change.file() == Some(*file));
            }
            Op::FailedSync(file) => {
                let of_file = |pending: &&mut Pending| pending.change.file() == Some(*file);
                self.pending.iter_mut().filter(of_file).for_each(|p| p.is_dropped = true);
            }
            Op::SyncFolder(folder) => {
                for pending in &mut self.pending {
                    pending.folders.retain(|needed| needed != folder);
                }
                self.settle(|p| p.change.file().is_none() && p.folders.is_empty());
            }
        }
    }

    /// What `is_durable` picks survives for certain.
    fn settle(&mut self, is_durable: impl Fn(&Pending) -> bool) {
        for pending in self.pending.extract_if(.., |pending| is_durable(pending)) {
            self.durable.apply(&pending.change);
        }
    }

    /// Nothing that was not flushed is kept.
    pub(crate) fn nothing_kept(&self) -> Image {
        self.durable.clone()
    }

    /// Everything is kept: the process died, the machine did not.
    pub(crate) fn everything_kept(&self) -> Image {
        self.kept(|_| true)
    }

    fn kept(&self, mut is_kept: impl FnMut(usize) -> bool) -> Image {
        let mut image = self.durable.clone();
        for (index, pending) in self.pending.iter().enumerate() {
            if is_kept(index) {
                image.apply(&pending.change);
            }
        }
        image
    }

    /// What a power cut may leave: nothing that was not flushed; everything; each prefix of it;
    /// `subsets` random subsets; and everything with the last write torn at each 512 bytes.
    pub(crate) fn images(&self, subsets: usize, rng: &mut StdRng) -> Vec<Image> {
        let mut images: Vec<Image> =
            (0..=self.pending.len()).map(|end| self.kept(|index| index < end)).collect();
        images.extend((0..subsets).map(|_| self.kept(|_| rng.random())));
        let last = self.pending.iter().rposition(|p| matches!(p.change, Change::Write { .. }));
        if let Some(last) = last
            && let Change::Write { file, offset, bytes } = &self.pending[last].change
        {
            let (file, offset) = (*file, *offset);
            for length in (SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
                let mut image = self.kept(|index| index < last);
                image.apply(&Change::Write { file, offset, bytes: bytes[..length].into() });
                self.pending[last + 1..].iter().for_each(|later| image.apply(&later.change));
                images.push(image);
            }
        }
        images
    }
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
