//! W3C Trace Context: who caused a request, and whether somebody wants to see it.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, version 00.

use std::fmt;

/// Bytes of `00-<trace id>-<span id>-<flags>`.
const LEN: usize = 55;

/// What a `traceparent` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Of all that one request of a client causes; never 0.
    pub trace_id: u128,
    /// The span that made this request; never 0.
    pub span_id: u64,
    /// Whether the caller keeps its part.
    pub sampled: bool,
}

/// The ids of a request: those of its own span are given to what it causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Of all that one request of a client causes; never 0.
    pub trace_id: u128,
    /// Of this request; never 0.
    pub span_id: u64,
}

/// The value of a `traceparent` header.
#[derive(Debug, Clone, Copy)]
pub struct Traceparent {
    /// Of all that one request of a client causes.
    pub trace_id: u128,
    /// The span that makes the request.
    pub span_id: u64,
    /// Whether that is kept.
    pub sampled: bool,
}

impl Parent {
    /// Reads the value of a header. One that breaks a rule is as good as none.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LEN)?;
        let [version, trace_id, span_id, flags] = fields(known)?;
        // A later version may say more behind a hyphen; 00 must not.
        let ends_well =
            if version == 0 { rest.is_empty() } else { matches!(rest.first(), None | Some(b'-')) };
        if version == 0xff || !ends_well || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, sampled: flags & 1 == 1 })
    }
}

fn fields(known: &[u8]) -> Option<[u128; 4]> {
    let hyphens = [2, 35, 52];
    if hyphens.iter().any(|place| known[*place] != b'-') {
        return None;
    }
    Some([hex(&known[..2])?, hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?])
}

/// Lower case only: the specification says so.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl Ids {
    /// New ones, or, below a parent, in its trace.
    #[must_use]
    pub fn below(parent: Option<Parent>, random: &mut fastrand::Rng) -> Self {
        let trace_id = parent.map_or_else(|| random.u128(1..), |parent| parent.trace_id);
        Self { trace_id, span_id: random.u64(1..) }
    }

    /// The id of one of its parts: the same for the same `number`, another for each.
    #[must_use]
    pub fn part(&self, number: usize) -> u64 {
        // SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) over a counter.
        let mut mixed = self.span_id.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).max(1)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What is read is written again.
    #[test]
    fn header_is_read_and_written() {
        let Parent { trace_id, span_id, sampled } = Parent::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((span_id, sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(Traceparent { trace_id, span_id, sampled }.to_string(), EXAMPLE);
        assert!(!Parent::parse(EXAMPLE.replace("-01", "-00").as_bytes()).unwrap().sampled);
        // Flags that nobody knows yet say nothing about this one.
        assert!(Parent::parse(EXAMPLE.replace("-01", "-ff").as_bytes()).unwrap().sampled);
    }

    /// A later version may be longer; nothing else may be otherwise.
    #[test]
    fn headers_that_break_a_rule_are_none() {
        assert!(Parent::parse(EXAMPLE.replacen("00", "cc", 1).as_bytes()).is_some());
        assert!(Parent::parse((EXAMPLE.replacen("00", "cc", 1) + "-what").as_bytes()).is_some());
        for broken in [
            String::new(),
            EXAMPLE[1..].into(),
            EXAMPLE.to_owned() + "-what",
            EXAMPLE.replacen("00", "cc", 1) + "what",
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replace('-', "_"),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            EXAMPLE.replace('f', "g"),
        ] {
            assert_eq!(Parent::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    /// Parts of a request do not share an id, nor have they that of the request.
    #[test]
    fn parts_have_ids_of_their_own() {
        let ids = Ids::below(Parent::parse(EXAMPLE.as_bytes()), &mut fastrand::Rng::with_seed(1));
        assert_eq!(ids.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let parts: std::collections::BTreeSet<u64> = (0..1000).map(|number| ids.part(number)).collect();
        assert_eq!(parts.len(), 1000);
        assert!(!parts.contains(&ids.span_id) && !parts.contains(&0));
    }
}
