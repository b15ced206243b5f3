//! Tokens that were found good: a client shows the same one again and again, and pays for one signature.
//!
//! - What is remembered is a whole token, signature included, for as long as `exp` lets it be good: another byte is another token.
//! - It is remembered by one lane for one policy: other keys, issuers, audiences or rules are another policy, which knows none.
//! - Pure: time is passed in. Not here: what makes a token good ([`super::Gate`]).

use std::cell::RefCell;
use std::num::NonZeroUsize;

use lru::LruCache;

/// Tokens that are remembered: those that were shown last.
const TOKENS_MAX: NonZeroUsize = NonZeroUsize::new(512).expect("some");
/// Longer ones are verified each time. Those of usual issuers have 500 to 2,000 bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// The rules that a token keeps: a bit for each.
pub(super) type Kept = u64;

/// Good tokens. Two megabytes at most.
#[derive(Debug)]
pub(super) struct Verified(RefCell<LruCache<Box<[u8]>, Good>>);

/// What is known of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) kept: Kept,
    /// Seconds since 1970: when it was verified, and when it is no longer good.
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Default for Verified {
    fn default() -> Self {
        Self(RefCell::new(LruCache::new(TOKENS_MAX)))
    }
}

impl Verified {
    /// The rules that a token keeps which was good and is so still. `now`: seconds since 1970.
    pub(super) fn get(&self, token: &[u8], now: u64) -> Option<Kept> {
        let mut tokens = self.0.borrow_mut();
        let good = *tokens.get(token)?;
        // A clock that was put back says nothing of `nbf` any more.
        let is_good = good.from <= now && now < good.until;
        if !is_good {
            tokens.pop(token);
        }
        is_good.then_some(good.kept)
    }

    /// Remembers a token, unless it is long.
    pub(super) fn put(&self, token: &[u8], good: Good) {
        if token.len() <= TOKEN_BYTES_MAX {
            self.0.borrow_mut().put(token.into(), good);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is known from when it was verified until it expires, byte for byte; then it is forgotten.
    #[test]
    fn tokens_are_good_until_they_expire() {
        for (now, is_known) in [(49, false), (50, true), (104, true), (105, false)] {
            let verified = Verified::default();
            verified.put(b"a.b.c", Good { kept: 6, from: 50, until: 105 });
            assert_eq!(verified.get(b"a.b.c", now), is_known.then_some(6), "{now}");
            assert_eq!(verified.0.borrow().len(), usize::from(is_known));
            for other in [&b"a.b.d"[..], b"a.b.", b"a.b.cc"] {
                assert_eq!(verified.get(other, 50), None);
            }
        }
    }

    /// Those that were shown last are known, and none that is long.
    #[test]
    fn what_is_remembered_is_bounded() {
        let (verified, good) = (Verified::default(), Good { kept: 0, from: 0, until: 100 });
        let most = TOKENS_MAX.get();
        let token = |number: usize| number.to_string().into_bytes();
        for number in 0..=most {
            verified.put(&token(number), good);
            assert!(verified.get(&token(0), 1).is_some(), "shown again and again");
        }
        assert_eq!(verified.0.borrow().len(), most);
        assert!(verified.get(&token(1), 1).is_none() && verified.get(&token(most), 1).is_some());
        for (len, is_known) in [(TOKEN_BYTES_MAX, true), (TOKEN_BYTES_MAX + 1, false)] {
            let long = vec![b'x'; len];
            verified.put(&long, good);
            assert_eq!(verified.get(&long, 1).is_some(), is_known, "{len}");
        }
    }
}
