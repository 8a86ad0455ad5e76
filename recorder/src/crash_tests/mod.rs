//! Power cuts, deaths, and failing disks, on a disk that is a model: see [`crate::disk::fault`].
//!
//! A [`Session`](session::Session) records without threads of its own, so the n-th disk operation
//! is the same in each run of a test, and a failure names the operation it came from. Everything
//! random comes from a seed that is printed; `SEED=<n>` runs it again.

mod check;
mod failing;
mod power;
mod recovery;
mod seals;
mod session;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A generator, and its seed: from the environment, else `default`.
fn seeded(default: u64) -> (StdRng, u64) {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("SEED={seed}");
    (StdRng::seed_from_u64(seed), seed)
}

/// Works in a thread that ends, so that what a recording thread keeps ends with it.
fn in_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A place in lanes that somebody wrote to; most of them is never used.
fn place_in_use(lanes: &[u8], rng: &mut StdRng) -> usize {
    std::iter::repeat_with(|| rng.random_range(0..lanes.len())).find(|at| lanes[*at] != 0).unwrap()
}
