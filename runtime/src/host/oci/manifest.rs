//! Manifests: what an artifact is made of. Pure.
//!
//! ```text
//! manifest  application/vnd.oci.image.manifest.v1+json
//!   config    application/vnd.wasm.config.v0+json      what it is for, not read here
//!   layer     application/wasm                         the component, the only one
//! ```
//!
//! - Whoever calls this has compared the bytes with their digest: what is wrong here was pushed so.

use serde::Deserialize;

use super::digest::Digest;

/// The media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";

/// Why a manifest is none of a cell.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("the manifest is no OCI image manifest: {0}")]
    NotOne(String),
    /// A part of it, or itself, is of another kind.
    #[error("the {part} has the media type {found:?}: must be {right:?}")]
    MediaType {
        /// Which part.
        part: &'static str,
        /// Its type.
        found: String,
        /// What it has to be.
        right: &'static str,
    },
    /// A component is one file.
    #[error("the manifest has {found} layers: must be 1, the component")]
    Layers {
        /// How many there are.
        found: usize,
    },
    /// The layer has no name that could be checked.
    #[error("the digest {found:?} of the layer {why}")]
    Digest {
        /// As it is written.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is not even asked for.
    #[error("the component has {found} bytes: at most {max} are compiled")]
    TooLarge {
        /// Its size, as the manifest says it.
        found: u64,
        /// The limit.
        max: usize,
    },
}

/// The one layer of a cell's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) bytes: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// The component that the manifest `bytes` names.
///
/// - `component_bytes_max`: longest component.
pub(super) fn layer(bytes: &[u8], component_bytes_max: usize) -> Result<Layer, ManifestError> {
    media_type_of(bytes)?;
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::NotOne(error.to_string()))?;
    is_right("manifest", document.media_type.as_deref().unwrap_or(MANIFEST), MANIFEST)?;
    is_right("config", &document.config.media_type, CONFIG)?;
    let [layer] = &document.layers[..] else {
        return Err(ManifestError::Layers { found: document.layers.len() });
    };
    is_right("layer", &layer.media_type, LAYER)?;
    let digest = layer.digest.parse();
    let digest = digest.map_err(|why| ManifestError::Digest { found: layer.digest.clone(), why })?;
    let too_large = ManifestError::TooLarge { found: layer.size, max: component_bytes_max };
    let bytes = usize::try_from(layer.size).ok().filter(|bytes| *bytes <= component_bytes_max);
    Ok(Layer { digest, bytes: bytes.ok_or(too_large)? })
}

/// An index of several manifests has neither config nor layers: it is told by its type, before they are missed.
fn media_type_of(bytes: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    match serde_json::from_slice(bytes) {
        Ok(Typed { media_type: Some(found) }) => is_right("manifest", &found, MANIFEST),
        _ => Ok(()),
    }
}

fn is_right(part: &'static str, found: &str, right: &'static str) -> Result<(), ManifestError> {
    if found == right {
        return Ok(());
    }
    Err(ManifestError::MediaType { part, found: found.to_owned(), right })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": Digest::of(b"{}").to_string(), "size": 2 },
            "layers": [{ "mediaType": LAYER, "digest": Digest::of(b"cell").to_string(), "size": 4 }],
        })
    }

    fn read(manifest: &Value) -> Result<Layer, ManifestError> {
        layer(manifest.to_string().as_bytes(), 1000)
    }

    fn with(pointer: &str, value: Value) -> String {
        let mut manifest = good();
        *manifest.pointer_mut(pointer).expect("a part of the manifest") = value;
        read(&manifest).expect_err("refused").to_string()
    }

    /// The layer of a cell is found, whether or not the manifest says what it is.
    #[test]
    fn layer_of_a_cell_is_found() {
        let expected = Layer { digest: Digest::of(b"cell"), bytes: 4 };
        assert_eq!(read(&good()), Ok(expected));
        let mut silent = good();
        silent.as_object_mut().expect("an object").remove("mediaType");
        assert_eq!(read(&silent), Ok(expected));
    }

    /// Each part has to be what it is for a cell; the error names the part, what it is and what it has to be.
    #[test]
    fn other_artifacts_are_refused() {
        let index = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] });
        let said = read(&index).expect_err("an index").to_string();
        assert!(
            said.starts_with("the manifest has the media type \"application/vnd.oci.image.index"),
            "{said}"
        );
        let image = "application/vnd.oci.image.config.v1+json";
        let said = with("/config/mediaType", json!(image));
        assert_eq!(said, format!("the config has the media type {image:?}: must be {CONFIG:?}"));
        let said = with("/layers/0/mediaType", json!("application/gzip"));
        assert_eq!(said, format!("the layer has the media type \"application/gzip\": must be {LAYER:?}"));
        assert_eq!(with("/layers", json!([])), "the manifest has 0 layers: must be 1, the component");
        let two = json!([good()["layers"][0], good()["layers"][0]]);
        assert_eq!(with("/layers", two), "the manifest has 2 layers: must be 1, the component");
        assert!(
            with("/layers/0/digest", json!("sha512:00")).contains("\"sha512:00\" of the layer has the alg")
        );
        assert!(with("/layers/0/size", json!(-1)).starts_with("the manifest is no OCI image manifest"));
        assert!(layer(b"<html>", 1000).expect_err("no JSON").to_string().contains("no OCI image manifest"));
    }

    /// What is too long is refused before it is asked for.
    #[test]
    fn long_component_is_refused() {
        assert_eq!(
            with("/layers/0/size", json!(1001)),
            "the component has 1001 bytes: at most 1000 are compiled"
        );
        assert!(with("/layers/0/size", json!(u64::MAX)).contains("at most 1000"));
    }
}
