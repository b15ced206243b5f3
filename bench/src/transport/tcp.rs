//! TCP over loopback, blocking: what services pay between them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

/// A client, and a thread that sends back what it gets.
pub(crate) struct Loopback {
    client: TcpStream,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Loopback {
    /// Messages of `size` bytes. The server's thread ends with the client's connection.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        thread::spawn(move || {
            let mut message = vec![0; size];
            while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
        });
        Ok(Self { client, sent: vec![7; size], received: vec![0; size] })
    }

    /// One message, there and back.
    pub(crate) fn round_trip(&mut self) -> Result<()> {
        self.client.write_all(&self.sent)?;
        self.client.read_exact(&mut self.received)?;
        Ok(())
    }
}
