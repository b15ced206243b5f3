//! SIGHUP, which says: read config again.
//!
//! - It ends no process, from the first line of `main` on.
//! - One that comes while the process starts is not lost: whoever waits for the next one later has it at once. Several that
//!   nobody has waited for are one.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What this process was sent since its start.
#[derive(Debug)]
pub struct Hangups(Option<Signal>);

impl Hangups {
    /// SIGHUP ends a process that has never waited for it. From now on it does not.
    #[must_use]
    pub fn heard() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let waited = runtime.and_then(|runtime| {
            // What is waited for belongs to no runtime: any of the process that runs will pass it on.
            let _inside = runtime.enter();
            signal(SignalKind::hangup())
        });
        Self(waited.inspect_err(|error| tracing::warn!(%error, "SIGHUP ends this process")).ok())
    }

    /// The next one, or one that has come before. Never, if they cannot be waited for.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            // Nothing ever ends it.
            Some(hangups) => drop(hangups.recv().await),
            None => std::future::pending().await,
        }
    }

    /// For a process that has nothing to read again: whoever sends one is told.
    pub(crate) fn ignore(mut self) {
        tokio::spawn(async move {
            loop {
                self.next().await;
                tracing::info!("SIGHUP: nothing of this process changes while it runs, start it again");
            }
        });
    }
}
