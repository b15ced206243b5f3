//! What a component is, without compiling it: whether it is valid, what it imports, and whether it is a cell.
//!
//! - cost: one pass over its bytes, a thousandth of compiling it.
//! - Types of imports and exports are not compared here; a cell that is loaded shows them ([`super::Cell::load`]).

use wasmparser::{Encoding, Parser, Payload, Validator};

use super::cell::Grants;
use super::imports;

/// Source: the WebAssembly specification, "Modules".
const MAGIC: &[u8] = b"\0asm";

/// What a cell exports, as `wit/cell.wit` says.
const HANDLER: &str = "cellmesh:cell/handler@0.2.0";

/// Why a component is no cell.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is something else.
    #[error("is no WebAssembly component: {0}")]
    NoComponent(String),
    /// It imports what cells do not get.
    #[error("imports {0}")]
    Import(String),
    /// It exports no handler.
    #[error("does not export {HANDLER}")]
    NoHandler,
}

/// Looks at a component that is to run with `grants`.
///
/// # Errors
/// [`Unfit`]: the first thing that is wrong.
pub fn inspect(component: &[u8], grants: &Grants) -> Result<(), Unfit> {
    if !component.starts_with(MAGIC) {
        return Err(Unfit::NoComponent("it does not begin as WebAssembly does, with \\0asm".into()));
    }
    let no_component = |error: wasmparser::BinaryReaderError| Unfit::NoComponent(error.to_string());
    Validator::new().validate_all(component).map_err(no_component)?;
    let (mut imports, mut has_handler, mut depth) = (Vec::new(), false, 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(no_component)?;
        if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } = payload {
            depth += 1;
        } else if let Payload::End(_) = payload {
            depth = depth.saturating_sub(1);
        } else if depth > 0 {
            continue; // of a part of it
        } else if let Payload::Version { encoding: Encoding::Module, .. } = payload {
            return Err(Unfit::NoComponent("it is a core module".into()));
        } else if let Payload::ComponentImportSection(section) = payload {
            for import in section {
                imports.push(import.map_err(no_component)?.name.name);
            }
        } else if let Payload::ComponentExportSection(section) = payload {
            for export in section {
                has_handler |= export.map_err(no_component)?.name.name == HANDLER;
            }
        }
    }
    if let Some(import) = imports::first_forbidden(imports.into_iter(), grants) {
        return Err(Unfit::Import(import.to_owned()));
    }
    if has_handler { Ok(()) } else { Err(Unfit::NoHandler) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    /// `(component (import NAME (instance)))` in the binary format, with exports of that instance by these names.
    fn importing(name: &str, exports: &[&str]) -> Vec<u8> {
        let section = |id: u8, content: Vec<u8>| {
            [vec![id, u8::try_from(content.len()).expect("short")], content].concat()
        };
        let text = |name: &str| {
            [vec![0, u8::try_from(name.len()).expect("short")], name.as_bytes().to_vec()].concat()
        };
        let types = section(7, vec![1, 0x42, 0]);
        let imports = section(10, [vec![1], text(name), vec![5, 0]].concat());
        let exports = exports.iter().map(|name| section(11, [vec![1], text(name), vec![5, 0, 0]].concat()));
        [COMPONENT.to_vec(), types, imports, exports.flatten().collect()].concat()
    }

    /// What is no component is told from one that may not have what it wants, and from one that is no cell.
    #[test]
    fn unfit_components_are_told_apart() {
        let inspect = |bytes: &[u8]| inspect(bytes, &Grants::default());
        for bytes in [&b""[..], b"no component", b"\0asm\x0d\0\x01\0\xff"] {
            assert!(matches!(inspect(bytes), Err(Unfit::NoComponent(_))), "{bytes:?}");
        }
        let module = inspect(b"\0asm\x01\0\0\0").expect_err("a core module").to_string();
        assert_eq!(module, "is no WebAssembly component: it is a core module");
        let sockets = importing("wasi:sockets/tcp@0.2.6", &[HANDLER]);
        assert_eq!(inspect(&sockets), Err(Unfit::Import("wasi:sockets/tcp@0.2.6".into())));
        let clocks = "wasi:clocks/monotonic-clock@0.2.6";
        assert_eq!(inspect(&importing(clocks, &[])), Err(Unfit::NoHandler));
        assert_eq!(inspect(&importing(clocks, &["cellmesh:cell/handler@0.1.0"])), Err(Unfit::NoHandler));
        assert_eq!(inspect(&importing(clocks, &[HANDLER])), Ok(()));
    }
}
