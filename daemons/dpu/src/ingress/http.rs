//! HTTP connections: hyper reads and writes, this says what each request becomes.
//!
//! accept, shed, check, route, admit, body, call, answer - in [`answer`], in this order.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use cellmesh_shm::message::RequestMessage;
use http::Request;
use http::request::Parts;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};

use super::answer::{self, Answer};
use super::io::{ClientIo, Standing};
use super::{HeadProblem, body, check};
use crate::config::DpuConfig;
use crate::dpu::{Connection, Dpu, Received};
use crate::faults::Refusal;

/// What hyper accepts without allocating room for headers on each request.
const HYPER_HEADERS: u16 = 100;
/// Read and write buffer of a busy HTTP/1 connection. hyper starts with 8 KiB and grows with use.
const HTTP1_BUFFER_BYTES: usize = 256 * 1024;
/// What a client may send on one stream before we read: keeps 16 MiB bodies moving.
const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together; bounds what a connection can make us hold.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// A silent HTTP/2 peer is asked whether it is still there.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves HTTP/1 until the connection closes.
pub(super) async fn serve_http1(dpu: &Dpu, mut io: ClientIo, connection: &Connection) {
    io.expect_http1();
    let (standing, departure) = (io.standing(), io.departure());
    let service = service_fn(|request| serve_request(dpu.clone(), Rc::clone(&standing), request));
    let mut http = http1_builder(&dpu.settings().config).serve_connection(TokioIo::new(io), service);
    let mut ending = false;
    let served = poll_fn(|cx| {
        // hyper first: a request that has arrived is answered, also while draining.
        if let Poll::Ready(served) = Pin::new(&mut http).poll(cx) {
            return Poll::Ready(served);
        }
        if departure.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if ending || connection.poll_drain(cx.waker()).is_pending() {
            return Poll::Pending;
        }
        ending = true;
        Pin::new(&mut http).graceful_shutdown();
        Pin::new(&mut http).poll(cx)
    });
    let served = served.await;
    if let Some(problem) = problem_of_head(&served, &standing) {
        dpu.count_head(problem);
    }
    log_end(served);
}

/// Why the last head of a connection was refused, if it was. The parser has answered it.
fn problem_of_head(served: &hyper::Result<()>, standing: &Standing) -> Option<HeadProblem> {
    let error = served.as_ref().err()?;
    if standing.is_head_slow() {
        return Some(HeadProblem::TooSlow);
    }
    if error.is_parse_too_large() {
        return Some(HeadProblem::TooLarge);
    }
    error.is_parse().then_some(HeadProblem::Malformed)
}

/// Serves HTTP/2 until the connection closes.
pub(super) async fn serve_http2(dpu: &Dpu, io: ClientIo, connection: &Connection) {
    let standing = io.standing();
    let in_service = Rc::clone(&standing);
    let in_dpu = dpu.clone();
    let service = service_fn(move |request| serve_request(in_dpu.clone(), Rc::clone(&in_service), request));
    let settings = dpu.settings();
    let mut http = http2_builder(&settings.config).serve_connection(TokioIo::new(io), service);
    let mut idle = Idle::new(settings.config.keep_alive_idle_timeout.0, standing);
    let mut ending = false;
    let served = poll_fn(|cx| {
        loop {
            if let Poll::Ready(served) = Pin::new(&mut http).poll(cx) {
                return Poll::Ready(served);
            }
            let idle = idle.poll(cx).is_ready();
            if idle && ending {
                return Poll::Ready(Ok(())); // told to end a period ago, but takes none of our last bytes
            }
            if ending || !(idle || connection.poll_retire(cx.waker()).is_ready()) {
                return Poll::Pending;
            }
            ending = true;
            Pin::new(&mut http).graceful_shutdown();
        }
    });
    log_end(served.await);
}

/// A client that breaks the protocol or leaves is its own business.
fn log_end(served: hyper::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

fn http1_builder(config: &DpuConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // No look at the socket while a request is in flight, which takes another buffer: `Departure` looks.
        .half_close(true)
        // Not `pipeline_flush`: hyper 1.12 then closes without flushing while unread bytes are left, so the
        // 400 to a bad request with another behind it is lost (`ambiguous_requests_are_refused`).
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .max_header_size(config.head_bytes_max.as_len())
        .header_read_timeout(None); // ClientIo keeps it: hyper's would also run on idle connections
    if config.header_lines_max != HYPER_HEADERS {
        builder.max_headers(usize::from(config.header_lines_max));
    }
    builder
}

fn http2_builder(config: &DpuConfig) -> http2::Builder<OnLane> {
    let mut builder = http2::Builder::new(OnLane);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.h2_streams_max)
        .max_pending_accept_reset_streams(config.h2_pending_resets_max as usize)
        .max_local_error_reset_streams(config.h2_local_resets_max as usize)
        .max_header_list_size(u32::try_from(config.head_bytes_max.0).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Runs hyper's streams on the lane that owns the connection.
#[derive(Clone, Copy)]
struct OnLane;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnLane {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}

/// Ready each time that a whole period passed with nothing in flight and nothing begun.
struct Idle {
    period: Duration,
    look: Pin<Box<tokio::time::Sleep>>,
    begun: u64,
    standing: Rc<Standing>,
}

impl Idle {
    fn new(period: Duration, standing: Rc<Standing>) -> Self {
        Self { period, look: Box::pin(sleep(period)), begun: 0, standing }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            self.look.as_mut().reset(Instant::now() + self.period);
            let begun = std::mem::replace(&mut self.begun, self.standing.begun());
            if self.standing.is_idle() && self.standing.begun() == begun {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Answers one request. Dropped when the client leaves: everything it holds gives itself back.
async fn serve_request(
    dpu: Dpu,
    standing: Rc<Standing>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let _in_flight = standing.begin();
    let mut received = dpu.receive();
    let (mut parts, body) = request.into_parts();
    let answer = match answer(&dpu, &mut received, &standing, &mut parts, body).await {
        Ok(answer) => {
            received.answered(answer.status().as_u16());
            answer
        }
        Err(refusal) => {
            let answer = answer::of_refusal(&dpu, &received, &refusal, &parts);
            received.refused(answer.status().as_u16(), refusal.reason(), refusal.is_shed());
            answer
        }
    };
    let answer = answer::fit(answer, &parts);
    Ok(if dpu.is_retiring() { answer::the_last(answer, &parts) } else { answer })
}

async fn answer(
    dpu: &Dpu,
    received: &mut Received,
    standing: &Standing,
    parts: &mut Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    received.admit(standing.is_in_time())?;
    let check::Checked { service, route, hops, head } = check::check(received, parts, standing)?;
    received.routed(service, Some(route), &head);
    answer::forget_copied(parts);
    let (mut permit, deadline) = received.settings().admit(service, &head)?;
    let body = body::read(received, body, deadline).await?;
    check::refuse_ambiguity(standing)?;
    received.dispatch()?;
    let mut message = RequestMessage {
        service,
        deadline,
        hops,
        method_len: head.method_len,
        target_len: head.target_len,
        head: head.bytes,
        body,
    };
    permit.dispatch(&mut message)?;
    let service = message.service;
    let mut message = dpu.exchange(received.settings(), message).await?;
    permit.on_answer(&mut message);
    let name = received.settings().routes.name(service).expect("the route came from this table");
    answer::of_cell(received, message, name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_request<F: Future>(_serve: impl FnOnce(Dpu, Rc<Standing>, Request<Incoming>) -> F) -> usize {
        size_of::<F>()
    }

    fn of_connection<'a, F: Future>(_serve: impl FnOnce(&'a Dpu, ClientIo, &'a Connection) -> F) -> usize {
        size_of::<F>()
    }

    /// Thousands of clients may be slow with a body, or say nothing: what waits for them has no room for what is done later, or
    /// for few requests only.
    #[test]
    fn what_waits_is_small() {
        let (request, connection) = (of_request(serve_request), of_connection(serve_http1));
        assert!(request <= 1600 && connection <= 1600, "{request} and {connection} bytes");
    }
}
