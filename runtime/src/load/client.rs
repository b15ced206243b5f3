//! One request after the other, each on what its protocol takes for a connection.

use std::cell::RefCell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::pacer::Due;
use super::tally::{Ended, Tally};
use super::{Options, Protocol};

/// Streams of one HTTP/2 connection. Source: what servers allow by default.
const STREAMS_PER_CONNECTION: usize = 100;

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct Target {
    address: SocketAddr,
    protocol: Protocol,
    request: Request<()>,
    body: Bytes,
    /// The same for the JSON bridge.
    object: String,
}

impl Target {
    /// Looks the server up and puts the request together.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let url: Uri = options.url.parse().with_context(|| format!("{}: not a URL", options.url))?;
        let Some(authority) = url.authority().filter(|_| url.scheme_str() == Some("http")) else {
            bail!("{}: must be http://host:port/path", options.url);
        };
        let port = authority.port_u16().unwrap_or(80);
        let address = (authority.host(), port).to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.with_context(|| format!("there is no host {}", authority.host()))?;
        let request = request(options, &url, authority.as_str())?;
        let object = object(options, &request);
        Ok(Self { address, protocol: options.protocol, request, body: options.body.clone().into(), object })
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        self.request.clone().map(|()| Full::new(self.body.clone()))
    }
}

fn request(options: &Options, url: &Uri, authority: &str) -> Result<Request<()>> {
    let method = Method::from_bytes(options.method.as_bytes())
        .with_context(|| format!("--method {}: must be an HTTP method", options.method))?;
    let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // HTTP/2 needs the whole URL, HTTP/1.1 the path and a host.
    let uri = if options.protocol == Protocol::Http2 { url.to_string() } else { target.to_owned() };
    let mut request = Request::builder().method(method).uri(uri).body(())?;
    if options.protocol != Protocol::Http2 {
        request.headers_mut().insert(http::header::HOST, authority.parse()?);
    }
    for line in &options.headers {
        let header = line.split_once(':').and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
        });
        let (name, value) = header.with_context(|| format!("--header {line:?}: must be \"name: value\""))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// Without a URL: the bridge would take its host for the name of a service.
fn object(options: &Options, request: &Request<()>) -> String {
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    json!({
        "method": options.method,
        "path": request.uri().path(),
        "query_string": request.uri().query().unwrap_or_default(),
        "headers": headers,
        "body": options.body,
    })
    .to_string()
}

/// One request in flight at a time.
pub(super) struct Client {
    target: Arc<Target>,
    way: Way,
}

enum Way {
    /// Keep-alive; made anew when it breaks.
    Http1(Option<http1::SendRequest<Full<Bytes>>>),
    /// Streams share a connection, which is made anew by whoever finds it broken.
    Http2(Rc<RefCell<Option<http2::SendRequest<Full<Bytes>>>>>),
    /// One connection for each request.
    Bridge,
}

impl Client {
    /// As many as are asked for, connected.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub(super) async fn connect(target: &Arc<Target>, count: usize) -> Result<Vec<Self>> {
        let unreachable = || format!("cannot connect to {}", target.address);
        let mut clients = Vec::with_capacity(count);
        let mut shared = Rc::default();
        for index in 0..count {
            let way = match target.protocol {
                Protocol::Http1 => Way::Http1(Some(http1(target).await.with_context(unreachable)?)),
                Protocol::Http2 => {
                    if index % STREAMS_PER_CONNECTION == 0 {
                        shared = Rc::new(RefCell::new(Some(http2(target).await.with_context(unreachable)?)));
                    }
                    Way::Http2(Rc::clone(&shared))
                }
                Protocol::Bridge => Way::Bridge,
            };
            clients.push(Self { target: Arc::clone(target), way });
        }
        Ok(clients)
    }

    /// Sends what is due until nothing is any more.
    pub(super) async fn run(mut self, due: Arc<Due>, tally: Rc<RefCell<Tally>>, patience: Duration) {
        while let Some(intended) = due.next().await {
            let ended = match timeout(patience, self.exchange()).await {
                Ok(Ok(status)) if status < 400 => Ended::Answered,
                Ok(Ok(status)) => Ended::Status(status),
                Ok(Err(_)) => Ended::Connection,
                Err(_) => Ended::Timeout,
            };
            if ended == Ended::Connection || ended == Ended::Timeout {
                self.give_up_connection();
            }
            let latency = Instant::now().saturating_duration_since(intended);
            tally.borrow_mut().count(ended, latency);
        }
    }

    /// Asks once; the status of the answer.
    async fn exchange(&mut self) -> Result<u16> {
        match &mut self.way {
            Way::Http1(kept) => {
                let mut sender = match kept.take() {
                    Some(sender) if !sender.is_closed() => sender,
                    Some(_) | None => http1(&self.target).await?,
                };
                sender.ready().await?;
                let status = answer(sender.send_request(self.target.request()).await?).await?;
                *kept = Some(sender);
                Ok(status)
            }
            Way::Http2(shared) => {
                let open = shared.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned();
                let mut sender = match open {
                    Some(sender) => sender,
                    None => {
                        let sender = http2(&self.target).await?;
                        *shared.borrow_mut() = Some(sender.clone());
                        sender
                    }
                };
                sender.ready().await?;
                answer(sender.send_request(self.target.request()).await?).await
            }
            Way::Bridge => bridge(&self.target).await,
        }
    }

    /// An answer that comes too late must not be taken for the next one's.
    fn give_up_connection(&mut self) {
        if let Way::Http1(kept) = &mut self.way {
            *kept = None;
        }
    }
}

async fn answer(response: http::Response<hyper::body::Incoming>) -> Result<u16> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

async fn http1(target: &Target) -> Result<http1::SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(target.connect().await?)).await?;
    // How it ends is seen by who sends on it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn http2(target: &Target) -> Result<http2::SendRequest<Full<Bytes>>> {
    let (sender, connection) = http2::handshake(OnLane, TokioIo::new(target.connect().await?)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// The bridge's own status is inside its object.
async fn bridge(target: &Target) -> Result<u16> {
    let mut stream = target.connect().await?;
    stream.write_all(target.object.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let object: Value = serde_json::from_slice(&answer).context("the bridge's answer")?;
    object["status"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok())
        .context("an answer without status")
}

/// Runs hyper's streams on this thread.
#[derive(Clone, Copy)]
struct OnLane;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnLane {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(stream);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn target(args: &[&str]) -> Result<Target> {
        Target::of(&Cli::parse_from([&["load"], args].concat()).options)
    }

    /// What is typed is what is sent.
    #[test]
    fn requests_are_put_together() {
        let asked =
            target(&["http://127.0.0.1:81/a?b=c", "-H", "X-Y: z", "--method", "POST", "--body", "hi"]);
        let asked = asked.expect("a right command line");
        assert_eq!((asked.address.port(), asked.request.uri().to_string().as_str()), (81, "/a?b=c"));
        assert_eq!(
            (&asked.request.headers()["host"], &asked.request.headers()["x-y"]),
            (&HeaderValue::from_static("127.0.0.1:81"), &HeaderValue::from_static("z"))
        );
        let object: Value = serde_json::from_str(&asked.object).expect("JSON");
        assert_eq!(
            (&object["path"], &object["query_string"], &object["body"]),
            (&json!("/a"), &json!("b=c"), &json!("hi"))
        );
    }

    /// What cannot be asked is told with what would be right.
    #[test]
    fn mistakes_are_named() {
        let wrong = |args: &[&str]| format!("{:#}", target(args).expect_err("wrong"));
        assert!(wrong(&["https://a/"]).contains("must be http://host:port/path"));
        assert!(wrong(&["http://127.0.0.1/", "-H", "nothing"]).contains("must be \"name: value\""));
        assert!(wrong(&["http://127.0.0.1/", "--method", "A B"]).contains("must be an HTTP method"));
    }
}
