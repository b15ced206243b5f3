//! Does nothing: answers with the body that it got, or with what the last of the services of its config answers, which are all
//! called at the same time with that body.

use std::sync::LazyLock;

use cellmesh_guest::prelude::*;

/// URLs of those that are called, read once.
static CALLEES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let callees = config::get("callees").unwrap_or_default();
    callees.split_whitespace().map(|callee| format!("http://{callee}/")).collect()
});

#[handler]
fn hop(_request: Request, ctx: &mut Context) -> Option<Response> {
    if CALLEES.is_empty() {
        return Some(Response::new(200).body(Body::of_request()));
    }
    ctx.parallel(|ctx| {
        for callee in CALLEES.iter() {
            ctx.call(Call::post(callee.as_str()).body(Body::of_request()));
        }
    });
    None
}
