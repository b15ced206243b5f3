//! Numbers as work models write them: whole ones may have a fraction of zero.

use serde::{Deserialize, Serialize};

/// A number of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct Count(u32);

impl Count {
    pub(crate) const fn new(count: u32) -> Self {
        Self(count)
    }

    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<f64> for Count {
    type Error = String;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number that fits"
    )]
    fn try_from(number: f64) -> Result<Self, String> {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            return Ok(Self(number as u32));
        }
        Err(format!("{number}: must be a whole number from 0 to {}", u32::MAX))
    }
}

/// `[least, most]`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[Count; 2]", into = "[Count; 2]")]
pub(crate) struct Range {
    least: Count,
    most: Count,
}

impl Range {
    /// `least` must not be more than `most`.
    pub(crate) const fn of(least: u32, most: u32) -> Self {
        Self { least: Count(least), most: Count(most) }
    }

    /// A number from the range, each with the same probability.
    pub(crate) fn draw(self) -> u32 {
        fastrand::u32(self.least.0..=self.most.0)
    }
}

impl TryFrom<[Count; 2]> for Range {
    type Error = String;

    fn try_from([least, most]: [Count; 2]) -> Result<Self, String> {
        if least.0 <= most.0 {
            return Ok(Self { least, most });
        }
        Err(format!("[{}, {}]: the first must not be more than the second", least.0, most.0))
    }
}

impl From<Range> for [Count; 2] {
    fn from(range: Range) -> Self {
        [range.least, range.most]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers in any spelling, and nothing else.
    #[test]
    fn counts_are_whole_numbers() {
        let read = |json: &str| {
            serde_json::from_str::<Count>(json).map(Count::get).map_err(|error| error.to_string())
        };
        assert_eq!(
            (read("7"), read("7.0"), read("0"), read("4294967295")),
            (Ok(7), Ok(7), Ok(0), Ok(4_294_967_295))
        );
        for wrong in ["-1", "0.5", "4294967296", "1e300", "true", "\"7\""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    /// Both ends are drawn, nothing outside is.
    #[test]
    fn ranges_include_both_ends() {
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|_| Range::of(5, 7).draw()).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [5, 6, 7]);
        assert!(
            serde_json::from_str::<Range>("[7, 5]").unwrap_err().to_string().contains("[7, 5]: the first")
        );
    }

    /// What travels as arguments comes back the same.
    #[test]
    fn numbers_survive_the_way() {
        let range = Range::of(3, 4_000_000_000);
        assert_eq!(serde_json::from_str::<Range>(&serde_json::to_string(&range).unwrap()).unwrap(), range);
    }
}
