//! Notices that a file may say something else than before.
//!
//! - The folder is watched, not the file: editors put a new file in its place, and a ConfigMap of Kubernetes is a link to a
//!   folder that another takes the place of. So changes beside the file are noticed too; whoever asks looks at the text.
//! - Reading is no change: without that rule each look would lead to the next.

use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A file is looked at when its folder has been quiet for so long: whoever writes it has probably finished.
const QUIET: Duration = Duration::from_millis(100);
/// It is looked at after this long in any case: other files of the folder may change all the time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file under watch.
pub(super) struct FileWatch {
    /// Ends the watch when it is dropped.
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    /// When the first change came that nobody was told of yet.
    since: Option<Instant>,
}

impl FileWatch {
    /// # Errors
    /// When the folder of `file` cannot be watched.
    pub(super) fn of(file: &Path) -> notify::Result<Self> {
        let (told, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if is_only_read(event.kind) => {}
            Ok(_) => tell(&told),
            Err(error) => {
                tracing::warn!(%error, "changes of the config file may go unnoticed; SIGHUP reads it");
                tell(&told);
            }
        })?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher, changes, since: None })
    }

    /// Ready when something in the folder has changed, and nothing more has for a while. Who drops it before misses nothing.
    pub(super) async fn changed(&mut self) {
        if self.since.is_none() {
            if self.changes.recv().await.is_none() {
                // Nobody watches any more; only a signal can tell.
                return std::future::pending().await;
            }
            self.since = Some(Instant::now());
        }
        let latest = self.since.map_or_else(Instant::now, |since| since + PATIENCE);
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            match timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.since = None;
    }
}

fn tell(told: &mpsc::Sender<()>) {
    // One that waits to be seen stands for all that come until then.
    let _ = told.try_send(());
}

fn is_only_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const HANG: Duration = Duration::from_secs(60);

    async fn noticed(watch: &mut FileWatch) {
        tokio::time::timeout(HANG, watch.changed()).await.expect("the change is noticed");
    }

    /// Written in place, replaced, and as a ConfigMap is: a link to a folder that is swapped.
    #[tokio::test]
    async fn changes_of_all_kinds_are_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..1")).and_then(|()| fs::create_dir(at("..2"))).expect("writable");
        for version in ["..1/app.toml", "..2/app.toml"] {
            fs::write(at(version), version).expect("writable");
        }
        symlink("..1", at("..data"))
            .and_then(|()| symlink("..data/app.toml", at("app.toml")))
            .expect("writable");
        let mut watch = FileWatch::of(&at("app.toml")).expect("a watch");
        symlink("..2", at("..data_tmp")).expect("writable");
        fs::rename(at("..data_tmp"), at("..data")).expect("writable");
        noticed(&mut watch).await;
        assert_eq!(fs::read_to_string(at("app.toml")).expect("readable"), "..2/app.toml");
        fs::remove_file(at("app.toml")).and_then(|()| fs::write(at("app.toml"), "3")).expect("writable");
        noticed(&mut watch).await;
        fs::write(at("new"), "4").and_then(|()| fs::rename(at("new"), at("app.toml"))).expect("writable");
        noticed(&mut watch).await;
    }

    /// Who waits for something else too, and was called away, hears of the change all the same.
    #[tokio::test]
    async fn waiting_may_be_broken_off() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("app.toml");
        let mut watch = FileWatch::of(&file).expect("a watch");
        fs::write(&file, "1").expect("writable");
        while watch.since.is_none() {
            // Too short for it to be quiet, unless the machine stands still: then there is nothing to break off.
            if tokio::time::timeout(QUIET / 4, watch.changed()).await.is_ok() {
                return;
            }
        }
        noticed(&mut watch).await;
        assert_eq!(watch.since, None);
    }

    /// A look at the file is not what it looks for.
    #[test]
    fn reading_is_no_change() {
        use notify::event::ModifyKind;
        assert!(is_only_read(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(is_only_read(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(!is_only_read(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(!is_only_read(EventKind::Modify(ModifyKind::Any)));
    }
}
