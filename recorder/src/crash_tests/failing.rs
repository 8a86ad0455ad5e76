//! Disks that fail: once, or for a while.

use std::path::Path;
use std::sync::Arc;

use retake_schemas::settings::SyncPolicy;

use super::check::{Rows, compare, read, recovered};
use super::in_thread;
use super::session::{Session, settings};
use crate::Store;
use crate::disk::fault::{Failure, Fault, FaultDisk, Image, Moment};

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

fn fail_at_each_operation(failure: Failure) {
    for from_op in 0..OPERATIONS {
        let moments = in_thread(|| record_through(Fault { from_op, failure, times: 1 }));
        assert!(moments == 2, "nothing was acknowledged after operation {from_op}");
    }
}

/// Records a run through a failure, and checks it. Gives how often the watermark advanced.
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
    let moments = acknowledging_moments(&disk, fault.from_op);
    for moment in &moments {
        let disk = FaultDisk::new(moment.nothing_kept());
        let rows = recovered(&disk, root, &run_id);
        let rows = rows.unwrap_or_else(|| panic!("{what}, cut at {}: no run", moment.ops));
        compare(&rows, &recorded, moment.standing.acknowledged)
            .unwrap_or_else(|reason| panic!("{what}, cut at {}: {reason}", moment.ops));
    }
    moments.len()
}

/// The first moment after an operation at which more is acknowledged than before, and the last.
fn acknowledging_moments(disk: &FaultDisk, from_op: usize) -> Vec<Moment> {
    let history = disk.history();
    let mut acknowledged = 0;
    let mut moments = Vec::new();
    let mut last = None;
    for moment in history.moments() {
        // The failed operation itself may not be in the history.
        if moment.standing.acknowledged > acknowledged && moment.ops + 1 >= from_op {
            if moments.is_empty() {
                moments.push(moment.clone());
            }
            last = Some(moment.clone());
        }
        acknowledged = moment.standing.acknowledged;
    }
    moments.extend(last);
    moments
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

fn rows_of(disk: &FaultDisk, root: &Path, run_id: &retake_schemas::RunId) -> Rows {
    let manifest = Store::on(Arc::new(disk.clone()), root).manifest(run_id).unwrap();
    read(disk, &Session::folder(root, run_id), &manifest)
}

/// Operations that fail, one per run.
const OPERATIONS: usize = 500;
/// Steps of a run: enough for that many operations.
const STEPS: usize = 260;
/// Operations that make a run; without room for them there is none.
const OPS_OF_START: usize = 14;
