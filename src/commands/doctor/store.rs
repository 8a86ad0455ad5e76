//! The store's folder: is it there, whose is it, what is it on, is there room.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Finding;
use crate::context::Context;
use crate::failure::Code;
use crate::units::bytes;

pub(super) fn findings(context: &Context) -> Vec<Finding> {
    if context.store_url().is_some() {
        let advice = "`retake pull` fetches them into a store";
        let found = "a URL: it holds copies of runs, and is no store";
        return vec![Finding::bad("store", Code::Usage, found, advice)];
    }
    let root = context.store_root();
    let mut findings = vec![place(root, context.is_store_named()).at(root)];
    // What a new store would be made in.
    let existing = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    findings.extend(filesystem(existing).map(|finding| finding.at(existing)));
    findings.push(space(existing).at(existing));
    findings
}

fn place(root: &Path, is_named: bool) -> Finding {
    let found = match std::fs::metadata(root) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = "`retake demo` or `retake record -- PROGRAM` makes one";
            return match is_named {
                true => Finding::bad("store", Code::NotFound, "there is none", advice),
                false => Finding::note("store", "there is none yet", advice),
            };
        }
        Err(error) => {
            let found = format!("it cannot be looked at: {error}");
            return Finding::bad(
                "store",
                Code::Environment,
                found,
                "`ls -ld` on the folders above",
            );
        }
    };
    if !found.is_dir() {
        let advice = "name a folder: `--store DIR`, $RETAKE_STORE, or `store` in retake.toml";
        return Finding::bad("store", Code::Environment, "it is no folder", advice);
    }
    if !root.join("runs").is_dir() {
        let advice = "name the folder that has `runs` in it, or record something: it is made then";
        return Finding::bad("store", Code::NotFound, "it holds no `runs`", advice);
    }
    // Also what a file system that is mounted to be read only answers.
    if let Err(error) = access(root, Access::WRITE_OK | Access::EXEC_OK) {
        let advice =
            format!("`chown -R $USER {0}` or `chmod -R u+rwX {0}`; reading works", root.display());
        return Finding::bad("store", Code::Environment, format!("not writable: {error}"), advice);
    }
    if found.mode() & OTHERS != 0 {
        let advice = format!("`chmod 700 {}`: runs may hold prompts and answers", root.display());
        return Finding::note("store", "other users can look into it", advice);
    }
    Finding::good("store", "writable, and only yours")
}

fn space(root: &Path) -> Finding {
    let facts = match rustix::fs::statvfs(root) {
        Ok(facts) => facts,
        Err(error) => return Finding::note("free space", format!("unknown: {error}"), "`df`"),
    };
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let advice = "`retake gc --max-bytes 5GiB --dry-run` shows what could go";
    // Some file systems count no files, and say 0 of 0.
    if facts.f_files > 0 && facts.f_favail < FILES_MIN {
        let found = format!("room for {} more files only", facts.f_favail);
        return Finding::note("free space", found, advice);
    }
    match free < SPACE_MIN {
        true => Finding::note("free space", bytes(free), advice),
        false => Finding::good("free space", bytes(free)),
    }
}

/// What the folder is on, where that matters: locks, mapped files, and how long it lives.
#[cfg(target_os = "linux")]
fn filesystem(root: &Path) -> Option<Finding> {
    let facts = rustix::fs::statfs(root).ok()?;
    // A C `long`, of 32 bits on some machines: the numbers have 32.
    let magic = u32::try_from(facts.f_type & 0xffff_ffff).ok()?;
    let (_, name, kind) = FILE_SYSTEMS.iter().find(|(number, _, _)| *number == magic)?;
    Some(match kind {
        Kind::Local => Finding::good("file system", *name),
        Kind::Network => Finding::note(
            "file system",
            format!("{name}, of another machine: locks and mapped journals are not safe there"),
            "`--store` on a local disk, then `retake push RUN URL` to where others can read it",
        ),
        Kind::Memory => Finding::note(
            "file system",
            format!("{name}, in memory: runs are gone at the next start"),
            "`--store` on a disk, or `retake push --all URL` before",
        ),
        Kind::Container => Finding::note(
            "file system",
            format!("{name}: in a container, runs are gone with it"),
            "mount a volume for the store, or `retake push --all URL` before the end",
        ),
    })
}

#[cfg(not(target_os = "linux"))]
fn filesystem(_: &Path) -> Option<Finding> {
    None
}

#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy)]
enum Kind {
    Local,
    Network,
    Memory,
    Container,
}

/// Numbers of statfs(2).
#[cfg(target_os = "linux")]
const FILE_SYSTEMS: [(u32, &str, Kind); 13] = [
    (0xef53, "ext4", Kind::Local),
    (0x5846_5342, "xfs", Kind::Local),
    (0x9123_683e, "btrfs", Kind::Local),
    (0x2fc1_2fc1, "zfs", Kind::Local),
    (0xf2f5_2010, "f2fs", Kind::Local),
    (0x6969, "nfs", Kind::Network),
    (0x517b, "smb", Kind::Network),
    (0xff53_4d42, "cifs", Kind::Network),
    (0xfe53_4d42, "smb2", Kind::Network),
    (0x0102_1997, "9p", Kind::Network),
    (0x6573_5546, "fuse", Kind::Network),
    (0x0102_1994, "tmpfs", Kind::Memory),
    (0x794c_7630, "overlay", Kind::Container),
];

/// Less free space than this is worth a word.
const SPACE_MIN: u64 = 1 << 30;
/// A run is some ten files.
const FILES_MIN: u64 = 10_000;
/// Mode bits of the group and of everybody.
const OTHERS: u32 = 0o077;
