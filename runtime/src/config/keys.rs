//! Every key of `app.toml`: what it takes, what it is unless somebody says otherwise, its bounds, what it means.
//! `docs/config-keys.md` is made of this list.
//!
//! - The readers say themselves which keys they know, what they take for them, and what they refuse: the tests hold this list
//!   to it, so that no key is missing here, none is made up, and no default or bound is told wrong.
//! - A bound that depends on another key is told in words.

mod tests;

use self::Bounds::{Any, AtLeast, AtMost, From, Words};
use self::Kind::{Address, Amount, Choice, Count, Flag, List, Map, Share, Size, Table, Tables, Text, Time};
use self::Otherwise::{Is, Nothing, Required, Said};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    Flag,
    /// A whole number.
    Count,
    /// A number from 0 to 1.
    Share,
    Time,
    Size,
    /// Of processors or memory, as Kubernetes writes it.
    Amount,
    Address,
    Choice,
    /// Keys and values of the user.
    Map,
    /// A section of its own.
    Table,
    /// Any number of sections.
    Tables,
}

/// What a key is if it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// As if this were written.
    Is(&'static str),
    /// In words.
    Said(&'static str),
    Nothing,
    Required,
}

/// What a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    Any,
    From(&'static str, &'static str),
    AtLeast(&'static str),
    AtMost(&'static str),
    Words(&'static str),
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Otherwise,
    pub(super) bounds: Bounds,
    pub(super) meaning: &'static str,
}

/// A table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// Its place, empty of the file itself. Of an array of tables, that of each; `NAME` is a name of the user.
    pub(super) path: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: Otherwise,
    bounds: Bounds,
    meaning: &'static str,
) -> Key {
    Key { name, kind, default, bounds, meaning }
}

const fn table(name: &'static str, meaning: &'static str) -> Key {
    key(name, Table, Nothing, Any, meaning)
}

/// Of durations.
const USUAL: Bounds = From("1ms", "24h");

/// All of them, in the order of the page.
#[rustfmt::skip]
pub(super) const ALL: &[Section] = &[
    Section { path: "", keys: &[
        key("name", Text, Is("\"cellmesh\""), Any, "For messages."),
        key("entry", Text, Said("the first service"), Words("one of the services"), "Gets requests that name no service."),
        key("namespace", Text, Said("any namespace is ours"), Any, "Of a cluster: `s1.other` is then none of our services."),
        key("listen", Address, Is("\"127.0.0.1:5005\""), Any, "HTTP/1.1, HTTP/2 without TLS, and the JSON bridge."),
        key("workmodel", Text, Nothing, Words("a file; instead of `cell`"), "A muBench work model, relative to this file."),
        key("cell", Tables, Required, Words("at least one, unless there is `workmodel`"), "One for each component."),
        table("admin", "The admin port of `run` and `node`."),
        table("runtime", "Threads, drain, cache."),
        table("registry", "Registries that components come from."),
        table("trace", "What is kept of single requests."),
        table("dpa", "How the processes of a node meet."),
        table("worker", "What `cellmesh worker` hosts, and where it attaches."),
        table("dpu", "Limits of the network side, for each lane unless they say otherwise."),
        key("service", Map, Nothing, Words("names of services"), "Policies of services, each optional."),
    ] },
    Section { path: "cell", keys: &[
        key("component", Text, Required, Words("a file, or `oci://HOST/REPOSITORY@sha256:DIGITS`"), "Relative to this file."),
        key("services", List, Required, Words("1 to 63 letters, digits, `-` or `_` each"), "One or more; each gets instances of its own."),
        key("config", Map, Is("{}"), Words("texts"), "What the cell gets from `config::get`."),
        table("egress", "Whom the cell may call."),
        table("grants", "What the cell may use of this machine."),
        key("instances", Choice, Is("\"reuse\""), Words("`\"reuse\"`, `\"fresh\"`"), "Fresh: a new instance for every call."),
        key("instances_max", Count, Is("64"), From("1", "1024"), "Instances of each service, all lanes together."),
        key("memory_max", Size, Is("\"128MiB\""), From("1MiB", "4GiB"), "Linear memory of one instance."),
        key("handler_timeout", Time, Is("\"1s\""), USUAL, "Longest run of a handler or a request builder."),
        key("step_timeout", Time, Is("\"30s\""), USUAL, "Longest run of an internal step; the request's deadline bounds it too."),
    ] },
    Section { path: "cell.egress", keys: &[
        key("allow", List, Is("[]"), Words("`host`, `host:port`, `*.domain`, with or without `https://`"), "Hosts beyond our services that it may call."),
    ] },
    Section { path: "cell.grants", keys: &[
        key("scratch", Text, Nothing, Words("`\"temporary\"`, or a folder that exists"), "A folder as `/scratch`."),
    ] },
    Section { path: "admin", keys: &[
        key("listen", Address, Nothing, Any, "`/livez`, `/readyz`, `/metrics`, the dashboard. Other processes have `--admin`."),
    ] },
    Section { path: "runtime", keys: &[
        key("lanes", Count, Said("one for each processor; one of `worker` and `dpu`"), From("1", "256"), "Threads that serve requests."),
        key("pool_threads", Count, Said("one for each processor"), From("1", "256"), "Threads for guest calls that outlast a tick."),
        key("epoch_tick", Time, Is("\"2ms\""), From("1ms", "100ms"), "How long a guest call may hold a lane."),
        key("spin", Time, Is("\"0ms\""), From("0ms", "1ms"), "How long a daemon or worker looks for work before it sleeps; only where a core is free."),
        key("drain_delay", Time, Is("\"0s\""), From("0ms", "24h"), "How long the process serves on after SIGTERM and says that it is not ready."),
        key("drain_timeout", Time, Is("\"30s\""), From("0ms", "24h"), "What requests in flight get to finish when the drain has begun."),
        key("watch", Flag, Is("true"), Any, "Whether this file is read again when it changes."),
        key("cache_dir", Text, Said("`$XDG_CACHE_HOME/cellmesh`, else `~/.cache/cellmesh`"), Words("a folder of ours with mode 700"), "Compiled cells."),
    ] },
    Section { path: "registry", keys: &[
        key("plain_http", List, Said("those at loopback"), Words("`host:port`"), "Registries that are spoken to without TLS."),
        key("credentials", Text, Said("`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`"), Words("a file"), "Names and passwords, relative to this file."),
        key("ca", Text, Said("the system's CAs"), Words("a PEM file"), "Whose certificates are believed, relative to this file."),
    ] },
    Section { path: "trace", keys: &[
        key("kept_max", Count, Is("128"), From("0", "4096"), "Requests that each lane keeps: so many sampled ones, and so many that were slow or in error."),
        key("sample", Share, Is("0.0"), From("0.0", "1.0"), "Share of all requests that is sampled, in thousandths."),
        key("sample_per_second_min", Count, Is("10"), From("0", "1000"), "Requests that each lane samples a second, however small the share."),
        key("slow", Time, Is("\"1s\""), Any, "A request that takes longer is kept."),
        key("record", Flag, Is("false"), Any, "Whether their bytes are kept too, for `cellmesh replay`."),
        key("record_bytes_max", Size, Is("\"256KiB\""), AtMost("16MiB"), "Of one request and what came of its steps; one with more is kept without."),
        key("endpoint", Text, Nothing, Words("`http://` or `https://`, and a host"), "A collector that takes OTLP over HTTP."),
    ] },
    Section { path: "dpa", keys: &[
        key("socket", Text, Is("\"/run/cellmesh/dpa.sock\""), Any, "Of workers of any service, and of sidecars."),
        key("stall_timeout", Time, Is("\"5s\""), USUAL, "An endpoint that takes none of the frames that wait for it for so long is let go."),
        key("reattach_delay", Time, Is("\"100ms\""), From("0ms", "1s"), "A process that broke a rule of the rings waits so long before it may attach again; twice as long after each further time, up to 64 times."),
        key("worker_socket", Tables, Nothing, Any, "More sockets, each for workers of some services only."),
    ] },
    Section { path: "dpa.worker_socket", keys: &[
        key("path", Text, Required, Any, "Of the socket."),
        key("services", List, Required, Words("services of this file"), "What may be served by those who come in there."),
    ] },
    Section { path: "worker", keys: &[
        key("socket", Text, Said("`dpa.socket`"), Any, "Where it attaches."),
        key("services", List, Said("all"), Words("services of this file"), "What it hosts."),
        table("ring", "Its rings to the DPA."),
    ] },
    Section { path: "worker.ring", keys: &[
        key("small", Size, Is("\"16KiB\""), From("16KiB", "1MiB"), "Of small messages, each way; a power of two."),
        key("bulk_chunks", Count, Is("16"), From("2", "128"), "Chunks of 16 KiB of large messages, each way; a power of two."),
    ] },
    Section { path: "dpu", keys: &[
        key("request_timeout", Time, Is("\"30s\""), USUAL, "From a request's head to its answer: 504. The rest of it is passed on to callees."),
        key("body_bytes_max", Size, Is("\"16MiB\""), AtMost("1GiB"), "Longest request body: 413."),
        key("buffered_bytes_max", Size, Is("\"256MiB\""), Words("at least `dpu.body_bytes_max`"), "Request bodies held at once: 503."),
        key("answer_bytes_max", Size, Is("\"256MiB\""), Words("at least `dpu.body_bytes_max`"), "Answers that HTTP clients have not taken yet: 503."),
        key("head_bytes_max", Size, Is("\"16KiB\""), From("8KiB", "16KiB"), "Longest head that a client may send: 431."),
        key("target_bytes_max", Size, Is("\"8KiB\""), Words("less than `dpu.head_bytes_max`"), "Longest path and query: 414."),
        key("header_lines_max", Count, Is("100"), From("1", "100"), "Header lines that a client may send: 431."),
        key("header_read_timeout", Time, Is("\"5s\""), USUAL, "From the first byte of a head to its last, and from accept to the first."),
        key("body_idle_timeout", Time, Is("\"10s\""), USUAL, "Longest pause inside a request body: 408."),
        key("keep_alive_idle_timeout", Time, Is("\"60s\""), USUAL, "A connection without a request in flight is closed after this."),
        key("write_idle_timeout", Time, Is("\"30s\""), USUAL, "How long a client may take none of an answer's bytes."),
        key("linger_timeout", Time, Is("\"2s\""), Any, "How long a client that still sends is read and ignored after our last byte, so that it sees our answer."),
        key("requests_max", Count, Is("1024"), AtLeast("1"), "Requests in flight: 503."),
        key("relays_max", Count, Is("1024"), AtLeast("1"), "Calls of cells that the DPU makes for them at once: 503."),
        key("retry_worker_lost", Flag, Is("false"), Any, "Whether a request whose worker died with it goes to another once more, if its method is idempotent."),
        key("connections_max", Count, Is("16384"), AtLeast("1"), "Open connections of the whole process: 503."),
        key("connections_per_address_max", Count, Is("4096"), AtLeast("1"), "The same of one client address; a /64 of IPv6 is one."),
        key("h2_streams_max", Count, Is("100"), AtLeast("1"), "Streams open at once on one HTTP/2 connection."),
        key("h2_pending_resets_max", Count, Is("20"), Any, "HTTP/2 streams that a client resets before they are taken up; more close the connection."),
        key("h2_local_resets_max", Count, Is("64"), Any, "HTTP/2 streams that are reset for a client's errors; more close the connection."),
        key("forwarded", Choice, Is("\"pass\""), Words("`\"pass\"`, `\"append\"`, `\"replace\"`"), "What becomes of `forwarded` and `x-forwarded-*`."),
        key("json_bridge", Flag, Is("true"), Any, "Whether a connection that begins with `{` is a JSON client's."),
        key("json_timeout", Time, Is("\"5s\""), USUAL, "From the first byte of a JSON object to its last."),
        key("json_depth_max", Count, Is("64"), From("1", "120"), "Deepest nesting of a JSON object: 400."),
        table("egress", "Calls off this node."),
        table("tls", "A listener that speaks TLS, beside the one in cleartext."),
    ] },
    Section { path: "dpu.egress", keys: &[
        key("services_elsewhere", Flag, Is("false"), Any, "Whether a service without a worker on this node is called at its name."),
        key("hosts", Map, Is("{}"), Words("addresses by names of hosts, without ports"), "Where hosts are, instead of asking the system's resolver."),
        key("http2", List, Is("[]"), Words("names of hosts, without ports"), "Hosts that speak HTTP/2 in cleartext."),
        key("ca", Text, Said("the system's CAs"), Words("a PEM file"), "Whose certificates are believed over TLS, relative to this file."),
        key("connect_timeout", Time, Is("\"2s\""), USUAL, "From a name to a connection, TLS included: 504."),
        key("try_timeout", Time, Is("\"30s\""), USUAL, "From the call to the last byte of its answer: 504."),
        key("idle_timeout", Time, Is("\"60s\""), USUAL, "A connection without a request is closed after this."),
        key("idle_connections_max", Count, Is("64"), Any, "Such connections that are kept for each host, on each lane."),
    ] },
    Section { path: "dpu.tls", keys: &[
        key("listen", Address, Required, Words("another than `listen`"), "Where TLS is spoken."),
        key("certificate", Text, Required, Words("a PEM file"), "The certificate, then those of the CAs up to one that clients know; relative to this file."),
        key("key", Text, Required, Words("a PEM file"), "Its private key, not encrypted; relative to this file."),
        key("client_ca", Text, Said("clients have no certificates"), Words("a PEM file"), "Who signs certificates of clients; relative to this file."),
        key("client_certificates", Choice, Said("`\"required\"` where there is `client_ca`"), Words("`\"optional\"`, `\"required\"`"), "Whether a client must have one."),
        key("handshake_timeout", Time, Is("\"5s\""), USUAL, "From accept to the end of the handshake."),
    ] },
    Section { path: "service.NAME", keys: &[
        key("timeout", Time, Said("`dpu.request_timeout`"), USUAL, "From a request's head to its answer: 504. Never lengthens `dpu.request_timeout`."),
        key("try_timeout", Time, Nothing, USUAL, "From a call to its answer; it is given up after it, and may be tried again."),
        key("in_flight_max", Count, Nothing, AtLeast("1"), "Requests sent and not answered: 503."),
        table("rate", "How fast requests may come."),
        table("headers", "Headers of requests."),
        table("response_headers", "Headers of answers."),
        key("split", Map, Is("{}"), Words("percents from 1, at most 100 together, by other services"), "Requests that go to another service."),
        table("jwt", "Who may ask, and for what."),
        table("retry", "What is tried again."),
        table("breaker", "When the service is left alone."),
        table("hedge", "When a second call is made because the first is slow."),
        table("outlier", "When one of several workers gets no requests for a while."),
        table("deploy", "What it asks of a cluster, for `cellmesh k8s`."),
    ] },
    Section { path: "service.NAME.rate", keys: &[
        key("per_second", Count, Required, From("1", "1000000"), "Requests per second for ever: 429."),
        key("burst", Count, Required, From("1", "1000000"), "Requests at once after a pause."),
    ] },
    Section { path: "service.NAME.headers", keys: &[
        key("remove", List, Is("[]"), Words("not those of the connection or the mesh"), "Headers of which every line is removed, first."),
        key("add", Map, Is("{}"), Words("at most 16 lines of 4096 bytes together"), "Lines that are added behind the others."),
    ] },
    Section { path: "service.NAME.response_headers", keys: &[
        key("remove", List, Is("[]"), Words("not those of the connection or the mesh"), "Headers of which every line is removed, first."),
        key("add", Map, Is("{}"), Words("at most 16 lines of 4096 bytes together"), "Lines that are added behind the others."),
    ] },
    Section { path: "service.NAME.jwt", keys: &[
        key("jwks", Text, Required, Words("a JSON Web Key Set"), "The keys, relative to this file; followed."),
        key("issuer", Text, Said("any"), Any, "What `iss` must be."),
        key("audience", List, Is("[]"), Any, "Of which `aud` must have one; none: any."),
        key("leeway", Time, Is("\"60s\""), Words("whole seconds, at most `\"1h\"`"), "By how much clocks may differ, for `exp` and `nbf`."),
        key("public", List, Is("[]"), Words("at most 64 with `rules`; paths without escapes, dots and a slash at the end"), "Paths, and what is below them, that need no token."),
        key("rules", Tables, Nothing, Words("at most 64 with `public`"), "What else a path asks for; each rule whose path fits is asked."),
    ] },
    Section { path: "service.NAME.jwt.rules", keys: &[
        key("path", Text, Required, Words("as of `public`"), "This path, and what is below it."),
        key("claim", Text, Required, Any, "A claim, or `/a/b` for the claim `b` inside of `a`."),
        key("values", List, Required, Words("at least one"), "Of which the claim must have one."),
    ] },
    Section { path: "service.NAME.retry", keys: &[
        key("retries_max", Count, Is("1"), From("1", "10"), "Tries of one request after the first."),
        key("on", List, Is("[\"no-worker\", \"overloaded\", \"connect\", \"worker-lost\", \"timeout\", \"reset\", 502, 503, 504]"), Words("these names, and statuses from 400 to 599"), "What is tried again."),
        key("budget_ratio", Share, Is("0.2"), From("0.0", "1.0"), "Retries are at most this share of the requests of the last ten seconds, over all lanes, and `budget_per_second_min` for each of them."),
        key("budget_per_second_min", Count, Is("1"), Any, "See `budget_ratio`."),
        key("backoff", Time, Is("\"25ms\""), USUAL, "The longest wait before the first retry, doubled for each one after it."),
        key("backoff_max", Time, Is("\"250ms\""), Words("from `backoff` to `\"24h\"`"), "The longest wait before any retry."),
        key("methods", Choice, Is("\"idempotent\""), Words("`\"idempotent\"`, `\"all\"`"), "Which requests may be tried again after they were sent."),
    ] },
    Section { path: "service.NAME.breaker", keys: &[
        key("failures_max", Count, Is("5"), AtLeast("1"), "Failures in a row that open the circuit."),
        key("open", Time, Is("\"1s\""), USUAL, "How long nothing is sent; twice as long with each call that asks in vain."),
        key("open_max", Time, Is("\"30s\""), Words("from `open` to `\"24h\"`"), "The longest that nothing is sent."),
    ] },
    Section { path: "service.NAME.hedge", keys: &[
        key("percentile", Count, Is("95"), From("1", "99"), "A call that takes longer than so many hundredths of the latest 256 has a second one beside it."),
        key("budget_ratio", Share, Is("0.1"), From("0.0", "1.0"), "Second calls are at most this share of the requests of the last ten seconds, over all lanes."),
        key("methods", Choice, Is("\"idempotent\""), Words("`\"idempotent\"`, `\"all\"`"), "Which requests may be made twice."),
    ] },
    Section { path: "service.NAME.outlier", keys: &[
        key("failures_max", Count, Is("5"), From("1", "1000000"), "Failures in a row: answers of 500 and above, or none by the deadline."),
        key("ejection", Time, Is("\"30s\""), USUAL, "How long the worker gets no requests then; twice as long if it fails again soon."),
        key("ejection_max", Time, Is("\"5m\""), Words("from `ejection` to `\"24h\"`"), "The longest that it gets none."),
        key("share_max", Count, Is("50"), From("1", "100"), "Percent of the service's workers that may be ejected at once."),
    ] },
    Section { path: "service.NAME.deploy", keys: &[
        key("replicas", Count, Nothing, From("1", "10000"), "Pods."),
        key("cpu_requests", Amount, Nothing, Any, "Processors that are set aside."),
        key("cpu_limits", Amount, Nothing, Words("at least `cpu_requests`"), "The most there can be."),
        key("memory_requests", Amount, Nothing, Any, "Memory that is set aside."),
        key("memory_limits", Amount, Nothing, Words("at least `memory_requests`"), "The most there can be."),
        key("pod_antiaffinity", Flag, Nothing, Any, "No two of its pods on one node."),
    ] },
];
