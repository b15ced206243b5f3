//! How long to wait before attaching again, where a link was no good.

use std::time::Duration;

use cellmesh_shm::clock::Nanos;

/// The wait doubles each time that the link is lost again, up to so many times the first.
const GROWTH_MOST: u32 = 64;

/// A link that was held for so long is as good as one that was never lost.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// A wait that grows as long as links do not last.
#[derive(Debug)]
pub(crate) struct Wait {
    first: Duration,
    next: Duration,
    /// When the link was made that there is, or was last.
    begun: Nanos,
}

impl Wait {
    /// `first`: before the second link.
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, next: first, begun: Nanos::now() }
    }

    /// There is a link.
    pub(crate) fn attached(&mut self, now: Nanos) {
        self.begun = now;
    }

    /// The wait after a link was lost.
    pub(crate) fn after_loss(&mut self, now: Nanos) -> Duration {
        if now.saturating_since(self.begun) > FORGIVEN_AFTER {
            self.next = self.first;
        }
        self.longer()
    }

    /// The wait after a try that made no link.
    pub(crate) fn longer(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.first * GROWTH_MOST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It grows up to its most, and begins anew after a link that lasted.
    #[test]
    fn wait_grows_while_links_do_not_last() {
        let mut wait = Wait::new(Duration::from_millis(10));
        let start = Nanos::now();
        wait.attached(start);
        let waits: Vec<_> = (0..9).map(|_| wait.after_loss(start).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        assert_eq!(wait.after_loss(start.saturating_add(Duration::from_secs(61))).as_millis(), 10);
        assert_eq!(wait.longer().as_millis(), 20);
    }
}
