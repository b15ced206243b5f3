//! The closed set of reasons for which the mesh answers a request itself.

use cellmesh_shm::message::Fault;

/// Declares the reasons, and what they are called.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident $word:literal,)*) => {
        /// Why the mesh answered a request itself, as `x-cellmesh-error` and metrics say it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])+ $name,)*
        }

        impl Reason {
            /// All of them: `ALL[reason as usize] == reason`.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// Its one word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    /// The client's bytes are no request that we take.
    BadRequest "bad-request",
    /// Its body is longer than the limit.
    BodyTooLarge "body-too-large",
    /// Its head is longer than the limit, or has too many lines.
    HeadTooLarge "head-too-large",
    /// Its target is longer than the limit.
    TargetTooLong "target-too-long",
    /// Its body did not come in time.
    BodyTooSlow "body-too-slow",
    /// It wants a method or protocol that does not exist here.
    NotImplemented "not-implemented",
    /// It names a service that is unknown here.
    UnknownService "unknown-service",
    /// A bound on what is in flight is reached.
    Overloaded "overloaded",
    /// The process is about to stop.
    Draining "draining",
    /// There is no link to a DPA.
    Detached "detached",
    /// Its service is asked too often.
    RateLimited "rate-limited",
    /// Its service wants a token, and it has none.
    TokenMissing "token-missing",
    /// Its token is not taken.
    TokenInvalid "token-invalid",
    /// Its token is for something else.
    TokenClaim "token-claim",
    /// Its service is left alone.
    CircuitOpen "circuit-open",
    /// What came back cannot be said.
    BadResponse "bad-response",
    /// [`Fault::NoWorker`].
    NoWorker "no-worker",
    /// [`Fault::Deadline`].
    Deadline "deadline",
    /// [`Fault::WorkerLost`].
    WorkerLost "worker-lost",
    /// [`Fault::Unroutable`].
    Unroutable "unroutable",
    /// [`Fault::HopLimit`].
    HopLimit "hop-limit",
    /// [`Fault::TooLarge`].
    TooLarge "too-large",
    /// [`Fault::Cancelled`].
    Cancelled "cancelled",
    /// [`Fault::Internal`].
    Internal "internal",
}

impl Reason {
    /// What a fault is.
    pub(crate) fn of(fault: Fault) -> Self {
        match fault {
            Fault::NoWorker => Self::NoWorker,
            Fault::Deadline => Self::Deadline,
            Fault::Overloaded => Self::Overloaded,
            Fault::WorkerLost => Self::WorkerLost,
            Fault::Unroutable => Self::Unroutable,
            Fault::HopLimit => Self::HopLimit,
            Fault::TooLarge => Self::TooLarge,
            Fault::Cancelled => Self::Cancelled,
            Fault::None | Fault::Internal => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has its place and a word of its own; faults have the words that the mesh has for them everywhere.
    #[test]
    fn words_are_told_apart() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert!(Reason::ALL[..place].iter().all(|other| other.word() != reason.word()), "{reason:?}");
        }
        for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::None) {
            assert_eq!(Reason::of(fault).word(), fault.code());
        }
    }
}
