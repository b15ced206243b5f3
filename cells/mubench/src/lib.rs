//! Any service of a muBench work model: what it does is config, so one component serves all of them.
//!
//! ```text
//! request -> model.rs: what is this service, which behaviour was asked for
//!         -> trace.rs (POST) or calls.rs (GET): which services are called, in which groups
//!         -> graph: stress steps in order, then all groups at the same time, then the body, which is ready unless it is large
//!            or a callee fails
//! ```
//!
//! A service that neither works nor calls anybody answers without a graph.

mod body;
mod calls;
mod letters;
mod model;
mod stress;
mod trace;

use cellmesh_guest::prelude::*;

#[cellmesh_guest::cell]
mod service {
    use super::*;
    use crate::model::Service;
    use crate::stress::{Cpu, Disk, Memory, Sleep, Stress};

    #[handler]
    fn answer(request: Request, ctx: &mut Context) -> Result<Option<Response>, Response> {
        let service = Service::this().map_err(|problem| Response::error(500, problem))?;
        let bid = request.query_param("bid");
        let behaviour = service.behaviour(bid.as_deref());
        work(ctx, &behaviour.internal.stress);
        let calls = match request.method() {
            "GET" | "HEAD" => calls::put(ctx, calls::draw(&behaviour.groups, request.query())),
            "POST" => calls::put(ctx, trace::groups(request.body(), request.query(), service)?),
            method => return Err(method_response(method)),
        };
        if behaviour.internal.stress.is_nothing() && calls.is_empty() {
            return Ok(Some(Response::text(behaviour.internal.body.make())));
        }
        let finish = Step::internal(finish).args(Args(&bid)).inputs(calls);
        let body = &behaviour.internal.body;
        ctx.step(if body.is_small() { finish.prepared(Response::text(body.make())) } else { finish });
        Ok(None)
    }

    fn work(ctx: &mut Context, stress: &Stress) {
        if let Some(cpu) = &stress.cpu {
            ctx.parallel(|ctx| {
                for _ in 0..cpu.thread_pool_size.get() {
                    ctx.run_internal(stress_cpu, Args(cpu), []);
                }
            });
        }
        if let Some(memory) = &stress.memory {
            ctx.run_internal(stress_memory, Args(memory), []);
        }
        if let Some(disk) = &stress.disk {
            ctx.run_internal(stress_disk, Args(disk), []);
        }
        if let Some(sleep) = &stress.sleep {
            ctx.run_internal(stress_sleep, Args(sleep), []);
        }
    }

    #[step]
    fn stress_cpu(Args(cpu): Args<Cpu>) {
        cpu.run();
    }

    #[step]
    fn stress_memory(Args(memory): Args<Memory>) {
        memory.run();
    }

    #[step]
    fn stress_disk(Args(disk): Args<Disk>) -> Result<(), String> {
        disk.run()
    }

    #[step]
    fn stress_sleep(Args(sleep): Args<Sleep>) {
        sleep.run();
    }

    /// The response: the body of the internal service, unless a callee answered anything but 200.
    #[step]
    fn finish(Args(bid): Args<Option<String>>, calls: Inputs<Head>) -> Result<Response, String> {
        if calls.0.iter().any(|call| call.is_failed() || call.status() != 200) {
            return Ok(message_response(500, "Error in external services request"));
        }
        let behaviour = Service::this()?.behaviour(bid.as_deref());
        Ok(Response::text(behaviour.internal.body.make()))
    }
}

fn method_response(method: &str) -> Response {
    let message = format!("method {method}: a muBench service takes GET, or POST with a trace");
    message_response(405, &message).header("allow", "GET, HEAD, POST")
}

/// `{"message": text}`: how muBench says that something went wrong.
fn message_response(status: u16, message: &str) -> Response {
    Response::json(&serde_json::json!({ "message": message })).with_status(status)
}

#[cfg(test)]
mod tests;
