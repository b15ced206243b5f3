//! TCP over loopback, blocking: what services pay between them.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

use super::engine::pin;

/// A client, and a thread that sends back what it gets.
pub(crate) struct Loopback {
    client: TcpStream,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Loopback {
    /// Messages of `size` bytes, both sides blocking. The server's thread ends with the client's connection.
    pub(crate) fn new(size: usize) -> Result<Self> {
        Self::start(size, false, || Ok(()))
    }

    /// The same with a server on this processor; if `polling`, neither side ever sleeps.
    pub(super) fn placed(size: usize, cpu: usize, polling: bool) -> Result<Self> {
        Self::start(size, polling, move || pin(cpu))
    }

    fn start(
        size: usize,
        polling: bool,
        begin: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        for side in [&client, &server] {
            side.set_nodelay(true)?;
            side.set_nonblocking(polling)?;
        }
        thread::spawn(move || -> Result<()> {
            begin()?;
            let mut message = vec![0; size];
            loop {
                read_exact(&mut server, &mut message)?;
                server.write_all(&message)?;
            }
        });
        Ok(Self { client, sent: vec![7; size], received: vec![0; size] })
    }

    /// One message, there and back.
    pub(crate) fn round_trip(&mut self) -> Result<()> {
        self.client.write_all(&self.sent)?;
        read_exact(&mut self.client, &mut self.received)?;
        Ok(())
    }
}

/// Reads again where there is nothing yet, and the stream does not wait.
fn read_exact(stream: &mut TcpStream, mut to: &mut [u8]) -> std::io::Result<()> {
    while !to.is_empty() {
        match stream.read(to) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => to = &mut to[read..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
