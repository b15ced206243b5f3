//! The critical path of a graph: the steps that an answer waited for, one behind the other.
//!
//! Of an `order` all children count, of a `pipe` the one that ended last: had another been faster, nothing would have come
//! sooner.

use std::collections::HashMap;
use std::time::Duration;

use super::record::{PlanShape, RequestRecord, ShapeKind, StepShape};

impl RequestRecord {
    /// Ids of the steps on it, in the order in which they ran. Empty if the handler answered by itself.
    #[must_use]
    pub fn critical_path(&self) -> Vec<&str> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let mut ends: HashMap<&str, Duration> = HashMap::new();
        for span in &self.spans {
            if let Some(step) = &span.step {
                let end = ends.entry(step).or_default();
                *end = (*end).max(span.start + span.took);
            }
        }
        let steps = plan.steps.iter().map(|step| (&*step.id, step)).collect();
        let mut path = Vec::new();
        Walk { plan, steps, ends }.path(&plan.root, &mut path);
        path
    }
}

struct Walk<'r> {
    plan: &'r PlanShape,
    steps: HashMap<&'r str, &'r StepShape>,
    ends: HashMap<&'r str, Duration>,
}

impl<'r> Walk<'r> {
    /// Adds the steps below `id` that count. The depth is that of a plan, which was validated.
    fn path(&self, id: &str, path: &mut Vec<&'r str>) {
        let Some(step) = self.steps.get(id) else { return };
        match step.kind {
            ShapeKind::Order => step.children.iter().for_each(|child| self.path(child, path)),
            ShapeKind::Pipe => {
                let last = step.children.iter().max_by_key(|child| self.end(child));
                last.into_iter().for_each(|child| self.path(child, path));
            }
            ShapeKind::Egress | ShapeKind::Builder | ShapeKind::Internal | ShapeKind::Prepared => {
                if self.ends.contains_key(&*step.id) {
                    path.push(&step.id);
                }
            }
        }
    }

    /// When a step ended; zero of one that never began.
    fn end(&self, id: &str) -> Duration {
        let own = self.ends.get(id).copied().unwrap_or_default();
        let below = self.steps.get(id).map_or(&[][..], |step| &step.children);
        debug_assert!(below.len() <= self.plan.steps.len() + self.plan.steps_left_out, "a tree");
        below.iter().map(|child| self.end(child)).fold(own, Duration::max)
    }
}
