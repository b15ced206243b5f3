//! Calls off this node: what a cell may call, what comes back, and what a host that misbehaves costs.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use cellmesh_tests::upstream::{Silent, nobody, reply};
use cellmesh_tests::{Ca, Node, Run, Upstream, sample};

/// A caller that may call `allow`, with one lane: its connections are counted.
fn node(allow: &str, egress: &str) -> Node {
    let toml = format!(
        r#"
        [dpu]
        body_bytes_max = "64KiB"
        [dpu.egress]
        {egress}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["caller"]
        egress = {{ allow = [{allow}] }}
        "#
    );
    Run::app(&toml).lanes(1).start()
}

/// What one call of the cell comes to.
fn call(node: &Node, url: &str) -> (u16, String) {
    let reply = node.connect().get("caller", &format!("/order?url={url}"));
    (reply.status, reply.text().to_owned())
}

/// Does what the path says.
fn deed(head: &str, body: &[u8], stream: &mut TcpStream) -> bool {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let write = |stream: &mut TcpStream, bytes: &[u8]| stream.write_all(bytes).is_ok();
    match path {
        "/echo" => reply(stream, 200, "x-own: yes\r\n", body),
        "/teapot" => reply(stream, 418, "", b"short and stout"),
        "/redirect" => reply(stream, 302, "location: /echo\r\n", b"elsewhere still"),
        "/cut" => {
            write(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
            false
        }
        "/rubbish" => {
            write(stream, b"this is no HTTP\r\n\r\n");
            false
        }
        "/silent" => true,
        "/slow" => {
            // A byte now and then, until nobody reads any more.
            write(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
            while write(stream, b".") {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            false
        }
        "/endless" => {
            write(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while write(stream, b"1000\r\n") && write(stream, &[b'.'; 0x1000]) && write(stream, b"\r\n") {}
            false
        }
        "/storm" => {
            let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
            write(stream, &hints) && reply(stream, 200, "", b"at last")
        }
        // As another node's answer may be: a cell's hundred lines, and what was added to them.
        "/added-head" => reply(stream, 200, &"x-line: 1\r\n".repeat(99 + 20), b"elsewhere"),
        "/long-head" => reply(stream, 200, &"x-line: 1\r\n".repeat(200), b""),
        _ => reply(stream, 200, "", b"elsewhere"),
    }
}

/// A host that config allows is called, with all that the cell says; its own answer comes back, and its connection is used
/// again.
#[test]
fn allowed_host_is_called() {
    let upstream = Upstream::start(deed);
    let address = upstream.address();
    let node = node(&format!("\"{address}\""), "");
    let mut wire = node.connect();
    for _ in 0..3 {
        wire.send(format!(
            "POST /order?url=http://{address}/echo HTTP/1.1\r\nhost: caller\r\ntraceparent: 00-abc-1\r\n\
             x-request-id: r7\r\ncontent-length: 4\r\n\r\nbody"
        ));
        let reply = wire.reply().ok();
        assert_eq!((reply.text(), reply.header("x-own")), ("body", Some("yes")));
    }
    assert_eq!(call(&node, &format!("http://{address}/teapot")), (418, "short and stout".into()));
    let heads = upstream.heads();
    assert_eq!((heads.len(), upstream.connections()), (4, 1));
    let head = &heads[0];
    assert!(head.starts_with("post /echo http/1.1\r\n"), "{head}");
    for line in [format!("host: {address}"), "traceparent: 00-abc-1".into(), "x-request-id: r7".into()] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(!head.contains("x-cellmesh"), "{head}");
}

/// A redirect is an answer like any other: whether to follow it is the cell's decision.
#[test]
fn redirects_are_returned() {
    let upstream = Upstream::start(deed);
    let address = upstream.address();
    let node = node(&format!("\"{address}\""), "");
    assert_eq!(call(&node, &format!("http://{address}/redirect")), (302, "elsewhere still".into()));
    assert_eq!(upstream.heads().len(), 1);
}

/// A host by name, which config says where to find.
#[test]
fn static_map_says_where_a_host_is() {
    let upstream = Upstream::start(deed);
    let map = format!("hosts = {{ \"Stock.example\" = \"{}\" }}", upstream.address());
    let node = node(r#""stock.example", "*.below.example""#, &map);
    assert_eq!(call(&node, "http://stock.example:8080/x"), (200, "elsewhere".into()));
    assert!(upstream.heads()[0].contains("\r\nhost: stock.example:8080\r\n"));
}

/// A service is one of ours under the names that a cluster has for it; the same name in another namespace is another host.
#[test]
fn services_are_those_of_our_namespace() {
    let node = Run::app(
        r#"
        namespace = "shop"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["caller"]
        [[cell]]
        component = "{cells}/hello.wasm"
        services = ["back"]
        "#,
    )
    .lanes(1)
    .start();
    for host in ["back", "back.shop", "back.shop.svc", "BACK.Shop.svc.cluster.local"] {
        assert_eq!(call(&node, &format!("http://{host}/")).0, 200, "{host}");
    }
    for host in ["back.other", "back.other.svc.cluster.local"] {
        let (status, text) = call(&node, &format!("http://{host}/"));
        assert_eq!(status, 503, "{host}: {text}");
        assert!(text.contains("egress.allow"), "{text}");
    }
}

/// What config does not allow is not called, and the answer says what to write.
#[test]
fn other_hosts_are_not_called() {
    let upstream = Upstream::start(deed);
    let address = upstream.address();
    let node = node(r#""api.example", "*.below.example""#, "");
    for host in [address.to_string(), "below.example".into(), "evilbelow.example".into(), "caller2".into()] {
        let (status, text) = call(&node, &format!("http://{host}/"));
        assert_eq!(status, 503, "{host}");
        assert!(text.contains(&host) && text.contains("egress.allow"), "{text}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// However an address of this machine or of a metadata service is written (E-1): a name that leads to one is no permission for
/// it, even if config allows that name. That one port of 127.0.0.1 may be called helps neither them nor its other ports.
#[test]
fn inward_addresses_are_not_called() {
    let upstream = Upstream::start(deed);
    let port = upstream.address().port();
    let names = inward_names();
    assert!(names.len() > 300, "{}", names.len());
    let allow: Vec<String> = names.iter().map(|host| format!("\"{host}\"")).collect();
    let node = node(&format!("{}, \"127.0.0.1:1\"", allow.join(", ")), "");
    for host in &names {
        let (status, text) = call(&node, &format!("http://{host}:{port}/"));
        assert!(status == 502 && text.contains("no cell may call"), "{host}: {status} {text}");
    }
    for host in [
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "224.0.0.1",
        "100.64.0.1",
    ] {
        let (status, text) = call(&node, &format!("http://{host}:{port}/"));
        assert!(status == 503 && text.contains("egress.allow"), "{host}: {status} {text}");
    }
    for url in strange_urls(port) {
        let (status, text) = call(&node, &url);
        assert!((500..600).contains(&status), "{url}: {status} {text}");
    }
    assert_eq!(upstream.connections(), 0);
}

/// Names that the system's resolver takes for addresses of this machine or of a metadata service: one to four parts, each in
/// decimal, octal or hexadecimal digits. Source: inet_aton(3). And those that mean this machine.
fn inward_names() -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "LOCALHOST", "LocalHost"].map(str::to_owned).into();
    for address in [0x7f00_0001_u32, 0, 0xa9fe_a9fe] {
        let [a, b, c, d] = address.to_be_bytes().map(u32::from);
        let parts =
            [vec![a, b, c, d], vec![a, b, address & 0xffff], vec![a, address & 0xff_ffff], vec![address]];
        let spelled = parts.iter().flat_map(|parts| spellings(parts));
        // As everybody writes it, it is an address and not a name.
        names.extend(spelled.filter(|name| name.parse::<std::net::Ipv4Addr>().is_err()));
    }
    names
}

/// All ways to write these parts.
fn spellings(parts: &[u32]) -> Vec<String> {
    let Some((first, rest)) = parts.split_first() else { return vec![String::new()] };
    let digits = [format!("{first}"), format!("0{first:o}"), format!("{first:#x}")];
    let rest = spellings(rest);
    let with_rest = |digits: &String| {
        let join = |rest: &String| if rest.is_empty() { digits.clone() } else { format!("{digits}.{rest}") };
        rest.iter().map(join).collect::<Vec<_>>()
    };
    digits.iter().flat_map(with_rest).collect()
}

/// URLs whose host is not what it looks like, percent-encoded for a query.
fn strange_urls(port: u16) -> Vec<String> {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    [
        "http://localhost@127.0.0.1:PORT/",
        "http://127.0.0.1:1@127.0.0.1:PORT/",
        "http://127.0.0.1:1#@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT#@127.0.0.1:1/",
        "http://127.0.0.1:PORT\\@127.0.0.1:1/",
        "http://[fe80::1%25lo]:PORT/",
        "http://[::1%lo]:PORT/",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1:PORT/",
        "http://127\u{3002}0\u{3002}0\u{3002}1:PORT/",
        "http://loc\u{430}lhost:PORT/",
        "http://127.0.0.1%3aPORT/",
        "http://127.0.0.1 :PORT/",
        "http:///127.0.0.1:PORT/",
        "http:127.0.0.1:PORT/",
        "//127.0.0.1:PORT/",
        "https://127.0.0.1:PORT/",
        "gopher://127.0.0.1:PORT/",
        "file:///etc/passwd",
    ]
    .iter()
    .map(|url| encode(&url.replace("PORT", &port.to_string())))
    .collect()
}

/// Whatever a host does, the call ends with an answer that says what failed, and the next call is served.
#[test]
fn misbehaving_hosts_cost_their_call() {
    let upstream = Upstream::start(deed);
    let (address, closed) = (upstream.address(), nobody());
    let node = node(
        &format!(r#""{address}", "{closed}", "nowhere.invalid""#),
        "try_timeout = \"500ms\"\nconnect_timeout = \"400ms\"",
    );
    let check = |url: &str, status: u16, says: &str| {
        let (found, text) = call(&node, url);
        assert!(found == status && text.contains(says), "{url}: {found} {text}");
        assert_eq!(call(&node, &format!("http://{address}/next")), (200, "elsewhere".into()), "after {url}");
    };
    let at = |path: &str| format!("http://{address}{path}");
    check(&format!("http://{closed}/"), 502, "refused");
    check(&at("/cut"), 502, &address.to_string());
    check(&at("/rubbish"), 502, &address.to_string());
    check(&at("/silent"), 504, "no answer within");
    check(&at("/slow"), 504, "no answer within");
    check(&at("/endless"), 502, "longer than 65536 bytes");
    check(&at("/added-head"), 200, "elsewhere");
    check(&at("/long-head"), 502, "head is too large");
    check(&at("/storm"), 200, "at last");
    check("http://nowhere.invalid/", 502, "nowhere.invalid");
}

/// A caller that believes `ca`, and finds `localhost` and `other.example` at `address`.
fn believer(ca: &Ca, address: SocketAddr) -> Node {
    let toml = format!(
        r#"
        [dpu.egress]
        ca = "ca.crt"
        hosts = {{ localhost = "{address}", "other.example" = "{address}" }}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["caller"]
        egress = {{ allow = ["localhost:443", "other.example"] }}
        "#
    );
    Run::app(&toml).with_file("ca.crt", ca.pem()).lanes(1).start()
}

/// Over TLS, in HTTP/2 with those who speak it: many calls at once share a connection then.
#[test]
fn hosts_are_called_over_tls() {
    let ca = Ca::new();
    let admin = nobody();
    let toml = format!(
        r#"
        [admin]
        listen = "{admin}"
        [dpu.tls]
        listen = "127.0.0.1:0"
        certificate = "tls.crt"
        key = "tls.key"
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["s0"]
        "#
    );
    let identity = ca.sign();
    let other = Run::app(&toml).with_file("tls.crt", identity.certificate_pem());
    let other = other.with_file("tls.key", identity.key_pem()).start();
    let node = believer(&ca, other.tls_address());
    let reply = node.post("caller", "/order?url=https://localhost/echo", "there and back").ok();
    assert_eq!(reply.text(), "there and back");
    let at_once = "&url=https://localhost/do/big:1".repeat(20);
    let reply = node.get("caller", &format!("/pipe?tolerant{at_once}")).ok();
    assert_eq!(reply.text(), "200 x\n".repeat(20));
    assert_eq!(sample(admin, "connections_open"), 1);
}

/// Many calls at once where there is no connection yet: each is answered, whoever's connection comes to be used.
#[test]
fn first_calls_over_tls_share_what_they_find() {
    let ca = Ca::new();
    let upstream = Upstream::start(deed);
    let node = believer(&ca, upstream.over_tls(ca.sign().server(&["http/1.1"])));
    let at_once = "&url=https://localhost/".repeat(20);
    let reply = node.get("caller", &format!("/pipe?tolerant{at_once}")).ok();
    assert_eq!(reply.text(), "200 elsewhere\n".repeat(20));
}

/// Other CAs in the file are believed once config is read again.
#[test]
fn other_cas_are_taken_over() {
    let (ca, other) = (Ca::new(), Ca::new());
    let upstream = Upstream::start(deed);
    let node = believer(&ca, upstream.over_tls(other.sign().server(&[])));
    let status = || node.connect().get("caller", "/order?url=https://localhost/").status;
    assert_eq!(status(), 502);
    std::fs::write(node.dir().join("ca.crt"), other.pem()).expect("writable");
    node.signal(rustix::process::Signal::HUP);
    node.until("the other CA is believed", |_| status() == 200);
    assert!(node.log().text().contains("dpu.egress.ca (certificates)"), "{}", node.log().text());
}

/// One that speaks HTTP/1.1 only is spoken to in that.
#[test]
fn hosts_over_tls_say_what_they_speak() {
    let ca = Ca::new();
    let upstream = Upstream::start(deed);
    for protocols in [&["http/1.1"][..], &[]] {
        let node = believer(&ca, upstream.over_tls(ca.sign().server(protocols)));
        let mut wire = node.connect();
        for _ in 0..3 {
            assert_eq!(wire.post("caller", "/order?url=https://localhost/echo", "body").ok().text(), "body");
        }
    }
    assert_eq!(upstream.connections(), 2);
    let is_it =
        |head: &String| head.starts_with("post /echo http/1.1") && head.contains("\r\nhost: localhost\r\n");
    assert!(upstream.heads().iter().all(is_it), "{:?}", upstream.heads());
}

/// A host that cannot prove that it is the one that the URL names is sent nothing.
#[test]
fn certificates_of_hosts_are_judged() {
    let ca = Ca::new();
    let upstream = Upstream::start(deed);
    let says = |node: &Node, url: &str, why: &str| {
        let reply = node.connect().get("caller", &format!("/order?url={url}"));
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (502, Some("egress-tls")), "{reply:?}");
        assert!(reply.text().contains(why), "{why}: {reply:?}");
    };
    let of = |identity: &cellmesh_tests::Identity| believer(&ca, upstream.over_tls(identity.server(&[])));
    says(&of(&Ca::new().sign()), "https://localhost/", "invalid peer certificate");
    says(&of(&ca.sign_until(1999)), "https://localhost/", "expired");
    says(&of(&ca.sign()), "https://other.example/", "not valid for name");
    says(&believer(&ca, upstream.address()), "https://localhost/", "no connection over TLS");
    let heads = upstream.heads();
    assert!(heads.is_empty(), "{heads:?}");
}

/// A port that config names is that of the URL's scheme; a service of the application is called in cleartext, through the rings.
#[test]
fn schemes_are_told_apart() {
    let node = believer(&Ca::new(), nobody());
    let (status, text) = call(&node, "http://localhost/");
    assert!(status == 503 && text.contains("egress.allow"), "{status} {text}");
    let (status, text) = call(&node, "https://caller/");
    assert!(status == 500 && text.contains("it is called at http://caller"), "{status} {text}");
}

/// A host that is slow delays nobody else.
#[test]
fn slow_hosts_delay_nobody() {
    let upstream = Upstream::start(deed);
    let address = upstream.address();
    let node = node(&format!("\"{address}\""), "");
    let mut waiting = node.connect();
    waiting.ask("GET", "caller", &format!("/order?url=http://{address}/silent"));
    let mut wire = node.connect();
    for _ in 0..20 {
        assert_eq!(wire.get("caller", &format!("/order?url=http://{address}/")).text(), "elsewhere");
    }
    assert_eq!(node.connect().get("caller", "/").text(), "ok\n");
}

/// Two services, of which this node has workers for one; the other is where the map says.
fn front_without_back(back: SocketAddr) -> Run {
    let toml = format!(
        r#"
        [dpu.egress]
        hosts = {{ back = "{back}" }}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        "#
    );
    Run::app(&toml).workers(&[&["front"]])
}

/// A service without a worker here is called on another node: for cells and for clients, with no more said to them.
#[test]
fn service_without_worker_is_called_on_another_node() {
    let toml = "[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"first\", \"back\"]";
    let other = Run::app(toml).start();
    let node = front_without_back(other.address()).start();
    let reply = node.post("front", "/order?url=http://back/echo", "there and back").ok();
    assert_eq!(reply.text(), "there and back");
    assert_eq!(node.post("back", "/echo", "for a client").ok().text(), "for a client");
    let mut wire = node.connect();
    wire.send("GET /reflect HTTP/1.1\r\nhost: public.example\r\nx-cellmesh-service: back\r\n\r\n");
    assert_eq!(wire.reply().ok().json()["service"], "back", "whatever else the client says");
    let missing = node.get("front", "/order?url=http://back/answer?status=404");
    assert_eq!(missing.status, 404);
    assert_eq!(other.stop().code, Some(0));
    let reply = node.get("back", "/");
    assert_eq!((reply.status, reply.header("x-cellmesh-error")), (502, Some("egress-connect")));
}

/// Of several addresses one that takes no connection, and does not say so, is passed over while there is time for the others: with
/// a rule for outliers and without.
#[test]
fn silent_address_is_passed_over() {
    let (silent, upstream) = (Silent::start(), Upstream::start(deed));
    for rule in ["", "[service.back.outlier]\nfailures_max = 3"] {
        let toml = format!(
            r#"
            [dpu.egress]
            hosts = {{ back = ["{}", "{}"] }}
            {rule}
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["front", "back"]
            "#,
            silent.address(),
            upstream.address()
        );
        let node = Run::app(&toml).lanes(1).workers(&[&["front"]]).start();
        for reply in [node.post("back", "/", "sent once"), node.get("front", "/order?url=http://back/")] {
            assert_eq!((reply.status, reply.text()), (200, "elsewhere"), "{rule:?}");
        }
    }
    assert_eq!(upstream.heads().len(), 4);
}

/// What a host says of its connection stays there, with the headers that it names in `connection`.
#[test]
fn headers_of_a_connection_stay_on_it() {
    let upstream = Upstream::start(|_: &str, _: &[u8], stream: &mut TcpStream| {
        reply(stream, 200, "connection: X-Hop, close\r\nx-hop: 1\r\nx-kept: 1\r\n", b"said")
    });
    let node = front_without_back(upstream.address()).start();
    let reply = node.get("back", "/").ok();
    assert_eq!((reply.header("x-hop"), reply.header("x-kept")), (None, Some("1")));
}

/// Nodes that send a request round in a circle end it.
#[test]
fn circle_of_nodes_ends() {
    let address = nobody();
    let node = front_without_back(address).listen(address).start();
    for reply in [node.get("back", "/"), node.get("front", "/order?url=http://back/")] {
        assert_eq!(
            (reply.status, reply.header("x-cellmesh-error")),
            (508, Some("hop-limit")),
            "{}",
            reply.text()
        );
    }
}
