//! What a command answers with, on standard output.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Writes `text`. The answer: whether somebody still reads; one that has seen enough, as `head` has, is no failure.
///
/// # Errors
/// It cannot be written, as to a disk that is full.
pub(crate) fn say(text: &str) -> anyhow::Result<bool> {
    write(io::stdout().lock(), text).context("standard output cannot be written")
}

fn write(mut out: impl Write, text: &str) -> io::Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing.
    struct Refuses(ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that has left is no failure; a disk that is full is one.
    #[test]
    fn only_lost_output_is_a_failure() {
        let mut taken = Vec::new();
        assert!(write(&mut taken, "text").is_ok_and(|is_read| is_read));
        assert_eq!(taken, b"text");
        assert!(write(Refuses(ErrorKind::BrokenPipe), "text").is_ok_and(|is_read| !is_read));
        let full = write(Refuses(ErrorKind::StorageFull), "text").expect_err("it is lost");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}
