//! What a cell may import. Everything else is refused when it is loaded, with the import's name.

use super::cell::Grants;

/// Interfaces that every cell may use: they give time, randomness, the log and the cell's own config.
const ALWAYS: [&str; 6] = [
    "cellmesh:cell/config@0.2.",
    "cellmesh:cell/types@0.2.",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:io/",
    "wasi:random/",
];

/// The file system: types are harmless without a preopened folder, and Rust's standard library imports
/// them whether or not the cell opens files; there is a folder only where one was granted.
const FILES: &str = "wasi:filesystem/";

/// The first import that a cell with `grants` may not have.
pub(super) fn first_forbidden<'a>(
    mut imports: impl Iterator<Item = &'a str>,
    grants: &Grants,
) -> Option<&'a str> {
    imports.find(|name| !allowed(name, grants))
}

fn allowed(name: &str, _grants: &Grants) -> bool {
    ALWAYS.iter().any(|prefix| name.starts_with(prefix)) || name.starts_with(FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sockets, HTTP and unknown interfaces are not for cells; the name of the import is the message.
    #[test]
    fn network_is_refused_by_name() {
        let imports = ["wasi:clocks/monotonic-clock@0.2.6", "wasi:sockets/tcp@0.2.6"];
        assert_eq!(first_forbidden(imports.into_iter(), &Grants::default()), Some("wasi:sockets/tcp@0.2.6"));
    }

    /// A prefix is a whole interface namespace: no look-alike passes.
    #[test]
    fn look_alikes_are_refused() {
        for name in ["wasi:clocksx/now", "cellmesh:cell/config@0.1.0", "evil:wasi:io/streams"] {
            assert_eq!(first_forbidden([name].into_iter(), &Grants::default()), Some(name));
        }
    }
}
