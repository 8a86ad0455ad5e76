//! Nothing but the tests beside it: see `tests/loom` and `tests/shuttle`.
