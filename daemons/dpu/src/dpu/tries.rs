//! Tries: a request is sent, and, where the policy of its service says so, sent again.
//!
//! ```text
//! exchange_to --> hedged --> try_once --> a worker here, else another node
//!     ^  |           '-----> try_once     the second, if the first is slow; the first answer wins
//!     '--' after a wait
//! ```
//!
//! - What is to be done is decided by [`Tries`]; here it is done. Dropping the future gives up every call of it.
//! - Each try has the request's own deadline, or a nearer one: workers and other nodes are told the nearer.
//! - A service whose policy says nothing of tries has one, and `dpu.retry_worker_lost`.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::SlotId;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use tokio::time::{sleep, timeout};

use super::{Dpu, Settings};
use crate::egress::Way;
use crate::faults::Refusal;
use crate::policy::Tries;
use crate::policy::breaker::{Pass, Turn, Verdict};
use crate::policy::budget::Taken;
use crate::policy::retry::{Again, Outcome, Tried, Trigger};

type Exchanged = Result<ResponseMessage, Refusal>;

/// Leave for a call: however the call ends, the pass comes back.
struct Leave<'p> {
    asked: Asked<'p>,
    pass: Pass,
    verdict: Verdict,
}

impl<'p> Leave<'p> {
    fn new(asked: Asked<'p>, pass: Pass) -> Self {
        Self { asked, pass, verdict: Verdict::Nothing }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let turn = self.asked.tries.borrow_mut().settle(&self.pass, self.verdict, Nanos::now());
        let service =
            || self.asked.settings.routes.name(self.asked.message.service).map(tracing::field::display);
        match turn {
            Some(Turn::Opened) => {
                tracing::warn!(
                    service = service(),
                    "the circuit opened: it is left alone until a call succeeds"
                )
            }
            Some(Turn::Closed) => tracing::info!(service = service(), "the circuit closed"),
            // That one call asked in vain is nothing new.
            Some(Turn::OpenedAgain) | None => {}
        }
    }
}

/// What was paid for a retry: it goes back if that is not made.
struct Paid<'p> {
    tries: &'p RefCell<Tries>,
    taken: Option<Taken>,
}

impl Paid<'_> {
    /// The retry is made now.
    fn spend(mut self) {
        self.taken = None;
        self.tries.borrow_mut().count_retry();
    }
}

impl Drop for Paid<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken {
            self.tries.borrow_mut().give_back(taken);
        }
    }
}

/// A request of a service with policy, and the way to that service if it has no worker here.
#[derive(Clone, Copy)]
struct Asked<'m> {
    settings: &'m Settings,
    tries: &'m RefCell<Tries>,
    message: &'m RequestMessage,
    way: Option<&'m Way>,
    /// Whether a call whose worker dies is made once more if that is safe, and the policy does not say what is done then.
    repeats: bool,
}

impl Asked<'_> {
    /// What a call has to be answered if nothing of the request's time was spent before.
    fn allowance(&self) -> Duration {
        let whole = self.settings.config.request_timeout.0;
        self.tries.borrow().allowance().map_or(whole, |own| own.min(whole))
    }
}

impl Dpu {
    /// Sends `message` into the mesh and waits for the answer. `way`: to its service if that has no worker here.
    /// `repeats`: one whose worker dies is sent once more if that is safe, unless a policy says what is done then.
    pub(super) async fn exchange_to(
        &self,
        settings: &Settings,
        message: RequestMessage,
        way: Option<Way>,
        repeats: bool,
    ) -> Exchanged {
        let policy = settings.policies.of(message.service);
        let way = way.as_ref();
        match policy.and_then(|policy| policy.tries()) {
            Some(tries) => {
                // Boxed, as the call off the node below: a request that is waited for has no room for what it does not do.
                Box::pin(self.exchange_again(Asked { settings, tries, message: &message, way, repeats }))
                    .await
            }
            None => self.exchange_once(settings, message, way, repeats).await.0,
        }
    }

    /// As [`Dpu::exchange_to`], for a worker, in a task of its own. Whether to repeat it is the worker's decision.
    pub(super) fn relay_tries(
        &self,
        settings: Rc<Settings>,
        slot: SlotId,
        message: RequestMessage,
        way: Option<Way>,
    ) {
        let dpu = self.clone();
        self.run(slot, |shared| &shared.tried, async move {
            dpu.exchange_to(&settings, message, way, false).await.unwrap_or_else(|refusal| {
                // Given back at once: the policy changes what services answer, and nobody has.
                dpu.0.permits.borrow_mut().remove(&slot);
                told(&refusal)
            })
        });
    }

    async fn exchange_again(&self, asked: Asked<'_>) -> Exchanged {
        let Asked { tries, message, .. } = asked;
        tries.borrow_mut().begin(Nanos::now());
        let mut retries = 0;
        let (mut last, mut paid) = (None, None::<Paid<'_>>);
        loop {
            let admitted = tries.borrow().admit(message, Nanos::now());
            let leave = match admitted {
                Ok(pass) => Leave::new(asked, pass),
                Err(after) => return last.unwrap_or_else(|| Err(circuit_open(asked, after))),
            };
            if let Some(paid) = paid.take() {
                paid.spend();
            }
            let (answer, outcome) = self.hedged(asked, leave).await;
            let tried = Tried { message, outcome, retries };
            let again = tries.borrow_mut().again(tried, Nanos::now(), || fastrand::u64(..));
            let Some(Again { wait, paid: taken }) = again else { return answer };
            (last, paid) = (Some(answer), Some(Paid { tries, taken: Some(taken) }));
            retries += 1;
            sleep(wait).await;
        }
    }

    /// One try, and a second call beside it if it is slow. The other call is given up when one has an answer that is none of
    /// a failure.
    async fn hedged(&self, asked: Asked<'_>, leave: Leave<'_>) -> (Exchanged, Outcome) {
        let tries = asked.tries;
        let begun = Instant::now();
        let mut first = pin!(self.try_once(asked, leave));
        let slow_after = tries.borrow().slow_after(asked.message);
        let Some(slow_after) = slow_after else { return first.await };
        if let Ok(tried) = timeout(slow_after, &mut first).await {
            return tried;
        }
        let hedge = tries.borrow_mut().hedge(asked.message, Nanos::now());
        let Some(pass) = hedge else { return first.await };
        let mut second = pin!(self.try_once(asked, Leave::new(asked, pass)));
        let is_good = |tried: &(Exchanged, Outcome)| tried.1.verdict() == Verdict::Success;
        let (mut tried, mut second_won) = tokio::select! {
            tried = &mut first => (tried, false),
            tried = &mut second => (tried, true),
        };
        if !is_good(&tried) {
            let other = if second_won { first.await } else { second.await };
            if is_good(&other) {
                (tried, second_won) = (other, !second_won);
            }
        }
        if second_won && is_good(&tried) {
            tries.borrow_mut().hedge_won(begun.elapsed());
        }
        tried
    }

    async fn try_once(&self, asked: Asked<'_>, mut leave: Leave<'_>) -> (Exchanged, Outcome) {
        let mut message = asked.message.clone();
        message.deadline = asked.tries.borrow().deadline_of_try(Nanos::now(), message.deadline);
        let had = message.deadline.saturating_since(Nanos::now());
        let repeats = asked.repeats && !asked.tries.borrow().decides_retries();
        let (begun, link) = (Instant::now(), self.0.links_lost.get());
        let (answer, outcome) = self.exchange_once(asked.settings, message, asked.way, repeats).await;
        // It came too late to be answered in time by anybody.
        let was_late = outcome == Outcome::Failed(Trigger::Timeout) && had < asked.allowance() / 2;
        // All workers are lost with the link to the DPA: it is not this service's doing.
        let was_cut = outcome == Outcome::Failed(Trigger::WorkerLost) && link != self.0.links_lost.get();
        leave.verdict = if was_late || was_cut { Verdict::Nothing } else { outcome.verdict() };
        if leave.verdict == Verdict::Success {
            asked.tries.borrow_mut().took(begun.elapsed());
        }
        (answer, outcome)
    }

    /// One call: of a worker here, else where `way` leads. `repeats`: once more if the worker dies with it and that is safe.
    async fn exchange_once(
        &self,
        settings: &Settings,
        message: RequestMessage,
        way: Option<&Way>,
        repeats: bool,
    ) -> (Exchanged, Outcome) {
        let spare = way.map(|way| (way, message.clone()));
        let answer = self.exchange_here(message, repeats).await;
        let outcome = outcome_of(&answer);
        match spare {
            Some((way, message)) if fault_of(&answer) == Fault::NoWorker => {
                let calling = Box::pin(self.0.egress.call_service(&settings.clients, way, message));
                let (answer, outcome) = calling.await;
                (Ok(answer), outcome)
            }
            Some(_) | None => (answer, outcome),
        }
    }

    /// `repeats`: one whose worker died with it is sent once more, to another, if its method says that doing it twice is as
    /// good as once.
    ///
    /// It is sent at once, before the future is polled: what is waited for has no room for the message.
    pub(super) fn exchange_here(
        &self,
        message: RequestMessage,
        repeats: bool,
    ) -> impl Future<Output = Exchanged> {
        let may_repeat = repeats && message.is_idempotent();
        let again = may_repeat.then(|| message.clone());
        let call = self.call(message);
        async move {
            let answer = call?.await;
            match again {
                Some(message) if answer.fault == Fault::WorkerLost => Ok(self.call(message)?.await),
                Some(_) | None => Ok(answer),
            }
        }
    }
}

fn circuit_open(asked: Asked<'_>, after: Duration) -> Refusal {
    asked.tries.borrow_mut().count_circuit_refused();
    let service = asked.settings.routes.name(asked.message.service).map(ToString::to_string);
    Refusal::CircuitOpen { service: service.unwrap_or_default(), after }
}

/// What a refusal is to a cell.
fn told(refusal: &Refusal) -> ResponseMessage {
    if let Refusal::Mesh { fault, .. } = refusal {
        return ResponseMessage::faulted(*fault);
    }
    refusal.describe().message()
}

fn fault_of(answer: &Exchanged) -> Fault {
    match answer {
        Ok(answer) => answer.fault,
        Err(refusal) => refusal.fault(),
    }
}

/// What an answer of this node is to a policy. Without a way to a worker there is none.
fn outcome_of(answer: &Exchanged) -> Outcome {
    match fault_of(answer) {
        Fault::None => answer.as_ref().map_or(Outcome::Final, |answer| Outcome::Answered(answer.status)),
        Fault::NoWorker | Fault::Unroutable => Outcome::Failed(Trigger::NoWorker),
        Fault::Overloaded => Outcome::Failed(Trigger::Overloaded),
        Fault::WorkerLost => Outcome::Failed(Trigger::WorkerLost),
        Fault::Deadline => Outcome::Failed(Trigger::Timeout),
        Fault::HopLimit | Fault::TooLarge | Fault::Cancelled | Fault::Internal => Outcome::Final,
    }
}
