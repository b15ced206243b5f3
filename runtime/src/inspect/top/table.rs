//! Tables of `cellmesh top`: what comes first, how wide a column is, how a number is written.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use super::Sort;
use crate::inspect::graph::time;

/// A row, and what it may be sorted by.
pub(super) struct Row<const N: usize> {
    pub(super) rate: u64,
    pub(super) p99: Quantile,
    pub(super) errors: u64,
    pub(super) texts: [String; N],
}

impl<const N: usize> Row<N> {
    /// The most first; of the same, the busiest.
    fn order(&self, other: &Self, sort: Sort) -> Ordering {
        let first = match sort {
            Sort::Rate => Ordering::Equal,
            Sort::P99 => other.p99.seconds().total_cmp(&self.p99.seconds()),
            Sort::Errors => other.errors.cmp(&self.errors),
        };
        first.then(other.rate.cmp(&self.rate)).then_with(|| self.texts[0].cmp(&other.texts[0]))
    }
}

/// Nothing where there is nothing.
pub(super) fn write_table<const N: usize>(
    out: &mut String,
    head: [&str; N],
    mut table: Vec<Row<N>>,
    (sort, rows): (Sort, usize),
) {
    if table.is_empty() {
        return;
    }
    table.sort_by(|row, other| row.order(other, sort));
    let left_out = table.len().saturating_sub(rows);
    table.truncate(rows);
    let lines = std::iter::once(head.map(str::to_owned)).chain(table.into_iter().map(|row| row.texts));
    let lines: Vec<[String; N]> = lines.collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for line in &lines {
        let _ = write!(out, "{:<width$}", line[0], width = widths[0]);
        for (value, width) in line.iter().zip(widths).skip(1) {
            let _ = write!(out, "  {value:>width$}");
        }
        out.push('\n');
    }
    if left_out > 0 {
        let _ = writeln!(out, "and {left_out} more");
    }
    out.push('\n');
}

/// A time that a share of all stayed below.
#[derive(Debug, Clone, Copy)]
pub(super) enum Quantile {
    /// There were none.
    None,
    Seconds(f64),
    /// More than the last bound.
    Beyond(f64),
}

impl Quantile {
    /// To sort by: beyond a bound is behind it, and none is before all.
    fn seconds(self) -> f64 {
        match self {
            Self::None => -1.0,
            Self::Seconds(seconds) => seconds,
            Self::Beyond(_) => f64::INFINITY,
        }
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::Seconds(seconds) => f.write_str(&time(*seconds)),
            Self::Beyond(bound) => write!(f, "> {}", time(*bound)),
        }
    }
}

/// The time that so large a share stayed below, linear inside a bucket; beyond the last bound that is said.
///
/// Source: `histogram_quantile` of Prometheus.
pub(super) fn quantile(buckets: &[u64], bounds: &[f64], share: f64) -> Quantile {
    let all = buckets.iter().copied().fold(0, u64::saturating_add);
    if all == 0 {
        return Quantile::None;
    }
    // Counts of a second or an hour are far below 2^53.
    let wanted = all as f64 * share;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, bound) in buckets.iter().zip(bounds) {
        let count = *count as f64;
        if below + count >= wanted && count > 0.0 {
            return Quantile::Seconds(lower + (bound - lower) * ((wanted - below) / count));
        }
        (below, lower) = (below + count, *bound);
    }
    Quantile::Beyond(lower)
}

pub(super) fn rate(count: u64, seconds: f64) -> String {
    let rate = count as f64 / seconds;
    if rate >= 100.0 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}
