use std::io::ErrorKind;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::link::Link;

fn hello() -> Hello {
    Hello { name: "w".into(), role: Role::Worker, services: vec!["s1".into()], lanes: 2, profile: None }
}

fn welcome(specs: &[LinkSpec]) -> Welcome {
    let link = |spec: &LinkSpec| LinkWelcome {
        endpoint: spec.endpoint.0,
        generation: spec.generation,
        profile: spec.profile,
    };
    Welcome {
        services: vec!["s0".into(), "s1".into()],
        calls_max: 7,
        message_bytes_max: 1 << 20,
        links: specs.iter().map(link).collect(),
    }
}

fn spec(endpoint: u16) -> LinkSpec {
    LinkSpec {
        endpoint: EndpointId(endpoint),
        generation: 9,
        profile: RingProfile::default(),
        message_bytes_max: 1 << 20,
    }
}

/// Every packet says what it was made from.
#[test]
fn packets_round_trip() {
    for message in [ToDpa::Hello(hello()), ToDpa::Leave] {
        assert_eq!(ToDpa::decode(&message.encode()), Ok(message));
    }
    let refused = FromDpa::Refused { why: "no".into() };
    for message in [FromDpa::Welcome(welcome(&[spec(3)])), refused, FromDpa::Left] {
        assert_eq!(FromDpa::decode(&message.encode()), Ok(message));
    }
}

/// The largest hello and welcome that the bounds allow fit a packet.
#[test]
fn largest_packets_fit() {
    let services = vec!["x".repeat(SERVICE_NAME_BYTES_MAX); SERVICES_MAX];
    let most =
        Hello { services: services.clone(), lanes: LANES_MAX, profile: Some(profile_most()), ..hello() };
    let specs: Vec<LinkSpec> = (0..LANES_MAX).map(|lane| spec(u16::MAX - lane)).collect();
    let most_welcome = Welcome { services, ..welcome(&specs) };
    for packet in [ToDpa::Hello(most).encode(), FromDpa::Welcome(most_welcome).encode()] {
        assert!(packet.len() <= packet::PACKET_BYTES_MAX, "{}", packet.len());
    }
}

fn profile_most() -> RingProfile {
    RingProfile { small_bytes: 16 << 20, chunk_bytes: 1 << 20, bulk_chunks: 1024, inline_bytes_max: 1 << 20 }
}

/// A peer of another version is refused with both versions in the text, and a refusal is understood in any version.
#[test]
fn other_versions_are_told_apart() {
    let mut packet = ToDpa::Leave.encode();
    packet[8] = 99;
    let error = ToDpa::decode(&packet).expect_err("from the future");
    assert_eq!(error, PacketError::Version { theirs: 99 });
    assert!(error.to_string().contains("version 99") && error.to_string().contains("version 2"), "{error}");
    let mut refused = FromDpa::Refused { why: "too old\n\u{1b}[2J".into() }.encode();
    refused[8] = 99;
    assert_eq!(FromDpa::decode(&refused), Ok(FromDpa::Refused { why: "too old[2J".into() }));
}

/// What breaks a bound is refused with the bound.
#[test]
fn bounds_are_checked() {
    let check = |change: fn(&mut Hello), part: &str| {
        let mut wrong = hello();
        change(&mut wrong);
        let error = ToDpa::decode(&ToDpa::Hello(wrong).encode()).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    check(|h| h.lanes = 0, "lanes = 0: must be from 1 to 32");
    check(|h| h.lanes = 33, "lanes = 33");
    check(|h| h.services.clear(), "a worker names at least one");
    check(|h| h.role = Role::Sidecar, "a sidecar none");
    check(|h| h.services[0] = "a b".into(), "service name \"a b\"");
    check(|h| h.services = vec!["a".into(); SERVICES_MAX + 1], "1025 services");
    check(|h| h.name = "a\nb".into(), "name: must be at most 128 printable bytes");
    check(|h| h.profile = Some(RingProfile { bulk_chunks: 3, ..RingProfile::default() }), "bulk_chunks = 3");
    let error = FromDpa::decode(&FromDpa::Welcome(welcome(&[])).encode()).expect_err("no links").to_string();
    assert!(error.contains("0 links"), "{error}");
}

/// A link goes from one process to another with its welcome, and frames go through it.
#[test]
fn links_go_with_their_welcome() {
    let (dpa, endpoint) = Channel::pair().expect("descriptors");
    endpoint.send_to_dpa(&ToDpa::Hello(hello())).expect("room");
    assert_eq!(dpa.receive_as_dpa().expect("sent"), ToDpa::Hello(hello()));
    let specs = [spec(3), spec(4)];
    let made: Vec<_> = specs.iter().map(|spec| Link::create(*spec).expect("memory")).collect();
    let (mut near, far): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    dpa.send_from_dpa(&FromDpa::Welcome(welcome(&specs)), &far).expect("room");
    drop(far);
    let Received::Attached(attached) = endpoint.receive_from_dpa().expect("sent") else {
        panic!("a welcome")
    };
    assert_eq!(attached.links.iter().map(|link| link.spec).collect::<Vec<_>>(), specs);
    let mut opened: Vec<Link> =
        attached.links.into_iter().map(|fds| Link::open(fds).expect("right segments")).collect();
    for (near, far) in near.iter_mut().zip(&mut opened) {
        near.publish();
        assert!(!far.rx.refresh().expect("honest"));
    }
}

/// Descriptors beside what belongs to a packet are refused, and closed.
#[test]
fn descriptors_are_counted() {
    let (dpa, endpoint) = Channel::pair().expect("descriptors");
    let (_, fds) = Link::create(spec(3)).expect("memory");
    let packet = FromDpa::Welcome(welcome(&[spec(3), spec(4)])).encode();
    dpa.send(&packet, &[fds.tx.as_fd(), fds.rx.as_fd()]).expect("room");
    let error = endpoint.receive_from_dpa().expect_err("eight belong to it");
    assert!(matches!(error, ChannelError::Descriptors { found: 2, expected: 8 }), "{error}");
}

/// Nothing there is told apart from nobody there.
#[test]
fn end_is_told() {
    let (dpa, endpoint) = Channel::pair().expect("descriptors");
    assert!(dpa.receive_as_dpa().expect_err("nothing sent").would_block());
    drop(endpoint);
    assert!(matches!(dpa.receive_as_dpa(), Err(ChannelError::Ended)));
    assert!(matches!(dpa.send_from_dpa(&FromDpa::Left, &[]), Err(ChannelError::Ended)));
}

/// A DPA that was killed leaves a file that the next one replaces; one that lives is left alone.
#[test]
fn listener_replaces_only_what_is_dead() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("dpa.sock");
    assert_eq!(Channel::connect(&path).expect_err("nobody").kind(), ErrorKind::NotFound);
    let first = AttachListener::bind(&path).expect("a free path");
    assert_eq!(AttachListener::bind(&path).expect_err("taken").kind(), ErrorKind::AddrInUse);
    std::mem::forget(first); // as if killed: but its socket lives on here
    assert!(AttachListener::bind(&path).is_err());
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a free path"));
    assert_eq!(
        Channel::connect(&dead).expect_err("a stream socket's file").kind(),
        ErrorKind::ConnectionRefused
    );
    let replaced = AttachListener::bind(&dead).expect("nobody listens");
    let endpoint = Channel::connect(replaced.path()).expect("somebody listens");
    replaced.accept().expect("somebody is there");
    drop((endpoint, replaced));
    assert!(!dead.exists());
}

/// What is no socket of a DPA stays where it is: a config, a folder, a link, and the socket of another program that lives.
#[test]
fn listener_removes_no_other_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("precious.toml"), "precious").expect("writable");
    std::fs::create_dir(at("folder")).expect("writable");
    std::os::unix::fs::symlink(at("nowhere"), at("link")).expect("writable");
    let _other = std::os::unix::net::UnixListener::bind(at("other.sock")).expect("a free path");
    for name in ["precious.toml", "folder", "link", "other.sock"] {
        let error = AttachListener::bind(&at(name)).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}: {error}");
        assert_eq!(error.to_string(), "a file is there that is no socket of a DPA", "{name}");
        assert!(at(name).symlink_metadata().is_ok(), "{name} is gone");
    }
    assert_eq!(std::fs::read_to_string(at("precious.toml")).expect("still there"), "precious");
}

/// A DPA whose socket's file was removed leaves alone what is there by then: the socket of the next DPA, or any other file.
#[test]
fn listener_removes_only_its_own_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("dpa.sock");
    let first = AttachListener::bind(&path).expect("a free path");
    std::fs::remove_file(&path).expect("it was there");
    let second = AttachListener::bind(&path).expect("a free path");
    drop(first);
    drop(Channel::connect(&path).expect("the second still listens"));
    std::fs::remove_file(&path).expect("it was there");
    std::fs::write(&path, "precious").expect("writable");
    drop(second);
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
}

/// Paths that are no address are refused in plain words; the kernel would give the empty one a name of its own.
#[test]
fn paths_that_are_no_address_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of_bytes = |bytes: usize| folder.path().join("x".repeat(bytes - folder.path().as_os_str().len() - 1));
    let long = "is longer than 107 bytes";
    for (path, why) in
        [("".into(), "the path of a socket is empty"), (of_bytes(108), long), (of_bytes(300), long)]
    {
        for error in [AttachListener::bind(&path).err(), Channel::connect(&path).err()] {
            let error = error.expect("no address");
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidInput, why.to_owned()));
        }
    }
    drop(AttachListener::bind(&of_bytes(107)).expect("the longest"));
}

proptest! {
    /// Whatever bytes come: an error or a message, and what is a message is within its bounds.
    #[test]
    fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), valid: bool, kind in 0..6u8) {
        if valid && bytes.len() > 11 {
            bytes[..11].copy_from_slice(&[&b"cellmesh\x01\0"[..], &[kind]].concat());
        }
        if let Ok(ToDpa::Hello(hello)) = ToDpa::decode(&bytes) {
            prop_assert!(hello.lanes <= LANES_MAX);
        }
        drop(FromDpa::decode(&bytes));
    }

    /// A packet with one byte changed is refused, or means something within its bounds.
    #[test]
    fn changed_packets_stay_within_bounds(at: prop::sample::Index, to: u8) {
        let mut packet = ToDpa::Hello(Hello { profile: Some(RingProfile::default()), ..hello() }).encode();
        let at = at.index(packet.len());
        packet[at] = to;
        if let Ok(ToDpa::Hello(hello)) = ToDpa::decode(&packet) {
            prop_assert!((1..=LANES_MAX).contains(&hello.lanes));
            prop_assert!(hello.profile.is_none_or(|profile| profile.validate().is_ok()));
        }
    }
}
