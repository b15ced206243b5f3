//! Shape B: one byte encoding in and out. `bench/guests/bytes` describes it.

use anyhow::{Context, Result, bail};
use wasmtime::Engine;

use super::rules::Tree;
use super::{Request, Seen, Shape};
use crate::guest::{self, Guest, State};

#[allow(unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({ path: "guests/bytes/wit", world: "cell" });
}

pub(super) struct Bytes {
    store: wasmtime::Store<State>,
    cell: bindings::Cell,
    /// The encoded request; kept, so that a call allocates nothing for it.
    request: Vec<u8>,
}

impl Bytes {
    pub(super) fn load(engine: &Engine) -> Result<Self> {
        let Guest { mut store, component, linker } = Guest::load(engine, "bytes")?;
        let cell = bindings::Cell::instantiate(&mut store, &component, &linker)?;
        Ok(Self { store, cell, request: Vec::new() })
    }
}

impl Shape for Bytes {
    fn nothing(&mut self) -> Result<()> {
        guest::arm(&mut self.store);
        Ok(self.cell.call_nothing(&mut self.store)?)
    }

    fn handle(&mut self, request: &Request<'_>) -> Result<Seen> {
        guest::arm(&mut self.store);
        write_request(&mut self.request, request)?;
        let answer = self.cell.call_handle(&mut self.store, &self.request)?;
        let mut reader = Reader(&answer);
        let mut seen = Seen::default();
        match reader.number()? {
            0 => see_response(&mut seen, &mut reader)?,
            1 => see_graph(&mut seen, &mut reader)?,
            _ => bail!("unknown kind of answer"),
        }
        Ok(seen)
    }
}

fn write_request(out: &mut Vec<u8>, request: &Request<'_>) -> Result<()> {
    out.clear();
    write_text(out, request.method.as_bytes())?;
    write_text(out, request.target.as_bytes())?;
    write_number(out, request.headers.len())?;
    for (name, value) in request.headers {
        write_text(out, name.as_bytes())?;
        write_text(out, value)?;
    }
    write_text(out, request.body)
}

fn write_number(out: &mut Vec<u8>, number: usize) -> Result<()> {
    out.extend_from_slice(&u32::try_from(number)?.to_le_bytes());
    Ok(())
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    write_number(out, text.len())?;
    out.extend_from_slice(text);
    Ok(())
}

fn see_response(seen: &mut Seen, reader: &mut Reader<'_>) -> Result<()> {
    seen.status(reader.number()?)?;
    see_headers(seen, reader)?;
    seen.body(reader.text()?);
    Ok(())
}

/// The children come before the root does: they are checked when it is known.
fn see_graph(seen: &mut Seen, reader: &mut Reader<'_>) -> Result<()> {
    seen.nodes = reader.number()? as usize;
    let mut children = Vec::new();
    for _ in 0..seen.nodes {
        seen.text(reader.text()?)?;
        let kind = reader.number()?;
        for _ in 0..reader.number()? {
            match kind {
                0 => children.push(reader.number()?),
                1 => see_request(seen, reader)?,
                _ => bail!("unknown kind of node"),
            }
        }
    }
    let mut tree = Tree::new(seen.nodes, reader.number()?)?;
    children.into_iter().try_for_each(|child| tree.child(child))?;
    tree.finish()
}

fn see_request(seen: &mut Seen, reader: &mut Reader<'_>) -> Result<()> {
    seen.text(reader.text()?)?;
    seen.text(reader.text()?)?;
    see_headers(seen, reader)?;
    seen.body(reader.text()?);
    Ok(())
}

fn see_headers(seen: &mut Seen, reader: &mut Reader<'_>) -> Result<()> {
    for _ in 0..reader.number()? {
        seen.header(reader.text()?, reader.text()?)?;
    }
    Ok(())
}

/// Reads what a guest wrote: every length is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>().context("the answer is cut off")?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let len = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(len).context("the answer is cut off")?;
        self.0 = rest;
        Ok(text)
    }
}
