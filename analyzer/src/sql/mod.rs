//! The SQL surface beyond the plain tables: views, functions, and what is not allowed.

pub(crate) mod functions;
mod reference;
pub(crate) mod sandbox;
mod views;

pub use functions::{FUNCTIONS, FunctionDoc};
pub use reference::sql_reference_markdown;
pub use views::{VIEWS, View};
