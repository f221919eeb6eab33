//! `strait status`: what a running gateway says of itself.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::admin::status::{
    CertificateStatus, ConfigStatus, EgressStatus, EndpointStatus, LimitStatus, LinkStatus,
    ListenerStatus, RefusalStatus, RejectedDocument, RouteStatus, SourceStatus, Status, moment,
};

use super::client::{Admin, Answer, ClientError, get};
use super::output::{BAD, FAINT, GOOD, HELP, Out, PLAIN, TITLE, WARNING, styled};
use super::table::{Cell, Table};
use super::{Failed, Outcome};

/// For the whole answer. A gateway with a million routes takes a moment to count.
const ANSWER: Duration = Duration::from_secs(10);
/// For a probe, whose own time limit is a few seconds as a rule.
const PROBE: Duration = Duration::from_secs(2);

/// A gateway to ask, and how to tell what it says.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  strait status
  strait status --admin unix:/run/strait/admin.sock --json
  strait status --ready && echo takes connections

Exit codes:
  0  the gateway has answered; with --ready: and it wants connections
  1  it cannot be reached; with --ready: or it does not want connections
  2  the command line is wrong")]
pub struct StatusArguments {
    #[command(flatten)]
    admin: super::AdminArgument,
    /// Prints everything as JSON, for programs
    #[arg(long)]
    json: bool,
    /// Prints nothing on standard output: the exit code says whether the gateway wants connections. For probes
    #[arg(long, conflicts_with = "json")]
    ready: bool,
}

/// Asks and tells.
pub(super) async fn status(arguments: &StatusArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let admin = &arguments.admin.admin()?;
    if arguments.ready {
        return ready(admin, out).await;
    }
    let body = success(admin, get(admin, "/status", ANSWER).await?)?;
    let wrong = |error: serde_json::Error| {
        let reason = format!("{error}. Another version? --json shows the answer as it is");
        ClientError::Wrong(admin.url.clone(), reason)
    };
    if arguments.json {
        let value: Value = serde_json::from_str(&body).map_err(wrong)?;
        writeln!(out.out, "{value:#}")?;
    } else {
        let status = serde_json::from_str(&body).map_err(wrong)?;
        table(&status, SystemTime::now(), &mut out.out)?;
    }
    Ok(Outcome::Done)
}

/// The body of a good answer.
pub(super) fn success(admin: &Admin, answer: Answer) -> Result<String, ClientError> {
    if matches!(answer.code, 200 | 201) {
        return Ok(answer.body);
    }
    let told: Option<Value> = serde_json::from_str(&answer.body).ok();
    let text = |key: &str| told.as_ref().and_then(|told| told.get(key)?.as_str());
    if let (Some(detail), Some(fix)) = (text("detail"), text("fix")) {
        return Err(ClientError::Refused(admin.url.clone(), detail.to_owned(), fix.to_owned()));
    }
    let reason =
        text("error").map_or_else(|| format!("HTTP status {}", answer.code), str::to_owned);
    Err(ClientError::Wrong(admin.url.clone(), reason))
}

async fn ready(admin: &Admin, out: &mut Out) -> Result<Outcome, Failed> {
    let answer = get(admin, "/readyz", PROBE).await?;
    if answer.code == 200 {
        return Ok(Outcome::Done);
    }
    let told: Option<Value> = serde_json::from_str(&answer.body).ok();
    let reason = told.as_ref().and_then(|told| told.get("reason")?.as_str());
    let reason = reason.unwrap_or("it does not say why");
    writeln!(out.err, "{}", styled(PLAIN, &format!("not ready: {reason}")))?;
    Ok(Outcome::Refused)
}

fn table(status: &Status, now: SystemTime, to: &mut impl Write) -> io::Result<()> {
    headline(status, now, to)?;
    config(&status.config, now, to)?;
    listeners(&status.listeners, to)?;
    egress(status, to)?;
    limits(&status.limits, to)?;
    links(status, to)?;
    routes(status, to)?;
    sources(&status.sources, to)?;
    refusals(&status.refusals, to)
}

fn headline(status: &Status, now: SystemTime, to: &mut impl Write) -> io::Result<()> {
    let state = match (status.ready, status.draining, &status.not_ready_because) {
        (true, ..) => styled(GOOD, "ready"),
        (false, true, _) => styled(WARNING, "draining"),
        (false, false, because) => {
            styled(BAD, &format!("not ready: {}", because.as_deref().unwrap_or("starting")))
        }
    };
    writeln!(to, "{}  {state}", styled(TITLE, &status.cluster))?;
    let Status { version, pid, generation, names, .. } = status;
    let (up, changed) = (since(&status.started, now), since(&status.changed, now));
    writeln!(to, "strait {}, process {pid}, started {up}", styled(PLAIN, version))?;
    writeln!(to, "table {generation} with {names} names, in force since {changed}")?;
    let connections = status.connections;
    writeln!(to, "{} connections open, {} since the start", connections.open, connections.total)?;
    writeln!(to)
}

fn config(config: &ConfigStatus, now: SystemTime, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "{} read {}", styled(TITLE, &config.path), since(&config.changed, now))?;
    if !config.errors.is_empty() {
        let told =
            "The last change is invalid and has no effect; what was in force before stays so:";
        writeln!(to, "{}", styled(BAD, told))?;
    }
    let errors = config.errors.iter().map(|text| (PLAIN, text));
    let warnings = config.warnings.iter().map(|text| (WARNING, text));
    for (style, text) in errors.chain(warnings) {
        for line in text.lines() {
            writeln!(to, "  {}", styled(style, line))?;
        }
    }
    writeln!(to)
}

fn listeners(listeners: &[ListenerStatus], to: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["LISTENER", "ADDRESS", "BOUND"]);
    for ListenerStatus { kind, address, bound } in listeners {
        table.row([kind.into(), address.into(), bound.as_ref().unwrap_or(address).into()]);
    }
    table.print(to)
}

fn egress(status: &Status, to: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["EGRESS", "APP", "STATE"]);
    for EgressStatus { address, app, trouble, .. } in &status.egress {
        let state = match trouble {
            None => Cell(GOOD, "listening".into()),
            Some(trouble) => Cell(BAD, trouble.clone()),
        };
        table.row([address.into(), app.into(), state]);
    }
    table.print(to)?;
    for problem in &status.egress_problems {
        writeln!(to, "{} {problem}\n", styled(WARNING, "egress:"))?;
    }
    Ok(())
}

fn limits(limits: &[LimitStatus], to: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["LIMIT", "OF", "USED", "AT MOST"]);
    for LimitStatus { limit, of, used, most, lowered_from } in limits {
        let at_most = match (most, lowered_from) {
            (0, _) => "-".into(),
            (most, None) => Cell(if used < most { PLAIN } else { BAD }, most.to_string()),
            (most, Some(configured)) => {
                Cell(WARNING, format!("{most}: too few file descriptors for {configured}"))
            }
        };
        let of = of.as_deref().unwrap_or_default();
        table.row([limit.into(), of.into(), used.to_string().into(), at_most]);
    }
    table.print(to)
}

fn links(status: &Status, to: &mut impl Write) -> io::Result<()> {
    if status.links.is_empty() && status.certificates.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["LINKS WITH", "OPENED", "ACCEPTED"]);
    for LinkStatus { cluster, opened, accepted } in &status.links {
        table.row([cluster.into(), opened.to_string().into(), accepted.to_string().into()]);
    }
    table.print(to)?;
    let mut table = Table::new(["FOR LINKS", "EXPIRES"]);
    for CertificateStatus { role, expires } in &status.certificates {
        table.row([role.into(), expires.into()]);
    }
    table.print(to)
}

fn routes(status: &Status, to: &mut impl Write) -> io::Result<()> {
    let titles = ["ROUTE", "NAME", "ENDPOINT", "PRIORITY", "WEIGHT", "OPEN", "HEALTH"];
    let mut table = Table::new(titles);
    for route in &status.routes {
        let mut left = [route.label.clone().into(), names(route)];
        for endpoint in endpoints(route) {
            let [label, name] = std::mem::replace(&mut left, ["".into(), "".into()]);
            let [address, priority, weight, open, health] = endpoint;
            table.row([label, name, address, priority, weight, open, health]);
        }
    }
    table.print(to)?;
    let shown = status.routes.len();
    if shown < status.routes_total {
        let told = format!("{shown} of {} routes", status.routes_total);
        writeln!(to, "{}\n", styled(FAINT, &told))?;
    }
    Ok(())
}

fn names(route: &RouteStatus) -> Cell {
    let first = route.names.first().cloned().unwrap_or_default();
    match route.names_total.saturating_sub(1) {
        0 => first.into(),
        more => format!("{first} (+{more})").into(),
    }
}

/// At least one line, so that a route without endpoints is seen.
fn endpoints(route: &RouteStatus) -> Vec<[Cell; 5]> {
    let candidate = |endpoint: &EndpointStatus| {
        let EndpointStatus { address, priority, weight, open, health, cluster } = endpoint;
        let of = cluster.as_ref().map_or_else(String::new, |cluster| format!(" of {cluster}"));
        let style = if health == "healthy" { GOOD } else { BAD };
        let health = Cell(style, health.clone());
        [
            format!("{address}{of}").into(),
            priority.to_string().into(),
            weight.to_string().into(),
            open.to_string().into(),
            health,
        ]
    };
    let blank = || Cell::from("");
    let without = |address: &str, reason: &str| {
        [address.into(), blank(), blank(), blank(), Cell(BAD, reason.into())]
    };
    let absent = route.absent.iter().map(|absent| without(&absent.address, &absent.reason));
    let mut lines: Vec<_> = route.endpoints.iter().map(candidate).chain(absent).collect();
    if lines.is_empty() {
        lines.push(without("none", "nothing to dial"));
    }
    lines
}

fn sources(sources: &[SourceStatus], to: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["SOURCE", "STATE", "LAST HEARD", "LAST ERROR"]);
    for source in sources {
        let SourceStatus { name, up, age_seconds, stale, last_error, .. } = source;
        let state = match (up, stale) {
            (_, true) => Cell(WARNING, "stale".into()),
            (true, false) => Cell(GOOD, "up".into()),
            (false, false) => Cell(BAD, "down".into()),
        };
        let age = age_seconds.and_then(|age| Duration::try_from_secs_f64(age).ok());
        let age = age.map_or_else(|| "never".to_owned(), ago);
        table.row([
            name.into(),
            state,
            age.into(),
            last_error.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.print(to)?;
    rejected(sources.iter().flat_map(|source| &source.rejected), to)
}

fn rejected<'a>(
    documents: impl Iterator<Item = &'a RejectedDocument>,
    to: &mut impl Write,
) -> io::Result<()> {
    let mut table = Table::new(["NO DOCUMENT", "VERSION", "IN FORCE", "WHY"]);
    for RejectedDocument { key, version, why, is_replaced } in documents {
        let instead = if *is_replaced { "the one before" } else { "nothing" };
        let why = Cell(BAD, why.clone());
        table.row([key.into(), version.into(), instead.into(), why]);
    }
    table.print(to)
}

fn refusals(refusals: &[RefusalStatus], to: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["REFUSED", "CLIENT", "NAME", "ENDING", "HINT"]);
    for RefusalStatus { time, client, name, ending, hint } in refusals {
        let (name, hint) = (name.as_deref().unwrap_or("-"), hint.as_deref().unwrap_or_default());
        let hint = Cell(HELP, hint.to_owned());
        table.row([time.into(), client.into(), name.into(), ending.into(), hint]);
    }
    table.print(to)
}

/// How long ago a timestamp is; the timestamp itself where that cannot be told.
fn since(timestamp: &str, now: SystemTime) -> String {
    match moment(timestamp) {
        // A clock that is behind the gateway's is no reason to say anything else than "now".
        Some(then) => ago(now.duration_since(then).unwrap_or_default()),
        None => styled(PLAIN, timestamp),
    }
}

/// In the largest unit that fits: an operator asks whether it was now or last week.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        0..=119 => (seconds, "s"),
        120..=7_199 => (seconds / 60, "min"),
        7_200..=172_799 => (seconds / 3_600, "h"),
        172_800.. => (seconds / 86_400, "days"),
    };
    format!("{number} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::super::output::testing::printed;
    use super::*;
    use crate::admin::status::{AbsentStatus, Connections, timestamp};
    use std::time::UNIX_EPOCH;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(500_000)
    }

    fn before(seconds: u64) -> String {
        timestamp(now() - Duration::from_secs(seconds))
    }

    fn endpoint(address: &str, health: &str) -> EndpointStatus {
        EndpointStatus {
            address: address.into(),
            priority: 0,
            weight: 1,
            open: 3,
            health: health.into(),
            cluster: None,
        }
    }

    fn routes_of_gateway() -> Vec<RouteStatus> {
        let route = |label: &str, name: &str| RouteStatus {
            label: label.into(),
            kind: "app".into(),
            names_total: 1,
            names: vec![name.into()],
            endpoints: vec![],
            absent: vec![],
        };
        let checkout = RouteStatus {
            names_total: 2,
            endpoints: vec![
                endpoint("10.0.0.7:50002", "healthy"),
                endpoint("10.0.0.8:50002", "down"),
            ],
            absent: vec![AbsentStatus { address: "gone:1".into(), reason: "no address".into() }],
            ..route("shop/checkout", "checkout.shop.mesh.example")
        };
        vec![checkout, route("bare", "bare.example")]
    }

    fn limit(
        limit: &str,
        of: Option<&str>,
        used: u64,
        most: u64,
        lowered_from: Option<u64>,
    ) -> LimitStatus {
        LimitStatus { limit: limit.into(), of: of.map(Into::into), used, most, lowered_from }
    }

    fn two_addresses() -> Vec<EgressStatus> {
        vec![
            EgressStatus {
                address: "10.0.0.5:20000".into(),
                bound: "[::]:20000".into(),
                app: "shop/orders".into(),
                trouble: None,
            },
            EgressStatus {
                address: "10.0.0.5:20001".into(),
                bound: "[::]:20001".into(),
                app: "shop/payment".into(),
                trouble: Some("cannot listen".into()),
            },
        ]
    }

    fn gateway() -> Status {
        Status {
            cluster: "west".into(),
            version: "1.2.3".into(),
            pid: 7,
            started: before(7_200),
            ready: true,
            not_ready_because: None,
            draining: false,
            generation: 4,
            changed: before(61),
            config: ConfigStatus {
                path: "config/strait.yaml".into(),
                changed: before(61),
                errors: vec!["strait.yaml:3:5: error: unknown key\nhelp: remove it".into()],
                warnings: vec!["open route".into()],
            },
            egress: two_addresses(),
            egress_problems: vec!["shop/mail: no address is free".into()],
            listeners: vec![ListenerStatus {
                kind: "ingress".into(),
                address: "[::]:0".into(),
                bound: Some("[::]:41234".into()),
            }],
            names: 12,
            routes_total: 1_000_000,
            routes: routes_of_gateway(),
            sources: vec![SourceStatus {
                name: "dns".into(),
                up: false,
                age_seconds: None,
                stale: false,
                apps: None,
                ignored: None,
                documents: None,
                rejected: vec![],
                last_error: Some("timed out".into()),
            }],
            connections: Connections { open: 3, total: 17 },
            limits: vec![
                limit("connections", None, 3, 9341, Some(100_000)),
                limit("pending", None, 2, 2, None),
                limit("perSource", Some("203.0.113.9/32"), 3, 0, None),
            ],
            links: vec![LinkStatus { cluster: "east".into(), opened: 5, accepted: 2 }],
            certificates: vec![CertificateStatus {
                role: "certificate".into(),
                expires: "2027-02-01T00:00:00Z".into(),
            }],
            refusals: vec![RefusalStatus {
                time: "2027-01-15T08:00:00Z".into(),
                client: "203.0.113.9:1234".into(),
                name: None,
                ending: "no_server_name".into(),
                hint: Some("use nameformat\x1b[2J".into()),
            }],
        }
    }

    const FOR_PEOPLE: &str = "\
west  ready
strait 1.2.3, process 7, started 2 h ago
table 4 with 12 names, in force since 61 s ago
3 connections open, 17 since the start

config/strait.yaml read 61 s ago
The last change is invalid and has no effect; what was in force before stays so:
  strait.yaml:3:5: error: unknown key
  help: remove it
  open route

LISTENER  ADDRESS  BOUND
ingress   [::]:0   [::]:41234

EGRESS          APP           STATE
10.0.0.5:20000  shop/orders   listening
10.0.0.5:20001  shop/payment  cannot listen

egress: shop/mail: no address is free

LIMIT        OF              USED  AT MOST
connections                  3     9341: too few file descriptors for 100000
pending                      2     2
perSource    203.0.113.9/32  3     -

LINKS WITH  OPENED  ACCEPTED
east        5       2

FOR LINKS    EXPIRES
certificate  2027-02-01T00:00:00Z

ROUTE          NAME                             ENDPOINT        PRIORITY  WEIGHT  OPEN  HEALTH
shop/checkout  checkout.shop.mesh.example (+1)  10.0.0.7:50002  0         1       3     healthy
                                                10.0.0.8:50002  0         1       3     down
                                                gone:1                                  no address
bare           bare.example                     none                                    nothing to dial

2 of 1000000 routes

SOURCE  STATE  LAST HEARD  LAST ERROR
dns     down   never       timed out

REFUSED               CLIENT            NAME  ENDING          HINT
2027-01-15T08:00:00Z  203.0.113.9:1234  -     no_server_name  use nameformat\u{fffd}[2J

";

    #[test]
    fn the_table_for_people() {
        let ((), text, _) = printed(false, |out| table(&gateway(), now(), &mut out.out).unwrap());
        assert_eq!(text, FOR_PEOPLE, "\n{text}");
    }

    #[test]
    fn colour_changes_no_word() {
        let ((), text, _) = printed(true, |out| table(&gateway(), now(), &mut out.out).unwrap());
        assert!(text.contains('\x1b'));
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), FOR_PEOPLE);
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let told =
            [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|age| ago(Duration::from_secs(age)));
        assert_eq!(
            told,
            [
                "0 s ago",
                "119 s ago",
                "2 min ago",
                "119 min ago",
                "2 h ago",
                "47 h ago",
                "2 days ago"
            ]
        );
    }
}
