//! What people and machines get to see.

mod machine;
mod result_file;
mod tables;

pub(crate) use machine::{Machine, describe, warning};
pub(crate) use result_file::write;
pub(crate) use tables::print;
