//! The journal: append-only frames of events that are not sealed yet.
//!
//! One file holds a header and then frames, 8-byte aligned, in a file that is allocated in full
//! before the first frame. `docs/format.md` draws it byte by byte.
//!
//! A frame's length is stored last, so a process that dies in the middle of a frame leaves a zero
//! length there, which is the end of the journal. A bad checksum therefore never comes from a
//! killed process, only from a power cut or a failing disk; it is damage, counted and reported.

mod frame;
mod lane;
mod map;
mod read;

pub use frame::{Frame, FrameError, JournalHeader};
pub use lane::{Lane, LaneLimits, LaneState, Offered};
pub use read::{JournalContents, TailEnd, journal_files, read_journal};

pub(crate) use frame::write_frame;
pub(crate) use read::read_range;
