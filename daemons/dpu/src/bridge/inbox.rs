//! The objects that arrive on a bridge connection.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::scanner::Scanner;
use crate::config::DpuConfig;
use crate::dpu::Received;
use crate::faults::Refusal;
use crate::ingress::Client;
use crate::units::{ByteSize, TimeSpan};

/// What an object may be longer than its body: names, path, headers, and some escapes.
const AROUND_BODY: ByteSize = ByteSize::kib(64);
const READ_BYTES: usize = 64 * 1024;

/// Cuts a stream of bytes into objects.
pub(super) struct Inbox {
    bytes: BytesMut,
    /// How many of `bytes` the scanner has seen.
    seen: usize,
    scanner: Scanner,
    depth_max: u16,
    bytes_max: ByteSize,
    timeout: TimeSpan,
    ended: bool,
}

impl Inbox {
    pub(super) fn new(config: &DpuConfig) -> Self {
        Self {
            bytes: BytesMut::new(),
            seen: 0,
            scanner: Scanner::new(config.json_depth_max),
            depth_max: config.json_depth_max,
            bytes_max: ByteSize(config.body_bytes_max.0 + AROUND_BODY.0),
            timeout: config.json_timeout,
            ended: false,
        }
    }

    /// The next whole object, of which something has arrived.
    ///
    /// - cost: each byte is looked at once, whatever the pieces.
    /// # Errors
    /// 400 for what can be no object or ends too early or comes too slowly, 413, 503.
    pub(super) async fn next(&mut self, io: &mut Client, received: &mut Received) -> Result<Bytes, Refusal> {
        let until = Instant::now() + self.timeout.0;
        loop {
            if let Some(object) = self.take_whole()? {
                return Ok(object);
            }
            if self.ended {
                return Err(Refusal::BadRequest("the connection ended inside the JSON object".to_owned()));
            }
            self.check_length()?;
            received.hold(self.read(io, until).await?)?;
        }
    }

    /// Whether bytes of another object are there, without waiting for any.
    pub(super) fn has_more(&mut self, io: &mut Client) -> bool {
        if self.skip_blank() {
            return true;
        }
        self.ended |= io.read_now(&mut self.bytes).is_err();
        self.skip_blank()
    }

    fn take_whole(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.seen == 0 {
            self.skip_blank();
        }
        let found = self.scanner.find_end(&self.bytes[self.seen..]);
        let Some(length) = found.map_err(|error| Refusal::BadRequest(error.to_string()))? else {
            self.seen = self.bytes.len();
            return Ok(None);
        };
        let object = self.bytes.split_to(self.seen + length).freeze();
        self.seen = 0;
        self.scanner = Scanner::new(self.depth_max);
        Ok(Some(object))
    }

    /// Drops white space between objects; `true` if anything else is there.
    fn skip_blank(&mut self) -> bool {
        let blank = self.bytes.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.bytes.advance(blank);
        !self.bytes.is_empty()
    }

    fn check_length(&self) -> Result<(), Refusal> {
        if self.bytes.len() as u64 > self.bytes_max.0 {
            return Err(Refusal::ObjectTooLarge { limit: self.bytes_max });
        }
        Ok(())
    }

    /// How many bytes came.
    async fn read(&mut self, io: &mut Client, until: Instant) -> Result<usize, Refusal> {
        self.bytes.reserve(READ_BYTES.min(self.bytes.len().max(1024)));
        match timeout_at(until, io.read_buf(&mut self.bytes)).await {
            Err(_elapsed) => {
                return Err(Refusal::BadRequest(format!(
                    "the JSON object was not complete within {}",
                    self.timeout
                )));
            }
            Ok(Ok(count @ 1..)) => return Ok(count),
            Ok(Ok(0) | Err(_)) => self.ended = true,
        }
        Ok(0)
    }
}
