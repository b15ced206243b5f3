//! The engine against the oracle, on graphs, results and orders of arrival that are drawn at random.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::oracle::{Ends, Picture, picture, wanted};
use super::run::{Run, step_of};
use crate::testing::{Choices, Does, Sketch, bytes, draw_graph};
use crate::validate::tests::reference::{may_name, may_respond_with};
use crate::{
    Action, BodySource, BuiltRequests, EgressRequest, Engine, Limits, Response, Span, StepIndex, StepResult,
};

/// What comes for a step.
#[derive(Debug, Clone)]
enum Reply {
    Result(StepResult),
    Built(Result<BuiltRequests, Box<str>>),
    Answer(StepResult),
    Failure(u16, String),
}

/// All that comes for a step, and what the step comes to.
#[derive(Debug)]
struct Script {
    replies: VecDeque<Reply>,
    end: (StepResult, bool),
}

fn draw_script(choices: &mut Choices<'_>, step: &Sketch) -> Script {
    let mut replies = VecDeque::new();
    let end = match step.does {
        Does::Internal | Does::Prepared => draw_return(choices, step, &mut replies),
        Does::Requests(count) => draw_answers(choices, step, count, &mut replies),
        Does::Builder => draw_built(choices, step, &mut replies),
        Does::Order(_) | Does::Pipe(_) => (StepResult::skipped(), false),
    };
    Script { replies, end }
}

/// A result that is told from every other.
fn marked(choices: &mut Choices<'_>, step: &Sketch, status: u16) -> StepResult {
    StepResult::answer(status, bytes("x-mark: 1\n"), bytes(&format!("{} {}", step.id, choices.draw())))
}

fn draw_return(
    choices: &mut Choices<'_>,
    step: &Sketch,
    replies: &mut VecDeque<Reply>,
) -> (StepResult, bool) {
    let end = match choices.below(16) {
        0 => return draw_failure(step, replies),
        1 => (StepResult { error: Some("on purpose".into()), ..marked(choices, step, 500) }, true),
        2 => (marked(choices, step, 500), false),
        _ => (marked(choices, step, 200), false),
    };
    replies.push_back(Reply::Result(end.0.clone()));
    end
}

fn draw_failure(step: &Sketch, replies: &mut VecDeque<Reply>) -> (StepResult, bool) {
    let text = format!("{} trapped", step.id);
    replies.push_back(Reply::Failure(504, text.clone()));
    (StepResult::failure(504, text), true)
}

fn draw_answers(
    choices: &mut Choices<'_>,
    step: &Sketch,
    count: usize,
    replies: &mut VecDeque<Reply>,
) -> (StepResult, bool) {
    let mut end = (StepResult::skipped(), false);
    for _ in 0..count {
        end = match choices.below(32) {
            0 => return draw_failure(step, replies),
            1 => (StepResult::failure(503, "no worker"), true),
            2 => (marked(choices, step, 404), true),
            _ => (marked(choices, step, 302), false),
        };
        replies.push_back(Reply::Answer(end.0.clone()));
        if end.1 {
            break;
        }
    }
    end
}

fn draw_built(choices: &mut Choices<'_>, step: &Sketch, replies: &mut VecDeque<Reply>) -> (StepResult, bool) {
    let word = Span { start: 0, len: 2 };
    let request = EgressRequest { method: word, url: word, headers: word, body: BodySource::OfRequest };
    let count = choices.below(4);
    let mut built = BuiltRequests { requests: vec![request; count], arena: bytes("ok") };
    match choices.below(24) {
        0 => draw_failure(step, replies),
        1 => {
            replies.push_back(Reply::Built(Err("cannot".into())));
            (StepResult::failure(500, "cannot"), true)
        }
        2 if count > 0 => {
            built.requests[count - 1].url.start = 1;
            replies.push_back(Reply::Built(Ok(built)));
            let why = "url = 1 .. 1 + 2: must lie inside the arena (2 bytes)";
            (StepResult::failure(500, format!("step {:?}: request {}: {why}", step.id, count - 1)), true)
        }
        _ => {
            replies.push_back(Reply::Built(Ok(built)));
            draw_answers(choices, step, count, replies)
        }
    }
}

/// One graph on its way, with all that is to be true of it.
struct Trial<'g> {
    graph: &'g Sketch,
    respond_with: Option<String>,
    run: Run,
    scripts: Vec<(StepIndex, Script)>,
    /// Steps that have been started, with something to be done, and not ended.
    out: Vec<StepIndex>,
    /// The results of those that have.
    ends: Ends,
}

impl<'g> Trial<'g> {
    fn draw(choices: &mut Choices<'_>, graph: &'g Sketch) -> Self {
        let steps = graph.all();
        let mut stored: Vec<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        let (turn, len) = (choices.below(stored.len()), stored.len());
        stored.rotate_left(turn % len);
        let mut plan = graph.plan_stored_as(&stored);
        let named = choices.below(len);
        if choices.percent(30) && may_respond_with(&plan, u32::try_from(named).unwrap()) {
            plan.respond_with = Some(u32::try_from(named).unwrap());
        }
        let respond_with = plan.respond_with.map(|_| stored[named].to_owned());
        let run = Run { engine: Engine::start(plan.validate(&Limits::default()).unwrap()) };
        let scripts = steps.iter().map(|step| (run.index(&step.id), draw_script(choices, step))).collect();
        Self { graph, respond_with, run, scripts, out: Vec::new(), ends: Ends::new() }
    }

    /// Does all that is to be done. Returns the steps that were started, and the response.
    fn drain(&mut self) -> (Vec<StepIndex>, Option<Response>) {
        let mut started = Vec::new();
        while let Some(action) = self.run.engine.next_action() {
            self.check_prepared(&action);
            let Action::Done(response) = action else {
                let step = step_of(&action).unwrap();
                if !self.out.contains(&step) {
                    started.push(step);
                    self.out.push(step);
                }
                continue;
            };
            return (started, Some(response));
        }
        (started, None)
    }

    /// A prepared result stands if, and only if, each input is an answer 200 that is no error; it is what the step comes to.
    fn check_prepared(&mut self, action: &Action) {
        let Some(step) = step_of(action) else { return };
        let id = self.run.engine.step_id(step).to_owned();
        let sketch = self.graph.all().into_iter().find(|sketch| sketch.id == id).unwrap();
        let is_prepared = matches!(sketch.does, Does::Prepared);
        let picture = picture(self.graph, &self.ends);
        let is_plain = |(named, _): &(String, bool)| {
            let (value, _) = picture.ended(named).expect("an input has ended");
            let failed =
                value.as_ref().and_then(|leaf| self.ends.get(leaf)).is_some_and(|(_, failed)| *failed);
            !failed && self.result_of(value.as_ref()).status == 200
        };
        let stands = is_prepared && sketch.inputs.iter().all(is_plain);
        let Action::Prepared { result, .. } = action else {
            return assert!(!stands, "{id} was run although its result was ready");
        };
        assert!(stands, "{id} was not run");
        let expected = StepResult::answer(202, bytes("x-prepared: 1\n"), bytes(&format!("prepared {id}")));
        assert_eq!(*result, expected);
        let script = &mut self.scripts.iter_mut().find(|(index, _)| *index == step).unwrap().1;
        *script = Script { replies: [Reply::Result(expected.clone())].into(), end: (expected, false) };
    }

    /// Gives a step the next thing that comes for it.
    fn reply(&mut self, step: StepIndex) {
        let script = &mut self.scripts.iter_mut().find(|(index, _)| *index == step).unwrap().1;
        let engine = &mut self.run.engine;
        match script.replies.pop_front().unwrap() {
            Reply::Result(result) => engine.on_result(step, result),
            Reply::Built(built) => engine.on_built(step, built),
            Reply::Answer(answer) => engine.on_answer(step, answer),
            Reply::Failure(status, text) => engine.on_failure(step, status, text),
        }
        .unwrap();
        if script.replies.is_empty() {
            let id = engine.step_id(step).to_owned();
            self.ends.insert(id, script.end.clone());
            self.out.retain(|out| *out != step);
        }
    }

    /// Every kind of result for a step that waits for none.
    fn disturb(&mut self, choices: &mut Choices<'_>) {
        let step = StepIndex(u32::try_from(choices.below(self.scripts.len() + 1)).unwrap());
        if self.out.contains(&step) {
            return;
        }
        let engine = &mut self.run.engine;
        engine.on_result(step, StepResult::skipped()).unwrap_err();
        engine.on_answer(step, StepResult::skipped()).unwrap_err();
        engine.on_built(step, Ok(BuiltRequests::default())).unwrap_err();
        engine.on_failure(step, 500, "late").unwrap_err();
    }

    fn result_of(&self, value: Option<&String>) -> StepResult {
        let end = value.and_then(|leaf| self.ends.get(leaf));
        end.map_or_else(StepResult::skipped, |(result, _)| result.clone())
    }

    fn check(&self, picture: &Picture, one_reply: bool, started: &[StepIndex]) {
        let id = |step: &StepIndex| self.run.engine.step_id(*step).to_owned();
        let mut out: Vec<String> = self.out.iter().map(id).collect();
        if one_reply {
            let new: Vec<String> = started.iter().map(id).collect();
            let expected = picture.running.iter().filter(|step| new.contains(step));
            assert!(expected.eq(&new), "list order: {:?}, started {new:?}", picture.running);
        }
        let mut running = picture.running.clone();
        out.sort();
        running.sort();
        assert_eq!(out, running, "steps that run");
        let mut held = self.run.held();
        held.sort();
        assert_eq!(held, wanted(self.graph, self.respond_with.as_deref(), picture), "results that are kept");
        started.iter().for_each(|step| self.check_inputs(picture, *step));
    }

    fn check_inputs(&self, picture: &Picture, step: StepIndex) {
        let id = self.run.engine.step_id(step);
        let steps = self.graph.all();
        let sketch = steps.iter().find(|sketch| sketch.id == id).unwrap();
        let mut seen = self.run.engine.inputs(step);
        for (named, with_body) in &sketch.inputs {
            let (value, _) = picture.ended(named).expect("an input has ended");
            let failed =
                value.as_ref().and_then(|leaf| self.ends.get(leaf)).is_some_and(|(_, in_error)| *in_error);
            let input = seen.next().unwrap();
            assert_eq!((input.id, input.with_body, input.failed), (named.as_str(), *with_body, failed));
            assert_eq!(*input.result, self.result_of(value.as_ref()));
        }
        assert!(seen.next().is_none());
    }

    fn check_response(&self, picture: &Picture, response: &Response) {
        let (mut value, error) = picture.ended(&self.graph.id).expect("the root has ended");
        let in_error = error && !self.graph.tolerant;
        if let Some(named) = self.respond_with.as_ref().filter(|_| !in_error) {
            value = picture.ended(named).expect("what to respond with has ended").0;
        }
        let result = self.result_of(value.as_ref());
        let step = value.map(|leaf| self.run.index(&leaf));
        assert_eq!(*response, Response { result, step, in_error });
    }
}

/// Runs one drawn graph to its end; returns how many of its steps were started.
fn run_one(choices: &mut Choices<'_>) -> usize {
    let graph = draw_graph(choices, 24, may_name);
    let mut trial = Trial::draw(choices, &graph);
    let mut one_reply = true;
    loop {
        if choices.percent(5) {
            trial.disturb(choices);
        }
        let (started, response) = trial.drain();
        let picture = picture(&graph, &trial.ends);
        trial.check(&picture, one_reply, &started);
        if let Some(response) = response {
            trial.check_response(&picture, &response);
            break;
        }
        assert!(!trial.out.is_empty(), "stuck");
        one_reply = !choices.percent(30);
        let replies = if one_reply { 1 } else { 1 + choices.below(3) };
        for _ in 0..replies.min(trial.out.len()) {
            // A step can have more to come only after its next action: each is given at most one reply.
            let step = trial.out[choices.below(trial.out.len())];
            trial.reply(step);
            if trial.out.contains(&step) {
                break;
            }
        }
    }
    trial.disturb(choices);
    assert_eq!(trial.run.engine.next_action(), None);
    trial.ends.len()
}

/// 100,000 graphs: the same steps at the same time in the same order, the same inputs, results kept as long as they are
/// wanted, the same response, never stuck; nothing moves for a result that nobody waits for.
#[test]
fn engine_agrees_with_the_oracle() {
    let steps: usize = (0..100_000).map(|seed| run_one(&mut Choices::Seed(seed))).sum();
    assert!(steps > 200_000, "only {steps} steps ran: the graphs are too small to show anything");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same on fewer graphs, which shrink when they fail.
    #[test]
    fn engine_agrees_with_the_oracle_shrinking(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        run_one(&mut Choices::Bytes(&bytes));
    }
}
