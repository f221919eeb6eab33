//! `strait explain`: the decision for a name, step by step.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::routing::explain::{
    CandidateEndpoint, Explanation, MatchedRoute, PolicyAnswer, Verdict,
};

use super::client::{AdminUrl, ClientError, escaped, get};
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
  strait explain checkout.shop.mesh.example --config config/strait.yaml

Exit codes:
  0  the connection would be routed, or it depends on what was not said (no --from; DNS names without a gateway)
  1  it would be refused, or nobody could be asked
  2  the command line is wrong")]
pub struct ExplainArguments {
    /// The server name that a client asks for
    name: String,
    /// The address that the client connects from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
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
    let ExplainArguments { name, from, config, admin } = arguments;
    let explanation = match config {
        None => ask(admin.url(), name, *from).await?,
        Some(path) => match work.explain(path, name, *from) {
            Ok(explanation) => explanation,
            Err(problems) => {
                check::problems(&problems, &mut out.err)?;
                return Ok(Outcome::Refused);
            }
        },
    };
    print(&explanation, *from, &mut out.out)?;
    Ok(match explanation.verdict {
        Verdict::Routed | Verdict::Undecided { .. } => Outcome::Done,
        Verdict::Refused { .. } => Outcome::Refused,
    })
}

async fn ask(
    admin: &AdminUrl,
    name: &str,
    from: Option<IpAddr>,
) -> Result<Explanation, ClientError> {
    let from =
        from.map_or_else(String::new, |from| format!("&from={}", escaped(&from.to_string())));
    let path = format!("/explain?name={}{from}", escaped(name));
    let body = success(admin, get(admin, &path, ANSWER).await?)?;
    serde_json::from_str(&body)
        .map_err(|error| ClientError::Wrong(admin.clone(), error.to_string()))
}

fn print(explanation: &Explanation, from: Option<IpAddr>, to: &mut impl Write) -> io::Result<()> {
    name(explanation, to)?;
    if let Some(matched) = &explanation.route {
        route(matched, to)?;
    }
    if let Some(answer) = &explanation.policy {
        policy(answer, from, to)?;
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

fn route(matched: &MatchedRoute, to: &mut impl Write) -> io::Result<()> {
    let MatchedRoute { label, pattern, because, also } = matched;
    line(to, "Route", &styled(PLAIN, &format!("{label}, by {pattern}: {because}")))?;
    if also.is_empty() {
        return Ok(());
    }
    line(to, "", &styled(FAINT, &format!("also covered by {}", also.join(", "))))
}

fn policy(answer: &PolicyAnswer, from: Option<IpAddr>, to: &mut impl Write) -> io::Result<()> {
    let client = from.map_or_else(|| "the client".to_owned(), |from| from.to_string());
    let list = |rules: &[String]| match rules {
        [] => "the allow list is empty".to_owned(),
        rules => format!("the rules are: {}", rules.join(", ")),
    };
    let (style, text) = match answer {
        PolicyAnswer::Open => (PLAIN, "open: the route has no allow list".to_owned()),
        PolicyAnswer::Admitted { rule } => (PLAIN, format!("{client} is admitted by {rule}")),
        PolicyAnswer::Denied { rules } => {
            (BAD, format!("{client} is admitted by no rule; {}", list(rules)))
        }
        PolicyAnswer::NotJudged { rules } => {
            (WARNING, format!("not judged without --from; {}", list(rules)))
        }
    };
    line(to, "Policy", &styled(style, &text))
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
    let CandidateEndpoint { address, weight, open, health } = endpoint;
    let open = open.map_or_else(|| "load unknown".to_owned(), |open| format!("{open} open"));
    let style = match health.as_str() {
        "healthy" => GOOD,
        "unknown" => FAINT,
        _ => BAD,
    };
    let health = if health == "unknown" { "health unknown" } else { health };
    format!("  {address}  weight {weight}, {open}, {}", styled(style, health))
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
    use crate::routing::explain::{AbsentEndpoint, PriorityGroup};

    fn explanation() -> Explanation {
        let endpoint = |address: &str, open, health: &str| CandidateEndpoint {
            address: address.parse().unwrap(),
            weight: 2,
            open,
            health: health.into(),
        };
        Explanation {
            written: "A.Example.".into(),
            name: Some("a.example".into()),
            route: Some(MatchedRoute {
                label: "shop/a".into(),
                pattern: "a.example".into(),
                because: "it is exactly this name".into(),
                also: vec!["*.example".into()],
            }),
            policy: Some(PolicyAnswer::Admitted { rule: "network 10.0.0.0/8".into() }),
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

    fn told(explanation: &Explanation, from: Option<&str>, terminal: bool) -> String {
        let from = from.map(|from| from.parse().unwrap());
        printed(terminal, |out| print(explanation, from, &mut out.out).unwrap()).1
    }

    #[test]
    fn every_step_of_a_routed_connection() {
        let text = told(&explanation(), Some("10.1.2.3"), false);
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
        let coloured = told(&explanation(), Some("10.1.2.3"), true);
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
        assert_eq!(told(&refused, Some("192.0.2.1"), false), expected);
    }

    #[test]
    fn what_is_no_name_and_what_is_not_judged() {
        let no_name = Explanation { written: "a\x1b[2J".into(), name: None, ..explanation() };
        assert!(
            told(&no_name, None, false).starts_with("Name       a\u{fffd}[2J is no server name\n")
        );
        let open = Explanation {
            policy: Some(PolicyAnswer::NotJudged { rules: vec![] }),
            verdict: Verdict::Undecided { because: "nobody said where".into() },
            ..explanation()
        };
        let text = told(&open, None, false);
        assert!(
            text.contains("Policy     not judged without --from; the allow list is empty\n"),
            "{text}"
        );
        assert!(text.contains("Verdict    it depends: nobody said where\n"), "{text}");
    }
}
