//! Disks that fail: once, or for a while.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use retake_schemas::RunId;
use retake_schemas::settings::SyncPolicy;

use super::check::{Rows, compare, read, recovered};
use super::in_thread;
use super::session::{Recorded, Session, settings};
use crate::Store;
use crate::disk::fault::{Failure, Fault, FaultDisk, Image, Moment};
use crate::recover::unnamed_files;

/// Scenario: there is no room for one disk operation, for each of the first 500 of a run.
/// Guarantees: J6, J2 - the program records on and no event is lost; what was acknowledged also
/// survives a power cut.
#[test]
fn one_operation_without_room_loses_nothing() {
    fail_at_each_operation(Failure::NoSpace);
}

/// Scenario: one disk operation fails with an input/output error, for each of the first 500.
/// Guarantees: J6, J2 - as above.
#[test]
fn one_input_output_error_loses_nothing() {
    fail_at_each_operation(Failure::Io);
}

/// Scenario: one write is done by half, for each of the first 500 operations.
/// Guarantees: J6, J2 - as above: nothing is appended to half a frame.
#[test]
fn one_write_done_by_half_loses_nothing() {
    fail_at_each_operation(Failure::ShortWrite);
}

/// Scenario: one flush of a file fails and drops what it was to flush; a second flush of the same
/// file would be called a success. For each of the first 500 operations.
/// Guarantees: J6, J2 - as above: no file is flushed again after a flush of it failed.
#[test]
fn one_failed_flush_loses_nothing() {
    fail_at_each_operation(Failure::Sync);
}

/// Scenario: the disk is full from some operation on, until more was recorded than lanes can
/// hold; then there is room again.
/// Guarantees: J6 - what is lost is counted exactly and stated in the run, and recording goes on
/// when there is room.
#[test]
fn a_full_disk_costs_exactly_what_is_stated() {
    let mut lost = 0;
    for from_op in (OPS_OF_START..OPERATIONS).step_by(9) {
        lost += in_thread(|| fill_and_free(from_op));
    }
    assert!(lost > 0, "the disk was never full for long enough");
}

/// Scenario: a seal failed, more than enough for another is recorded, and the writer thread wakes
/// again and again.
/// Guarantees: J6 - it waits before it tries again: on a full disk that would only cost the program
/// its processor.
#[test]
fn a_failed_seal_is_not_tried_again_at_once() {
    let disk = FaultDisk::new(Image::empty());
    in_thread(|| {
        let root = Path::new("/store");
        let mut session = Session::start(&disk, root, settings(SyncPolicy::Never)).unwrap();
        let from_op = disk.tried();
        disk.fail(Some(Fault { from_op, failure: Failure::NoSpace, times: usize::MAX }));
        let tick = |session: &mut Session| {
            session.note(10);
            session.writer.settings.seal_events = 1;
            session.tick();
        };
        (0..2).for_each(|_| tick(&mut session));
        let tried = disk.tried();
        assert!(tried > from_op);
        (0..10).for_each(|_| tick(&mut session));
        assert_eq!(disk.tried(), tried);
        session.pass_time();
        (0..2).for_each(|_| tick(&mut session));
        assert!(disk.tried() > tried);
        disk.fail(None);
        let recorded = session.recorded.len() as u64;
        assert_eq!(session.finish().accepted, recorded + 1);
    });
}

fn fail_at_each_operation(failure: Failure) {
    for from_op in 0..OPERATIONS {
        let cuts = in_thread(|| record_through(Fault { from_op, failure, times: 1 }));
        assert_eq!(cuts, 3, "nothing was acknowledged after operation {from_op}");
    }
}

/// Records a run through a failure, and checks it and what cuts leave of it. Gives how many cuts.
fn record_through(fault: Fault) -> usize {
    let what = format!("{fault:?}");
    let disk = FaultDisk::new(Image::empty());
    disk.fail(Some(fault));
    let root = Path::new("/store");
    // A run that cannot be made is an error that the program sees; it may try again.
    let mut session = Session::start(&disk, root, settings(SyncPolicy::Batch))
        .or_else(|_| Session::start(&disk, root, settings(SyncPolicy::Batch)))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    for step in 0..STEPS {
        session.note(10);
        match step % 50 {
            20 => session.open(),
            35 => session.close(),
            40 if step > 100 => drop(session.writer.flush()),
            45 => session.let_seal_be_due(),
            _ => {}
        }
        if step % 5 == 0 {
            session.pass_time();
        }
        session.tick();
    }
    assert!(disk.is_well(), "{what}: the run has too few operations");
    session.writer.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(session.acknowledged(), session.recorded.len() as u64, "{what}");
    let (run_id, recorded) = (session.run_id.clone(), session.recorded.clone());
    assert_eq!(session.dropped, 0, "{what}");
    let summary = session.finish();
    assert_eq!((summary.unsealed, summary.dropped), (None, 0), "{what}");
    assert_eq!(summary.accepted, recorded.len() as u64 + 1, "{what}");
    assert_eq!(disk.resyncs(), 0, "{what}: a file was flushed again after a failed flush");
    compare(&rows_of(&disk, root, &run_id), &recorded, recorded.len() as u64)
        .unwrap_or_else(|reason| panic!("{what}: {reason}"));
    if fault.failure != Failure::Io {
        assert_eq!(strangers(&disk, root, &run_id), [""; 0], "{what}: left behind");
    }
    cut_after_failure(&disk, root, (&run_id, &recorded), fault)
}

/// Cuts the power at the first moment after a failure at which more is acknowledged than before,
/// and at the last; and kills the process soon after the failure. Gives how many cuts there were.
fn cut_after_failure(
    disk: &FaultDisk,
    root: &Path,
    (run_id, recorded): (&RunId, &[Recorded]),
    fault: Fault,
) -> usize {
    let check = |image: Image, moment: &Moment| {
        let rows = recovered(&FaultDisk::new(image), root, run_id);
        let Some(rows) = rows else {
            assert_eq!(moment.standing.acknowledged, 0, "{fault:?}: no run at {}", moment.ops);
            return;
        };
        compare(&rows, recorded, moment.standing.acknowledged)
            .unwrap_or_else(|reason| panic!("{fault:?}, cut at {}: {reason}", moment.ops));
    };
    let (mut acknowledged, mut cuts, mut last) = (0, 0, None);
    for moment in disk.history().moments() {
        // The failed operation itself may not be in the history.
        if moment.standing.acknowledged > acknowledged && moment.ops + 1 >= fault.from_op {
            if last.is_none() {
                check(moment.nothing_kept(), &moment);
                cuts += 1;
            }
            last = Some(moment.clone());
        }
        acknowledged = moment.standing.acknowledged;
        // What a seal had done is taken back by then, if at all.
        if moment.ops == fault.from_op + 2 {
            check(moment.everything_kept(), &moment);
            cuts += 1;
        }
    }
    if let Some(last) = last {
        check(last.nothing_kept(), &last);
        cuts += 1;
    }
    cuts
}

/// Files of a run that its manifest does not name.
fn strangers(disk: &FaultDisk, root: &Path, run_id: &RunId) -> Vec<String> {
    let manifest = Store::on(Arc::new(disk.clone()), root).manifest(run_id).unwrap();
    let named: HashSet<&str> = manifest.segments.iter().map(|s| s.file.as_str()).collect();
    let files = unnamed_files(disk, &Session::folder(root, run_id), &named).unwrap();
    files.iter().map(|path| path.display().to_string()).collect()
}

/// Records on while the disk is full and after. Gives how many events were lost.
fn fill_and_free(from_op: usize) -> u64 {
    let disk = FaultDisk::new(Image::empty());
    let root = Path::new("/store");
    disk.fail(Some(Fault { from_op, failure: Failure::NoSpace, times: usize::MAX }));
    let mut session = Session::start(&disk, root, settings(SyncPolicy::Batch)).unwrap();
    let record = |session: &mut Session, steps: usize| {
        for step in 0..steps {
            session.note(3000);
            if step % 20 == 19 {
                session.let_seal_be_due();
                session.pass_time();
            }
            session.tick();
        }
    };
    record(&mut session, STEPS);
    disk.fail(None);
    session.writer.flush().unwrap();
    let (dropped, taken) = (session.dropped, session.recorded.len());
    record(&mut session, 50);
    assert_eq!(session.dropped, dropped, "there is room again");
    assert_eq!(session.recorded.len(), taken + 50);
    let (run_id, recorded) = (session.run_id.clone(), session.recorded.clone());
    let summary = session.finish();
    assert_eq!((summary.unsealed, summary.dropped), (None, dropped), "from {from_op}");
    assert_eq!(summary.offered, summary.accepted + dropped);
    let rows = rows_of(&disk, root, &run_id);
    compare(&rows, &recorded, 0).unwrap();
    assert_eq!(rows.notes.len(), recorded.len() - 1, "from {from_op}");
    assert_eq!((rows.stated_losses, rows.accounting.2), (dropped, dropped), "from {from_op}");
    dropped
}

fn rows_of(disk: &FaultDisk, root: &Path, run_id: &RunId) -> Rows {
    let manifest = Store::on(Arc::new(disk.clone()), root).manifest(run_id).unwrap();
    read(disk, &Session::folder(root, run_id), &manifest)
}

/// Operations that fail, one per run.
const OPERATIONS: usize = 500;
/// Steps of a run: enough for that many operations.
const STEPS: usize = 260;
/// Operations that make a run; without room for them there is none.
const OPS_OF_START: usize = 14;
