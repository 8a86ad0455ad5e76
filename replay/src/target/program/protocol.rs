//! What a replay and a program say to each other: one JSON object a line.
//!
//! ```text
//! > {"type":"start","protocol":1,"settings":{"top_k":4}}
//! < {"type":"ready","name":"my app","settings":{"top_k":4,"chunk_size":256}}
//! > {"type":"operation","id":0,"kind":"query","input":"Why?","due_unix_ns":1790000000000000000,
//!    "traceparent":"00-0102…-0102…-01"}
//! < {"type":"token","id":0,"count":1}
//! < {"type":"result","id":0,"output":"Because.","input_tokens":5,"output_tokens":2}
//! > {"type":"cancel","id":3}
//! ```
//!
//! Several operations are under way at once, and results come in any order. The end of its input tells
//! the program that there is nothing more to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// To the program.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    /// First of all: which settings to use.
    Start { protocol: u32, settings: &'a BTreeMap<String, Json> },
    /// Do this now.
    Operation {
        id: u64,
        kind: &'a str,
        input: &'a Json,
        due_unix_ns: i64,
        /// Names the operation's span, so that what the program records becomes a part of it.
        traceparent: &'a str,
    },
    /// The user gave the operation up. Its result is of no interest any more.
    Cancel { id: u64 },
}

/// From the program.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// Answers [`Request::Start`]: operations may come.
    Ready {
        #[serde(default)]
        name: Option<String>,
        /// The settings in force, which must hold those that were asked for.
        #[serde(default)]
        settings: BTreeMap<String, Json>,
    },
    /// Answers [`Request::Start`]: it cannot run like this.
    Refused { message: String },
    /// Output tokens of an operation, now.
    Token {
        id: u64,
        #[serde(default = "one")]
        count: u32,
    },
    /// The end of an operation.
    Result(Box<Outcome>),
}

/// How an operation ended.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Outcome {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) output: Option<Json>,
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) input_tokens: Option<i64>,
    #[serde(default)]
    pub(super) output_tokens: Option<i64>,
    /// Set when it failed.
    #[serde(default)]
    pub(super) error: Option<Failed>,
    /// Set when the program does not know how to do it, and why.
    #[serde(default)]
    pub(super) refused: Option<String>,
}

/// Why an operation failed.
#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) message: String,
}

const fn one() -> u32 {
    1
}

/// Which version of this a program is told to speak.
pub(super) const PROTOCOL: u32 = 1;
