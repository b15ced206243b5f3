//! How the links of an attachment end: what the lanes of a process say of theirs, and its control waits for.
//!
//! - Of each lane the newest word counts, with the attachment that it is about: what a lane says late, of an attachment that is over,
//!   is of no consequence for the next one. Nobody ever waits to say something.

use std::sync::Arc;

use tokio::sync::watch;

/// A number for each time that the process was attached.
pub(crate) type AttachmentNumber = u64;

/// How a lane's link has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It cannot be used, or the DPA broke a rule on it.
    Broke(String),
    /// The lane has finished what it had.
    Finished,
}

/// The newest end of a lane's link, if any has ended.
type Newest = Option<(AttachmentNumber, End)>;

/// The newest end of each lane's link. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct LinkEnds(Arc<watch::Sender<Vec<Newest>>>);

impl LinkEnds {
    pub(crate) fn new(lanes: usize) -> Self {
        Self(Arc::new(watch::Sender::new(vec![None; lanes])))
    }

    /// A lane has no use for its link of this attachment.
    pub(crate) fn broke(&self, lane: usize, attachment: AttachmentNumber, why: String) {
        self.0.send_modify(|ends| ends[lane] = Some((attachment, End::Broke(why))));
    }

    /// A lane has finished what came through this attachment.
    pub(crate) fn finished(&self, lane: usize, attachment: AttachmentNumber) {
        self.0.send_modify(|ends| ends[lane] = Some((attachment, End::Finished)));
    }

    /// Waits until a lane's link of this attachment breaks. Says why.
    pub(crate) async fn broken(&self, attachment: AttachmentNumber) -> String {
        let why = |ends: &[Newest]| {
            ends.iter().flatten().find_map(|end| match end {
                (of, End::Broke(why)) if *of == attachment => Some(why.clone()),
                (_, End::Broke(_) | End::Finished) => None,
            })
        };
        let mut heard = self.0.subscribe();
        let ends = heard.wait_for(|ends| why(ends).is_some()).await.expect("its sender is here");
        why(&ends).expect("it was there a moment ago, and is held")
    }

    /// Waits until the links of all lanes have ended, in whatever way.
    pub(crate) async fn all(&self, attachment: AttachmentNumber) {
        let is_over = |end: &Newest| end.as_ref().is_some_and(|(of, _)| *of == attachment);
        let mut heard = self.0.subscribe();
        let all = heard.wait_for(|ends| ends.iter().all(is_over)).await;
        drop(all.expect("its sender is here"));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What broke with one attachment does not touch the next, however many lanes say it and whenever.
    #[test]
    fn ends_are_those_of_an_attachment() {
        let ends = LinkEnds::new(3);
        assert_eq!(ends.broken(1).now_or_never(), None);
        (0..3).for_each(|lane| ends.broke(lane, 1, format!("lane {lane}")));
        assert_eq!(ends.broken(1).now_or_never().as_deref(), Some("lane 0"));
        assert_eq!(ends.broken(2).now_or_never(), None);
        ends.broke(1, 2, "again".into());
        assert_eq!(ends.broken(2).now_or_never().as_deref(), Some("again"));
    }

    /// Each lane ends once, whether it finishes or breaks.
    #[test]
    fn all_have_ended_when_each_has() {
        let ends = LinkEnds::new(2);
        ends.finished(0, 1);
        ends.broke(0, 2, "late".into());
        ends.finished(0, 2);
        assert_eq!(ends.all(2).now_or_never(), None, "the other has not");
        ends.broke(1, 2, "broke".into());
        assert_eq!(ends.all(2).now_or_never(), Some(()));
    }

    /// Lanes that break again and again wait for nobody.
    #[test]
    fn nobody_waits_to_say_it() {
        let ends = LinkEnds::new(1);
        (0..10_000).for_each(|attachment| ends.broke(0, attachment, String::new()));
        assert_eq!(ends.broken(9_999).now_or_never(), Some(String::new()));
    }
}
