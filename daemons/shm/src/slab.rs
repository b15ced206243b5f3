//! Values with small, dense, reused indices.
//!
//! - No generations: whoever holds an index is told before its value goes away.

/// A vector with holes, and the list of the holes.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(value);
            return index;
        }
        self.entries.push(Some(value));
        u32::try_from(self.entries.len() - 1).expect("its owner bounds the number of values")
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        self.entries[index as usize].as_mut().expect("an index lives as long as its value")
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        self.free.push(index);
        self.entries[index as usize].take().expect("an index lives as long as its value")
    }
}
