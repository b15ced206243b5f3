//! Sizes, times and shares as config files write them: `"16MiB"`, `"250ms"`, `0.2`.
//!
//! - Sizes and times are text with a unit only. A bare number is refused, because a reader cannot tell what it counts.
//! - Integers only: `"1.5s"` is `"1500ms"`.
//! - What is parsed is printed the same way, so `config show` can be pasted back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

/// A number of bytes: `"512B"`, `"16KiB"`, `"16MiB"`, `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, in whole milliseconds: `"250ms"`, `"30s"`, `"5m"`, `"1h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

/// A share of a whole, from 0 to 1, in thousandths: `0.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

/// Why a text is no [`ByteSize`] or [`TimeSpan`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{found}\": must be a whole number and a unit, such as {example}")]
pub struct UnitError {
    found: String,
    example: &'static str,
}

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SIZE_EXAMPLE: &str = "\"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"";
const TIME_UNITS_MS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const TIME_EXAMPLE: &str = "\"250ms\", \"30s\", \"5m\" or \"1h\"";

impl ByteSize {
    /// `count` mebibytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// `count` kibibytes.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// As a length in memory; a size that no address can reach becomes the largest that can.
    #[must_use]
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl TimeSpan {
    /// `count` seconds.
    #[must_use]
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// `count` milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }
}

impl Ratio {
    /// `count` thousandths; more than a whole is a whole.
    #[must_use]
    pub const fn thousandths(count: u32) -> Self {
        if count > 1000 { Self(1000) } else { Self(count) }
    }

    /// This share of `count`, rounded down.
    #[must_use]
    pub fn of(self, count: u64) -> u64 {
        count / 1000 * u64::from(self.0) + count % 1000 * u64::from(self.0) / 1000
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        scaled(text, &SIZE_UNITS).map(Self).ok_or_else(|| UnitError::of(text, SIZE_EXAMPLE))
    }
}

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        scaled(text, &TIME_UNITS_MS)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| UnitError::of(text, TIME_EXAMPLE))
    }
}

impl UnitError {
    fn of(found: &str, example: &'static str) -> Self {
        Self { found: found.to_owned(), example }
    }
}

/// The number times its unit; `None` for no number, no known unit, or a product past 2^64.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &SIZE_UNITS)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS_MS)
    }
}

/// In the largest unit that leaves a whole number.
fn write_scaled(f: &mut fmt::Formatter<'_>, count: u64, units: &[(&str, u64)]) -> fmt::Result {
    let whole = |factor: u64| count.is_multiple_of(factor) && count >= factor;
    let (unit, factor) = units.iter().find(|(_, factor)| whole(*factor)).unwrap_or(&units[units.len() - 1]);
    write!(f, "{}{unit}", count / factor)
}

/// Reads one text value through [`FromStr`]; anything else is refused with an example.
struct UnitVisitor<T> {
    example: &'static str,
    made: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text with a unit, such as {}", self.example)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(UnitVisitor { example: SIZE_EXAMPLE, made: std::marker::PhantomData })
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(UnitVisitor { example: TIME_EXAMPLE, made: std::marker::PhantomData })
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(D::Error::invalid_value(Unexpected::Float(share), &"a share from 0.0 to 1.0"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        Ok(Self((share * 1000.0).round() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit scales as its name says, and printing gives the text that was read.
    #[test]
    fn units_scale_and_print_back() {
        for (text, bytes) in [("7B", 7), ("16KiB", 16 << 10), ("16MiB", 16 << 20), ("1GiB", 1 << 30)] {
            let size: ByteSize = text.parse().expect("a valid size");
            assert_eq!((size.0, size.to_string().as_str()), (bytes, text));
        }
        for (text, ms) in [("1ms", 1), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("0ms", 0)] {
            let span: TimeSpan = text.parse().expect("a valid time");
            assert_eq!((span.0.as_millis(), span.to_string().as_str()), (ms, text));
        }
    }

    /// A number without a unit, a foreign unit, a sign, a fraction and an overflow are all refused.
    #[test]
    fn unclear_texts_are_refused() {
        for text in ["", "16", "16MB", "-1B", "1.5KiB", "MiB", " 1B", "1 B", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?} was accepted");
        }
        for text in ["", "30", "30sec", "-1s", "1.5s", "s"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text:?} was accepted");
        }
    }

    /// The message says what was found and what would be right.
    #[test]
    fn message_names_an_example() {
        let error = "30".parse::<TimeSpan>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"30\": must be a whole number and a unit, such as \"250ms\", \"30s\", \"5m\" or \"1h\""
        );
        let error = serde_json::from_str::<ByteSize>("16").unwrap_err().to_string();
        assert!(error.contains("a text with a unit"), "{error}");
    }
    /// A share is a number from 0 to 1, and of a count it is rounded down.
    #[test]
    fn shares_are_rounded_down() {
        let read = |text| serde_json::from_str::<Ratio>(text);
        for (text, of_99) in [("0", 0), ("0.2", 19), ("0.999", 98), ("1", 99), ("1.0", 99)] {
            assert_eq!(read(text).expect("a share").of(99), of_99, "{text}");
        }
        assert_eq!(Ratio::thousandths(500).of(u64::MAX), u64::MAX / 2);
        for text in ["1.1", "-0.1", "\"0.2\""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
