use bytes::Bytes;

use super::*;
use crate::{Limits, Node, Plan, Span};

/// A single internal step gives the response.
#[test]
fn single_step_is_the_response() {
    let node = Node {
        id: Span { start: 0, len: 1 },
        work: Work::Internal(FunctionCall { function: 7, args: Span::default() }),
        inputs: Span::default(),
        tolerant: false,
    };
    let plan = Plan { nodes: vec![node], arena: Bytes::from_static(b"a"), ..Plan::default() };
    let mut engine = Engine::start(plan.validate(&Limits::default()).unwrap());
    assert!(matches!(engine.next_action(), Some(Action::RunStep { function: 7, .. })));
    engine.on_result(StepIndex(0), StepResult::skipped()).unwrap();
    assert!(matches!(engine.next_action(), Some(Action::Done(_))));
    assert_eq!(engine.next_action(), None);
}
