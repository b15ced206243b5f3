//! SHA-256 digests as registries write them: `sha256:` and 64 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::host::seal::hex;

/// Hexadecimal digits of a digest.
const HEX_DIGITS: usize = 64;

/// Names bytes by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// As the name of a file.
    pub(super) fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = String;

    /// # Errors
    /// What is wrong with it, to follow the text itself.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((algorithm, digits)) = text.split_once(':') else {
            return Err("has no algorithm before a colon".into());
        };
        if algorithm != "sha256" {
            return Err(format!("has the algorithm {algorithm:?}, and only sha256 is known"));
        }
        let wrong = digits.chars().find(|digit| !matches!(digit, '0'..='9' | 'a'..='f'));
        if let Some(wrong) = wrong {
            return Err(format!("has {wrong:?} among its digits, which are 0 to 9 and a to f"));
        }
        if digits.len() != HEX_DIGITS {
            return Err(format!("has {} digits of {HEX_DIGITS}", digits.len()));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).expect("looked at above: ASCII");
            *byte = u8::from_str_radix(pair, 16).expect("looked at above: hexadecimal");
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read is what is written; anything else says what is wrong.
    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").to_string(), empty);
        let wrong = |text: &str| text.parse::<Digest>().expect_err("no digest");
        assert_eq!(wrong("e3b0"), "has no algorithm before a colon");
        assert_eq!(wrong("sha512:e3b0"), "has the algorithm \"sha512\", and only sha256 is known");
        assert_eq!(wrong("sha256:e3b0"), "has 4 digits of 64");
        assert_eq!(wrong(&empty[..empty.len() - 1]), "has 63 digits of 64");
        assert_eq!(wrong(&format!("{empty}0")), "has 65 digits of 64");
        assert!(wrong(&empty.replace('b', "B")).starts_with("has 'B' among its digits"));
        assert!(wrong("sha256:é").starts_with("has 'é' among its digits"));
    }
}
