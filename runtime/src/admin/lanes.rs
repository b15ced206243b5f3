//! How the admin port asks lanes: each answers between two pumps, and nothing is kept up to date for it.

use std::time::Duration;

use cellmesh_dpu::Dpu;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::metrics::Counts;
use crate::trace::{Kept, Recorder};

/// Questions that wait for a lane.
const QUESTIONS_MAX: usize = 4;

/// What a lane can be asked for.
#[derive(Debug)]
enum Question {
    Counts(oneshot::Sender<Counts>),
    Kept(oneshot::Sender<Vec<Kept>>),
}

/// A lane's end: it is asked here.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<Question>);

/// The other end, for the admin port.
#[derive(Debug, Clone)]
pub struct Lane(mpsc::Sender<Question>);

/// Both ends of the way to a lane.
#[must_use]
pub fn lane() -> (Lane, Asked) {
    let (ask, asked) = mpsc::channel(QUESTIONS_MAX);
    (Lane(ask), Asked(asked))
}

impl Asked {
    /// Answers until nobody can ask any more. Spawn it on the lane. `recorder`: of a lane that hosts cells.
    pub async fn answer(mut self, counts: impl Fn() -> Counts, recorder: Option<Recorder>) {
        while let Some(question) = self.0.recv().await {
            // Who does not wait any more needs no answer.
            match question {
                Question::Counts(reply) => drop(reply.send(counts())),
                Question::Kept(reply) => {
                    drop(reply.send(recorder.as_ref().map(Recorder::kept).unwrap_or_default()));
                }
            }
        }
    }

    /// As [`Asked::answer`], for a lane with nothing but this sidecar to ask.
    pub async fn answer_of(self, dpu: Dpu) {
        self.answer(|| Counts::of_dpu(&dpu), None).await;
    }
}

impl Lane {
    /// What the lane knows now. `None`: it does not answer within `patience`.
    pub(super) async fn counts(&self, patience: Duration) -> Option<Counts> {
        self.ask(Question::Counts, patience).await
    }

    /// The requests that it keeps. `None`: as above.
    pub(super) async fn kept(&self, patience: Duration) -> Option<Vec<Kept>> {
        self.ask(Question::Kept, patience).await
    }

    async fn ask<A>(&self, question: fn(oneshot::Sender<A>) -> Question, patience: Duration) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(patience, asked).await.ok().flatten()
    }
}
