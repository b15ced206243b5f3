//! One constant rate: threads that connect, begin together, and are counted together.
//!
//! ```text
//! threads: connect --> Connected --> wait for the start --> ask --> Ended
//! here:               wait for all --> say the start --> progress --> sum
//! ```
//!
//! - The schedule starts when all are connected: what a server takes for that is no latency.
//! - A thread says `Ended` however it ends. Before all are connected that ends the others too.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow, bail};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::Options;
use super::client::Client;
use super::interrupt::Interrupt;
use super::pacer::{Pacer, Schedule};
use super::report::Progress;
use super::tally::Tally;
use super::target::Target;

/// From the last connection to the first request: by then all threads have heard of it.
const START_DELAY: Duration = Duration::from_millis(10);

/// What came of one rate, and when its schedule began.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) tally: Tally,
    pub(super) started: SystemTime,
}

/// Asks at this rate.
///
/// # Errors
/// If the server cannot be reached, or a signal comes before it is.
pub(super) fn run(options: &Options, target: &Arc<Target>, rate: f64, interrupt: &Interrupt) -> Result<Step> {
    let none = Tally::new(rate, options.duration.0);
    let tallies: Vec<_> = (0..options.threads).map(|_| Counting::new(Mutex::new(none.clone()))).collect();
    let (events, heard) = mpsc::channel();
    let (start, told) = watch::channel(None);
    let spawn = |(index, tally)| {
        let share = Share::of(options, target, rate, index, tally);
        let (told, interrupt, events) = (told.clone(), interrupt.clone(), Events(events.clone()));
        std::thread::spawn(move || share.run(told, interrupt, &events))
    };
    let threads: Vec<_> = tallies.iter().enumerate().map(spawn).collect();
    if !all_connected(&heard, threads.len()) {
        drop(start);
        return Err(join(threads).err().unwrap_or_else(|| anyhow!("a thread ended before it was connected")));
    }
    let (begins, started) = (Instant::now() + START_DELAY, SystemTime::now() + START_DELAY);
    start.send_replace(Some(begins));
    let mut progress = (!options.search).then(|| Progress::from(begins));
    until_ended(&heard, threads.len(), &mut progress, || sum(none.clone(), &tallies));
    join(threads)?;
    Ok(Step { tally: sum(none, &tallies), started })
}

/// What a thread counts. Nobody else looks at it but once a second, for the progress.
type Counting = Arc<Mutex<Tally>>;

fn sum(mut sum: Tally, tallies: &[Counting]) -> Tally {
    for tally in tallies {
        sum += &tally.lock().unwrap_or_else(PoisonError::into_inner);
    }
    sum
}

/// The first error of them, when all have ended.
fn join(threads: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    let ended: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("a load thread does not panic")).collect();
    ended.into_iter().collect()
}

/// What a thread tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// It can begin.
    Connected,
    /// It is over, or could not connect.
    Ended,
}

/// False as soon as one has ended instead.
fn all_connected(heard: &Receiver<Event>, count: usize) -> bool {
    (0..count).all(|_| heard.recv() == Ok(Event::Connected))
}

fn until_ended(
    heard: &Receiver<Event>,
    mut left: usize,
    progress: &mut Option<Progress>,
    sum: impl Fn() -> Tally,
) {
    while left > 0 {
        let event = match progress {
            Some(progress) => heard.recv_timeout(progress.wait()),
            None => heard.recv().map_err(RecvTimeoutError::from),
        };
        match (event, &mut *progress) {
            (Ok(Event::Ended), _) => left -= 1,
            (Err(RecvTimeoutError::Timeout), Some(progress)) => eprintln!("{}", progress.line(&sum())),
            (Err(RecvTimeoutError::Disconnected), _) => break,
            (Ok(Event::Connected) | Err(RecvTimeoutError::Timeout), _) => {}
        }
    }
}

/// The way from a thread to here: says that the thread has ended when it has, also by a panic.
struct Events(Sender<Event>);

impl Drop for Events {
    fn drop(&mut self) {
        // Who does not listen any more has failed before.
        let _ = self.0.send(Event::Ended);
    }
}

/// One thread's part.
struct Share {
    target: Arc<Target>,
    tally: Counting,
    /// Of all threads.
    rate: f64,
    duration: Duration,
    index: usize,
    threads: usize,
    connections: usize,
    timeout: Duration,
}

impl Share {
    fn of(options: &Options, target: &Arc<Target>, rate: f64, index: usize, tally: &Counting) -> Self {
        let more = usize::from(index < options.connections % options.threads);
        Self {
            target: Arc::clone(target),
            tally: Arc::clone(tally),
            rate,
            duration: options.duration.0,
            index,
            threads: options.threads,
            connections: options.connections / options.threads + more,
            timeout: options.timeout.0,
        }
    }

    fn run(
        self,
        told: watch::Receiver<Option<Instant>>,
        interrupt: Interrupt,
        events: &Events,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let mut stop = interrupt;
            let clients = tokio::select! {
                clients = Client::connect(&self.target, self.connections, self.timeout) => clients?,
                signal = stop.wait() => bail!("{signal} before all were connected: nothing was sent"),
            };
            events.0.send(Event::Connected)?;
            match start(told).await {
                Some(start) => self.ask(clients, start, stop).await,
                // Another thread could not connect.
                None => Ok(()),
            }
        })
    }

    /// Until every request has ended, or a signal comes.
    async fn ask(&self, clients: Vec<Client>, start: Instant, mut stop: Interrupt) -> Result<()> {
        let schedule = Schedule::new(start, self.rate, self.duration);
        let pacer = Pacer::start(schedule.share(self.index, self.threads))?;
        let mut asking = JoinSet::new();
        for client in clients {
            asking.spawn_local(client.run(pacer.due(), Arc::clone(&self.tally), start, self.timeout));
        }
        let cut_short = tokio::select! {
            () = all_of(&mut asking) => None,
            signal = stop.wait() => Some(signal),
        };
        asking.shutdown().await;
        let (offered, elapsed) = (pacer.end(), start.elapsed());
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).end(offered, elapsed, cut_short);
        Ok(())
    }
}

/// None if there will be none.
async fn start(mut told: watch::Receiver<Option<Instant>>) -> Option<Instant> {
    told.wait_for(Option::is_some).await.ok().and_then(|start| *start)
}

async fn all_of(asking: &mut JoinSet<()>) {
    while asking.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use tokio::net::TcpSocket;

    use super::*;
    use crate::load::interrupt::StopSignal;
    use crate::load::options::tests::options;

    /// A listener that lets two connections wait, and no more.
    fn short_backlog() -> (SocketAddr, TcpListener) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let listener = socket.listen(1).and_then(tokio::net::TcpListener::into_std).expect("a listener");
        listener.set_nonblocking(false).expect("a listener that waits");
        (listener.local_addr().expect("bound"), listener)
    }

    fn step(address: SocketAddr, args: &[&str], interrupt: &Interrupt) -> Result<Step> {
        let options = Options { url: format!("http://{address}/"), ..options(args) };
        let target = Arc::new(Target::of(&options)?);
        run(&options, &target, options.rate, interrupt)
    }

    /// A thread that cannot connect ends the load for the others too, which have and would wait for the start.
    #[test]
    fn one_thread_that_fails_ends_all() {
        let (address, _never_accepts) = short_backlog();
        let args = ["--threads", "3", "-c", "9", "--timeout", "100ms"];
        let why = step(address, &args, &Interrupt::never()).expect_err("no step");
        assert_eq!(
            why.to_string(),
            format!("cannot connect to {address}: no answer within --timeout (100ms)")
        );
    }

    /// What a server takes to accept is no latency: nothing is due until all are connected.
    #[test]
    fn schedule_starts_when_all_are_connected() {
        let (address, listener) = short_backlog();
        let accepting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            let accepts = SystemTime::now();
            drop((0..8).map(|_| listener.accept()).collect::<Vec<_>>());
            accepts
        });
        let args = ["--threads", "2", "-c", "8", "--rate", "10", "--duration", "100ms"];
        let step = step(address, &args, &Interrupt::never()).expect("a server that accepts");
        assert!(step.started >= accepting.join().expect("no panic"));
        assert_eq!((step.tally.offered, step.tally.waiting()), (1, 0));
    }

    /// A signal is heard while a server lets the load wait for connections.
    #[test]
    fn signal_ends_connecting() {
        let (address, _never_accepts) = short_backlog();
        let interrupt = Interrupt::already(StopSignal::Interrupt);
        let why = step(address, &["-c", "9", "--timeout", "10h"], &interrupt).expect_err("no step");
        assert_eq!(why.to_string(), "SIGINT before all were connected: nothing was sent");
    }
}
