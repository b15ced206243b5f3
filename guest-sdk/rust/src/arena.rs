//! The bytes beside the records: everything that has a length goes in here, and records keep spans.

use bytes::Bytes;

use crate::bindings::cellmesh::cell::types::Span;

/// A list of bytes that is only ever appended to.
#[derive(Debug, Default)]
pub(crate) struct Arena(Vec<u8>);

impl Arena {
    /// An arena that takes `len` bytes without growing.
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self(Vec::with_capacity(len))
    }

    /// Makes room, once, in an arena that has none.
    pub(crate) fn reserve_first(&mut self, len: usize) {
        if self.0.capacity() == 0 {
            self.0.reserve_exact(len);
        }
    }

    /// An arena that begins with `first`, in its memory, and takes `more` bytes.
    pub(crate) fn starting_with(mut first: Vec<u8>, more: usize) -> (Self, Span) {
        let span = Span { start: 0, len: offset(first.len()) };
        first.reserve_exact(more);
        (Self(first), span)
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(bytes);
        self.since(start)
    }

    /// Appends `name#number`.
    pub(crate) fn push_numbered(&mut self, name: &str, number: u32) -> Span {
        let start = self.0.len();
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'#');
        push_decimal(&mut self.0, number);
        self.since(start)
    }

    fn since(&self, start: usize) -> Span {
        Span { start: offset(start), len: offset(self.0.len() - start) }
    }

    /// The part that `span` names, nothing where it is outside.
    pub(crate) fn get(&self, span: Span) -> &[u8] {
        part(&self.0, span)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The part of `arena` that `span` names, nothing where it is outside. The host keeps its spans inside.
pub(crate) fn part(arena: &[u8], span: Span) -> &[u8] {
    let start = span.start as usize;
    start.checked_add(span.len as usize).and_then(|end| arena.get(start..end)).unwrap_or_default()
}

/// As [`part`], sharing the arena's memory.
pub(crate) fn share(arena: &Bytes, span: Span) -> Bytes {
    match part(arena, span) {
        [] => Bytes::new(),
        part => arena.slice_ref(part),
    }
}

/// A place in an arena. A cell's memory ends before 4 GiB; a native test that goes past it gets a span that
/// no host takes.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn push_decimal(out: &mut Vec<u8>, number: u32) {
    if number >= 10 {
        push_decimal(out, number / 10);
    }
    out.push(b'0' + (number % 10).to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Automatic step ids are readable decimals.
    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 4095, u32::MAX] {
            let mut arena = Arena::default();
            let span = arena.push_numbered("call", number);
            assert_eq!(arena.get(span), format!("call#{number}").as_bytes());
        }
    }

    /// A span past the end reads as nothing; nothing panics on what came from outside.
    #[test]
    fn span_outside_is_empty() {
        for (start, len) in [(2, 2), (4, 0), (u32::MAX, u32::MAX), (0, 4)] {
            assert_eq!(part(b"abc", Span { start, len }), b"");
        }
    }

    /// A long body becomes the arena without being copied.
    #[test]
    fn first_body_keeps_its_memory() {
        let body = vec![7_u8; 10_000];
        let place = body.as_ptr();
        let (arena, span) = Arena::starting_with(body, 0);
        assert_eq!((span.start, span.len, arena.0.as_ptr()), (0, 10_000, place));
    }
}
