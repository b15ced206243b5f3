//! The dashboard: a page, and what it consists of. It reads `/v1/state` and `/v1/requests` by itself.
//!
//! - Everything comes from here, and nothing else is let in: no other host, no script inside the page.
//! - Plain HTML, CSS and ES modules: what is served is what is in the repository, nothing builds it.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// What the page may do: run our scripts, use our styles, ask this port.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("dashboard/index.html")),
    ("/style.css", CSS, include_str!("dashboard/style.css")),
    ("/cells.js", JS, include_str!("dashboard/cells.js")),
    ("/dashboard.js", JS, include_str!("dashboard/dashboard.js")),
    ("/dom.js", JS, include_str!("dashboard/dom.js")),
    ("/format.js", JS, include_str!("dashboard/format.js")),
    ("/gauges.js", JS, include_str!("dashboard/gauges.js")),
    ("/layers.js", JS, include_str!("dashboard/layers.js")),
    ("/layout.js", JS, include_str!("dashboard/layout.js")),
    ("/places.js", JS, include_str!("dashboard/places.js")),
    ("/plan.js", JS, include_str!("dashboard/plan.js")),
    ("/poll.js", JS, include_str!("dashboard/poll.js")),
    ("/refusals.js", JS, include_str!("dashboard/refusals.js")),
    ("/request.js", JS, include_str!("dashboard/request.js")),
    ("/requests.js", JS, include_str!("dashboard/requests.js")),
    ("/samples.js", JS, include_str!("dashboard/samples.js")),
    ("/services.js", JS, include_str!("dashboard/services.js")),
    ("/slow.js", JS, include_str!("dashboard/slow.js")),
    ("/summary.js", JS, include_str!("dashboard/summary.js")),
    ("/table.js", JS, include_str!("dashboard/table.js")),
    ("/topology.js", JS, include_str!("dashboard/topology.js")),
    ("/waterfall.js", JS, include_str!("dashboard/waterfall.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// The file at `path`, if there is one.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, kind, content) = FILES.iter().find(|(name, ..)| *name == path)?;
    let mut answer = super::answer(StatusCode::OK, kind, Bytes::from_static(content.as_bytes()));
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A process that was replaced may have another page.
        (CACHE_CONTROL, "no-cache"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(answer)
}
