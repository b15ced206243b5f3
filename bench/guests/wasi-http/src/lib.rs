//! The hello cell's answer as a component for `wasi:http`, for `wasmtime serve`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

const BODY: &[u8] = b"hello\n";

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_: IncomingRequest, answer: ResponseOutparam) {
        let headers = [
            ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec()),
            ("content-length".to_owned(), BODY.len().to_string().into_bytes()),
        ];
        let response = OutgoingResponse::new(Fields::from_list(&headers).expect("headers"));
        let body = response.body().expect("a body, once");
        ResponseOutparam::set(answer, Ok(response));
        let stream = body.write().expect("a stream, once");
        stream.blocking_write_and_flush(BODY).expect("few bytes");
        drop(stream);
        OutgoingBody::finish(body, None).expect("as many bytes as were promised");
    }
}
