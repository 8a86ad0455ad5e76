//! The report: one self-contained HTML file that can be mailed to a colleague.
//!
//! [`render`] is pure. It takes what the analyses found and returns the whole page as text; it
//! measures nothing and reads no file, clock, or network.
//!
//! What the page promises (guarantee P2, `docs/guarantees.md`):
//!
//! * It is self-contained. There is no external resource and no style attribute; the content
//!   security policy refuses everything but the one style sheet and the one script in the page,
//!   which it knows by its digest. The script searches and zooms; without it the page says as much.
//! * No string of a trace can become markup. `maud` escapes every string; before that,
//!   `text.rs` takes away control and text-direction characters and cuts overlong strings.
//!   `PreEscaped` is used for the style sheet and the script alone, which are constants.
//! * Class names and ids come from this code, never from the data.
//! * It stays small: every list has a limit, the waterfalls share a budget of bytes, and
//!   whatever is left out is counted on the page.
//!
//! How drawings work without scripts: horizontal positions are percentages, or units of a nested
//! `svg` that stretches, so a chart follows the window while its text keeps its size. Details
//! are native tooltips (`title` elements); folding is `details`, and a link to a folded
//! waterfall opens it.

mod breakdown;
mod budgets;
mod compare;
mod details;
mod facts;
mod flames;
mod header;
mod latency;
pub mod live;
mod page;
mod palette;
mod plots;
mod retrieval;
mod scale;
mod sweep;
mod tables;
mod text;
mod tree;
mod trend;
mod units;
mod verdict;
mod waterfall;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use page::render;
