//! TLS at the ingress, with real cells behind it: what is served, who is refused, and certificates that are replaced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Ca, H2, Identity, Node, Run, Wire, sample, until};
use serde_json::json;

const MIB: usize = 1 << 20;

/// Cells behind both listeners; `tls` is more of `[dpu.tls]`, `rest` more of the file.
fn app(ca: &Ca, identity: &Identity, tls: &str, rest: &str) -> Run {
    let toml = format!(
        r#"
        [dpu.tls]
        listen = "127.0.0.1:0"
        certificate = "tls.crt"
        key = "tls.key"
        {tls}
        {rest}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["s0", "s1"]
        handler_timeout = "10s"
        "#
    );
    let run = Run::app(&toml).with_file("tls.crt", identity.certificate_pem());
    run.with_file("tls.key", identity.key_pem()).with_file("ca.crt", ca.pem())
}

fn node(ca: &Ca, tls: &str) -> Node {
    app(ca, &ca.sign(), tls, "").start()
}

/// Bytes that differ from place to place: a lost or doubled piece shows.
fn pattern(len: usize) -> Vec<u8> {
    let digits = (0..len).map(usize::to_le_bytes);
    digits.map(|digits| digits[0] ^ digits[1].rotate_left(3) ^ digits[2].rotate_left(5)).collect()
}

/// Both versions of HTTP and the bridge, small and large, beside cleartext; the greeting says where.
#[test]
fn requests_are_served() {
    let ca = Ca::new();
    let node = node(&ca, "");
    let body = pattern(16 * MIB);
    let mut wire = Wire::shake(node.tls_address(), ca.client(&["http/1.1"], None)).expect("a handshake");
    assert_eq!(wire.get("s1", "/").ok().text(), "ok\n");
    assert!(wire.post("s1", "/echo", &body).ok().body == body);
    assert!(wire.post("s0", "/echo-bytes", &body).ok().body == body);
    let h2 = H2::shake(node.tls_address(), ca.client(&["h2", "http/1.1"], None));
    assert_eq!(h2.get("s1", "/").ok().text(), "ok\n");
    assert!(h2.post("s1", "/echo", body.clone()).ok().body == body);
    let mut bridge = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
    bridge.send(json!({"path": "/", "target_service": "s1"}).to_string());
    let answer: serde_json::Value = serde_json::from_slice(&bridge.rest()).expect("an answer");
    assert_eq!((&answer["status"], &answer["body"]), (&200.into(), &"ok\n".into()));
    assert_eq!(node.get("s1", "/").ok().text(), "ok\n");
    assert_ne!(node.address(), node.tls_address());
}

/// Clients judge the certificate: one that has ended, and one of a CA that they do not know, are refused by them.
#[test]
fn clients_judge_the_certificate() {
    let ca = Ca::new();
    let node = app(&ca, &ca.sign_until(1999), "", "").start();
    let ended = Wire::shake(node.tls_address(), ca.client(&[], None)).expect_err("it has ended");
    assert!(ended.to_string().contains("xpired"), "{ended}");
    let unknown = Wire::shake(node.tls_address(), Ca::new().client(&[], None)).expect_err("it is not known");
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    assert_eq!(node.get("s0", "/").status, 200);
}

/// What a cell is told of the client's certificate.
fn told(wire: &mut Wire<impl std::io::Read + std::io::Write>) -> Option<String> {
    wire.send("GET /reflect HTTP/1.1\r\nhost: s0\r\nx-client-cert-sha256: forged\r\n\r\n");
    let reply = wire.reply().ok().json();
    let headers = reply["headers"].as_array().expect("a list").clone();
    let mut said = headers.iter().filter(|header| header[0] == "x-client-cert-sha256");
    let value = said.next().map(|header| header[1].as_str().expect("text").to_owned());
    assert!(said.next().is_none(), "{reply}");
    value
}

/// Required: nobody without a good one. Optional: whoever has none, but not one that is bad.
#[test]
fn certificates_of_clients_are_checked() {
    let ca = Ca::new();
    let (known, unknown) = (ca.sign(), Ca::new().sign());
    for (choice, may_have_none) in [("required", false), ("optional", true)] {
        let node = node(&ca, &format!("client_ca = \"ca.crt\"\nclient_certificates = \"{choice}\""));
        let served = |own: Option<&Identity>| {
            // In TLS 1.3 a client is done before the server has judged it.
            let Ok(mut wire) = Wire::shake(node.tls_address(), ca.client(&["http/1.1"], own)) else {
                return false;
            };
            wire.send_some("GET / HTTP/1.1\r\nhost: s0\r\n\r\n");
            wire.rest_until(b"ok\n")
        };
        assert!(served(Some(&known)), "{choice}");
        assert_eq!(served(None), may_have_none, "{choice}");
        assert!(!served(Some(&unknown)), "{choice}");
        let mut wire = Wire::shake(node.tls_address(), ca.client(&[], Some(&known))).expect("a handshake");
        assert_eq!(told(&mut wire).map(|digest| digest.len()), Some(64), "{choice}");
        assert_eq!(told(&mut node.connect()), None);
    }
}

/// What is no TLS at the port of TLS, and TLS where it is not spoken, is told or closed, and harms nobody.
#[test]
fn wrong_port_is_told() {
    let ca = Ca::new();
    let node = node(&ca, "");
    let mut wire = Wire::connect(node.tls_address());
    wire.ask("GET", "s0", "/");
    let reply = wire.reply();
    assert!(reply.status == 400 && reply.error().contains("https://"), "{reply:?}");
    wire.expect_close();
    let mut garbage = Wire::connect(node.tls_address());
    garbage.send_some([0x16; 1000]);
    assert!(!garbage.rest().starts_with(b"HTTP"));
    assert!(Wire::shake(node.address(), ca.client(&[], None)).is_err());
    let mut wire = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
    assert_eq!(wire.get("s0", "/").status, 200);
}

/// Clients that never finish their handshake lose the connection; meanwhile others are served. What failed is counted.
#[test]
fn slow_handshakes_are_cut() {
    let (ca, admin) = (Ca::new(), nobody());
    let rest = format!("[admin]\nlisten = \"{admin}\"");
    let node = app(&ca, &ca.sign(), "handshake_timeout = \"3s\"", &rest).start();
    let mut slow: Vec<Wire> = (0..20).map(|_| Wire::connect(node.tls_address())).collect();
    for wire in &mut slow[..10] {
        wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc");
    }
    let mut wire = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
    assert_eq!(wire.get("s0", "/").status, 200);
    slow.iter_mut().for_each(Wire::expect_close);
    assert_eq!(wire.get("s0", "/").status, 200);
    until("ten failures", || sample(admin, "tls_handshake_failures_total") == 10);
}

/// The certificate is replaced under load, several times: no request fails, and in the end the last one is served.
#[test]
fn certificate_is_replaced_under_load() {
    let ca = Ca::new();
    let node = node(&ca, "");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = ca.client(&["http/1.1"], None);
    std::thread::scope(|scope| {
        for keeps in [true, false, false] {
            let (node, client, stop, served) = (&node, &client, &stop, &served);
            scope.spawn(move || {
                let connect =
                    || Wire::shake(node.tls_address(), std::sync::Arc::clone(client)).expect("a handshake");
                let mut wire = connect();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(wire.post("s1", "/echo", "body").ok().text(), "body");
                    served.fetch_add(1, Ordering::Relaxed);
                    if !keeps {
                        wire = connect();
                    }
                }
            });
        }
        let replaced = || node.log().text().matches("the TLS certificate was replaced").count();
        for _ in 0..3 {
            let (before, at) = (replaced(), served.load(Ordering::Relaxed));
            ca.sign().replace(node.dir());
            until("the certificate is replaced", || replaced() > before);
            until("requests after it", || served.load(Ordering::Relaxed) > at + 20);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let other = Ca::new();
    other.sign().replace(node.dir());
    until("the last certificate", || Wire::shake(node.tls_address(), other.client(&[], None)).is_ok());
}

/// Bad new files are refused, with what is wrong; the old certificate stays until there are good ones.
#[test]
fn bad_replacement_is_refused() {
    let ca = Ca::new();
    let node = node(&ca, "");
    let served = || {
        let mut wire = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
        wire.get("s0", "/").status
    };
    let told = |what: &str| {
        let refused = |line: &serde_json::Value| {
            let text = line["message"].as_str().unwrap_or_default();
            text.contains("is refused, the old one stays") && text.contains(what)
        };
        let _ = node.log().wait_for(what, refused);
    };
    std::fs::write(node.dir().join("tls.crt"), "nothing").expect("writable");
    told("dpu.tls.certificate: ");
    assert_eq!(served(), 200);
    std::fs::write(node.dir().join("tls.crt"), ca.sign().certificate_pem()).expect("writable");
    told("does not belong to the first certificate");
    assert_eq!(served(), 200);
    std::fs::remove_file(node.dir().join("tls.key")).expect("written");
    told("cannot be read: No such file");
    assert_eq!(served(), 200);
    let other = Ca::new();
    other.sign().replace(node.dir());
    until("a good certificate", || Wire::shake(node.tls_address(), other.client(&[], None)).is_ok());
}

/// A drain finishes what is in flight over TLS and closes the rest.
#[test]
fn drain_finishes_what_is_in_flight() {
    let ca = Ca::new();
    let node = app(&ca, &ca.sign(), "", "[runtime]\ndrain_timeout = \"10m\"").start();
    let _silent = Wire::connect(node.tls_address());
    let mut idle = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
    assert_eq!(idle.get("s0", "/").status, 200);
    let mut busy = Wire::shake(node.tls_address(), ca.client(&[], None)).expect("a handshake");
    busy.ask("GET", "s0", "/step/sleep:1500");
    node.until_begun(1);
    node.signal(rustix::process::Signal::TERM);
    assert_eq!(busy.reply().status, 200);
    idle.expect_close();
    assert_eq!(node.ended().code, Some(0));
}

/// Everything that is wrong is told at once, also by `check`, and nothing is served.
#[test]
fn bad_config_is_told() {
    let (ca, identity) = (Ca::new(), Ca::new().sign());
    let refused = |tls: &str, problems: &[&str]| {
        let toml = format!(
            "listen = \"127.0.0.1:5005\"\nentri = \"x\"\n[dpu.tls]\n{tls}\n[[cell]]\n\
             component = \"{{cells}}/hello.wasm\"\nservices = [\"hello\"]\n"
        );
        let run = || {
            let run = Run::app(&toml).with_file("tls.crt", identity.certificate_pem());
            run.with_file("tls.key", identity.key_pem()).with_file("other.key", ca.sign().key_pem())
        };
        let listen = "127.0.0.1:5005".parse().expect("an address");
        for ended in [run().listen(listen).end(), run().listen(listen).check()] {
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
            for problem in problems.iter().chain(&["entri: unknown key; did you mean entry?"]) {
                assert!(ended.stderr.contains(problem), "{problem:?} is not in {}", ended.stderr);
            }
            assert_eq!(ended.stderr.lines().count(), problems.len() + 1, "{}", ended.stderr);
        }
    };
    refused(
        "certificate = \"tls.crt\"\nkey = \"other.key\"",
        &["app.toml:3: dpu.tls.listen: is missing; name an address", "app.toml:5: dpu.tls.key: "],
    );
    refused(
        "listen = \"127.0.0.1:5005\"\ncertificate = \"none.crt\"\nkeys = \"tls.key\"\nclient_certificates = \"optional\"",
        &[
            "app.toml:4: dpu.tls.listen: 127.0.0.1:5005 is where cleartext is spoken",
            "app.toml:5: dpu.tls.certificate: ",
            "app.toml:3: dpu.tls.key: is missing",
            "app.toml:6: dpu.tls.keys: unknown key; did you mean key?",
            "app.toml:7: dpu.tls.client_certificates: there is nothing to check them with; add client_ca",
        ],
    );
    refused(
        "listen = \"x\"\ncertificate = \"tls.key\"\nkey = \"tls.key\"\nclient_ca = \"tls.key\"\nhandshake_timeout = \"0ms\"",
        &[
            "app.toml:4: dpu.tls.listen: \"x\" does not fit; write an address and a port",
            "tls.key has no certificate in PEM; name a PEM file with the certificate",
            "app.toml:7: dpu.tls.client_ca: ",
            "app.toml:8: dpu.tls.handshake_timeout: \"0ms\" does not fit",
        ],
    );
}

/// A taken port is told, with its key: that is no mistake of the config.
#[test]
fn taken_port_is_told() {
    let ca = Ca::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let toml = format!(
        "[dpu.tls]\nlisten = \"{address}\"\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\
         [[cell]]\ncomponent = \"{{cells}}/hello.wasm\"\nservices = [\"hello\"]\n"
    );
    let identity = ca.sign();
    let run = Run::app(&toml).with_file("tls.crt", identity.certificate_pem());
    let ended = run.with_file("tls.key", identity.key_pem()).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let told = format!("dpu.tls.listen: cannot listen on {address}");
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
}
