//! Alternatives that take turns: whatever the machine does meanwhile, it does to all of them.

use std::time::Instant;

use anyhow::Result;

/// How often everything is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    /// Rounds; in each of them every alternative has one turn.
    pub(crate) rounds: usize,
    /// Calls in one turn; enough of them that reading the clock does not count.
    pub(crate) calls_per_turn: u32,
}

/// What one alternative took: ns per call, one figure per round, in the order of the rounds.
pub(crate) type Series = Vec<f64>;

/// Runs `alternatives` in turns; the order moves on by one each round, because who runs after whom
/// matters to caches. The first round warms up and is not counted.
pub(crate) fn take_turns(
    rounds: Rounds,
    alternatives: &mut [&mut dyn FnMut() -> Result<()>],
) -> Result<Vec<Series>> {
    let mut series = vec![Vec::with_capacity(rounds.rounds); alternatives.len()];
    for round in 0..=rounds.rounds {
        for turn in 0..alternatives.len() {
            let index = (round + turn) % alternatives.len();
            let ns = time(rounds.calls_per_turn, alternatives[index])?;
            if round > 0 {
                series[index].push(ns);
            }
        }
    }
    Ok(series)
}

fn time(calls: u32, call: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls))
}

/// Nearest-rank quantile; `q` from 0 to 1. NaN of nothing.
pub(crate) fn quantile(series: &[f64], q: f64) -> f64 {
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the length of the series"
    )]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Median, and in brackets the least and the most, for a report.
pub(crate) fn spread(series: &[f64]) -> String {
    let digits = if quantile(series, 0.5) < 100.0 { 2 } else { 0 };
    let [least, middle, most] = [0.0, 0.5, 1.0].map(|q| quantile(series, q));
    format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// The middle one of the quotients of each round.
pub(crate) fn median_ratio(of: &[f64], to: &[f64]) -> f64 {
    let ratios: Series = of.iter().zip(to).map(|(of, to)| of / to).collect();
    quantile(&ratios, 0.5)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Each alternative goes first equally often.
    #[test]
    fn order_moves_on_each_round() {
        let log = RefCell::new(String::new());
        let turn = |name: char| {
            let log = &log;
            move || {
                log.borrow_mut().push(name);
                Ok(())
            }
        };
        let (mut a, mut b, mut c) = (turn('a'), turn('b'), turn('c'));
        let rounds = Rounds { rounds: 2, calls_per_turn: 1 };
        let series = take_turns(rounds, &mut [&mut a, &mut b, &mut c]).unwrap();
        assert_eq!(*log.borrow(), "abcbcacab");
        assert!(series.iter().all(|series| series.len() == 2));
    }

    /// One odd round changes neither.
    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(quantile(&[3.0, 1.0, 900.0], 0.5), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 0.9), 9.0);
        assert_eq!(median_ratio(&[4.0, 2.0, 800.0], &[2.0, 1.0, 1.0]), 2.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
