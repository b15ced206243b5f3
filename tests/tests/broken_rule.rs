//! A DPA that breaks a rule of the rings: whoever is attached to it says which, leaves, and attaches anew.

use bytes::Bytes;
use cellmesh_shm::attach::{
    AttachListener, Channel, ChannelError, FromDpa, Hello, LinkWelcome, Role, ToDpa, Welcome,
};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::link::{Link, LinkSpec};
use cellmesh_shm::message::{RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;
use cellmesh_tests::{Attaching, until};

const APP: &str = r#"
[[cell]]
component = "{cells}/hello.wasm"
services = ["hello"]
"#;

const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// The test is the DPA.
#[test]
fn dpu_leaves_a_dpa_that_breaks_a_rule_and_comes_back() {
    leaves_and_comes_back(Role::Sidecar, "dpu", &["--listen", "127.0.0.1:0"]);
}

/// The same for a worker.
#[test]
fn worker_leaves_a_dpa_that_breaks_a_rule_and_comes_back() {
    leaves_and_comes_back(Role::Worker, "worker", &[]);
}

fn leaves_and_comes_back(role: Role, command: &str, args: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("dpa.sock");
    let listener = AttachListener::bind(&socket).expect("a socket");
    let process = Attaching::start(command, APP, &[args, &["--lanes", "1"]].concat(), &socket);
    for generation in 1..=3 {
        let (channel, hello) = accept(&listener);
        assert_eq!(hello.role, role);
        welcome(&channel, &hello, generation).iter_mut().for_each(break_rule);
        until("it leaves", || has_left(&channel));
    }
    let said = |line: &serde_json::Value| line.to_string().contains("the DPA broke a rule");
    drop(process.log().wait_for("what was broken", said));
}

/// All lanes of a worker lose their links at once: it comes back once, and stays.
#[test]
fn worker_of_several_lanes_comes_back_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("dpa.sock");
    let listener = AttachListener::bind(&socket).expect("a socket");
    let _process = Attaching::start("worker", APP, &["--lanes", "4"], &socket);
    for generation in 1..=2 {
        let (channel, hello) = accept(&listener);
        welcome(&channel, &hello, generation).iter_mut().for_each(break_rule);
        until("it leaves", || has_left(&channel));
    }
    let (channel, hello) = accept(&listener);
    let links = welcome(&channel, &hello, 3);
    let mut ports: Vec<Port> = links.into_iter().map(|link| Port::new(link, PortConfig::default())).collect();
    for _ in 0..10 {
        ports.iter_mut().for_each(|port| assert_eq!(asked(port).status, 200));
        assert!(!has_left(&channel));
    }
}

/// A frame that only sidecars send.
fn break_rule(link: &mut Link) {
    let forbidden = FrameHeader::new(FrameKind::FlowInstall, 0);
    assert_eq!(link.tx.small.push(&forbidden, Payload::Empty), Ok(true));
    link.publish();
}

fn has_left(channel: &Channel) -> bool {
    matches!(channel.receive_as_dpa(), Err(ChannelError::Ended))
}

/// What a lane of the worker answers.
fn asked(port: &mut Port) -> ResponseMessage {
    let request = RequestMessage {
        service: ServiceId(0),
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 3,
        target_len: 1,
        head: "GET/".into(),
        body: Bytes::new(),
    };
    assert!(port.call(request).is_ok(), "room for a call");
    let mut answer = None;
    until("it answers", || {
        port.flush();
        if let Ok(Some(Arrived::Response { message, .. })) = port.poll() {
            answer = Some(message);
        }
        answer.is_some()
    });
    answer.expect("arrived")
}

/// The next process that comes, and its hello.
fn accept(listener: &AttachListener) -> (Channel, Hello) {
    let mut channel = None;
    until("it connects", || {
        channel = listener.accept().ok();
        channel.is_some()
    });
    let channel = channel.expect("connected");
    let mut hello = None;
    until("it says hello", || {
        if let Ok(ToDpa::Hello(said)) = channel.receive_as_dpa() {
            hello = Some(said);
        }
        hello.is_some()
    });
    (channel, hello.expect("said"))
}

/// Takes it in, with its lanes; this side of the links.
fn welcome(channel: &Channel, hello: &Hello, generation: u32) -> Vec<Link> {
    let profile = RingProfile::default();
    let made = (1..=hello.lanes).map(|endpoint| {
        let endpoint = EndpointId(endpoint);
        let spec = LinkSpec { endpoint, generation, profile, message_bytes_max: MESSAGE_BYTES_MAX };
        Link::create(spec).expect("memory and descriptors")
    });
    let (links, fds): (Vec<_>, Vec<_>) = made.unzip();
    let told = |link: &Link| LinkWelcome { endpoint: link.spec.endpoint.0, generation, profile };
    let welcome = Welcome {
        services: vec!["hello".into()],
        calls_max: 64,
        message_bytes_max: MESSAGE_BYTES_MAX,
        links: links.iter().map(told).collect(),
    };
    channel.send_from_dpa(&FromDpa::Welcome(welcome), &fds).expect("it is there");
    links
}
