use super::*;

fn filled(bytes: &[u8]) -> (Writable, Readable) {
    let (ours, theirs) = pair(4096).expect("memory for a page");
    store_bytes(ours.words(), bytes);
    (ours, theirs)
}

/// Bytes of every length around a word come out as they went in, behind what `out` already held.
#[test]
fn bytes_round_trip() {
    for len in 0..=33 {
        let bytes: Vec<u8> = (1..=len).collect();
        let (_ours, theirs) = filled(&bytes);
        let mut out = vec![0xaa];
        theirs.words().append_to(bytes.len(), &mut out);
        assert_eq!(out[0], 0xaa);
        assert_eq!(&out[1..], &bytes[..], "of length {len}");
    }
}

/// Bytes of every length around two lines, from and to every place in a word: as they went in, and nothing beside them is touched.
#[test]
fn lines_and_their_rest_round_trip() {
    let bytes: Vec<u8> = (0..=255).collect();
    let (ours, theirs) = pair(4096).expect("memory for a page");
    let (to, relayed) = pair(4096).expect("memory for a page");
    for (len, from, at) in (0..=136).flat_map(|len| (0..8).map(move |from| (len, from, 1 + from))) {
        store_bytes(ours.words(), &[0xee; 512]);
        let part = &bytes[from..from + len];
        let used = store_bytes(&ours.words()[at..], part);
        store_words(to.words(), theirs.words().part(0, 64));
        for words in [theirs.words(), relayed.words()] {
            let mut out = vec![0xaa; from];
            words.part(at, used).append_to(len, &mut out);
            assert_eq!((&out[..from], &out[from..]), (&[0xaa; 8][..from], part), "{len} from {from}");
            let beside = [words.get(at - 1), words.get(at + used)];
            assert_eq!(beside, [u64::from_ne_bytes([0xee; 8]); 2], "{len} from {from}");
        }
    }
}

/// The part of the last word that is not used is zero, whatever was there before.
#[test]
fn unused_end_of_word_is_cleared() {
    let (ours, theirs) = filled(&[0xff; 16]);
    assert_eq!(store_bytes(ours.words(), &[1, 2, 3]), 1);
    assert_eq!((theirs.words().get(0), theirs.words().get(1)), (0x03_02_01, u64::MAX));
}

/// Words go from one segment to another unchanged.
#[test]
fn words_are_relayed() {
    let (_from, source) = filled(b"0123456789abcdef");
    let (to, copy) = pair(4096).expect("memory for a page");
    store_words(&to.words()[1..], source.words().part(0, 2));
    let mut out = Vec::new();
    copy.words().part(1, 2).append_to(16, &mut out);
    assert_eq!(out, b"0123456789abcdef");
    assert_eq!(source.words().first::<2>(), copy.words().part(1, 2).first::<2>());
}

/// Both ends inside one process are one mapping: the same address for who writes and who reads.
#[test]
fn pair_is_mapped_once() {
    let (ours, theirs) = pair(4096).expect("memory for a page");
    assert!(std::ptr::eq(ours.words(), theirs.words().0));
}

/// A copy past the end of a segment is refused before anything is copied.
#[test]
#[should_panic(expected = "out of range")]
fn copy_past_the_end_panics() {
    let (_ours, theirs) = pair(64).expect("memory for a line");
    theirs.words().append_to(65, &mut Vec::new());
}

#[cfg(not(miri))]
mod sealed {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{FallocateFlags, Mode, OFlags, SealFlags};
    use rustix::io::Errno;

    use super::*;

    const BYTES: usize = 8192;

    fn open_again(fd: impl std::os::fd::AsRawFd, flags: OFlags) -> Result<std::os::fd::OwnedFd, Errno> {
        rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())
    }

    /// The size of a segment can be changed by nobody, and no seal be added or removed.
    #[test]
    fn size_is_fixed() {
        let (_ours, theirs) = create_incoming(BYTES).expect("memory");
        assert_eq!(rustix::fs::ftruncate(&theirs, 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&theirs, 2 * BYTES as u64), Err(Errno::PERM));
        let more = rustix::fs::fallocate(&theirs, FallocateFlags::empty(), 0, 2 * BYTES as u64);
        assert_eq!(more, Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&theirs, SealFlags::WRITE), Err(Errno::PERM));
    }

    /// The reader of an outgoing segment cannot write it: not by its descriptor, nor by opening the file again.
    #[test]
    fn reader_cannot_write() {
        let (ours, theirs) = create_outgoing(BYTES).expect("memory");
        assert_eq!(rustix::io::write(&theirs, b"x"), Err(Errno::BADF));
        assert!(memmap2::MmapOptions::new().len(BYTES).map_raw(&theirs).is_err());
        if let Ok(again) = open_again(theirs.as_fd(), OFlags::RDWR) {
            assert_eq!(rustix::io::write(&again, b"x"), Err(Errno::PERM));
            assert!(memmap2::MmapOptions::new().len(BYTES).map_raw(&again).is_err());
        }
        let mapped = open_readable(theirs.as_fd(), BYTES).expect("its own segment");
        store_bytes(ours.words(), b"still ours");
        let mut seen = Vec::new();
        mapped.words().append_to(10, &mut seen);
        assert_eq!(seen, b"still ours");
    }

    /// Behind either mapping is a page that nobody can read: the kernel has nothing to give for it.
    #[test]
    fn nothing_is_behind_a_mapping() {
        let memory = std::fs::File::open("/proc/self/mem").expect("Linux");
        for bytes in [BYTES, BYTES - 64] {
            let (writer, theirs) = create_outgoing(bytes).expect("memory");
            let reader = open_readable(theirs.as_fd(), bytes).expect("its own segment");
            store_bytes(&writer.words()[bytes / WORD_BYTES - 1..], b"the last");
            for words in [writer.words(), reader.words().0] {
                let begin = words.as_ptr().addr() as u64;
                let mut read = [0; WORD_BYTES];
                memory.read_exact_at(&mut read, begin + bytes as u64 - 8).expect("its own memory");
                assert_eq!(&read, b"the last");
                let page = rustix::param::page_size() as u64;
                for behind in [begin + BYTES as u64, begin + BYTES as u64 + page - 8] {
                    let error = memory.read_at(&mut read, behind).expect_err("no page of the file");
                    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
                }
            }
        }
    }

    /// A hole punched by the writer reads as zeros: harmless, and the reader lives.
    #[test]
    fn punched_hole_reads_as_zero() {
        let (ours, theirs) = create_incoming(BYTES).expect("memory");
        let writer = open_writable(theirs.as_fd(), BYTES).expect("its own segment");
        store_bytes(writer.words(), b"gone soon");
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&theirs, flags, 0, BYTES as u64).expect("allowed to the writer");
        assert_eq!(ours.words().get(0), 0);
    }

    /// A descriptor of the wrong size, without seals, or that is no memory at all is not mapped.
    #[test]
    fn foreign_memory_is_refused() {
        let (_ours, theirs) = create_incoming(BYTES).expect("memory");
        let error = open_writable(theirs.as_fd(), BYTES / 2).unwrap_err();
        assert_eq!(error.to_string(), "shared memory of 8192 bytes: must be 4096");
        let error = open_readable(theirs.as_fd(), BYTES).unwrap_err();
        assert!(matches!(error, SegmentError::Seals { .. }), "{error}");
        let plain = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
        assert!(matches!(open_writable(plain.as_fd(), BYTES), Err(SegmentError::Seals { .. })));
        let file = std::fs::File::open("/proc/self/maps").expect("a file");
        assert!(matches!(open_writable(file.as_fd(), BYTES), Err(SegmentError::System { .. })));
    }
}
