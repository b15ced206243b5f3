//! Limits: how large a graph may be.

/// Bounds on a graph. One that exceeds any of them is refused before anything runs.
///
/// Lengths of methods and URLs are 16 bits wide because they are in a message head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps of a graph, with its `order`s and `pipe`s; also entries of `children`. Default 4,096: a fan-out over every service
    /// of a large application, in under a megabyte of engine state.
    pub nodes_max: u32,
    /// Levels, the root being the first. Default 64: nobody nests by hand that deep, and a level costs each input a look.
    pub depth_max: u32,
    /// Requests of a graph, those that builders make included. Default 4,096: one for each step.
    pub requests_max: u32,
    /// Requests of one step. Default 1,024: they go one after the other, so that more would outlive any deadline.
    pub requests_per_step_max: u32,
    /// Inputs of all steps together. Default 4,096: one for each step, or one step that joins all others.
    pub inputs_max: u32,
    /// Bytes of a step's id. Default 128: ids are repeated in logs and error bodies.
    pub id_bytes_max: u16,
    /// Bytes of a request's method. Default 64: the longest registered one has 17.
    pub method_bytes_max: u16,
    /// Bytes of a request's URL. Default 8,192: what servers commonly take.
    pub url_bytes_max: u16,
    /// Bytes of an arena. Default 32 MiB: a body of the largest default message, 16 MiB, and as much again.
    pub arena_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes_max: 4096,
            depth_max: 64,
            requests_max: 4096,
            requests_per_step_max: 1024,
            inputs_max: 4096,
            id_bytes_max: 128,
            method_bytes_max: 64,
            url_bytes_max: 8192,
            arena_bytes_max: 32 << 20,
        }
    }
}
