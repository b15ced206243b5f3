//! A DPA that breaks a rule of the rings: whoever is attached to it says which, leaves, and attaches anew.

use cellmesh_shm::attach::{
    AttachListener, Channel, ChannelError, FromDpa, Hello, LinkWelcome, Role, ToDpa, Welcome,
};
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::{Link, LinkSpec};
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::ring::Payload;
use cellmesh_tests::{Attaching, until};

const APP: &str = r#"
[runtime]
lanes = 1
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
    let process = Attaching::start(command, APP, args, &socket);
    for generation in 1..=3 {
        let (channel, hello) = accept(&listener);
        assert_eq!(hello.role, role);
        let mut link = welcome(&channel, &hello, generation);
        // A frame that only sidecars send.
        let forbidden = FrameHeader::new(FrameKind::FlowInstall, 0);
        assert_eq!(link.tx.small.push(&forbidden, Payload::Empty), Ok(true));
        link.publish();
        until("it leaves", || matches!(channel.receive_as_dpa(), Err(ChannelError::Ended)));
    }
    let said = |line: &serde_json::Value| line.to_string().contains("the DPA broke a rule");
    drop(process.log().wait_for("what was broken", said));
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

/// Takes it in, with its one lane; this side of the link.
fn welcome(channel: &Channel, hello: &Hello, generation: u32) -> Link {
    assert_eq!(hello.lanes, 1);
    let spec = LinkSpec {
        endpoint: EndpointId(1),
        generation,
        profile: RingProfile::default(),
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let (link, fds) = Link::create(spec).expect("memory and descriptors");
    let welcome = Welcome {
        services: vec!["hello".into()],
        calls_max: 64,
        message_bytes_max: MESSAGE_BYTES_MAX,
        links: vec![LinkWelcome { endpoint: 1, generation, profile: spec.profile }],
    };
    channel.send_from_dpa(&FromDpa::Welcome(welcome), &[fds]).expect("it is there");
    link
}
