//! A DPA that breaks the rules of the ring.

use cellmesh_dpu::DpuConfig;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::link::{Link, LinkSpec};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use cellmesh_shm::profile::RingProfile;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::client::{Raw, soon};
use crate::node::{accept, attached, on_lane};

/// What is in flight is answered, what comes later is refused, and nothing hangs or panics.
#[test]
fn closed_ring_is_an_error_and_no_hang() {
    on_lane(async {
        let spec = LinkSpec {
            endpoint: EndpointId(0),
            generation: 1,
            profile: RingProfile::default(),
            message_bytes_max: 1 << 20,
        };
        let (near, far) = Link::create(spec).expect("memory");
        let dpu = attached(Link::open(far).expect("fresh descriptors"), DpuConfig::default());
        let mut dpa = Port::new(near, PortConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        spawn_local(accept(listener, dpu.clone()));

        soon("the attachment", dpu.work().notified()).await;

        let mut client = Raw::connect(addr).await;
        client.send("GET / HTTP/1.1\r\nhost: node\r\n\r\n").await;
        let mut arrived = None;
        while arrived.is_none() {
            soon("a call", dpu.work().notified()).await;
            dpu.pump(Nanos::now());
            arrived = dpa.poll().expect("an honest sidecar");
        }
        assert!(matches!(arrived, Some(Arrived::Request { .. })));
        dpa.remove_flow(ServiceId(0)); // nothing that a DPA may say to a sidecar
        dpa.flush();
        dpu.pump(Nanos::now());

        assert!(!dpu.is_attached());
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (502, Some("worker-lost")));
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("detached")));
        assert_eq!(dpu.in_flight(), 0);
    });
}
