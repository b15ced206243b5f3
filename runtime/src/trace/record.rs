//! What is kept of a request, once it has ended.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellmesh_dpu::trace_context::Ids;
use cellmesh_graph::{Node, Plan, Span, Work};
use serde::{Deserialize, Serialize, Serializer};

use super::noted::SpanKind;

/// Steps of a plan that are kept; more are counted.
const STEPS_MAX: usize = 500;
/// Children, inputs and requests that are kept of one step.
const STEP_ENTRIES_MAX: usize = 100;
/// Bytes that are kept of a text that a client or a cell chose.
const TEXT_BYTES_MAX: usize = 256;

/// Names a request that is kept: `<lane>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Its lane.
    pub lane: u16,
    /// Its place among all that were kept there.
    pub number: u64,
}

/// Why a request is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// It was sampled when it came.
    Sampled,
    /// It ended in an error, or nobody waited for its end.
    Error,
    /// It took long.
    Slow,
}

impl Why {
    /// None: it is not. `status`: none if nobody waited for it.
    pub(super) fn of(status: Option<u16>, is_slow: bool, is_sampled: bool) -> Option<Self> {
        if status.is_none_or(|status| status >= 500) {
            return Some(Self::Error);
        }
        if is_slow {
            return Some(Self::Slow);
        }
        is_sampled.then_some(Self::Sampled)
    }
}

/// A client's request as the network side had it, from when it was routed until its answer was there.
#[derive(Debug)]
pub struct IngressRecord {
    /// Its place in a trace.
    pub ids: Ids,
    /// The span that made it; none of a client that does not trace.
    pub parent: Option<u64>,
    /// `x-request-id`.
    pub request_id: Option<Box<str>>,
    /// Where it was routed.
    pub service: Box<str>,
    /// Its method.
    pub method: Box<str>,
    /// Path and query, cut where it is long.
    pub target: Box<str>,
    /// What it was answered with; none if its client went away first.
    pub status: Option<u16>,
    /// When it was routed, since 1970.
    pub started: Duration,
    /// Until its answer was there.
    pub took: Duration,
    /// Why it is sent.
    pub why: Why,
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Its name here.
    pub id: RecordId,
    /// Its place in a trace.
    pub ids: Ids,
    /// The span that made it; none of a client that does not trace.
    pub parent: Option<u64>,
    /// `x-request-id`.
    pub request_id: Option<Box<str>>,
    /// Whose it was.
    pub service: Arc<str>,
    /// Its method.
    pub method: Box<str>,
    /// Path and query, cut where it is long.
    pub target: Box<str>,
    /// What it was answered with; none if nobody waited any more.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<Box<str>>,
    /// When it came, since 1970.
    pub started: Duration,
    /// Until its answer.
    pub took: Duration,
    /// What it did meanwhile.
    pub spent: TimeSpent,
    /// Why it is kept.
    pub why: Why,
    /// The graph that the handler returned; none if it answered by itself.
    pub plan: Option<PlanShape>,
    /// That graph as a whole: from when the handler had returned it to the request's end.
    pub graph: Option<GraphRecord>,
    /// Where its time went, by the ends of the parts.
    pub spans: Vec<SpanRecord>,
    /// Parts that are not kept, because there are too many.
    pub spans_left_out: u32,
}

/// The graph of a request, of which its steps are parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphRecord {
    /// Its place in the trace.
    pub id: u64,
    /// From the start of the request until it began.
    pub start: Duration,
    /// From then until its end.
    pub took: Duration,
    /// What its steps did meanwhile.
    pub spent: TimeSpent,
}

/// What a request did with its time. Steps that run beside each other count each: sums of queue and run may exceed its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeSpent {
    /// Of its guest calls that have ended: until an instance was free, and a thread of the pool.
    pub queue: Duration,
    /// Of them, on a thread.
    pub run: Duration,
    /// While at least one call to another service was under way.
    pub egress: Duration,
}

/// A part of a request: a guest call, or a call to another service.
#[derive(Debug, Clone)]
pub struct SpanRecord {
    /// Its place in the trace.
    pub id: u64,
    /// What it was.
    pub kind: SpanKind,
    /// The step that it was made for; none for the handler.
    pub step: Option<Box<str>>,
    /// The service that was called.
    pub target: Option<Box<str>>,
    /// From the start of the request until it was wanted.
    pub start: Duration,
    /// From then until its end.
    pub took: Duration,
    /// Of a guest call: until an instance was free and a thread of the pool, and on a thread.
    pub queue_and_run: Option<(Duration, Duration)>,
    /// What came of it: a status as of HTTP, 0 for none.
    pub status: u16,
    /// What went wrong.
    pub error: Option<Box<str>>,
}

/// A graph without its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanShape {
    /// The id of the root.
    pub root: Box<str>,
    /// The step whose result is the response, if it is not the root's value.
    pub respond_with: Option<Box<str>>,
    /// The steps in the order of the plan.
    pub steps: Vec<StepShape>,
    /// Steps that are not kept, because there are too many.
    pub steps_left_out: usize,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShapeKind {
    /// Its children, one after the other.
    Order,
    /// Its children, at the same time.
    Pipe,
    /// Requests to other services.
    Egress,
    /// As `Egress`; a function of the cell makes the requests.
    Builder,
    /// A function of the cell.
    Internal,
    /// As `Internal`; the function is run only if an input is out of the ordinary.
    Prepared,
}

/// One step of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepShape {
    /// Its id.
    pub id: Box<str>,
    /// What it does.
    pub kind: ShapeKind,
    /// Ids of its children.
    pub children: Vec<Box<str>>,
    /// Ids of the steps whose results it wants.
    pub inputs: Vec<Box<str>>,
    /// Whether its error stays its own.
    pub tolerant: bool,
    /// The number of the function that it runs, or may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<u32>,
    /// What that is given; only where all of a request is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// What it sends, as far as the plan says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestShape>,
}

/// A request that a plan wants sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestShape {
    /// Its method.
    pub method: Box<str>,
    /// Its URL, cut where it is long.
    pub url: Box<str>,
}

impl PlanShape {
    /// That of a plan that was validated, cut where it is large.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self::up_to(plan, STEPS_MAX, &step)
    }

    /// As [`PlanShape::of`], with all steps and what their functions are given.
    #[must_use]
    pub fn whole(plan: &Plan) -> Self {
        let with_args = |plan: &Plan, index: usize| {
            let call = plan.nodes[index].work.function();
            let args = call.map(|call| text_of(part(&plan.arena, call.args)));
            StepShape { args, ..step(plan, index) }
        };
        Self::up_to(plan, usize::MAX, &with_args)
    }

    /// About the bytes of what [`PlanShape::whole`] makes: steps may name the same parts of a plan, so these can be many more than the
    /// plan's own.
    #[must_use]
    pub(crate) fn len_of_whole(plan: &Plan) -> usize {
        plan.nodes.iter().map(|node| len_of_step(plan, node)).sum()
    }

    fn up_to(plan: &Plan, steps_max: usize, step: &dyn Fn(&Plan, usize) -> StepShape) -> Self {
        let steps: Vec<StepShape> =
            (0..plan.nodes.len().min(steps_max)).map(|index| step(plan, index)).collect();
        Self {
            root: id_of(plan, plan.root),
            respond_with: plan.respond_with.map(|step| id_of(plan, step)),
            steps_left_out: plan.nodes.len() - steps.len(),
            steps,
        }
    }
}

fn step(plan: &Plan, index: usize) -> StepShape {
    let node = &plan.nodes[index];
    let ids = |steps: &mut dyn Iterator<Item = u32>| {
        steps.take(STEP_ENTRIES_MAX).map(|step| id_of(plan, step)).collect()
    };
    let (children, requests) = (node.work.children().unwrap_or_default(), requests_of(node.work));
    let kind = match node.work {
        Work::Order(_) => ShapeKind::Order,
        Work::Pipe(_) => ShapeKind::Pipe,
        Work::Requests(_) => ShapeKind::Egress,
        Work::Builder(_) => ShapeKind::Builder,
        Work::Internal(_) => ShapeKind::Internal,
        Work::Prepared(_) => ShapeKind::Prepared,
    };
    StepShape {
        id: id_of(plan, u32::try_from(index).unwrap_or(u32::MAX)),
        kind,
        children: ids(&mut part(&plan.children, children).iter().copied()),
        inputs: ids(&mut part(&plan.inputs, node.inputs).iter().map(|input| input.step)),
        tolerant: node.tolerant,
        function: node.work.function().map(|call| call.function),
        args: None,
        requests: part(&plan.requests, requests)
            .iter()
            .take(STEP_ENTRIES_MAX)
            .map(|request| RequestShape {
                method: text(part(&plan.arena, request.method)),
                url: text(part(&plan.arena, request.url)),
            })
            .collect(),
    }
}

/// The requests of a step that has them itself.
fn requests_of(work: Work) -> Span {
    if let Work::Requests(requests) = work { requests } else { Span::default() }
}

/// About the bytes of the step that [`PlanShape::whole`] makes.
fn len_of_step(plan: &Plan, node: &Node) -> usize {
    let text = |span: Span| size_of::<Box<str>>() + TEXT_BYTES_MAX.min(span.len as usize);
    let id = |step: u32| plan.nodes.get(step as usize).map_or(0, |node| text(node.id));
    let (children, requests) = (node.work.children().unwrap_or_default(), requests_of(node.work));
    let children = part(&plan.children, children).iter().take(STEP_ENTRIES_MAX).map(|step| id(*step));
    let inputs = part(&plan.inputs, node.inputs).iter().take(STEP_ENTRIES_MAX).map(|input| id(input.step));
    let requests = part(&plan.requests, requests).iter().take(STEP_ENTRIES_MAX);
    let requests = requests.map(|request| text(request.method) + text(request.url));
    let args = node.work.function().map_or(0, |call| call.args.len as usize);
    size_of::<StepShape>() + text(node.id) + args + children.chain(inputs).chain(requests).sum::<usize>()
}

pub(super) fn id_of(plan: &Plan, step: u32) -> Box<str> {
    plan.nodes.get(step as usize).map_or_else(Box::default, |node| text(part(&plan.arena, node.id)))
}

/// Nothing of a span that lies outside.
fn part<T>(whole: &[T], span: Span) -> &[T] {
    span.range_in(whole.len()).map_or(&[], |range| &whole[range])
}

/// Bytes as text, whole.
pub(super) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A clock that is before 1970 says nothing.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes as text, cut where they are long.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text.into()
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lane, self.number)
    }
}

impl FromStr for RecordId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (lane, number) = text.split_once('-').ok_or(())?;
        Ok(Self { lane: lane.parse().map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use cellmesh_graph::{BodySource, EgressRequest, Input};

    use super::*;

    /// What a client chose is cut, also in the middle of a character.
    #[test]
    fn long_text_is_cut() {
        assert_eq!(&*text(b"/short"), "/short");
        let long = "a".to_owned() + &"ü".repeat(200);
        let cut = text(long.as_bytes());
        assert!(cut.starts_with("aüü") && cut.ends_with('…') && cut.len() < 300, "{cut}");
    }

    /// Steps that name the same requests and children again and again have as many of them when they are told.
    #[test]
    fn shared_parts_count_for_each_step() {
        let arena = "s".repeat(200);
        let all = Span { start: 0, len: 200 };
        let request = EgressRequest { method: all, url: all, headers: all, body: BodySource::OfRequest };
        let step = |work| Node { id: all, work, inputs: Span { start: 0, len: 50 }, tolerant: false };
        let steps = [Work::Requests(Span { start: 0, len: 90 }), Work::Pipe(Span { start: 0, len: 50 })];
        let plan = Plan {
            nodes: steps.into_iter().cycle().take(40).map(step).collect(),
            children: (0..50).map(|child| child % 40).collect(),
            inputs: (0..50).map(|step| Input { step: step % 40, with_body: false }).collect(),
            requests: vec![request; 90],
            root: 0,
            respond_with: None,
            arena: arena.into(),
        };
        let texts = |step: &StepShape| {
            let ids = step.children.iter().chain(&step.inputs).map(|id| id.len());
            let requests = step.requests.iter().map(|request| request.method.len() + request.url.len());
            step.id.len() + ids.chain(requests).sum::<usize>()
        };
        let told: usize = PlanShape::whole(&plan).steps.iter().map(texts).sum();
        assert!(told > 20 * (90 * 400 + 50 * 200), "{told} bytes");
        assert!((told..2 * told).contains(&PlanShape::len_of_whole(&plan)), "{told} bytes");
    }

    /// An id is read as it is written, and nothing else is one.
    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = RecordId { lane: 3, number: 17 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in ["", "3", "-", "3-", "a-1", "3-1-2", "70000-1"] {
            assert_eq!(other.parse::<RecordId>(), Err(()), "{other}");
        }
    }
}
