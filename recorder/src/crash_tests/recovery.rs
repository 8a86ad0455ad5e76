//! Recovery that is itself cut short.

use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use retake_schemas::RunId;
use retake_schemas::settings::SyncPolicy;

use super::check::{Rows, recovered};
use super::session::{LANES_FILE, Session, settings};
use super::{in_thread, place_in_use, seeded};
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, Image};

/// A run, and what power cuts left of it.
struct Remains {
    root: PathBuf,
    run_id: RunId,
    images: Vec<Image>,
}

/// Scenario: recovery runs to its end, and then again.
/// Guarantees: J3 - the second time nothing is changed, to the last byte.
#[test]
fn recovering_twice_is_recovering_once() {
    let (mut rng, _) = seeded(3);
    let remains = in_thread(|| remains(&mut rng));
    for image in &remains.images {
        let disk = FaultDisk::new(image.clone());
        let rows = recovered(&disk, &remains.root, &remains.run_id);
        let (digest, tried) = (disk.live().digest(), disk.tried());
        assert_eq!(recovered(&disk, &remains.root, &remains.run_id), rows);
        assert_eq!((disk.live().digest(), disk.tried()), (digest, tried));
    }
}

/// Scenario: the power is cut after every operation of a recovery, in the recovery of what that
/// left, and once more in the recovery of that.
/// Guarantees: J3, J4, J5 - the recovery that is let run to its end finds what the first would
/// have, and damaged lanes are moved aside however often that was interrupted.
#[test]
fn recovery_cut_short_three_times_ends_with_the_same_rows() {
    let (mut rng, _) = seeded(4);
    let remains = in_thread(|| remains(&mut rng));
    let (mut recoveries, mut damaged) = (0, 0);
    for image in &remains.images {
        let disk = FaultDisk::new(image.clone());
        let rows = recovered(&disk, &remains.root, &remains.run_id);
        let end = End { rows, has_moved_lanes: has_moved_lanes(&disk, &remains) };
        for moment in disk.history().moments() {
            let left = moment.images(1, &mut rng);
            let picked = left.choose(&mut rng).cloned();
            for image in [moment.nothing_kept(), moment.everything_kept()].into_iter().chain(picked)
            {
                let here = check_nested(&remains, image, &end, &mut rng);
                recoveries += here;
                damaged += if end.has_moved_lanes { here } else { 0 };
            }
        }
    }
    println!("{recoveries} recoveries of recoveries cut short, {damaged} with damaged lanes");
    assert!(recoveries > 1000 && damaged > 100);
}

/// What a recovery comes to.
struct End {
    rows: Option<Rows>,
    has_moved_lanes: bool,
}

fn has_moved_lanes(disk: &FaultDisk, remains: &Remains) -> bool {
    let aside = Session::folder(&remains.root, &remains.run_id).join("quarantine");
    disk.kind(&aside.join(LANES_FILE)).is_some()
}

/// Recovers what a cut left, to its end; and what another cut of that recovery, and one of the
/// next, would leave. Gives how many recoveries were compared.
fn check_nested(remains: &Remains, image: Image, end: &End, rng: &mut StdRng) -> usize {
    let mut image = image;
    for depth in 1..=3 {
        let disk = FaultDisk::new(image);
        let found = recovered(&disk, &remains.root, &remains.run_id);
        assert_eq!(found, end.rows, "cut short {depth} times");
        assert!(has_moved_lanes(&disk, remains) >= end.has_moved_lanes, "cut {depth} times");
        let moments: Vec<_> = disk.history().moments().collect();
        let Some(moment) = moments.choose(rng) else { return depth };
        let left = moment.images(1, rng);
        image = left[rng.random_range(0..left.len())].clone();
    }
    3
}

fn remains(rng: &mut StdRng) -> Remains {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let disk = FaultDisk::new(Image::empty()).with_shadow();
    let mut session = Session::start(&disk, &root, settings(SyncPolicy::Batch)).unwrap();
    for step in 0..40 {
        session.note(10);
        match step % 4 {
            0 => session.open(),
            1 if step % 8 == 1 => session.close(),
            _ => session.quick(),
        }
        if step % 13 == 12 {
            session.let_seal_be_due();
        }
        session.tick();
    }
    let run_id = session.run_id.clone();
    let journal = Session::folder(&root, &run_id).join("journal");
    let mut images = Vec::new();
    for moment in disk.history().moments().filter(|moment| moment.ops % 9 == 8) {
        images.push(moment.images(1, rng).pop().unwrap());
        let Some(lanes) = moment.standing.lanes.as_deref() else { continue };
        let mut torn = lanes.clone();
        let at = place_in_use(lanes, rng);
        torn[at..].fill(rng.random());
        let put =
            |image: Image, lanes: &[u8]| image.with_file(Path::new(&journal), LANES_FILE, lanes);
        images.extend(put(moment.everything_kept(), lanes));
        images.extend(put(moment.nothing_kept(), &torn));
    }
    Remains { root, run_id, images }
}
