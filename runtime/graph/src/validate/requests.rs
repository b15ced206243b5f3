//! Rules for requests, whether a plan has them or a builder made them.

use bytes::Bytes;

use super::{ValidPlan, numbered, part};
use crate::limits::Limits;
use crate::plan::{BodySource, BuiltRequests, EgressRequest, Input, Plan, Span, Work};
use crate::problem::{PlanError, RequestRule};

/// Checks the requests of all steps of a plan whose inputs have been checked, and counts them.
pub(super) fn check_planned(plan: &Plan, limits: &Limits) -> Result<u32, PlanError> {
    let mut total = 0;
    for (index, node) in numbered(&plan.nodes) {
        let Work::Requests(span) = node.work else { continue };
        let range = part(plan, index, "requests", span, "the graph's requests", plan.requests.len())?;
        total = add(total, range.len(), limits)?;
        let inputs = &plan.inputs[node.inputs.range()];
        check_step(plan, index, inputs, &plan.requests[range], &plan.arena, limits)?;
    }
    Ok(total)
}

/// Checks what the builder of step `step` made while `total` requests were known; returns the new total.
///
/// # Errors
/// As for a plan's own requests.
pub(crate) fn check_built(
    valid: &ValidPlan,
    total: u32,
    step: u32,
    built: &BuiltRequests,
) -> Result<u32, PlanError> {
    let ValidPlan { plan, limits, .. } = valid;
    super::at_most("bytes in the arena", built.arena.len(), limits.arena_bytes_max)?;
    let total = add(total, built.requests.len(), limits)?;
    let inputs = &plan.inputs[plan.nodes[step as usize].inputs.range()];
    check_step(plan, step, inputs, &built.requests, &built.arena, limits)?;
    Ok(total)
}

fn add(total: u32, more: usize, limits: &Limits) -> Result<u32, PlanError> {
    let max = limits.requests_max;
    let sum = u64::from(total).saturating_add(more as u64);
    u32::try_from(sum).ok().filter(|&sum| sum <= max).ok_or(PlanError::TooMany {
        what: "requests",
        found: sum,
        max,
    })
}

fn check_step(
    plan: &Plan,
    step: u32,
    inputs: &[Input],
    requests: &[EgressRequest],
    arena: &Bytes,
    limits: &Limits,
) -> Result<(), PlanError> {
    if requests.len() > limits.requests_per_step_max as usize {
        let (found, max) = (requests.len() as u64, limits.requests_per_step_max);
        return Err(PlanError::StepRequests { step: plan.step_name(step), found, max });
    }
    for (index, request) in (0..).zip(requests) {
        check_request(request, inputs, arena.len(), limits).map_err(|rule| PlanError::Request {
            step: plan.step_name(step),
            index,
            rule,
        })?;
    }
    Ok(())
}

fn check_request(
    request: &EgressRequest,
    inputs: &[Input],
    arena_len: usize,
    limits: &Limits,
) -> Result<(), RequestRule> {
    check_text("method", request.method, limits.method_bytes_max, arena_len)?;
    check_text("url", request.url, limits.url_bytes_max, arena_len)?;
    check_span("headers", request.headers, arena_len)?;
    match request.body {
        BodySource::Bytes(span) => check_span("body", span, arena_len),
        BodySource::OfRequest => Ok(()),
        BodySource::OfInput(input) => check_body_input(input, inputs),
    }
}

fn check_text(field: &'static str, span: Span, max: u16, arena_len: usize) -> Result<(), RequestRule> {
    check_span(field, span, arena_len)?;
    if span.len == 0 || span.len > u32::from(max) {
        return Err(RequestRule::Length { field, found: span.len, max });
    }
    Ok(())
}

fn check_span(field: &'static str, span: Span, arena_len: usize) -> Result<(), RequestRule> {
    match span.range_in(arena_len) {
        Some(_) => Ok(()),
        None => Err(RequestRule::SpanOutside { field, span, len: arena_len }),
    }
}

fn check_body_input(input: u32, inputs: &[Input]) -> Result<(), RequestRule> {
    match inputs.get(input as usize) {
        None => Err(RequestRule::InputMissing { input, inputs: super::count_u32(inputs.len()) }),
        Some(Input { with_body: false, .. }) => Err(RequestRule::InputWithoutBody { input }),
        Some(Input { with_body: true, .. }) => Ok(()),
    }
}
