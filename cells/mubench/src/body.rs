//! The body of a response, as the internal service makes it.

use crate::letters;

/// The longest body that fits a message.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Room behind the letters for the response's headers, so that they are added without moving a body that is the answer.
const HEADERS_BYTES: usize = 128;

/// What a body is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ResponseBody {
    /// No internal service.
    Empty,
    /// Random letters; the mean of their number, in thousands.
    Random(f64),
    /// The letter `m`; the mean of their number, in thousands.
    Repeated(f64),
    /// A fixed text.
    Fixed(String),
}

/// Bodies up to here are made before it is known whether they are needed: of drawn lengths the mean, in thousands of bytes, and
/// of a fixed one the bytes.
const SMALL_MEAN: f64 = 64.0;
const SMALL_BYTES: usize = 64_000;

impl ResponseBody {
    /// Whether it may be kept until the callees have answered. By the mean: the length of each is drawn once, when it is made.
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Random(mean) | Self::Repeated(mean) => *mean <= SMALL_MEAN,
            Self::Fixed(text) => text.len() <= SMALL_BYTES,
        }
    }

    pub(crate) fn make(&self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Random(mean) => letters::random(draw_len(*mean), HEADERS_BYTES),
            Self::Repeated(mean) => {
                let len = draw_len(*mean);
                let mut body = Vec::with_capacity(len + HEADERS_BYTES);
                body.resize(len, b'm');
                body
            }
            Self::Fixed(text) => text.clone().into_bytes(),
        }
    }
}

/// `max(1, 1000 * Exp(mean))`, and no more than fits a message.
fn draw_len(mean: f64) -> usize {
    len(mean, fastrand::f64())
}

/// The length for a `uniform` number from `0 .. 1`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped to a positive whole number that both types hold"
)]
fn len(mean: f64, uniform: f64) -> usize {
    let exponential = -mean * (1.0 - uniform).ln();
    (1000.0 * exponential).clamp(1.0, BYTES_MAX as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quantiles of the exponential distribution, in bytes for a mean in thousands.
    #[test]
    fn lengths_are_exponential() {
        assert_eq!(len(11.0, 0.5), 7624); // 11000 ln 2
        assert_eq!(len(11.0, 0.99), 50656); // 11000 ln 100
        let mean = (0..20_000).map(|_| draw_len(2.0)).sum::<usize>() / 20_000;
        assert!((1900..2100).contains(&mean), "{mean}: more than ten standard errors from 2000");
    }

    /// At least one letter, at most a message.
    #[test]
    fn lengths_are_bounded() {
        assert_eq!((len(11.0, 0.0), len(0.0, 0.7)), (1, 1));
        assert_eq!((len(1e12, 0.9), len(11.0, 1.0)), (BYTES_MAX, BYTES_MAX));
    }

    /// Large bodies are not kept while callees work.
    #[test]
    fn only_small_bodies_are_made_early() {
        let small =
            [ResponseBody::Empty, ResponseBody::Random(64.0), ResponseBody::Fixed("x".repeat(64_000))];
        assert!(small.iter().all(ResponseBody::is_small));
        let large = [
            ResponseBody::Repeated(64.1),
            ResponseBody::Random(1e9),
            ResponseBody::Fixed("x".repeat(64_001)),
        ];
        assert!(!large.iter().any(ResponseBody::is_small));
    }

    /// What each kind is made of.
    #[test]
    fn bodies_are_what_they_are_made_of() {
        assert!(ResponseBody::Random(1.0).make().iter().all(u8::is_ascii_alphabetic));
        assert!(ResponseBody::Repeated(1.0).make().iter().all(|letter| *letter == b'm'));
        assert_eq!(ResponseBody::Fixed("text".to_owned()).make(), b"text");
        assert_eq!(ResponseBody::Empty.make(), b"");
    }
}
