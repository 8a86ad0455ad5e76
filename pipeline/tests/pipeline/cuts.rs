//! PostgreSQL behind a network that breaks.
//!
//! A proxy on loopback stands between the store and a real server and cuts connections: after a
//! number of bytes that a seed draws, in either direction, so in the middle of messages, of a COPY,
//! between a commit and its answer. `SEED=n` repeats a run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use retake_pipeline::store::postgres::{PostgresStore, SearchMode};
use retake_pipeline::store::{EmbeddedDocument, StoreStats, VectorStore as _, Wanted};
use retake_schemas::settings::VectorSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fixtures::{Backend, Random, document, spec};

/// A proxy that cuts.
struct Cutter {
    address: SocketAddr,
    /// Connections it still has to cut.
    left: Arc<AtomicUsize>,
    cuts: Arc<AtomicU64>,
}

impl Cutter {
    async fn start(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(0));
        let cuts = Arc::new(AtomicU64::new(0));
        let (is_left, counted) = (Arc::clone(&left), Arc::clone(&cuts));
        tokio::spawn(async move {
            let mut random = Random(seed);
            while let Ok((client, _)) = listener.accept().await {
                // Short ones end while the connection is made, long ones in the middle of a load.
                let bytes = 10_f32.powf(1.5 + 4.0 * random.next()) as u64;
                let from_server = random.next() < 0.5;
                let is_reset = random.next() < 0.5;
                let (left, cuts) = (Arc::clone(&is_left), Arc::clone(&counted));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    pass(client, server, Cut { bytes, from_server, is_reset }, &left, &cuts).await;
                });
            }
        });
        Self { address, left, cuts }
    }
}

#[derive(Clone, Copy)]
struct Cut {
    bytes: u64,
    from_server: bool,
    is_reset: bool,
}

/// Passes bytes both ways; cuts when so many have gone the one way, while cuts are left.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    cut: Cut,
    left: &AtomicUsize,
    cuts: &AtomicU64,
) {
    if cut.is_reset {
        // What is under way is thrown away, and the other side gets a reset.
        let _ = client.set_zero_linger();
    }
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let mut bytes = cut.bytes;
    let (mut up, mut down) = ([0_u8; 4096], [0_u8; 4096]);
    loop {
        let (is_down, read) = tokio::select! {
            read = client_in.read(&mut up) => (false, read),
            read = server_in.read(&mut down) => (true, read),
        };
        let Ok(count @ 1..) = read else { return };
        let part = if is_down { &down[..count] } else { &up[..count] };
        let counts = is_down == cut.from_server;
        let is_cut = counts && bytes < count as u64 && take_one(left);
        // The part before the cut still arrives.
        let part = if is_cut { &part[..bytes as usize] } else { part };
        let written = if is_down {
            client_out.write_all(part).await
        } else {
            server_out.write_all(part).await
        };
        if is_cut {
            cuts.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if written.is_err() {
            return;
        }
        if counts {
            bytes = bytes.saturating_sub(count as u64);
        }
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

const DOCUMENTS: usize = 4;
const CHUNKS: usize = 40;
const DIM: usize = 64;
const CUTS: usize = 100;

/// A batch that says of every chunk which batch it is of.
fn batch(worker: usize, number: usize, random: &mut Random) -> Vec<EmbeddedDocument> {
    let text = format!("worker {worker} batch {number} '; DROP TABLE retake.documents; --");
    (0..DOCUMENTS)
        .map(|n| {
            let vectors: Vec<Vec<f32>> =
                (0..CHUNKS).map(|_| (0..DIM).map(|_| random.next() - 0.5).collect()).collect();
            let chunks: Vec<(&str, &[f32])> =
                vectors.iter().map(|vector| (text.as_str(), vector.as_slice())).collect();
            document(&format!("w{worker}-d{n}"), &chunks)
        })
        .collect()
}

/// The texts of all chunks of a worker's documents; one text, if no batch is there by half.
async fn texts(store: &PostgresStore, worker: usize) -> Vec<String> {
    let ids: Vec<String> = (0..DOCUMENTS)
        .flat_map(|n| (0..CHUNKS).map(move |c| format!("w{worker}-d{n}#{c}")))
        .collect();
    let chunks = store.chunks(&ids).await.unwrap();
    assert!(
        chunks.is_empty() || chunks.len() == DOCUMENTS * CHUNKS,
        "worker {worker}: {} of {} chunks",
        chunks.len(),
        DOCUMENTS * CHUNKS
    );
    let mut texts: Vec<String> = chunks.into_values().map(|chunk| chunk.text).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Scenario: 100 connections are cut at random bytes while batches are committed, searched, and
/// deleted; the store is opened through the same network.
/// Guarantees: V1 - each failure is a typed error in bounded time, no batch is there by half, and
/// one whose commit was acknowledged is there; V2 - hostile texts come back byte for byte; V3 - when
/// the network holds, an index search finds what the exact scan finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cut_connections_leave_no_half_batch() {
    let Some(backend) = Backend::postgres("cuts") else { return };
    let backend = backend.in_database("cuts").await;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    let url = backend.settings.url.clone().unwrap();
    let port: u16 = url.split(':').nth(2).unwrap().split('/').next().unwrap().parse().unwrap();
    let proxy = Cutter::start(SocketAddr::from(([127, 0, 0, 1], port)), seed).await;
    let through = VectorSettings {
        url: Some(url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address.port()))),
        pool_size: 3,
        ..backend.settings.clone()
    };
    let direct = PostgresStore::connect(&url, &backend.settings).await.unwrap();
    direct.open_collection(&spec("cuts", DIM)).await.unwrap();
    proxy.left.store(CUTS, Ordering::Relaxed);
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let (left, through) = (Arc::clone(&proxy.left), through.clone());
        workers.spawn(async move { work(worker, seed, &left, &through).await });
    }
    let work = async {
        let (mut done, mut failed, mut last) = (0, 0, vec![None; 3]);
        while let Some(worker) = workers.join_next().await {
            let worker = worker.unwrap();
            done += worker.done;
            failed += worker.failed;
            last[worker.number] = worker.acknowledged;
        }
        (done, failed, last)
    };
    let limit = std::time::Duration::from_secs(300);
    let (done, failed, last) = tokio::time::timeout(limit, work).await.expect("bounded time");
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    eprintln!("cuts: seed {seed}, {cuts} connections cut, {done} calls done, {failed} failed");
    assert_eq!(cuts, CUTS as u64);
    assert!(failed > 0 && done > 0);
    for (worker, last) in last.into_iter().enumerate() {
        let held = texts(&direct, worker).await;
        assert!(held.len() <= 1, "worker {worker}: {held:?}");
        // An acknowledged commit is there, unless a later one, whose answer was lost, went through.
        if let Some(number) = last {
            let found = held.first().and_then(|text| {
                text.split_whitespace().nth(3).and_then(|number| number.parse::<usize>().ok())
            });
            assert!(found >= Some(number), "worker {worker}: {found:?}, acknowledged {number}");
        }
    }
    let StoreStats { documents, chunks } = direct.stats().await.unwrap();
    assert_eq!(chunks, documents * CHUNKS as u64);
    check_searches(&direct).await;
}

struct Worked {
    number: usize,
    done: u64,
    failed: u64,
    /// The last batch whose commit was acknowledged, nothing having been deleted since.
    acknowledged: Option<usize>,
}

/// Commits, searches and deletes until all cuts are made, then until one commit goes through.
async fn work(number: usize, seed: u64, left: &AtomicUsize, settings: &VectorSettings) -> Worked {
    let mut random = Random(seed ^ (number as u64 + 1));
    let mut worked = Worked { number, done: 0, failed: 0, acknowledged: None };
    let mut store: Option<PostgresStore> = None;
    for round in 0.. {
        let is_over = left.load(Ordering::Relaxed) == 0;
        let Some(open) = &store else {
            // Opening, too, goes through the network that breaks.
            match connect(settings).await {
                Ok(opened) => store = Some(opened),
                Err(error) => {
                    assert_eq!(error.error_type(), "store", "{error}");
                    worked.failed += 1;
                }
            }
            continue;
        };
        let result = match if is_over { 0 } else { round % 7 } {
            3 => {
                let vector: Vec<f32> = (0..DIM).map(|_| random.next()).collect();
                open.search(&vector, 5).await.map(drop)
            }
            5 if number == 2 => {
                worked.acknowledged = None;
                let ids: Vec<String> = (0..DOCUMENTS).map(|n| format!("w{number}-d{n}")).collect();
                open.delete_documents(&ids).await
            }
            6 => {
                store = None;
                continue;
            }
            _ => {
                let batch = batch(number, round, &mut random);
                let committed = open.commit(&batch).await;
                if committed.is_ok() {
                    worked.acknowledged = Some(round);
                }
                committed
            }
        };
        match result {
            Ok(()) => {
                worked.done += 1;
                if is_over && worked.acknowledged == Some(round) {
                    return worked;
                }
            }
            Err(error) => {
                assert_eq!(error.error_type(), "store", "{error}");
                worked.failed += 1;
            }
        }
    }
    worked
}

async fn connect(
    settings: &VectorSettings,
) -> Result<PostgresStore, retake_pipeline::error::PipelineError> {
    let store = PostgresStore::connect(settings.url.as_deref().unwrap(), settings).await?;
    store.open_existing(&spec("cuts", DIM)).await?;
    Ok(store)
}

/// The index, built after all that, finds what the exact scan finds.
async fn check_searches(store: &PostgresStore) {
    let mut random = Random(5);
    let mut vectors = Vec::new();
    for worker in 10..20 {
        let batch = batch(worker, 0, &mut random);
        store.commit(&batch).await.unwrap();
        let chunks = batch.into_iter().flat_map(|document| document.chunks);
        vectors.extend(chunks.map(|(_, vector)| vector));
    }
    store.finish_load().await.unwrap();
    assert_eq!(store.search_mode(), SearchMode::Indexed);
    let (mut found, mut wanted) = (0, 0);
    // Near what is there, as questions are; among random vectors nothing is near, and the tenth and
    // the hundredth differ in the third digit.
    for near in vectors.iter().step_by(vectors.len() / 50) {
        let query: Vec<f32> = near.iter().map(|v| v + 0.2 * (random.next() - 0.5)).collect();
        let exact = store.search_by(SearchMode::Exact, &query, Wanted::of_all(10)).await.unwrap();
        let indexed =
            store.search_by(SearchMode::Indexed, &query, Wanted::of_all(10)).await.unwrap();
        let is_exact = |id: &str| exact.iter().any(|hit| hit.chunk.id == id);
        found += indexed.iter().filter(|hit| is_exact(&hit.chunk.id)).count();
        wanted += exact.len();
    }
    let recall = found as f64 / wanted as f64;
    eprintln!("cuts: recall@10 {recall:.3} of {wanted}");
    assert!(recall >= 0.95, "{recall}");
}
