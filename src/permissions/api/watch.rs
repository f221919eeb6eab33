//! `GET /v1/allowed?watch=true`: what is in force, and what it becomes, a line of JSON each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use crate::model::app::AppId;
use crate::permissions::in_force::{Entry, InForce, Key};
use crate::problem::Problem;

use super::wire::Event;
use super::{Desk, listed, problems};

/// Open watches. Together they leave most of the listener's connections to others.
pub(super) const MOST: usize = 16;
/// From one line to a heartbeat: often enough for proxies and NAT, which forget what is silent for a minute or less.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Lines that wait for a client to read them. One that is slower is told of the last state alone.
const LINES: usize = 64;

type Lines = mpsc::Sender<Result<Bytes, Infallible>>;

/// The client has gone.
struct Gone;

pub(super) fn open(desk: &Desk, only: Option<AppId>) -> Result<Response, Problem> {
    let place = Arc::clone(&desk.watches).try_acquire_owned();
    let place = place.map_err(|_| problems::too_many_watches(MOST))?;
    let (lines, body) = mpsc::channel(LINES);
    let (in_force, stop) = (desk.service.follow(), desk.stop.clone());
    tokio::spawn(async move {
        let _place = place;
        let told = tell(in_force, only.as_ref(), &lines);
        // Ends with the body, which ends with the sender of the lines.
        stop.run_until_cancelled(told).await
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(ReceiverStream::new(body))).into_response())
}

async fn tell(
    mut in_force: watch::Receiver<Arc<InForce>>,
    only: Option<&AppId>,
    lines: &Lines,
) -> Result<(), Gone> {
    let mut told = BTreeMap::new();
    let now = |in_force: &mut watch::Receiver<Arc<InForce>>| {
        let mut entries = in_force.borrow_and_update().entries();
        entries.retain(|(app, _), _| only.is_none() || app.as_ref() == only);
        entries
    };
    difference(&mut told, now(&mut in_force), lines).await?;
    line(lines, &Event::Complete).await?;
    loop {
        tokio::select! {
            biased;
            () = lines.closed() => return Err(Gone),
            changed = in_force.changed() => {
                changed.map_err(|_| Gone)?;
                difference(&mut told, now(&mut in_force), lines).await?;
            }
            () = sleep(HEARTBEAT) => line(lines, &Event::Heartbeat).await?,
        }
    }
}

/// Tells in what the present differs from what was told.
async fn difference(
    told: &mut BTreeMap<Key, Entry>,
    now: BTreeMap<Key, Entry>,
    lines: &Lines,
) -> Result<(), Gone> {
    for (app, source) in told.keys().filter(|key| !now.contains_key(key)) {
        let app = app.as_ref().map_or_else(String::new, ToString::to_string);
        line(lines, &Event::Gone { source: *source, app }).await?;
    }
    for (key, entry) in now.iter().filter(|(key, entry)| told.get(key) != Some(entry)) {
        line(lines, &Event::Document(listed(key.1, entry))).await?;
    }
    *told = now;
    Ok(())
}

async fn line(lines: &Lines, event: &Event) -> Result<(), Gone> {
    // Fails only for maps with keys that are no text, which an event does not have.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    lines.send(Ok(line.into())).await.map_err(|_| Gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::in_force::testing::in_force;
    use tokio::time::Instant;

    async fn next(lines: &mut mpsc::Receiver<Result<Bytes, Infallible>>) -> serde_json::Value {
        let Some(Ok(line)) = lines.recv().await else { panic!("no line") };
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_tells_all_then_changes_then_that_it_lives() {
        let first = in_force(&[("shop/a", "1"), ("shop/b", "1")]);
        let (sender, receiver) = watch::channel(Arc::new(first));
        let (lines, mut told) = mpsc::channel(1);
        let task = tokio::spawn(async move { tell(receiver, None, &lines).await.is_err() });
        for app in ["shop/a", "shop/b"] {
            let line = next(&mut told).await;
            assert_eq!(
                (&line["event"], &line["document"]["app"]),
                (&"document".into(), &app.into())
            );
        }
        assert_eq!(next(&mut told).await["event"], "complete");
        sender.send(Arc::new(in_force(&[("shop/b", "2")]))).unwrap();
        let gone = next(&mut told).await;
        assert_eq!((&gone["event"], &gone["app"]), (&"gone".into(), &"shop/a".into()));
        let changed = next(&mut told).await;
        assert_eq!((&changed["version"], &changed["source"]), (&"2".into(), &"store".into()));
        let quiet = Instant::now();
        assert_eq!(next(&mut told).await["event"], "heartbeat");
        assert_eq!(quiet.elapsed(), HEARTBEAT);
        drop(told);
        assert!(task.await.unwrap(), "it ends with its client");
    }
}
