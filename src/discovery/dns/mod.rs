//! The source `dns`: resolves the names of endpoints, all addresses of both families, again whenever their TTL has passed.
//!
//! A negative answer is an answer: a name that does not exist any more, or has no address, empties its endpoints, as a headless
//! Service does whose last pod is gone. SERVFAIL, REFUSED, a time-out or nonsense is none: the last good addresses stay for good.

mod again;
mod report;
mod resolve;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::model::name::Name;
use crate::model::snapshot::Addresses;

pub use self::again::{Again, Request};

use self::again::Waiting;
use self::report::{Report, Word};
use self::resolve::{Answer, Answers, Resolver};
use super::memory::Remembered;
use super::{Said, Update, is_local};

/// The source's name in updates, metrics and status.
pub const SOURCE: &str = "dns";

/// A name is not asked for more often than this, whatever its TTL: 0 would be a busy loop. Kubernetes' DNS says 5 s.
const SHORTEST: Duration = Duration::from_secs(1);
/// A name is asked for at least this often: a TTL of a day must not keep a gateway on an address that was given up.
const LONGEST: Duration = Duration::from_mins(5);
/// Names without an address and names that fail are asked for again after 1 s, 2 s, 4 s and then this. Short, because an app that
/// starts is waited for, and cheap, because the resolver asked has a cache of its own (30 s at most in Kubernetes).
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// Part of the wait that chance adds, so that names which were asked together drift apart. Never less than the TTL: asking early
/// would only get the rest of the old answer from a cache.
const SPREAD: f64 = 0.1;
/// Names in question at a time, two queries each. A thousand names at start are 32 waves of a cluster resolver's millisecond.
const AT_A_TIME: usize = 32;
/// The first word comes when every name has been asked, or after this with what is known: some dead zones must not keep all other
/// routes waiting. Half of the 10 s after which the gateway is ready in any case.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// What the operator can set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The servers to ask, in this order; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Whether names may stand for loopback, link-local and metadata addresses ([`is_local`]).
    pub allow_local: bool,
}

/// The addresses of one name, at least one, IPv6 last: for who connects now and then and keeps no answer.
pub async fn lookup(settings: &Settings, name: &Name) -> Result<Vec<IpAddr>, String> {
    let (mut found, mut failed) = (Vec::new(), None);
    for answer in Resolver::new(&settings.servers).resolve(name).await {
        match answer {
            Answer::Addresses { list, ttl: _ } => found.extend(list),
            Answer::Nothing => {}
            Answer::Failed(reason) => failed = Some(reason),
        }
    }
    if found.is_empty() {
        return Err(format!(
            "{name}: {}",
            failed.unwrap_or_else(|| "it has no address".to_owned())
        ));
    }
    Ok(found)
}

/// Follows the names until `stop`. Settings and names may change at any time.
///
/// Has spoken when every name was asked once, or after 5 s; without names, at once: start it when the first configuration
/// has said which names there are. What is remembered stands for each name until that is answered.
#[allow(clippy::implicit_hasher, reason = "one caller, which has std's")]
pub async fn watch(
    settings: watch::Receiver<Settings>,
    names: watch::Receiver<Arc<HashSet<Name>>>,
    remembered: Option<Remembered<Addresses>>,
    again: mpsc::Receiver<Request>,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) {
    let ask = |settings: &Settings| -> Ask {
        let resolver = Arc::new(Resolver::new(&settings.servers));
        Box::new(move |name| {
            let resolver = Arc::clone(&resolver);
            Box::pin(async move { resolver.resolve(&name).await })
        })
    };
    watch_with(ask, settings, names, remembered, again, updates, stop).await;
}

/// Asks for one name.
type Ask = Box<dyn Fn(Name) -> Pin<Box<dyn Future<Output = Answers> + Send>> + Send>;

async fn watch_with(
    asker: impl Fn(&Settings) -> Ask,
    mut settings: watch::Receiver<Settings>,
    mut names: watch::Receiver<Arc<HashSet<Name>>>,
    remembered: Option<Remembered<Addresses>>,
    mut again: mpsc::Receiver<Request>,
    updates: mpsc::Sender<Update>,
    stop: CancellationToken,
) {
    let now = settings.borrow_and_update().clone();
    let mut watcher = Watcher::new(asker(&now), now.allow_local);
    watcher.follow(&Arc::clone(&names.borrow_and_update()));
    if let Some(said) = remembered.and_then(|remembered| watcher.recall(remembered)) {
        // Fails only where nobody listens any more.
        let _ = updates.send(Update { source: SOURCE.into(), said }).await;
    }
    let first_word = Instant::now() + FIRST_WORD;
    loop {
        watcher.ask_what_is_due();
        watcher.tell_who_waits();
        let (due, news) = (watcher.next_due(), watcher.next_word().is_some());
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = settings.changed() => {
                let now = settings.borrow_and_update().clone();
                watcher.set(asker(&now), now.allow_local);
            }
            Ok(()) = names.changed() => {
                let now = Arc::clone(&names.borrow_and_update());
                watcher.follow(&now);
            }
            Some(answered) = watcher.asked.join_next() => watcher.hear(answered),
            Some(request) = again.recv() => watcher.ask_again(request),
            () = sleep_until(due) => {}
            () = tokio::time::sleep_until(first_word), if !watcher.report.spoken => watcher.speak_without_the_rest(),
            // Reserved before it is made: while the owner is busy building, one snapshot stands for many changes.
            Ok(permit) = updates.reserve(), if news => {
                if let Some(said) = watcher.news() {
                    permit.send(Update { source: SOURCE.into(), said });
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// All names and what is known of them.
struct Watcher {
    ask: Ask,
    allow_local: bool,
    names: HashMap<Name, Known>,
    /// When to ask for what. A ticket that is not the name's any more is void.
    due: BTreeSet<(Instant, Ticket, Name)>,
    asked: JoinSet<(Name, Ticket, Answers)>,
    tickets: Ticket,
    report: Report,
    /// When the addresses that are only remembered were last known to be true.
    as_of: Option<SystemTime>,
    waiting: Waiting,
    chance: RandomState,
}

type Ticket = u64;

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    ticket: Ticket,
    asked: bool,
    /// When it was last asked for out of turn.
    again: Option<Instant>,
    /// The lists are from before the restart, one of them at least.
    remembered: bool,
    /// The last answer in each family, if there was one.
    families: [Option<Vec<IpAddr>>; 2],
    /// Answers in a row without an address, or with a failure.
    barren: u32,
}

impl Watcher {
    fn new(ask: Ask, allow_local: bool) -> Self {
        Self {
            ask,
            allow_local,
            names: HashMap::new(),
            due: BTreeSet::new(),
            asked: JoinSet::new(),
            tickets: 0,
            report: Report::default(),
            as_of: None,
            waiting: Waiting::default(),
            chance: RandomState::new(),
        }
    }

    /// Other servers, or other rules: everything is asked again, and until then the last answers stand.
    fn set(&mut self, ask: Ask, allow_local: bool) {
        (self.ask, self.allow_local) = (ask, allow_local);
        self.start_over();
    }

    fn start_over(&mut self) {
        self.asked = JoinSet::new();
        self.due.clear();
        let names: Vec<Name> = self.names.keys().cloned().collect();
        for name in names {
            self.schedule(name, Duration::ZERO);
        }
    }

    /// Takes names up and drops those that nobody needs any more.
    fn follow(&mut self, wanted: &HashSet<Name>) {
        let before = self.names.len();
        self.names.retain(|name, _| wanted.contains(name));
        self.report.failing.retain(|name, _| wanted.contains(name));
        self.report.changed |= self.names.len() != before;
        for name in wanted {
            if !self.names.contains_key(name) {
                self.names.insert(name.clone(), Known::default());
                self.schedule(name.clone(), Duration::ZERO);
            }
        }
        self.speak_if_all_asked();
    }

    /// Takes over what was known before the restart of names that are still wanted. The rules of today apply to it.
    fn recall(
        &mut self,
        Remembered { said: addresses, as_of }: Remembered<Addresses>,
    ) -> Option<Said> {
        for (name, list) in addresses.0 {
            if let Some(known) = self.names.get_mut(&name) {
                known.recall(usable(&name, &list, self.allow_local));
                self.as_of = Some(as_of);
            }
        }
        self.as_of.map(|_| self.all())
    }

    /// Asks for names at once, whatever their TTL, but not too often.
    fn ask_again(&mut self, request: Request) {
        let names = &self.names;
        let due = self.waiting.take(request, |name| names.get(name).map(|known| known.again));
        for name in due {
            if let Some(known) = self.names.get_mut(&name) {
                known.again = Some(Instant::now());
            }
            self.schedule(name, Duration::ZERO);
        }
    }

    fn tell_who_waits(&mut self) {
        if !self.report.changed {
            self.waiting.said();
        }
    }

    fn schedule(&mut self, name: Name, wait: Duration) {
        self.tickets += 1;
        if let Some(known) = self.names.get_mut(&name) {
            known.ticket = self.tickets;
            self.due.insert((Instant::now() + wait, self.tickets, name));
        }
    }

    fn ask_what_is_due(&mut self) {
        let now = Instant::now();
        while self.asked.len() < AT_A_TIME
            && self.due.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, ticket, name)) = self.due.pop_first()
        {
            if self.names.get(&name).is_some_and(|known| known.ticket == ticket) {
                let answer = (self.ask)(name.clone());
                self.asked.spawn(async move { (name, ticket, answer.await) });
            }
        }
    }

    /// When there is something to ask and room for it; `None` while an answer must come first.
    fn next_due(&self) -> Option<Instant> {
        self.due.first().filter(|_| self.asked.len() < AT_A_TIME).map(|(at, ..)| *at)
    }

    fn hear(&mut self, answered: Result<(Name, Ticket, Answers), JoinError>) {
        let Ok((name, ticket, answers)) = answered else {
            // A panic in the resolver took the name with it.
            return self.start_over();
        };
        let Some(known) = self.names.get_mut(&name).filter(|known| known.ticket == ticket) else {
            return;
        };
        self.waiting.heard(&name);
        let before = known.addresses();
        let trouble = known.take(&name, &answers, self.allow_local);
        let after = known.addresses();
        if after != before {
            info!(%name, addresses = ?after, "DNS answer changed");
        }
        self.report.hear(&name, trouble, after != before);
        let wait = known.wait(&answers);
        let wait = wait.mul_f64(1.0 + SPREAD * self.chance_of(&name, ticket));
        self.schedule(name, wait);
        self.speak_if_all_asked();
    }

    /// From 0 to 1. std's hasher is keyed with randomness: no generator is needed for so little.
    fn chance_of(&self, name: &Name, ticket: Ticket) -> f64 {
        let hash = self.chance.hash_one((name, ticket));
        f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }

    fn speak_if_all_asked(&mut self) {
        if !self.report.spoken && self.names.values().all(|known| known.asked) {
            self.report.speak();
        }
    }

    /// Some names take too long: what is known goes out, and they count as failing.
    fn speak_without_the_rest(&mut self) {
        let silent = self.names.iter().filter(|(_, known)| !known.asked);
        let why = || format!("no answer within {} s", FIRST_WORD.as_secs());
        self.report.failing.extend(silent.map(|(name, _)| (name.clone(), why())));
        self.report.speak();
    }

    fn next_word(&self) -> Option<Word> {
        self.report.next(Instant::now(), self.names.len())
    }

    fn news(&mut self) -> Option<Said> {
        let word = self.next_word()?;
        self.report.said(&word);
        Some(match word {
            Word::Snapshot => self.all(),
            Word::Unchanged => Said::Unchanged,
            Word::Failed(why) => Said::Failed(why),
        })
    }

    fn all(&self) -> Said {
        match self.as_of.filter(|_| self.names.values().any(|known| known.remembered)) {
            Some(as_of) => Said::Remembered(self.snapshot().into(), as_of),
            None => self.snapshot().into(),
        }
    }

    fn snapshot(&self) -> Addresses {
        let known = self.names.iter();
        Addresses(
            known.filter_map(|(name, known)| Some((name.clone(), known.addresses()?))).collect(),
        )
    }
}

impl Known {
    fn recall(&mut self, list: Vec<IpAddr>) {
        let (v4, v6) = list.into_iter().partition(IpAddr::is_ipv4);
        self.families = [Some(v4), Some(v6)];
        self.remembered = true;
    }

    /// Takes answers over and returns the failure among them.
    fn take(&mut self, name: &Name, answers: &Answers, allow_local: bool) -> Option<String> {
        let mut trouble = None;
        for (known, answer) in self.families.iter_mut().zip(answers) {
            match answer {
                Answer::Addresses { list, .. } => *known = Some(usable(name, list, allow_local)),
                Answer::Nothing => *known = Some(Vec::new()),
                Answer::Failed(why) => trouble = Some(why.clone()),
            }
        }
        self.asked = true;
        self.remembered &= trouble.is_some();
        let fruitful = trouble.is_none() && self.addresses().is_some_and(|list| !list.is_empty());
        self.barren = if fruitful { 0 } else { self.barren.saturating_add(1) };
        trouble
    }

    /// The addresses of both families; `None` while it is not known whether there are any.
    fn addresses(&self) -> Option<Vec<IpAddr>> {
        let mut list: Vec<IpAddr> = self.families.iter().flatten().flatten().copied().collect();
        list.sort_unstable();
        list.dedup();
        let known = !list.is_empty() || self.families.iter().all(Option::is_some);
        known.then_some(list)
    }

    /// How long the answers may be relied on.
    fn wait(&self, answers: &Answers) -> Duration {
        let ttls = answers.iter().filter_map(|answer| match answer {
            Answer::Addresses { ttl, .. } => Some((*ttl).clamp(SHORTEST, LONGEST)),
            Answer::Nothing | Answer::Failed(_) => None,
        });
        let retry = match self.barren {
            0 => LONGEST,
            times => (SHORTEST * 2_u32.saturating_pow(times - 1)).min(LONGEST_RETRY),
        };
        ttls.min().map_or(retry, |ttl| ttl.min(retry))
    }
}

fn usable(name: &Name, list: &[IpAddr], allow_local: bool) -> Vec<IpAddr> {
    let (local, usable): (Vec<IpAddr>, _) = list
        .iter()
        .map(IpAddr::to_canonical)
        .partition(|&address| !allow_local && is_local(address));
    if !local.is_empty() {
        warn!(%name, ?local, "DNS names this machine, its link or a metadata service: not used");
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::super::Snapshot;
    use super::*;
    use std::sync::Mutex;

    /// DNS that the test makes up, and everything that runs on it.
    struct Bench {
        world: Arc<Mutex<World>>,
        settings: watch::Sender<Settings>,
        names: watch::Sender<Arc<HashSet<Name>>>,
        updates: mpsc::Receiver<Update>,
        _stop: tokio_util::sync::DropGuard,
    }

    #[derive(Default)]
    struct World {
        answers: HashMap<Name, Answers>,
        asked: Vec<(Name, Instant)>,
        takes: Duration,
        at_a_time: usize,
        most_at_a_time: usize,
    }

    fn name(written: &str) -> Name {
        Name::parse(written).unwrap()
    }

    fn found(list: &[&str], ttl: u64) -> Answers {
        let parse = |v4: bool| {
            let list = list.iter().map(|address| address.parse::<IpAddr>().unwrap());
            let list: Vec<_> = list.filter(|address| address.is_ipv4() == v4).collect();
            if list.is_empty() {
                Answer::Nothing
            } else {
                Answer::Addresses { list, ttl: Duration::from_secs(ttl) }
            }
        };
        [parse(true), parse(false)]
    }

    fn failed() -> Answers {
        [Answer::Failed("SERVFAIL".into()), Answer::Failed("SERVFAIL".into())]
    }

    fn said(known: &[(&str, &[&str])]) -> Said {
        let parse = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
        Addresses(known.iter().map(|(host, list)| (name(host), parse(list))).collect()).into()
    }

    fn bench(names: &[&str], world: World) -> Bench {
        bench_with(names, world, None)
    }

    fn bench_with(
        names: &[&str],
        world: World,
        remembered: Option<Remembered<Addresses>>,
    ) -> Bench {
        let world = Arc::new(Mutex::new(world));
        let asker = {
            let world = Arc::clone(&world);
            move |_: &Settings| -> Ask {
                let world = Arc::clone(&world);
                Box::new(move |name| {
                    let world = Arc::clone(&world);
                    Box::pin(async move {
                        let takes = {
                            let mut world = world.lock().unwrap();
                            world.asked.push((name.clone(), Instant::now()));
                            world.at_a_time += 1;
                            world.most_at_a_time = world.most_at_a_time.max(world.at_a_time);
                            world.takes
                        };
                        tokio::time::sleep(takes).await;
                        let mut world = world.lock().unwrap();
                        world.at_a_time -= 1;
                        world.answers.get(&name).cloned().unwrap_or_else(failed)
                    })
                })
            }
        };
        let names = names.iter().map(|written| name(written)).collect();
        let (names, wanted) = watch::channel(Arc::new(names));
        let (settings, set) = watch::channel(Settings::default());
        let (tell, updates) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let (_, again) = Again::new();
        tokio::spawn(watch_with(asker, set, wanted, remembered, again, tell, stop.clone()));
        Bench { world, settings, names, updates, _stop: stop.drop_guard() }
    }

    fn world(answers: &[(&str, Answers)]) -> World {
        let answers = answers.iter().map(|(host, answers)| (name(host), answers.clone())).collect();
        World { answers, ..World::default() }
    }

    impl Bench {
        fn answer(&self, host: &str, answers: Answers) {
            self.world.lock().unwrap().answers.insert(name(host), answers);
        }

        async fn hears(&mut self) -> Said {
            let update = self.updates.recv().await.unwrap();
            assert_eq!(&*update.source, SOURCE);
            update.said
        }

        /// The next word that is news.
        async fn hears_news(&mut self) -> Said {
            loop {
                match self.hears().await {
                    Said::Unchanged => {}
                    news @ (Said::Snapshot(_)
                    | Said::Remembered(..)
                    | Said::Failed(_)
                    | Said::Gone) => {
                        return news;
                    }
                }
            }
        }

        /// When the name was asked for, from the first time on, in seconds.
        fn asked(&self, host: &str) -> Vec<f64> {
            let world = self.world.lock().unwrap();
            let times = world.asked.iter().filter(|(asked, _)| *asked == name(host));
            let times: Vec<Instant> = times.map(|(_, at)| *at).collect();
            times.iter().map(|at| at.duration_since(times[0]).as_secs_f64()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_word_is_everything_and_waits_for_everything() {
        let mut world = world(&[("a.example", found(&["10.0.0.2", "fd00::1", "10.0.0.1"], 5))]);
        world.takes = Duration::from_secs(1);
        world.answers.insert(name("gone.example"), found(&[], 0));
        let mut bench = bench(&["a.example", "gone.example"], world);
        let start = Instant::now();
        let list: &[&str] = &["10.0.0.1", "10.0.0.2", "fd00::1"];
        assert_eq!(bench.hears().await, said(&[("a.example", list), ("gone.example", &[])]));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn without_names_it_speaks_at_once() {
        let mut bench = bench(&[], World::default());
        let start = Instant::now();
        assert_eq!(bench.hears().await, said(&[]));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_at_the_start_is_not_an_empty_snapshot() {
        let mut bench = bench(&["a.example"], World::default());
        assert_eq!(bench.hears().await, Said::Failed("a.example: SERVFAIL".into()));
        bench.answer("a.example", found(&["10.0.0.1"], 5));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_does_not_delay_the_first_word_for_ever() {
        let world = World { takes: FIRST_WORD * 3, ..World::default() };
        let mut bench = bench(&["a.example"], world);
        let start = Instant::now();
        assert_eq!(bench.hears().await, Said::Failed("a.example: no answer within 5 s".into()));
        assert_eq!(start.elapsed(), FIRST_WORD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_when_the_ttl_has_passed() {
        let mut bench = bench(&["a.example"], world(&[("a.example", found(&["10.0.0.1"], 5))]));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        let start = Instant::now();
        bench.answer("a.example", found(&["10.0.0.2"], 5));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.2"])]));
        let took = start.elapsed().as_secs_f64();
        assert!((5.0..=5.51).contains(&took), "{took}");
        assert_eq!(bench.hears().await, Said::Unchanged);
        bench.answer("a.example", found(&[], 5));
        assert_eq!(bench.hears_news().await, said(&[("a.example", &[])]));
    }

    #[tokio::test(start_paused = true)]
    async fn ttls_are_bounded_on_both_sides() {
        let answers =
            [("a.example", found(&["10.0.0.1"], 0)), ("b.example", found(&["10.0.0.2"], 86_400))];
        let bench = bench(&["a.example", "b.example"], world(&answers));
        drop(bench.updates);
        let bench = Bench { updates: mpsc::channel(1).1, ..bench };
        tokio::time::sleep(LONGEST.mul_f64(1.2)).await;
        assert!((300..=360).contains(&bench.asked("a.example").len()));
        assert_eq!(bench.asked("b.example").len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_keeps_the_last_good_addresses_and_is_retried_with_growing_pauses() {
        let mut bench = bench(&["a.example"], world(&[("a.example", found(&["10.0.0.1"], 1))]));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        bench.answer("a.example", failed());
        assert_eq!(bench.hears().await, Said::Failed("a.example: SERVFAIL".into()));
        let before = bench.asked("a.example").len();
        let silent = tokio::time::timeout(Duration::from_mins(1), bench.hears()).await;
        assert!(silent.is_err(), "{silent:?}");
        let asked = bench.asked("a.example");
        let pauses: Vec<f64> = asked[before - 1..].windows(2).map(|two| two[1] - two[0]).collect();
        for (pause, least) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
            assert!((least..=least * 1.11).contains(pause), "{pauses:?}");
        }
        bench.answer("a.example", found(&["10.0.0.1"], 1));
        assert_eq!(bench.hears().await, Said::Unchanged);
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_may_fail_while_the_other_serves() {
        let half = |list: &[&str]| [found(list, 5)[0].clone(), Answer::Failed("SERVFAIL".into())];
        let mut bench = bench(&["a.example"], world(&[("a.example", half(&["10.0.0.1"]))]));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        assert_eq!(bench.hears().await, Said::Failed("a.example: SERVFAIL".into()));
        bench.answer("a.example", found(&["10.0.0.1", "fd00::1"], 5));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1", "fd00::1"])]));
        bench.answer("a.example", half(&["10.0.0.2"]));
        assert_eq!(bench.hears_news().await, said(&[("a.example", &["10.0.0.2", "fd00::1"])]));
    }

    #[test]
    fn no_address_in_one_family_says_nothing_of_the_other() {
        let mut known = Known::default();
        let half = [Answer::Nothing, Answer::Failed("SERVFAIL".into())];
        assert!(known.take(&name("a.example"), &half, false).is_some());
        assert_eq!(known.addresses(), None);
        assert!(known.take(&name("a.example"), &found(&[], 0), false).is_none());
        assert_eq!(known.addresses(), Some(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn local_addresses_are_used_only_where_they_are_allowed() {
        let answers = found(&["127.0.0.1", "10.0.0.1", "::ffff:169.254.169.254"], 5);
        let mut bench = bench(&["a.example"], world(&[("a.example", answers)]));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        bench.settings.send_modify(|settings| settings.allow_local = true);
        let all: &[&str] = &["10.0.0.1", "127.0.0.1", "169.254.169.254"];
        assert_eq!(bench.hears_news().await, said(&[("a.example", all)]));
    }

    fn remembered(known: &[(&str, &[&str])]) -> Remembered<Addresses> {
        let Said::Snapshot(Snapshot::Addresses(said)) = said(known) else { unreachable!() };
        Remembered { said, as_of: SystemTime::UNIX_EPOCH }
    }

    fn still(known: &[(&str, &[&str])]) -> Said {
        let Remembered { said, as_of } = remembered(known);
        Said::Remembered(said.into(), as_of)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_said_first_and_stands_until_every_name_is_answered() {
        let known: &[(&str, &[&str])] = &[
            ("a.example", &["10.0.0.1", "127.0.0.1"]),
            ("b.example", &["10.0.0.2", "fd00::2"]),
            ("forgotten.example", &["10.0.0.3"]),
        ];
        let world = world(&[("b.example", found(&["10.0.0.9"], 5))]);
        let names = ["a.example", "b.example", "new.example"];
        let mut bench = bench_with(&names, world, Some(remembered(known)));
        let (a, b): (&[&str], &[&str]) = (&["10.0.0.1"], &["10.0.0.2", "fd00::2"]);
        assert_eq!(bench.hears().await, still(&[("a.example", a), ("b.example", b)]));
        let b: &[&str] = &["10.0.0.9"];
        assert_eq!(bench.hears_news().await, still(&[("a.example", a), ("b.example", b)]));
        let failing = "2 of 3 names fail; a.example: SERVFAIL".to_owned();
        assert_eq!(bench.hears_news().await, Said::Failed(failing));
        bench.answer("new.example", found(&[], 5));
        let all: &[(&str, &[&str])] = &[("a.example", a), ("b.example", b), ("new.example", &[])];
        assert_eq!(bench.hears_news().await, still(all));
        assert_eq!(bench.hears_news().await, Said::Failed("a.example: SERVFAIL".into()));
        // The same as before: no news, but it is DNS that says so now.
        bench.answer("a.example", found(&["10.0.0.1"], 5));
        assert_eq!(bench.hears().await, Said::Unchanged);
        bench.answer("b.example", found(&["10.0.0.8"], 5));
        let b: &[&str] = &["10.0.0.8"];
        let all: &[(&str, &[&str])] = &[("a.example", a), ("b.example", b), ("new.example", &[])];
        assert_eq!(bench.hears_news().await, said(all));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_names_that_nobody_needs_is_not_said() {
        let remembered = remembered(&[("gone.example", &["10.0.0.1"])]);
        let mut bench = bench_with(&[], World::default(), Some(remembered));
        assert_eq!(bench.hears().await, said(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn names_come_and_go() {
        let answers =
            [("a.example", found(&["10.0.0.1"], 5)), ("b.example", found(&["10.0.0.2"], 5))];
        let mut bench = bench(&["a.example"], world(&answers));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        bench.names.send_replace(Arc::new(HashSet::from([name("b.example")])));
        let gone_first = bench.hears().await;
        assert!(gone_first == said(&[]) || gone_first == said(&[("b.example", &["10.0.0.2"])]));
        if gone_first == said(&[]) {
            assert_eq!(bench.hears().await, said(&[("b.example", &["10.0.0.2"])]));
        }
        let asked = bench.asked("a.example").len();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(bench.asked("a.example").len(), asked);
    }

    #[tokio::test(start_paused = true)]
    async fn other_servers_are_asked_at_once() {
        let mut bench = bench(&["a.example"], world(&[("a.example", found(&["10.0.0.1"], 300))]));
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.1"])]));
        bench.answer("a.example", found(&["10.0.0.2"], 300));
        let before = Instant::now();
        bench.settings.send_modify(|settings| settings.servers = vec![([10, 0, 0, 53], 53).into()]);
        assert_eq!(bench.hears().await, said(&[("a.example", &["10.0.0.2"])]));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_names_are_asked_a_few_at_a_time_and_drift_apart() {
        let hosts: Vec<String> = (0..1000).map(|number| format!("app-{number}.example")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let answers: Vec<_> = hosts.iter().map(|host| (*host, found(&["10.0.0.1"], 100))).collect();
        let mut world = world(&answers);
        world.takes = Duration::from_millis(1);
        let mut bench = bench(&hosts, world);
        let first = bench.hears().await;
        let Said::Snapshot(Snapshot::Addresses(all)) = first else { panic!("{first:?}") };
        assert_eq!(all.0.len(), 1000);
        assert_eq!(bench.world.lock().unwrap().most_at_a_time, AT_A_TIME);
        bench.updates.close();
        tokio::time::sleep(Duration::from_secs(115)).await;
        let world = bench.world.lock().unwrap();
        let mut seconds = HashMap::<u64, usize>::new();
        for (_, at) in &world.asked[1000..] {
            *seconds.entry(at.duration_since(world.asked[0].1).as_secs()).or_default() += 1;
        }
        assert_eq!(world.asked.len(), 2000);
        assert!(seconds.values().all(|&in_one_second| in_one_second < 250), "{seconds:?}");
    }
}
