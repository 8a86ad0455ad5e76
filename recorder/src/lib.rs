//! Records tracing spans and events into crash-safe journals and Parquet
