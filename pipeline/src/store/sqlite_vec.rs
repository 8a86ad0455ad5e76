//! Registers sqlite-vec with SQLite, once per process.
//!
//! sqlx has no interface for a statically linked extension, so this is the one place of the crate
//! that calls C itself.

#![expect(unsafe_code, reason = "sqlx cannot register a statically linked SQLite extension")]

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use libsqlite3_sys::{SQLITE_OK, sqlite3, sqlite3_api_routines, sqlite3_auto_extension};

/// Makes `vec_distance_cosine` known to every connection opened from now on; `false` when SQLite
/// refused.
pub(super) fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        // SAFETY: `sqlite3_vec_init` is compiled from C with exactly the signature of `EntryPoint`
        // (sqlite-vec.h); the crate declares it without parameters only for brevity. Function
        // pointers have one size and calling convention here. `sqlite3_auto_extension` takes its
        // own mutex, keeps only the pointer, and the function lives as long as the program.
        let code = unsafe {
            let entry = std::mem::transmute::<*const (), EntryPoint>(
                sqlite_vec::sqlite3_vec_init as *const (),
            );
            sqlite3_auto_extension(Some(entry))
        };
        code == SQLITE_OK
    })
}

/// What SQLite calls when a connection is opened.
type EntryPoint = unsafe extern "C" fn(
    db: *mut sqlite3,
    error_message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> c_int;
