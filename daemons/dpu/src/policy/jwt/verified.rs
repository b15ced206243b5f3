//! Tokens that were found good: a client shows the same one again and again, and pays for one signature.
//!
//! - What is remembered is a whole token, signature included, for as long as `exp` lets it be good: another byte is another token.
//! - It is remembered by one lane for one policy: other keys, issuers or audiences are another policy, which knows none.
//! - Pure: time is passed in. Not here: what makes a token good ([`super::Gate`]).

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;
use serde_json::{Map, Value};

/// Tokens that are remembered: those that were shown last.
const TOKENS_MAX: NonZeroUsize = NonZeroUsize::new(512).expect("some");
/// Longer ones are verified each time. Those of usual issuers have 500 to 2,000 bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// What a token says.
pub(super) type Claims = Rc<Map<String, Value>>;

/// Good tokens and what they say. Some kilobytes each, so that all of them are a few megabytes at most.
#[derive(Debug)]
pub(super) struct Verified(RefCell<LruCache<Box<[u8]>, Good>>);

#[derive(Debug)]
struct Good {
    claims: Claims,
    /// Seconds since 1970: when it was verified, and when it is no longer good.
    from: u64,
    until: u64,
}

impl Default for Verified {
    fn default() -> Self {
        Self(RefCell::new(LruCache::new(TOKENS_MAX)))
    }
}

impl Verified {
    /// What a token says that was good and is so still. `now`: seconds since 1970.
    pub(super) fn claims(&self, token: &[u8], now: u64) -> Option<Claims> {
        let mut tokens = self.0.borrow_mut();
        let good = tokens.get(token)?;
        // A clock that was put back says nothing of `nbf` any more.
        (good.from <= now && now < good.until).then(|| Rc::clone(&good.claims))
    }

    /// Remembers a token that is good now. `leeway`: seconds for which it is good after its `exp`.
    pub(super) fn keep(&self, token: &[u8], claims: &Claims, leeway: u64, now: u64) {
        let expires = claims.get("exp").and_then(Value::as_u64);
        if let Some(expires) = expires.filter(|_| token.len() <= TOKEN_BYTES_MAX) {
            let good = Good { claims: Rc::clone(claims), from: now, until: expires.saturating_add(leeway) };
            self.0.borrow_mut().put(token.into(), good);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(expires: Value) -> Claims {
        Rc::new([("exp".to_owned(), expires)].into_iter().collect())
    }

    /// A token is known from when it was verified until it expires, byte for byte.
    #[test]
    fn tokens_are_good_until_they_expire() {
        let verified = Verified::default();
        verified.keep(b"a.b.c", &claims(100.into()), 5, 50);
        let is_known = |token: &[u8], now| verified.claims(token, now).is_some();
        assert_eq!([49, 50, 104, 105].map(|now| is_known(b"a.b.c", now)), [false, true, true, false]);
        assert!(!is_known(b"a.b.d", 50) && !is_known(b"a.b.", 50) && !is_known(b"a.b.cc", 50));
    }

    /// Those that were shown last are known, and none that is long or says its end in no whole number.
    #[test]
    fn what_is_remembered_is_bounded() {
        let verified = Verified::default();
        let most = TOKENS_MAX.get();
        let token = |number: usize| number.to_string().into_bytes();
        for number in 0..=most {
            verified.keep(&token(number), &claims(100.into()), 0, 1);
            assert!(verified.claims(&token(0), 1).is_some(), "shown again and again");
        }
        assert_eq!(verified.0.borrow().len(), most);
        assert!(verified.claims(&token(1), 1).is_none() && verified.claims(&token(most), 1).is_some());
        verified.keep(&[b'x'; TOKEN_BYTES_MAX + 1], &claims(100.into()), 0, 1);
        assert!(verified.claims(&[b'x'; TOKEN_BYTES_MAX + 1], 1).is_none());
        verified.keep(b"broken", &claims(99.5.into()), 0, 1);
        assert!(verified.claims(b"broken", 1).is_none());
    }
}
