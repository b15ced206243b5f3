//! The smallest cell: answers every request with the same text.

use cellmesh_guest::prelude::*;

#[handler]
fn hello(_request: Request) -> Response {
    Response::text("hello\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is asked, the answer is the same.
    #[test]
    fn says_hello() {
        let response = hello(Request::get("/any/path?and=query"));
        assert_eq!((response.status(), response.body_bytes()), (200, &b"hello\n"[..]));
    }
}
