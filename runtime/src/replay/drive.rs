//! Runs one request on one cell, with recorded answers in place of other services.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use cellmesh_graph::{
    Action, BuiltRequests, Engine, Limits, OutgoingBody, OutgoingRequest, Plan, StepIndex, StepResult,
};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::message::{RequestMessage, ResponseMessage};

use super::compare::shown;
use crate::host::{Cell, CellFault, Decision, GuestCall, GuestReturn, StepCall};
use crate::trace::{Course, Message, PlanShape, Recording, Sent, StepCourse, StepDeed, len_of, len_of_built};
use crate::worker::{handle_call, reply, resolve, step_call};

/// What the cell does with the recorded request now.
///
/// # Errors
/// The recording is damaged.
pub(super) async fn again(cell: &Cell, recording: &Recording) -> anyhow::Result<Course> {
    let message = message(&recording.request).context("the recorded request")?;
    let mut answers: HashMap<String, VecDeque<StepResult>> = HashMap::new();
    for StepCourse { step, deed } in &recording.course.steps {
        if let StepDeed::Answered(answer) = deed {
            let result = answer.result().map_err(anyhow::Error::msg);
            let result = result.with_context(|| format!("the recorded answer of step {}", shown(step)))?;
            answers.entry(step.clone()).or_default().push_back(result);
        }
    }
    let mut replay = Replay { cell, message, answers, steps: Vec::new(), bytes_left: COURSE_BYTES_MAX };
    let (plan, response) = replay.handle().await?;
    let response = reply::finish(response, &replay.message)
        .unwrap_or_else(|fault| reply::broken(&fault, &replay.message));
    let response = Message::of_response(&response);
    Ok(Course { plan, steps: replay.steps, response })
}

/// Most bytes that are noted while a request is run again: steps may share one body, or one list of headers, thousands of times.
const COURSE_BYTES_MAX: usize = 256 << 20;

struct Replay<'c> {
    cell: &'c Cell,
    message: RequestMessage,
    /// By their steps, in their order.
    answers: HashMap<String, VecDeque<StepResult>>,
    steps: Vec<StepCourse>,
    /// Of [`COURSE_BYTES_MAX`].
    bytes_left: usize,
}

impl Replay<'_> {
    async fn handle(&mut self) -> anyhow::Result<(Option<PlanShape>, ResponseMessage)> {
        let limits = &self.cell.setup().limits;
        Ok(match self.call(handle_call(&self.message), limits.handler_timeout).await {
            Ok(GuestReturn::Handled(Decision::Response(returned))) => {
                let response = reply::of_handler(returned, &self.message.body);
                (None, response.unwrap_or_else(|fault| reply::broken(&fault, &self.message)))
            }
            Ok(GuestReturn::Handled(Decision::Graph(plan))) => return self.graph(*plan).await,
            Ok(GuestReturn::Stepped(_) | GuestReturn::Built(_)) => {
                unreachable!("a call returns the kind that it was made for")
            }
            Err(fault) => (None, reply::handler_failed(&self.cell.setup().service, &fault)),
        })
    }

    async fn graph(&mut self, plan: Plan) -> anyhow::Result<(Option<PlanShape>, ResponseMessage)> {
        let plan = match plan.validate(&Limits::default()) {
            Ok(plan) => plan,
            Err(error) => {
                return Ok((None, reply::error(500, "bad-graph", &format!("bad graph: {error}"), None)));
            }
        };
        self.pay(PlanShape::len_of_whole(plan.plan()))?;
        let shape = PlanShape::whole(plan.plan());
        let mut engine = Engine::start(plan);
        while let Some(action) = engine.next_action() {
            match action {
                Action::RunStep { step, function, args } => {
                    let call = step_call(&engine, step, function, args);
                    self.run_step(&mut engine, step, call).await?;
                }
                Action::Prepared { step, result } => {
                    self.pay(len_of(&result))?;
                    self.note(&engine, step, StepDeed::Returned(Message::of_result(&result)));
                    engine.on_result(step, result)?;
                }
                Action::BuildRequests { step, function, args } => {
                    let call = step_call(&engine, step, function, args);
                    self.build(&mut engine, step, call).await?;
                }
                Action::Send { step, request } => self.send(&mut engine, step, request)?,
                Action::Done(response) => return Ok((Some(shape), reply::of_graph(response, &engine))),
            }
        }
        bail!("the graph has not ended, and nothing is left to do: this is a bug of cellmesh")
    }

    async fn run_step(&mut self, engine: &mut Engine, step: StepIndex, call: StepCall) -> anyhow::Result<()> {
        let timeout = self.cell.setup().limits.step_timeout;
        let result = match self.call(GuestCall::RunStep(call), timeout).await {
            Ok(GuestReturn::Stepped(returned)) => {
                match resolve(engine, &self.message.body, step, returned.body) {
                    Ok(body) => StepResult {
                        status: returned.status,
                        error: returned.error,
                        headers: returned.headers,
                        body,
                    },
                    Err(why) => StepResult::failure(500, why),
                }
            }
            Ok(GuestReturn::Handled(_) | GuestReturn::Built(_)) => {
                unreachable!("a call returns the kind that it was made for")
            }
            Err(fault) => return self.fail(engine, step, &fault),
        };
        self.pay(len_of(&result))?;
        self.note(engine, step, StepDeed::Returned(Message::of_result(&result)));
        Ok(engine.on_result(step, result)?)
    }

    async fn build(&mut self, engine: &mut Engine, step: StepIndex, call: StepCall) -> anyhow::Result<()> {
        let timeout = self.cell.setup().limits.handler_timeout;
        let built: Result<BuiltRequests, Box<str>> =
            match self.call(GuestCall::BuildRequests(call), timeout).await {
                Ok(GuestReturn::Built(built)) => built,
                Ok(GuestReturn::Handled(_) | GuestReturn::Stepped(_)) => {
                    unreachable!("a call returns the kind that it was made for")
                }
                Err(fault) => return self.fail(engine, step, &fault),
            };
        self.pay(built.as_ref().map_or(0, len_of_built))?;
        let deed = match &built {
            Ok(built) => StepDeed::Built(Message::of_built(built)),
            Err(why) => StepDeed::Refused(why.to_string()),
        };
        self.note(engine, step, deed);
        Ok(engine.on_built(step, built)?)
    }

    /// A function that a step ran did not return.
    fn fail(&mut self, engine: &mut Engine, step: StepIndex, fault: &CellFault) -> anyhow::Result<()> {
        let result = StepResult::failure(fault.status(), fault.to_string());
        self.note(engine, step, StepDeed::Returned(Message::of_result(&result)));
        Ok(engine.on_failure(step, fault.status(), fault.to_string())?)
    }

    fn send(&mut self, engine: &mut Engine, step: StepIndex, request: OutgoingRequest) -> anyhow::Result<()> {
        let body = match request.body {
            OutgoingBody::Bytes(body) => body,
            OutgoingBody::OfRequest => self.message.body.clone(),
        };
        let sent = Sent { method: request.method, url: request.url, headers: request.headers, body };
        self.pay(sent.len())?;
        self.note(engine, step, StepDeed::Sent(Message::of_sent(&sent)));
        let recorded = self.answers.get_mut(engine.step_id(step)).and_then(VecDeque::pop_front);
        let nothing = || StepResult::failure(502, "the recording has no answer for this call");
        let answer = recorded.unwrap_or_else(nothing);
        self.note(engine, step, StepDeed::Answered(Message::of_result(&answer)));
        Ok(engine.on_answer(step, answer)?)
    }

    /// Counts what is about to be noted.
    fn pay(&mut self, bytes: usize) -> anyhow::Result<()> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.with_context(|| {
            format!("the graph and what its steps come to have more than {COURSE_BYTES_MAX} bytes: too much to compare")
        })?;
        Ok(())
    }

    fn note(&mut self, engine: &Engine, step: StepIndex, deed: StepDeed) {
        self.steps.push(StepCourse { step: engine.step_id(step).to_owned(), deed });
    }

    /// On an instance of its own.
    async fn call(&self, call: GuestCall, timeout: Duration) -> Result<GuestReturn, CellFault> {
        let deadline = Nanos::now().saturating_add(timeout);
        let headers = self.message.header_bytes();
        self.cell.call(None, &Arc::default(), call, headers, deadline).await.1
    }
}

fn message(request: &Message) -> anyhow::Result<RequestMessage> {
    let method = request.method.as_deref().context("has no method")?;
    let target = request.url.as_deref().context("has no url")?;
    let short = |text: &str| u16::try_from(text.len()).context("is too long");
    let (method_len, target_len) = (short(method)?, short(target)?);
    let mut head = BytesMut::new();
    for part in [method.as_bytes(), target.as_bytes(), &request.header_lines()] {
        head.extend_from_slice(part);
    }
    let body: Bytes = request.body_bytes().map_err(anyhow::Error::msg)?;
    let (service, deadline, hops) = (ServiceId(0), Nanos::MAX, 0);
    Ok(RequestMessage { service, deadline, hops, method_len, target_len, head: head.freeze(), body })
}
