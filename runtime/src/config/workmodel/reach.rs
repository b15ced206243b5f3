//! How far calls of a work model go: services that call each other in a circle, and ways that are longer than a call may go.
//!
//! - A way counts whether or not a request takes it: probabilities and draws may leave calls out.

/// Who calls whom, by their places in the file.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Vec<usize>>);

/// The way of a call that will be refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TooFar {
    /// The first service is the last again.
    Circle(Vec<usize>),
    /// The longest way from a service that nobody calls, or from any.
    Way(Vec<usize>),
}

/// Of each service: not looked at, on the way that is looked at, or how long the longest way from it is and who is next on it.
#[derive(Debug, Clone, Copy)]
enum Seen {
    Not,
    OnTheWay,
    Longest { calls: usize, next: Option<usize> },
}

impl Calls {
    pub(super) fn of(services: usize) -> Self {
        Self(vec![Vec::new(); services])
    }

    pub(super) fn add(&mut self, caller: usize, callee: usize) {
        if !self.0[caller].contains(&callee) {
            self.0[caller].push(callee);
        }
    }

    /// The first circle that there is, or else the longest way, if it has more than `calls_max` calls.
    ///
    /// - cost: each call is looked at once, without recursion.
    pub(super) fn too_far(&self, calls_max: usize) -> Option<TooFar> {
        let mut seen = vec![Seen::Not; self.0.len()];
        for start in 0..self.0.len() {
            if matches!(seen[start], Seen::Not)
                && let Some(circle) = self.look(start, &mut seen)
            {
                return Some(TooFar::Circle(circle));
            }
        }
        let calls_from = |at: &usize| match seen[*at] {
            Seen::Longest { calls, .. } => calls,
            Seen::Not | Seen::OnTheWay => 0,
        };
        // Of several that are as far, the first in the file.
        let start = (0..self.0.len()).rev().max_by_key(calls_from)?;
        if calls_from(&start) <= calls_max {
            return None;
        }
        let next = |at: &usize| match seen[*at] {
            Seen::Longest { next, .. } => next,
            Seen::Not | Seen::OnTheWay => None,
        };
        Some(TooFar::Way(std::iter::successors(Some(start), next).collect()))
    }

    /// Looks at all that `start` leads to; the circle that it leads into, if there is one.
    fn look(&self, start: usize, seen: &mut [Seen]) -> Option<Vec<usize>> {
        // Services on the way, each with the number of its callees that were looked at.
        let mut way = vec![(start, 0)];
        seen[start] = Seen::OnTheWay;
        while let Some((at, looked_at)) = way.last_mut() {
            let (at, callee) = (*at, self.0[*at].get(*looked_at).copied());
            *looked_at += 1;
            match callee.map(|callee| (callee, seen[callee])) {
                Some((callee, Seen::Not)) => {
                    seen[callee] = Seen::OnTheWay;
                    way.push((callee, 0));
                }
                Some((callee, Seen::OnTheWay)) => {
                    let circle = way.iter().map(|(at, _)| *at).skip_while(|at| *at != callee);
                    return Some(circle.chain([callee]).collect());
                }
                Some((_, Seen::Longest { .. })) => {}
                None => {
                    seen[at] = self.longest(at, seen);
                    way.pop();
                }
            }
        }
        None
    }

    /// The longest way from a service whose callees have all been looked at.
    fn longest(&self, at: usize, seen: &[Seen]) -> Seen {
        let calls = |callee: &usize| match seen[*callee] {
            Seen::Longest { calls, .. } => calls + 1,
            Seen::Not | Seen::OnTheWay => 0,
        };
        let next = self.0[at].iter().rev().max_by_key(|callee| calls(callee)).copied();
        Seen::Longest { calls: next.as_ref().map_or(0, calls), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_far(services: usize, calls: &[(usize, usize)], calls_max: usize) -> Option<TooFar> {
        let mut graph = Calls::of(services);
        calls.iter().for_each(|(caller, callee)| graph.add(*caller, *callee));
        graph.too_far(calls_max)
    }

    /// A circle is found wherever it begins, a service that calls itself among them; two ways to one service are none.
    #[test]
    fn circles_are_found() {
        let circle = |way: &[usize]| Some(TooFar::Circle(way.to_vec()));
        assert_eq!(too_far(2, &[(0, 1), (1, 0)], 9), circle(&[0, 1, 0]));
        assert_eq!(too_far(1, &[(0, 0)], 9), circle(&[0, 0]));
        assert_eq!(too_far(4, &[(0, 1), (1, 2), (2, 3), (3, 1)], 9), circle(&[1, 2, 3, 1]));
        assert_eq!(too_far(4, &[(3, 1), (1, 3)], 9), circle(&[1, 3, 1]));
        assert_eq!(too_far(4, &[(0, 1), (0, 2), (1, 3), (2, 3), (0, 1)], 9), None);
    }

    /// The longest way counts, and one of as many calls as may be is not too far.
    #[test]
    fn long_ways_are_found() {
        let calls = [(0, 3), (0, 1), (1, 2), (2, 3), (4, 0)];
        assert_eq!(too_far(5, &calls, 4), None);
        assert_eq!(too_far(5, &calls, 3), Some(TooFar::Way(vec![4, 0, 1, 2, 3])));
        assert_eq!(too_far(0, &[], 0), None);
    }

    /// A chain of many services needs no stack.
    #[test]
    fn long_chain_is_walked() {
        let calls: Vec<_> = (1..100_000).map(|at| (at - 1, at)).collect();
        let Some(TooFar::Way(way)) = too_far(100_000, &calls, 16) else { panic!("it is too long") };
        assert_eq!(way.len(), 100_000);
    }
}
