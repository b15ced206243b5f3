//! The rules that the host checks in every answer, whatever its shape.

use anyhow::{Context, Result, ensure};

use super::Seen;

impl Seen {
    /// A header of an answer: a lower-case token and a value on one line.
    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        ensure!(!name.is_empty() && name.iter().all(|&b| is_token(b)), "bad header name");
        ensure!(!value.iter().any(|b| b"\r\n\0".contains(b)), "bad header value");
        self.headers += 1;
        self.bytes += name.len() + value.len();
        Ok(())
    }

    /// A text of an answer: a method, an address, an id.
    pub(super) fn text(&mut self, text: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(text).context("bad UTF-8")?;
        ensure!((1..=1024).contains(&text.len()), "bad length of a text");
        self.bytes += text.len();
        Ok(())
    }

    /// A body; any bytes.
    pub(super) fn body(&mut self, body: &[u8]) {
        self.bytes += body.len();
    }

    /// A status of a response.
    pub(super) fn status(&mut self, status: u32) -> Result<()> {
        ensure!((200..600).contains(&status), "bad status");
        self.status = u16::try_from(status)?;
        Ok(())
    }
}

/// Checks that a graph is a tree: each node but the root is the child of exactly one.
pub(super) struct Tree {
    has_parent: Vec<bool>,
}

impl Tree {
    pub(super) fn new(nodes: usize, root: u32) -> Result<Self> {
        let mut tree = Self { has_parent: vec![false; nodes] };
        tree.child(root)?;
        Ok(tree)
    }

    pub(super) fn child(&mut self, child: u32) -> Result<()> {
        let seen = self.has_parent.get_mut(child as usize).context("unknown child")?;
        ensure!(!std::mem::replace(seen, true), "two parents");
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        ensure!(self.has_parent.iter().all(|&seen| seen), "a node without a parent");
        Ok(())
    }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph that is no tree is refused.
    #[test]
    fn only_trees_are_graphs() {
        let tree = |children: &[u32]| {
            let mut tree = Tree::new(3, 0)?;
            children.iter().try_for_each(|&child| tree.child(child))?;
            tree.finish()
        };
        assert!(tree(&[1, 2]).is_ok());
        assert!(tree(&[1]).is_err(), "a node without a parent");
        assert!(tree(&[1, 1, 2]).is_err(), "two parents");
        assert!(tree(&[0, 1, 2]).is_err(), "the root as a child");
        assert!(tree(&[1, 2, 3]).is_err(), "an unknown child");
    }

    /// What could split a header in two is refused.
    #[test]
    fn headers_are_checked() {
        let header = |name: &[u8], value: &[u8]| Seen::default().header(name, value);
        assert!(header(b"x-a", b"b \xff").is_ok());
        for (name, value) in [(&b"X-A"[..], &b"b"[..]), (b"", b"b"), (b"x a", b"b"), (b"x-a", b"b\r\nc: d")] {
            assert!(header(name, value).is_err());
        }
    }
}
