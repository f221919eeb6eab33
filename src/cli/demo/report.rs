//! What the demo says.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::Style;

use crate::cli::output::{BAD, FAINT, GOOD, HELP, PLAIN, Stream, TITLE, styled};
use crate::cli::table::{Cell, Table};

use super::caller::Outcome;
use super::cluster::Cluster;
use super::journal::Record;
use super::stage::Told;
use super::tally::{Tally, Verdict};
use super::world::{MOBILE, ORDERS, RETURNS, WEB, World, name_of};

/// Under the chapter's number.
const INDENT: &str = "   ";

/// Prints as things happen, and remembers whether all of it was as it should be.
pub(super) struct Report<'a> {
    out: &'a mut Stream,
    since: Instant,
    chapters: u32,
    clean: bool,
}

impl<'a> Report<'a> {
    /// A report to `out`.
    pub(super) fn new(out: &'a mut Stream) -> Self {
        Self { out, since: Instant::now(), chapters: 0, clean: true }
    }

    /// Whether everything so far was as it should be.
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    /// What comes, before it takes its time to start.
    pub(super) fn headline(&mut self) -> io::Result<()> {
        let title = "Strait joins Dapr clusters. Here are four of them, on loopback";
        writeln!(self.out, "{TITLE}{title}{TITLE:#}")?;
        let what = "making certificates, starting apps and a gateway for each cluster …";
        writeln!(self.out, "{}", styled(FAINT, what))?;
        self.out.flush()
    }

    /// What runs.
    pub(super) fn opening(&mut self, world: &World) -> io::Result<()> {
        let mut table = Table::new(["CLUSTER", "GATEWAY", "IS CALLED", "CALLS"]);
        for Cluster { name, places, apps, .. } in world.clusters() {
            let called: Vec<_> = apps.iter().map(|app| app.id).collect();
            let calling: Vec<_> = World::callers(name).collect();
            let [called, calling] = [called, calling].map(|ids| ids.join(", "));
            let gateway = places.ingress.to_string();
            table.row([(*name).into(), gateway.into(), called.into(), calling.into()]);
        }
        table.print(self.out)?;
        let note = "Each gateway is what `strait run` runs, from a configuration of its own. Apps and callers stand in for sidecars: mutual\n\
                    TLS with SPIFFE ids, calls on a connection that is kept, and repeated as daprd does if it breaks.";
        note.lines().try_for_each(|line| writeln!(self.out, "{}", styled(FAINT, line)))
    }

    /// A headline.
    pub(super) fn chapter(&mut self, title: &str) -> io::Result<()> {
        self.chapters += 1;
        writeln!(self.out, "\n{}", styled(TITLE, &format!("{}. {title}", self.chapters)))?;
        self.out.flush()
    }

    /// Something that is done.
    pub(super) fn happens(&mut self, what: impl Display) -> io::Result<()> {
        let at = self.since.elapsed().as_secs_f64();
        writeln!(self.out, "{INDENT}{HELP}→ {what}{HELP:#} {FAINT}[{at:.1} s]{FAINT:#}")?;
        self.out.flush()
    }

    /// One call, and what it shows.
    pub(super) fn call(&mut self, told: &Told, shows: &str) -> io::Result<()> {
        let Told { caller, app, dialled, outcome, verdict, took, repeated } = told;
        let ended = match outcome {
            Outcome::Arrived(cluster) => format!("{app} in {cluster} answers"),
            Outcome::Refused(alert) => format!("refused ({alert})"),
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Misdelivered(answer) => format!("MISDELIVERED: {answer}"),
        };
        let again =
            if *repeated == 0 { String::new() } else { format!(", repeated {repeated} ×") };
        let line = format!("{caller} calls {app} as {dialled}: {ended}, {}{again}", short(*took));
        self.verdict(*verdict != Verdict::Wrong, &line, shows)
    }

    /// Whether something is as it should be, in a line, and what it shows.
    pub(super) fn verdict(&mut self, good: bool, line: &str, shows: &str) -> io::Result<()> {
        self.clean &= good;
        let (style, mark) = mark(good);
        writeln!(self.out, "{INDENT}{style}{mark}{style:#} {}", styled(PLAIN, line))?;
        for line in shows.lines() {
            writeln!(self.out, "{INDENT}  {}", styled(FAINT, line))?;
        }
        self.out.flush()
    }

    /// What a gateway's log says.
    pub(super) fn log(&mut self, whose: &str, record: Option<&Record>) -> io::Result<()> {
        let Some(record) = record else {
            return self.verdict(false, &format!("{whose}'s log has no word of it"), "");
        };
        let fields = [
            ("id", Some(&record.id)),
            ("cluster", record.cluster.as_ref()),
            ("caller", record.caller.as_ref()),
            ("ending", Some(&record.ending)),
            ("reason", record.reason.as_ref()),
        ];
        let told = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let told: Vec<_> = told.map(|(name, value)| format!("{name}={value:?}")).collect();
        let line = format!("{whose}'s log: {}", told.join(" "));
        writeln!(self.out, "{INDENT}  {}", styled(PLAIN, &line))
    }

    /// Where to look, and what to try.
    pub(super) fn look_around(&mut self, world: &World) -> io::Result<()> {
        let program = std::env::current_exe().unwrap_or_else(|_| "strait".into());
        let (program, west) = (program.display(), world.west.admin());
        let (folder, name) = (world.folder.path().display(), name_of(ORDERS));
        let egress = world.egress_of(ORDERS).map_or_else(|_| String::new(), |it| it.to_string());
        writeln!(self.out, "\n{TITLE}Look around{TITLE:#} while it runs, from another terminal:")?;
        writeln!(self.out, "  {program} status --admin {west}")?;
        let sources = [(name, WEB.source), (egress, MOBILE.source)];
        for (target, source) in sources {
            writeln!(self.out, "  {program} explain {target} --from {source} --admin {west}")?;
        }
        writeln!(self.out, "  curl {west}/metrics")?;
        writeln!(self.out, "  tail -f {folder}/log")?;
        let returns = RETURNS.id;
        writeln!(self.out, "or let {returns} call, and call no more with `revoke`:")?;
        writeln!(self.out, "  {program} allow {returns} {ORDERS} --admin {west}")?;
        writeln!(self.out, "or take shop/web's permission away, and give it back with an editor:")?;
        writeln!(self.out, "  sed -i 's#\\[shop/web, #[#' {folder}/west/strait.yaml")?;
        let title = "Calls flow on, until Ctrl-C.";
        writeln!(self.out, "\n{TITLE}{title}{TITLE:#} How each ends, and whenever that changes:")
    }

    /// A line for each caller and app, and one for all.
    pub(super) fn summary(&mut self, rows: &[Tally], sum: &Tally) -> io::Result<()> {
        let mut table = Table::new(["CALLER", "APP", "ARRIVED", "REFUSED", "WRONG"]);
        for Tally { from, to, arrived, refused, wrong } in rows {
            let style = if *wrong == 0 { PLAIN } else { BAD };
            let cell = |text: String| Cell(style, text);
            let [arrived, refused, wrong] =
                [arrived, refused, wrong].map(|count| cell(count.to_string()));
            table.row([cell(from.clone()), cell((*to).to_owned()), arrived, refused, wrong]);
        }
        writeln!(self.out)?;
        table.print(self.out)?;
        self.clean &= sum.wrong == 0;
        let words = format!(
            "{} calls: {} arrived and {} were refused as they should, {} went wrong",
            sum.total(),
            sum.arrived,
            sum.refused,
            sum.wrong
        );
        writeln!(self.out, "{}", styled(mark(self.clean).0, &words))
    }

    /// Where to find out what was not as it should be.
    pub(super) fn left_behind(&mut self, folder: &Path) -> io::Result<()> {
        let words =
            format!("not everything was as told; files and log stay in {}", folder.display());
        writeln!(self.out, "{}", styled(BAD, &words))
    }
}

/// A time as a reader takes it in.
pub(super) fn short(took: Duration) -> String {
    let micros = took.as_micros();
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

fn mark(good: bool) -> (Style, &'static str) {
    if good { (GOOD, "✓") } else { (BAD, "✗") }
}
