use crate::client::Raw;
use crate::node::{Node, check};

/// Requests whose end two parsers could see in different places, or that are no requests. Each is followed
/// by a second request that must never be taken for one.
const AMBIGUOUS: &[&str] = &[
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\ncontent-LENGTH:0\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 4, 5\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: +4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: -4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 0x4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 4 4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length:\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length: 99999999999999999999\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nContent-Length : 4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nX: a\r\n Content-Length: 4\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nX: a\r\n\tfolded\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.0\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "GET /hello HTTP/1.1\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node\r\nHost: node\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: no de\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node/x\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node@s1\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node:x\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node:80:81\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: []\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: no[d]e\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node%2\r\n\r\n",
    "GET http://a@node/hello HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET http://:80/hello HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET http://node:x/hello HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET http://node/hello HTTP/1.1\r\n\r\n",
    "GET node:80 HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node\r\nX: a\0b\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node\r\nX: a\rb\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node\r\n: x\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: node\r\nno colon\r\n\r\n",
    "GET /hel lo HTTP/1.1\r\nHost: node\r\n\r\n",
    "GET /hello HTTP/2.0\r\nHost: node\r\n\r\n",
    "GET /hello\r\nHost: node\r\n\r\n",
    "G@T /hello HTTP/1.1\r\nHost: node\r\n\r\n",
    "[1]\r\n\r\n",
    "\u{16}\u{3}\u{1}\r\n\r\n",
];

/// Each is refused, the connection closes, and nothing of it or behind it reaches a worker.
#[test]
fn ambiguous_requests_are_refused() {
    check(async |node: Node| {
        for request in AMBIGUOUS {
            let mut client = Raw::connect(node.addr).await;
            client.send(format!("{request}GET /hello HTTP/1.1\r\nHost: node\r\n\r\n")).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, 400, "{request:?} was answered {}", reply.head);
            client.expect_close().await;
            assert_eq!(node.seen_count(), 0, "{request:?} reached a worker");
        }
    });
}

/// The same, when the bad request comes behind good ones and in single bytes.
#[test]
fn ambiguity_is_seen_behind_good_requests_and_in_pieces() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        assert_eq!(client.post("/echo", b"Transfer-Encoding: chunked\r\n").await.status, 200);
        client.send("POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "abcd");
        for byte in AMBIGUOUS[0].as_bytes() {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.reply().await.status, 400);
        client.expect_close().await;
        assert_eq!(node.seen_count(), 2);
    });
}

/// A second length stays in sight behind lengths that take more bytes than a line that is kept: they are refused.
#[test]
fn lengths_of_many_digits_are_refused() {
    check(async |node: Node| {
        let zeros = "0".repeat(80);
        for (lines, body) in [
            (format!("Content-Length: {zeros}4"), "abcd".to_owned()),
            (format!("Content-Length:{}4", " ".repeat(80)), "abcd".to_owned()),
            ("Transfer-Encoding: chunked".to_owned(), format!("{zeros}4\r\nabcd\r\n0\r\n\r\n")),
        ] {
            let request = format!("POST /echo HTTP/1.1\r\nHost: node\r\n{lines}\r\n\r\n{body}");
            for piece in [1, request.len()] {
                let mut client = Raw::connect(node.addr).await;
                for bytes in request.as_bytes().chunks(piece) {
                    client.try_send(bytes).await;
                    tokio::task::yield_now().await;
                }
                assert_eq!(client.reply().await.status, 400, "{request:?} in pieces of {piece}");
                client.expect_close().await;
                assert_eq!(node.seen_count(), 0, "{request:?} reached a worker");
            }
        }
    });
}

/// A body that is coded in a way that we do not know is not passed on as if it were not.
#[test]
fn unknown_codings_are_not_implemented() {
    check(async |node: Node| {
        for codings in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity,Chunked"] {
            let mut client = Raw::connect(node.addr).await;
            let head = format!("POST /echo HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: {codings}\r\n\r\n");
            client.send(format!("{head}0\r\n\r\nGET /hello HTTP/1.1\r\nHost: node\r\n\r\n")).await;
            assert_eq!(client.reply().await.status, 501, "{codings}");
            client.expect_close().await;
            assert_eq!(node.seen_count(), 0, "{codings}");
        }
    });
}

/// What is unusual but means one thing only is answered.
#[test]
fn unusual_requests_are_answered() {
    check(async |node: Node| {
        for request in [
            "\r\n\r\nGET /hello HTTP/1.1\r\nHost: node\r\n\r\n",
            "GET /hello HTTP/1.1\nHost: node\n\n",
            "GET /hello HTTP/1.0\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: [::1]:5005\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: node:\r\n\r\n",
            "GET http://node/hello HTTP/1.0\r\n\r\n",
            "POST /hello HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
            "POST /hello HTTP/1.1\r\nHost: node\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
            "POST /hello HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: Chunked\r\n\r\n004;x=\"y\"\r\nabcd\r\n0\r\n\r\n",
            "GET /hello HTTP/1.1\r\nHost: node\r\nX: \u{e4}\r\n\r\n",
        ] {
            let mut client = Raw::connect(node.addr).await;
            client.send(request).await;
            assert_eq!(client.reply().await.text(), "hello", "{request:?}");
        }
    });
}
