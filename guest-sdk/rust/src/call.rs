//! Requests to other services.

use std::borrow::Cow;

use serde::Serialize;

use crate::arena::Arena;
use crate::bindings::cellmesh::cell::types as wit;
use crate::body::{Body, Earlier, Source};
use crate::headers::Headers;

/// A request to another service.
///
/// The URL is `http://service/path?query`; the scheme may be left out. The runtime adds the tracing headers
/// of the request that is being handled.
///
/// ```
/// use cellmesh_guest::Call;
///
/// let user = Call::get("http://users/7").header("accept", "application/json");
/// let order = Call::post("http://orders/").json(&[1, 2, 3]);
/// ```
#[derive(Debug, Clone)]
pub struct Call {
    method: Cow<'static, str>,
    url: Cow<'static, str>,
    headers: Headers,
    body: Body,
    /// Why there is no such request.
    problem: Option<String>,
}

impl Call {
    /// A call with any method and no body.
    pub fn new(method: impl Into<Cow<'static, str>>, url: impl Into<Cow<'static, str>>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Headers::default(), body: Body::default(), problem: None }
    }

    /// `GET url`.
    pub fn get(url: impl Into<Cow<'static, str>>) -> Self {
        Self::new("GET", url)
    }

    /// `POST url`.
    pub fn post(url: impl Into<Cow<'static, str>>) -> Self {
        Self::new("POST", url)
    }

    /// With this one value for a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.set(name, value.as_ref());
        self
    }

    /// With this body: text, bytes, or the body of [the request](Body::of_request) or of [an earlier
    /// step](Body::of).
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// With `value` as JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => self.body = json.into(),
            Err(error) => self.problem = Some(format!("the body cannot be written as JSON: {error}")),
        }
        let [name, value] = ["content-type", "application/json"];
        if self.headers.as_lines().get(name).is_none() {
            self.headers.append(name, value.as_bytes());
        }
        self
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The body's bytes; none where it names a body that is not in the cell.
    pub fn body_bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    /// The step whose body this call wants.
    pub(crate) fn body_step(&self) -> Option<&Earlier> {
        match &self.body.0 {
            Source::OfStep(step) => Some(step),
            Source::Owned(_)
            | Source::Bytes(_)
            | Source::OfRequest
            | Source::OfInput(_)
            | Source::SeenInput(..) => None,
        }
    }

    /// Writes the call. `input` is the number of [`body_step`](Self::body_step) among the inputs of the
    /// call's step.
    pub(crate) fn encode(&self, arena: &mut Arena, input: Option<u32>) -> Result<wit::EgressRequest, String> {
        if let Some(problem) = &self.problem {
            return Err(format!("call of {}: {problem}", self.url));
        }
        let headers = self.headers.checked().map_err(|problem| format!("call of {}: {problem}", self.url))?;
        let elsewhere = match input {
            Some(input) => Some(wit::Body::OfInput(input)),
            None => self.body.elsewhere()?,
        };
        Ok(wit::EgressRequest {
            method: arena.push(self.method.as_bytes()),
            url: arena.push(self.url.as_bytes()),
            headers: arena.push(headers),
            body: elsewhere.unwrap_or_else(|| wit::Body::Bytes(arena.push(self.body.bytes()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::part;
    use crate::response::JSON;

    /// All parts of a call are in the arena, and JSON has its content type.
    #[test]
    fn call_is_written_in_full() {
        let mut arena = Arena::default();
        let call = Call::post("http://s1/a?b=c").header("X-Tag", "7").json(&[1, 2]);
        let written = call.encode(&mut arena, None).unwrap();
        let wit::Body::Bytes(body) = written.body else { panic!("bytes were expected") };
        let bytes = arena.into_bytes();
        let text = |span| std::str::from_utf8(part(&bytes, span)).unwrap();
        assert_eq!(
            (text(written.method), text(written.url), text(body)),
            ("POST", "http://s1/a?b=c", "[1,2]")
        );
        assert_eq!(text(written.headers), format!("x-tag: 7\n{}", std::str::from_utf8(JSON).unwrap()));
    }

    /// What cannot be sent is told with the URL.
    #[test]
    fn problem_names_the_url() {
        let map = std::collections::HashMap::from([(vec![1], 1)]);
        for call in [Call::post("http://s1/").json(&map), Call::get("http://s1/").header("a b", "c")] {
            let problem = call.encode(&mut Arena::default(), None).unwrap_err();
            assert!(problem.starts_with("call of http://s1/: "), "{problem}");
        }
    }
}
