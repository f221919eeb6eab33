//! The first command that anybody runs.

mod common;

use std::fs::{self, File};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use common::gateway::STRAIT;
use common::process::{Process, run, strait};
use common::{wait_for, wait_until};

#[test]
fn the_story_is_told_and_everything_is_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let output = strait(&["demo", "--calls", "200"], folder.path());
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{complaints}");
    let summary = said.lines().last().unwrap_or_default();
    assert!(summary.ends_with(" were refused as they should, 0 went wrong"), "{summary}");
    let calls: u32 = summary.split(' ').next().unwrap().parse().unwrap();
    assert!(calls >= 200, "{summary}");
    for told in [
        "shop/orders in east answers",
        "refused (unrecognized_name)",
        "cluster=\"west\" caller=\"shop/web\"",
        "refused (access_denied)",
        "shop/stock in east answers",
        "ending=\"refused_by_far\" reason=\"east: the far gateway refuses: denied by the export of shop/orders\"",
        "ending=\"denied\" reason=\"no allow rule of the export admits shop/intern of cluster north\"",
        "after the file was saved",
        "ending=\"denied\" reason=\"the allowed apps of shop/returns do not have shop/orders,",
        "strait allow shop/returns shop/orders",
        "and 5 more on its connection",
        "strait revoke shop/returns shop/orders",
        "and 5 more calls are refused",
        "ending=\"revoked\" reason=\"the caller may not call it any more\"",
        "shop/orders in east dies",
        "east's gateway dies",
        "0 were lost or misdelivered",
        "new connections go to east again",
    ] {
        assert!(said.contains(told), "no word of {told:?}: {said}");
    }
    let untouched = "on connections that are kept: 0 of these were cut or misdelivered";
    assert_eq!(said.matches(untouched).count(), 2, "{said}");
    assert_eq!(said.matches("south has taken over after").count(), 2, "{said}");
    let ids: Vec<_> =
        said.lines().filter_map(|line| line.split("id=\"").nth(1)?.get(..16)).collect();
    assert!(
        ids.len() == 5 && ids[0] != ids[1] && ids[1] == ids[2],
        "one connection, one id in both logs: {ids:?}"
    );
    assert!(!said.contains('✗') && !said.contains('\u{1b}'), "colour without a terminal: {said}");
}

/// A demo that goes on until it is interrupted, and what it has said by now.
struct Demo {
    process: Process,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = File::create(folder.path().join("said")).unwrap();
        let mut command = Command::new(STRAIT);
        // Its files are in a folder of this test's, to see that nothing of them stays.
        command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null()).stdout(said);
        Self { process: Process(command.spawn().unwrap()), folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    fn wait_for(&self, words: &str) {
        wait_until(words, || self.said().contains(words));
    }

    fn interrupt(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process.0), Signal::INT).unwrap();
        wait_for("the demo ends", || self.process.0.try_wait().unwrap())
    }
}

#[test]
fn afterwards_a_reader_may_change_a_configuration_and_sees_what_comes_of_it() {
    let mut demo = Demo::start();
    let web = "shop/web in west calls shop/orders as orders.shop.mesh.example:";
    demo.wait_for("Calls flow on");
    demo.wait_for(&format!("→ {web} answered in "));
    let said = demo.said();
    let shown = |words: &str| said.lines().find(|line| line.contains(words)).unwrap().trim();
    for command in ["allow shop/returns shop/orders --admin", "  sed ", "  tail "].map(shown) {
        let command = command.replace("tail -f", "tail");
        let ran = run(Command::new("sh").args(["-c", &command]));
        assert!(ran.status.success(), "{command}: {ran:?}");
    }
    demo.wait_for(&format!("→ {web} refused (access_denied)"));
    let returns = "shop/returns in west calls shop/orders as orders.shop.mesh.example:";
    demo.wait_for(&format!("→ {returns} answered in "));
    assert!(demo.interrupt().success(), "{}", demo.said());
    let left = fs::read_dir(demo.folder.path()).unwrap().count();
    assert_eq!(left, 1, "what it has said, and nothing else");
}
