//! Quantities as Kubernetes writes them: `"500m"`, `"2"`, `"1.5Gi"`, `"1e9"`. Pure.
//!
//! - Held exactly, in billionths: that is as fine as Kubernetes itself goes.
//! - What it would round up or refuse is refused here: processors in less than thousandths, parts of a byte, nothing at all.
//!
//! Source: Kubernetes, "Quantity" of the API reference, and "Resource units" of its documentation.

use std::fmt;

/// Billionths in one.
const NANOS: u128 = 1_000_000_000;

/// Digits of a number: more than a 64-bit count of bytes has.
const DIGITS_MAX: usize = 18;

/// What there is more of than in any machine: 2^60 bytes, or processors.
const ONES_MAX: u128 = 1 << 60;

/// Suffixes, and what they stand for, in billionths. The longer ones first.
const SUFFIXES: [(&str, u128); 14] = [
    ("Ki", NANOS << 10),
    ("Mi", NANOS << 20),
    ("Gi", NANOS << 30),
    ("Ti", NANOS << 40),
    ("Pi", NANOS << 50),
    ("Ei", NANOS << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", NANOS * 1_000),
    ("M", NANOS * 1_000_000),
    ("G", NANOS * 1_000_000_000),
    ("T", NANOS * 1_000_000_000_000),
    ("P", NANOS * 1_000_000_000_000_000),
];

/// What a quantity is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Processors.
    Cpu,
    /// Bytes.
    Memory,
}

impl Resource {
    /// The least that there can be of it, in billionths; all else is a multiple.
    const fn grain(self) -> u128 {
        match self {
            Self::Cpu => NANOS / 1000,
            Self::Memory => NANOS,
        }
    }

    /// What would be right where something is wrong.
    #[must_use]
    pub const fn right(self) -> &'static str {
        match self {
            Self::Cpu => "write processors as Kubernetes does, such as \"500m\" or \"2\"",
            Self::Memory => "write bytes as Kubernetes does, such as \"64Mi\" or \"1Gi\"",
        }
    }
}

/// An amount of processors or memory, more than none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    nanos: u128,
}

impl Quantity {
    /// What `text` says, if it is an amount of this resource.
    #[must_use]
    pub fn parse(of: Resource, text: &str) -> Option<Self> {
        let nanos = nanos(text)?;
        let fits = nanos > 0 && nanos <= ONES_MAX * NANOS && nanos.is_multiple_of(of.grain());
        fits.then(|| Self { text: text.to_owned(), nanos })
    }

    /// All of them together; nothing of nothing.
    #[must_use]
    pub fn sum<'a>(of: Resource, all: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let first = all.next()?;
        // Not beyond 2^128: there are at most 1024 services, with 2^90 each.
        Some(all.fold(first.clone(), |sum, one| Self::written(of, sum.nanos + one.nanos)))
    }

    /// Whether it is more than `other`.
    #[must_use]
    pub fn exceeds(&self, other: &Self) -> bool {
        self.nanos > other.nanos
    }

    fn written(of: Resource, nanos: u128) -> Self {
        let units: &[&str] = match of {
            Resource::Cpu => &[""],
            Resource::Memory => &["Gi", "Mi", "Ki", ""],
        };
        let in_unit = |suffix: &&str| {
            let unit = unit(suffix)?;
            nanos.is_multiple_of(unit).then(|| format!("{}{suffix}", nanos / unit))
        };
        let text = units.iter().find_map(in_unit).unwrap_or_else(|| format!("{}m", nanos / (NANOS / 1000)));
        Self { text, nanos }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unit(suffix: &str) -> Option<u128> {
    match suffix {
        "" => Some(NANOS),
        "E" => Some(NANOS * 1_000_000_000_000_000_000),
        _ => SUFFIXES.iter().find(|(known, _)| *known == suffix).map(|(_, unit)| *unit),
    }
}

/// Billionths, if they are a whole number of them.
fn nanos(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || digits.len() > DIGITS_MAX || part.contains('.') {
        return None;
    }
    let parts = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let (unit, divisor) = match unit(suffix) {
        Some(unit) => (unit, parts),
        None => with_exponent(suffix, parts)?,
    };
    let nanos = digits.parse::<u128>().ok()?.checked_mul(unit)?;
    nanos.is_multiple_of(divisor).then(|| nanos / divisor)
}

/// Of `e3` or `E-3`: the unit, and what to divide by.
fn with_exponent(suffix: &str, parts: u128) -> Option<(u128, u128)> {
    /// Further away from one nothing fits.
    const EXPONENT_MAX: i32 = 18;
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent) {
        return None;
    }
    let power = 10_u128.pow(exponent.unsigned_abs());
    if exponent < 0 { Some((NANOS, parts.checked_mul(power)?)) } else { Some((NANOS * power, parts)) }
}

#[cfg(test)]
mod tests {
    use super::Resource::{Cpu, Memory};
    use super::*;

    fn quantity(of: Resource, text: &str) -> Quantity {
        Quantity::parse(of, text).unwrap_or_else(|| panic!("{text} is a quantity"))
    }

    /// Each way to write the same amount is the same amount, and is shown as it was written.
    #[test]
    fn ways_to_write_an_amount_are_one() {
        for texts in [["1", "1000m"], ["0.5", "500m"], [".25", "250m"], ["2.", "2000000u"], ["1e1", "10"]] {
            let [one, other] = texts.map(|text| quantity(Cpu, text));
            assert_eq!((one.nanos, one.to_string()), (other.nanos, texts[0].into()), "{texts:?}");
        }
        for texts in [["1Gi", "1024Mi"], ["1.5Ki", "1536"], ["1E", "1e18"], ["128974848", "128974848000m"]] {
            let [one, other] = texts.map(|text| quantity(Memory, text));
            assert_eq!(one.nanos, other.nanos, "{texts:?}");
        }
    }

    /// What Kubernetes refuses, what it would round, and none at all.
    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "m",
            "1 Gi",
            "1GB",
            "1gi",
            "-1",
            "0",
            "0m",
            "1.2.3",
            "1e",
            "e3",
            "0.5m",
            "1m5",
            "9999999999999999999",
        ] {
            assert_eq!(Quantity::parse(Cpu, text), None, "{text:?}");
        }
        for text in ["100m", "0.5", "1.0001Ki", "8Ei", "64MB", "64mi", "1e99"] {
            assert_eq!(Quantity::parse(Memory, text), None, "{text:?}");
        }
    }

    /// Sums are exact, in the largest unit that shows them so.
    #[test]
    fn sums_are_exact() {
        let sum = |of, texts: &[&str]| {
            let all: Vec<Quantity> = texts.iter().map(|text| quantity(of, text)).collect();
            Quantity::sum(of, &all).map(|sum| sum.to_string())
        };
        assert_eq!(sum(Cpu, &["100m", "0.5", "900m"]).as_deref(), Some("1500m"));
        assert_eq!(sum(Cpu, &["500m", "1.5"]).as_deref(), Some("2"));
        assert_eq!(sum(Memory, &["64Mi", "1Gi"]).as_deref(), Some("1088Mi"));
        assert_eq!(sum(Memory, &["1k", "1Ki"]).as_deref(), Some("2024"));
        assert_eq!(sum(Memory, &["1000M"]).as_deref(), Some("1000M"));
        assert_eq!(sum(Memory, &[]), None);
    }
}
