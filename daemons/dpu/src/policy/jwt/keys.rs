//! The keys that tokens are signed with, from a JSON Web Key Set (RFC 7517).
//!
//! - What is no key for signatures, or of a kind that is not known here, is passed over, as the RFC wants it. A set in which
//!   nothing is left is refused.
//! - The text may have secrets (`kty` `oct`): it is not shown.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::files;

/// Most keys of a file: each may have to be tried for a token that names none.
const KEYS_MOST: usize = 32;
/// Longest file: a key has some hundred bytes, with its certificates a few KiB.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Why a key file is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// It is too long.
    #[error("is longer than 256 KiB")]
    TooLong,
    /// No such JSON.
    #[error("is no JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    /// None of the keys can be used.
    #[error("has no key for signatures by RSA, P-256, P-384, Ed25519 or a secret as long as its hash")]
    Empty,
    /// Too many.
    #[error("has {found} keys: must be at most {KEYS_MOST}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
}

/// Keys that tokens are verified with; equal if their files say the same.
#[derive(Clone, Default)]
pub struct Keys {
    text: Arc<str>,
    keys: Arc<[Key]>,
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// Reads a file with a JSON Web Key Set.
    ///
    /// # Errors
    /// [`KeysError`]: it cannot be read, is no such set, or has nothing in it that can be used.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let bytes = files::read(path, FILE_BYTES_MAX)?.ok_or(KeysError::TooLong)?;
        Self::from_jwks(&String::from_utf8_lossy(&bytes))
    }

    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// [`KeysError`]: no such set, or nothing in it that can be used.
    pub fn from_jwks(text: &str) -> Result<Self, KeysError> {
        let set: JwkSet = serde_json::from_str(text)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::new).collect();
        match keys.len() {
            0 => Err(KeysError::Empty),
            found if found > KEYS_MOST => Err(KeysError::TooMany { found }),
            _ => Ok(Self { text: text.into(), keys: keys.into() }),
        }
    }

    /// Those of all keys, each once.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for key in &*self.keys {
            if !algorithms.contains(&key.algorithm) {
                algorithms.push(key.algorithm);
            }
        }
        algorithms
    }

    /// Keys that a token of this algorithm may be signed with. A key or a token without an id fits any.
    pub(super) fn fitting(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            let is_meant = key.id.is_none() || id.is_none() || key.id.as_deref() == id;
            is_meant && key.algorithm == algorithm
        };
        self.keys.iter().filter(fits).map(|key| &key.key)
    }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        let operations = jwk.common.key_operations.as_deref();
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
            || operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let algorithm = algorithm(jwk)?;
        if secret_bytes(jwk) < secret_bytes_least(algorithm) {
            return None;
        }
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// Bytes of a secret; those of other keys are their algorithm's business.
fn secret_bytes(jwk: &Jwk) -> usize {
    if let AlgorithmParameters::OctetKey(key) = &jwk.algorithm {
        // Three bytes in four letters, without padding.
        return key.value.trim_end_matches('=').len() * 3 / 4;
    }
    usize::MAX
}

/// Source: RFC 7518, 3.2.
fn secret_bytes_least(algorithm: Algorithm) -> usize {
    if algorithm == Algorithm::HS512 {
        64
    } else if algorithm == Algorithm::HS384 {
        48
    } else {
        32
    }
}

/// What a key signs with: what it says, if its kind can, else the usual one of its kind.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library, to which it may add")]
    let of_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => &[HS256, HS384, HS512],
        _ => &[],
    };
    let Some(said) = jwk.common.key_algorithm else { return of_kind.first().copied() };
    of_kind.iter().copied().find(|algorithm| KeyAlgorithm::from(*algorithm) == said)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is no key for signatures is passed over; a file without any, or with too many, is refused.
    #[test]
    fn key_files_are_checked() {
        let count = |text: &str| Keys::from_jwks(text).map(|keys| keys.keys.len());
        assert_eq!(count(include_str!("testdata/jwks.json")).expect("keys"), 3);
        let letters = "c2Vj".repeat(11);
        let oct = |rest: &str| format!(r#"{{"kty": "oct", "k": "{letters}"{rest}}}"#);
        let secret = &*oct("");
        let of_encryption = &*oct(r#", "use": "enc""#);
        let to_encrypt = &*oct(r#", "key_ops": ["encrypt"]"#);
        let mismatched = &*oct(r#", "alg": "RS256""#);
        let too_short = &*oct(r#", "alg": "HS384""#);
        let empty = r#"{"kty": "oct", "k": ""}"#;
        let unknown = r#"{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}"#;
        let set = |keys: &[&str]| format!(r#"{{"keys": [{}]}}"#, keys.join(","));
        assert_eq!(
            count(&set(&[secret, of_encryption, to_encrypt, mismatched, too_short, empty, unknown]))
                .expect("one"),
            1
        );
        assert!(matches!(count(&set(&[of_encryption])), Err(KeysError::Empty)));
        assert!(matches!(count("{}"), Err(KeysError::Json(_))));
        assert!(matches!(count(&set(&[secret; 33])), Err(KeysError::TooMany { found: 33 })));
    }

    /// Secrets of a set are in no log.
    #[test]
    fn keys_are_not_shown() {
        let set = r#"{"keys": [{"kty": "oct", "kid": "a", "k": "LETTERS"}]}"#;
        let keys = Keys::from_jwks(&set.replace("LETTERS", &"c2Vj".repeat(11))).expect("a key");
        assert_eq!(format!("{keys:?}"), r#"[(Some("a"), HS256)]"#);
    }

    /// Files that are none, or too long, are refused with the reason.
    #[test]
    fn files_have_a_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        assert!(matches!(Keys::load(&path), Err(KeysError::File(_))));
        std::fs::write(&path, include_str!("testdata/jwks.json")).expect("written");
        assert_eq!(Keys::load(&path).expect("keys").keys.len(), 3);
        std::fs::write(&path, vec![b' '; (256 << 10) + 1]).expect("written");
        assert!(matches!(Keys::load(&path), Err(KeysError::TooLong)));
    }
}
