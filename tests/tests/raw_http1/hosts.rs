//! The `host` line. Source: RFC 9112, 3.2; RFC 9110, 7.2; RFC 3986, 3.2.2.

use crate::case::Case;

/// Lines that are answered, and the host that the cell sees.
const ANSWERED: [(&str, &str, &str); 13] = [
    ("host", "host: s1\r\n", "s1"),
    ("host in upper case", "HOST: S1\r\n", "S1"),
    ("host without a space", "host:s1\r\n", "s1"),
    ("host between white space", "host: \t s1 \t \r\n", "s1"),
    ("host behind other lines", "a: b\r\nhost: s1\r\n", "s1"),
    ("host with a port", "host: s1:5005\r\n", "s1:5005"),
    ("host with an empty port", "host: s1:\r\n", "s1:"),
    ("host that is an address", "host: 127.0.0.1:80\r\n", "127.0.0.1:80"),
    ("host that is an address in brackets", "host: [::1]:80\r\n", "[::1]:80"),
    ("host with an escape", "host: a%20b\r\n", "a%20b"),
    ("host with a comma", "host: s1,s2\r\n", "s1,s2"),
    ("host with all that a name may have", "host: a-._~!$&'()*+,;=z\r\n", "a-._~!$&'()*+,;=z"),
    ("host that is empty", "host:\r\n", ""),
];

const REFUSED: [(&str, &[u8]); 21] = [
    ("no host", b""),
    ("host twice", b"host: s1\r\nhost: s2\r\n"),
    ("host twice the same", b"host: s1\r\nhost: s1\r\n"),
    ("host twice, once empty", b"host:\r\nHost: s1\r\n"),
    ("host with a path", b"host: s1/x\r\n"),
    ("host with a query", b"host: s1?x\r\n"),
    ("host with a scheme", b"host: http://s1\r\n"),
    ("host with a user name", b"host: a@s1\r\n"),
    ("host with a space", b"host: s 1\r\n"),
    ("host with a comma and a space", b"host: s1, s2\r\n"),
    ("host with a tab", b"host: s\t1\r\n"),
    ("host with a quote", b"host: \"s1\"\r\n"),
    ("host with a backslash", b"host: s\\1\r\n"),
    ("host with an 8-bit byte", b"host: s\xe41\r\n"),
    ("host with NUL", b"host: s\x001\r\n"),
    ("host with two ports", b"host: s1:80:81\r\n"),
    ("host with a port that is no number", b"host: s1:http\r\n"),
    ("host with half an address", b"host: [::1\r\n"),
    ("host with brackets in the middle", b"host: s[1]\r\n"),
    ("host with something behind the brackets", b"host: [::1]s1\r\n"),
    ("host with a broken escape", b"host: s%zz\r\n"),
];

pub(super) fn cases() -> Vec<Case> {
    let answered = ANSWERED.map(|(name, line, host)| {
        Case::answered(name, format!("GET /reflect HTTP/1.1\r\n{line}\r\n")).header("host", &[host])
    });
    let refused =
        REFUSED.map(|(name, line)| Case::refused(name, [b"GET / HTTP/1.1\r\n", line, b"\r\n"].concat()));
    let older = Case::refused("host twice in 1.0", "GET / HTTP/1.0\r\nhost: s1\r\nhost: s1\r\n\r\n");
    let of_target = "GET http://example.org:80/reflect HTTP/1.1\r\nhost: s1\r\n\r\n";
    let of_target = Case::answered("host of the target wins", of_target).header("host", &["example.org:80"]);
    answered.into_iter().chain(refused).chain([older, of_target]).collect()
}
