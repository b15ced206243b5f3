//! Names and passwords for registries, from a file as `docker login` and its like write it.
//!
//! - Nothing of it is ever on a command line or in a message.
//! - Programs that keep passwords (`credsStore`, `credHelpers`) are not started: a daemon has nobody to unlock them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// Longest file. They have a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there are no credentials, although there is a file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("the credentials in {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{path} {why}: must be a file as `docker login` writes it, {{\"auths\": {{\"HOST\": {{\"auth\": \"...\"}}}}}}"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what it says.
        why: &'static str,
    },
}

/// A name and a password, as they are sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials(String);

impl Credentials {
    /// The value of the header `authorization`.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The file that is meant: the one that config names, else that of `docker` for this user.
pub(super) fn file(named: Option<&Path>) -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named.map(Path::to_owned).or_else(|| {
        let folder = from("DOCKER_CONFIG").or_else(|| from("HOME").map(|home| home.join(".docker")))?;
        Some(folder.join("config.json"))
    })
}

/// What the file says of `registry`. Only one that config names has to be there.
pub(super) fn find(named: Option<&Path>, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
    let Some(path) = file(named) else { return Ok(None) };
    let text = match read(&path) {
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| CredentialsError::Read { path: path.clone(), source })?,
    };
    of_registry(&text, registry).map_err(|why| CredentialsError::Form { path, why })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// What is wrong is said without a word of the text: that may be of a password.
fn of_registry(text: &[u8], registry: &str) -> Result<Option<Credentials>, &'static str> {
    let document: Document = serde_json::from_slice(text).map_err(|_| "is not JSON of that form")?;
    let entry = document.auths.into_iter().find(|(key, _)| is_key_of(key, registry));
    let Some((_, entry)) = entry else { return Ok(None) };
    if let (Some(name), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some(Credentials(format!("{name}:{password}"))));
    }
    // Without `auth` a program keeps the password.
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let pair = BASE64.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.filter(|pair| pair.contains(':'));
    Ok(Some(Credentials(pair.ok_or("has an \"auth\" that is no NAME:PASSWORD in base64")?)))
}

/// Hosts stand there alone, or in a URL.
fn is_key_of(key: &str, registry: &str) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().is_some_and(|host| host.eq_ignore_ascii_case(registry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, registry: &str) -> Result<Option<String>, &'static str> {
        Ok(of_registry(text.as_bytes(), registry)?.map(|Credentials(pair)| pair))
    }

    /// The entry of the registry is taken, port and all, whichever way it is written.
    #[test]
    fn entry_of_the_registry_is_taken() {
        let auth = BASE64.encode("ada:p:w");
        let file = format!(
            r#"{{"auths": {{"https://r.example/v1/": {{"auth": "{auth}"}}, "127.0.0.1:5000": {{"username": "a", "password": "b"}},
                "kept.example": {{}}}}, "credsStore": "desktop"}}"#
        );
        assert_eq!(found(&file, "r.example"), Ok(Some("ada:p:w".into())));
        assert_eq!(found(&file, "R.example"), Ok(Some("ada:p:w".into())));
        assert_eq!(found(&file, "127.0.0.1:5000"), Ok(Some("a:b".into())));
        for other in ["127.0.0.1", "127.0.0.1:5001", "kept.example", "example", ""] {
            assert_eq!(found(&file, other), Ok(None), "{other}");
        }
        assert_eq!(found("{}", "r.example"), Ok(None));
        assert_eq!(Credentials("a:b".into()).basic(), "Basic YTpi");
    }

    /// What is wrong is told without a word of what may be a password.
    #[test]
    fn secrets_are_in_no_message() {
        assert_eq!(found("secret", "r"), Err("is not JSON of that form"));
        for auth in ["secret!", "c2VjcmV0"] {
            let said = found(&format!(r#"{{"auths": {{"r": {{"auth": "{auth}"}}}}}}"#), "r");
            assert_eq!(said, Err("has an \"auth\" that is no NAME:PASSWORD in base64"));
        }
        assert_eq!(format!("{:?}", Credentials("a:secret".into())), "Credentials(..)");
    }

    /// A file that config names has to be there; that of a user who has none need not.
    #[test]
    fn named_file_has_to_be_there() {
        let error = find(Some(Path::new("/nowhere/config.json")), "r").expect_err("no file");
        assert_eq!(error.to_string(), "the credentials in /nowhere/config.json cannot be read");
    }
}
