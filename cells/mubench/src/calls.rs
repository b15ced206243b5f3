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

/// The calls of a request without a trace, group by group. The query goes to every callee.
pub(crate) fn draw(
    groups: &'static [CalleeGroup],
    query: &str,
) -> impl Iterator<Item = impl Iterator<Item = Call>> {
    let call = |callee: &'static Callee| Call::get(with_query(Cow::Borrowed(&callee.url), query));
    groups.iter().map(move |group| group.draw().filter(|callee| callee.is_called()).map(call))
}

impl CalleeGroup {
    /// All callees in order, or as many as are wanted at random.
    fn draw(&self) -> impl Iterator<Item = &Callee> {
        let drawn = (self.called_max < self.callees.len()).then(|| {
            let mut callees: Vec<_> = self.callees.iter().collect();
            fastrand::shuffle(&mut callees);
            callees.truncate(self.called_max);
            callees
        });
        let all = if drawn.is_none() { &self.callees[..] } else { &[] };
        all.iter().chain(drawn.into_iter().flatten())
    }
}

impl Callee {
    fn is_called(&self) -> bool {
        self.probability >= 1.0 || fastrand::f64() < self.probability
    }
}

/// `url?query`, or `url` where there is no query; behind a query that the URL has already.
pub(crate) fn with_query(url: Cow<'static, str>, query: &str) -> Cow<'static, str> {
    let joint = if url.contains('?') { '&' } else { '?' };
    if query.is_empty() { url } else { format!("{url}{joint}{query}").into() }
}

/// Puts the groups at the same time, the calls of each one after the other. A call that fails keeps no
/// other from being made: whoever looks at the results decides what it means.
pub(crate) fn put(
    ctx: &mut Context,
    groups: impl Iterator<Item = impl Iterator<Item = Call>>,
) -> Vec<StepRef> {
    let mut steps = Vec::new();
    ctx.parallel(|ctx| {
        for group in groups {
            ctx.sequence(|ctx| steps.extend(group.map(|call| ctx.step(Step::call(call).tolerant()))));
        }
    });
    steps
}
