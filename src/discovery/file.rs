//! The file source: sends the configuration when it starts, and again whenever its contents have changed. `watch` tells when to
//! look. Whether something has changed is decided by the contents, which are read when what the system says of the files does
//! not rule a change out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::background::{self, Urgency};
use crate::config::{self, Loaded, Problem, Reading, Stamps};
use crate::watch::{POLL, Reason, Watch};

use super::pace::Pace;

/// What a load gave.
pub type Outcome = Result<Loaded, Vec<Problem>>;

/// The configuration on disk.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    poll: Duration,
    watch: Watch,
    /// What was last sent.
    last: Option<Last>,
    /// How often something may be sent, also where an operator's script sends a storm of SIGHUP.
    pace: Pace,
}

/// What is remembered of a load.
#[derive(Debug)]
struct Last {
    fingerprint: u64,
    stamps: Stamps,
    /// YAML files and routes files.
    files: Vec<PathBuf>,
}

/// Watches a file or directory until `stop`. The first load is sent at once; after that one when the contents have changed, good
/// or bad, and when `reload` asks for it (SIGHUP). Ends also when nobody receives any more.
pub async fn watch(
    path: PathBuf,
    reload: Arc<Notify>,
    stop: CancellationToken,
    changes: mpsc::Sender<Outcome>,
) {
    let source = FileSource::new(path, POLL);
    // On the heap: it holds a whole configuration while it settles.
    stop.run_until_cancelled(Box::pin(source.run(&reload, &changes))).await;
}

impl FileSource {
    /// A source that looks at least once per `poll`.
    pub fn new(path: PathBuf, poll: Duration) -> Self {
        Self { path, poll, watch: Watch::new(poll), last: None, pace: Pace::default() }
    }

    async fn run(mut self, reload: &Notify, changes: &mpsc::Sender<Outcome>) {
        let (mut forced, mut reason) = (true, Reason::Over);
        loop {
            let outcome;
            (self, outcome) = match reason {
                Reason::Over => self.looked(forced).await,
                // On the heap: it holds the source three times.
                Reason::Replaced => Box::pin(self.looked_early(forced)).await,
            };
            if let Some(outcome) = outcome {
                self.pace.took(Instant::now());
                if changes.send(outcome).await.is_err() {
                    return;
                }
            }
            (forced, reason) = self.wait(reload).await;
            sleep_until(self.pace.earliest(Instant::now())).await;
        }
    }

    /// Looks on another thread.
    async fn looked(mut self, forced: bool) -> (Self, Option<Outcome>) {
        let (path, poll) = (self.path.clone(), self.poll);
        let urgency = if self.last.is_none() { Urgency::Start } else { Urgency::Change };
        let looked = background::run(urgency, move || {
            let outcome = self.look(forced);
            (self, outcome)
        });
        // A panic in there has been reported by the panic hook and took the source along: another one may have more luck.
        looked.await.unwrap_or_else(|_| (Self::new(path, poll), None))
    }

    /// Looks while it is not known yet whether the change is over: a million routes take longer to read than that takes to show.
    /// Only what was there when it was over is told.
    async fn looked_early(self, forced: bool) -> (Self, Option<Outcome>) {
        let calm = self.watch.calm();
        let ((source, early), followed) = tokio::join!(self.looked(forced), calm);
        if !followed {
            return (source, early);
        }
        let (source, outcome) = source.looked(false).await;
        (source, outcome.or(early))
    }

    /// Loads when it must or when contents differ from those last sent.
    fn look(&mut self, forced: bool) -> Option<Outcome> {
        let files = self.last.as_ref().map(|last| &*last.files).unwrap_or_default();
        self.watch.follow(config::directories(&self.path, files));
        if !forced && self.last.as_ref().is_some_and(|last| last.stamps.still_hold(&self.path)) {
            return None;
        }
        let Reading { outcome, fingerprint, stamps, files, routes_files, partial: _ } =
            config::read(&self.path);
        let last = Last { fingerprint, stamps, files: [files, routes_files].concat() };
        let before = self.last.as_ref();
        if before.map(|before| &before.files) != Some(&last.files) {
            // What changed in a new directory between its look and its watch is known only to a second look.
            self.watch.look_again();
        }
        let same = before.is_some_and(|before| before.fingerprint == fingerprint);
        self.last = Some(last);
        (forced || !same).then_some(outcome)
    }

    /// Returns when there is a reason to look, and whether the operator asked for it.
    async fn wait(&self, reload: &Notify) -> (bool, Reason) {
        tokio::select! {
            biased;
            () = reload.notified() => (true, Reason::Over),
            reason = self.watch.change() => (false, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use tempfile::TempDir;
    use tokio::time::timeout;

    /// Far beyond what a loaded machine needs; a test that fails takes so long, one that passes does not.
    const BOUND: Duration = Duration::from_secs(30);

    struct Running {
        changes: mpsc::Receiver<Outcome>,
        reload: Arc<Notify>,
        stop: CancellationToken,
    }

    /// Starts a source that never polls, so that only the watch can tell.
    fn start(path: &Path, poll: Duration) -> Running {
        let (sender, changes) = mpsc::channel(16);
        let running =
            Running { changes, reload: Arc::new(Notify::new()), stop: CancellationToken::new() };
        let source = FileSource::new(path.to_owned(), poll);
        let (reload, stop) = (Arc::clone(&running.reload), running.stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(Box::pin(source.run(&reload, &sender))).await
        });
        running
    }

    impl Running {
        async fn next(&mut self) -> Outcome {
            timeout(BOUND, self.changes.recv()).await.expect("a change is seen").unwrap()
        }

        async fn next_cluster(&mut self) -> String {
            self.next().await.unwrap().config.cluster.to_string()
        }

        /// Waits until this cluster's configuration comes: a change in steps may show a step.
        async fn until_cluster(&mut self, cluster: &str) {
            loop {
                if self.next().await.is_ok_and(|loaded| &*loaded.config.cluster == cluster) {
                    return;
                }
            }
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    const NEVER: Duration = Duration::from_hours(1);

    fn cluster(name: &str) -> String {
        format!("cluster: {name}\n")
    }

    async fn started(folder: &TempDir) -> (PathBuf, Running) {
        let path = folder.path().join("strait.yaml");
        fs::write(&path, cluster("one")).unwrap();
        let mut running = start(&path, NEVER);
        assert_eq!(running.next_cluster().await, "one");
        (path, running)
    }

    #[tokio::test]
    async fn a_file_written_in_place_is_seen_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut running) = started(&folder).await;
        for name in ["two", "three", "four"] {
            fs::write(&path, cluster(name)).unwrap();
            running.until_cluster(name).await;
        }
    }

    #[tokio::test]
    async fn a_file_renamed_into_place_is_seen_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut running) = started(&folder).await;
        for name in ["two", "three", "four"] {
            let beside = folder.path().join(".new");
            fs::write(&beside, cluster(name)).unwrap();
            fs::rename(&beside, &path).unwrap();
            assert_eq!(running.next_cluster().await, name);
        }
    }

    #[tokio::test]
    async fn files_renamed_one_after_the_other_are_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, text: &str| {
            fs::write(folder.path().join(".new"), text).unwrap();
            fs::rename(folder.path().join(".new"), folder.path().join(name)).unwrap();
        };
        place("a.yaml", &cluster("one"));
        place("b.yaml", "limits: { helloTimeout: 1s }");
        let mut running = start(folder.path(), NEVER);
        running.next().await.unwrap();
        let begun = Instant::now();
        place("b.yaml", "limits: { helloTimeout: 2s }");
        // The first look has seen the first of them by now.
        tokio::time::sleep(Duration::from_millis(10)).await;
        place("a.yaml", &cluster("two"));
        let placed = begun.elapsed();
        let loaded = running.next().await.unwrap();
        assert_eq!(loaded.config.settings.limits.hello_timeout, Duration::from_secs(2));
        // Unless the machine held this test up for longer than a change rests.
        let one = &*loaded.config.cluster == "two";
        assert!(one || placed > Duration::from_millis(40), "{placed:?}");
    }

    #[tokio::test]
    async fn a_deleted_file_is_an_error_until_it_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut running) = started(&folder).await;
        fs::remove_file(&path).unwrap();
        assert_eq!(running.next().await.unwrap_err().len(), 1);
        fs::write(&path, cluster("one")).unwrap();
        running.until_cluster("one").await;
    }

    #[tokio::test]
    async fn a_config_map_is_followed_through_its_swaps() {
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str| {
            let version = folder.path().join(format!("..{name}"));
            fs::create_dir(&version).unwrap();
            fs::write(version.join("strait.yaml"), cluster(name)).unwrap();
            let link = folder.path().join("..data_tmp");
            symlink(format!("..{name}"), &link).unwrap();
            fs::rename(&link, folder.path().join("..data")).unwrap();
        };
        version("one");
        let path = folder.path().join("strait.yaml");
        symlink("..data/strait.yaml", &path).unwrap();
        let mut running = start(&path, NEVER);
        assert_eq!(running.next_cluster().await, "one");
        for (name, old) in [("two", "..one"), ("three", "..two"), ("four", "..three")] {
            version(name);
            fs::remove_dir_all(folder.path().join(old)).unwrap();
            assert_eq!(running.next_cluster().await, name);
        }
    }

    #[tokio::test]
    async fn a_routes_file_in_another_folder_is_watched_too() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = other.path().join("names.map");
        fs::write(&names, "a.example 10.0.0.1:1\n").unwrap();
        let path = folder.path().join("strait.yaml");
        fs::write(&path, format!("cluster: one\nroutesFiles: [{}]\n", names.display())).unwrap();
        let mut running = start(&path, NEVER);
        let routes = |loaded: &Loaded| loaded.config.routes.files[0].routes;
        assert_eq!(routes(&running.next().await.unwrap()), 1);
        fs::write(other.path().join("new"), "a.example 10.0.0.1:1\nb.example 10.0.0.1:1\n")
            .unwrap();
        fs::rename(other.path().join("new"), &names).unwrap();
        assert_eq!(routes(&running.next().await.unwrap()), 2);
    }

    #[tokio::test]
    async fn a_file_added_to_a_directory_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("clusters.d")).unwrap();
        fs::write(folder.path().join("a.yaml"), cluster("one")).unwrap();
        let mut running = start(folder.path(), NEVER);
        running.next().await.unwrap();
        fs::write(folder.path().join(".new"), "limits: { helloTimeout: 1s }").unwrap();
        fs::rename(folder.path().join(".new"), folder.path().join("clusters.d/b.yml")).unwrap();
        let loaded = running.next().await.unwrap();
        assert_eq!(loaded.config.settings.limits.hello_timeout, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_bad_change_is_told_once_and_a_good_one_heals() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut running) = started(&folder).await;
        let place = |text: &str| {
            fs::write(folder.path().join(".new"), text).unwrap();
            fs::rename(folder.path().join(".new"), &path).unwrap();
        };
        place("cluster: [");
        assert!(running.next().await.is_err());
        place("cluster: [");
        place(&cluster("one"));
        assert_eq!(running.next_cluster().await, "one");
    }

    #[tokio::test]
    async fn a_reload_sends_what_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (_path, mut running) = started(&folder).await;
        running.reload.notify_one();
        assert_eq!(running.next_cluster().await, "one");
    }

    #[tokio::test]
    async fn polling_sees_what_no_watch_does_and_only_changes() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("target");
        fs::write(&target, cluster("one")).unwrap();
        let path = folder.path().join("strait.yaml");
        symlink(&target, &path).unwrap();
        let mut running = start(&path, Duration::from_millis(20));
        assert_eq!(running.next_cluster().await, "one");
        fs::write(elsewhere.path().join("new"), cluster("two")).unwrap();
        fs::rename(elsewhere.path().join("new"), &target).unwrap();
        // Any look in between that sent without a change would show here as another "one".
        assert_eq!(running.next_cluster().await, "two");
    }
}
