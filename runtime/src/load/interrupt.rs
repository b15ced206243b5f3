//! SIGINT and SIGTERM: the first cuts the load short, the second ends the process at once.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::mpsc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What told the load to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// As a shell says of a process that this signal ended.
    pub(super) fn exit_status(self) -> i32 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Whether the load is to end early.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(watch::Receiver<Option<StopSignal>>);

impl Interrupt {
    /// From now on signals are heard here.
    ///
    /// # Errors
    /// When they cannot be.
    pub(super) fn heard() -> io::Result<Self> {
        let (tell, told) = watch::channel(None);
        let (ready, readiness) = mpsc::channel();
        std::thread::Builder::new().name("signals".into()).spawn(move || hear(&tell, &ready))?;
        readiness.recv().unwrap_or_else(|_| Err(io::Error::other("no thread for signals")))?;
        Ok(Self(told))
    }

    /// The signal that has come.
    pub(super) fn signal(&self) -> Option<StopSignal> {
        *self.0.borrow()
    }

    /// Waits for it.
    pub(super) async fn wait(&mut self) -> StopSignal {
        match self.0.wait_for(Option::is_some).await.ok().and_then(|signal| *signal) {
            Some(signal) => signal,
            // Nobody listens any more.
            None => pending().await,
        }
    }

    #[cfg(test)]
    pub(super) fn never() -> Self {
        Self(watch::channel(None).1)
    }

    #[cfg(test)]
    pub(super) fn already(signal: StopSignal) -> Self {
        Self(watch::channel(Some(signal)).1)
    }
}

fn hear(tell: &watch::Sender<Option<StopSignal>>, ready: &mpsc::Sender<io::Result<()>>) {
    let listening = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        let signals = runtime.block_on(async { Signals::new() })?;
        Ok((runtime, signals))
    });
    let (runtime, mut signals) = match listening {
        Ok(listening) => listening,
        Err(error) => return drop(ready.send(Err(error))),
    };
    // Without a reader the process is ending.
    let _ = ready.send(Ok(()));
    runtime.block_on(async {
        tell.send_replace(Some(signals.next().await));
        std::process::exit(signals.next().await.exit_status());
    });
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::Terminate,
        }
    }
}
