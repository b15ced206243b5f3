//! Ingress: the part that the network side of a lane has in clients' requests, for a collector.
//!
//! - Only with a collector: what is kept to be looked at here begins at the cell. With one, it is decided here whether a request
//!   that nobody has decided on is sampled, and its cell believes that as it believes any caller.
//! - Sent are the same as of cells: sampled ones, those in error, slow ones. What a cell finds slow or in error its client
//!   does, so that its part is there too.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use cellmesh_dpu::Dpu;
use cellmesh_dpu::origin::REQUEST_ID;
use cellmesh_dpu::spans::{Sampling, Span, Spans};
use cellmesh_dpu::trace_context::{Ids, Parent, Traceparent};
use cellmesh_shm::clock::Nanos;

use super::choice::{Choice, Outcome};
use super::export::{Outbox, Outgoing};
use super::record::{IngressRecord, text, unix_now};
use super::{LeftOut, TraceSettings};

/// What it takes to tell of the requests of a lane. Unlike who tells, it can be sent there.
#[derive(Debug, Clone)]
pub struct IngressParts {
    /// Which are sent.
    pub settings: TraceSettings,
    /// Where to. None: nowhere.
    pub(crate) outbox: Option<Outbox>,
    /// What is not told of.
    pub(crate) left_out: LeftOut,
}

/// Of one lane.
#[derive(Debug)]
struct Ingress(RefCell<State>);

#[derive(Debug)]
struct State {
    choice: Choice,
    random: fastrand::Rng,
    outbox: Outbox,
}

impl IngressParts {
    /// Has this network side tell of its requests, if somebody is told.
    pub fn tell(self, dpu: &Dpu) {
        if let Some(spans) = self.spans() {
            dpu.tell_spans(spans);
        }
    }

    fn spans(self) -> Option<Rc<dyn Spans>> {
        let Self { settings, outbox, left_out } = self;
        let choice = Choice::new(&settings, left_out);
        let state = State { choice, random: fastrand::Rng::new(), outbox: outbox? };
        Some(Rc::new(Ingress(RefCell::new(state))))
    }
}

impl Spans for Ingress {
    fn begin(&self, parent: Option<Parent>) -> (Traceparent, Sampling) {
        let state = &mut *self.0.borrow_mut();
        let random = state.random.u64(..);
        let sampling = state.choice.begin(parent, Nanos::now(), random);
        let Ids { trace_id, span_id } = Ids::below(parent, &mut state.random);
        (Traceparent { trace_id, span_id, sampled: sampling != Sampling::No }, sampling)
    }

    fn end(&self, span: &Span<'_>) {
        let state = &mut *self.0.borrow_mut();
        let Span { sampling, status, is_shed, took, .. } = *span;
        let outcome = Outcome { sampling, status, is_shed, took };
        let Some(why) = state.choice.end(&outcome, Nanos::now()) else { return };
        let Traceparent { trace_id, span_id, .. } = span.own;
        state.outbox.send(Outgoing::Ingress(Arc::new(IngressRecord {
            ids: Ids { trace_id, span_id },
            parent: span.parent,
            request_id: span.headers.get(REQUEST_ID).map(text),
            service: span.service.as_str().into(),
            method: text(span.method),
            target: text(span.target),
            status: span.status,
            started: unix_now().saturating_sub(span.took),
            took: span.took,
            why,
        })));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellmesh_shm::head::HeaderLines;

    use super::*;
    use crate::trace::{Exporter, Otlp};

    const PARENT: Parent = Parent { trace_id: 7, span_id: 9, sampled: false };

    /// What its caller has decided holds; else the share does. Its trace goes on, its part is a new one.
    #[test]
    fn callers_are_believed() {
        for (share, parent, sampled) in [
            (1000, None, true),
            (1000, Some(PARENT), false),
            (0, Some(Parent { sampled: true, ..PARENT }), true),
            (0, None, false),
        ] {
            let (outbox, _exporter) =
                Exporter::new(&Otlp::parse("http://127.0.0.1:4318").expect("an address"));
            let settings = TraceSettings { share, sample_per_second_min: 0, ..TraceSettings::default() };
            let left_out = LeftOut::default();
            let parts = IngressParts { settings, outbox: Some(outbox), left_out };
            let spans = parts.spans().expect("there is a collector");
            let (own, _) = spans.begin(parent);
            assert_eq!(own.sampled, sampled, "{share} of {parent:?}");
            assert!(own.span_id != 9 && (own.trace_id == 7) == parent.is_some());
        }
        let (settings, left_out) = (TraceSettings::default(), LeftOut::default());
        assert!(IngressParts { settings, outbox: None, left_out }.spans().is_none(), "nobody is told");
    }

    /// Sampled, in error, given up, slow: these are sent, and no others.
    #[test]
    fn what_cells_keep_is_sent() {
        let service = "front".parse().expect("a name");
        let ms = Duration::from_millis;
        for (status, took, sampled, is_sent) in [
            (Some(200), ms(1), false, false),
            (Some(404), ms(1), false, false),
            (Some(200), ms(1), true, true),
            (Some(503), ms(1), false, true),
            (None, ms(1), false, true),
            (Some(200), ms(1001), false, true),
        ] {
            let (outbox, mut exporter) =
                Exporter::new(&Otlp::parse("http://127.0.0.1:4318").expect("an address"));
            let (settings, left_out) = (TraceSettings::default(), LeftOut::default());
            let parts = IngressParts { settings, outbox: Some(outbox), left_out };
            let spans = parts.spans().expect("there is a collector");
            let (own, sampling) = spans.begin(Some(Parent { sampled, ..PARENT }));
            let headers = HeaderLines(b"x-request-id: r\n");
            let (method, target) = (&b"GET"[..], &b"/a?b"[..]);
            let (parent, service, is_shed) = (Some(PARENT.span_id), &service, false);
            spans.end(&Span {
                own,
                sampling,
                parent,
                service,
                method,
                target,
                headers,
                status,
                is_shed,
                took,
            });
            match exporter.next_waiting() {
                Some(Outgoing::Ingress(record)) => {
                    assert!(is_sent, "{status:?} {took:?} {sampled}");
                    assert_eq!(
                        (record.ids.span_id, record.parent, &*record.service),
                        (own.span_id, Some(9), "front")
                    );
                    assert_eq!((record.request_id.as_deref(), &*record.target), (Some("r"), "/a?b"));
                }
                other => assert!(other.is_none() && !is_sent, "{status:?} {took:?} {sampled}: {other:?}"),
            }
        }
    }
}
