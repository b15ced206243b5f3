//! Does nothing: answers with an empty 200, or with what the services of its config answer, called at the same time.

use std::sync::LazyLock;

use cellmesh_guest::prelude::*;

/// URLs of those that are called, read once.
static CALLEES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let callees = config::get("callees").unwrap_or_default();
    callees.split_whitespace().map(|callee| format!("http://{callee}/")).collect()
});

#[handler]
fn hop(_request: Request, ctx: &mut Context) {
    ctx.parallel(|ctx| {
        for callee in CALLEES.iter() {
            ctx.call(Call::get(callee.as_str()));
        }
    });
}
