//! Components that no honest compiler makes.

use std::fmt::Write as _;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract that the lies are told about.
const CONTRACT: &str = include_str!("../../wit/cell.wit");

/// Where a [`Liar`]'s answer is in its memory.
pub const ANSWER: u32 = 1024;

/// A component that imports the interface `name`, and does nothing else.
#[must_use]
pub fn importing(name: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (import {name:?} (instance)))")).expect("a component in text form")
}

/// A cell whose handler returns a pointer to whatever was put into its memory.
#[derive(Debug)]
pub struct Liar {
    answer: u32,
    pages: u32,
    data: Vec<(u32, Vec<u8>)>,
    never_starts: bool,
}

impl Default for Liar {
    fn default() -> Self {
        Self { answer: ANSWER, pages: 4, data: Vec::new(), never_starts: false }
    }
}

impl Liar {
    /// With these words, little-endian, in memory.
    #[must_use]
    pub fn words(self, at: u32, words: &[u32]) -> Self {
        self.bytes(at, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }

    /// With these bytes in memory.
    #[must_use]
    pub fn bytes(mut self, at: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.data.push((at, bytes.into()));
        self
    }

    /// With so many pages of 64 KiB of memory.
    #[must_use]
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// The handler says that its answer is there.
    #[must_use]
    pub fn answer_at(mut self, answer: u32) -> Self {
        self.answer = answer;
        self
    }

    /// Its start function never returns.
    #[must_use]
    pub fn never_starts(mut self) -> Self {
        self.never_starts = true;
        self
    }

    /// The component.
    #[must_use]
    pub fn component(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).expect("a module in text form");
        let mut resolve = Resolve::default();
        let package = resolve.push_str("cell.wit", CONTRACT).expect("the contract is WIT");
        let world = resolve.select_world(&[package], Some("cell")).expect("the contract has a world");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a world");
        let encoder = ComponentEncoder::default().module(&module).expect("the module fits the world");
        encoder.validate(true).encode().expect("a component")
    }

    /// `handle` gets four spans and an arena; `run-step` and `build-requests` a number, a span, and two lists.
    fn text(&self) -> String {
        let Self { answer, pages, data, never_starts } = self;
        let mut text = format!(
            r#"(module
                (memory (export "memory") {pages})
                (func (export "cellmesh:cell/handler@0.2.0#handle")
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const {answer})
                (func (export "cellmesh:cell/handler@0.2.0#run-step")
                    (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
                (func (export "cellmesh:cell/handler@0.2.0#build-requests")
                    (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 131072)
            "#
        );
        if *never_starts {
            text += "(func $start (loop br 0)) (start $start)";
        }
        for (at, bytes) in data {
            let escaped: String = bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "\\{byte:02x}");
                text
            });
            let _ = writeln!(text, r#"(data (i32.const {at}) "{escaped}")"#);
        }
        text + ")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lies are components that fit the contract: what is wrong with them only shows when they run.
    #[test]
    fn liar_is_a_component() {
        assert_eq!(Liar::default().words(ANSWER, &[1, 2]).component()[..4], *b"\0asm");
        assert_eq!(importing("wasi:sockets/tcp@0.2.6")[..4], *b"\0asm");
    }
}
