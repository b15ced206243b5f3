//! `[registry]`: how registries are spoken to that cells come from.
//!
//! ```toml
//! [registry]
//! plain_http = ["registry.shop:5000"]     # without TLS; default: those at loopback
//! credentials = "docker/config.json"      # relative to this file; default: that of this user
//! ca = "tls/ca.pem"                       # default: the CAs of the system
//! ```

use std::path::Path;

use cellmesh_dpu::egress::trust::Cas;

use super::reader::{Source, Table};
use crate::host::RegistrySettings;

/// Reads the section, if it is there.
///
/// - `are_read`: whether the files that it names are looked at; only where cells are.
pub(super) fn read(
    source: &mut Source<'_>,
    root: &mut Table<'_, '_>,
    folder: &Path,
    are_read: bool,
) -> RegistrySettings {
    let mut settings = RegistrySettings::default();
    let Some(mut table) = root.table(source, "registry") else { return settings };
    settings.plain_http = table.text_list(source, "plain_http");
    settings.credentials = table.text(source, "credentials").map(|file| folder.join(file));
    if let Some(file) = settings.credentials.as_ref().filter(|file| are_read && !file.is_file()) {
        let line = table.line_of_key(source, "credentials");
        let right = "name a file as `docker login` writes it, relative to this one";
        source.note(line, table.path("credentials"), format!("there is no file {}", file.display()), right);
    }
    if let Some(file) = table.text(source, "ca").filter(|_| are_read) {
        let file = folder.join(file);
        settings.cas = Cas::load(&file)
            .map_err(|error| {
                let line = table.line_of_key(source, "ca");
                let right = "name a PEM file with the certificates of CAs, relative to this one";
                source.note(line, table.path("ca"), format!("{} {error}", file.display()), right);
            })
            .ok();
    }
    table.finish(source);
    settings
}
