//! `strait explain`: the decision for a name, step by step.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::app::AppId;
use crate::model::client::{Asker, Linked};
use crate::routing::explain::{
    CandidateEndpoint, EgressAnswer, Explanation, MatchedRoute, PolicyAnswer, SideAnswer, Verdict,
};

use super::client::{Admin, ClientError, escaped, get};
use super::output::{BAD, FAINT, GOOD, HELP, Out, PLAIN, TITLE, WARNING, styled};
use super::status::success;
use super::{Failed, Outcome, Work, check};

/// For the gateway's answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A name, and whom to ask.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  strait explain checkout.shop.mesh.example --from 203.0.113.9
  strait explain checkout.shop.mesh.example --cluster east --app shop/frontend
  strait explain 10.0.0.5:20001 --from 10.0.4.7
  strait explain checkout.shop.mesh.example --config config/strait.yaml

Exit codes:
  0  the connection would be routed, or it depends on what was not said (no --from; DNS names without a gateway)
  1  it would be refused, or nobody could be asked
  2  the command line is wrong")]
pub struct ExplainArguments {
    /// The server name that a client asks for, or the egress address that it dials
    name: String,
    /// The address that the client connects from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Ask as this cluster's gateway would, over a link
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    cluster: Option<String>,
    /// The caller that the cluster would name, written namespace/app
    #[arg(long, value_name = "APP", requires = "cluster", value_parser = AppId::parse)]
    app: Option<AppId>,
    /// Decide from this file or directory, without a gateway: health and load are unknown
    #[arg(long, value_name = "PATH", conflicts_with = "admin")]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin: super::AdminArgument,
}

/// Asks and tells.
pub(super) async fn explain(
    arguments: &ExplainArguments,
    work: &impl Work,
    out: &mut Out,
) -> Result<Outcome, Failed> {
    let ExplainArguments { name, config, admin, .. } = arguments;
    let asker = arguments.asker();
    let explanation = match config {
        None => ask(&admin.admin()?, name, &asker).await?,
        Some(path) => match work.explain(path, name, &asker) {
            Ok(explanation) => explanation,
            Err(problems) => {
                check::problems(&problems, &mut out.err)?;
                return Ok(Outcome::Refused);
            }
        },
    };
    print(&explanation, &asker, &mut out.out)?;
    Ok(match explanation.verdict {
        Verdict::Routed | Verdict::Undecided { .. } => Outcome::Done,
        Verdict::Refused { .. } => Outcome::Refused,
    })
}

impl ExplainArguments {
    fn asker(&self) -> Asker {
        match (&self.cluster, self.from) {
            (Some(cluster), _) => {
                Asker::Linked(Linked { cluster: cluster.as_str().into(), app: self.app.clone() })
            }
            (None, Some(from)) => Asker::At(from),
            (None, None) => Asker::Unsaid,
        }
    }
}

async fn ask(admin: &Admin, name: &str, asker: &Asker) -> Result<Explanation, ClientError> {
    let parameter = |key: &str, value: &str| format!("&{key}={}", escaped(value));
    let parameters = match asker {
        Asker::Unsaid => String::new(),
        Asker::At(from) => parameter("from", &from.to_string()),
        Asker::Linked(Linked { cluster, app }) => {
            let app = app.as_ref().map(|app| parameter("app", &app.to_string()));
            parameter("cluster", cluster) + &app.unwrap_or_default()
        }
    };
    let path = format!("/explain?name={}{parameters}", escaped(name));
    let body = success(admin, get(admin, &path, ANSWER).await?)?;
    serde_json::from_str(&body)
        .map_err(|error| ClientError::Wrong(admin.url.clone(), error.to_string()))
}

fn print(explanation: &Explanation, asker: &Asker, to: &mut impl Write) -> io::Result<()> {
    name(explanation, to)?;
    if let Some(answer) = &explanation.side {
        side(answer, asker, to)?;
    }
    if let Some(matched) = &explanation.route {
        route(matched, to)?;
    }
    if let Some(answer) = &explanation.policy {
        policy(answer, list(explanation), asker, to)?;
    }
    if let Some(answer) = &explanation.egress {
        egress(answer, to)?;
    }
    endpoints(explanation, to)?;
    verdict(&explanation.verdict, to)?;
    match &explanation.hint {
        Some(hint) => line(to, "Hint", &styled(HELP, hint)),
        None => Ok(()),
    }
}

/// A step with its title, or one more line of the step before.
fn line(to: &mut impl Write, title: &str, text: &str) -> io::Result<()> {
    let blanks = 11 - title.len().min(10);
    writeln!(to, "{}{:blanks$}{text}", styled(TITLE, title), "")
}

fn name(explanation: &Explanation, to: &mut impl Write) -> io::Result<()> {
    let Explanation { written, name, .. } = explanation;
    match name {
        None => line(to, "Name", &format!("{} is no server name", styled(BAD, written))),
        Some(name) if name == written => line(to, "Name", &styled(PLAIN, name)),
        Some(name) => line(to, "Name", &styled(PLAIN, &format!("{name}, asked for as {written}"))),
    }
}

fn side(answer: &SideAnswer, asker: &Asker, to: &mut impl Write) -> io::Result<()> {
    let SideAnswer { side, because, callers } = answer;
    line(to, "Side", &styled(PLAIN, &format!("{side}: {because}")))?;
    match &**callers {
        [] => Ok(()),
        [app] => line(to, "Caller", &styled(PLAIN, &format!("{app}, as its `from` has {asker}"))),
        apps => {
            let text = format!("ambiguous: {asker} is in `from` of {}", apps.join(" and of "));
            line(to, "Caller", &styled(BAD, &text))
        }
    }
}

fn route(matched: &MatchedRoute, to: &mut impl Write) -> io::Result<()> {
    let MatchedRoute { label, kind, pattern, because, also } = matched;
    let kind = if kind == "route" { String::new() } else { format!(" ({kind})") };
    line(to, "Route", &styled(PLAIN, &format!("{label}{kind}, by {pattern}: {because}")))?;
    if also.is_empty() {
        return Ok(());
    }
    line(to, "", &styled(FAINT, &format!("also covered by {}", also.join(", "))))
}

/// Whose list judges.
fn list(explanation: &Explanation) -> &'static str {
    let kind = explanation.route.as_ref().map_or("route", |route| &*route.kind);
    let local = explanation.side.as_ref().is_some_and(|side| side.side == "local");
    let (is_imported, is_exported) = (kind.contains("import"), kind.contains("export"));
    match (is_imported && local, is_exported) {
        (true, _) => "the import's allow list",
        (false, true) => "the export's allow list",
        (false, false) => "the allow list",
    }
}

fn policy(answer: &PolicyAnswer, list: &str, asker: &Asker, to: &mut impl Write) -> io::Result<()> {
    let rules = |rules: &[String]| match rules {
        [] => format!("{list} is empty"),
        rules => format!("the rules are: {}", rules.join(", ")),
    };
    let (style, text) = match answer {
        PolicyAnswer::Open => (PLAIN, "open: the route has no allow list".to_owned()),
        PolicyAnswer::Admitted { rule } => (PLAIN, format!("{asker} is admitted by {rule}")),
        PolicyAnswer::OnlyImported => {
            (BAD, "imported and not exported: it is there for local clients alone".to_owned())
        }
        PolicyAnswer::NotExported => (BAD, "no export: a link leads to nothing else".to_owned()),
        PolicyAnswer::Denied { rules: written } => {
            (BAD, format!("{asker} is admitted by no rule; {}", rules(written)))
        }
        PolicyAnswer::NotJudged { rules: written } => {
            (WARNING, format!("not judged without --from; {}", rules(written)))
        }
    };
    line(to, "Policy", &styled(style, &text))
}

fn egress(answer: &EgressAnswer, to: &mut impl Write) -> io::Result<()> {
    let addresses: Vec<_> = answer.addresses.iter().map(ToString::to_string).collect();
    let mut title = "Egress";
    if !addresses.is_empty() {
        line(to, title, &styled(PLAIN, &addresses.join(", ")))?;
        title = "";
    }
    match &answer.lacks {
        Some(lacks) => line(to, title, &styled(WARNING, lacks)),
        None => Ok(()),
    }
}

fn endpoints(explanation: &Explanation, to: &mut impl Write) -> io::Result<()> {
    let mut title = "Endpoints";
    for group in &explanation.priorities {
        let several =
            if group.endpoints.len() > 1 { ": the less loaded of two taken at random" } else { "" };
        line(to, title, &format!("priority {}{several}", group.priority))?;
        title = "";
        for endpoint in &group.endpoints {
            line(to, "", &candidate(endpoint))?;
        }
    }
    for absent in &explanation.absent {
        let text = format!("{} is left out: {}", absent.endpoint, absent.because);
        line(to, title, &styled(FAINT, &text))?;
        title = "";
    }
    Ok(())
}

fn candidate(endpoint: &CandidateEndpoint) -> String {
    let CandidateEndpoint { address, weight, open, health, via } = endpoint;
    let open = open.map_or_else(|| "load unknown".to_owned(), |open| format!("{open} open"));
    let style = match health.as_str() {
        "healthy" => GOOD,
        "unknown" => FAINT,
        _ => BAD,
    };
    let health = if health == "unknown" { "health unknown" } else { health };
    let via = via.as_ref().map_or_else(String::new, |via| {
        format!(", gateway of {}, asked for {}", via.cluster, via.name)
    });
    format!("  {address}  weight {weight}, {open}, {}{via}", styled(style, health))
}

fn verdict(verdict: &Verdict, to: &mut impl Write) -> io::Result<()> {
    let text = match verdict {
        Verdict::Routed => styled(GOOD, "routed"),
        Verdict::Refused { ending, alert } => {
            let text = format!("refused: {ending}; the client gets the TLS alert {alert}");
            styled(BAD, &text)
        }
        Verdict::Undecided { because } => styled(WARNING, &format!("it depends: {because}")),
    };
    line(to, "Verdict", &text)
}

#[cfg(test)]
mod tests {
    use super::super::output::testing::printed;
    use super::*;
    use crate::routing::explain::{AbsentEndpoint, PriorityGroup, ViaAnswer};

    fn explanation() -> Explanation {
        let endpoint = |address: &str, open, health: &str| CandidateEndpoint {
            address: address.parse().unwrap(),
            weight: 2,
            open,
            health: health.into(),
            via: None,
        };
        Explanation {
            written: "A.Example.".into(),
            name: Some("a.example".into()),
            side: None,
            route: Some(MatchedRoute {
                label: "shop/a".into(),
                kind: "route".into(),
                pattern: "a.example".into(),
                because: "it is exactly this name".into(),
                also: vec!["*.example".into()],
            }),
            policy: Some(PolicyAnswer::Admitted { rule: "network 10.0.0.0/8".into() }),
            egress: None,
            priorities: vec![
                PriorityGroup {
                    priority: 0,
                    endpoints: vec![
                        endpoint("10.0.0.1:1", Some(3), "healthy"),
                        endpoint("10.0.0.2:1", Some(0), "ejected"),
                    ],
                },
                PriorityGroup {
                    priority: 1,
                    endpoints: vec![endpoint("[::1]:1", None, "unknown")],
                },
            ],
            absent: vec![AbsentEndpoint { endpoint: "b:1".into(), because: "no address".into() }],
            verdict: Verdict::Routed,
            hint: None,
        }
    }

    fn at(address: &str) -> Asker {
        Asker::At(address.parse().unwrap())
    }

    fn told(explanation: &Explanation, asker: &Asker, terminal: bool) -> String {
        printed(terminal, |out| print(explanation, asker, &mut out.out).unwrap()).1
    }

    #[test]
    fn every_step_of_a_routed_connection() {
        let text = told(&explanation(), &at("10.1.2.3"), false);
        let expected = "\
Name       a.example, asked for as A.Example.
Route      shop/a, by a.example: it is exactly this name
           also covered by *.example
Policy     10.1.2.3 is admitted by network 10.0.0.0/8
Endpoints  priority 0: the less loaded of two taken at random
             10.0.0.1:1  weight 2, 3 open, healthy
             10.0.0.2:1  weight 2, 0 open, ejected
           priority 1
             [::1]:1  weight 2, load unknown, health unknown
           b:1 is left out: no address
Verdict    routed
";
        assert_eq!(text, expected, "\n{text}");
        let coloured = told(&explanation(), &at("10.1.2.3"), true);
        assert!(coloured.contains('\x1b'));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), expected);
    }

    #[test]
    fn a_refusal_and_what_to_do() {
        let refused = Explanation {
            written: "a.example".into(),
            policy: Some(PolicyAnswer::Denied {
                rules: vec!["network 10.0.0.0/8".into(), "networksOf east".into()],
            }),
            priorities: vec![],
            absent: vec![],
            route: None,
            verdict: Verdict::Refused { ending: "denied".into(), alert: "access_denied".into() },
            hint: Some("add it".into()),
            ..explanation()
        };
        let expected = "\
Name       a.example
Policy     192.0.2.1 is admitted by no rule; the rules are: network 10.0.0.0/8, networksOf east
Verdict    refused: denied; the client gets the TLS alert access_denied
Hint       add it
";
        assert_eq!(told(&refused, &at("192.0.2.1"), false), expected);
    }

    #[test]
    fn an_import_is_told_with_side_caller_and_gateways() {
        let side = |callers: &[&str]| SideAnswer {
            side: "local".into(),
            because: "its address is in `local.networks`".into(),
            callers: callers.iter().map(|&app| app.into()).collect(),
        };
        let mut imported = explanation();
        imported.side = Some(side(&["shop/frontend"]));
        imported.policy = Some(PolicyAnswer::Admitted { rule: "shop/frontend".into() });
        imported.absent.clear();
        imported.priorities.truncate(1);
        imported.priorities[0].endpoints.truncate(1);
        let via = ViaAnswer { cluster: "east".into(), name: "a.example".into() };
        imported.priorities[0].endpoints[0].via = Some(via);
        imported.route.as_mut().unwrap().kind = "import".into();
        let expected = "\
Name       a.example, asked for as A.Example.
Side       local: its address is in `local.networks`
Caller     shop/frontend, as its `from` has 10.1.2.3
Route      shop/a (import), by a.example: it is exactly this name
           also covered by *.example
Policy     10.1.2.3 is admitted by shop/frontend
Endpoints  priority 0
             10.0.0.1:1  weight 2, 3 open, healthy, gateway of east, asked for a.example
Verdict    routed
";
        let text = told(&imported, &at("10.1.2.3"), false);
        assert_eq!(text, expected, "\n{text}");
        imported.side = Some(side(&["shop/a", "shop/b"]));
        imported.policy = Some(PolicyAnswer::Denied { rules: vec![] });
        let text = told(&imported, &at("10.1.2.3"), false);
        let caller = "Caller     ambiguous: 10.1.2.3 is in `from` of shop/a and of shop/b\n";
        let policy =
            "Policy     10.1.2.3 is admitted by no rule; the import's allow list is empty\n";
        assert!(text.contains(caller) && text.contains(policy), "{text}");
    }

    #[test]
    fn what_is_no_name_and_what_is_not_judged() {
        let no_name = Explanation { written: "a\x1b[2J".into(), name: None, ..explanation() };
        assert!(
            told(&no_name, &Asker::Unsaid, false)
                .starts_with("Name       a\u{fffd}[2J is no server name\n")
        );
        let open = Explanation {
            policy: Some(PolicyAnswer::NotJudged { rules: vec![] }),
            verdict: Verdict::Undecided { because: "nobody said where".into() },
            ..explanation()
        };
        let text = told(&open, &Asker::Unsaid, false);
        assert!(
            text.contains("Policy     not judged without --from; the allow list is empty\n"),
            "{text}"
        );
        assert!(text.contains("Verdict    it depends: nobody said where\n"), "{text}");
    }
}
