//! What "certain to have a result" means, tried out: every way in which steps can fail, at the worst possible time.

use std::collections::BTreeMap;

use super::super::{certain_before, check_respond_with, tree::Tree};
use crate::engine::tests::oracle::{Ends, picture};
use crate::testing::{Choices, Does, Sketch, draw_graph};
use crate::{Plan, StepResult};

/// At most so many steps that can fail: all ways in which they do are tried.
const FALLIBLE_MAX: usize = 6;

fn fallible(graph: &Sketch) -> Vec<String> {
    let can_fail = |step: &&Sketch| !step.is_group() && !matches!(step.does, Does::Requests(0));
    graph.all().into_iter().filter(can_fail).map(|step| step.id.clone()).collect()
}

/// All ways in which the steps of `graph` can end.
fn ways(graph: &Sketch) -> impl Iterator<Item = BTreeMap<String, bool>> {
    let steps = fallible(graph);
    (0..1_u32 << steps.len())
        .map(move |way| (0..).zip(&steps).map(|(i, id)| (id.clone(), way >> i & 1 == 1)).collect())
}

/// Whether `named` has ended whenever `step` starts: everything else is let go first.
fn has_always_ended(graph: &Sketch, named: &Sketch, step: &Sketch) -> bool {
    let inside: Vec<&str> = named.all().iter().map(|step| step.id.as_str()).collect();
    ways(graph).all(|way| {
        let mut ends = Ends::new();
        loop {
            let now = picture(graph, &ends);
            if now.states.contains_key(&step.id) {
                return now.ended(&named.id).is_some();
            }
            let next = now.running.iter().find(|id| !inside.contains(&id.as_str())).or(now.running.first());
            let Some(next) = next else { return true };
            ends.insert(next.clone(), (StepResult::skipped(), way[next]));
        }
    })
}

/// Whether `named` has a result whenever the root has ended without an error that counts.
fn has_always_a_result(graph: &Sketch, named: &Sketch) -> bool {
    ways(graph).all(|way| {
        let ends = way.into_iter().map(|(id, in_error)| (id, (StepResult::skipped(), in_error))).collect();
        let end = picture(graph, &ends);
        let (_, in_error) = end.ended(&graph.id).unwrap();
        (in_error && !graph.tolerant) || end.ended(&named.id).is_some()
    })
}

/// The rule accepts exactly those inputs and responses that are there in every case.
#[test]
fn certain_is_what_no_failure_and_no_timing_prevents() {
    let mut found = [[0; 2]; 2];
    for seed in 0..6000 {
        let choices = &mut Choices::Seed(seed);
        let graph = draw_graph(choices, 10, |_, _, _| false);
        let steps = graph.all();
        if fallible(&graph).len() > FALLIBLE_MAX {
            continue;
        }
        let plan = graph.plan();
        let tree = Tree::grow(&plan, 64).unwrap();
        let (named, step) = (choices.below(steps.len()), choices.below(steps.len()));
        let [named_index, step_index] = [named, step].map(|index| u32::try_from(index).unwrap());
        // What is over at once has ended before anything can be seen: the rule goes by places, not by that.
        let takes_time = |step: &Sketch| !fallible(step).is_empty();
        if !steps[step].is_group() && takes_time(steps[step]) && takes_time(steps[named]) {
            let accepted = certain_before(&plan, &tree, named_index, step_index).is_ok();
            let names = (&steps[named].id, &steps[step].id);
            assert_eq!(
                accepted,
                has_always_ended(&graph, steps[named], steps[step]),
                "{names:?} in {graph:#?}"
            );
            found[0][usize::from(accepted)] += 1;
        }
        let plan = Plan { respond_with: Some(named_index), ..plan };
        let accepted = check_respond_with(&plan, &tree).is_ok();
        assert_eq!(accepted, has_always_a_result(&graph, steps[named]), "{} in {graph:#?}", steps[named].id);
        found[1][usize::from(accepted)] += 1;
    }
    assert!(found.as_flattened().iter().all(|count| *count > 50), "one side is hardly tried: {found:?}");
}
