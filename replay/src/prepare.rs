//! Preparing operations before they are due, on a thread of its own.
//!
//! Making a prompt of a thousand words and its JSON takes longer than an operation may be late. So
//! some operations ahead are always made ready while nothing is due.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::target::{Prepared, Target};
use crate::workload::Workload;

/// What will be prepared of one operation.
pub(crate) type Promise = oneshot::Receiver<Prepared>;

/// The thread that prepares. It ends with this.
pub(crate) struct Preparer {
    asked: SyncSender<(u32, oneshot::Sender<Prepared>)>,
    /// Operations whose time is known, in that order, not asked for yet.
    known: std::vec::IntoIter<u32>,
    promised: HashMap<u32, Promise>,
}

impl Preparer {
    /// Prepares the first of the operations whose order is `known`, and starts the thread.
    pub(crate) fn start(
        workload: Arc<Workload>,
        target: Arc<dyn Target>,
        known: Vec<u32>,
    ) -> std::io::Result<Self> {
        let mut known = known.into_iter();
        let first = known.by_ref().take(AHEAD);
        let promised = first
            .filter_map(|position| {
                let (made, promise) = oneshot::channel();
                let _ = made.send(target.prepare(workload.operations.get(position as usize)?));
                Some((position, promise))
            })
            .collect();
        let (asked, to_prepare) = sync_channel::<(u32, oneshot::Sender<Prepared>)>(ASKED_MAX);
        std::thread::Builder::new().name("retake-prepare".to_owned()).spawn(move || {
            while let Ok((position, promise)) = to_prepare.recv() {
                // Nobody waits for what has begun without it.
                if !promise.is_closed()
                    && let Some(operation) = workload.operations.get(position as usize)
                {
                    let _ = promise.send(target.prepare(operation));
                }
            }
        })?;
        Ok(Self { asked, known, promised })
    }

    /// What there is of an operation that begins; the next that is known takes its place.
    pub(crate) fn of(&mut self, position: u32) -> Option<Promise> {
        self.ask_for_next();
        self.promised.remove(&position)
    }

    /// Has one prepared. Where too many wait for it already it goes without.
    pub(crate) fn ask(&mut self, position: u32) {
        let (made, promise) = oneshot::channel();
        if self.asked.try_send((position, made)).is_ok() {
            self.promised.insert(position, promise);
        }
    }

    fn ask_for_next(&mut self) {
        if let Some(next) = self.known.next() {
            self.ask(next);
        }
    }
}

/// Operations that are ready before they are due: those of a busy second, and not so many that
/// prompts fill the memory.
const AHEAD: usize = 256;
/// Asked for and not yet begun on; later turns of sessions come beside those that are known.
const ASKED_MAX: usize = 4 * AHEAD;
