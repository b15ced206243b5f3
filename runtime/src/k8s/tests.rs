//! Rendering, mode by mode.
