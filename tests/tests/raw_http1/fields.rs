//! Header lines in general. Source: RFC 9112, 5; RFC 9110, 5.

use crate::case::{Case, get};

/// Lines that are answered: name, lines, and what the cell sees as `x-a`. 8-bit text is UTF-8 here, so that JSON can
/// show it.
const ANSWERED: [(&str, &str, &[&str]); 19] = [
    ("value", "x-a: 1\r\n", &["1"]),
    ("value without a space", "x-a:1\r\n", &["1"]),
    ("value between spaces", "x-a:   1   \r\n", &["1"]),
    ("value between tabs", "x-a:\t1\t\r\n", &["1"]),
    ("value that is empty", "x-a:\r\n", &[""]),
    ("value that is white space", "x-a: \t \r\n", &[""]),
    ("value with spaces and a tab in it", "x-a: 1  2\t3\r\n", &["1  2\t3"]),
    ("value with colons", "x-a: :b: c:\r\n", &[":b: c:"]),
    ("value with 8-bit text", "x-a: \u{e4}\u{20ac}\r\n", &["\u{e4}\u{20ac}"]),
    ("value of all visible characters", "x-a: !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\r\n", &[VISIBLE]),
    ("value with a quoted comma", "x-a: \"1, 2\"\r\n", &["\"1, 2\""]),
    ("value that looks like another line", "x-a: x-b: 1\r\n", &["x-b: 1"]),
    ("value that ends with LF", "x-a: 1\nx-b: 2\r\n", &["1"]),
    ("name in upper case", "X-A: 1\r\n", &["1"]),
    ("name twice", "x-a: 1\r\nx-a: 2\r\n", &["1", "2"]),
    ("name twice the same value", "x-a: 1\r\nx-a: 1\r\n", &["1", "1"]),
    ("name in both cases, out of order", "x-a: 2\r\nX-A: 1\r\n", &["2", "1"]),
    (
        "name three times between others",
        "x-a: 1\r\nx-b: b\r\nx-a: 2\r\nx-c: c\r\nx-a: 3\r\n",
        &["1", "2", "3"],
    ),
    ("name once as a list", "x-a: 1, 2\r\nx-a: 3\r\n", &["1, 2", "3"]),
];

const VISIBLE: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Lines that are none.
const REFUSED: [(&str, &[u8]); 32] = [
    ("space before the colon", b"x-a : 1\r\n"),
    ("tab before the colon", b"x-a\t: 1\r\n"),
    ("space in a name", b"x a: 1\r\n"),
    ("no colon", b"x-a\r\n"),
    ("no colon in the last of three lines", b"x-a: 1\r\nx-b: 1\r\nx-c\r\n"),
    ("name that is empty", b": 1\r\n"),
    ("colon alone", b":\r\n"),
    ("space before the first name", b" x-a: 1\r\n"),
    ("tab before the first name", b"\tx-a: 1\r\n"),
    ("line that is folded with a space", b"x-a: 1\r\n 2\r\n"),
    ("line that is folded with a tab", b"x-a: 1\r\n\t2\r\n"),
    ("line that is folded behind nothing", b"x-a:\r\n 1\r\n"),
    ("line that is folded behind LF", b"x-a: 1\n 2\r\n"),
    ("line of white space", b"x-a: 1\r\n \r\n"),
    ("name with a parenthesis", b"x(a: 1\r\n"),
    ("name with a comma", b"x,a: 1\r\n"),
    ("name with a semicolon", b"x;a: 1\r\n"),
    ("name with a slash", b"x/a: 1\r\n"),
    ("name with an at sign", b"x@a: 1\r\n"),
    ("name with a bracket", b"x[a: 1\r\n"),
    ("name with a brace", b"x{a: 1\r\n"),
    ("name with a quote", b"x\"a: 1\r\n"),
    ("name with an 8-bit byte", b"x\xe4a: 1\r\n"),
    ("name with NUL", b"x\0a: 1\r\n"),
    ("name with CR", b"x\ra: 1\r\n"),
    ("value with NUL", b"x-a: 1\x002\r\n"),
    ("value with CR", b"x-a: 1\r2\r\n"),
    ("value with CR at its end", b"x-a: 1\r\r\n"),
    ("value with LF and no line behind", b"x-a: 1\n2\r\n"),
    ("value with a control byte", b"x-a: 1\x012\r\n"),
    ("value with DEL", b"x-a: 1\x7f2\r\n"),
    ("value with a vertical tab", b"x-a: 1\x0b2\r\n"),
];

/// Every character that a name may have beside letters and digits.
const MARKS: &str = "!#$%&'*+-.^_`|~";

pub(super) fn cases() -> Vec<Case> {
    let answered =
        ANSWERED.map(|(name, lines, values)| Case::answered(name, get(lines)).header("x-a", values));
    let refused = REFUSED.map(|(name, lines)| Case::refused(name, get(lines)));
    let of_bytes = Case::answered("value of 8-bit bytes that are no UTF-8", get(b"x-a: \xff\xfe\r\n"));
    let of_marks = Case::answered("name of odd characters", get(format!("{MARKS}: 1\r\n")));
    let special = [
        of_bytes.header("x-a", &["\u{fffd}\u{fffd}"]),
        of_marks.header(MARKS, &["1"]),
        Case::answered("name of 2000 letters", get(format!("{}: 1\r\n", "n".repeat(2000)))),
        Case::answered("header of the mesh stays outside", get("x-cellmesh-x: 1\r\n"))
            .header("x-cellmesh-x", &[]),
    ];
    answered.into_iter().chain(refused).chain(special).collect()
}
