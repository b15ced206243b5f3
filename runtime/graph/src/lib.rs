//! Execution graphs: plans, validation and the engine; pure, no I/O.
