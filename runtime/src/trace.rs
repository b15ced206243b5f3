//! Traces: what became of single requests, step by step.
//!
//! ```text
//! worker --Trace--> Recorder (of its lane) --kept--> admin port: /v1/requests, the dashboard, `cellmesh graph`
//!                                         '--------> exporter --OTLP over HTTP--> a collector
//! DPU ---Span-----> Ingress (of its lane) -----------^
//! ```
//!
//! - Every request notes where its time goes, in a buffer that is used again. Whether that is kept is known at its end: it was
//!   sampled when it came, it ended in an error, or it was slow. All others cost a few writes to memory.
//! - A request is sampled because its caller sampled it (`traceparent`), or by [`Sampler`]. A cell's calls carry the context on.
//! - Everything has a bound: spans of a request, requests that are kept on a lane, those that wait for the exporter. What does
//!   not fit is counted. So are records of requests that were slow, in error or shed, which come in floods (`choice.rs`).
//! - With a collector the network side tells of clients' requests too (`ingress.rs`). What a call between cells spends on its way
//!   is what is between the span of the step that makes it and that of its callee, below it.

mod choice;
mod critical;
mod export;
mod ingress;
mod noted;
mod otlp;
mod record;
mod recorder;
mod recording;
mod resource;
mod sampler;
mod settings;
mod tokens;

pub use cellmesh_dpu::trace_context::{Ids, Parent};
pub use choice::LeftOut;
pub(crate) use export::Outbox;
pub use export::{Exported, Exporter};
pub use ingress::IngressParts;
pub use noted::{SpanKind, Trace};
pub use record::{
    GraphRecord, IngressRecord, PlanShape, RecordId, RequestRecord, ShapeKind, SpanRecord, StepShape,
    TimeSpent, Why,
};
pub use recorder::{Ended, Kept, Recorder, RecorderParts};
pub use recording::{Course, FORM, Message, Recording, StepCourse, StepDeed};
pub(crate) use recording::{Sent, len_of, len_of_built};
pub use resource::Resource;
pub use sampler::Sampler;
pub use settings::{Otlp, TraceConfig, TraceSettings};
