//! Links that are lost between modules of one process.

use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::LinkSpec;
use cellmesh_shm::ring::Payload;

use super::*;
use crate::trace::TraceSettings;

const DELAY: Duration = Duration::from_millis(100);

fn routes() -> Arc<Routes> {
    Arc::new(Routes::new(vec!["shop".parse().expect("a name")], ServiceId(0)).expect("one service"))
}

fn recorder() -> RecorderParts {
    RecorderParts::new(0, TraceSettings::default())
}

/// A node whose one service is served elsewhere, and what it says of itself.
fn node() -> (Node, Health) {
    let config = DpuConfig::default();
    let dpa = DpaHost::new(dpa_config(&config), vec!["shop".into()]).expect("descriptors");
    let health = Health::default();
    let readiness = Readiness::of(&EgressConfig::default(), health.clone());
    // Of its services somebody else tells.
    readiness.seen.set(Some(dpa.workers_version()));
    let parts = NodeParts {
        routes: routes(),
        calls_max: dpa_config(&config).calls_max,
        dpu: config,
        dpa,
        reattach_delay: DELAY,
        readiness: Rc::new(readiness),
        ingress: recorder().ingress(),
    };
    (Node::new(parts).expect("shared memory"), health)
}

/// Sends what no peer may send.
fn send(link: &mut Link, forbidden: FrameHeader) {
    assert_eq!(link.tx.small.push(&forbidden, Payload::Empty), Ok(true));
    link.publish();
}

/// A call that no link has room for: the DPA closes the endpoint.
fn breaks_rule_of_dpa() -> FrameHeader {
    FrameHeader::new(FrameKind::Cancel, u64::MAX)
}

/// A frame that only sidecars send: the network side leaves.
fn breaks_rule_of_dpu() -> FrameHeader {
    FrameHeader::new(FrameKind::FlowInstall, 0)
}

/// The other side of the link that is returned is in the hands of the test.
fn link_without_dpa() -> (Link, Link) {
    let spec = LinkSpec {
        endpoint: EndpointId(9),
        generation: 9,
        profile: RingProfile::default(),
        message_bytes_max: 1 << 20,
    };
    Link::pair(spec).expect("shared memory")
}

/// `node` is about to lose its link; it is told, not ready, and attaches again in `DELAY`, not before.
#[track_caller]
fn loses_its_link_and_has_another(node: &mut Node, health: &Health) {
    let start = Nanos::now();
    let says = || health.lines().into_iter().filter(|line| line.starts_with("dpa: ")).collect::<Vec<_>>();
    assert!(node.dpu().is_attached() && says().is_empty());
    node.pump(start).expect("it goes on");
    assert!(!node.dpu().is_attached());
    assert_eq!(says(), ["dpa: the network side is not attached to it"]);
    let again_at = start.saturating_add(DELAY);
    assert!(node.next_deadline().is_some_and(|at| at <= again_at), "{:?}", node.next_deadline());
    node.pump(Nanos(again_at.0 - 1)).expect("it goes on");
    assert!(!node.dpu().is_attached());
    node.pump(again_at).expect("it goes on");
    assert!(node.dpu().is_attached() && says().is_empty());
    node.pump(again_at).expect("it goes on");
    assert!(node.dpu().is_attached() && says().is_empty(), "the new link is good");
}

/// A sidecar that the DPA has closed attaches again.
#[tokio::test(flavor = "current_thread")]
async fn node_whose_dpa_closes_its_sidecar_attaches_again() {
    let (mut node, health) = node();
    let mut link = node.sidecar.dpa.attach_sidecar_here(RingProfile::default()).expect("shared memory");
    send(&mut link, breaks_rule_of_dpa());
    node.sidecar.enter(link);
    loses_its_link_and_has_another(&mut node, &health);
}

/// So does one that has left by itself.
#[tokio::test(flavor = "current_thread")]
async fn node_whose_sidecar_leaves_attaches_again() {
    let (mut node, health) = node();
    let (mut near, far) = link_without_dpa();
    send(&mut near, breaks_rule_of_dpu());
    node.sidecar.enter(far);
    loses_its_link_and_has_another(&mut node, &health);
}

/// What the DPA has of a sidecar that has left goes at once, and what it has of the next one stays.
#[tokio::test(flavor = "current_thread")]
async fn endpoint_goes_with_the_sidecar_that_leaves() {
    let (mut node, _) = node();
    let dpa = node.sidecar.dpa.clone();
    let attached = dpa.attach_sidecar_here(RingProfile::default()).expect("shared memory");
    let (mut near, far) = Link::pair(attached.spec).expect("shared memory");
    send(&mut near, breaks_rule_of_dpu());
    node.sidecar.enter(far);
    let (start, endpoints) = (Nanos::now(), dpa.stats().endpoints);
    node.pump(start).expect("it goes on");
    assert_eq!((node.dpu().is_attached(), dpa.stats().endpoints), (false, endpoints - 1));
    node.pump(start.saturating_add(DELAY)).expect("it goes on");
    assert_eq!((node.dpu().is_attached(), dpa.stats().endpoints), (true, endpoints));
}

/// A worker that goes is none of the sidecar's business.
#[tokio::test(flavor = "current_thread")]
async fn sidecar_stays_while_others_go() {
    let (mut node, _) = node();
    let mut other = node.sidecar.dpa.attach_sidecar_here(RingProfile::default()).expect("shared memory");
    send(&mut other, breaks_rule_of_dpa());
    let before = node.sidecar.dpa.workers_version();
    node.pump(Nanos::now()).expect("it goes on");
    assert_ne!(node.sidecar.dpa.workers_version(), before, "the other is gone");
    assert!(node.dpu().is_attached() && node.sidecar.is_attached());
}

fn cohosted() -> Cohosted {
    let parts = LaneParts {
        routes: routes(),
        dpu: DpuConfig::default(),
        services: Vec::new(),
        pool: Pool::start(1).expect("a thread"),
        idle_instances_max: 1,
        recorder: recorder(),
    };
    Cohosted::new(parts).expect("shared memory")
}

/// A lane whose DPA has closed one of its endpoints ends with the reason.
#[tokio::test(flavor = "current_thread")]
async fn lane_whose_dpa_closes_an_endpoint_ends() {
    let mut lane = cohosted();
    assert!(lane.pump(Nanos::now()).is_ok());
    let attached = lane.dpa.borrow_mut().attach_worker_here(&[], RingProfile::within_lane());
    send(&mut attached.expect("shared memory"), breaks_rule_of_dpa());
    let error = lane.pump(Nanos::now()).expect_err("the lane cannot go on");
    assert!(error.to_string().contains("calls_max"), "{error:#}");
}

/// So does one whose network side has left.
#[tokio::test(flavor = "current_thread")]
async fn lane_whose_sidecar_leaves_ends() {
    let mut lane = cohosted();
    let (mut near, far) = link_without_dpa();
    send(&mut near, breaks_rule_of_dpu());
    lane.dpu.attach(far, 1, ["shop"]);
    let error = lane.pump(Nanos::now()).expect_err("the lane cannot go on");
    assert!(error.to_string().contains("has left"), "{error:#}");
}
