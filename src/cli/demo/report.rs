//! What the demo says.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Instant;

use crate::cli::output::{BAD, GOOD, HELP, PLAIN, Stream, TITLE, styled};
use crate::cli::table::{Cell, Table};

use super::caller::Outcome;
use super::certificates::spiffe_id;
use super::cluster::{Cluster, name_of};
use super::story::{Planned, Story, Told};

/// Prints as things happen and counts for the summary.
pub(super) struct Report<'a> {
    out: &'a mut Stream,
    since: Instant,
    tallies: Vec<Tally>,
}

/// The calls of one caller to one app.
struct Tally {
    from: String,
    to: String,
    arrived: u32,
    refused: u32,
    wrong: u32,
}

impl<'a> Report<'a> {
    /// A report to `out`.
    pub(super) fn new(out: &'a mut Stream) -> Self {
        Self { out, since: Instant::now(), tallies: Vec::new() }
    }

    /// Whether every call so far ended as it should.
    pub(super) fn is_clean(&self) -> bool {
        self.tallies.iter().all(|tally| tally.wrong == 0)
    }

    /// What runs, and where to look.
    pub(super) fn opening(&mut self, story: &Story) -> io::Result<()> {
        let folder = story.folder.path().display();
        writeln!(self.out, "{TITLE}Two clusters on loopback{TITLE:#}, their files in {folder}")?;
        for cluster in [&story.west, &story.east] {
            self.cluster(cluster)?;
        }
        let program = std::env::current_exe().unwrap_or_else(|_| "strait".into());
        let (program, admin) = (program.display(), &story.east.admin);
        let name = story.east.apps().next().map_or_else(String::new, |app| name_of(app.id));
        writeln!(self.out, "{TITLE}Look around{TITLE:#} from another terminal while it runs:")?;
        writeln!(self.out, "  {program} status --admin {admin}")?;
        writeln!(self.out, "  {program} explain {name} --from 127.66.0.66 --admin {admin}")?;
        writeln!(self.out, "  curl {admin}/metrics")?;
        writeln!(
            self.out,
            "or change one of the files: it is in force at once, until the demo writes it again.\n"
        )
    }

    fn cluster(&mut self, cluster: &Cluster) -> io::Result<()> {
        let name = cluster.layout.name;
        writeln!(self.out, "{TITLE}{name}{TITLE:#}")?;
        writeln!(self.out, "  gateway        {}", cluster.ingress)?;
        writeln!(self.out, "  admin          {}", cluster.admin)?;
        writeln!(self.out, "  configuration  {}", cluster.file.display())?;
        for app in cluster.apps() {
            let id = spiffe_id(app.id);
            writeln!(self.out, "  app            {:14} {}  {id}", app.id, app.address)?;
        }
        Ok(())
    }

    /// One call.
    pub(super) fn call(&mut self, told: &Told) -> io::Result<()> {
        let (style, words) = match (&told.outcome, told.as_it_should) {
            (Outcome::Arrived(answer), true) => (GOOD, format!("arrived: {answer}")),
            (Outcome::Refused(alert), true) => (GOOD, format!("refused, as it should be: {alert}")),
            (Outcome::Arrived(answer), false) => (BAD, format!("ARRIVED WRONGLY: {answer}")),
            (Outcome::Refused(alert), false) => (BAD, format!("REFUSED WRONGLY: {alert}")),
            (Outcome::Failed(reason), _) => (BAD, format!("FAILED: {reason}")),
        };
        let Planned { caller, target, app, .. } = told.planned;
        let (at, target, took) = (self.elapsed(), target.name(), told.took.as_micros());
        self.count(told);
        writeln!(
            self.out,
            "{at}  {caller} ({source}) → {app} in {target}  {style}{words}{style:#}  {millis}.{tenths} ms",
            source = caller.source,
            millis = took / 1000,
            tenths = took % 1000 / 100,
        )
    }

    /// Something between calls.
    pub(super) fn happened(&mut self, what: impl Display) -> io::Result<()> {
        let at = self.elapsed();
        writeln!(self.out, "{at}  {HELP}{what}{HELP:#}")
    }

    /// A line for each caller and app, and one for all.
    pub(super) fn summary(&mut self) -> io::Result<()> {
        let mut table = Table::new(["CALLER", "APP", "ARRIVED", "REFUSED", "WRONG"]);
        for Tally { from, to, arrived, refused, wrong } in &self.tallies {
            let style = if *wrong == 0 { PLAIN } else { BAD };
            let cell = |text: String| Cell(style, text);
            let numbers = [arrived, refused, wrong].map(|count| cell(count.to_string()));
            let [arrived, refused, wrong] = numbers;
            table.row([cell(from.clone()), cell(to.clone()), arrived, refused, wrong]);
        }
        writeln!(self.out)?;
        table.print(self.out)?;
        let sum = |count: fn(&Tally) -> u32| self.tallies.iter().map(count).sum::<u32>();
        let (arrived, refused) = (sum(|tally| tally.arrived), sum(|tally| tally.refused));
        let wrong = sum(|tally| tally.wrong);
        let total = arrived + refused + wrong;
        let words = format!(
            "{total} calls: {arrived} arrived and {refused} were refused as they should, {wrong} went wrong"
        );
        let style = if wrong == 0 { GOOD } else { BAD };
        writeln!(self.out, "{}", styled(style, &words))
    }

    fn count(&mut self, told: &Told) {
        let Planned { caller, target, app, .. } = told.planned;
        let (from, to) = (caller.to_string(), format!("{app} in {}", target.name()));
        let known = self.tallies.iter().position(|tally| tally.from == from && tally.to == to);
        let at = known.unwrap_or(self.tallies.len());
        if known.is_none() {
            self.tallies.push(Tally { from, to, arrived: 0, refused: 0, wrong: 0 });
        }
        if let Some(tally) = self.tallies.get_mut(at) {
            match (told.as_it_should, told.should_arrive) {
                (false, _) => tally.wrong += 1,
                (true, true) => tally.arrived += 1,
                (true, false) => tally.refused += 1,
            }
        }
    }

    /// Seconds since the start.
    fn elapsed(&self) -> String {
        format!("{:7.3}", self.since.elapsed().as_secs_f64())
    }
}
