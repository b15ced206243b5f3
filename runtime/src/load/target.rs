//! What is asked of whom: the command line as a request.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use super::{Options, Protocol};

/// The header that names a service (docs/config.md).
const SERVICE_HEADER: &str = "x-cellmesh-service";

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct Target {
    address: SocketAddr,
    pub(super) protocol: Protocol,
    request: Request<()>,
    body: Bytes,
    /// The same for the JSON bridge; empty for the others.
    pub(super) object: String,
}

impl Target {
    /// Looks the server up and puts the request together.
    ///
    /// # Errors
    /// If there is no such server, or no such request.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let url: Uri = options.url.parse().with_context(|| format!("{}: not a URL", options.url))?;
        let Some(authority) = url.authority().filter(|_| url.scheme_str() == Some("http")) else {
            bail!("{}: must be http://host:port/path", options.url);
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(80);
        let address = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.with_context(|| format!("there is no host {host}"))?;
        let headers = headers(options)?;
        let body = options.read_body()?;
        let default = if body.is_some() { "POST" } else { "GET" };
        let method = options.method.as_deref().unwrap_or(default);
        let method = Method::from_bytes(method.as_bytes())
            .with_context(|| format!("--method {method}: must be an HTTP method"))?;
        let body = body.unwrap_or_default();
        let object = match options.protocol {
            Protocol::Bridge => object(&method, &url, &headers, &body)?,
            Protocol::Http1 | Protocol::Http2 => String::new(),
        };
        let request = request(options.protocol, method, &url, headers)?;
        Ok(Self { address, protocol: options.protocol, request, body, object })
    }

    /// A connection to it.
    ///
    /// # Errors
    /// If there is none, with the address.
    pub(super) async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        self.request.clone().map(|()| Full::new(self.body.clone()))
    }
}

fn headers(options: &Options) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in &options.headers {
        let header = line.split_once(':').and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
        });
        let (name, value) = header.with_context(|| format!("--header {line:?}: must be \"name: value\""))?;
        if name == HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// HTTP/1.1 has the server's name in `host`, HTTP/2 in its URL, as `:authority`.
fn request(protocol: Protocol, method: Method, url: &Uri, mut headers: HeaderMap) -> Result<Request<()>> {
    let authority = url.authority().context("a URL with a host")?.as_str();
    let target = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = if protocol == Protocol::Http2 {
        let host = headers.remove(HOST);
        let authority = host.as_ref().map_or(authority.as_bytes(), HeaderValue::as_bytes);
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(target).build();
        uri.context("--header host: must be a host, or host:port")?
    } else {
        if !headers.contains_key(HOST) {
            headers.insert(HOST, authority.parse()?);
        }
        target.parse()?
    };
    let mut request = Request::builder().method(method).uri(uri).body(())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The bridge routes by `url`'s host and by `target_service`, and by no header: so what a header would say of the service
/// stands there too. Without such a header there is no `url`: its host would be taken for the name of a service.
fn object(method: &Method, url: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<String> {
    let body = std::str::from_utf8(body).context("the body must be UTF-8 for the JSON bridge")?;
    let mut lines: Map<String, Value> =
        headers.keys().map(|name| (name.to_string(), text(headers, name.as_str()).into())).collect();
    lines.entry(HOST.as_str()).or_insert_with(|| url.authority().map(Authority::as_str).into());
    let mut object = json!({
        "method": method.as_str(),
        "path": url.path(),
        "query_string": url.query().unwrap_or_default(),
        "headers": lines,
        "body": body,
    });
    if headers.contains_key(HOST) {
        object["url"] = format!("http://{}", text(headers, HOST.as_str())).into();
    }
    if headers.contains_key(SERVICE_HEADER) {
        object["target_service"] = text(headers, SERVICE_HEADER).into();
    }
    Ok(object.to_string())
}

/// All values of a header, as one line.
fn text(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::options::tests::options;

    fn target(url: &str, args: &[&str]) -> Result<Target> {
        Target::of(&Options { url: url.into(), ..options(args) })
    }

    /// The default request of a protocol to a server of this machine.
    pub(in crate::load) fn target_at(address: SocketAddr, protocol: &str) -> Target {
        target(&format!("http://{address}/"), &["--protocol", protocol]).expect("a right command line")
    }

    fn object(args: &[&str]) -> Value {
        let asked = target("http://127.0.0.1:81/a?b=c", &[&["--protocol", "bridge"], args].concat());
        serde_json::from_str(&asked.expect("a right command line").object).expect("JSON")
    }

    /// What is typed is what is sent.
    #[test]
    fn requests_are_put_together() {
        let args = ["-H", "X-Y: z", "-H", "x-y: w", "--method", "PUT", "--body", "@hi"];
        let asked = target("http://127.0.0.1:81/a?b=c", &args).expect("a right command line");
        assert_eq!((asked.address.port(), asked.request.uri().to_string().as_str()), (81, "/a?b=c"));
        assert_eq!(asked.request.headers()["host"], "127.0.0.1:81");
        assert_eq!((asked.request.method(), &asked.body), (&Method::PUT, &Bytes::from("@hi")));
        let values: Vec<_> = asked.request.headers().get_all("x-y").iter().collect();
        assert_eq!(values, ["z", "w"]);
        let object = object(&args);
        assert_eq!(
            (&object["path"], &object["query_string"], &object["body"], &object["headers"]["x-y"]),
            (&json!("/a"), &json!("b=c"), &json!("@hi"), &json!("z, w"))
        );
    }

    /// As curl does: a body is posted if nothing else is said.
    #[test]
    fn bodies_are_posted() {
        let method = |args: &[&str]| {
            target("http://127.0.0.1/", args).expect("a right command line").request.method().clone()
        };
        assert_eq!(method(&[]), Method::GET);
        assert_eq!(method(&["--body", "x"]), Method::POST);
        assert_eq!(method(&["--body", "x", "--method", "GET"]), Method::GET);
        assert_eq!(object(&["--body", "x"])["method"], "POST");
    }

    /// A host that is asked for by name is asked for where each protocol has it.
    #[test]
    fn host_header_goes_where_the_protocol_has_it() {
        let asked = |protocol| target("http://127.0.0.1:81/a", &["-H", "Host: s1:5", "--protocol", protocol]);
        let http1 = asked("http1").expect("a right command line").request;
        assert_eq!(
            (http1.headers()["host"].as_bytes(), http1.uri().to_string()),
            (&b"s1:5"[..], "/a".into())
        );
        let http2 = asked("http2").expect("a right command line").request;
        assert_eq!((http2.headers().get("host"), http2.uri().to_string()), (None, "http://s1:5/a".into()));
        let wrong = target("http://127.0.0.1/", &["-H", "host: a b", "--protocol", "http2"]);
        assert!(format!("{:#}", wrong.expect_err("no host")).contains("--header host: must be a host"));
    }

    /// The bridge takes the service from keys of its own; without a header it has none of them.
    #[test]
    fn bridge_is_told_the_service() {
        let plain = object(&[]);
        assert_eq!((plain.get("url"), plain.get("target_service")), (None, None));
        assert_eq!(object(&["-H", "host: s1"])["url"], "http://s1");
        assert_eq!(object(&["-H", "X-Cellmesh-Service: s2"])["target_service"], "s2");
        assert_eq!(object(&["-H", "host: s1"])["path"], "/a");
    }

    /// An address of IPv6 has brackets in a URL and nowhere else.
    #[test]
    fn brackets_are_not_part_of_the_host() {
        let asked = target("http://[::1]:7807/", &[]).expect("an address");
        assert_eq!(asked.address, "[::1]:7807".parse::<SocketAddr>().expect("an address"));
        assert_eq!(asked.request.headers()["host"], "[::1]:7807");
    }

    /// What cannot be asked is told with what would be right.
    #[test]
    fn mistakes_are_named() {
        let wrong = |url: &str, args: &[&str]| format!("{:#}", target(url, args).expect_err("wrong"));
        assert!(wrong("https://a/", &[]).contains("must be http://host:port/path"));
        assert!(wrong("http://127.0.0.1/", &["-H", "nothing"]).contains("must be \"name: value\""));
        assert!(wrong("http://127.0.0.1/", &["--method", "A B"]).contains("must be an HTTP method"));
    }

    /// Bytes that no text can hold are refused, not changed.
    #[test]
    fn bridge_bodies_are_text() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::io::Write::write_all(&mut file, b"\xff").expect("written");
        let path = file.path().to_str().expect("a path that is text");
        assert!(target("http://127.0.0.1/", &["--body-file", path]).is_ok());
        let wrong = target("http://127.0.0.1/", &["--body-file", path, "--protocol", "bridge"]);
        assert!(wrong.expect_err("no text").to_string().contains("must be UTF-8"));
    }
}
