//! A client that sends exactly the frames that a test wants, and notes all that comes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use cellmesh_tests::HANG;

use crate::frame::{
    ACK, Code, DATA, END_BOTH, END_STREAM, FRAME_BYTES, Frame, GOAWAY, HEADER_TABLE_SIZE, HEADERS,
    INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS, WINDOW, WINDOW_UPDATE, data, headers, number, ping,
    settings, settings_ack, window_update,
};
use crate::hpack;

/// Source: RFC 9113, 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An answer, or as much of it as has come.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) is_whole: bool,
}

/// All that has come on a connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: BTreeMap<u32, Answer>,
    pub(crate) resets: Vec<(u32, Code)>,
    pub(crate) goaway: Option<Code>,
    pub(crate) has_ended: bool,
    pub(crate) settings: Vec<(u16, u32)>,
    pub(crate) settings_acks: usize,
    pub(crate) pongs: Vec<Vec<u8>>,
    /// The longest DATA frame.
    pub(crate) data_bytes_longest: usize,
    /// What WINDOW_UPDATE frames have given, by stream.
    windows: BTreeMap<u32, usize>,
}

impl Seen {
    pub(crate) fn answer(&self, stream: u32) -> Option<&Answer> {
        self.answers.get(&stream)
    }

    pub(crate) fn is_answered(&self, stream: u32) -> bool {
        self.answer(stream).is_some_and(|answer| answer.is_whole)
    }

    pub(crate) fn status(&self, stream: u32) -> Option<u16> {
        self.answer(stream).filter(|answer| answer.is_whole).map(|answer| answer.status)
    }

    /// Why the stream was reset; the first time.
    pub(crate) fn reset(&self, stream: u32) -> Option<Code> {
        self.resets.iter().find(|(reset, _)| *reset == stream).map(|(_, code)| *code)
    }

    pub(crate) fn body_bytes(&self, stream: u32) -> usize {
        self.answer(stream).map_or(0, |answer| answer.body.len())
    }

    /// What a peer said of a setting last.
    pub(crate) fn setting(&self, id: u16) -> Option<u32> {
        self.settings.iter().rev().find(|(said, _)| *said == id).map(|(_, value)| *value)
    }

    fn note(&mut self, frame: &Frame) {
        let payload = &frame.payload[..];
        match frame.kind {
            HEADERS => {
                let status = hpack::status(payload).unwrap_or_else(|| panic!("no status in {frame:?}"));
                self.answers.entry(frame.stream).or_default().status = status;
            }
            DATA => {
                self.answers.entry(frame.stream).or_default().body.extend(payload);
                self.data_bytes_longest = self.data_bytes_longest.max(payload.len());
            }
            RST_STREAM => self.resets.push((frame.stream, Code::read(payload))),
            SETTINGS if frame.has(ACK) => self.settings_acks += 1,
            SETTINGS => {
                let values = payload.as_chunks::<6>().0.iter();
                self.settings.extend(
                    values.map(|value| (u16::from_be_bytes([value[0], value[1]]), number(&value[2..]))),
                );
            }
            PING if frame.has(ACK) => self.pongs.push(payload.to_vec()),
            GOAWAY => self.goaway = Some(Code::read(&payload[4..])),
            WINDOW_UPDATE => *self.windows.entry(frame.stream).or_default() += number(payload) as usize,
            _ => {}
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM) {
            self.answers.entry(frame.stream).or_default().is_whole = true;
        }
    }
}

/// A connection of frames.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    pub(crate) seen: Seen,
    fences: u64,
}

impl Client {
    /// Connects, and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_nodelay(true).expect("a TCP option");
        stream.set_read_timeout(Some(HANG)).expect("a TCP option");
        stream.set_write_timeout(Some(HANG)).expect("a TCP option");
        Self { stream, unread: Vec::new(), seen: Seen::default(), fences: 0 }
    }

    /// Connects and shakes hands, with the settings that each peer has without saying so.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    /// Connects and shakes hands, with these settings and no dynamic table for responses.
    pub(crate) fn open_with(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut client = Self::connect(address);
        client.send([PREFACE, &settings(&[&[(HEADER_TABLE_SIZE, 0)], values].concat())].concat());
        client.until("settings", |seen| seen.settings_acks == 1 && !seen.settings.is_empty());
        client.send(settings_ack());
        client
    }

    /// Sends bytes, as far as the node takes them: it may close in the middle.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// A second hand on the connection, for sending while this one reads.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor")
    }

    /// Reads until `condition` holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&Seen) -> bool) {
        self.until_or_end(&condition);
        assert!(condition(&self.seen), "never: {what}; {:?}", self.seen);
    }

    /// Reads until `condition` holds or the node has closed.
    pub(crate) fn until_or_end(&mut self, condition: impl Fn(&Seen) -> bool) {
        while !condition(&self.seen) && self.note_next() {}
    }

    /// Waits for the whole answer on a stream, and gives status and body.
    #[track_caller]
    pub(crate) fn answer(&mut self, stream: u32) -> (u16, String) {
        self.until("an answer", |seen| seen.is_answered(stream));
        let answer = &self.seen.answers[&stream];
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// One request without a body and its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, stream: u32, target: &str) -> (u16, String) {
        self.send(headers(stream, END_BOTH, hpack::get(target)));
        self.answer(stream)
    }

    /// Two round trips: whatever the node has to say to what it got before has been read then. One is not enough, as
    /// answers to pings overtake what streams are about to send. Nothing more comes after the end.
    pub(crate) fn fence(&mut self) {
        for _ in 0..2 {
            self.fences += 1;
            let number = self.fences.to_be_bytes().to_vec();
            self.send(ping(self.fences));
            self.until_or_end(|seen| seen.pongs.contains(&number));
        }
    }

    /// Sends a body in frames as long as allowed, when the windows allow it; gives back what answers take of ours.
    #[track_caller]
    pub(crate) fn send_body(&mut self, stream: u32, body: &[u8]) {
        let mut sent = 0;
        let mut given_back = 0;
        while sent < body.len() {
            let room = self.room(stream).saturating_sub(sent).min(body.len() - sent).min(FRAME_BYTES);
            if room == 0 {
                assert!(self.note_next(), "the node closed; {:?}", self.seen);
            } else {
                self.send(data(stream, 0, &body[sent..sent + room]));
                sent += room;
            }
            given_back += self.give_back(stream, given_back);
        }
        self.send(data(stream, END_STREAM, []));
        while !self.seen.is_answered(stream) && self.note_next() {
            given_back += self.give_back(stream, given_back);
        }
    }

    /// All that one stream may ever have sent so far, if it is the only one with a body.
    fn room(&self, stream: u32) -> usize {
        let first = self.seen.setting(INITIAL_WINDOW_SIZE).unwrap_or(WINDOW) as usize;
        let given = |stream| self.seen.windows.get(&stream).copied().unwrap_or(0);
        (first + given(stream)).min(WINDOW as usize + given(0))
    }

    /// Opens both windows by what has come since; returns how much.
    fn give_back(&mut self, stream: u32, before: usize) -> usize {
        let fresh = self.seen.body_bytes(stream) - before;
        if fresh > 0 && !self.seen.is_answered(stream) {
            let fresh = u32::try_from(fresh).expect("less than a window");
            self.send([window_update(0, fresh), window_update(stream, fresh)].concat());
        }
        fresh
    }

    /// Reads one frame and notes it; `false` at the end.
    fn note_next(&mut self) -> bool {
        loop {
            if let Some(frame) = Frame::take(&mut self.unread) {
                self.seen.note(&frame);
                return true;
            }
            let mut bytes = vec![0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(count @ 1..) => self.unread.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the node hangs; {:?}", self.seen)
                }
                Ok(0) | Err(_) => {
                    self.seen.has_ended = true;
                    return false;
                }
            }
        }
    }
}
