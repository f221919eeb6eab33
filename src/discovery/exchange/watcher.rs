//! What all gateways of one cluster say together, and what of that is news.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::offer::{Callee, Exported, Offer, Offers, Presence, Reach, Wanted};
use crate::routing::endpoint::Endpoint;

use super::super::memory::Remembered;
use super::super::{Said, Snapshot};
use super::Heard;
use super::ask::{Silence, Word};

/// Word that nothing has changed goes out no more often than this.
const REST: Duration = Duration::from_secs(1);

/// One cluster.
pub(super) struct Watcher {
    cluster: Arc<str>,
    gateways: BTreeMap<SocketAddr, Gateway>,
    presence: Arc<Presence>,
    /// What is offered, by the gateway that is believed or from before the restart.
    offers: Option<Offers>,
    /// When that was last known to be true, while it is only remembered.
    as_of: Option<SystemTime>,
    news: News,
}

/// One of its gateways.
struct Gateway {
    endpoint: Arc<Endpoint>,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Not asked yet.
    Unknown,
    Heard(Heard),
    Silent(Silence),
}

/// What is to be said.
#[derive(Debug, Default)]
struct News {
    changed: bool,
    /// Something was heard since the last word.
    fresh: bool,
    failed: Option<String>,
    /// The failure that was said last, while it lasts.
    said: Option<String>,
    last: Option<Instant>,
}

impl Watcher {
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.into(),
            gateways: BTreeMap::new(),
            presence: Arc::default(),
            offers: None,
            as_of: None,
            news: News::default(),
        }
    }

    /// Takes over what was offered before the restart, so far as it is still wanted.
    pub(super) fn recall(
        &mut self,
        remembered: Remembered<BTreeMap<Callee, Exported>>,
        wanted: &Wanted,
    ) -> Said {
        let Remembered { said: mut apps, as_of } = remembered;
        apps.retain(|app, _| wanted.has(app));
        let offers = self.enter(Heard { apps, ignored: 0 });
        self.as_of = Some(as_of);
        Said::Remembered(Snapshot::Offers(Arc::new(offers)), as_of)
    }

    /// These are the cluster's gateways now.
    pub(super) fn follow(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.gateways.retain(|address, gateway| {
            endpoints
                .iter()
                .any(|one| one.address == *address && Arc::ptr_eq(one, &gateway.endpoint))
        });
        for endpoint in endpoints {
            self.gateways.entry(endpoint.address).or_insert_with(|| Gateway {
                endpoint: Arc::clone(endpoint),
                state: State::Unknown,
            });
        }
        if endpoints.is_empty() {
            self.news.failed = Some("no gateway has an address".to_owned());
        }
        self.judge();
    }

    pub(super) fn hear(&mut self, from: SocketAddr, word: Word) {
        let Some(gateway) = self.gateways.get_mut(&from) else { return };
        match word {
            Word::Same => self.news.fresh = true,
            Word::State(heard) => {
                gateway.endpoint.checked(true);
                if !matches!(gateway.state, State::Heard(_)) {
                    info!(cluster = %self.cluster, gateway = %from, "the gateway tells what is exported there");
                }
                gateway.state = State::Heard(heard);
                self.news.fresh = true;
                self.judge();
            }
            Word::Silent(silence) => {
                // One that answers may still carry calls.
                gateway.endpoint.checked(silence.answers);
                if gateway.state != State::Silent(silence.clone()) {
                    let why = &silence.why;
                    warn!(cluster = %self.cluster, gateway = %from, %why, "the gateway does not tell what is exported there");
                }
                gateway.state = State::Silent(silence);
                self.judge();
            }
        }
    }

    /// The first of the gateways that are heard is believed, as long as it is: they all say the same but for moments.
    fn judge(&mut self) {
        let heard = self.gateways.values().find_map(|gateway| match &gateway.state {
            State::Heard(heard) => Some(heard.clone()),
            State::Unknown | State::Silent(_) => None,
        });
        match heard {
            Some(heard) => {
                self.news.failed = None;
                if self.presence.lose(false) {
                    info!(cluster = %self.cluster, "the cluster is heard again");
                }
                self.believe(heard);
            }
            None => self.nobody(),
        }
    }

    fn believe(&mut self, heard: Heard) {
        let before = self.offers.clone();
        let offers = self.enter(heard);
        self.as_of = None;
        self.news.changed |= before.as_ref() != Some(&offers);
    }

    /// Marks stay with their apps, so that tables which hold them see what becomes of them.
    fn enter(&mut self, heard: Heard) -> Offers {
        let before = self.offers.take().map(|offers| offers.apps).unwrap_or_default();
        let offer = |(app, Exported { names, healthy }): (Callee, Exported)| {
            let known = before.get(&app).map(|offer| Arc::clone(&offer.reach));
            let reach = known.unwrap_or_else(|| Arc::new(Reach::new(&self.presence, healthy)));
            reach.set_healthy(healthy);
            (app, Offer { names, reach })
        };
        let apps = heard.apps.into_iter().map(offer).collect();
        let offers = Offers { cluster: Arc::clone(&self.cluster), apps, ignored: heard.ignored };
        self.offers = Some(offers.clone());
        offers
    }

    /// What was said last stays. Where something answers without ever having told anything, nothing is known, and nothing lost.
    fn nobody(&mut self) {
        let silent: Vec<_> = self
            .gateways
            .iter()
            .filter_map(|(at, gateway)| match &gateway.state {
                State::Silent(silence) => Some((at, silence)),
                State::Unknown | State::Heard(_) => None,
            })
            .collect();
        if silent.len() < self.gateways.len() {
            return;
        }
        let Some((at, silence)) = silent.first() else { return };
        self.news.failed = Some(format!("{at}: {}", silence.why));
        let told = self.offers.is_some() && self.as_of.is_none();
        let lost = told || silent.iter().all(|(_, silence)| !silence.answers);
        if self.presence.lose(lost) && lost {
            warn!(cluster = %self.cluster, "no gateway of the cluster is heard: its apps count as unhealthy");
        }
    }

    pub(super) fn has_news(&self) -> bool {
        let News { changed, fresh, failed, said, last } = &self.news;
        let rested = last.is_none_or(|at| at.elapsed() >= REST);
        *changed
            || (failed.is_some() && failed != said)
            || (failed.is_none() && (said.is_some() || *fresh && rested))
    }

    /// When what was heard can be said.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waits = self.news.fresh && self.news.failed.is_none() && !self.has_news();
        self.news.last.filter(|_| waits).map(|at| at + REST)
    }

    pub(super) fn news(&mut self) -> Option<Said> {
        if !self.has_news() {
            return None;
        }
        let news = &mut self.news;
        news.last = Some(Instant::now());
        news.fresh = false;
        if std::mem::take(&mut news.changed) {
            let offers = self.offers.clone()?;
            return Some(Said::Snapshot(Snapshot::Offers(Arc::new(offers))));
        }
        news.said.clone_from(&news.failed);
        Some(news.said.clone().map_or(Said::Unchanged, Said::Failed))
    }
}
