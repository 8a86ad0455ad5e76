//! A check as other programs want it: Markdown for people on a pull request, JUnit for test
//! reports, SARIF and workflow commands for the lines of source.

mod annotations;
mod junit;
mod markdown;
mod sarif;
mod words;

pub use annotations::annotations;
pub use junit::junit;
pub use markdown::{cell as markdown_cell, markdown};
pub use sarif::sarif;
pub use words::shown;

#[cfg(test)]
pub(super) mod sample;
#[cfg(test)]
mod tests;
