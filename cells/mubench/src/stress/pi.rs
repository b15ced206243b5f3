//! Digits of pi with whole numbers. Depends on nothing else here: the benchmark compiles it natively.

use dashu_int::UBig;
use dashu_int::ops::DivRem;

/// The decimal digits of pi, one after the other, without end.
///
/// The unbounded spigot: pi is a composition of infinitely many maps `x -> (k x + 2 (2k + 1)) / (2k + 1)`.
/// The composition so far maps `x` to `(q x + r) / t`, and maps everything that may follow to something
/// between its values at 3 and at 4. Where both have the same whole part that is the next digit; else one
/// more map is composed.
///
/// Kept instead of `r` is `u = 3q + r`, the numerator at 3: it is never negative, and at 4 it is `u + q`.
///
/// Source: Gibbons, "Unbounded Spigot Algorithms for the Digits of Pi", American Mathematical Monthly 113
/// (2006).
pub(crate) struct Pi {
    q: UBig,
    u: UBig,
    t: UBig,
    k: u32,
}

impl Pi {
    pub(crate) fn new() -> Self {
        Self { q: UBig::ONE, u: UBig::from(3_u8), t: UBig::ONE, k: 1 }
    }

    /// The digit that is certain, if one is. Taking it multiplies what is left by ten.
    fn certain_digit(&mut self) -> Option<u8> {
        if self.q >= self.t {
            return None;
        }
        let (digit, rest) = (&self.u).div_rem(&self.t);
        if &rest + &self.q >= self.t {
            return None;
        }
        self.u = rest * 10_u8;
        self.q *= 10_u8;
        Some(u8::try_from(digit).expect("the whole part of what lies between 0 and 10"))
    }

    fn compose_next_map(&mut self) {
        let x = 2 * self.k + 1;
        self.u *= x;
        self.u += &self.q * (self.k - 1);
        self.q *= self.k;
        self.t *= x;
        self.k += 1;
    }
}

impl Iterator for Pi {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        loop {
            if let Some(digit) = self.certain_digit() {
                return Some(digit);
            }
            self.compose_next_map();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machin's formula with whole numbers: `16 arctan(1/5) - 4 arctan(1/239)`, scaled by a power of ten.
    fn machin(digits: usize) -> String {
        let one = UBig::from(10_u8).pow(digits + 10);
        let arctan_of_inverse = |x: u32| {
            let (mut power, mut plus, mut minus) = (&one / x, UBig::ZERO, UBig::ZERO);
            for n in (1_u32..).step_by(2) {
                if power == UBig::ZERO {
                    break;
                }
                if n % 4 == 1 {
                    plus += &power / n
                } else {
                    minus += &power / n
                }
                power /= x * x;
            }
            plus - minus
        };
        let pi = arctan_of_inverse(5) * 16_u8 - arctan_of_inverse(239) * 4_u8;
        pi.to_string()[..digits].to_owned()
    }

    /// The spigot and another formula agree on a thousand digits.
    #[test]
    fn digits_are_those_of_pi() {
        let digits: String = Pi::new().take(1000).map(|digit| char::from(b'0' + digit)).collect();
        assert!(digits.starts_with("31415926535897932384626433832795028841971693993751"));
        assert_eq!(digits, machin(1000));
    }
}
