//! Graphs for tests: written by hand as a tree, or drawn at random, and encoded as a cell would.

use bytes::Bytes;

use crate::{
    BodySource, EgressRequest, FunctionCall, Input, Limits, Node, Plan, Prepared, Span, ValidPlan, Work,
};

/// Where random choices come from: a seed for many fast ones, or bytes that proptest can shrink.
pub(crate) enum Choices<'b> {
    Seed(u64),
    Bytes(&'b [u8]),
}

impl Choices<'_> {
    /// SplitMix64, or the next byte; 0 when there is none left.
    pub(crate) fn draw(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
            Self::Bytes(bytes) => match bytes.split_first() {
                Some((first, rest)) => {
                    *bytes = rest;
                    u64::from(*first)
                }
                None => 0,
            },
        }
    }

    /// From 0 to `count - 1`; 0 for a count of 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % count.max(1) as u64).unwrap()
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }
}

/// A step of a graph as a tree.
#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    pub(crate) id: String,
    pub(crate) does: Does,
    pub(crate) tolerant: bool,
    /// Ids, and whether the body is wanted.
    pub(crate) inputs: Vec<(String, bool)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Does {
    Order(Vec<Sketch>),
    Pipe(Vec<Sketch>),
    /// So many requests.
    Requests(usize),
    Builder,
    Internal,
    /// Its body is `prepared ID`.
    Prepared,
}

fn sketch(id: &str, does: Does) -> Sketch {
    Sketch { id: id.to_owned(), does, tolerant: false, inputs: Vec::new() }
}

pub(crate) fn order(id: &str, children: impl Into<Vec<Sketch>>) -> Sketch {
    sketch(id, Does::Order(children.into()))
}

pub(crate) fn pipe(id: &str, children: impl Into<Vec<Sketch>>) -> Sketch {
    sketch(id, Does::Pipe(children.into()))
}

pub(crate) fn internal(id: &str) -> Sketch {
    sketch(id, Does::Internal)
}

/// An internal step with a result that stands if all inputs are plain.
pub(crate) fn prepared(id: &str) -> Sketch {
    sketch(id, Does::Prepared)
}

pub(crate) fn builder(id: &str) -> Sketch {
    sketch(id, Does::Builder)
}

/// An egress step with one request.
pub(crate) fn egress(id: &str) -> Sketch {
    requests(id, 1)
}

pub(crate) fn requests(id: &str, count: usize) -> Sketch {
    sketch(id, Does::Requests(count))
}

impl Sketch {
    pub(crate) fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }

    /// Adds an input with its body.
    pub(crate) fn sees(mut self, id: &str) -> Self {
        self.inputs.push((id.to_owned(), true));
        self
    }

    /// Adds an input without its body.
    pub(crate) fn sees_status_of(mut self, id: &str) -> Self {
        self.inputs.push((id.to_owned(), false));
        self
    }

    pub(crate) fn children(&self) -> &[Self] {
        match &self.does {
            Does::Order(children) | Does::Pipe(children) => children,
            Does::Requests(_) | Does::Builder | Does::Internal | Does::Prepared => &[],
        }
    }

    fn children_mut(&mut self) -> &mut [Self] {
        match &mut self.does {
            Does::Order(children) | Does::Pipe(children) => children,
            Does::Requests(_) | Does::Builder | Does::Internal | Does::Prepared => &mut [],
        }
    }

    pub(crate) fn is_group(&self) -> bool {
        matches!(self.does, Does::Order(_) | Does::Pipe(_))
    }

    /// The step itself and all steps inside it, in list order.
    pub(crate) fn all(&self) -> Vec<&Self> {
        let inside = self.children().iter().flat_map(Self::all);
        std::iter::once(self).chain(inside).collect()
    }

    /// The step with this id, inside or the step itself.
    pub(crate) fn find_mut(&mut self, id: &str) -> Option<&mut Self> {
        if self.id == id {
            return Some(self);
        }
        self.children_mut().iter_mut().find_map(|child| child.find_mut(id))
    }

    /// Encodes the graph; steps are stored in list order.
    pub(crate) fn plan(&self) -> Plan {
        let order: Vec<&str> = self.all().iter().map(|step| step.id.as_str()).collect();
        self.plan_stored_as(&order)
    }

    /// Encodes the graph with its steps stored in the order of these ids.
    pub(crate) fn plan_stored_as(&self, stored: &[&str]) -> Plan {
        let mut encoder = Encoder { stored, plan: Plan::default(), arena: Vec::new() };
        let all = self.all();
        for id in stored {
            let step = all.iter().find(|step| step.id == *id).unwrap();
            let node = encoder.node(step);
            encoder.plan.nodes.push(node);
        }
        encoder.plan.root = encoder.index(&self.id);
        Plan { arena: encoder.arena.into(), ..encoder.plan }
    }

    /// Encodes a graph that must be valid.
    pub(crate) fn valid(&self) -> ValidPlan {
        self.plan().validate(&Limits::default()).unwrap()
    }

    /// Encodes a graph that must be refused.
    pub(crate) fn refused(&self) -> String {
        self.plan().validate(&Limits::default()).unwrap_err().to_string()
    }
}

struct Encoder<'s> {
    stored: &'s [&'s str],
    plan: Plan,
    arena: Vec<u8>,
}

impl Encoder<'_> {
    /// The place of a step; far outside for an id that no step has.
    fn index(&self, id: &str) -> u32 {
        let place = self.stored.iter().position(|stored| *stored == id);
        place.map_or(u32::MAX, |place| u32::try_from(place).unwrap())
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        span(start, bytes.len())
    }

    fn node(&mut self, step: &Sketch) -> Node {
        let id = self.push(step.id.as_bytes());
        let start = self.plan.inputs.len();
        for (id, with_body) in &step.inputs {
            let input = Input { step: self.index(id), with_body: *with_body };
            self.plan.inputs.push(input);
        }
        let inputs = span(start, step.inputs.len());
        Node { id, work: self.work(step), inputs, tolerant: step.tolerant }
    }

    fn work(&mut self, step: &Sketch) -> Work {
        match &step.does {
            Does::Order(children) => Work::Order(self.children(children)),
            Does::Pipe(children) => Work::Pipe(self.children(children)),
            Does::Requests(count) => Work::Requests(self.requests(step, *count)),
            Does::Builder => Work::Builder(self.call(&step.id)),
            Does::Internal => Work::Internal(self.call(&step.id)),
            Does::Prepared => Work::Prepared(Prepared {
                status: 202,
                headers: self.push(b"x-prepared: 1\n"),
                body: self.push(format!("prepared {}", step.id).as_bytes()),
                otherwise: self.call(&step.id),
            }),
        }
    }

    fn children(&mut self, children: &[Sketch]) -> Span {
        let start = self.plan.children.len();
        for child in children {
            let index = self.index(&child.id);
            self.plan.children.push(index);
        }
        span(start, children.len())
    }

    fn requests(&mut self, step: &Sketch, count: usize) -> Span {
        let start = self.plan.requests.len();
        for number in 0..count {
            let url = self.push(format!("http://{}/{number}", step.id).as_bytes());
            let request = EgressRequest {
                method: self.push(b"GET"),
                url,
                headers: self.push(b"x-test: 1\n"),
                body: body_of(step, number, url),
            };
            self.plan.requests.push(request);
        }
        span(start, count)
    }

    fn call(&mut self, id: &str) -> FunctionCall {
        FunctionCall { function: self.index(id), args: self.push(format!("args of {id}").as_bytes()) }
    }
}

/// The body of request `number`: the input with that number if the step has it with its body.
pub(crate) fn body_of(step: &Sketch, number: usize, url: Span) -> BodySource {
    match step.inputs.get(number) {
        Some((_, true)) => BodySource::OfInput(u32::try_from(number).unwrap()),
        _ if number == 1 => BodySource::OfRequest,
        _ => BodySource::Bytes(url),
    }
}

pub(crate) fn span(start: usize, len: usize) -> Span {
    Span { start: u32::try_from(start).unwrap(), len: u32::try_from(len).unwrap() }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Draws a graph of at most `steps_max` steps. An input names a step that `may_name(plan, named, step)` allows.
pub(crate) fn draw_graph(
    choices: &mut Choices<'_>,
    steps_max: usize,
    may_name: fn(&Plan, u32, u32) -> bool,
) -> Sketch {
    let mut left = choices.below(steps_max);
    let mut graph = draw_step(choices, &mut left, 0);
    let plan = graph.plan();
    let steps: Vec<(String, bool)> =
        graph.all().iter().map(|step| (step.id.clone(), step.is_group())).collect();
    for (step, (id, _)) in (0..).zip(&steps).filter(|(_, (_, is_group))| !is_group) {
        for _ in 0..choices.below(4) {
            let named = choices.below(steps.len());
            if may_name(&plan, u32::try_from(named).unwrap(), step) {
                let input = (steps[named].0.clone(), choices.percent(50));
                graph.find_mut(id).unwrap().inputs.push(input);
            }
        }
    }
    graph
}

fn draw_step(choices: &mut Choices<'_>, left: &mut usize, depth: usize) -> Sketch {
    let id = format!("s{left}");
    let kind = match depth {
        // Mostly groups: a graph of one step shows little.
        0 => 7 - choices.below(8) * choices.below(8) / 7,
        1..6 => choices.below(8),
        _ => choices.below(5),
    };
    let does = match kind {
        0 => Does::Internal,
        1 => Does::Prepared,
        2 => Does::Builder,
        3 | 4 => Does::Requests([1, 2, 3, 0][choices.below(4)]),
        5 => Does::Pipe(draw_children(choices, left, depth)),
        _ => Does::Order(draw_children(choices, left, depth)),
    };
    Sketch { tolerant: choices.percent(25), ..sketch(&id, does) }
}

fn draw_children(choices: &mut Choices<'_>, left: &mut usize, depth: usize) -> Vec<Sketch> {
    let mut children = Vec::new();
    for _ in 0..[3, 4, 2, 5, 1, 2, 3, 0][choices.below(8)] {
        if *left == 0 {
            break;
        }
        *left -= 1;
        children.push(draw_step(choices, left, depth + 1));
    }
    children
}
