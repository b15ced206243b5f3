//! The files of `[dpu.tls]`: until when the certificate is good, and who may read its key. That they fit each other was
//! checked with the config.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cellmesh_dpu::Validity;
use cellmesh_dpu::config::TlsConfig;

use super::Finding;

/// Who renews by hand should have a week for it; who does so by machine has done it by then.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: u64 = 24 * 3600;

/// Looks at the files.
pub(super) fn look(config: &TlsConfig) -> Vec<Finding> {
    let validity =
        Validity::of(config).map(|validity| judge(&config.certificate, validity, SystemTime::now()));
    let mode = fs::metadata(&config.key).map(|found| found.permissions().mode() & 0o777);
    validity.into_iter().chain(mode.ok().map(|mode| key(&config.key, mode))).collect()
}

fn judge(certificate: &Path, validity: Validity, now: SystemTime) -> Finding {
    let shown = format!("certificate {}", certificate.display());
    let remedy = "put a new one, with its key, in its place: it is taken over without a restart";
    if let Some(Ok(ahead)) = validity.from.map(|from| from.duration_since(now))
        && !ahead.is_zero()
    {
        let found = format!("{shown}: is not good for another {}", span(ahead));
        return Finding::error(found, "set the clock of this machine, or of whoever signed it");
    }
    let Some(until) = validity.until else { return Finding::ok(format!("{shown}: good for ever")) };
    match until.duration_since(now) {
        Ok(left) if left > SOON => Finding::ok(format!("{shown}: good for {}", span(left))),
        Ok(left) => Finding::warning(format!("{shown}: expires in {}", span(left)), remedy),
        Err(past) => Finding::error(format!("{shown}: expired {} ago", span(past.duration())), remedy),
    }
}

fn span(duration: Duration) -> String {
    match duration.as_secs() / DAY {
        0 => "less than a day".into(),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}

fn key(path: &Path, mode: u32) -> Finding {
    let shown = path.display();
    if mode & 0o007 == 0 {
        return Finding::ok(format!("key {shown}: not for everybody (mode {mode:o})"));
    }
    Finding::warning(
        format!("key {shown}: everybody on this machine may use it (mode {mode:o})"),
        format!("chmod 600 {shown}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days before the end it is a warning, and an error after it, or before the beginning.
    #[test]
    fn end_of_a_certificate_is_told_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
        let day = |day: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY));
        let said = |from, until| judge(Path::new("c"), Validity { from, until }, now).to_string();
        assert_eq!(said(day(1), day(1090)), "ok: certificate c: good for 90 days");
        assert_eq!(said(day(1000), None), "ok: certificate c: good for ever");
        assert!(said(None, day(1014)).starts_with("warning: certificate c: expires in 14 days; remedy: put"));
        assert!(said(None, day(1000)).starts_with("warning: certificate c: expires in less than a day"));
        assert!(
            said(None, day(999))
                .starts_with("error: certificate c: expired 1 day ago; remedy: put a new one")
        );
        assert!(
            said(day(1002), None)
                .starts_with("error: certificate c: is not good for another 2 days; remedy: set")
        );
    }

    /// A key is for its owner and group.
    #[test]
    fn key_is_not_for_everybody() {
        assert!(key(Path::new("k"), 0o640).to_string().starts_with("ok: "));
        let open = key(Path::new("k"), 0o644).to_string();
        assert_eq!(
            open,
            "warning: key k: everybody on this machine may use it (mode 644); remedy: chmod 600 k"
        );
    }
}
