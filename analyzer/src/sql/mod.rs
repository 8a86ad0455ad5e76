//! The SQL surface beyond the plain tables: views, functions, and what is not allowed.

pub(crate) mod aggregates;
mod catalog;
pub(crate) mod functions;
#[cfg(test)]
mod logic_tests;
pub(crate) mod prices;
mod reference;
pub(crate) mod sandbox;
pub(crate) mod sketch_functions;
pub(crate) mod table_functions;
mod views;
pub(crate) mod yielding;

pub use aggregates::AGGREGATES;
pub use catalog::{Callable, Relation, RelationColumn};
pub use functions::{FUNCTIONS, FunctionDoc};
pub use prices::PRICE_FUNCTION;
pub use reference::sql_reference_markdown;
pub use sketch_functions::SKETCH_FUNCTIONS;
pub use table_functions::table_functions;
pub use views::{VIEWS, View};
