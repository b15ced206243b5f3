//! A closed-loop load: each connection sends its next request when it has the whole answer to the last one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest answer that is waited for.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What to send, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// What came of it. Every request was answered 200, or there is no result at all.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) time: Duration,
    /// One for each request, from its first byte sent to its last byte received.
    pub(crate) latencies_us: Vec<f64>,
}

impl Load {
    /// Runs on one thread, so that it takes one processor at the most.
    pub(crate) fn run(self) -> Result<Done> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let start = Instant::now();
            let mut clients = JoinSet::new();
            for _ in 0..self.connections {
                clients.spawn(self.client(start + self.time));
            }
            let mut latencies_us = Vec::new();
            while let Some(client) = clients.join_next().await {
                latencies_us.extend(client??);
            }
            Ok(Done { time: start.elapsed(), latencies_us })
        })
    }

    async fn client(self, end: Instant) -> Result<Vec<f64>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\naccept: */*\r\n\r\n", self.path);
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let mut latencies_us = Vec::new();
        while Instant::now() < end {
            let sent = Instant::now();
            stream.write_all(request.as_bytes()).await?;
            read_answer(&mut stream, &mut buffer).await?;
            latencies_us.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        Ok(latencies_us)
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("closed after {filled} bytes of an answer");
        }
        filled += read;
        if let Some(length) = answer_length(&buffer[..filled])?
            && filled >= length
        {
            return Ok(());
        }
    }
}

/// Length of the whole answer, once its head is there.
fn answer_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).context("the head of an answer")?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("answered {}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(head + 4 + length.context("an answer without content-length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head in parts, a body in parts, another status.
    #[test]
    fn answers_are_measured() {
        assert_eq!(answer_length(b"HTTP/1.1 200 OK\r\nContent-Len").unwrap(), None);
        assert_eq!(answer_length(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").unwrap(), Some(43));
        assert!(answer_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
