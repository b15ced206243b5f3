//! Shared memory: a sealed anonymous file, written by one side and read by the other.
//!
//! ```text
//!   create_outgoing    we write, the peer gets a descriptor that can only read
//!   create_incoming    the peer writes, we map it for reading only
//!   open_*             the other side of either, from the descriptor that it was given
//! ```
//!
//! - This is the only module with unsafe code. Safe code will not do because the bytes belong to two processes:
//!   a `&[u8]` over them would promise the compiler that nobody else changes them.
//! - So memory is words, `AtomicU64`: every bit pattern is one, a store by the peer is no data race, and no `&mut`
//!   exists to any of them. What a side may only read it gets as [`Words`], which cannot store. Whole lines of payload
//!   move in assembly (`wide`), by the same rules and up to 1.7 times as fast.
//! - Seals come before hand-over: the size can never change (a shrunk file would kill the reader with SIGBUS), and
//!   `FUTURE_WRITE` makes our own mapping the last writable one of an outgoing segment, whoever re-opens the file.
//! - A mapping is a page longer than its file, and the file cannot grow: a read past the end, which no code here does,
//!   would end this process and not give it somebody else's bytes.
//! - All pages are touched before hand-over, so that being out of memory is an error here and not a signal later.
//! - Words are read on read-only pages with relaxed loads only: those are the ones that the language allows there
//!   (`std::sync::atomic`, "Atomic accesses to read-only memory"); a fence behind the load orders it.
//! - The peer may write at any time: whoever reads a value copies it once, checks the copy and uses the copy.
//! - Under Miri and loom, which have no shared mappings, a segment is words on the heap with two owners.

use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// Bytes of a word, the unit of every access.
pub const WORD_BYTES: usize = 8;

/// Why a segment was not made or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The kernel refused.
    #[error("shared memory of {bytes} bytes: {step} failed")]
    System {
        /// What was asked of it.
        step: &'static str,
        /// Size of the segment.
        bytes: usize,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// The file has another size than the peer said.
    #[error("shared memory of {found} bytes: must be {expected}")]
    Size {
        /// Size of the file.
        found: u64,
        /// Size that follows from the ring profile.
        expected: usize,
    },
    /// A seal is missing: the peer could still change the size or write to it.
    #[error("shared memory with seals {found:#x}: must have {expected:#x}")]
    Seals {
        /// Seals of the file.
        found: u32,
        /// Seals that it must have.
        expected: u32,
    },
}

/// Memory that this side alone writes.
#[derive(Debug, Clone)]
pub struct Writable(Mapping);

/// Memory that the other side writes.
#[derive(Debug, Clone)]
pub struct Readable(Mapping);

/// Words that the other side may be writing: to be loaded, never stored.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a>(&'a [AtomicU64]);

impl Writable {
    /// All words. Only this side may store; the other side may be loading.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

impl Readable {
    /// All words, for loading.
    #[must_use]
    #[inline]
    pub fn words(&self) -> Words<'_> {
        Words(self.0.words())
    }
}

impl<'a> Words<'a> {
    /// No words.
    pub const EMPTY: Words<'static> = Words(&[]);

    /// How many words.
    #[must_use]
    #[inline]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// One word as it is now. Panics beyond the end.
    #[must_use]
    #[inline]
    pub fn get(self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    /// `count` words from `start`. Panics beyond the end.
    #[must_use]
    #[inline]
    pub fn part(self, start: usize, count: usize) -> Self {
        Words(&self.0[start..start + count])
    }

    /// Asks for the line of a word that will be loaded soon; nothing beyond the end.
    #[inline(always)]
    pub(crate) fn prefetch(self, index: usize) {
        if let Some(word) = self.0.get(index) {
            wide::prefetch(word);
        }
    }

    /// The first `N` words as they are now. Panics if there are fewer.
    #[must_use]
    #[inline]
    pub fn first<const N: usize>(self) -> [u64; N] {
        let words: &[AtomicU64; N] = self.0.first_chunk().expect("the caller asks for words inside its ring");
        let mut copy = [0; N];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Ordering::Relaxed);
        }
        copy
    }

    /// Appends the first `bytes` bytes to `out`. Panics if there are fewer.
    ///
    /// - cost: one pass, whole lines 16 bytes at a time (`wide`); `out` grows at most once and is not zeroed first.
    #[inline]
    pub fn append_to(self, bytes: usize, out: &mut Vec<u8>) {
        let words = &self.0[..bytes.div_ceil(WORD_BYTES)];
        out.reserve(bytes);
        let room = &mut out.spare_capacity_mut()[..bytes];
        let wide = wide::take(words, room);
        let words = &words[wide / WORD_BYTES..];
        let (whole, rest) = room[wide..].as_chunks_mut::<WORD_BYTES>();
        for (to, from) in whole.iter_mut().zip(words) {
            to.write_copy_of_slice(&from.load(Ordering::Relaxed).to_le_bytes());
        }
        if let [.., last] = words {
            let last = last.load(Ordering::Relaxed).to_le_bytes();
            rest.iter_mut().zip(last).for_each(|(to, from)| _ = to.write(from));
        }
        let len = out.len() + bytes;
        // SAFETY: `reserve` made room for `bytes` more. The first `wide` of them are written, `whole` and `rest` are the others; the
        // loop wrote each array of `whole` (there are at least as many words as arrays) and `rest`, shorter than a word, was
        // written from the last word. So the first `len` bytes are initialised.
        unsafe { out.set_len(len) };
    }
}

/// Asks for the line of a word that will be stored to soon, for this side alone; nothing beyond the end.
#[inline(always)]
pub(crate) fn prefetch_to_store(words: &[AtomicU64], index: usize) {
    if let Some(word) = words.get(index) {
        wide::prefetch_to_store(word);
    }
}

/// Stores `from` into `to`; a last word that `from` does not fill is filled with zeros.
/// Panics if `to` is too short. Returns the words used.
#[inline]
pub(crate) fn store_bytes(to: &[AtomicU64], from: &[u8]) -> usize {
    let used = from.len().div_ceil(WORD_BYTES);
    let to = &to[..used];
    let wide = wide::put(from, to);
    let (whole, rest) = from[wide..].as_chunks::<WORD_BYTES>();
    for (to, from) in to[wide / WORD_BYTES..].iter().zip(whole) {
        to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        to[used - 1].store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
    used
}

/// Stores `from` into the first words of `to`. Panics if `to` is too short.
#[inline]
pub(crate) fn store_words(to: &[AtomicU64], from: Words<'_>) {
    let to = &to[..from.len()];
    let wide = wide::pass_on(from.0, to) / WORD_BYTES;
    for (to, from) in to[wide..].iter().zip(&from.0[wide..]) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Whole lines, 16 bytes at a time: what a processor moves 1.5 to 2 times as fast as words. Each returns the bytes that it moved, a
/// multiple of a line; the caller moves the rest.
///
/// In assembly, because the language has no access to memory that is both wide and shared: for the compiler this is code that it
/// does not know, which neither promises nor needs that the bytes stay as they are meanwhile. A processor may show the other side
/// a line half written, which it does not look at before the ring's counter says so; what a peer does that looks or writes nevertheless is
/// wrong bytes, as with words. A prefetch reads and writes nothing.
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod wide {
    use std::mem::MaybeUninit;

    use super::{AtomicU64, WORD_BYTES};

    const LINE_BYTES: usize = 64;

    /// Asks for its line, to load from it.
    #[inline(always)]
    pub(super) fn prefetch(word: &AtomicU64) {
        let at = std::ptr::from_ref(word);
        // SAFETY: a hint, which changes neither memory nor registers and never faults; SSE is part of x86-64.
        unsafe { std::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags)) };
    }

    /// Asks for its line, to store to it.
    #[inline(always)]
    pub(super) fn prefetch_to_store(word: &AtomicU64) {
        let at = std::ptr::from_ref(word);
        // SAFETY: a hint, which changes neither memory nor registers and never faults; processors that do not know it pass over it.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags)) };
    }

    /// Of `from` into `to`, as much as both have.
    #[inline]
    pub(super) fn put(from: &[u8], to: &[AtomicU64]) -> usize {
        let lines = from.len().min(to.len() * WORD_BYTES) / LINE_BYTES;
        // SAFETY: both have that many lines; `to` is atomics, which may be written through a shared reference.
        unsafe { copy(from.as_ptr(), to.as_ptr().cast_mut().cast(), lines) }
    }

    /// Of `from` into `to`, as much as both have.
    #[inline]
    pub(super) fn take(from: &[AtomicU64], to: &mut [MaybeUninit<u8>]) -> usize {
        let lines = (from.len() * WORD_BYTES).min(to.len()) / LINE_BYTES;
        // SAFETY: both have that many lines; `to` is ours alone.
        unsafe { copy(from.as_ptr().cast(), to.as_mut_ptr().cast(), lines) }
    }

    /// Of `from` into `to`, as much as both have.
    #[inline]
    pub(super) fn pass_on(from: &[AtomicU64], to: &[AtomicU64]) -> usize {
        let lines = from.len().min(to.len()) * WORD_BYTES / LINE_BYTES;
        // SAFETY: both have that many lines; `to` is atomics, which may be written through a shared reference.
        unsafe { copy(from.as_ptr().cast(), to.as_ptr().cast_mut().cast(), lines) }
    }

    /// `from` can be read, and `to` be written, for so many lines, and they do not overlap.
    #[inline]
    unsafe fn copy(from: *const u8, to: *mut u8, lines: usize) -> usize {
        if lines > 0 {
            // SAFETY: it reads and writes what the caller says, and no other memory; SSE2 is part of x86-64; the registers are
            // named. Loads and stores of the same bytes as single ones, of no order among each other.
            unsafe {
                std::arch::asm!(
                    "2:",
                    "movups {a}, [{from}]",
                    "movups {b}, [{from} + 16]",
                    "movups {c}, [{from} + 32]",
                    "movups {d}, [{from} + 48]",
                    "movups [{to}], {a}",
                    "movups [{to} + 16], {b}",
                    "movups [{to} + 32], {c}",
                    "movups [{to} + 48], {d}",
                    "add {from}, 64",
                    "add {to}, 64",
                    "dec {lines}",
                    "jnz 2b",
                    from = inout(reg) from => _,
                    to = inout(reg) to => _,
                    lines = inout(reg) lines => _,
                    a = out(xmm_reg) _,
                    b = out(xmm_reg) _,
                    c = out(xmm_reg) _,
                    d = out(xmm_reg) _,
                    options(nostack),
                );
            }
        }
        lines * LINE_BYTES
    }
}

/// Words only: where nothing wider is known, or a tool has to see each access.
#[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
mod wide {
    use std::mem::MaybeUninit;

    use super::AtomicU64;

    pub(super) fn prefetch(_word: &AtomicU64) {}

    pub(super) fn prefetch_to_store(_word: &AtomicU64) {}

    pub(super) fn put(_from: &[u8], _to: &[AtomicU64]) -> usize {
        0
    }

    pub(super) fn take(_from: &[AtomicU64], _to: &mut [MaybeUninit<u8>]) -> usize {
        0
    }

    pub(super) fn pass_on(_from: &[AtomicU64], _to: &[AtomicU64]) -> usize {
        0
    }
}

/// Words that stay where they are as long as any clone lives.
#[derive(Debug, Clone)]
struct Mapping {
    /// Where `memory` begins: asking it at every access would be one load more.
    first: NonNull<AtomicU64>,
    words: usize,
    /// Unmapped with its last owner.
    #[expect(dead_code, reason = "owns what `first` points to")]
    memory: Arc<Memory>,
}

// SAFETY: it owns a part of `memory`, which may itself go to other threads, and a pointer to what that keeps alive.
unsafe impl Send for Mapping {}
// SAFETY: all that it gives out is atomics, for which any number of threads may ask at once.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// All of `memory`, which has at least so many words.
    fn of(memory: Memory, words: usize) -> Self {
        let memory = Arc::new(memory);
        let first = NonNull::new(memory.as_ptr().cast_mut().cast()).expect("memory lies somewhere");
        Self { first, words, memory }
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `first` is the start of `memory`, a live mapping (or allocation) of at least `words` words, which
        // the caller of `Mapping::of` made sure of; it is aligned to a page (or is words). It is unmapped when the
        // last clone is dropped, and the result borrows `self`. `AtomicU64` takes every bit pattern; the file is sealed against shrinking, so each page
        // stays backed; and no `&mut` to these bytes exists in any process.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.words) }
    }
}

#[cfg(not(any(loom, miri)))]
type Memory = memmap2::MmapRaw;
#[cfg(any(loom, miri))]
use on_heap::Memory;

#[cfg(any(loom, miri))]
pub use on_heap::pair;

#[cfg(all(feature = "peer", not(any(loom, miri))))]
pub use in_memfd::make_writable;
#[cfg(not(any(loom, miri)))]
pub use in_memfd::{create_incoming, create_outgoing, open_readable, open_writable, pair};

#[cfg(any(loom, miri))]
mod on_heap {
    use super::*;

    #[derive(Debug)]
    pub(super) struct Memory(Box<[AtomicU64]>);

    impl Memory {
        pub(super) fn as_ptr(&self) -> *const AtomicU64 {
            self.0.as_ptr()
        }
    }

    /// Both ends of a new segment of `bytes` zero bytes.
    /// # Errors
    /// None; as on a real machine otherwise.
    pub fn pair(bytes: usize) -> Result<(Writable, Readable), SegmentError> {
        let words = bytes / WORD_BYTES;
        let mapping = Mapping::of(Memory((0..words).map(|_| AtomicU64::new(0)).collect()), words);
        Ok((Writable(mapping.clone()), Readable(mapping)))
    }
}

#[cfg(not(any(loom, miri)))]
mod in_memfd {
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

    use memmap2::{MmapOptions, MmapRaw};
    use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
    use rustix::io::Errno;

    use super::*;

    /// What every segment is sealed with before anybody else sees it.
    const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
    /// What a segment is sealed with that only its creator may write.
    const WRITER_SEALS: SealFlags = SIZE_SEALS.union(SealFlags::FUTURE_WRITE);

    /// A new segment that we write: our mapping, and a descriptor for the peer that can only read.
    /// # Errors
    /// [`SegmentError::System`] if the kernel refuses, for example for want of memory or descriptors.
    pub fn create_outgoing(bytes: usize) -> Result<(Writable, OwnedFd), SegmentError> {
        let fd = create(bytes)?;
        let ours = Writable(mapping(map_writable(fd.as_fd(), bytes)?, bytes));
        rustix::fs::fcntl_add_seals(&fd, WRITER_SEALS).map_err(|errno| refused("sealing", bytes, errno))?;
        Ok((ours, reopen_read_only(fd.as_fd(), bytes)?))
    }

    /// A new segment that the peer writes: our mapping for reading, and the descriptor for the peer.
    /// # Errors
    /// [`SegmentError::System`] if the kernel refuses, for example for want of memory or descriptors.
    pub fn create_incoming(bytes: usize) -> Result<(Readable, OwnedFd), SegmentError> {
        let fd = create(bytes)?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS).map_err(|errno| refused("sealing", bytes, errno))?;
        Ok((Readable(mapping(map_read_only(fd.as_fd(), bytes)?, bytes)), fd))
    }

    /// Maps a segment that we were given to write, after checking its size and seals.
    /// # Errors
    /// [`SegmentError::Size`] or [`SegmentError::Seals`] if it is not what a correct peer makes.
    pub fn open_writable(fd: BorrowedFd<'_>, bytes: usize) -> Result<Writable, SegmentError> {
        check(fd, bytes, SIZE_SEALS)?;
        Ok(Writable(mapping(map_writable(fd, bytes)?, bytes)))
    }

    /// Maps a segment that we were given to read, after checking its size and seals.
    /// # Errors
    /// [`SegmentError::Size`] or [`SegmentError::Seals`] if it is not what a correct peer makes.
    pub fn open_readable(fd: BorrowedFd<'_>, bytes: usize) -> Result<Readable, SegmentError> {
        check(fd, bytes, WRITER_SEALS)?;
        Ok(Readable(mapping(map_read_only(fd, bytes)?, bytes)))
    }

    /// Both ends of a new segment of `bytes` zero bytes, for a ring inside one process: one mapping, whose address is the
    /// same for both. A processor hands a store over to a load of the same address at once, and to one of the same
    /// memory at another address only when it has left the core's queue.
    /// # Errors
    /// [`SegmentError::System`] if the kernel refuses, for example for want of memory or descriptors.
    pub fn pair(bytes: usize) -> Result<(Writable, Readable), SegmentError> {
        let fd = create(bytes)?;
        rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS).map_err(|errno| refused("sealing", bytes, errno))?;
        let both = mapping(map_writable(fd.as_fd(), bytes)?, bytes);
        Ok((Writable(both.clone()), Readable(both)))
    }

    /// Maps memory that we were given to read, and asks for the right to write it afterwards. What a hostile reader
    /// would do; the mapping is gone again either way.
    /// # Errors
    /// The kernel's: it refuses the right, as it should.
    #[cfg(feature = "peer")]
    pub fn make_writable(fd: BorrowedFd<'_>, bytes: usize) -> std::io::Result<()> {
        // SAFETY: nothing reads the mapping, so nothing is promised about bytes that another process changes, and it
        // ends with this function.
        let map = unsafe { MmapOptions::new().len(bytes).map(fd.as_raw_fd()) }?;
        map.make_mut().map(drop)
    }

    /// `map` holds at least `bytes`: the kernel mapped exactly what it was asked for. The file has so many: we made it
    /// so, or checked it.
    fn mapping(map: MmapRaw, bytes: usize) -> Mapping {
        assert!(map.len() >= bytes, "mmap returned less than it was asked for");
        Mapping::of(map, bytes / WORD_BYTES)
    }

    fn create(bytes: usize) -> Result<OwnedFd, SegmentError> {
        let fd = memfd().map_err(|errno| refused("creating", bytes, errno))?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(|errno| refused("sizing", bytes, errno))?;
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)
            .map_err(|errno| refused("allocating", bytes, errno))?;
        Ok(fd)
    }

    /// Linux before 6.3 does not know `NOEXEC_SEAL`; there the file is as good, but could be executed.
    fn memfd() -> Result<OwnedFd, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        match rustix::fs::memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => rustix::fs::memfd_create(NAME, flags),
            made => made,
        }
    }

    /// Seen in `/proc/<pid>/maps` only; not a name that anything could be opened by.
    const NAME: &str = "cellmesh-segment";

    fn map_writable(fd: BorrowedFd<'_>, bytes: usize) -> Result<MmapRaw, SegmentError> {
        let map = MmapOptions::new().len(guarded(bytes)).populate().map_raw(fd.as_raw_fd());
        map.map_err(|source| SegmentError::System { step: "mapping for writing", bytes, source })
    }

    fn map_read_only(fd: BorrowedFd<'_>, bytes: usize) -> Result<MmapRaw, SegmentError> {
        let map = MmapOptions::new().len(guarded(bytes)).populate().map_raw_read_only(fd.as_raw_fd());
        map.map_err(|source| SegmentError::System { step: "mapping for reading", bytes, source })
    }

    /// What is mapped of a segment: its pages, and one behind them that no file has. Touching that one is SIGBUS.
    fn guarded(bytes: usize) -> usize {
        let page = rustix::param::page_size();
        bytes.next_multiple_of(page) + page
    }

    /// A second open file of the same memory that was never opened for writing.
    fn reopen_read_only(fd: BorrowedFd<'_>, bytes: usize) -> Result<OwnedFd, SegmentError> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| refused("re-opening for reading", bytes, errno))
    }

    fn check(fd: BorrowedFd<'_>, bytes: usize, seals: SealFlags) -> Result<(), SegmentError> {
        let found =
            rustix::fs::fcntl_get_seals(fd).map_err(|errno| refused("reading the seals", bytes, errno))?;
        if !found.contains(seals) {
            return Err(SegmentError::Seals { found: found.bits(), expected: seals.bits() });
        }
        let stat = rustix::fs::fstat(fd).map_err(|errno| refused("reading the size", bytes, errno))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size != bytes as u64 {
            return Err(SegmentError::Size { found: size, expected: bytes });
        }
        Ok(())
    }

    fn refused(step: &'static str, bytes: usize, errno: Errno) -> SegmentError {
        SegmentError::System { step, bytes, source: errno.into() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
