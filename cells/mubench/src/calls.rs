//! Which services are called, and how the calls are put into the graph.

use std::borrow::Cow;

use cellmesh_guest::prelude::*;

/// A callee of the work model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Callee {
    pub(crate) url: String,
    /// With which it is called, from 0 to 1.
    pub(crate) probability: f64,
}

/// A group of the work model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CalleeGroup {
    pub(crate) callees: Vec<Callee>,
    /// If less than the number of callees, so many are drawn.
    pub(crate) called_max: usize,
}

/// Calls to make one after the other.
pub(crate) type Group = Vec<Call>;

/// The calls of a request without a trace. The query goes to every callee.
pub(crate) fn draw(groups: &'static [CalleeGroup], query: &str) -> Vec<Group> {
    let call = |callee: &'static Callee| Call::get(with_query(Cow::Borrowed(&callee.url), query));
    groups.iter().map(|group| group.draw().into_iter().map(call).collect()).collect()
}

impl CalleeGroup {
    /// All callees in order, or as many as are wanted at random; then each with its probability.
    fn draw(&self) -> Vec<&Callee> {
        let mut callees: Vec<_> = self.callees.iter().collect();
        if self.called_max < callees.len() {
            fastrand::shuffle(&mut callees);
            callees.truncate(self.called_max);
        }
        callees.retain(|callee| fastrand::f64() < callee.probability);
        callees
    }
}

/// `url?query`, or `url` where there is no query.
pub(crate) fn with_query(url: Cow<'static, str>, query: &str) -> Cow<'static, str> {
    if query.is_empty() { url } else { format!("{url}?{query}").into() }
}

/// Puts the groups at the same time, the calls of each one after the other. A call that fails keeps no other from being
/// made: whoever looks at the results decides what it means.
pub(crate) fn put(ctx: &mut Context, groups: Vec<Group>) -> Vec<StepRef> {
    let mut steps = Vec::with_capacity(groups.iter().map(Vec::len).sum());
    ctx.parallel(|ctx| {
        for group in groups {
            ctx.sequence(|ctx| {
                steps.extend(group.into_iter().map(|call| ctx.step(Step::call(call).tolerant())))
            });
        }
    });
    steps
}
