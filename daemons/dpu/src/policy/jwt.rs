//! Tokens (JWT, RFC 7519): who asks, and what such a client may ask for.
//!
//! ```text
//! authorization: Bearer <token> --> key of the token's algorithm --> signature --> exp, nbf, iss, aud --> rules
//!                    401 <-------------------------------------------------------------'      403 <------'
//! ```
//!
//! - The algorithm is the key's, never the token's: a token that names another is refused, `none` always, and `HS*` unless
//!   the key is a secret (`kty` `oct`).
//! - Keys come from a file (`jwt/keys.rs`). Nothing is fetched.
//! - A rule is asked for a path as it is written and as it may be read (`jwt/paths.rs`): whatever the service makes of it, the
//!   rule has been asked.
//! - `exp` and `nbf` are of the wall clock, the only clock that tokens know.

mod keys;
mod paths;
mod verified;

use std::path::PathBuf;

use cellmesh_shm::head::HeaderLines;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::keys::{Keys, KeysError};
use self::paths::Path;
use self::verified::{Good, Kept, Verified};
use crate::config::Problems;
use crate::units::TimeSpan;

/// Most rules and public paths of a service: each is asked for each request, and has a bit in [`Kept`].
const RULES_MOST: usize = 64;
/// The claim whose text is a list of words. Source: RFC 8693, 4.2.
const SCOPE: &str = "scope";

/// `jwt = { jwks, issuer, audience, leeway, public, rules }`: requests need a token.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct JwtPolicy {
    /// File with the keys, a JSON Web Key Set (RFC 7517).
    pub jwks: PathBuf,
    /// What `iss` must be; any if it is not given.
    pub issuer: Option<String>,
    /// Of which `aud` must have one; any if none is given.
    #[serde(default)]
    pub audience: Vec<String>,
    /// By how much clocks may differ; whole seconds.
    #[serde(default = "JwtPolicy::leeway_default")]
    pub leeway: TimeSpan,
    /// Paths, and what is below them, that need no token.
    #[serde(default)]
    pub public: Vec<String>,
    /// What a path asks of the claims.
    #[serde(default)]
    pub rules: Vec<ClaimRule>,
    /// The keys in that file. Not a key of config.
    #[serde(skip)]
    pub keys: Keys,
}

/// A path, and what is below it, asks for a claim with one of these values. Every rule whose path fits is asked.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// `/admin`: that path and `/admin/...`.
    pub path: String,
    /// The name of a claim whose value is a text or a list of texts; `/a/b` for the claim `b` inside of `a` (RFC 6901). The
    /// text of `scope` is a list of words.
    pub claim: String,
    /// Values of which one is enough.
    pub values: Vec<String>,
}

/// Why a request with a token, or without, is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// No token came.
    Missing,
    /// One came that is not good; says why.
    Invalid(String),
    /// A good one came, but a rule asks for more.
    Claim { claim: String },
}

impl JwtPolicy {
    fn leeway_default() -> TimeSpan {
        TimeSpan::secs(60)
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        let leeway = self.leeway.0;
        let is_whole = leeway.subsec_nanos() == 0 && leeway.as_secs() <= 3600;
        problems.check_text("jwt.leeway", self.leeway, is_whole, "whole seconds, at most \"1h\"");
        let of_rules = self.rules.iter().map(|rule| ("jwt.rules", &rule.path));
        for (key, path) in self.public.iter().map(|path| ("jwt.public", path)).chain(of_rules) {
            let right =
                "a path such as \"/admin\", without escapes, empty segments, dots and a slash at its end";
            problems.check_text(key, path, paths::is_plain(path), right);
        }
        for rule in &self.rules {
            let is_right = !rule.claim.is_empty() && !rule.values.is_empty();
            problems.check_text(
                "jwt.rules",
                &rule.path,
                is_right,
                "a rule with a claim and at least one value",
            );
        }
        let count = self.public.len() + self.rules.len();
        problems.check("jwt.rules", &count, count <= RULES_MOST, "at most 64 rules and public paths");
    }
}

/// A policy as requests meet it: what is the same for all of them is made once.
#[derive(Debug)]
pub(super) struct Gate {
    keys: Keys,
    public: Vec<String>,
    rules: Vec<Rule>,
    /// What a token has to say, for each algorithm that a key has.
    expected: Vec<(Algorithm, Validation)>,
    /// By how much clocks may differ, in seconds.
    leeway: u64,
    verified: Verified,
}

impl Gate {
    pub(super) fn new(policy: &JwtPolicy) -> Self {
        let algorithms = policy.keys.algorithms();
        Self {
            keys: policy.keys.clone(),
            public: policy.public.clone(),
            rules: policy.rules.iter().map(Rule::new).collect(),
            expected: algorithms.into_iter().map(|alg| (alg, validation(policy, alg))).collect(),
            leeway: policy.leeway.0.as_secs(),
            verified: Verified::default(),
        }
    }

    /// Whether who asks may have this.
    ///
    /// - `target`: path and query.
    /// - cost: one signature the first time that a token is shown here, some tens of microseconds; of one without a key id, one for
    ///   each key of its algorithm. Less than one after that.
    pub(super) fn admit(&self, target: &[u8], headers: HeaderLines<'_>) -> Result<(), TokenError> {
        self.admit_at(target, headers, get_current_timestamp())
    }

    /// `now`: seconds since 1970, for what is remembered.
    fn admit_at(&self, target: &[u8], headers: HeaderLines<'_>, now: u64) -> Result<(), TokenError> {
        let path = Path::of_target(target);
        let asking = self.rules.iter().enumerate().filter(|(_, rule)| path.may_be_in(&rule.path));
        let mut asking = asking.peekable();
        if asking.peek().is_none() && self.public.iter().any(|public| path.is_in(public)) {
            return Ok(());
        }
        let token = bearer(headers)?;
        let kept = self.verified.get(token, now).map_or_else(|| self.verify(token, now), Ok)?;
        match asking.find(|(bit, _)| kept & (1 << bit) == 0) {
            Some((_, rule)) => Err(TokenError::Claim { claim: rule.written.clone() }),
            None => Ok(()),
        }
    }

    /// The rules that a good token keeps; it is remembered.
    fn verify(&self, token: &[u8], now: u64) -> Result<Kept, TokenError> {
        let claims = self.claims(token)?;
        let bits = self.rules.iter().enumerate().filter(|(_, rule)| rule.is_kept(&claims));
        let kept = bits.fold(0, |kept, (bit, _)| kept | 1 << bit);
        // One with a part of a second is looked at each time.
        if let Some(expires) = claims.get("exp").and_then(Value::as_u64) {
            let until = expires.saturating_add(self.leeway);
            self.verified.put(token, Good { kept, from: now, until });
        }
        Ok(kept)
    }

    fn claims(&self, token: &[u8]) -> Result<Map<String, Value>, TokenError> {
        let invalid = |why: &str| TokenError::Invalid(why.to_owned());
        let header = decode_header(token).map_err(|_| invalid("it is no token that can be read"))?;
        if header.crit.is_some() {
            return Err(invalid("it has extensions that must be understood"));
        }
        let no_key = || invalid("no key fits its algorithm and key id");
        let expected = self.expected.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (algorithm, validation) = expected.ok_or_else(no_key)?;
        let mut why = no_key();
        for key in self.keys.fitting(*algorithm, header.kid.as_deref()) {
            match decode(token, key, validation) {
                Ok(token) => return Ok(token.claims),
                // Another key may fit.
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    why = invalid(&said(error.kind()))
                }
                Err(error) => return Err(invalid(&said(error.kind()))),
            }
        }
        Err(why)
    }
}

/// What a token that is signed by this algorithm has to say.
fn validation(policy: &JwtPolicy, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = policy.leeway.0.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = !policy.audience.is_empty();
    let mut required = vec!["exp"];
    if let Some(issuer) = &policy.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if validation.validate_aud {
        validation.set_audience(&policy.audience);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// A rule whose claim has been taken apart.
#[derive(Debug)]
struct Rule {
    path: String,
    /// The claim, as config writes it.
    written: String,
    /// Its name, or that of the outermost claim that it is inside of; and where it is in that, as a JSON pointer.
    name: String,
    inside: String,
    values: Vec<String>,
}

impl Rule {
    fn new(rule: &ClaimRule) -> Self {
        let ClaimRule { path, claim, values } = rule.clone();
        let (name, inside) = match claim.strip_prefix('/') {
            Some(pointer) => {
                let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
                (token_of(first), rest.to_owned())
            }
            None => (claim.clone(), String::new()),
        };
        Self { path, written: claim, name, inside, values }
    }

    fn is_kept(&self, claims: &Map<String, Value>) -> bool {
        let claim = claims.get(&self.name).and_then(|value| value.pointer(&self.inside));
        let is_one = |text: &str| self.values.iter().any(|value| value == text);
        match claim {
            Some(Value::String(words)) if self.written == SCOPE => words.split(' ').any(is_one),
            Some(Value::String(text)) => is_one(text),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).any(is_one),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
        }
    }
}

/// A name in a JSON pointer. Source: RFC 6901, 4.
fn token_of(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The token of the one `authorization` line.
fn bearer<'a>(headers: HeaderLines<'a>) -> Result<&'a [u8], TokenError> {
    let mut lines = headers.iter().filter(|(name, _)| *name == "authorization").map(|(_, value)| value);
    let line = lines.next().ok_or(TokenError::Missing)?;
    if lines.next().is_some() {
        return Err(TokenError::Invalid("there is more than one authorization header".to_owned()));
    }
    let (scheme, token) = line.split_at_checked("bearer ".len()).ok_or(TokenError::Missing)?;
    if scheme.eq_ignore_ascii_case(b"bearer ") { Ok(token.trim_ascii()) } else { Err(TokenError::Missing) }
}

/// For the client: what about its token, and no more.
fn said(kind: &ErrorKind) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of a library, to which it may add")]
    match kind {
        ErrorKind::InvalidSignature => "its signature does not fit".to_owned(),
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "it is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no claim {claim}"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its claim {claim} has no such value"),
        _ => "it is no token that can be read".to_owned(),
    }
}

#[cfg(test)]
mod tests;
