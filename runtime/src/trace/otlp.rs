//! Requests as OTLP has them: one span for each, one for its graph, and one for each of its parts. Steps are below the graph,
//! and that and the handler below the request; that is below what the network side had of it.
//!
//! Source: opentelemetry-proto 1.x, `ExportTraceServiceRequest` in its JSON encoding (ids in hexadecimal, 64-bit integers as
//! text, enumerations as numbers); names of attributes: the semantic conventions of OpenTelemetry for HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use cellmesh_dpu::trace_context::Ids;
use serde_json::{Value, json};

use super::export::Outgoing;
use super::noted::SpanKind;
use super::record::{GraphRecord, IngressRecord, RequestRecord, SpanRecord, TimeSpent, Why};
use super::resource::{Resource, SERVICE, SERVICE_NAME};

/// `SpanKind` of OTLP.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `StatusCode` of OTLP.
const ERROR: u8 = 2;

/// Where time went, of guest calls and of what is made of them.
const QUEUE: &str = "cellmesh.queue_seconds";
const RUN: &str = "cellmesh.run_seconds";

/// What the network side is called, among services.
const INGRESS: &str = "cellmesh-dpu";

/// The message that tells a collector of these.
///
/// - `common`: what all of them are said to be of.
pub(super) fn message(batch: &[Outgoing], common: &Resource) -> String {
    let mut by_service: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for outgoing in batch {
        match outgoing {
            Outgoing::Request(record) => {
                let spans = by_service.entry(&record.service).or_default();
                spans.push(of_request(record));
                spans.extend(record.graph.map(|graph| of_graph(record, graph)));
                spans.extend(record.spans.iter().map(|span| of_part(record, span)));
            }
            Outgoing::Ingress(record) => by_service.entry(INGRESS).or_default().push(of_ingress(record)),
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let resources = by_service.into_iter().map(|(service, spans)| {
        json!({
            "resource": { "attributes": of_resource(service, common) },
            "scopeSpans": [{ "scope": { "name": "cellmesh", "version": version }, "spans": spans }],
        })
    });
    json!({ "resourceSpans": resources.collect::<Vec<_>>() }).to_string()
}

/// Spans have the name of their service, unless the environment has one for all; then that is beside it, whatever the
/// environment says of it: a name is there once.
fn of_resource(service: &str, common: &Resource) -> Vec<Value> {
    let own = if common.get(SERVICE_NAME).is_some() { SERVICE } else { SERVICE_NAME };
    let common = common.attributes.iter().filter(|(name, _)| name != own);
    let common = common.map(|(name, value)| (name.as_str(), text(value)));
    attributes(std::iter::once((own, text(service))).chain(common))
}

/// What is told of a request wherever it was served.
struct Served<'r> {
    ids: Ids,
    parent: Option<u64>,
    service: &'r str,
    method: &'r str,
    target: &'r str,
    request_id: Option<&'r str>,
    status: Option<u16>,
    error: Option<&'r str>,
    started: Duration,
    took: Duration,
    why: Why,
}

fn of_request(record: &RequestRecord) -> Value {
    let served = Served {
        ids: record.ids,
        parent: record.parent,
        service: &record.service,
        method: &record.method,
        target: &record.target,
        request_id: record.request_id.as_deref(),
        status: record.status,
        error: record.error.as_deref(),
        started: record.started,
        took: record.took,
        why: record.why,
    };
    let left_out = record.spans_left_out;
    let left_out = (left_out > 0).then(|| ("cellmesh.spans_left_out", integer(left_out.into())));
    served.span(spent(record.spent).into_iter().chain(left_out))
}

fn of_ingress(record: &IngressRecord) -> Value {
    let served = Served {
        ids: record.ids,
        parent: record.parent,
        service: &record.service,
        method: &record.method,
        target: &record.target,
        request_id: record.request_id.as_deref(),
        status: record.status,
        error: None,
        started: record.started,
        took: record.took,
        why: record.why,
    };
    served.span([(SERVICE, text(&record.service))])
}

fn spent(TimeSpent { queue, run, egress }: TimeSpent) -> [(&'static str, Value); 3] {
    [(QUEUE, seconds(queue)), (RUN, seconds(run)), ("cellmesh.egress_seconds", seconds(egress))]
}

impl Served<'_> {
    /// `more`: what only one of them has.
    fn span(&self, more: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        let path = self.target.split('?').next().unwrap_or_default();
        let mut known = vec![
            ("http.request.method", text(self.method)),
            ("url.path", text(path)),
            (
                "cellmesh.kept_because",
                text(match self.why {
                    Why::Sampled => "sampled",
                    Why::Error => "error",
                    Why::Slow => "slow",
                }),
            ),
        ];
        known.extend(self.status.map(|status| ("http.response.status_code", integer(status.into()))));
        known.extend(self.request_id.map(|id| ("cellmesh.request_id", text(id))));
        known.extend(more);
        let mut span = json!({
            "traceId": trace_id(self.ids),
            "spanId": span_id(self.ids.span_id),
            "name": format!("{} {}", self.method, self.service),
            "kind": SERVER,
            "startTimeUnixNano": nanos(self.started),
            "endTimeUnixNano": nanos(self.started + self.took),
            "attributes": attributes(known),
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = span_id(parent).into();
        }
        // Of a server only what it could have avoided is an error.
        if self.status.is_none_or(|status| status >= 500) {
            span["status"] = json!({ "code": ERROR, "message": self.error.unwrap_or_default() });
        }
        span
    }
}

fn of_graph(record: &RequestRecord, graph: GraphRecord) -> Value {
    let mut known = spent(graph.spent).to_vec();
    if let Some(plan) = &record.plan {
        known.push(("cellmesh.graph.root", text(&plan.root)));
        known.push(("cellmesh.graph.steps", integer((plan.steps.len() + plan.steps_left_out) as u64)));
    }
    let start = record.started + graph.start;
    let mut span = json!({
        "traceId": trace_id(record.ids),
        "spanId": span_id(graph.id),
        "parentSpanId": span_id(record.ids.span_id),
        "name": "graph",
        "kind": INTERNAL,
        "startTimeUnixNano": nanos(start),
        "endTimeUnixNano": nanos(start + graph.took),
        "attributes": attributes(known),
    });
    // What the graph came to is what the request did.
    if record.status.is_none_or(|status| status >= 500) {
        span["status"] = json!({ "code": ERROR, "message": record.error.as_deref().unwrap_or_default() });
    }
    span
}

fn of_part(record: &RequestRecord, span: &SpanRecord) -> Value {
    let mut known = Vec::new();
    known.extend(span.step.as_deref().map(|step| ("cellmesh.step", text(step))));
    known.extend(span.target.as_deref().map(|target| ("server.address", text(target))));
    if let Some((queue, run)) = span.queue_and_run {
        known.extend([(QUEUE, seconds(queue)), (RUN, seconds(run))]);
    }
    if span.status > 0 {
        let key = if span.kind == SpanKind::Egress { "http.response.status_code" } else { "cellmesh.status" };
        known.push((key, integer(span.status.into())));
    }
    let start = record.started + span.start;
    let graph = record.graph.filter(|_| span.step.is_some());
    let parent = graph.map_or(record.ids.span_id, |graph| graph.id);
    let mut value = json!({
        "traceId": trace_id(record.ids),
        "spanId": span_id(span.id),
        "parentSpanId": span_id(parent),
        "name": name(span),
        "kind": if span.kind == SpanKind::Egress { CLIENT } else { INTERNAL },
        "startTimeUnixNano": nanos(start),
        "endTimeUnixNano": nanos(start + span.took),
        "attributes": attributes(known),
    });
    // Of a client every answer that is no success is one.
    let is_error = span.error.is_some() || span.kind == SpanKind::Egress && span.status >= 400;
    if is_error {
        value["status"] = json!({ "code": ERROR, "message": span.error.as_deref().unwrap_or_default() });
    }
    value
}

fn name(span: &SpanRecord) -> String {
    let step = span.step.as_deref().unwrap_or("handler");
    match (span.kind, &span.target) {
        (SpanKind::Egress, Some(target)) => format!("{step} to {target}"),
        (SpanKind::Builder, _) => format!("{step} (builder)"),
        (SpanKind::Prepared, _) => format!("{step} (prepared)"),
        (SpanKind::Egress | SpanKind::Handler | SpanKind::Internal, _) => step.to_owned(),
    }
}

fn attributes<'a>(known: impl IntoIterator<Item = (&'a str, Value)>) -> Vec<Value> {
    known.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

fn text(text: &str) -> Value {
    json!({ "stringValue": text })
}

fn integer(number: u64) -> Value {
    json!({ "intValue": number.to_string() })
}

fn seconds(time: Duration) -> Value {
    json!({ "doubleValue": time.as_secs_f64() })
}

fn trace_id(ids: Ids) -> String {
    format!("{:032x}", ids.trace_id)
}

fn span_id(id: u64) -> String {
    format!("{id:016x}")
}

fn nanos(since_1970: Duration) -> String {
    since_1970.as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prepared step says so, and has no times of a call.
    #[test]
    fn prepared_step_is_named_so() {
        let span = SpanRecord {
            id: 1,
            kind: SpanKind::Prepared,
            step: Some("finish".into()),
            target: None,
            start: Duration::from_millis(3),
            took: Duration::ZERO,
            queue_and_run: None,
            status: 200,
            error: None,
        };
        assert_eq!(name(&span), "finish (prepared)");
        assert_eq!(name(&SpanRecord { kind: SpanKind::Internal, ..span }), "finish");
    }

    /// Each name is there once, whatever the environment says, and the service is told.
    #[test]
    fn names_of_a_resource_are_there_once() {
        for (list, own, all) in [
            ("team=a", "service.name", 2),
            ("cellmesh.service=b,team=a", "service.name", 3),
            ("service.name=shop,cellmesh.service=b", "cellmesh.service", 2),
            ("service.name=,cellmesh.service=b", "service.name", 2),
        ] {
            let variable = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| list.to_owned());
            let found = of_resource("front", &Resource::of_environment(variable));
            let with = |key: &str| -> Vec<&Value> {
                found.iter().filter(|known| known["key"] == key).map(|known| &known["value"]).collect()
            };
            assert_eq!(with(own), [&text("front")], "{list}");
            assert_eq!(found.len(), all, "{list}: {found:?}");
        }
    }
}
