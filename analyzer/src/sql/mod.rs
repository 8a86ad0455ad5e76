//! The SQL surface beyond the plain tables: views, functions, and what is not allowed.

mod catalog;
pub(crate) mod functions;
mod reference;
pub(crate) mod sandbox;
mod views;
pub(crate) mod yielding;

pub use catalog::{Callable, Relation, RelationColumn};
pub use functions::{FUNCTIONS, FunctionDoc};
pub use reference::sql_reference_markdown;
pub use views::{VIEWS, View};
