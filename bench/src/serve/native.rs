//! A native service: hyper on tokio's multi-thread runtime, as most people would write one. It answers with a short
//! text, after computing digits of pi if it is told to, and after calling others at the same time if it has any.

/// The very code of the cell, compiled for this machine.
#[path = "../../../cells/mubench/src/stress/pi.rs"]
mod pi;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// What a native service does.
#[derive(Debug, Clone, Args)]
pub(crate) struct NativeService {
    /// Addresses of the services that it calls for each request.
    pub(crate) callees: Vec<SocketAddr>,
    /// Digits of pi that it computes for each request.
    #[arg(long, default_value_t = 0)]
    pub(crate) pi_digits: usize,
}

type Work = Arc<(Client<HttpConnector, Full<Bytes>>, NativeService)>;

impl NativeService {
    /// Answers by itself.
    pub(super) fn hello() -> Self {
        Self { callees: Vec::new(), pi_digits: 0 }
    }

    /// Calls `callees` first.
    pub(super) fn calling(callees: &[SocketAddr]) -> Self {
        Self { callees: callees.to_vec(), pi_digits: 0 }
    }

    /// Serves until it is killed; prints its address.
    pub(crate) fn serve(self) -> Result<()> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("native service on http://{}", listener.local_addr()?);
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client = Client::builder(TokioExecutor::new()).build(connector);
            let work: Work = Arc::new((client, self));
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve_connection(stream, Arc::clone(&work)));
            }
        })
    }
}

async fn serve_connection(stream: TcpStream, work: Work) {
    let service = service_fn(move |request| answer(request, Arc::clone(&work)));
    let served = async {
        stream.set_nodelay(true)?;
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
        anyhow::Ok(())
    };
    if let Err(error) = served.await {
        eprintln!("native service: {error:#}");
    }
}

async fn answer(_: Request<Incoming>, work: Work) -> Result<Response<Full<Bytes>>> {
    let (client, service) = &*work;
    std::hint::black_box(pi::Pi::new().take(service.pi_digits).map(u32::from).sum::<u32>());
    let answers = try_join_all(service.callees.iter().map(|address| call(client, *address))).await?;
    let status =
        if answers.iter().all(|ok| *ok) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    let response = Response::builder().status(status).header("content-type", "text/plain; charset=utf-8");
    Ok(response.body(Full::new(Bytes::from_static(b"hello\n")))?)
}

/// Whether the callee answered 200.
async fn call(client: &Client<HttpConnector, Full<Bytes>>, address: SocketAddr) -> Result<bool> {
    let request = Request::get(format!("http://{address}/api/v1")).body(Full::default())?;
    let response = client.request(request).await?;
    let ok = response.status() == StatusCode::OK;
    response.into_body().collect().await?;
    Ok(ok)
}
