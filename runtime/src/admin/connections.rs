//! The connections to the admin port: a bounded number, and always room for one more.
//!
//! - A probe must have its answer whatever other clients do. One connection too many closes the oldest that waits for its client,
//!   between two requests or for a body; if all are being answered, the oldest of all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Connections at once: more than the probes, collectors and people that look at a process.
const CONNECTIONS_MAX: usize = 64;

/// Connections that are open, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(VecDeque<(AbortHandle, Standing)>);

/// Whether a connection waits for us, and not for its client.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing(Arc<AtomicBool>);

/// Held while a request is answered.
pub(super) struct Answering<'s>(&'s Standing);

impl Standing {
    /// From now on it waits for us, until what is returned is dropped.
    pub(super) fn answering(&self) -> Answering<'_> {
        // Guards nothing: which connection goes is a matter of taste.
        self.0.store(true, Ordering::Relaxed);
        Answering(self)
    }

    fn is_answering(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Connections {
    /// One more, which `serving` ends. If it is one too many, another is closed.
    pub(super) fn add(&mut self, serving: AbortHandle, standing: Standing) {
        self.0.retain(|(serving, _)| !serving.is_finished());
        if self.0.len() >= CONNECTIONS_MAX {
            let waits = self.0.iter().position(|(_, standing)| !standing.is_answering());
            if let Some((serving, _)) = self.0.remove(waits.unwrap_or(0)) {
                tracing::debug!("the admin port has {CONNECTIONS_MAX} connections: the oldest is closed");
                serving.abort();
            }
        }
        self.0.push_back((serving, standing));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinHandle;

    use super::*;

    /// One more connection, which lasts until it is closed.
    fn add(connections: &mut Connections) -> (JoinHandle<()>, Standing) {
        let (serving, standing) = (tokio::spawn(pending()), Standing::default());
        connections.add(serving.abort_handle(), standing.clone());
        (serving, standing)
    }

    async fn check_closed(serving: JoinHandle<()>) {
        assert!(serving.await.expect_err("it does not end by itself").is_cancelled());
    }

    /// The oldest that waits for its client goes first; of those that are answered one only if there is no other.
    #[tokio::test]
    async fn oldest_makes_room() {
        let mut connections = Connections::default();
        let mut all: VecDeque<_> = (0..CONNECTIONS_MAX).map(|_| add(&mut connections)).collect();
        let (first, first_standing) = all.pop_front().expect("there are many");
        let answering = first_standing.answering();
        let _newest = add(&mut connections);
        check_closed(all.pop_front().expect("there are many").0).await;
        assert!(!first.is_finished());
        drop(answering);
        let (_served, standing) = add(&mut connections);
        check_closed(first).await;

        let _all_answered: Vec<_> = connections.0.iter().map(|(_, standing)| standing.clone()).collect();
        let _guards: Vec<_> = _all_answered.iter().map(Standing::answering).collect();
        let _one_more = add(&mut connections);
        check_closed(all.pop_front().expect("there are many").0).await;
        assert!(standing.is_answering());
        assert_eq!(connections.0.len(), CONNECTIONS_MAX);
    }

    /// Those that have ended take no room.
    #[tokio::test]
    async fn ended_connections_take_no_room() {
        let mut connections = Connections::default();
        let (first, _) = add(&mut connections);
        for _ in 0..2 * CONNECTIONS_MAX {
            let (serving, _) = add(&mut connections);
            serving.abort();
            check_closed(serving).await;
        }
        assert!(!first.is_finished());
    }
}
