//! SQL over the run history, breakdowns, comparisons and reports
