//! `strait allow`, `strait revoke` and `strait allowed`: which apps of other clusters an app may call.

use std::io::{self, Write};
use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::app::AppId;
use crate::permissions::api::wire::{Documents, InForce, RemoteApp, Source, Written};
use crate::routing::discover::{Callable, Discovery};

use super::client::{Admin, ClientError, Question, ask, escaped, get};
use super::output::{BAD, FAINT, GOOD, HELP, Out, PLAIN, WARNING, styled};
use super::status::success;
use super::table::{Cell, Table};
use super::{AdminArgument, Failed, Outcome};

/// Until a change is in force, in seconds. That takes less than one where the store is well.
const IN_FORCE: u64 = 10;
/// For an answer; a store that is slow is given up by the gateway after 10 s, which may happen twice in one change.
const ANSWER: Duration = Duration::from_secs(40);

/// A caller, and what it may call.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  strait allow shop/frontend shop/orders
  strait allow shop/frontend shop/orders --cluster east --cluster west
  strait allow shop/frontend shop/orders --admin https://gw.example:9901 --ca-file ca.crt --token-file token

Exit codes:
  0  it is in force
  1  it is not: nothing was changed, or the gateway has not taken it up in time
  2  the command line is wrong")]
pub struct AllowArguments {
    /// The app that calls, written namespace/app
    #[arg(value_name = "CALLER", value_parser = AppId::parse)]
    caller: AppId,
    /// The app that is called, written namespace/app
    #[arg(value_name = "TARGET", value_parser = AppId::parse)]
    target: AppId,
    /// A cluster where it may be called; several in order of preference. By default every one that exports it
    #[arg(long, value_name = "NAME")]
    cluster: Vec<String>,
    /// Prints the gateway's answer as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgument,
}

/// A caller, and what it may call no more.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  strait revoke shop/frontend shop/orders

Exit codes:
  0  it is in force
  1  it is not: nothing was changed, or the gateway has not taken it up in time
  2  the command line is wrong")]
pub struct RevokeArguments {
    /// The app that calls, written namespace/app
    #[arg(value_name = "CALLER", value_parser = AppId::parse)]
    caller: AppId,
    /// The app that it is to call no more, written namespace/app
    #[arg(value_name = "TARGET", value_parser = AppId::parse)]
    target: AppId,
    /// Prints the gateway's answer as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgument,
}

/// A caller to tell of, or all.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  strait allowed
  strait allowed shop/frontend
  strait allowed shop/frontend --json

Of one caller it tells its documents, and what comes of them and of the imports: where each app is called, whether it can be
reached there, and by which names and addresses.

Exit codes:
  0  the gateway has answered
  1  it cannot be reached, or does not answer
  2  the command line is wrong")]
pub struct AllowedArguments {
    /// The app that calls, written namespace/app; without it, all that have a document
    #[arg(value_name = "CALLER", value_parser = AppId::parse)]
    caller: Option<AppId>,
    /// Prints everything as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgument,
}

/// Allows, and waits until that is in force.
pub(super) async fn allow(arguments: &AllowArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let AllowArguments { caller, target, cluster, json, admin } = arguments;
    let admin = admin.admin()?;
    let remote = RemoteApp { app: target.to_string(), clusters: cluster.clone() };
    let Some(written) = change(&admin, caller, "allow", &remote, *json, out).await? else {
        return Ok(Outcome::Done);
    };
    let already = if written.changed { "" } else { " already" };
    let place = places(cluster);
    writeln!(out.out, "{}", styled(PLAIN, &format!("{caller} may call {target}{place}{already}")))?;
    let outcome = in_force(&written, out)?;
    if outcome == Outcome::Done {
        let found = discovery(&admin, caller).await?;
        called(&found, target, &mut out.out)?;
    }
    Ok(outcome)
}

/// Revokes, and waits until that is in force.
pub(super) async fn revoke(arguments: &RevokeArguments, out: &mut Out) -> Result<Outcome, Failed> {
    let RevokeArguments { caller, target, json, admin } = arguments;
    let admin = admin.admin()?;
    let remote = RemoteApp { app: target.to_string(), clusters: Vec::new() };
    let Some(written) = change(&admin, caller, "revoke", &remote, *json, out).await? else {
        return Ok(Outcome::Done);
    };
    let told = if written.changed {
        format!("the document of {caller} has {target} no more")
    } else {
        format!("the document of {caller} does not have {target}")
    };
    writeln!(out.out, "{}", styled(PLAIN, &told))?;
    let outcome = in_force(&written, out)?;
    if outcome == Outcome::Done {
        let found = discovery(&admin, caller).await?;
        if callable(&found, target).is_some() {
            let told = format!(
                "{caller} may call {target} all the same: by `allow` of its import, or by the configuration's own document"
            );
            writeln!(out.err, "{}", styled(WARNING, &told))?;
        }
    }
    Ok(outcome)
}

/// Tells what is in force.
pub(super) async fn allowed(
    arguments: &AllowedArguments,
    out: &mut Out,
) -> Result<Outcome, Failed> {
    let admin = arguments.admin.admin()?;
    let Some(caller) = &arguments.caller else {
        let body = success(&admin, get(&admin, "/v1/allowed", ANSWER).await?)?;
        if arguments.json {
            return pretty(&admin, &body, out);
        }
        documents(&read::<Documents>(&admin, &body)?, &mut out.out)?;
        return Ok(Outcome::Done);
    };
    let path = format!("/v1/allowed?app={}", escaped(caller.as_str()));
    let known = success(&admin, get(&admin, &path, ANSWER).await?)?;
    let found = success(&admin, get(&admin, &discover_path(caller), ANSWER).await?)?;
    if arguments.json {
        let both = format!("{{\"allowed\": {known}, \"discovered\": {found}}}");
        return pretty(&admin, &both, out);
    }
    documents(&read::<Documents>(&admin, &known)?, &mut out.out)?;
    discovered(&read::<Discovery>(&admin, &found)?, &mut out.out)?;
    Ok(Outcome::Done)
}

/// Asks for a change; nothing where the answer was all that was wanted.
async fn change(
    admin: &Admin,
    caller: &AppId,
    verb: &str,
    remote: &RemoteApp,
    json: bool,
    out: &mut Out,
) -> Result<Option<Written>, Failed> {
    let (body, written) = request(admin, caller.as_str(), verb, remote).await?;
    if json && written.in_force != Some(false) {
        pretty(admin, &body, out)?;
        return Ok(None);
    }
    Ok(Some(written))
}

/// Asks for a change, and for word of when it is in force: the answer as it is, and what it says.
pub(super) async fn request(
    admin: &Admin,
    caller: &str,
    verb: &str,
    remote: &RemoteApp,
) -> Result<(String, Written), ClientError> {
    let path = format!("/v1/allowed/{caller}:{verb}?wait={IN_FORCE}");
    let body = serde_json::to_string(remote).unwrap_or_default();
    let question = Question { method: Method::POST, path: &path, body };
    let body = success(admin, ask(admin, &question, ANSWER).await?)?;
    let written = read(admin, &body)?;
    Ok((body, written))
}

/// Tells since when it is in force, or that it is not.
fn in_force(written: &Written, out: &mut Out) -> io::Result<Outcome> {
    let version = written.version.as_deref().unwrap_or("none");
    match (written.in_force, written.in_force_after_ms) {
        (Some(true), Some(after)) if written.changed => {
            writeln!(
                out.out,
                "{}",
                styled(PLAIN, &format!("version {version}, in force after {after} ms"))
            )?;
            Ok(Outcome::Done)
        }
        (Some(true), _) => {
            writeln!(out.out, "{}", styled(PLAIN, &format!("version {version}, in force")))?;
            Ok(Outcome::Done)
        }
        (Some(false) | None, _) => {
            let told = format!(
                "version {version} is written and was not in force after {IN_FORCE} s: another writer may have been faster, or the gateway does not hear of the store. `strait allowed` and `strait status` tell"
            );
            writeln!(out.err, "{}", styled(BAD, &told))?;
            Ok(Outcome::Refused)
        }
    }
}

async fn discovery(admin: &Admin, caller: &AppId) -> Result<Discovery, ClientError> {
    let body = success(admin, get(admin, &discover_path(caller), ANSWER).await?)?;
    read(admin, &body)
}

fn discover_path(caller: &AppId) -> String {
    format!("/v1/discover/{caller}")
}

fn callable<'a>(found: &'a Discovery, target: &AppId) -> Option<&'a Callable> {
    found.apps.iter().find(|app| app.app == target.as_str())
}

/// Tells how an app is called now that it may be.
fn called(found: &Discovery, target: &AppId, to: &mut impl Write) -> io::Result<()> {
    let Some(app) = callable(found, target) else {
        let told = "calls are refused all the same: the configuration's own list does not have it, or no other cluster is linked";
        return writeln!(to, "{}", styled(WARNING, told));
    };
    let names = app.names.iter().cloned();
    let ways: Vec<_> = names.chain(app.egress.iter().map(ToString::to_string)).collect();
    if !ways.is_empty() {
        writeln!(to, "{}", styled(PLAIN, &format!("called as {}", ways.join(" or "))))?;
    }
    if !app.healthy {
        let told = "no cluster can be reached now that offers it";
        writeln!(to, "{}", styled(WARNING, told))?;
    }
    hint(found, to)
}

fn hint(found: &Discovery, to: &mut impl Write) -> io::Result<()> {
    if found.known {
        return Ok(());
    }
    let told =
        format!("nothing says where {} calls from: add `from` to it under `apps`", found.app);
    writeln!(to, "{}", styled(HELP, &told))
}

fn documents(all: &Documents, to: &mut impl Write) -> io::Result<()> {
    if all.documents.is_empty() {
        return writeln!(to, "{}", styled(FAINT, "no document is in force"));
    }
    let mut table = Table::new(["CALLER", "MAY CALL", "WHERE", "BY", "VERSION"]);
    for InForce { source, version, document } in &all.documents {
        let caller = if document.app.is_empty() { "(all at most)" } else { &document.app };
        let by = match source {
            Source::Store => "store",
            Source::Configuration | Source::Cluster => "configuration",
        };
        let version = version.as_deref().unwrap_or_default();
        let mut row = |app: &str, place: String| {
            table.row([caller.into(), app.into(), place.into(), by.into(), version.into()]);
        };
        if document.allowed.is_empty() {
            row("nothing", String::new());
        }
        for RemoteApp { app, clusters } in &document.allowed {
            let place = if clusters.is_empty() { "any".to_owned() } else { clusters.join(", ") };
            row(app, place);
        }
    }
    table.print(to)
}

fn discovered(found: &Discovery, to: &mut impl Write) -> io::Result<()> {
    if found.apps.is_empty() {
        writeln!(to, "{}", styled(FAINT, &format!("{} may call nothing", found.app)))?;
    }
    let mut table = Table::new(["APP", "STATE", "CLUSTERS", "NAMES", "EGRESS"]);
    for app in &found.apps {
        let state =
            if app.healthy { Cell(GOOD, "healthy".into()) } else { Cell(BAD, "down".into()) };
        let cluster = |place: &crate::routing::discover::Place| {
            format!("{}{}", place.cluster, if place.healthy { "" } else { " (down)" })
        };
        let clusters: Vec<_> = app.clusters.iter().map(cluster).collect();
        let egress: Vec<_> = app.egress.iter().map(ToString::to_string).collect();
        let name = Cell::from(app.app.as_str());
        table.row([
            name,
            state,
            clusters.join(", ").into(),
            app.names.join(", ").into(),
            egress.join(", ").into(),
        ]);
    }
    table.print(to)?;
    hint(found, to)
}

fn places(clusters: &[String]) -> String {
    match clusters {
        [] => " in every cluster that exports it".to_owned(),
        clusters => format!(" in {}", clusters.join(", then ")),
    }
}

fn read<T: DeserializeOwned>(admin: &Admin, body: &str) -> Result<T, ClientError> {
    let wrong = |error: serde_json::Error| {
        let reason = format!("{error}. Another version? --json shows the answer as it is");
        ClientError::Wrong(admin.url.clone(), reason)
    };
    serde_json::from_str(body).map_err(wrong)
}

fn pretty(admin: &Admin, body: &str, out: &mut Out) -> Result<Outcome, Failed> {
    let value: Value = read(admin, body)?;
    writeln!(out.out, "{value:#}")?;
    Ok(Outcome::Done)
}
